"""Smooth bodies: star-shaped, of constant density, with a radius band-limited in spherical harmonics.

    inside: rho u with 0 <= rho <= r(u),  r(u) = sum_lm c_lm Y_lm(u),  l = 0, 2, 3 ... L

(no degree 1, which fixes the origin). A body has (L + 1)^2 - 3 coefficients and a density: finitely many numbers, but no power
sums, so that there is no annihilating filter and no exact algebra. A cloud of points has the features of a body up to a
quadrature error, which falls faster than any power of the number of nodes. `multistart.fit` starts from the mass, centre and
extent that the moments give, and finds the maximum likelihood from several starts.
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

SPREAD = 0.15  # spread of the random initial radii, as a fraction of the mean


class Star(NamedTuple):
    """Parameters of a body.

    Attributes:
        coefficients: c_lm of real, orthonormal spherical harmonics: l = 0, then l = 2 ... L, each m = -l ... l.
        density: in units of the samples.
    """

    coefficients: Float[Array, " c"]
    density: Float[Array, ""]


def harmonics(degree: int, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Real, orthonormal spherical harmonics Y_lm of degrees l = 0, 2, 3 ... `degree`.

    Args:
        degree: L.
        directions: unit vectors (x, y, z), of shape (n, 3).

    Returns:
        Values of shape (n, (L + 1)^2 - 3), ordered by l, then by m = -l ... l.
    """
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
        degree: L, 0 or from 2 to 12.
        directions: u, the directions of the quadrature.
        weights: weight of each direction; their sum is 4 pi.
        basis: Y_lm(u).
        radial: number of nodes along each radius.
    """

    degree: int = eqx.field(static=True)
    directions: Float[Array, "n 3"]
    weights: Float[Array, " n"]
    basis: Float[Array, "n c"]
    radial: int = eqx.field(static=True)

    def __init__(self, degree: int, rings: int = 6, radial: int = 4) -> None:
        """Quadrature of the directions and the radii.

        Args:
            degree: L.
            rings: number of rings of directions, of 2 `rings` directions each.
            radial: number of Gauss nodes along each radius. With 6 rings and 4 nodes the features of a ball as large as the
                kernel resolves are right to 4e-4 of its mass, with 8 rings and 6 nodes to 4e-7.

        Raises:
            ParameterError: another degree, no more rings than the degree, or JAX does not run in float64.
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
        """r(u) at unit vectors u; None: the directions of the quadrature."""
        basis = self.basis if directions is None else jnp.asarray(harmonics(self.degree, directions))
        return basis @ star.coefficients

    @eqx.filter_jit
    def volume(self, star: Star) -> Float[Array, ""]:
        """Volume, the integral of r^3 / 3 over the directions."""
        return self.weights @ self.radius(star) ** 3 / 3

    def random(self, key: Array, size: Array, total: Array) -> Star:
        """A ball of this mass and extent, with a randomly perturbed radius."""
        ball = size * np.sqrt(5 / 3)
        mean, count = ball * np.sqrt(4 * np.pi), self.basis.shape[1]
        noise = SPREAD * mean / count**0.5 * jax.random.normal(key, (count,))
        return Star(noise.at[0].set(mean), total / (4 / 3 * np.pi * ball**3))

    @eqx.filter_jit
    def cloud(self, star: Star) -> tuple[Float[Array, "k 3"], Float[Array, " k"]]:
        """Points rho u and their masses, by Gauss-Legendre quadrature along each radius."""
        nodes, weights = legendre.leggauss(self.radial)
        rho, weights = (nodes + 1) / 2, weights / 2 * ((nodes + 1) / 2) ** 2
        radius = self.radius(star)
        points = (radius[:, None, None] * rho[:, None]) * self.directions[:, None]
        masses = star.density * (self.weights * radius**3)[:, None] * weights
        return points.reshape(-1, 3), masses.ravel()
