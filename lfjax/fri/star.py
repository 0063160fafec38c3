"""Smooth bodies: star-shaped, of constant density, their radius band-limited in spherical harmonics.

    inside: rho u with 0 <= rho <= r(u),  r(u) = sum_lm c_lm Y_lm(u),  l = 0, 2, 3 ... L

(no degree 1: this fixes the origin). (L + 1)^2 - 3 numbers and a density: finitely many, but no sum of powers, so that there is
no annihilating filter and no exact algebra. What is exact: the features of a body are those of a cloud of points to within a
quadrature error, which falls faster than any power of the number of nodes; and moments give mass, centre and extent, from which
`multistart.fit` starts. The rest is maximum likelihood, from several starts.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.special import sph_harm_y

from lfjax.errors import require
from lfjax.fri.refine import require_x64

FLATTEST = 0.15  # spread of the random radii to start from, as a share of the mean


class Star(NamedTuple):
    """Parameters of a body.

    Attributes:
        coefficients: c_lm of real, orthonormal spherical harmonics: l = 0, then l = 2 ... L, each m = -l ... l.
        density: in units of the samples.
    """

    coefficients: Float[Array, " c"]
    density: Float[Array, ""]


def harmonics(degree: int, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Real, orthonormal Y_lm, l = 0, 2, 3 ... degree, at unit vectors (n, 3): (n, (degree + 1)^2 - 3)."""
    polar, azimuth = np.arccos(np.clip(directions[:, 2], -1, 1)), np.arctan2(directions[:, 1], directions[:, 0])
    rows = []
    for order in (0, *range(2, degree + 1)):
        for m in range(-order, order + 1):
            value = sph_harm_y(order, abs(m), polar, azimuth)
            rows.append(value.real if m == 0 else np.sqrt(2) * (-1) ** m * (value.real if m > 0 else value.imag))
    return np.stack(rows, axis=-1)


class StarModel(eqx.Module):
    """Bodies of one degree, as clouds of points: a `multistart.Model`.

    Attributes:
        degree: L, 0 or 2 and more.
        directions: u, (n, 3), of the quadrature.
        weights: of them; their sum is 4 pi.
        basis: Y_lm(u).
        radial: nodes along each radius.
    """

    degree: int = eqx.field(static=True)
    directions: Float[Array, "n 3"]
    weights: Float[Array, " n"]
    basis: Float[Array, "n c"]
    radial: int = eqx.field(static=True)

    def __init__(self, degree: int, rings: int = 6, radial: int = 4) -> None:
        """Args:
        degree: L.
        rings: of directions, each of twice as many.
        radial: Gauss nodes along each radius. With 6 rings and 4 nodes features of a ball as large as the kernel lets one see
            are right to 4e-4 of its mass, with 8 and 6 to 4e-7.
        """
        require_x64("StarModel")
        require(isinstance(degree, int) and (degree == 0 or 2 <= degree <= 12), "degree", degree, "0, or 2 to 12")
        require(rings > degree, "rings", rings, f"more than the degree, {degree}")
        height, ring = legendre.leggauss(rings)
        around = 2 * np.pi * (np.arange(2 * rings) + 0.5) / (2 * rings)
        side = np.sqrt(1 - height**2)
        x, y = (side[:, None] * f(around) for f in (np.cos, np.sin))
        directions = np.stack([x, y, np.broadcast_to(height[:, None], x.shape)], axis=-1).reshape(-1, 3)
        self.degree, self.radial, self.directions = degree, radial, jnp.asarray(directions)
        self.weights = jnp.asarray(np.repeat(ring * np.pi / rings, 2 * rings))
        self.basis = jnp.asarray(harmonics(degree, directions))

    def radius(self, star: Star, directions: NDArray[np.float64] | None = None) -> Float[Array, " n"]:
        """r(u), at the directions of the quadrature or at others."""
        basis = self.basis if directions is None else jnp.asarray(harmonics(self.degree, np.asarray(directions)))
        return basis @ star.coefficients

    def volume(self, star: Star) -> Float[Array, ""]:
        """int r^3 / 3 du."""
        return self.weights @ self.radius(star) ** 3 / 3

    def random(self, key: Array, size: Array, total: Array) -> Star:
        """A ball of this mass and extent, its radius disturbed."""
        ball = size * np.sqrt(5 / 3)
        mean, count = ball * np.sqrt(4 * np.pi), self.basis.shape[1]
        noise = FLATTEST * mean / count**0.5 * jax.random.normal(key, (count,))
        return Star(noise.at[0].set(mean), total / (4 / 3 * np.pi * ball**3))

    def cloud(self, star: Star) -> tuple[Float[Array, "k 3"], Float[Array, " k"]]:
        """Points rho u and their masses: Gauss-Legendre along each radius."""
        nodes, weights = legendre.leggauss(self.radial)
        along, share = (nodes + 1) / 2, weights / 2 * ((nodes + 1) / 2) ** 2
        radius = self.radius(star)
        points = (radius[:, None, None] * along[:, None]) * self.directions[:, None]
        masses = star.density * (self.weights * radius**3)[:, None] * share
        return points.reshape(-1, 3), masses.ravel()
