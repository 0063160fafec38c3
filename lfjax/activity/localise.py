"""Positions of cell bodies in a volume."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter, maximum_filter

from lfjax.errors import require, require_shape


def find_somata(
    volume: ArrayLike, voxel_um: tuple[float, float, float], *, diameter_um: float = 12.0, threshold: float = 0.25
) -> Float[np.ndarray, "n 3"]:
    """Positions of soma-sized blobs: the maxima of a difference of Gaussians.

    The narrow Gaussian has a standard deviation of a quarter of the diameter, which fills a dark nucleus; the wide one, 1.6
    times that, removes dendrites and neuropil.

    Args:
        volume: (z, y, x).
        voxel_um: voxel size (z, y, x).
        diameter_um: diameter of a soma; of maxima closer than half of it, the strongest is kept.
        threshold: least height of a maximum, as a fraction of the strongest one.

    Returns:
        (n, 3), positions (z, y, x) in um from the corner of the volume, strongest first.

    Raises:
        ShapeError: the volume has other than three axes.
        ParameterError: a number is out of range.
    """
    image = np.asarray(volume, float)
    require_shape("volume", image.shape, ("z", "y", "x"))
    require(diameter_um > 0, "diameter_um", diameter_um, "a positive number")
    require(0 < threshold <= 1, "threshold", threshold, "a fraction above 0, at most 1")
    width = diameter_um / 4 / np.asarray(voxel_um, float)
    score = gaussian_filter(image, width, mode="nearest") - gaussian_filter(image, 1.6 * width, mode="nearest")
    sides = np.maximum(2 * np.round(diameter_um / 4 / np.asarray(voxel_um)).astype(int) + 1, 3)
    highest = score == maximum_filter(score, tuple(sides), mode="nearest")
    peak = highest & (score > threshold * score.max()) & (score > 0)
    places = np.argwhere(peak)
    places = (places[np.argsort(-score[peak], kind="stable")] + 0.5) * np.asarray(voxel_um, float)
    kept: list[np.ndarray] = []  # the maximum of a symmetric blob may span several voxels
    for place in places:
        if all(np.linalg.norm(place - other) >= diameter_um / 2 for other in kept):
            kept.append(place)
    return np.array(kept).reshape(-1, 3)
