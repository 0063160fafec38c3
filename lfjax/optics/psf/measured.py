"""PSFs measured from images of beads, in place of computed ones."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike
from scipy.ndimage import shift

from lfjax.errors import require, require_shape
from lfjax.optics.microscope import Microscope
from lfjax.optics.psf.images import PSF


def measured_psf(
    images: ArrayLike, microscope: Microscope, z_um: Sequence[float] | ArrayLike, *, background: float | None = None
) -> PSF:
    """The PSF of a light-field microscope from rectified images of a bead at every sub-lenslet voxel and depth.

    Args:
        images: (z, a, b, y, x), as in `PSF.values`: K x K lenslets with that of the bead in the middle, any unit.
        microscope: the parameters; lattice, N and magnification are used.
        z_um: depths.
        background: level of a pixel, which is subtracted; None: the median of the pixels on the rim of each image.

    Returns:
        The PSF, nonnegative, each image of sum 1, oversampling 1; `optics.write_psf` saves it.

    Raises:
        ShapeError: `images` does not have five axes, or not one plane per depth.
        ParameterError: the images are not whole lenslets, or one is without light.
    """
    data, depths = np.asarray(images, float), np.ravel(np.asarray(z_um, float))
    require_shape("images", data.shape, (len(depths), "a", "b", "y", "x"))
    clean = _above(data, background)
    total = clean.sum((-2, -1), keepdims=True)
    require(bool(np.all(total > 0)), "images", "an image without light", "light above the background in every image")
    return PSF(jnp.asarray(clean / total, jnp.result_type(float)), microscope, tuple(float(z) for z in depths))


def measured_views(
    stack: ArrayLike, centres_px: ArrayLike, side: int, *, background: float | None = None
) -> Float[Array, "v z y x"]:
    """PSFs of the views of a Fourier light-field microscope or XLFM, from a focus series of one bead on its axis.

    Args:
        stack: (z, y, x), raw frames of a bead, one per depth, any unit.
        centres_px: (v, 2), position (row, column) of the bead at z = 0 in each view, to a fraction of a pixel.
        side: K, pixels per side of a PSF, odd.
        background: level of a pixel, which is subtracted; None: the median of the pixels on the rim of each crop.

    Returns:
        PSFs (v, z, K, K) for `MultiView`: nonnegative, shifted to the middle of a pixel by cubic interpolation, of sum 1
        over all views at each depth.

    Raises:
        ShapeError: `stack` or `centres_px` has other axes.
        ParameterError: `side` is even, a view lies partly outside the frames, or a depth is without light.
    """
    frames, centres = np.asarray(stack, float), np.asarray(centres_px, float)
    require_shape("stack", frames.shape, ("z", "y", "x"))
    require_shape("centres_px", centres.shape, ("v", 2))
    require(isinstance(side, int) and side > 0 and side % 2 == 1, "side", side, "an odd number of pixels")
    middle, margin = np.round(centres).astype(int), side // 2 + 2  # room for the cubic interpolation
    inside = np.all(middle - margin >= 0) and np.all(middle + margin < frames.shape[1:])
    require(bool(inside), "centres_px", centres.tolist(), f"{margin} pixels away from the edges of {frames.shape[1:]} frames")
    views = []
    for (row, column), centre in zip(middle, centres, strict=True):
        cut = frames[:, row - margin : row + margin + 1, column - margin : column + margin + 1]
        moved = shift(cut, (0, *(np.array([row, column]) - centre)), order=3, mode="nearest")
        views.append(moved[:, 2:-2, 2:-2])
    clean = _above(np.stack(views), background)
    total = clean.sum((0, 2, 3), keepdims=True)
    require(bool(np.all(total > 0)), "stack", "a depth without light", "light above the background at every depth")
    return jnp.asarray(clean / total, jnp.result_type(float))


def _above(images: np.ndarray, background: float | None) -> np.ndarray:
    """Images (..., y, x) with the background subtracted and negative values set to zero."""
    if background is None:
        rim = np.ones(images.shape[-2:], bool)
        rim[1:-1, 1:-1] = False
        level = np.median(images[..., rim], axis=-1)[..., None, None]
    else:
        level = np.asarray(background)
    return np.maximum(images - level, 0)
