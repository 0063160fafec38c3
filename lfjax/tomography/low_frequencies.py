"""Images in a smaller box of the same length: all frequencies that a search for poses compares, read once.

A search never looks beyond a band that the radius of the particle sets, about 40 cycles per box, whatever the pixels. Images of
256 pixels cropped to that band in Fourier space are ten times smaller, and no pass has to read the large ones again. Lengths in
pixels shrink with the box; `LowFrequencies.enlarged` takes found poses back.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Int
from numpy.typing import NDArray

from lfjax.errors import require
from lfjax.fourier import good_size
from lfjax.io.disk_space import reserve
from lfjax.tomography import schedule
from lfjax.tomography.image_batches import IN_MEMORY, Stack
from lfjax.tomography.particles import Particles
from lfjax.tomography.resampling import resample_images

MARGIN = 2  # cycles per box between the last band and the Nyquist frequency of the smaller box
READ = 2**25  # pixels read at once


class LowFrequencies(NamedTuple):
    """A set of images as a search sees it.

    Attributes:
        images: (n, m, m), an array in memory or in a temporary file; the images themselves where their box is small.
        particles: their particles, shifts and pixel size in pixels of the smaller box.
        noise: relative noise power of each optics group and shell of the smaller box; None: white.
        ratio: pixels of the large box per pixel of the smaller one.
        offsets: pixels (x, y) of the large box by which the smaller one's centre is displaced; None: they are concentric.
    """

    images: Stack
    particles: Particles
    noise: Float[NDArray[np.floating], "groups r"] | None
    ratio: float
    offsets: Int[NDArray[np.int64], "n 2"] | None = None

    def enlarged(self, found: Particles, given: Particles) -> Particles:
        """Found poses, displacements and half-sets as those of the large images.

        Args:
            found: particles of the smaller box.
            given: particles of the large images.
        """
        shifts = jnp.asarray(
            np.asarray(found.shifts, float) * self.ratio + (0 if self.offsets is None else self.offsets), float
        )
        return eqx.tree_at(lambda p: (p.rotations, p.shifts, p.half), given, (found.rotations, shifts, found.half))


def search_pixels(size: int, radius: float) -> int:
    """Pixels per side of the box that holds all bands of a search, at most `size`.

    >>> search_pixels(256, 0.42), search_pixels(64, 0.42)
    (90, 64)

    Args:
        size: pixels per side of the images.
        radius: radius of the particle in box lengths.

    Raises:
        ParameterError: the radius is not between 0 and 1/2.
    """
    require(0 < radius < 0.5, "radius", radius, "more than 0 and less than half the box")
    last = round(schedule.NEAR[-1][0] * schedule.RADIUS / radius)
    return min(size, 2 * good_size(last + MARGIN))


def cropped_images(
    images: Stack,
    particles: Particles,
    pixels: int,
    *,
    noise: Float[ArrayLike, "groups r"] | None = None,
    folder: str | Path | None = None,
    track: Callable[..., Any] | None = None,
) -> LowFrequencies:
    """Images cropped to a smaller box in Fourier space, in batches, each read once.

    Up to 1 GiB of them stays in memory; more goes to a temporary file, which is mapped and gone when the process ends.

    Args:
        images: (n, y, x).
        particles: their particles.
        pixels: pixels per side of the smaller box, see `search_pixels`.
        noise: relative noise power of each optics group and shell of the images; None: white.
        folder: folder of the temporary file; None: that of the system.
        track: wraps the loop over batches, see `lfjax.progress.track`.

    Raises:
        ParameterError: the box is not smaller than that of the images, or equal.
        NoSpaceError: the disk of the temporary file is full.
    """
    count, size = images.shape[0], images.shape[-1]
    require(1 <= pixels <= size, "pixels", pixels, f"1 to {size}, the box of the images")
    shells = None if noise is None else np.asarray(noise)[:, : pixels // 2 + 1]
    if pixels == size:
        return LowFrequencies(images, particles, shells, 1.0)
    ratio = size / pixels
    small = _room((count, pixels, pixels), folder)
    batch = max(1, min(512, READ // size**2))
    starts = range(0, count, batch)
    for start in track(starts, "reading low frequencies") if track else starts:
        part = np.arange(start, min(start + batch, count))
        filled = part[np.minimum(np.arange(batch), len(part) - 1)]  # one shape, one program of stacks that compute
        small[part] = resample_images(np.asarray(images[filled], np.float32), 1.0, pixels, ratio)[: len(part)]
    lengths = (
        jnp.asarray(np.asarray(particles.shifts, float) / ratio, float),
        jnp.asarray(np.asarray(particles.pixel_angstrom, float) * ratio, float),
    )
    return LowFrequencies(small, eqx.tree_at(lambda p: (p.shifts, p.pixel_angstrom), particles, lengths), shells, ratio)


def _room(shape: tuple[int, ...], folder: str | Path | None) -> NDArray[np.float32]:
    size = 4 * math.prod(shape)
    if size <= IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=folder, prefix=".lfjax.") as file:  # the map outlives the handle
        reserve(Path(folder or tempfile.gettempdir()) / "temporary images", file.fileno(), size)
        return np.memmap(file, np.float32, "w+", shape=shape)
