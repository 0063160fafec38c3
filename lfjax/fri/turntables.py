"""Geometry of a turntable (CT, tilt series) from fiducial beads: axis and angles from projections of unknown geometry.

The beads rotate about one axis, R_i = M exp(theta_i [n]), so that all R_0^T R_i leave the direction n fixed. The projected
axis stays fixed on the detector. (The last section of Wang, Bossema, Blu & Dragotti, arXiv:2404.09969.)
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lfjax.errors import require, require_shape
from lfjax.fri.planar import Sampling
from lfjax.fri.refine import least_squares, require_x64
from lfjax.fri.unknown_view import Structure, view_samples
from lfjax.rotation.matrices import from_vector


class Turntable(NamedTuple):
    """A turntable and the beads on it: of the two mirror images with equal projections, the one whose axis points up.

    Attributes:
        angles: theta of each view in radians; 0 in the first view, positive in the second.
        direction: angle of the projected axis on the detector, in radians from its y axis towards x, -pi / 2 to pi / 2.
        tilt: angle of the axis out of the detector plane, in radians; positive towards +z.
        offset: distance of the projected axis from the middle of the detector along (cos, -sin) of `direction`, in the units
            of the points.
        wobble: shift of each view of the given structure that the rotation does not explain.
        points: beads in the frame of the first view, relative to a point of the axis; their mean along the axis is zero.
        amplitudes: amplitude of each bead.
        residual: |samples - model| / |samples| of each view.
        determined: see `Structure`.
    """

    angles: Float[Array, " p"]
    direction: Float[Array, ""]
    tilt: Float[Array, ""]
    offset: Float[Array, ""]
    wobble: Float[Array, "p 2"]
    points: Float[Array, "k 3"]
    amplitudes: Float[Array, " k"]
    residual: Float[Array, " p"]
    determined: Bool[Array, ""]


@eqx.filter_jit
def axis_of(rotations: Float[Array, "p 3 3"]) -> tuple[Float[Array, "3"], Float[Array, " p"]]:
    """The common axis of rotations relative to the first one, in the frame of the first view, and the angles in radians."""
    turns = rotations @ rotations[0].T
    axis = jnp.linalg.eigh(jnp.sum(turns + turns.mT, axis=0))[1][:, -1]
    skew = turns - turns.mT
    sines = jnp.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=-1) @ axis / 2
    return axis, jnp.arctan2(sines, (jnp.trace(turns, axis1=1, axis2=2) - 1) / 2)


@eqx.filter_jit
def axis_vector(direction: Float[Array, ""], tilt: Float[Array, ""]) -> Float[Array, "3"]:
    """Unit vector (x, y, z) of an axis in the frame of the detector; `direction` and `tilt` as in `Turntable`, in radians."""
    flat = jnp.stack([jnp.sin(direction), jnp.cos(direction)]) * jnp.cos(tilt)
    return jnp.append(flat, jnp.sin(tilt))


@eqx.filter_jit
def turntable(sampling: Sampling, views: Float[Array, "p m n"], structure: Structure, *, steps: int = 30) -> Turntable:
    """The turntable that carried a structure of beads, refined on the raw samples with one fixed axis and no other shifts.

    Pure and compiled whole.

    Args:
        sampling: kernel and grid of all views.
        views: samples of three or more views; rows are y.
        structure: the beads, from `unknown_view.recover` or `multistart.recover_noisy`.
        steps: largest number of refinement steps; 0: none.

    Raises:
        ParameterError: JAX does not run in float64, or fewer than three views.
        ShapeError: views of another size than the grid, or a structure with another number of views.
    """
    require_x64("turntable")
    p = len(views)
    require_shape("views", views.shape, ("p", sampling.size, sampling.size))
    require_shape("structure.rotations", structure.rotations.shape, (p, 3, 3))
    require(p >= 3, "views", p, "three or more")
    axis, angles = axis_of(structure.rotations)
    forward = jnp.where(angles[1] < 0, -1.0, 1.0)
    axis, angles = forward * axis, forward * angles
    points = structure.points @ structure.rotations[0].T
    down = axis[1] < 0  # then take the mirror image, which rotates the same way about the axis (-x, -y, z)
    axis = jnp.where(down, axis * jnp.asarray([-1.0, -1.0, 1.0]), axis)
    points = jnp.where(down, points * jnp.asarray([1.0, 1.0, -1.0]), points)

    # a point c of the axis has a fixed projection o: (R_i c)[:2] + t_i = o; least squares for c, free along the axis, and o
    rotations = from_vector(angles[:, None] * axis)
    rows = jnp.concatenate([rotations[:, :2], -jnp.broadcast_to(jnp.eye(2), (p, 2, 2))], axis=2).reshape(2 * p, 5)
    solved = jnp.linalg.lstsq(rows, -structure.shifts.ravel(), rcond=1e-6)[0]
    wobble = structure.shifts + (rows @ solved).reshape(p, 2)
    points = points - solved[:3]
    direction, tilt = jnp.arctan2(axis[0], axis[1]), jnp.arcsin(jnp.clip(axis[2], -1, 1))

    def unpack(parameters: tuple[Array, ...]) -> tuple[Array, Array, Array, Array]:
        points, amplitudes, later, direction, tilt, shift = parameters
        angles = jnp.concatenate([jnp.zeros(1), later])
        rotations = from_vector(angles[:, None] * axis_vector(direction, tilt))
        return points, amplitudes, rotations, jnp.broadcast_to(shift, (p, 2))

    def misfit(parameters: tuple[Array, ...]) -> Array:
        return view_samples(sampling, *unpack(parameters)) - views

    found = (points, structure.amplitudes, angles[1:], direction, tilt, solved[3:])
    if steps:
        found = least_squares(misfit, found, steps=steps)[0]
    residual = jnp.linalg.norm(misfit(found), axis=(1, 2)) / jnp.linalg.norm(views, axis=(1, 2))
    points, amplitudes, later, direction, tilt, shift = found
    axis = axis_vector(direction, tilt)
    along = jnp.mean(points @ axis)  # free: the shift compensates motion of the beads along the axis
    offset = (shift + along * axis[:2]) @ jnp.stack([jnp.cos(direction), -jnp.sin(direction)])
    angles = jnp.concatenate([jnp.zeros(1), later])
    beads = points - along * axis
    return Turntable(angles, direction, tilt, offset, wobble, beads, amplitudes, residual, structure.determined)
