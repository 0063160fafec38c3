"""Boxes cut to their particles: neighbours, and noise far from the particle, take no part in a search for poses.

A particle in a ball of radius a about the centre of its box projects into a disc of that radius, whatever its pose. All that
lies farther out is noise or of others, and a search that compares whole boxes compares it too: the prior of a shell holds for
the samples of the map's transform one by one, and takes the more of them for noise the larger the box. So a box is cut to M
pixels about the particle's expected centre, and what is left beyond a disc becomes noise:

    y'(r) = m(r) y(r) + sqrt(1 - m(r)^2) s e(r)

with m the disc, 1 up to 1.1 a and 0 from 1.19 a on (both farther by the reach of the displacements), e white noise of deviation
1, and s the deviation of the image's background. White noise of deviation s in y is white noise of deviation s in y': the model
of a search holds, and its log-likelihoods are as far apart as the images say. With zeros beyond the disc there would be less
noise in every shell than near the particle, and posteriors too narrow.

A CTF spreads a frequency k by lambda z k (z the defocus): 30 A at 1 / 10 A and 1.5 um. The margin about the ball holds the
low frequencies that decide a search; what is spread farther is lost to it. Maps are made of whole boxes.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size
from lfjax.tomography import schedule
from lfjax.tomography.image_batches import Stack
from lfjax.tomography.particles import Particles

FLAT = 1.1  # of the ball's radius: up to there the disc is 1
OUTER = 0.5 / schedule.RADIUS  # of the ball's radius: from there on it is 0; a box so large is that of the bands of a search
REACH = 2.0  # standard deviations of the displacements by which the disc is larger
SEED = 3  # of the noise beyond the discs
NORMAL = 1.4826  # deviation of a normal distribution over its median absolute deviation


def cut_pixels(size: int, radius_px: float, *, shift_px: float = 0.0, least: int = 2) -> int:
    """Pixels per side of a box cut to a particle, even, and at most `size`.

    >>> cut_pixels(128, 20.0), cut_pixels(64, 20.0, shift_px=6.0)
    (48, 64)

    Args:
        size: pixels per side of the images.
        radius_px: radius of the ball that holds the particle, pixels.
        shift_px: standard deviation of the particle's displacements along each axis, pixels.
        least: least number of pixels.

    Raises:
        ParameterError: the radius is not positive, or the standard deviation is negative.
    """
    require(radius_px > 0, "radius_px", radius_px, "more than 0")
    require(shift_px >= 0, "shift_px", shift_px, "0 or more pixels")
    return min(size, 2 * good_size(max(math.ceil(OUTER * radius_px + REACH * shift_px), (least + 1) // 2)))


class CutImages:
    """A stack whose images are cut to their particles as they are read.

    Attributes:
        particles: the particles; their shifts are what is left of the given ones beside whole pixels.
        offsets: whole pixels (x, y) by which the centre of each cut box is displaced from that of its image.
    """

    particles: Particles
    offsets: Int[NDArray[np.int64], "n 2"]

    def __init__(self, images: Stack, particles: Particles, pixels: int, *, radius_px: float, shift_px: float = 0.0) -> None:
        """Images are read when they are asked for.

        Args:
            images: (n, y, x), backgrounds of mean 0.
            particles: their particles, whose shifts tell where they are expected.
            pixels: pixels per side of the cut boxes, see `cut_pixels`.
            radius_px: radius of the ball that holds the particle, pixels.
            shift_px: standard deviation of the displacements about the given shifts, pixels.

        Raises:
            ShapeError: images and particles do not agree.
            ParameterError: the cut boxes are larger than the images, or the radius is not positive.
        """
        count, size = images.shape[0], images.shape[-1]
        require_shape("images", tuple(images.shape), (len(particles), size, size))
        require(1 <= pixels <= size, "pixels", pixels, f"1 to {size}, the box of the images")
        require(radius_px > 0, "radius_px", radius_px, "more than 0")
        shifts = np.asarray(particles.shifts, float).reshape(count, 2)
        self.offsets = np.rint(shifts).astype(np.int64)
        self.particles = eqx.tree_at(lambda p: p.shifts, particles, jnp.asarray(shifts - self.offsets, float))
        self._images, self._pixels = images, pixels
        self._outer = min(OUTER * radius_px + REACH * shift_px, pixels / 2)
        self._flat = min(FLAT * radius_px + REACH * shift_px, self._outer - 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, y, x)."""
        return self._images.shape[0], self._pixels, self._pixels

    def __getitem__(self, index: Int[NDArray[np.int64], " m"]) -> Float[NDArray[np.float32], "m y x"]:
        """Images of these indices; an image is the same whenever it is read."""
        found = np.empty((len(index), self._pixels, self._pixels), np.float32)
        for place, number, image in zip(found, index, np.asarray(self._images[index], np.float32), strict=True):
            place[:] = self._cut(image, self.offsets[number], np.random.default_rng((SEED, int(number))))
        return found

    def _cut(
        self, image: Float[NDArray[np.float32], "n n"], offset: Int[NDArray[np.int64], "2"], rng: np.random.Generator
    ) -> Float[NDArray[np.float32], "m m"]:
        size, side = len(image), self._pixels
        middle = size // 2 + offset[::-1]  # row and column
        rows, columns = (np.arange(side) - side // 2 + at for at in middle)
        there = ((rows >= 0) & (rows < size))[:, None] & (columns >= 0) & (columns < size)
        near = np.arange(side) - side // 2
        share = np.clip((np.hypot(near, near[:, None]) - self._flat) / (self._outer - self._flat), 0, 1)
        disc = (there * (0.5 + 0.5 * np.cos(np.pi * share))).astype(np.float32)
        y, x = (np.arange(size) - at for at in middle)
        beyond = image[np.hypot(x, y[:, None]) > self._outer]
        beyond = beyond[beyond != 0]  # a smaller box brought to this one has zeros around it
        deviation = NORMAL * float(np.median(np.abs(beyond - np.median(beyond)))) if len(beyond) else 0.0
        noise = np.sqrt(1 - disc**2) * np.float32(deviation) * rng.standard_normal(disc.shape, np.float32)
        return disc * image[np.clip(rows, 0, size - 1)][:, np.clip(columns, 0, size - 1)] + noise
