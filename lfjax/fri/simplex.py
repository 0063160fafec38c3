"""A tetrahedron from noisy views, without an initial estimate and without moments, which amplify noise.

Points at fixed barycentric coordinates fill a tetrahedron evenly. They form a cloud that moves linearly with the vertices:
`multistart.fit` fits it as any other model, and `polytope.refine_polytope` finishes on exact samples of the projections.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import legendre

from lfjax.errors import require
from lfjax.fri.multistart import Effort, fit
from lfjax.fri.planar import Sampling
from lfjax.fri.polytope import Polytope, centred_polytope, hull, refine_polytope
from lfjax.fri.refine import require_x64


class Simplex(eqx.Module):
    """Tetrahedra of constant density; parameters: (vertices (4, 3), mass). A `multistart.Model`.

    Attributes:
        barycentric: barycentric coordinates of the points of the cloud.
        weights: weight of each point; their sum is 1.
    """

    barycentric: Float[Array, "k 4"]
    weights: Float[Array, " k"]

    def __init__(self, nodes: int = 5) -> None:
        """Gauss-Legendre quadrature with `nodes` nodes per axis, mapped from a cube onto the simplex (Duffy)."""
        node, weight = legendre.leggauss(nodes)
        axis, weight = (node + 1) / 2, weight / 2
        a, b, c = (grid.ravel() for grid in np.meshgrid(axis, axis, axis, indexing="ij"))
        share = np.einsum("i,j,k->ijk", weight, weight, weight).ravel() * (1 - a) ** 2 * (1 - b)
        parts = [a, (1 - a) * b, (1 - a) * (1 - b) * c]
        self.barycentric = jnp.asarray(np.stack([*parts, 1 - sum(parts)], axis=-1))
        self.weights = jnp.asarray(share / share.sum())

    def random(self, key: Array, size: Array, total: Array) -> tuple[Array, Array]:
        """Normally distributed vertices, at sqrt 5 times the root mean square distance of the mass from its centre."""
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
    """Maximum likelihood in white noise of a tetrahedron of constant density and its poses, without an initial estimate.

    Do not call it under jit: Qhull is not JAX.

    Args:
        sampling: smooth kernel, and grid of all views.
        views: samples of three or more views; rows are y.
        key: fixes the random structures and orientations.
        effort: see `multistart.Effort`.
        tries: number of searches, each refined on exact samples; the result has the least misfit. The cloud of a search is
            coarse, and its misfit alone does not identify the best one.
        steps: number of steps of the last refinement, on exact samples.
    """
    require_x64("recover_tetrahedron")
    require(tries >= 1, "tries", tries, "1 or more")
    model, candidates = Simplex(), []
    for once in jax.random.split(key, tries):
        found = fit(sampling, views, model, key=once, effort=effort)
        vertices, _ = found.parameters
        triangles = hull(vertices)
        refined = refine_polytope(sampling, views, vertices, triangles, found.rotations, found.shifts, steps=steps)
        candidates.append(centred_polytope(triangles, True, *refined))
    energy = np.sum(np.square(views), axis=(1, 2))
    return min(candidates, key=lambda c: float(np.nan_to_num(np.sum(np.square(c.residual) * energy), nan=np.inf)))
