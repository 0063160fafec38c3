"""Whether two runs have the same inputs."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lfjax.movies.frames import Frames

SAMPLES = 16  # frames that stand for a movie: noise alone makes any two recordings differ in each
WHOLE_BYTES = 2**28  # arrays up to this size are read whole


def fingerprint(*inputs: Frames | ArrayLike | None) -> str:
    """SHA-256 of inputs, to tell whether two runs share them: their places in the list, shapes, types and contents.

    Arrays of up to 256 MiB count whole; of movies in files, and of larger arrays, 16 frames count, spread from the first to the
    last. Names of files do not count, so that a run resumes after its recording has been moved.

    Args:
        *inputs: movies (t, y, x), arrays, numbers, or None.
    """
    digest = hashlib.sha256()
    for given in inputs:
        if given is None:
            digest.update(b"none;")
            continue
        array: Any = given if isinstance(given, Frames) and not _small(given) else np.asarray(given)
        digest.update(f"{tuple(array.shape)} {np.dtype(array.dtype).str};".encode())
        if isinstance(array, np.ndarray) and (array.ndim == 0 or array.nbytes <= WHOLE_BYTES):
            digest.update(np.ascontiguousarray(array).tobytes())
            continue
        for number in np.unique(np.linspace(0, len(array) - 1, SAMPLES).round().astype(int)):
            digest.update(np.ascontiguousarray(array[int(number)]).tobytes())
    return digest.hexdigest()


def _small(given: Any) -> bool:
    """Whether it is an array in memory, or on a device, that is read whole."""
    return not isinstance(given, np.memmap) and hasattr(given, "__array__") and getattr(given, "nbytes", np.inf) <= WHOLE_BYTES
