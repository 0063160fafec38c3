"""Point groups of particles, with RELION's names, axes and order of elements, and symmetry expansion.

An element g is a rotation of the object: V(g x) = V(x). A pose R shows then what R g shows, so an image at R counts as one at
each R g. RELION writes the same product A R, with its Euler matrix A and the matrices that
`relion_refine --sym T --print_symmetry_ops --o x` prints.
"""

from __future__ import annotations

import functools
import re
import warnings
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.errors import DataWarning, require
from lfjax.tomography.particles import Particles, draw_half_sets

if TYPE_CHECKING:
    import pandas as pd

Axis = tuple[int, tuple[float, float, float]]

AXES = {
    "Cn": "n-fold axis along z",
    "Dn": "n-fold axis along z, twofold axis along x",
    "T": "threefold axis along z, twofold axis along (0, sqrt 2, 1)",
    "O": "fourfold axes along x, y and z, threefold axis along (1, 1, 1)",
    "I": "the same as I2",
    "I1": "twofold axes along x, y and z, fivefold axes in the plane xz, 31.7 degrees from x",
    "I2": "twofold axes along x, y and z, fivefold axes in the plane xz, 31.7 degrees from z",
    "I3": "fivefold axis along z, twofold axis along y, twofold axis in the plane xz, 31.7 degrees from z towards -x",
    "I4": "fivefold axis along z, twofold axis along y, twofold axis in the plane xz, 31.7 degrees from z towards x",
}
"""Names of the groups, n from 1 to 99, and their axes in the map."""

GOLDEN = (1 + 5**0.5) / 2
GENERATORS: dict[str, tuple[Axis, ...]] = {
    "T": ((3, (0, 0, 1)), (2, (0, 2**0.5, 1))),
    "O": ((3, (1, 1, 1)), (4, (0, 0, 1))),
}
TWO_FIVE_THREE: tuple[Axis, ...] = ((2, (0, 0, 1)), (5, (1, 0, GOLDEN)), (3, (0, 1 / GOLDEN, GOLDEN)))  # of I2
TURNS = {"I": 0.0, "I1": np.pi / 2, "I2": 0.0, "I3": -np.arctan(1 / GOLDEN), "I4": np.arctan(1 / GOLDEN)}  # of I2 about y


def symmetry_group(name: str) -> Float[NDArray[np.float64], "order 3 3"]:
    """Rotations of a point group, in the axes of `AXES` and the order of RELION.

    >>> [len(symmetry_group(name)) for name in ("C4", "D2", "T", "O", "I")]
    [4, 4, 12, 24, 60]

    Args:
        name: a name of `AXES` with a number for n, in capitals or not; "I" is I2.

    Returns:
        (order, 3, 3), acting on (x, y, z) columns: n for Cn, 2 n for Dn, 12, 24, 60; the first is the identity.

    Raises:
        ParameterError: the name is not one of these; RELION's groups with mirror planes and its I5 are not.

    Source: RELION 3.1, `symmetries.cpp`.
    """
    return _closed(group_key(name)).copy()


def group_key(name: str, argument: str = "symmetry") -> str:
    """The name of a point group in capitals, for which no element is computed.

    Args:
        name: see `symmetry_group`.
        argument: name of the argument, for the message.

    Raises:
        ParameterError: see `symmetry_group`.
    """
    key = name.upper()
    known = key in ("T", "O", "I", "I1", "I2", "I3", "I4") or re.fullmatch(r"[CD][1-9][0-9]?", key, re.ASCII) is not None
    require(known, argument, name, "a point group of rotations: C1 to C99, D1 to D99, T, O, I (= I2), I1, I2, I3 or I4")
    return key


def expand(particles: Particles, name: str) -> Particles:
    """Symmetry expansion: every particle once per element g of its point group, with pose R g and all else the same.

    The elements of the first particle come first, as `relion_particle_symmetry_expand` orders them.

    Args:
        particles: n particles.
        name: point group, see `symmetry_group`.

    Returns:
        n times order particles.

    Raises:
        ParameterError: the group is unknown.
    """
    return _expand(particles, jnp.asarray(symmetry_group(name), float))


@jax.jit
def _expand(particles: Particles, group: Float[Array, "order 3 3"]) -> Particles:
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(group), axis=0), particles)
    turned = jnp.einsum("nij,gjk->ngik", particles.rotations, group.astype(particles.rotations.dtype), precision="highest")
    return eqx.tree_at(lambda p: p.rotations, many, turned.reshape(-1, 3, 3))


