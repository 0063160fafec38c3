"""Low-rank form of a light-field operator, with its measured error.

The PSFs of neighbouring voxels and the images of neighbouring pixels are alike: the rank of a light field follows the
optics, not the sampling. With orthonormal U over the pixels of a lenslet and V over the voxels under it,

    H^(f) ~ U (U^T H^(f) V) V^T   at every frequency f:

so volume and image pass through fewer channels, and the matrices shrink on both sides (a truncated higher-order SVD;
De Lathauwer, De Moor, Vandewalle, SIAM J. Matrix Anal. Appl. 21, 1253 (2000)).
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from functools import partial
from typing import TypeVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import ParameterError, require
from lfjax.linop import LinearOperator
from lfjax.optics.lightfield.channels import ChannelBasis
from lfjax.optics.lightfield.spectral import ChannelMatrices, Compression, Precision

ROUNDING = 1.7e-3  # |error| / |matrices| of rounding to bfloat16, measured on a PSF

Operator = TypeVar("Operator", bound=LinearOperator)


def compress(op: Operator, kernel: ChannelMatrices, rtol: float, precision: Precision | None, measure: bool) -> Operator:
    """An operator in low-rank form, see `LightField.compress`; `kernel` is `op.kernel`."""
    require(0 < rtol < 1, "rtol", rtol, "a number between 0 and 1")
    precision = kernel.precision if precision is None else precision
    require(precision in get_args(Precision), "precision", precision, f"one of {', '.join(get_args(Precision))}")
    if kernel.compression is not None:
        raise ParameterError(f"compressed already, to rtol = {kernel.compression.rtol:g}: expected the exact operator")
    if kernel.precision == "bfloat16":
        raise ParameterError("operator in bfloat16, expected float32: the error is measured against exact matrices")
    if isinstance(kernel.matrices, jax.core.Tracer):
        raise ParameterError("compress under jax.jit or jax.grad: expected an operator of known values; compress it outside")
    small = low_rank(kernel, rtol, precision)

    def with_kernel(new: ChannelMatrices) -> Operator:
        return eqx.tree_at(lambda o: o.kernel, op, new)

    if measure:
        seconds = (_seconds(op), _seconds(with_kernel(small)))
        assert small.compression is not None, "low_rank sets it"
        small = small.replace(compression=dataclasses.replace(small.compression, seconds=seconds))
    return with_kernel(small)


def low_rank(kernel: ChannelMatrices, rtol: float, precision: Precision) -> ChannelMatrices:
    """The matrices between the leading components of both sides, within rtol in the Frobenius norm over all frequencies."""
    spare = rtol**2 - (ROUNDING**2 if precision == "bfloat16" else 0.0)
    require(spare > 0, "rtol", rtol, f"more than {ROUNDING:g}, the rounding of bfloat16")
    weights = _multiplicity(kernel)
    grams = _grams(kernel, weights)
    image, volume = (_eigen(np.asarray(g, np.float64), b) for g, b in zip(grams, (kernel.image, kernel.volume), strict=True))
    ranks = _ranks(image[0], volume[0], spare)
    dtype = kernel.matrices.dtype
    bases = [_keep(b, s, r, dtype) for b, s, r in zip((kernel.image, kernel.volume), (image, volume), ranks, strict=True)]
    u, v = (jnp.asarray(np.eye(b.size), dtype) if b.components is None else b.components for b in bases)
    core, error = _project(kernel, u, v, weights, narrow=precision == "bfloat16")
    memory = (kernel.matrices.nbytes / 2**30, core.nbytes / 2**30)
    channels = (kernel.image.size, kernel.volume.size)
    report = Compression(rtol, float(error), channels, ranks, memory, None)
    return kernel.replace(matrices=core, image=bases[0], volume=bases[1], precision=precision, compression=report)


def _multiplicity(kernel: ChannelMatrices) -> Float[np.ndarray, "ky kx"]:
    """Number of frequencies of the whole spectrum that each kept frequency represents."""
    ky, kx = kernel.matrices.shape[:2]
    counts = []
    for kept, period in zip((ky, kx), kernel.shape, strict=True):
        k = np.arange(kept)
        counts.append(np.where((kept == period) | (k == 0) | (2 * k == period), 1.0, 2.0))
    return counts[0][:, None] * counts[1][None, :]


def _row(kernel: ChannelMatrices, matrices: Array) -> Float[Array, "kx q o i"]:
    """Matrices of a row of frequencies in float32 or wider, with real and imaginary parts on an axis of their own."""
    wide = matrices.astype(jnp.promote_types(matrices.dtype, jnp.float32))
    return wide.reshape(wide.shape[0], kernel.rows, -1, wide.shape[-1])


@jax.jit
def _grams(kernel: ChannelMatrices, weights: Array) -> tuple[Float[Array, "o o"], Float[Array, "i i"]]:
    """Sums over all frequencies of Re H^ H^^H and of Re H^^H H^: inner products of pixels and of the images of voxels."""

    def add(total: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        h, weight = _row(kernel, row[0]), row[1][:, None, None, None]
        image = jnp.einsum("kqoi,kqpi->op", weight * h, h, precision=jax.lax.Precision.HIGHEST)
        volume = jnp.einsum("kqoi,kqoj->ij", weight * h, h, precision=jax.lax.Precision.HIGHEST)
        return (total[0] + image, total[1] + volume), None

    o, i = kernel.image.size, kernel.volume.size
    dtype = jnp.promote_types(kernel.matrices.dtype, jnp.float32)
    zero = (jnp.zeros((o, o), dtype), jnp.zeros((i, i), dtype))
    return jax.lax.scan(add, zero, (kernel.matrices, jnp.asarray(weights, dtype)))[0]


Spectrum = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Eigenvalues, largest first, eigenvectors as rows, and the parity class of each."""


