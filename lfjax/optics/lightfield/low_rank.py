"""Low-rank form of a light-field operator, with the error it brings, measured.

The PSFs of neighbouring voxels and the images of neighbouring pixels are alike: the rank of a light field follows the
optics, not the sampling. With orthonormal U over the pixels of a lenslet and V over the voxels under it,

    H^(f) ~ U (U^T H^(f) V) V^T   at every frequency f:

volume and image pass through fewer channels, and the matrices shrink on both sides (a truncated higher-order SVD;
De Lathauwer, De Moor, Vandewalle, SIAM J. Matrix Anal. Appl. 21, 1253 (2000)).
"""

from __future__ import annotations

import dataclasses
import statistics
import time
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

ROUNDING = 1.7e-3  # |error| / |matrices| that bfloat16 brings, measured on a PSF

Operator = TypeVar("Operator", bound=LinearOperator)


def compress(op: Operator, kernel: ChannelMatrices, rtol: float, precision: Precision | None, measure: bool) -> Operator:
    """See `LightField.compress`; `kernel` is `op.kernel`."""
    require(0 < rtol < 1, "rtol", rtol, "a number between 0 and 1")
    precision = kernel.precision if precision is None else precision
    require(precision in get_args(Precision), "precision", precision, f"one of {', '.join(get_args(Precision))}")
    if kernel.compression is not None:
        raise ParameterError(f"compressed already, to rtol = {kernel.compression.rtol:g}: expected the exact operator")
    if kernel.precision == "bfloat16":
        raise ParameterError("operator in bfloat16, expected float32: the error is measured against exact matrices")
    if isinstance(kernel.matrices, jax.core.Tracer):
        raise ParameterError("compress under jax.jit or jax.grad: expected an operator of known values, compressed before")
    small = low_rank(kernel, rtol, precision)

    def with_kernel(new: ChannelMatrices) -> Operator:
        return eqx.tree_at(lambda o: o.kernel, op, new)

    if measure:
        seconds = (_seconds(op), _seconds(with_kernel(small)))
        assert small.compression is not None
        small = small.replace(compression=dataclasses.replace(small.compression, seconds=seconds))
    return with_kernel(small)


def low_rank(kernel: ChannelMatrices, rtol: float, precision: Precision) -> ChannelMatrices:
    """The matrices between the leading components of both sides, rtol apart in the Frobenius norm over all frequencies."""
    spare = rtol**2 - (ROUNDING**2 if precision == "bfloat16" else 0.0)
    require(spare > 0, "rtol", rtol, f"more than {ROUNDING:g}, the rounding of bfloat16")
    weights = _multiplicity(kernel)
    grams = _grams(kernel, weights)
    image, volume = (_eigen(np.asarray(g, np.float64), b) for g, b in zip(grams, (kernel.image, kernel.volume), strict=True))
    ranks = _ranks(image[0], volume[0], spare)
    dtype = kernel.matrices.dtype
    bases = [_keep(b, s, r, dtype) for b, s, r in zip((kernel.image, kernel.volume), (image, volume), ranks, strict=True)]
    u, v = (jnp.eye(b.size, dtype=dtype) if b.components is None else b.components for b in bases)
    core = _project(kernel, u, v)
    core = core.astype(jnp.bfloat16) if precision == "bfloat16" else core
    error = _error(kernel, core, u, v, weights)
    memory = (kernel.matrices.nbytes / 2**30, core.nbytes / 2**30)
    channels = (kernel.image.size, kernel.volume.size)
    told = Compression(rtol, float(error), channels, ranks, memory, None)
    return kernel.replace(matrices=core, image=bases[0], volume=bases[1], precision=precision, compression=told)


def _multiplicity(kernel: ChannelMatrices) -> Float[np.ndarray, "ky kx"]:
    """How many frequencies of the whole spectrum each kept one stands for."""
    ky, kx = kernel.matrices.shape[:2]
    counts = []
    for kept, period in zip((ky, kx), kernel.shape, strict=True):
        k = np.arange(kept)
        counts.append(np.where((kept == period) | (k == 0) | (2 * k == period), 1.0, 2.0))
    return counts[0][:, None] * counts[1][None, :]


