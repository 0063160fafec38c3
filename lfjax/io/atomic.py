"""Files that are either whole or not there, on disks that may be full."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lfjax.io.disk_space import no_space, no_space_error, require_space
from lfjax.io.owner import is_alive, this_host

SEPARATOR = "~"  # between the parts of a temporary name


@contextmanager
def writing(path: str | Path, size: int | None = None) -> Iterator[Path]:
    """Write a file under a temporary name beside `path` and move it there if all went well.

    The folder of `path` is made if it is missing. The temporary name ends as `path` does, for writers that go by the
    suffix. If the block raises, the temporary file is removed and what stood at `path` before stays. The content reaches the
    disk before the name does, so that a power failure leaves the old file or the new one. Temporary files that a killed
    process of this machine has left for the same `path` are removed.

    Args:
        path: where the file shall be.
        size: bytes that the file will have, if known; the block is not entered where the disk has less.

    Yields:
        The temporary path to write to.

    Raises:
        NoSpaceError: the disk is full, or a quota is reached.
        OSError: the folder cannot be made or the file not be moved.
    """
    target = Path(path)
    if size is not None:
        require_space(target, size)
    made = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        temporary = _temporary(target)
    except OSError as error:
        _remove_folders(made)
        raise (no_space_error(target, size, error) if no_space(error) else error) from None
    written = 0
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
        sync(target.parent)
    except Exception as error:
        with suppress(OSError):
            written = temporary.stat().st_size
        temporary.unlink(missing_ok=True)  # first, so that the message tells the space without it
        if no_space(error):
            raise no_space_error(target, size, error, written=written) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        if not target.exists():
            _remove_folders(made)


@contextmanager
def together(*paths: Path) -> Iterator[None]:
    """Files that are useless without one another: if the block raises, those that were not there before are removed."""
    new = [path for path in paths if not path.exists()]
    made = [folder for folder in paths[0].parents if not folder.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        _remove_folders(made)
        raise


def sync(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Raises:
        OSError: the disk is full or broken.
    """
    if os.name == "nt" and Path(path).is_dir():  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not Path(path).is_dir():  # some file systems synchronise no folders
            raise
    finally:
        os.close(handle)


def _temporary(target: Path) -> Path:
    # not tempfile.mkstemp: its files are private to the user (0600), and would stay so after the move
    unique = SEPARATOR.join((this_host(), str(os.getpid()), uuid.uuid4().hex[:8]))
    return target.with_name(f".{target.name[:100]}{SEPARATOR}{unique}{target.suffix}")


def _remove_stale(target: Path) -> None:
    """Remove the temporary files of this target whose processes are gone."""
    head, host = (re.escape(part) for part in (f".{target.name[:100]}{SEPARATOR}", f"{this_host()}{SEPARATOR}"))
    name = re.compile(f"{head}{host}([0-9]+){SEPARATOR}[0-9a-f]{{8}}{re.escape(target.suffix)}")
    with os.scandir(target.parent) as entries:
        for entry in entries:
            found = name.fullmatch(entry.name)
            if found is not None and not is_alive(int(found[1])):
                with suppress(OSError):
                    os.unlink(entry.path)


def _remove_folders(made: list[Path]) -> None:
    """Remove new folders, the innermost first, where they are empty."""
    with suppress(OSError):
        for folder in made:
            folder.rmdir()
