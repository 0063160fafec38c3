"""Readers with one fault each, by which the tests see that the fuzzer finds it."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from lfjax.errors import FileError
from tests.fuzz.readers import Reader


def _text(folder: Path) -> Path:
    (folder / "a.bin").write_bytes(b"good")
    return folder / "a.bin"


def _good(path: Path) -> bool:
    return os.path.isfile(path) and path.stat().st_mode & 0o400 != 0 and path.read_bytes() == b"good"


def crash(path: Path) -> Any:
    if not _good(path):
        os.kill(os.getpid(), signal.SIGSEGV)


def raw(path: Path) -> Any:
    if not _good(path):
        raise KeyError("a")


def unclear(path: Path) -> Any:
    if not _good(path):
        raise FileError("something is wrong")


def grown(path: Path) -> Any:
    if not _good(path):
        return np.ones(2**27 + 2**24)  # 1.1 GiB, touched


def asked(path: Path) -> Any:
    """Asks for far more than there is, and tells it as an error of the file."""
    if not _good(path):
        try:
            return np.ones(2**40)
        except MemoryError as error:
            raise FileError(f"{path}: cannot be read") from error


def silent(path: Path) -> Any:
    return np.array([1.0 if _good(path) else np.nan])


FAULTY = {f.__name__: Reader(f.__name__, _text, f, ()) for f in (crash, raw, unclear, grown, asked, silent)}
KINDS = {"crash": "crash", "raw": "raw", "unclear": "unclear", "grown": "blow-up", "asked": "blow-up", "silent": "silent"}