def _row(kernel: ChannelMatrices, matrices: Array) -> Float[Array, "kx q o i"]:
    """Matrices of a row of frequencies in float32 or wider, real and imaginary part apart if there are both."""
    wide = matrices.astype(jnp.promote_types(matrices.dtype, jnp.float32))
    return wide.reshape(wide.shape[0], kernel.rows, -1, wide.shape[-1])


@jax.jit
def _grams(kernel: ChannelMatrices, weights: Array) -> tuple[Float[Array, "o o"], Float[Array, "i i"]]:
    """Sums over all frequencies of Re H^ H^^H and of Re H^^H H^: inner products of the images of pixels and of voxels."""

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
"""Eigenvalues, largest first, eigenvectors as rows, and the class of parities of each."""


def _eigen(gram: Float[np.ndarray, "c c"], basis: ChannelBasis) -> Spectrum:
    """Eigenvectors that are even or odd in y and in x, where the coordinates are."""
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
    """The ranks of the smallest product whose two discarded tails, whose sum bounds the error, stay within `spare`."""
    tails = [np.append(np.cumsum(v[::-1])[::-1], 0.0) / v.sum() for v in (image, volume)]
    best = (len(image), len(volume))
    for r in range(1, len(image) + 1):
        fits = np.flatnonzero(tails[1] <= spare - tails[0][r])
        if len(fits) and r * max(fits[0], 1) < best[0] * best[1]:
            best = (r, max(int(fits[0]), 1))
    return best


def _keep(basis: ChannelBasis, spectrum: Spectrum, rank: int, dtype: np.dtype) -> ChannelBasis:
    """The leading components, those of a parity together; the basis itself if all are kept."""
    chosen = np.argsort(spectrum[2][:rank], kind="stable")
    kinds = spectrum[2][chosen]
    odd = (tuple(bool(k) for k in kinds // 2), tuple(bool(k) for k in kinds % 2))
    if rank == basis.size:
        return basis
    components = jnp.asarray(spectrum[1][chosen], dtype)
    return basis.keep(components, None if basis.odd is None else odd)


@jax.jit
def _project(kernel: ChannelMatrices, u: Float[Array, "r o"], v: Float[Array, "s i"]) -> Float[Array, "ky kx p s"]:
    """U^T H^ V."""

    def row(matrices: Array) -> Array:
        core = jnp.einsum("ro,kqoi,si->kqrs", u, _row(kernel, matrices), v, precision=jax.lax.Precision.HIGHEST)
        return core.reshape(core.shape[0], -1, core.shape[-1])

    return jax.lax.map(row, kernel.matrices)


@jax.jit
def _error(kernel: ChannelMatrices, core: Array, u: Array, v: Array, weights: Array) -> Float[Array, ""]:
    """|H - U core V^T| / |H|."""

    def row(args: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        h, small = _row(kernel, args[0]), _row(kernel, args[1])
        rest = h - jnp.einsum("ro,kqrs,si->kqoi", u, small, v, precision=jax.lax.Precision.HIGHEST)
        return jnp.sum(args[2] * jnp.sum(rest**2, (1, 2, 3))), jnp.sum(args[2] * jnp.sum(h**2, (1, 2, 3)))

    rest, whole = jax.lax.map(row, (kernel.matrices, core, jnp.asarray(weights, u.dtype)))
    return jnp.sqrt(rest.sum() / whole.sum())


def _seconds(op: LinearOperator) -> float:
    """H and H^T of one frame: median of five runs after the first."""
    step = jax.jit(lambda op, x: op.rmatvec(op.matvec(x)))
    x = jax.random.uniform(jax.random.key(0), op.in_shape)
    jax.block_until_ready(step(op, x))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(step(op, x))
        times.append(time.perf_counter() - start)
    return statistics.median(times)
