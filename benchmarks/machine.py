"""Rates of the machine, measured in the same run as the figures that are compared with them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

RUNS = 5


def seconds(function: Callable[..., Any], *arguments: Any, runs: int = RUNS) -> float:
    """Median time of a call until its result is ready, after one warm-up call."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@dataclass(frozen=True)
class Limits:
    """Rates of this machine through JAX, each the fastest over a few sizes.

    Attributes:
        gemm: flop/s of a float32 matrix product in full precision.
        tf32_gemm: the same at JAX's default precision, which is tf32 on tensor cores.
        bfloat16_gemm: flop/s of a bfloat16 matrix product.
        complex_gemm: flop/s of a complex64 matrix product, 8 flops per multiply-add.
        fft: flop/s of batched real 2-D transforms, 2.5 n log2 n flops for n samples.
        memory: bytes/s read and written by an element-wise operation in place.
    """

    gemm: float
    tf32_gemm: float
    bfloat16_gemm: float
    complex_gemm: float
    fft: float
    memory: float

    @classmethod
    def measure(cls, *, toy: bool) -> Limits:
        """Measure all rates, in some seconds."""
        sizes = (256,) if toy else (1024, 2048, 4096)
        if jax.default_backend() != "cpu" and not toy:
            sizes += (8192,)

        def rate(n: int, dtype: str, flops: int = 2, precision: jax.lax.Precision = jax.lax.Precision.HIGHEST) -> float:
            a = jnp.asarray(np.random.default_rng(0).standard_normal((n, n)), dtype)
            return flops * n**3 / seconds(jax.jit(partial(jnp.matmul, precision=precision)), a, a)

        default = jax.lax.Precision.DEFAULT

        def transform(n: int) -> float:
            x = jnp.ones((64, n, n), jnp.float32)
            return 64 * 2.5 * n * n * np.log2(n * n) / seconds(jax.jit(jnp.fft.rfft2), x)

        return cls(
            max(rate(n, "float32") for n in sizes),
            max(rate(n, "float32", precision=default) for n in sizes),
            max(rate(n, "bfloat16", precision=default) for n in (sizes[:1] if jax.default_backend() == "cpu" else sizes)),
            max(rate(n, "complex64", 8) for n in sizes[:2]),
            max(transform(n) for n in ((64,) if toy else (64, 128, 256))),
            _memory(2**22 if toy else 2**27),
        )


def _memory(number: int) -> float:
    step = jax.jit(lambda x: x * 0.999, donate_argnums=0)
    x = step(jnp.ones(number, jnp.float32))
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        x = jax.block_until_ready(step(x))
        times.append(time.perf_counter() - start)
    return 8 * number / statistics.median(times)
