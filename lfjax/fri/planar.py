"""Points in the plane from filtered samples: 2-D ESPRIT with automatic pairing, amplitudes, maximum likelihood.

y[m, n] = sum_k a_k phi(y_k / T - m) phi(x_k / T - n)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact, Int
from numpy.typing import NDArray

from lfjax.errors import require
from lfjax.fri.kernels import Kernel, Reproduction, exponentials, polynomials
from lfjax.fri.refine import least_squares, left_divide, require_x64

MIXTURES = np.pi * np.array([0.13, 0.29, 0.41, 0.62, 0.77, 0.91])  # angles b of cos b Psi_x + sin b Psi_y
_ALL_BUT_LAST, _ALL_BUT_FIRST = slice(None, -1), slice(1, None)


class Sampling(eqx.Module):
    """A kernel and a row, or a square, of samples at positions (n - (size - 1) / 2) T.

    Attributes:
        kernel: phi.
        size: number of samples along an axis.
        spacing: T, the sampling distance.
    """

    kernel: Kernel
    size: int = eqx.field(static=True)
    spacing: float = eqx.field(static=True, default=1.0)

    @property
    def positions(self) -> NDArray[np.float64]:
        """Centred sample positions n, in units of T."""
        return np.arange(self.size, dtype=np.float64) - (self.size - 1) / 2

    @eqx.filter_jit
    def basis(self, x: Float[Array, "..."]) -> Float[Array, "... n"]:
        """phi(x / T - n) of each x at every sample n."""
        return self.kernel(x[..., None] / self.spacing - self.positions)

    @eqx.filter_jit
    def line(self, points: Float[Array, " k"], amplitudes: Float[Array, " k"]) -> Float[Array, " n"]:
        """Samples of points on a line."""
        return amplitudes @ self.basis(points)

    @eqx.filter_jit
    def plane(self, points: Float[Array, "k 2"], amplitudes: Float[Array, " k"]) -> Float[Array, "m n"]:
        """Samples of points (x, y) in a plane; rows are y."""
        return jnp.einsum("k,km,kn->mn", amplitudes, self.basis(points[:, 1]), self.basis(points[:, 0]))


class Features(eqx.Module):
    """Linear features of samples, in which points are sums of powers: S = C y C^T, S[p, q] = sum_k a_k v_k^p u_k^q.

    Exponential: u = exp(i step x / T), powers -order ... order. Polynomial: u = x / (reach T), powers 0 ... 2 order.

    Attributes:
        matrix: C, with 2 order + 1 rows.
        step: difference of neighbouring frequencies, in radians per sample; 0 for polynomials.
        error: relative error of the reproduction, see `kernels.Reproduction`.
        reach: half-width, in units of T, of the interval on which the reproduction holds.
    """

    matrix: Inexact[Array, "feature n"]
    step: float = eqx.field(static=True)
    error: float = eqx.field(static=True)
    reach: float = eqx.field(static=True)

    @classmethod
    def exponential(cls, sampling: Sampling, order: int, step: float) -> Features:
        """Exponential features: exact at the frequencies of an E-spline, else as accurate as the kernel allows.

        Args:
            sampling: kernel and grid.
            order: M, the highest power.
            step: difference of neighbouring frequencies, in radians per sample.

        Raises:
            ParameterError: fewer samples than the kernel needs, or a step so large that points become ambiguous.
        """
        require_x64("lfjax.fri")
        reproduction = exponentials(sampling.kernel, step * np.arange(-order, order + 1), sampling.positions)
        reach = _reach(sampling, reproduction)
        require(0 < step * reach <= np.pi, "step", step, f"above 0, at most {np.pi / reach:.3g}, pi over the reach")
        return cls._of(reproduction.coefficients, float(step), reproduction.error, reach)

    @classmethod
    def polynomial(cls, sampling: Sampling, order: int) -> Features:
        """Polynomial features: exact for B-splines of degree 2 order or more, else as accurate as the kernel allows.

        Args:
            sampling: kernel and grid.
            order: M, half the highest power.

        Raises:
            ParameterError: fewer samples than the kernel needs.
        """
        require_x64("lfjax.fri")
        reproduction = polynomials(sampling.kernel, 2 * order, sampling.positions)
        reach = _reach(sampling, reproduction)
        scale = reach ** -np.arange(2.0 * order + 1)[:, None]
        return cls._of(reproduction.coefficients * scale, 0.0, reproduction.error, reach)

    @classmethod
    def _of(cls, coefficients: NDArray[np.inexact[Any]], step: float, error: float, reach: float) -> Features:
        with jax.ensure_compile_time_eval():  # numbers, also where the caller is traced
            return cls(jnp.asarray(coefficients), step, error, reach)

    @property
    def order(self) -> int:
        """M, the highest exponential power or half the highest polynomial one."""
        return (self.matrix.shape[0] - 1) // 2

    @eqx.filter_jit
    def __call__(self, samples: Float[Array, "n n"]) -> Inexact[Array, "feature feature"]:
        """S = C y C^T."""
        return self.matrix @ samples @ self.matrix.T

    def place(self, nodes: Inexact[Array, "*k"]) -> Float[Array, "*k"]:
        """Positions x / T of nodes u."""
        return jnp.angle(nodes) / self.step if self.step else jnp.real(nodes) * self.reach


def _reach(sampling: Sampling, reproduction: Reproduction) -> float:
    reach = (reproduction.interval[1] - reproduction.interval[0]) / 2
    low, high = sampling.kernel.support
    require(reach > 0, "size", sampling.size, f"{math.floor(high - low)} or more: the support of the {sampling.kernel.name}")
    return reach


class Points(NamedTuple):
    """Points of one plane.

    Attributes:
        points: (x, y) of each point.
        amplitudes: amplitude of each point.
        residual: |samples - model| / |samples|.
    """

    points: Float[Array, "k 2"]
    amplitudes: Float[Array, " k"]
    residual: Float[Array, ""]


def block_hankel(features: Inexact[Array, "m m"]) -> Inexact[Array, "n n"]:
    """H[(i, j), (k, l)] = S[i + k, j + l]: (M + 1)^2 rows and columns, of rank K for K points."""
    i = np.arange((features.shape[0] + 1) // 2)
    rows, columns = (axis.ravel() for axis in np.meshgrid(i, i, indexing="ij"))
    return features[rows[:, None] + rows[None, :], columns[:, None] + columns[None, :]]


def count_points(features: Inexact[Array, "m m"], noise: Float[Array, ""] | float = 1e-8) -> Int[Array, ""]:
    """Number of points of a view: singular values of its `block_hankel` above `noise` times the largest."""
    return _count_points(features, jnp.asarray(noise))


@jax.jit
def _count_points(features: Array, noise: Array) -> Array:
    values = jnp.linalg.svd(block_hankel(features), compute_uv=False)
    return jnp.sum(values > noise * values[0])


@eqx.filter_jit
def esprit(features: Inexact[Array, "m m"], count: int) -> Complex[Array, "k 2"]:
    """Paired nodes (u_k, v_k) of `count` points from their features.

    Psi_x and Psi_y are the shifts, along both axes, on the signal space of the block-Hankel matrix of S; the eigenvectors of
    a mixture of both diagonalise each of them. Among several mixtures, the one with the widest gap between eigenvalues wins.

    Args:
        features: S, of odd side 2 M + 1.
        count: K, the number of points; M (M + 1) >= K.
    """
    m = (features.shape[0] - 1) // 2
    require(m * (m + 1) >= count >= 1, "count", count, f"1 to M (M + 1) = {m * (m + 1)} with features of order M = {m}")
    signal = jnp.linalg.svd(block_hankel(features))[0][:, :count].reshape(m + 1, m + 1, count)

    both = (signal, signal.transpose(1, 0, 2))
    before, after = (jnp.stack([s[part].reshape(-1, count) for s in both]) for part in (_ALL_BUT_LAST, _ALL_BUT_FIRST))
    along_y, along_x = left_divide(before, after)

    def diagonalise(angle: Array) -> tuple[Array, Array]:
        values, vectors = jnp.linalg.eig(jnp.cos(angle) * along_x + jnp.sin(angle) * along_y)
        gaps = jnp.abs(values[:, None] - values[None, :]) + jnp.where(np.eye(count, dtype=bool), jnp.inf, 0)
        inverse = jnp.linalg.inv(vectors)
        nodes = [jnp.sum(inverse.T * (psi @ vectors), axis=0) for psi in (along_x, along_y)]
        return jnp.stack(nodes, axis=-1), gaps.min()

    nodes, gaps = jax.vmap(diagonalise)(jnp.asarray(MIXTURES))
    return nodes[jnp.argmax(jnp.nan_to_num(gaps))]


@eqx.filter_jit
def amplitudes(sampling: Sampling, samples: Float[Array, "m n"], points: Float[Array, "k 2"]) -> Float[Array, " k"]:
    """Amplitudes of points at known positions, by least squares on the samples."""
    y, x = sampling.basis(points[:, 1]), sampling.basis(points[:, 0])
    images = jnp.einsum("km,kn->kmn", y, x).reshape(len(points), -1)
    return jnp.linalg.lstsq(images.T, samples.ravel())[0]


@eqx.filter_jit
def recover_points(
    sampling: Sampling, samples: Float[Array, "m n"], count: int, features: Features, *, refine: int = 20
) -> Points:
    """Points and amplitudes of one plane: ESPRIT, least squares, then Levenberg-Marquardt on the raw samples.

    Args:
        sampling: kernel and grid.
        samples: samples on that grid; rows are y.
        count: K, the number of points.
        features: see `Features`.
        refine: largest number of refinement steps; 0: the algebra alone.
    """
    require_x64("recover_points")
    nodes = esprit(features(samples), count)
    points = features.place(nodes) * sampling.spacing
    start = (points, amplitudes(sampling, samples, points))

    def residual(parameters: tuple[Array, Array]) -> Array:
        return (sampling.plane(*parameters) - samples).ravel()

    found = least_squares(residual, start, steps=refine)[0] if refine else start
    return Points(found[0], found[1], jnp.linalg.norm(residual(found)) / jnp.linalg.norm(samples))
