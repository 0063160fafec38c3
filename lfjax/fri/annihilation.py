"""Power sums in one dimension: annihilating filter, matrix pencil, Cadzow denoising, generic FRI, and model order.

    s[j] = sum_k a_k u_k^j

is annihilated by the filter whose roots are the nodes u_k: K nodes from 2 K numbers (Vetterli, Marziliano & Blu, IEEE Trans.
Signal Process. 50, 1417 (2002)). All functions are pure and compiled whole; batch them by `jax.vmap`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, Inexact, Int

from lfjax.errors import require
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.refine import least_squares, left_divide, require_x64
from lfjax.fri.search import alternating_projection


def hankel(s: Inexact[Array, " n"], columns: int) -> Inexact[Array, "rows columns"]:
    """H[i, j] = s[i + j]."""
    rows = s.shape[0] - columns + 1
    require(rows >= 1 and columns >= 1, "columns", columns, f"1 to {s.shape[0]}, the number of features")
    return s[np.add.outer(np.arange(rows), np.arange(columns))]


@eqx.filter_jit
def prony(s: Inexact[ArrayLike, " n"], count: int) -> Complex[Array, " k"]:
    """Nodes as roots of the annihilating filter, by total least squares: the last right singular vector.

    Args:
        s: features, 2 K or more.
        count: K, the number of nodes.
    """
    require_x64("prony")
    s = jnp.asarray(s)
    _require_features(len(s), count)
    filter_ = jnp.linalg.svd(hankel(s, count + 1))[2][-1].conj()
    return _roots(filter_)


@eqx.filter_jit
def matrix_pencil(s: Inexact[ArrayLike, " n"], count: int) -> Complex[Array, " k"]:
    """Nodes as eigenvalues of the shift on the signal space of the squarest Hankel matrix (Hua & Sarkar 1990; ESPRIT).

    Args:
        s: features, 2 K or more.
        count: K, the number of nodes.
    """
    require_x64("matrix_pencil")
    s = jnp.asarray(s)
    _require_features(len(s), count)
    columns = max(len(s) // 2, count)
    signal = jnp.linalg.svd(hankel(s, columns), full_matrices=False)[0][:, :count]
    return jnp.linalg.eigvals(left_divide(signal[:-1], signal[1:]))


@eqx.filter_jit
def cadzow(s: Inexact[ArrayLike, " n"], count: int, *, iterations: int = 30) -> Inexact[Array, " n"]:
    """Denoised features: the Hankel matrix is projected alternately on rank K and on Hankel matrices (Cadzow 1988).

    Args:
        s: features, 2 K or more.
        count: K, the number of nodes.
        iterations: number of alternations.
    """
    require_x64("cadzow")
    s = jnp.asarray(s)
    _require_features(len(s), count)
    columns = len(s) // 2 + 1
    index = np.add.outer(np.arange(len(s) - columns + 1), np.arange(columns))
    multiplicity = np.bincount(index.ravel())

    def step(values: Array, _: None) -> tuple[Array, None]:
        u, d, vt = jnp.linalg.svd(values[index], full_matrices=False)
        truncated = (u[:, :count] * d[:count]) @ vt[:count]
        return jnp.zeros_like(values).at[index].add(truncated) / multiplicity, None

    return jax.lax.scan(step, s, None, length=iterations)[0]


def model_order(s: Inexact[Array, " n"], noise: Float[Array, ""] | float | None = None) -> Int[Array, ""]:
    """Number of nodes of features, from the singular values of their Hankel matrix.

    With known noise, those above 1.1 times the expected norm of a Hankel matrix of noise, noise (sqrt rows + sqrt columns).
    Without, those before the widest gap (the largest ratio of neighbours), one at least.

    Args:
        s: features.
        noise: standard deviation of each feature; None: unknown.
    """
    return _model_order(s, None if noise is None else jnp.asarray(noise))


@jax.jit
def _model_order(s: Array, noise: Array | None) -> Array:
    matrix = hankel(s, len(s) // 2)
    rows, columns = matrix.shape
    values = jnp.linalg.svd(matrix, compute_uv=False)
    if noise is not None:
        return jnp.sum(values > 1.1 * noise * (np.sqrt(rows) + np.sqrt(columns)))
    values = jnp.maximum(values, 1e-12 * values[0])  # rounding
    return 1 + jnp.argmax(values[:-1] / values[1:])


@jax.jit
def weights(s: Inexact[Array, " n"], nodes: Inexact[Array, " k"]) -> Inexact[Array, " k"]:
    """Amplitudes a of s[j] = sum_k a_k u_k^j, by least squares."""
    return jnp.linalg.lstsq(nodes[None, :] ** np.arange(len(s))[:, None], s.astype(nodes.dtype))[0]


GRID = 8  # grid points per sample in the search for the start of maximum likelihood


class Line(NamedTuple):
    """Points on a line.

    Attributes:
        points: in rising order.
        amplitudes: amplitude of each point.
        residual: |samples - model| / |samples|.
    """

    points: Float[Array, " k"]
    amplitudes: Float[Array, " k"]
    residual: Float[Array, ""]


METHODS = {
    "prony": prony,
    "pencil": matrix_pencil,
    "cadzow": lambda s, count: matrix_pencil(cadzow(s, count), count),
}


@eqx.filter_jit
def recover_line(
    sampling: Sampling,
    samples: Float[Array, " n"],
    count: int,
    features: Features,
    *,
    method: str = "pencil",
    refine: int = 30,
) -> Line:
    """Points and amplitudes from samples on a line: features, nodes, least squares, maximum likelihood on the raw samples.

    Args:
        sampling: kernel and grid.
        samples: samples on that grid.
        count: K, the number of points.
        features: exponential or polynomial features.
        method: "prony", "pencil", "cadzow" (then pencil), or "likelihood": refined both from Cadzow and from alternating
            projection on a grid, keeping the better fit; it is the most robust in noise.
        refine: largest number of Levenberg-Marquardt steps; 0: the algebra alone.
    """
    require_x64("recover_line")
    known = (*METHODS, "likelihood")
    require(method in known, "method", method, " or ".join(known))
    limit = sampling.spacing * features.reach

    def residual(parameters: tuple[Array, Array]) -> Array:
        return sampling.line(*parameters) - samples

    def finish(points: Array) -> tuple[tuple[Array, Array], Array]:
        points = jnp.clip(jnp.nan_to_num(points), -limit, limit)
        start = (points, jnp.linalg.lstsq(sampling.basis(points).T, samples)[0])
        found = least_squares(residual, start, steps=refine)[0] if refine else start
        return found, jnp.linalg.norm(residual(found))

    nodes = METHODS["cadzow" if method == "likelihood" else method](features.matrix @ samples, count)
    start = features.place(nodes) * sampling.spacing
    if method == "likelihood":
        grid = jnp.linspace(-limit, limit, math.ceil(GRID * 2 * features.reach) + 1)
        searched = grid[alternating_projection(sampling.basis(grid), samples, count)]
        found, misfits = jax.vmap(finish)(jnp.stack([start, searched]))
        better = (misfits[1] < misfits[0]).astype(int)
        (points, amplitudes), misfit = jax.tree.map(lambda leaf: leaf[better], (found, misfits))
    else:
        (points, amplitudes), misfit = finish(start)
    order = jnp.argsort(points)
    return Line(points[order], amplitudes[order], misfit / jnp.linalg.norm(samples))


@eqx.filter_jit
def generic(
    matrix: Inexact[Array, "m n"],
    samples: Inexact[Array, " m"],
    count: int,
    *,
    key: Array,
    starts: int = 15,
    iterations: int = 20,
) -> tuple[Complex[Array, " k"], Complex[Array, " n"]]:
    """Nodes from linear, possibly nonuniform, samples of a sum of powers: y = G s + noise.

        min over s and c of |y - G s|^2  with  c * s = 0

    by alternating minimisation from random filters; the best fit is kept (Pan, Blu & Dragotti, IEEE Trans. Signal Process.
    65, 821 (2017)).

    Args:
        matrix: G, of full column rank; one row per sample, one column per feature.
        samples: y.
        count: K, the number of nodes.
        key: fixes the random filters.
        starts: number of random filters.
        iterations: number of alternations from each filter.

    Returns:
        The nodes, and their features s.
    """
    n = matrix.shape[1]
    _require_features(n, count)
    complex_ = jnp.result_type(matrix, samples, jnp.complex128 if jax.config.read("jax_enable_x64") else jnp.complex64)
    gram = jnp.linalg.inv(matrix.conj().T @ matrix)
    beta = (gram @ (matrix.conj().T @ samples)).astype(complex_)
    rows = n - count

    def convolution(c: Array) -> Array:
        """R(c) with R(c) s = c * s."""
        place = np.add.outer(np.arange(rows), np.arange(count + 1))
        return jnp.zeros((rows, n), complex_).at[np.arange(rows)[:, None], place].set(c[::-1][None, :])

    data = hankel(beta, count + 1)[:, ::-1]  # T(beta) with T(beta) c = c * beta

    def solve(start: Array) -> tuple[Array, Array, Array]:
        def step(c: Array, _: None) -> tuple[Array, None]:
            r = convolution(c)
            weighted = data.conj().T @ jnp.linalg.solve(r @ gram @ r.conj().T, data)
            lagrange = jnp.linalg.solve(weighted + 1e-14 * jnp.trace(weighted).real * jnp.eye(count + 1), start)
            return lagrange / (start.conj() @ lagrange), None

        c, _ = jax.lax.scan(step, start, None, length=iterations)
        r = convolution(c)
        s = beta - gram @ r.conj().T @ jnp.linalg.solve(r @ gram @ r.conj().T, r @ beta)
        return c, s, jnp.linalg.norm(samples - matrix @ s)

    noise = jax.random.normal(key, (2, starts, count + 1))
    filters, features, misfits = jax.vmap(solve)((noise[0] + 1j * noise[1]).astype(complex_))
    best = jnp.argmin(jnp.where(jnp.isfinite(misfits), misfits, jnp.inf))
    return _roots(filters[best][::-1]), features[best]


def _roots(filter_: Array) -> Complex[Array, " k"]:
    """Roots of sum_j c[j] u^j, by the companion matrix."""
    order = len(filter_) - 1
    companion = jnp.zeros((order, order), jnp.result_type(filter_, 1j)).at[np.arange(1, order), np.arange(order - 1)].set(1)
    return jnp.linalg.eigvals(companion.at[:, -1].set(-filter_[:-1] / filter_[-1]))


def _require_features(number: int, count: int) -> None:
    require(1 <= count and 2 * count <= number, "count", count, f"1 to {number // 2}, half the number of features")
