"""Images beside the projections of the map at the poses found, in the band of a pass: how a search is looked at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy.typing import NDArray
from scipy import ndimage

from lfjax.tomography.bands import Band, band_of
from lfjax.tomography.passes import Poses
from lfjax.tomography.pose_search import PoseSearch
from lfjax.tomography.posterior_map import Estimate


class BandViews(NamedTuple):
    """Some images and their projections, filtered to a band, in its box.

    Attributes:
        images: with the signs of their CTF made equal.
        projections: of the map at the best pose of each image, times the size of its CTF.
    """

    images: Float[NDArray[np.floating], "m n n"]
    projections: Float[NDArray[np.floating], "m n n"]


def images_beside_map(
    search: PoseSearch, limit: int, estimate: Estimate, poses: Poses, index: Int[NDArray[np.int64], " m"]
) -> BandViews:
    """Images of a search and the projections that its map predicts for them; nothing is compiled for it.

    Args:
        search: the search.
        limit: band of the map, cycles per box.
        estimate: map of the band.
        poses: poses of all images.
        index: images to show, at most a batch of the search.
    """
    band = band_of(limit)
    batch = next(search.images.batches(band, index))
    values, contrast = (np.asarray(a)[: len(index)] for a in (batch.samples.values, batch.samples.contrast))
    volume = np.asarray(estimate.volume, float)
    volume = volume if len(volume) == band.size else np.zeros((band.size,) * 3)
    k = band.plane.frequencies
    predicted = []
    for i, c in zip(index, contrast, strict=True):
        seen = np.fft.fft2(np.fft.ifftshift(_projection(volume, poses.rotations[i, 0])))
        moved = np.exp(-2j * np.pi / search.images.pixels * (poses.shifts[i, 0] @ k))
        predicted.append(seen[k[1].astype(int), k[0].astype(int)] * c * moved)
    return BandViews(*(np.stack([_image(band, row) for row in rows]) for rows in (values, predicted)))


def _projection(volume: Float[NDArray[np.floating], "n n n"], turn: Float[NDArray[np.floating], "3 3"]) -> NDArray[np.floating]:
    """Line integrals I(x, y) = sum over z of V(R^T (x, y, z)), linear between voxels."""
    matrix = np.asarray(turn, float).T[::-1, ::-1]  # of (z, y, x)
    centre = np.full(3, len(volume) // 2)
    return np.asarray(ndimage.affine_transform(volume, matrix, centre - matrix @ centre, order=1)).sum(0)


def _image(band: Band, samples: Complex[NDArray[np.complexfloating], " m"]) -> NDArray[np.floating]:
    n, (kx, ky) = band.size, band.plane.frequencies.astype(int)
    spectrum = np.zeros((n, n // 2 + 1), complex)
    spectrum[ky, kx] = samples
    return np.fft.fftshift(np.fft.irfft2(spectrum, (n, n)))