def _eigen(gram: Float[np.ndarray, "c c"], basis: ChannelBasis) -> Spectrum:
    """Eigenvectors of a Gram matrix; where the coordinates have parities, each is even or odd in y and in x."""
    classes = np.zeros(len(gram), int) if basis.odd is None else np.asarray(basis.odd[0]) * 2 + np.asarray(basis.odd[1])
    values, vectors, kinds = [], [], []
    for kind in np.unique(classes):
        members = np.flatnonzero(classes == kind)
        value, vector = np.linalg.eigh(gram[np.ix_(members, members)])
        rows = np.zeros((len(members), len(gram)))
        rows[:, members] = vector.T
        values.append(value)
        vectors.append(rows)
        kinds.append(np.full(len(members), kind))
    order = np.argsort(-np.concatenate(values), kind="stable")
    return np.maximum(np.concatenate(values)[order], 0), np.concatenate(vectors)[order], np.concatenate(kinds)[order]


def _ranks(image: np.ndarray, volume: np.ndarray, spare: float) -> tuple[int, int]:
    """Ranks with the smallest product whose discarded tails sum to at most `spare`; the sum bounds the squared error."""
    tails = [np.append(np.cumsum(v[::-1])[::-1], 0.0) / v.sum() for v in (image, volume)]
    best = (len(image), len(volume))
    for r in range(1, len(image) + 1):
        fits = np.flatnonzero(tails[1] <= spare - tails[0][r])
        if len(fits) and r * max(fits[0], 1) < best[0] * best[1]:
            best = (r, max(int(fits[0]), 1))
    return best


def _keep(basis: ChannelBasis, spectrum: Spectrum, rank: int, dtype: np.dtype) -> ChannelBasis:
    """The leading components, grouped by parity; the basis itself if all are kept."""
    chosen = np.argsort(spectrum[2][:rank], kind="stable")
    kinds = spectrum[2][chosen]
    odd = (tuple(bool(k) for k in kinds // 2), tuple(bool(k) for k in kinds % 2))
    if rank == basis.size:
        return basis
    components = jnp.asarray(spectrum[1][chosen], dtype)
    return basis.keep(components, None if basis.odd is None else odd)


@partial(jax.jit, static_argnames="narrow")
def _project(
    kernel: ChannelMatrices, u: Float[Array, "r o"], v: Float[Array, "s i"], weights: Array, *, narrow: bool
) -> tuple[Float[Array, "ky kx p s"], Float[Array, ""]]:
    """The core U^T H^ V, in bfloat16 if `narrow`, and its relative error |H - U core V^T| / |H|."""

    def row(args: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        h, weight = _row(kernel, args[0]), args[1]
        core = jnp.einsum("ro,kqoi,si->kqrs", u, h, v, precision=jax.lax.Precision.HIGHEST)
        core = core.astype(jnp.bfloat16 if narrow else kernel.matrices.dtype)
        rest = h - jnp.einsum("ro,kqrs,si->kqoi", u, core.astype(h.dtype), v, precision=jax.lax.Precision.HIGHEST)
        lost, whole = (jnp.sum(weight * jnp.sum(matrix**2, (1, 2, 3))) for matrix in (rest, h))
        return core.reshape(core.shape[0], -1, core.shape[-1]), lost, whole

    core, lost, whole = jax.lax.map(row, (kernel.matrices, jnp.asarray(weights, u.dtype)))
    return core, jnp.sqrt(lost.sum() / whole.sum())


@jax.jit
def _round_trip(op: LinearOperator, x: Array) -> Array:
    return op.rmatvec(op.matvec(x))


def _seconds(op: LinearOperator) -> float:
    """Time of H and H^T on one frame: the median of five runs after the first."""
    x = jnp.asarray(np.random.default_rng(0).random(op.in_shape), jnp.result_type(float))
    jax.block_until_ready(_round_trip(op, x))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(_round_trip(op, x))
        times.append(time.perf_counter() - start)
    return statistics.median(times)
