"""Low frequencies of images, as the vectors that a search for poses compares: Fourier samples up to K cycles per box.

    y(k) = m(k) Y(k) / |CTF(k)|,   c(k) = |CTF(k)|,   y = c V^(R^T k) exp(-2 pi i k.t / n) + noise,   |k| <= K

Y is the transform of an image about its centre and m the matched factor of `Ctf`, so that one model serves images as recorded,
phase-flipped and premultiplied ones, with or without odd aberrations. Projections of the map of the band lie on a small box of
the same length, which is why a search at K = 8 costs the same for images of 64 and of 512 pixels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, Int
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size
from lfjax.tomography import fourier_shells, gridding
from lfjax.tomography.fourier_slice import Plane, View, map_batches
from lfjax.tomography.particles import Particles

TAPS = 3  # of the kernel: an error of 5e-3, far below the noise of an image
MARGIN = 2  # cycles per box between the band and the Nyquist frequency of its box
FAINT = 1e-4  # |CTF|^2 below which a frequency counts as one of the zeros of the CTF
AT_ONCE = 64  # images transformed at once


@dataclass(frozen=True)
class Band:
    """The half plane of frequencies up to `limit`, and the small box that holds the map of the band.

    Attributes:
        limit: K, largest frequency in cycles per box.
    """

    limit: int

    @cached_property
    def plane(self) -> Plane:
        """Frequencies in the box of the band and their interpolation."""
        return self.plane_of(2 * good_size(self.limit + MARGIN))

    def plane_of(self, size: int) -> Plane:
        """The same frequencies, in the same order, in a box of `size` pixels."""
        cutoff = (self.limit + 1e-6) / (size / 2)  # a quotient rounded down would lose the samples at the limit itself
        return Plane(size, 2 * size, gridding.kaiser_bessel(TAPS, 2.0), cutoff)

    @property
    def size(self) -> int:
        """Voxels per side of the box of the band."""
        return self.plane.size

    @property
    def shells(self) -> int:
        """Number of shells of the box, from frequency 0."""
        return self.size // 2 + 1

    @cached_property
    def shell(self) -> Int[NDArray[np.int64], " m"]:
        """Shell of each sample."""
        return np.rint(np.hypot(*self.plane.frequencies)).astype(int)

    @cached_property
    def count(self) -> Float[NDArray[np.float64], " m"]:
        """How much each sample counts: a half at kx = 0, where the half plane has both (0, ky) and (0, -ky)."""
        return np.where(self.plane.frequencies[0] == 0, 0.5, 1.0)

    def means(self, values: Float[Array, "... m"]) -> Float[Array, "... r"]:
        """Mean over each shell; 0 beyond the band."""
        member = self._members
        return values @ jnp.asarray(member / np.maximum(member.sum(0), 1e-9), values.dtype)

    @cached_property
    def _members(self) -> Float[NDArray[np.float64], "m r"]:
        return self.count[:, None] * (self.shell[:, None] == np.arange(self.shells))


@functools.lru_cache(maxsize=64)
def band_of(limit: int) -> Band:
    """The band up to `limit` cycles per box; one object for each limit, so that its tables are made once."""
    require(limit >= 2, "limit", limit, "2 or more cycles per box")
    return Band(int(limit))


class Samples(eqx.Module):
    """Samples of n images in a band.

    Attributes:
        values: y, divided by the relative noise amplitude of each image.
        contrast: c, divided by the same.
        magnified: optics of images whose magnification is anisotropic, which shifts the frequencies; else None.
    """

    values: Complex[Array, "n m"]
    contrast: Float[Array, "n m"]
    magnified: View | None

    def view(self, i: slice | int) -> Samples:
        """A selection."""
        return jax.tree.map(lambda leaf: leaf[i], self)


def samples(
    band: Band, images: Float[ArrayLike, "n y x"], particles: Particles, noise: Float[ArrayLike, "groups r"] | None = None
) -> Samples:
    """Samples of images, displaced by the shifts of their particles.

    Args:
        band: frequencies, below the Nyquist frequency of the images.
        images: (n, y, x), particles bright.
        particles: optics and shifts; rotations do not matter.
        noise: relative noise power of each optics group and shell from frequency 0, which whitens the samples; None: white.

    Raises:
        ShapeError: images and particles differ in number, or the images are not square.
        ParameterError: the band reaches the Nyquist frequency, or the noise is not that of all groups.
    """
    size = jnp.shape(images)[-1]
    require_shape("images", jnp.shape(images), (len(particles), size, size))
    told = f"up to {band.limit} cycles per box"
    require(2 * band.limit < size, "band", told, f"less than {size / 2:g}, the Nyquist frequency")
    rows = None if noise is None else _noise_of(noise, particles)[:, : band.limit + 2]
    return _samples(band, jnp.asarray(images, jnp.float32), particles, rows)


def _noise_of(noise: Float[ArrayLike, "groups r"], particles: Particles) -> Float[NDArray[np.float32], "n r"]:
    """Relative noise power of each image: JAX would take the last group for one that is missing."""
    table, group = np.asarray(noise, np.float32), np.asarray(particles.group)
    require(bool((table > 0).all()), "noise", f"{table.min():g}", "powers, more than 0")
    told = f"the powers of {len(table)} optics groups"
    require(bool((group < len(table)).all()), "noise", told, f"those of group {group.max(initial=0)} too, counted from 0")
    return table[group]


@functools.partial(jax.jit, static_argnums=0)
def _samples(band: Band, images: Array, particles: Particles, noise: Array | None) -> Samples:
    size = images.shape[-1]
    plane = band.plane_of(size)
    shell = np.minimum(band.shell, 0 if noise is None else noise.shape[1] - 1)

    def one(item: tuple[Array, View, Array | None]) -> tuple[Array, Array]:
        image, view, noise = item
        contrast = jnp.sqrt(jnp.maximum(jnp.asarray(plane.power(view)), FAINT))
        gain = jnp.ones(len(shell)) if noise is None else 1 / jnp.sqrt(noise[shell])
        values = plane.samples(image, view.shift) * plane.matched(view) / contrast
        return (values * gain).astype(jnp.complex64), (contrast * gain).astype(jnp.float32)

    views = View(particles.rotations, particles.shifts, particles.ctf, particles.pixel_angstrom)
    values, contrast = map_batches(one, (images, views, noise), AT_ONCE)
    ctf = particles.ctf
    bent = ctf is not None and ctf.aberrations is not None and ctf.aberrations.magnification is not None
    return Samples(values, contrast, views if bent else None)


def resized(volume: Float[ArrayLike, "z y x"], size: int) -> Float[Array, "n n n"]:
    """The map in a box of another number of voxels and the same length: cropped or padded in Fourier space, its transform
    on the same scale, so that the map keeps the sum of its voxels."""
    old = jnp.shape(volume)[0]
    if old == size:
        return jnp.asarray(volume, jnp.float32)
    return _resized(jnp.asarray(volume, jnp.float32), size)


@functools.partial(jax.jit, static_argnums=1)
def _resized(volume: Array, size: int) -> Array:
    old, few = volume.shape[0], min(volume.shape[0], size)
    spectrum = jnp.fft.rfftn(jnp.roll(volume, (-(old // 2),) * 3, (0, 1, 2)))
    k = np.r_[: (few + 1) // 2, -((few - 1) // 2) : 0]  # the Nyquist frequency of the smaller box is left out
    columns = (few + 1) // 2
    part = spectrum[np.ix_(k, k, range(columns))]
    wide = jnp.zeros((size, size, size // 2 + 1), spectrum.dtype).at[np.ix_(k, k, range(columns))].set(part)
    return jnp.roll(jnp.fft.irfftn(wide, (size,) * 3), (size // 2,) * 3, (0, 1, 2))


def shell_powers(volume: Float[Array, "n n n"]) -> Float[Array, " r"]:
    """Mean power of each shell of a small map."""
    n = volume.shape[0]
    return fourier_shells.shell_means(jnp.abs(jnp.fft.rfftn(volume)) ** 2, fourier_shells.shells(n), n // 2 + 1)
