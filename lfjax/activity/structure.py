"""A structural volume on the grid of the reconstruction."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real
from numpy.typing import ArrayLike

from lfjax.errors import ParameterError, ShapeError, require, require_shape

SAME = 1e-3  # relative difference below which two voxel sizes are the same


def resample_structure(
    volume: ArrayLike,
    voxel_um: tuple[float, float, float] | None,
    shape: tuple[int, int, int],
    grid_voxel_um: tuple[float, float, float],
    *,
    diameter_um: float = 12.0,
) -> Real[np.ndarray, "z y x"]:
    """A structural volume, resampled from its own voxel size to the grid of the reconstruction; the two have one centre.

    Along an axis on which the grid is coarser, a voxel is the mean of the part of the volume that it covers; on which it is
    finer, values are interpolated linearly between the middles of the voxels. Voxels of the grid beyond the volume take the
    value of its edge. A volume that is on the grid already is returned as it is.

    Args:
        volume: (z, y, x), with its first plane at the smallest depth, as the reconstruction has.
        voxel_um: voxel size (z, y, x) of the volume. None: unknown, and `volume` must have the shape of the grid.
        shape: voxels (z, y, x) of the grid.
        grid_voxel_um: voxel size (z, y, x) of the grid.
        diameter_um: diameter of a soma: along each axis, the extents of the two volumes must agree within half of it, so that a
            soma at the side is off by at most a quarter of it. Either n v or (n - 1) v, the distance of the outermost middles,
            must agree, with n voxels of size v: stacks are stated both ways.

    Raises:
        ShapeError: the volume has other than three axes, or its voxel size is unknown and its shape is not that of the grid.
        ParameterError: the extents differ, or a size is not positive.
    """
    array = np.asarray(volume)
    require_shape("structure", array.shape, ("z", "y", "x"))
    require(diameter_um > 0, "diameter_um", diameter_um, "a positive number")
    if on_grid("structure", array.shape, voxel_um, shape, grid_voxel_um, diameter_um):
        return array
    assert voxel_um is not None
    result = np.asarray(array, np.float32)
    for place, (n, v, m, w) in enumerate(zip(array.shape, voxel_um, shape, grid_voxel_um, strict=True)):
        if n != m or abs(v / w - 1) >= SAME:
            result = np.moveaxis(np.tensordot(_resampling(n, v, m, w), result, (1, place)), 0, place)
    return np.ascontiguousarray(result, np.float32)


def on_grid(
    name: str,
    found: tuple[int, ...],
    voxel_um: tuple[float, float, float] | None,
    shape: tuple[int, int, int],
    grid_voxel_um: tuple[float, float, float],
    diameter_um: float,
) -> bool:
    """Whether a volume is on the grid already; see `resample_structure`, whose errors this raises.

    Args:
        name: of the volume, for messages.
        found: its voxels (z, y, x).
        voxel_um: its voxel size; None: unknown.
        shape: voxels of the grid.
        grid_voxel_um: voxel size of the grid.
        diameter_um: diameter of a soma.
    """
    require(diameter_um > 0, "diameter_um", diameter_um, "a positive number")
    require(len(grid_voxel_um) == 3 and min(grid_voxel_um) > 0, "grid_voxel_um", grid_voxel_um, "three positive numbers")
    if voxel_um is None:
        if tuple(found) != tuple(shape):
            raise ShapeError(
                f"{name} has shape {tuple(found)} and no voxel size: expected the grid's {tuple(shape)}, or the voxel size "
                f"(voxel_um; --{name}-voxel-um Z,Y,X), by which it is resampled"
            )
        return True
    require(len(voxel_um) == 3 and min(voxel_um) > 0, "voxel_um", voxel_um, "three positive numbers")
    same = True
    for axis, n, v, m, w in zip("zyx", found, voxel_um, shape, grid_voxel_um, strict=True):
        same = same and n == m and abs(v / w - 1) < SAME
        apart = min(abs(n * v - m * w), abs((n - 1) * v - (m - 1) * w))
        if apart > diameter_um / 2:
            raise ParameterError(
                f"{name}: {n} voxels of {v:.4g} um along {axis} are {n * v:.4g} um, the grid has {m * w:.4g} um ({m} of "
                f"{w:.4g} um): expected extents within {diameter_um / 2:.3g} um, half a soma; crop the volume to the field and "
                f"depths of the reconstruction, or correct its voxel size (--{name}-voxel-um Z,Y,X)"
            )
    return same


def _resampling(n: int, voxel: float, m: int, grid: float) -> Float[np.ndarray, "m n"]:
    """Matrix from n samples of one spacing to m of another about the same centre; its rows sum to 1."""
    middles = (np.arange(m) - (m - 1) / 2) * grid
    if grid > voxel:
        edges = (np.arange(n + 1) - n / 2) * voxel
        low, high = (np.clip(middles + side * grid / 2, edges[0], edges[-1]) for side in (-1, 1))
        overlap = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
        matrix = np.maximum(overlap, 0)
        covered = matrix.sum(1, keepdims=True)
        inside = covered[:, 0] > 1e-6 * grid
        matrix[inside] /= covered[inside]
        beyond = np.flatnonzero(~inside)
        matrix[beyond] = 0
        matrix[beyond, np.where(middles[beyond] < 0, 0, n - 1)] = 1
        return matrix.astype(np.float32)
    at = np.clip(middles / voxel + (n - 1) / 2, 0, n - 1)
    low = np.minimum(np.floor(at).astype(int), max(n - 2, 0))
    matrix = np.zeros((m, n))
    np.add.at(matrix, (np.arange(m), low), 1 - (at - low))
    np.add.at(matrix, (np.arange(m), np.minimum(low + 1, n - 1)), at - low)
    return matrix.astype(np.float32)