def expand_tables(tables: dict[str, Any], name: str, *, seed: int = 0) -> dict[str, Any]:
    """The tables of a particle file after symmetry expansion: every row of "particles" once per element, with new angles.

    Angles of the identity stay as they are; other columns are repeated, other tables kept. Rows without half-set get one, drawn
    at random per image before the expansion, so that the copies of an image stay together; a `DataWarning` says so. Another one
    names images that the tables repeat already.

    Args:
        tables: table of each name; "particles" has rlnAngleRot, rlnAngleTilt and rlnAnglePsi in degrees.
        name: point group, see `symmetry_group`.
        seed: fixes the half-sets that are drawn.

    Raises:
        ParameterError: the group is unknown, the angles are missing, or an image is in both half-sets.
        FileError: a half-set is not 0, 1, 2 or NaN, or a name is not that of an image.
    """
    columns = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    group = symmetry_group(name)
    rows = tables["particles"]
    missing = [column for column in columns if column not in rows]
    require(not missing, "tables", sorted(rows), f"poses to expand; {', '.join(missing)} missing")
    rows = _in_half_sets(rows, seed)
    angles = rows[columns].to_numpy(float)
    with jax.enable_x64(True):
        poses = np.asarray(rotation.from_euler(*np.deg2rad(angles).T))
        found = rotation.to_euler(poses[:, None] @ group)
    turned = np.rad2deg(np.stack([np.asarray(angle) for angle in found], axis=-1))
    turned[:, 0] = angles
    many = rows.loc[rows.index.repeat(len(group))].reset_index(drop=True)
    many[columns] = turned.reshape(-1, 3)
    return {**tables, "particles": many}


def _in_half_sets(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The rows with a half-set each, one for the rows of an image."""
    from lfjax.tomography.relion_checks import half_set_numbers
    from lfjax.tomography.stack_names import image_labels, image_name

    labels = image_labels([image_name("tables", row, name) for row, name in enumerate(rows["rlnImageName"])])
    if repeated := len(labels) - len(np.unique(labels)):
        told = f"{repeated} of {len(labels)} rows repeat an image of another row: these tables have been expanded before"
        warnings.warn(f"{told}; each element of the group would count several times", DataWarning, stacklevel=3)
    half = half_set_numbers("tables", rows)
    if not (free := int((half == 0).sum())):
        return rows
    told = f"{free} of {len(half)} rows have no half-set: drawn at random per image (seed {seed}), so that copies stay together"
    warnings.warn(told, DataWarning, stacklevel=3)
    return rows.assign(rlnRandomSubset=draw_half_sets(jax.random.key(seed), half, labels))


@functools.cache
def _closed(key: str) -> Float[NDArray[np.float64], "order 3 3"]:
    """The elements in RELION's order: powers of the generators, then products of pairs in the order of a growing square."""
    if key[0] == "I":
        turn = _turn((0, 1, 0), -TURNS[key])
        return _closure(tuple((fold, tuple(turn @ axis)) for fold, axis in TWO_FIVE_THREE))
    if key[0] in "CD":
        fold = int(key[1:])
        return _closure(((fold, (0, 0, 1)), (2 if key[0] == "D" else 1, (1, 0, 0))))
    return _closure(GENERATORS[key])


def _closure(axes: tuple[Axis, ...]) -> Float[NDArray[np.float64], "order 3 3"]:
    group = [np.eye(3)] + [_turn(axis, 2 * np.pi * k / fold) for fold, axis in axes for k in range(1, fold)]
    last = 1
    while last < len(group):  # the list grows while the loop reads it
        pairs = [(i, last) for i in range(1, last + 1)] + [(last, j) for j in range(last - 1, 0, -1)]
        for i, j in pairs:
            product = group[i] @ group[j]
            if np.abs(product - group).max((1, 2)).min() > 1e-6:
                group.append(product)
        last += 1
    return np.stack(group)


def _turn(axis: tuple[float, float, float], angle: float) -> Float[NDArray[np.float64], "3 3"]:
    """Turn of the frame about an axis, as RELION's rot turns it about z: of the object by minus the angle."""
    u = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, u[2], -u[1]], [-u[2], 0, u[0]], [u[1], -u[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
