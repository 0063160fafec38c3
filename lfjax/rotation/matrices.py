"""Rotation matrices, from and to vectors, quaternions and RELION's angles; angles between them, and means."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


@jax.jit
def from_vector(vector: Float[ArrayLike, "... 3"]) -> Float[Array, "... 3 3"]:
    """Rotation about a vector by its length in radians (Rodrigues): exp of its cross-product matrix. Smooth at 0."""
    vector = jnp.asarray(vector)
    x, y, z = jnp.moveaxis(vector, -1, 0)
    zero = jnp.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    cross = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    angle2 = jnp.sum(vector**2, axis=-1)
    small = angle2 < 1e-8
    angle = jnp.sqrt(jnp.where(small, 1.0, angle2))
    sine = jnp.where(small, 1 - angle2 / 6, jnp.sin(angle) / angle)
    versine = jnp.where(small, 0.5 - angle2 / 24, (1 - jnp.cos(angle)) / angle**2)
    return jnp.eye(3) + sine[..., None, None] * cross + versine[..., None, None] * (cross @ cross)


@jax.jit
def to_vector(rotation: Float[ArrayLike, "... 3 3"]) -> Float[Array, "... 3"]:
    """The rotation vector, of length 0 to pi: the inverse of `from_vector`."""
    q = to_quaternion(rotation)
    q = jnp.where(q[..., :1] < 0, -q, q)
    length = jnp.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    small = length < 1e-7
    ratio = jnp.where(small, 2.0, 2 * jnp.arctan2(length, q[..., :1]) / jnp.where(small, 1.0, length))
    return ratio * q[..., 1:]


@jax.jit
def from_quaternion(quaternion: Float[ArrayLike, "... 4"]) -> Float[Array, "... 3 3"]:
    """Matrix of a quaternion of any length but 0."""
    quaternion = jnp.asarray(quaternion)
    q = quaternion / jnp.linalg.norm(quaternion, axis=-1, keepdims=True)
    w, x, y, z = jnp.moveaxis(q, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


@jax.jit
def to_quaternion(rotation: Float[ArrayLike, "... 3 3"]) -> Float[Array, "... 4"]:
    """Unit quaternion of a matrix, by the one of four formulas that divides by the largest number; accurate for every angle.

    Source: Shepperd, J. Guid. Control 1, 223 (1978).
    """
    rotation = jnp.asarray(rotation)
    m = [[rotation[..., i, j] for j in range(3)] for i in range(3)]
    trace = m[0][0] + m[1][1] + m[2][2]
    a, b, c = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    d, e, f = m[1][0] + m[0][1], m[0][2] + m[2][0], m[2][1] + m[1][2]
    rows = jnp.stack(
        [
            jnp.stack([1 + trace, a, b, c], axis=-1),
            jnp.stack([a, 1 + 2 * m[0][0] - trace, d, e], axis=-1),
            jnp.stack([b, d, 1 + 2 * m[1][1] - trace, f], axis=-1),
            jnp.stack([c, e, f, 1 + 2 * m[2][2] - trace], axis=-1),
        ],
        axis=-2,
    )
    best = jnp.argmax(jnp.diagonal(rows, axis1=-2, axis2=-1), axis=-1)
    row = jnp.take_along_axis(rows, best[..., None, None], axis=-2)[..., 0, :]
    return row / jnp.linalg.norm(row, axis=-1, keepdims=True)


@jax.jit
def from_euler(
    rot: Float[ArrayLike, "..."], tilt: Float[ArrayLike, "..."], psi: Float[ArrayLike, "..."]
) -> Float[Array, "... 3 3"]:
    """Z(psi) Y(tilt) Z(rot), RELION's angles, here in radians."""
    rot, tilt, psi = (jnp.asarray(angle) for angle in (rot, tilt, psi))
    return _about_z(psi) @ _about_y(tilt) @ _about_z(rot)


@jax.jit
def to_euler(rotation: Float[ArrayLike, "... 3 3"]) -> tuple[Array, Array, Array]:
    """rot, tilt, psi in radians, tilt from 0 to pi. Where tilt is 0 or pi, only rot + psi or rot - psi is defined: psi is 0."""
    r = jnp.asarray(rotation)
    sine = jnp.hypot(r[..., 2, 0], r[..., 2, 1])
    plain = sine > 16 * jnp.finfo(r.dtype).eps
    # R[2] = (sin tilt cos rot, sin tilt sin rot, cos tilt), R[:, 2] = (-sin tilt cos psi, sin tilt sin psi, cos tilt)
    rot = jnp.where(plain, jnp.arctan2(r[..., 2, 1], r[..., 2, 0]), jnp.arctan2(-r[..., 1, 0], r[..., 1, 1]))
    psi = jnp.where(plain, jnp.arctan2(r[..., 1, 2], -r[..., 0, 2]), 0.0)
    return rot, jnp.arctan2(sine, r[..., 2, 2]), psi


@partial(jax.jit, static_argnames="count")
def random_rotations(key: Array, count: int) -> Float[Array, "n 3 3"]:
    """Uniformly distributed rotations, from normally distributed quaternions."""
    return from_quaternion(jax.random.normal(key, (count, 4), jnp.result_type(float)))


@jax.jit
def distance(first: Float[ArrayLike, "*#n 3 3"], second: Float[ArrayLike, "*#n 3 3"]) -> Float[Array, "*#n"]:
    """Angle in radians, 0 to pi, of the rotation from one to the other; accurate near 0 and pi too."""
    between = jnp.asarray(first).mT @ jnp.asarray(second)
    a = between - between.mT
    sine = jnp.sqrt(a[..., 2, 1] ** 2 + a[..., 0, 2] ** 2 + a[..., 1, 0] ** 2)
    return jnp.arctan2(sine, jnp.trace(between, axis1=-2, axis2=-1) - 1)


@jax.jit
def nearest(matrix: Float[ArrayLike, "... 3 3"]) -> Float[Array, "... 3 3"]:
    """The rotation nearest to a matrix in the Frobenius norm, by SVD. For a sum of rotations it is their mean."""
    u, _, vt = jnp.linalg.svd(matrix)
    sign = jnp.linalg.det(u @ vt)
    return (u.at[..., :, 2].multiply(sign[..., None])) @ vt


def _about_z(angle: Array) -> Array:
    c, s = jnp.cos(angle), jnp.sin(angle)
    zero, one = jnp.zeros_like(c), jnp.ones_like(c)
    return jnp.stack([jnp.stack(r, axis=-1) for r in ((c, s, zero), (-s, c, zero), (zero, zero, one))], axis=-2)


def _about_y(angle: Array) -> Array:
    c, s = jnp.cos(angle), jnp.sin(angle)
    zero, one = jnp.zeros_like(c), jnp.ones_like(c)
    return jnp.stack([jnp.stack(r, axis=-1) for r in ((c, zero, -s), (zero, one, zero), (s, zero, c))], axis=-2)
