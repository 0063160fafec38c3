"""Images and maps on another grid: optics groups of several pixel and box sizes brought to one."""

from __future__ import annotations

import functools
import math

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from lfjax.errors import require, require_shape


def resample_images(
    images: Float[NDArray[np.floating], "n y x"], pixel_angstrom: float, size: int, new_pixel_angstrom: float
) -> Float[NDArray[np.floating], "n size size"]:
    """Images on a grid of another pixel and box size, by trigonometric interpolation.

        g(r) = sum_k F(k) exp(2 pi i k.r / (n a)) over |k_x|, |k_y| <= n a / (2 max(a, a')),   g = 0 outside of the old box

    with F the discrete Fourier transform of an image of n pixels of size a, and a' the new pixel size. A frequency at Nyquist
    counts half with each sign. Between grids of one extent this is Fourier cropping or padding; an image band-limited below
    both Nyquist frequencies is exact on any grid. The centre, pixel n // 2, comes to pixel size // 2, and values keep their
    scale. Each axis is one small matrix, so a stack takes two matrix products.

    >>> resample_images(np.ones((2, 8, 8), np.float32), 4.0, 6, 5.0).shape
    (2, 6, 6)

    Args:
        images: (n, y, x).
        pixel_angstrom: pixel size a of the images.
        size: pixels per side of the result.
        new_pixel_angstrom: pixel size a' of the result.

    Returns:
        (n, size, size); the argument itself where the grid is the same.

    Raises:
        ShapeError: the images are not a stack (n, y, x).
        ParameterError: a pixel size is not positive, or the box size is less than 1.

    Source: J. P. Boyd, Chebyshev and Fourier Spectral Methods, 2nd ed. (2001), section 4.5.
    """
    require_shape("images", images.shape, ("n", "y", "x"))
    for name, value in (("pixel_angstrom", pixel_angstrom), ("new_pixel_angstrom", new_pixel_angstrom)):
        require(math.isfinite(value) and value > 0, name, value, "a positive number")
    require(size >= 1, "size", size, "1 or more")
    ratio = new_pixel_angstrom / pixel_angstrom
    if images.shape[1:] == (size, size) and math.isclose(ratio, 1, rel_tol=1e-9):
        return images
    kind = np.result_type(images, np.float32)
    count, high, wide = images.shape
    rows, columns = (_interpolation(n, size, ratio).astype(kind) for n in (high, wide))
    # two products of the whole stack: small ones, image by image, take ten times as long
    across = (images.astype(kind, copy=False).reshape(-1, wide) @ columns.T).reshape(count, high, size)
    return np.swapaxes((np.swapaxes(across, 1, 2).reshape(-1, high) @ rows.T).reshape(count, size, size), 1, 2)


def resample_map(
    volume: Float[NDArray[np.floating], "z y x"], voxel_angstrom: float, size: int, new_voxel_angstrom: float
) -> Float[NDArray[np.floating], "size size size"]:
    """A map on a grid of another voxel and box size, as `resample_images` does it: its centre stays, values keep their scale.

    >>> resample_map(np.ones((8, 8, 8), np.float32), 4.0, 6, 5.0).shape
    (6, 6, 6)

    Args:
        volume: (z, y, x).
        voxel_angstrom: voxel size of the map.
        size: voxels per side of the result.
        new_voxel_angstrom: its voxel size.

    Raises:
        ShapeError: the map has other than three axes.
        ParameterError: a voxel size is not positive, or the box size is less than 1.
    """
    require_shape("volume", volume.shape, ("z", "y", "x"))
    planes = resample_images(volume, voxel_angstrom, size, new_voxel_angstrom)
    if planes is volume and len(volume) == size:
        return volume
    line = _interpolation(len(volume), size, new_voxel_angstrom / voxel_angstrom).astype(planes.dtype)
    return np.tensordot(line, planes, 1)


@functools.lru_cache(maxsize=32)
def _interpolation(n: int, size: int, ratio: float) -> Float[NDArray[np.float64], "size n"]:
    """Values at the new places of the trigonometric polynomials that are 1 at one old pixel and 0 at the others."""
    place = (np.arange(size) - size // 2) * ratio + n // 2
    k = np.arange(math.floor(n / 2 / max(1.0, ratio) + 1e-6) + 1)  # a millionth: the new Nyquist frequency is in the band
    weight = np.where((k == 0) | (2 * k == n), 1, 2) / n
    new, old = (2 * np.pi / n * np.outer(x, k) for x in (place, np.arange(n)))
    inside = (place > -0.5 - 1e-6) & (place < n - 0.5 + 1e-6)
    return inside[:, None] * ((np.cos(new) * weight) @ np.cos(old).T + (np.sin(new) * weight) @ np.sin(old).T)
