"""Pose of a known structure in each view: the best of many orientations by table look-up, then refined on the samples."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from lfjax.errors import require_shape
from lfjax.fri.normal import point_normal
from lfjax.fri.planar import Sampling
from lfjax.fri.unknown_view import project
from lfjax.rotation.matrices import from_vector
from lfjax.solvers.levenberg_marquardt import Normal, descend

FINE = 8  # table entries per sampling distance
STEPS = 6  # refinement steps per pose
BATCH = 250  # orientations evaluated together


class Pose(NamedTuple):
    """R and t of one view, in which X projects to (R X)[:2] + t."""

    rotation: Float[Array, "3 3"]
    shift: Float[Array, "2"]

    def move(self, step: Float[Array, "5"]) -> Pose:
        """The pose rotated by the rotation vector step[:3], and shifted by step[3:]."""
        return Pose(from_vector(step[:3]) @ self.rotation, self.shift + step[3:])

    def view(self, points: Float[Array, "k 3"]) -> Float[Array, "k 2"]:
        """Projections (R X)[:2] + t."""
        return project(points, self.rotation[None], self.shift[None])[0]

    def by_pose(self, points: Float[Array, "k 3"]) -> Float[Array, "2*k 5"]:
        """Derivatives of the projections, all x then all y, by the step of `move`."""
        x, y, z = (points @ self.rotation.T).T
        none, one = jnp.zeros_like(x), jnp.ones_like(x)
        rows = [jnp.stack(row, axis=-1) for row in ((none, z, -y, one, none), (-z, none, x, none, one))]
        return jnp.concatenate(rows)

    def by_points(self, jacobian: Float[Array, "k 3 q"]) -> Float[Array, "2*k q"]:
        """Derivatives of the projections, all x then all y, by parameters q, from those of the points."""
        return jnp.einsum("ij,kjq->ikq", self.rotation[:2], jacobian).reshape(-1, jacobian.shape[-1])


class PoseSearch(eqx.Module):
    """Tables that give the misfit of a pose in a few look-ups per point.

    |y - f|^2 = |y|^2 - 2 sum_k a_k (phi_k . y) + |f|^2, f = sum_k a_k phi_k. One table holds the products phi_k . y over the
    plane; the images f are assembled from a table of phi, once for all views.

    Attributes:
        sampling: kernel and grid.
        views: samples of each view.
        correlation: phi(q) . y of each view, q on a fine grid of (y, x).
        basis: phi(q) along one axis, q on the same fine grid.
        centres: (x, y) of the centre of mass of each view, which fixes the shift of an orientation.
    """

    sampling: Sampling
    views: Float[Array, "p m n"]
    correlation: Float[Array, "p fine fine"]
    basis: Float[Array, "fine n"]
    centres: Float[Array, "p 2"]

    def __init__(self, sampling: Sampling, views: Float[Array, "p m n"]) -> None:
        require_shape("views", views.shape, ("p", sampling.size, sampling.size))
        self.sampling, self.views = sampling, views
        self.basis = sampling.basis(jnp.asarray(self._fine * sampling.spacing))
        self.correlation = jnp.einsum("am,pmn,bn->pab", self.basis, views, self.basis)
        n = jnp.asarray(sampling.positions) * sampling.spacing
        moments = [jnp.einsum("pmn,n->p", views, n), jnp.einsum("pmn,m->p", views, n)]
        self.centres = jnp.stack(moments, axis=-1) / jnp.sum(views, axis=(1, 2))[:, None]

    @property
    def _fine(self) -> NDArray[np.float64]:
        half = (self.sampling.size - 1) / 2
        return np.arange(int(2 * half * FINE) + 1) / FINE - half

    def misfits(
        self, points: Float[Array, "k 3"], amplitudes: Float[Array, " k"], orientations: Float[Array, "o 3 3"]
    ) -> Float[Array, "p o"]:
        """|y - model|^2 - |y|^2 of every view and orientation, centres of mass aligned, to the accuracy of the table."""

        def table_index(projected: Array) -> Array:
            index = jnp.round((projected / self.sampling.spacing - self._fine[0]) * FINE).astype(int)
            return jnp.clip(index, 0, len(self.basis) - 1)

        def one(orientation: Array) -> Array:
            projected = points @ orientation[:2].T
            projected = projected - amplitudes @ projected / jnp.sum(amplitudes)
            index = table_index(projected)
            image = jnp.einsum("k,km,kn->mn", amplitudes, self.basis[index[:, 1]], self.basis[index[:, 0]])

            def view(table: Array, centre: Array) -> Array:
                index = table_index(projected + centre)
                return table[index[:, 1], index[:, 0]] @ amplitudes

            return jnp.sum(image**2) - 2 * jax.vmap(view)(self.correlation, self.centres)

        return jax.lax.map(one, orientations, batch_size=min(BATCH, len(orientations))).T

    @eqx.filter_jit
    def __call__(
        self, points: Float[Array, "k 3"], amplitudes: Float[Array, " k"], orientations: Float[Array, "o 3 3"], keep: int = 4
    ) -> tuple[Pose, Float[Array, " p"]]:
        """The pose of every view and its misfit |y - model|^2: the best of the `keep` best orientations, each refined."""
        _, best = jax.lax.top_k(-self.misfits(points, amplitudes, orientations), keep)
        middle = amplitudes @ points / jnp.sum(amplitudes)
        rotations = orientations[best]
        shifts = self.centres[:, None] - jnp.einsum("pcij,j->pci", rotations[..., :2, :], middle)

        def finish(samples: Array, pose: Pose) -> tuple[Pose, Array]:
            def linearise(pose: Pose) -> Normal:
                jacobian = jnp.pad(pose.by_pose(points), ((0, len(points)), (0, 0)))
                return point_normal(self.sampling, samples, pose.view(points), amplitudes, jacobian)

            return descend(linearise, Pose.move, pose, steps=STEPS, damping=1e-2)

        poses, costs = jax.vmap(jax.vmap(finish, (None, 0)))(self.views, Pose(rotations, shifts))
        winner = jnp.argmin(costs, axis=1)
        return jax.tree.map(lambda leaf: jax.vmap(lambda a, i: a[i])(leaf, winner), (poses, costs))
