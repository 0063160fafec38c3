"""New HDF5 files, whole or not there: a full disk ends in an error, where HDF5 alone ends in a segmentation fault.

HDF5 writes most of its data when a file is closed. If such a write fails, the library keeps a half-closed file, and the process
crashes when it ends. So HDF5 is given a file whose calls do not fail: the first error is kept, and raised when HDF5 is done.
"""

from __future__ import annotations

import _weakrefset
import gc
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import h5py

from lfjax.io.atomic import writing

RETRY_S = 0.002  # after which a signal is looked at again that came while HDF5 was busy
SMALL_BYTES = 2**20  # what does not fit on the disk is kept up to this size per call: HDF5 reads its metadata again


@contextmanager
def new_hdf5(path: str | Path, size: int | None = None) -> Iterator[h5py.File]:
    """Write an HDF5 file under a temporary name and move it to `path` if all went well; see `lfjax.io.writing`.

    Args:
        path: where the file shall be.
        size: bytes that the file will have, if known; the block is not entered where the disk has less.

    Yields:
        The file to write to.

    Raises:
        NoSpaceError: the disk is full, or a quota is reached.
        OSError: the folder cannot be made, or the file not be written.
    """
    with writing(path, size) as temporary:
        target = _Target(temporary)
        try:
            with _interrupted_later(), h5py.File(target, "w") as file:
                yield file
        finally:
            target.close()
            if target.error is not None:
                raise target.error


class _Target:
    """A new file for HDF5 whose calls do not fail.

    Attributes:
        error: the first error; None: all went well.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w+b", buffering=0)
        self._at, self._end = 0, 0
        self._unwritten: list[tuple[int, bytes]] = []
        self.error: Exception | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        if self.error is None:
            try:
                self._file.seek(self._at)
                while done < len(view):  # one call writes 2 GiB at most
                    done += self._file.write(view[done:])
            except Exception as error:
                self.error = self.error or error
        if self.error is not None and len(view) <= SMALL_BYTES:
            self._unwritten.append((self._at, bytes(view)))
        self._at += len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def read(self, size: int) -> bytes:
        data = bytearray(size)
        self.readinto(data)
        return bytes(data)

    def readinto(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        view[:] = bytes(len(view))
        try:
            self._file.seek(self._at)
            done = count = self._file.readinto(view)
            while count and done < len(view):
                count = self._file.readinto(view[done:])
                done += count
        except Exception as error:
            self.error = self.error or error
        for start, kept in self._unwritten:
            low, high = max(start, self._at), min(start + len(kept), self._at + len(view))
            if low < high:
                view[low - self._at : high - self._at] = kept[low - start : high - start]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._end = self._at if size is None else size
        try:
            if self.error is None:
                self._file.truncate(self._end)
        except Exception as error:
            self.error = self.error or error
        return self._end

    def flush(self) -> None:
        """Nothing waits in memory."""

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error


_WEAK = {weakref.__file__, _weakrefset.__file__}  # what runs when an object goes that is referred to weakly
_CODES = {value.__code__ for value in vars(_Target).values() if hasattr(value, "__code__")}


def _unheard(frame: FrameType | None) -> bool:
    """Whether an exception raised in `frame` ends nowhere: HDF5 calls the target, or Python collects what nobody refers to."""
    collecting = {callback.__code__ for callback in gc.callbacks if hasattr(callback, "__code__")}
    while frame is not None:
        code = frame.f_code
        if code in _CODES or code in collecting or code.co_name == "__del__" or code.co_filename in _WEAK:
            return True
        frame = frame.f_back
    return False


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Ctrl-C, and what a program treats alike, waits where it would be lost: see `_unheard`."""
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    mine = {number: handler for number, handler in usual.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or not mine:
        yield
        return
    again: list[threading.Timer] = []
    waiting: set[int] = set()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not _unheard(frame):
            waiting.discard(number)
            mine[signal.Signals(number)](number, frame)
            return
        waiting.add(number)
        again.append(threading.Timer(RETRY_S, signal.raise_signal, [number]))
        again[-1].start()

    for number in mine:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for timer in again:
            timer.cancel()
        for number, handler in mine.items():
            signal.signal(number, handler)
        for late in waiting:
            signal.raise_signal(late)
