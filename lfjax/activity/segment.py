"""Somata in a structural volume, and footprints of their light and of the neuropil around them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.ndimage import distance_transform_edt, gaussian_filter

from lfjax._lazy import load
from lfjax.activity.localise import find_somata
from lfjax.errors import require, require_shape


class Somata(NamedTuple):
    """Segmented cell bodies.

    Attributes:
        centres_um: (n, 3), centres of mass (z, y, x) from the corner of the volume.
        labels: (z, y, x), 1 to n; 0 outside all somata.
    """

    centres_um: Float[np.ndarray, "n 3"]
    labels: Int[np.ndarray, "z y x"]

    def masks(self) -> Float[np.ndarray, "n z y x"]:
        """One volume of zeros and ones per soma."""
        return (self.labels[None] == np.arange(1, len(self.centres_um) + 1)[:, None, None, None]).astype(np.float32)


def segment_somata(
    structure: ArrayLike,
    voxel_um: tuple[float, float, float],
    *,
    diameter_um: float = 12.0,
    threshold: float = 0.25,
    edge: float = 0.4,
) -> Somata:
    """Cell bodies of a structural (tdTomato) volume: soma-sized blobs, and the watershed around each.

    `find_somata` places the markers. A voxel belongs to a soma if it is in the marker's basin, at most 0.75 diameters from the
    marker, and brighter than `edge` times the smoothed volume at the marker.

    Args:
        structure: (z, y, x).
        voxel_um: voxel size (z, y, x).
        diameter_um: diameter of a soma.
        threshold: see `find_somata`.
        edge: brightness at which a soma ends, as a fraction of that of its middle.

    Raises:
        ShapeError: the volume has other than three axes.
        ParameterError: a number is out of range.
        ModuleNotFoundError: scikit-image is not installed (`lfjax[neuro]`).
    """
    image = np.asarray(structure, float)
    require(0 < edge < 1, "edge", edge, "a fraction between 0 and 1")
    markers_um = find_somata(image, voxel_um, diameter_um=diameter_um, threshold=threshold)
    voxel = np.asarray(voxel_um, float)
    smooth = gaussian_filter(image, diameter_um / 8 / voxel, mode="nearest")
    markers = np.zeros(image.shape, int)
    places = np.clip(np.floor(markers_um / voxel).astype(int), 0, np.array(image.shape) - 1)
    markers[tuple(places.T)] = np.arange(1, len(places) + 1)
    if not len(places):
        return Somata(np.zeros((0, 3)), markers)
    near = distance_transform_edt(markers == 0, sampling=voxel) <= 0.75 * diameter_um
    basins = load("skimage.segmentation").watershed(-smooth, markers, mask=near)
    middle = gaussian_filter(image, diameter_um / 4 / voxel, mode="nearest")[tuple(places.T)]
    level = np.concatenate([[np.inf], edge * middle])
    labels = np.where((smooth > level[basins]) | (markers > 0), basins, 0)
    masks = (labels[None] == np.arange(1, len(places) + 1)[:, None, None, None]).astype(float)
    weight = masks * np.maximum(image, 1e-12)
    grid = np.stack(np.meshgrid(*((np.arange(n) + 0.5) * v for n, v in zip(image.shape, voxel, strict=True)), indexing="ij"))
    centres = np.einsum("nzyx,dzyx->nd", weight, grid) / weight.sum((1, 2, 3))[:, None]
    return Somata(centres, labels)


def soma_footprints(
    centres_um: ArrayLike, shape: tuple[int, int, int], voxel_um: tuple[float, float, float], *, diameter_um: float = 12.0
) -> Float[np.ndarray, "n z y x"]:
    """Soma-sized Gaussian blobs of sum 1: footprints where only positions are known.

    Args:
        centres_um: (n, 3), (z, y, x) from the corner of the volume.
        shape: voxels (z, y, x).
        voxel_um: voxel size (z, y, x).
        diameter_um: full width at half maximum.

    Returns:
        (n, z, y, x).

    Raises:
        ShapeError: `centres_um` is not (n, 3).
        ParameterError: the diameter is not positive.
    """
    centres, voxel = np.asarray(centres_um, float), np.asarray(voxel_um, float)
    require_shape("centres_um", centres.shape, ("n", 3))
    require(diameter_um > 0, "diameter_um", diameter_um, "a positive number")
    width = diameter_um / 2.355
    parts = [
        np.exp(-0.5 * (((np.arange(n) + 0.5) * v - centres[:, axis, None]) / width) ** 2)
        for axis, (n, v) in enumerate(zip(shape, voxel, strict=True))
    ]
    blobs = np.einsum("nz,ny,nx->nzyx", *parts)
    return (blobs / blobs.sum((1, 2, 3), keepdims=True)).astype(np.float32)


def neuropil_rings(
    centres_um: ArrayLike,
    masks: ArrayLike,
    voxel_um: tuple[float, float, float],
    *,
    inner_um: float = 10.0,
    outer_um: float = 25.0,
) -> Float[np.ndarray, "n z y x"]:
    """Shells around the somata without the somata themselves, of sum 1: footprints of the neuropil around each soma.

    Args:
        centres_um: (n, 3).
        masks: (n, z, y, x), positive inside each soma; rings exclude the voxels of all masks.
        voxel_um: voxel size (z, y, x).
        inner_um: inner radius of a ring.
        outer_um: outer radius.

    Returns:
        (n, z, y, x); zero for a ring without voxels.

    Raises:
        ShapeError: the shapes do not fit each other.
        ParameterError: the outer radius does not exceed the inner one.
    """
    centres, masks = np.asarray(centres_um, float), np.asarray(masks)
    require_shape("masks", masks.shape, (len(centres), "z", "y", "x"))
    require(0 <= inner_um < outer_um, "inner_um, outer_um", (inner_um, outer_um), "a smaller and a larger radius")
    free = ~(masks > 0).any(0) if len(masks) else np.ones(masks.shape[1:], bool)
    axes = [(np.arange(n) + 0.5) * v for n, v in zip(masks.shape[1:], voxel_um, strict=True)]
    rings = np.zeros(masks.shape, np.float32)
    for ring, (z, y, x) in zip(rings, centres, strict=True):
        distance = np.sqrt(
            (axes[0][:, None, None] - z) ** 2 + (axes[1][None, :, None] - y) ** 2 + (axes[2][None, None, :] - x) ** 2
        )
        inside = free & (distance > inner_um) & (distance <= outer_um)
        if inside.any():
            ring[inside] = 1 / inside.sum()
    return rings
