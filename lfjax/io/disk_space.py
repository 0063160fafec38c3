"""Space on disks: whether a file fits, and errors of full disks in one line."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lfjax.errors import NoSpaceError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of a full disk, a quota, and a limit of the size of files."""
TEXTS = re.compile(r"no space left|quota exceeded|file too large|[0-9]+ requested and [0-9]+ written", re.IGNORECASE)


def free_bytes(path: str | Path) -> int | None:
    """Bytes that a new file may have, by the free space of its disk and the limit of this process. None: not known.

    Args:
        path: the file; its folder need not exist.
    """
    folder = next(parent for parent in Path(path).absolute().parents if parent.exists())
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    limit = _file_limit()
    free = usage.free if usage.total else None  # some network file systems tell zeros
    return free if limit is None else limit if free is None else min(free, limit)


def require_space(path: str | Path, size: int) -> None:
    """Refuse to begin with a file that does not fit on its disk.

    Args:
        path: the file.
        size: bytes that it will have.

    Raises:
        NoSpaceError: the disk has less, or this process may not write files of this size.
    """
    free = free_bytes(path)
    if free is not None and size > free:
        raise NoSpaceError(errno.ENOSPC, _told(path, in_words(size), free))


def reserve(path: str | Path, handle: int, size: int) -> None:
    """Give an open file its space on the disk, so that a memory map of it cannot meet a full disk, which kills the process.

    Args:
        path: the file, or its folder, for messages.
        handle: descriptor of the file.
        size: its bytes.

    Raises:
        NoSpaceError: the disk has less.
    """
    require_space(path, size)
    if hasattr(os, "posix_fallocate"):
        with on_disk(path, size):
            os.posix_fallocate(handle, 0, size)


def no_space(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is that of a full disk.

    Libraries wrap these errors: HDF5 gives the number in a text, NumPy tells how many values it could write.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, OSError) and link.errno in FULL:
            return True
        if not isinstance(link, (KeyboardInterrupt, SystemExit)) and TEXTS.search(str(link)):
            return True
        link = link.__cause__ or link.__context__
    return False


def no_space_error(path: str | Path, size: int | None, error: BaseException, *, written: int = 0) -> NoSpaceError:
    """The error of a full disk with the file in it, in one line.

    Args:
        path: the file.
        size: bytes that it should have. None: not known.
        error: the error that came.
        written: bytes that it had when the disk was full.
    """
    if isinstance(error, NoSpaceError):
        return error
    number = error.errno if isinstance(error, OSError) and error.errno in FULL else errno.ENOSPC
    why = {errno.EDQUOT: " (a quota is reached)", errno.EFBIG: " (a limit of the size of files is reached)"}
    need = in_words(size) if size is not None else f"more than {in_words(written)}"
    return NoSpaceError(number, _told(path, need, free_bytes(path)) + why.get(number or 0, ""))


@contextmanager
def on_disk(path: str | Path, size: int | None = None) -> Iterator[None]:
    """Turn the error of a full disk that comes from the block into a `NoSpaceError` that names the file.

    Args:
        path: the file or folder that the block writes.
        size: bytes that it will have. None: not known.

    Raises:
        NoSpaceError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not no_space(error):
            raise
        raise no_space_error(path, size, error) from error


def in_words(size: float) -> str:
    """A number of bytes with a unit.

    >>> in_words(2.5e9), in_words(31e6), in_words(4096), in_words(0)
    ('2.50 GB', '31.0 MB', '4.10 kB', '0 bytes')
    """
    if size < 1000:
        return f"{size:.0f} bytes"
    unit, scale = next((pair for pair in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)) if size >= pair[1]), ("kB", 1e3))
    value = size / scale
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {unit}"


def _told(path: str | Path, need: str, free: int | None) -> str:
    return f"no space left: {path} needs {need}" + ("" if free is None else f", {in_words(free)} free")


def _file_limit() -> int | None:
    """The largest file that this process may write, in bytes. None: there is no limit."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit
