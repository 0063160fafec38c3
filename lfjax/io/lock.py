"""One process per result: a lock beside a result whose state is kept, with its owner's name in it.

The lock is that of the operating system (`flock`), which lets go when a process ends in any way: a file that a killed process
leaves behind locks nothing, and the next process takes it over. Where a file system has no such locks, the process that the
file names counts, if it is one of this machine.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from lfjax.errors import BusyError
from lfjax.io.owner import is_alive, this_host

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
OWNER_BYTES = 4096

_held: dict[tuple[Path, int], int] = {}  # lock file and thread -> how often it is held


@contextmanager
def locked(path: str | Path, number: int = 0) -> Iterator[None]:
    """Hold the lock of a result during the block; within it, the same thread may take it again.

    Args:
        path: file or folder of the result; the lock is the file `.NAME.lock` beside it, which is removed after the block.
        number: number of this process among several that share the result; each has a lock of its own.

    Raises:
        BusyError: another process holds it; the message names that process, its machine, and since when.
        OSError: the folder cannot be made, or the file not be written.
    """
    target = Path(path)
    place = lock_file(target, number).absolute()
    mine = (place, threading.get_ident())
    if mine in _held:
        _held[mine] += 1
        try:
            yield
        finally:
            _held[mine] -= 1
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    handle = _acquire(target, place)
    _held[mine] = 1
    try:
        yield
    finally:
        del _held[mine]
        with suppress(OSError):
            place.unlink()  # before the lock goes: afterwards it may be another process's
        os.close(handle)


def lock_file(path: str | Path, number: int = 0) -> Path:
    """The file that locks a result for process `number` of several."""
    target = Path(path)
    return target.with_name(f".{target.name}.lock" if number == 0 else f".{target.name}.{number}.lock")


def _acquire(target: Path, place: Path) -> int:
    while True:
        handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _take(handle):
                raise BusyError(f"{target}: is being written by {_owner(handle)}; wait for it, or end it")
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(place)):  # else its last owner has removed it meanwhile
                    _sign(handle)
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _take(handle: int) -> bool:
    """Take the lock of an open file; False: another process has it."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return not _owned_here(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return not _owned_here(handle)
    return True


def _owned_here(handle: int) -> bool:
    """Whether another running process of this machine has signed the file."""
    about = _read(handle)
    pid = about.get("pid")
    return about.get("host") == this_host() and isinstance(pid, int) and pid != os.getpid() and is_alive(pid)


def _sign(handle: int) -> None:
    about = {"pid": os.getpid(), "host": this_host(), "since": datetime.now().astimezone().isoformat(timespec="seconds")}
    with suppress(OSError):  # on a full disk it locks without a name
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(about).encode(), 0)


def _read(handle: int) -> dict[str, object]:
    try:
        about = json.loads(os.pread(handle, OWNER_BYTES, 0))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _owner(handle: int) -> str:
    """The owner of a lock, for messages."""
    for _ in range(10):
        about = _read(handle)
        if about:
            return f"process {about.get('pid')} on {about.get('host')} since {about.get('since')}"
        time.sleep(0.02)  # it has the lock, and is about to sign
    return "another process"
