"""A tetrahedron from noisy views, from no start and without moments, which amplify noise.

A tetrahedron is evenly filled with points at fixed barycentric coordinates, so that it is a cloud that moves linearly with its
vertices: `multistart.fit` takes it like any other, and exact samples of the projections finish.
"""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import legendre

from lfjax.errors import require
from lfjax.fri.multistart import Effort, Fit, fit
from lfjax.fri.planar import Sampling
from lfjax.fri.polytope import Polytope, centred_polytope, hull, refine_polytope
from lfjax.fri.refine import require_x64


class Simplex(eqx.Module):
    """Tetrahedra of constant density; parameters: (vertices (4, 3), mass). A `multistart.Model`.

    Attributes:
        barycentric: (k, 4), of the points of the cloud.
        weights: (k,), of them; their sum is 1.
    """

    barycentric: Float[Array, "k 4"]
    weights: Float[Array, " k"]

    def __init__(self, nodes: int = 5) -> None:
        """Gauss-Legendre quadrature with `nodes` an axis, folded from a cube onto the simplex (Duffy)."""
        node, weight = legendre.leggauss(nodes)
        axis, weight = (node + 1) / 2, weight / 2
        a, b, c = (grid.ravel() for grid in np.meshgrid(axis, axis, axis, indexing="ij"))
        share = np.einsum("i,j,k->ijk", weight, weight, weight).ravel() * (1 - a) ** 2 * (1 - b)
        parts = [a, (1 - a) * b, (1 - a) * (1 - b) * c]
        self.barycentric = jnp.asarray(np.stack([*parts, 1 - sum(parts)], axis=-1))
        self.weights = jnp.asarray(share / share.sum())

    def random(self, key: Array, size: Array, total: Array) -> tuple[Array, Array]:
        """Normal vertices: the mass of a tetrahedron is sqrt 5 times closer to its middle than its vertices are."""
        return jnp.sqrt(5 / 3) * size * jax.random.normal(key, (4, 3)), total

    def cloud(self, parameters: tuple[Array, Array]) -> tuple[Array, Array]:
        """Points at fixed barycentric coordinates."""
        vertices, mass = parameters
        return self.barycentric @ vertices, mass * self.weights


EFFORT = Effort(starts=24, rounds=3, kept=3, more=2, orientations=500, last=20)


def recover_tetrahedron(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    *,
    key: Array,
    effort: Effort = EFFORT,
    tries: int = 2,
    steps: int = 12,
) -> Polytope:
    """Maximum likelihood in white noise of a tetrahedron of constant density and its poses, from no start.

    Not to be called under jit: Qhull is not JAX.

    Args:
        sampling: kernel, smooth, and grid of all views.
        views: samples, of three views or more.
        key: of what is tried.
        effort: see `multistart.Effort`.
        tries: searches, each refined on exact samples; the one of least misfit is returned. The cloud of a search is coarse,
            and its misfit alone does not tell the best.
        steps: of the last refinement, on exact samples.
    """
    require_x64("recover_tetrahedron")
    require(tries >= 1, "tries", tries, "1 or more")
    candidates = []
    for once in jax.random.split(key, tries):
        found = _search(sampling, views, key=once, effort=effort)
        vertices, _ = found.parameters
        triangles = hull(vertices)
        refined = refine_polytope(sampling, views, vertices, triangles, found.rotations, found.shifts, steps=steps)
        candidates.append(centred_polytope(triangles, True, *refined))
    energy = jnp.sum(views**2, axis=(1, 2))
    return min(candidates, key=lambda c: float(jnp.nan_to_num(jnp.sum(c.residual**2 * energy), nan=jnp.inf)))


@functools.partial(jax.jit, static_argnames="effort")
def _search(sampling: Sampling, views: Array, *, key: Array, effort: Effort) -> Fit:
    return fit(sampling, views, Simplex(), key=key, effort=effort)
