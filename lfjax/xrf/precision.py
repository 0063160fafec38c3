"""64-bit numbers, and one thread for the small matrices of the fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from threadpoolctl import threadpool_limits


@contextmanager
def in_double() -> Iterator[None]:
    """64-bit arrays of JAX, and BLAS in one thread: matrices of 100 columns are slower on several, where others work beside."""
    with jax.enable_x64(True), threadpool_limits(1, "blas"):
        yield
