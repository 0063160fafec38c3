"""Whether maps of several files lie on one grid: the same number of voxels and the same voxel size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import ArrayLike

from lfjax.errors import ParameterError, ShapeError, require

TOLERANCE = 1e-4
"""Largest relative difference of two voxel sizes that counts as rounding: 0.03 voxels at the border of a box of 512."""


def same_grid(maps: Mapping[str, tuple[ArrayLike, float | None]], *, cubic: bool = True) -> float:
    """The voxel size in angstroms that all maps share.

    >>> same_grid({"half1.mrc": (np.zeros((8, 8, 8)), 1.35), "mask.mrc": (np.zeros((8, 8, 8)), None)})
    1.35

    Args:
        maps: name of each map, such as its file -> (array (z, y, x), voxel size in angstroms; None or 0: not stated).
        cubic: whether the maps have to be cubes.

    Raises:
        ShapeError: a map has other than three axes, is no cube, or differs in size from the first.
        ParameterError: no map states a voxel size, or two state different ones.
    """
    require(len(maps) > 0, "maps", dict(maps), "one or more")
    first = next(iter(maps))
    shape = np.shape(maps[first][0])
    for name, (array, _) in maps.items():
        found = np.shape(array)
        if len(found) != 3 or (cubic and len(set(found)) > 1):
            raise ShapeError(f"{name} has {_by(found)} voxels (z, y, x): expected {'a cube' if cubic else 'three axes'}")
        if found != shape:
            raise ShapeError(f"{name} has {_by(found)} voxels (z, y, x): expected {_by(shape)}, as {first}")
    stated = {name: float(voxel) for name, (_, voxel) in maps.items() if voxel}
    if not stated:
        raise ParameterError(f"voxel size: expected one in angstroms; {', '.join(maps)} state none")
    owner, size = next(iter(stated.items()))
    for name, voxel in stated.items():
        require(bool(np.isfinite(voxel) and voxel > 0), f"voxel size of {name}", voxel, "more than 0")
        if abs(voxel / size - 1) > TOLERANCE:
            raise ParameterError(f"{name} has voxels of {voxel:g} angstroms: expected {size:g}, as {owner}")
    return size


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)
