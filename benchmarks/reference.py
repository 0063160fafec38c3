"""Comparison with the independent PSF reference in the conventions of lfjax, for tests and benchmarks."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfjax.optics import PSF

CLIP = 0.005  # fraction of a plane's maximum; the reference sets smaller values to 0 and rescales each PSF to sum 1


def relative_error(got: ArrayLike, wanted: ArrayLike) -> float:
    """Relative L2 error |got - wanted| / |wanted|."""
    return float(np.linalg.norm(np.asarray(got) - np.asarray(wanted)) / np.linalg.norm(np.asarray(wanted)))


def clipped(psf: PSF) -> PSF:
    """The PSF with its small values set to 0 and rescaled, as in the reference."""
    values = np.asarray(psf.values)
    kept = np.where(values < CLIP * values.max((1, 2, 3, 4), keepdims=True), 0, values)
    return eqx.tree_at(lambda p: p.values, psf, jnp.asarray(kept / kept.sum((3, 4), keepdims=True)))


def psf_errors(psf: PSF, filters: NDArray[np.float32]) -> NDArray[np.float64]:
    """Relative L2 error of every image, (z, a, b), against the reference's filters (a, b, z, row, column).

    The reference centres each image on the source voxel, lfjax on its lenslet; the reference crops its window before clipping.
    """
    values, side = np.asarray(psf.values), filters.shape[-1]
    depths, s = values.shape[:2]
    reach = side // 2
    middle = values.shape[-1] // 2 + reach
    errors = np.empty((depths, s, s))
    for z in range(depths):
        mine = np.empty((s, s, side, side))
        for a, b in np.ndindex(s, s):
            y, x = middle + a - s // 2, middle + b - s // 2
            mine[a, b] = np.pad(values[z, a, b], reach)[y - reach : y + reach + 1, x - reach : x + reach + 1]
        mine = np.where(mine < CLIP * mine.max(), 0, mine)
        mine /= mine.sum((2, 3), keepdims=True)
        theirs = filters[:, :, z]
        errors[z] = np.linalg.norm(mine - theirs, axis=(2, 3)) / np.linalg.norm(theirs, axis=(2, 3))
    return errors
