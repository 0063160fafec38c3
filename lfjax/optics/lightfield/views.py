"""Rectified lenslet images, sub-aperture views and epipolar images: three arrangements of the same numbers."""

from __future__ import annotations

from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from lfjax.errors import ShapeError

AnyArray = TypeVar("AnyArray", Array, np.ndarray)


def to_views(image: Shaped[AnyArray, "y x"], n: int | tuple[int, int]) -> Shaped[AnyArray, "v u Y X"]:
    """Sub-aperture views: view (v, u) holds pixel (v, u) of every lenslet.

    Args:
        image: rectified light field with n pixels per lenslet.
        n: pixels per lenslet, N; (N_y, N_x) for a cell that is not square (`Microscope.cell_pixels`).

    Raises:
        ShapeError: a side is not a whole number of lenslets.
    """
    (rows, columns), (high, wide) = image.shape, _pair(n)
    if rows % high or columns % wide:
        raise ShapeError(f"image has shape {image.shape}: expected whole lenslets of {high} x {wide} pixels")
    return image.reshape(rows // high, high, columns // wide, wide).transpose(1, 3, 0, 2)


def from_views(views: Shaped[AnyArray, "v u Y X"]) -> Shaped[AnyArray, "y x"]:
    """The lenslet image (y, x) of a set of views; inverse of `to_views`."""
    v, u, rows, columns = views.shape
    return views.transpose(2, 0, 3, 1).reshape(rows * v, columns * u)


def epipolar_image(views: Shaped[AnyArray, "v u Y X"], *, v: int, row: int) -> Shaped[AnyArray, "u X"]:
    """Epipolar image (u, X): one row of lenslets seen by one row of views. A point at depth z draws a line of slope ~ z.

    Args:
        views: see `to_views`.
        v: index of the row of views.
        row: index of the row of lenslets, Y.
    """
    return views[v, :, row, :]


def view_mosaic(views: Shaped[AnyArray, "v u Y X"]) -> Shaped[Array, "y x"]:
    """All views side by side, as one picture of v x u small images."""
    v, u, rows, columns = views.shape
    return jnp.asarray(views).transpose(0, 2, 1, 3).reshape(v * rows, u * columns)


def to_channels(volume: Shaped[AnyArray, "z y x"], s: int | tuple[int, int]) -> Shaped[AnyArray, "c Y X"]:
    """The z s^2 channels of a volume: channel (z, a, b) holds voxel (a, b) of every lenslet, as a view does with pixels.

    Args:
        volume: (z, y, x), a whole number of lenslets in y and x.
        s: voxels per lenslet; (s_y, s_x) for a cell that is not square (`Microscope.cell_voxels`).
    """
    (z, rows, columns), (high, wide) = volume.shape, _pair(s)
    grid = volume.reshape(z, rows // high, high, columns // wide, wide).transpose(0, 2, 4, 1, 3)
    return grid.reshape(-1, rows // high, columns // wide)


def from_channels(channels: Shaped[AnyArray, "c Y X"], s: int | tuple[int, int]) -> Shaped[AnyArray, "z y x"]:
    """The volume of a set of channels; inverse of `to_channels`."""
    (c, rows, columns), (high, wide) = channels.shape, _pair(s)
    grid = channels.reshape(c // (high * wide), high, wide, rows, columns)
    return grid.transpose(0, 3, 1, 4, 2).reshape(-1, rows * high, columns * wide)


def _pair(n: int | tuple[int, int]) -> tuple[int, int]:
    return (n, n) if isinstance(n, int) else n
