"""Spread sums of images at known poses, and their inversion to a map.

    V^(g) = sum_i phi * (r m_i Y_i) / (sum_i phi * (r |CTF_i|^2) + 1 / S),   V = ball * IFT(V^) / phi^

The kernel phi of `gridding` spreads every sample of every image onto an oversampled grid; m_i is the matched factor of `Ctf`.
Planes are denser near the origin; without a CTF, the ramp r = |k| makes up for it, since otherwise the division by phi^, which
corrects for the gridding, overcorrects there by 5 %. A CTF more than makes up for it, as |CTF|^2 rises from the origin: r = 1.
The division by the weights is a Wiener filter with signal-to-noise ratio S of one sample. Without noise an error of 3 %
remains, with a CTF 6 % (its zeros, and the low frequencies that it removes, are not interpolated well); least squares has no
such error.

Every image bears on the ball of half the box about the centre; outside of it the map takes the mean of its rim, since noise is
all that the division by phi^ leaves there. (RELION does the same.)

The inversion transforms blocks of columns one after the other and keeps what lies in the box, so that it needs little memory
beside the sums. The state of a reconstruction is a sum, so images may come batch by batch, and sums of several devices or
processes add up.
"""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size
from lfjax.tomography import gridding
from lfjax.tomography.fourier_slice import Plane, View, accumulate
from lfjax.tomography.particles import Particles
from lfjax.tomography.symmetric_sums import symmetrise
from lfjax.tomography.symmetry import symmetry_group

NEAR = 0.5  # cycles per box: the ramp at frequency 0
EDGE = 3.0  # voxels: the soft edge of the ball


class Sums(eqx.Module):
    """Spread sums of a set of images: real and imaginary part of the data, and the weights.

    >>> from lfjax.tomography.particles import random_particles
    >>> some = random_particles(jax.random.key(0), 20, pixel_angstrom=4.0)
    >>> images = some.projector(16)(jnp.ones((16, 16, 16)))
    >>> Sums.empty(16).add(some, images).volume().shape
    (16, 16, 16)

    Attributes:
        total: the sums on the grid with its margins, in single precision.
        plane: frequencies and kernel.
    """

    total: Float[Array, "gz gy gx 3"]
    plane: Plane = eqx.field(static=True)

    @classmethod
    def empty(cls, size: int, *, kernel: int = 3, padding: float = 2.0, cutoff: float | None = 1.0) -> Sums:
        """Sums of no images.

        Args:
            size: pixels per side.
            kernel: taps of the Kaiser-Bessel kernel.
            padding: ratio of the cells of the grid per side to `size`.
            cutoff: radius in units of Nyquist of the frequencies in use; None: the whole square.
        """
        plane = plane_of(size, kernel, padding, cutoff)
        return cls(jnp.zeros((*gridding.grid_shape(plane.kernel, plane.grid), 3), jnp.float32), plane)

    def add(
        self,
        particles: Particles,
        images: Float[ArrayLike, "n y x"],
        *,
        noise: Float[ArrayLike, "groups r"] | None = None,
        batch: int = 64,
    ) -> Sums:
        """The sums with more images.

        Args:
            particles: poses and optics of the images.
            images: (n, y, x).
            noise: relative noise power of each optics group and shell (0 to size // 2 cycles per box), which divides data and
                weights of its images; None: the same for all.
            batch: most images per batch.

        Raises:
            ShapeError: images and particles differ in number, or the images in size from the sums, or noise in its shells.
            ParameterError: a noise power is not positive, or an optics group has none.
        """
        size = self.plane.size
        require_shape("images", jnp.shape(images), (len(particles), size, size))
        return Sums(_add(self.total, self.plane, batch, particles, images, noise_of_each(particles, noise, size)), self.plane)

    def symmetrised(self, name: str) -> Sums:
        """The sums in which every image counts once per element of a point group, see `symmetrise`.

        >>> Sums.empty(16).symmetrised("D2").weights().max()
        np.float64(0.0)

        Args:
            name: point group of the particle, see `symmetry_group`; "C1" changes nothing.

        Raises:
            ParameterError: the group is unknown.
        """
        group = symmetry_group(name)
        return self if len(group) == 1 else Sums(_symmetrised(self.plane, self.total, jnp.asarray(group, float)), self.plane)

    def __add__(self, other: Sums) -> Sums:
        require(self.plane == other.plane, "other", other.plane, f"sums with the same settings, {self.plane}")
        return Sums(self.total + other.total, self.plane)

    def weights(self) -> Float[NDArray[np.float64], " r"]:
        """Mean weight in each shell of the oversampled grid; a shell is one cycle per image wide."""
        return shell_weights(self.plane, folded(self.plane, self.total))

    def volume(self, wiener: Float[ArrayLike, "*r"] | None = None) -> Float[Array, "z y x"]:
        """The map.

        Args:
            wiener: 1 / S in units of weights: one number, or one per shell (0 to size // 2 cycles per box). Numbers per shell
                keep the mean amplitude of each shell, and weigh only the directions and CTF rings within a shell against each
                other. None, and at least: a thousandth of the mean weight, which only keeps empty frequencies empty.

        Raises:
            ShapeError: the number of shells is wrong.
        """
        shells, total = self.plane.size // 2 + 1, folded(self.plane, self.total)
        if wiener is None or not jnp.ndim(wiener):
            term = jnp.full(shells, 0.0 if wiener is None else wiener, self.total.dtype)
            return inverse(self.plane, total, term, jnp.ones_like(term))
        require_shape("wiener", jnp.shape(wiener), (shells,))
        gain = 1 + np.asarray(wiener, float) / np.maximum(shell_weights(self.plane, total), 1e-20)
        return inverse(self.plane, total, jnp.asarray(wiener), jnp.asarray(gain))


def plane_of(size: int, kernel: int, padding: float, cutoff: float | None = 1.0) -> Plane:
    """Frequencies and kernel of sums; the arguments are those of `Sums.empty`."""
    grid = 2 * good_size(int(np.ceil(padding * size / 2)))
    return Plane(size, grid, gridding.kaiser_bessel(kernel, grid / size), cutoff)


def noise_of_each(particles: Particles, noise: ArrayLike | None, size: int) -> NDArray[np.float32] | None:
    """Noise power of each image and shell, (n, shells), from that of optics groups; `Sums.add` says what it raises."""
    if noise is None:
        return None
    powers, groups = np.asarray(noise, np.float32), np.asarray(particles.group)
    require_shape("noise", powers.shape, ("groups", size // 2 + 1))
    require(bool((np.isfinite(powers) & (powers > 0)).all()), "noise", powers.min(), "finite powers, more than 0")
    require(bool((groups < len(powers)).all()), "noise", f"{len(powers)} rows", f"one per optics group, {groups.max() + 1}")
    return powers[groups]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _add(total: Array, plane: Plane, batch: int, particles: Particles, images: Array, noise: Array | None) -> Array:
    def step(total: Array, item: tuple[View, Array, Array | None], counted: Array) -> Array:
        return gridding.add_taps(total, image_taps(plane, *item, counted))

    return accumulate(step, total, (views_of(particles), images.astype(total.dtype), noise), batch)


def views_of(particles: Particles) -> View:
    """Pose and optics of the particles."""
    return View(particles.rotations, particles.shifts, particles.ctf, particles.pixel_angstrom)


def image_taps(
    plane: Plane, views: View, images: Float[Array, "n y x"], noise: Float[Array, "n r"] | None, counted: Bool[Array, " n"]
) -> gridding.Taps:
    """Data and weights of those images of a batch that count, divided by their noise power, for `gridding.add_taps`."""
    radius = np.hypot(*plane.frequencies)
    shell = np.minimum(np.rint(radius).astype(int), plane.size // 2)
    factor = jnp.asarray(np.maximum(radius, NEAR) if views.ctf is None else np.ones_like(radius), images.dtype)

    def one(view: View, image: Array, noise: Array | None) -> Array:
        data = plane.samples(image, view.shift) * plane.matched(view)
        values = jnp.stack([data.real, data.imag, jnp.broadcast_to(plane.power(view), data.shape)], axis=-1)
        return values * (factor if noise is None else factor / noise[shell])[:, None]

    return plane.taps(views, jnp.where(counted[:, None, None], jax.vmap(one)(views, images, noise), 0))


def block_columns(grid: int) -> int:
    """Columns of the grid that the inversion transforms at once: at most 8 MiB of complex numbers."""
    columns = grid // 2 + 1
    return -(-columns // -(-columns * grid**2 // 2**20))


@functools.partial(jax.jit, static_argnums=0)
def folded(plane: Plane, total: Float[Array, "gz gy gx 3"]) -> Float[Array, "gz gy gx 3"]:
    """A folded copy of the sums, for `shell_weights` and `inverse`."""
    return gridding.fold(total, plane.kernel, plane.grid)


@functools.partial(jax.jit, static_argnums=0)
def _symmetrised(plane: Plane, total: Array, group: Array) -> Array:
    turned = symmetrise(plane, gridding.fold(total, plane.kernel, plane.grid), group)
    return gridding.unfold(turned, plane.kernel, plane.grid)


def shell_weights(plane: Plane, total: Float[ArrayLike, "gz gy gx 3"]) -> Float[NDArray[np.float64], " r"]:
    """Mean weight of each shell up to Nyquist, from folded sums. (NumPy counts faster than a scatter.)"""
    grid, width = plane.grid, plane.kernel.width
    squares = (np.fft.fftfreq(grid) * grid).round().astype(np.int32) ** 2
    table = (np.sqrt(np.arange(3 * (grid // 2) ** 2 + 1)) * (plane.size / grid) + 0.5).astype(np.int32)
    sums = np.zeros((2, plane.size * 2))
    plane_of_squares = squares[:, None] + np.arange(grid // 2 + 1, dtype=np.int32) ** 2
    for square, values in zip(squares, np.asarray(total), strict=False):
        shell = table[square + plane_of_squares].ravel()
        weights = values[:grid, width : width + grid // 2 + 1, 2].ravel()
        sums += [np.bincount(shell, part, plane.size * 2) for part in (weights, None)]
    return (sums[0] / np.maximum(sums[1], 1))[: plane.size // 2 + 1]


@functools.partial(jax.jit, static_argnums=0)
def inverse(
    plane: Plane, total: Float[Array, "gz gy gx 3"], term: Float[ArrayLike, " r"], gain: Float[ArrayLike, " r"]
) -> Float[Array, "z y x"]:
    """The map of gain * data / (weights + term) inside the ball, from folded sums.

    Term and gain are linear between shells. The term is at least about a thousandth of the mean weight, which only keeps
    empty frequencies empty.
    """
    n, grid, half, width = plane.size, plane.grid, plane.size // 2, block_columns(plane.grid)
    floor = 1e-3 * jnp.mean(total, axis=(0, 1, 2))[2]  # a slice of the weights would be a copy
    table = jnp.stack([jnp.maximum(jnp.asarray(term), floor), jnp.asarray(gain)], axis=-1).astype(total.dtype)
    k = jnp.asarray((np.fft.fftfreq(grid) * grid).round(), total.dtype) ** 2

    def cropped(x: Array, axis: int) -> Array:
        ends = lax.slice_in_dim(x, grid - half, grid, axis=axis), lax.slice_in_dim(x, 0, n - half, axis=axis)
        return jnp.concatenate(ends, axis=axis)

    def transform(i: Array, rows: Array) -> Array:
        first = jnp.minimum(i * width, grid // 2 + 1 - width)  # the last block starts among the columns of the one before
        block = gridding.inside(total, first, width, plane.kernel, grid)
        radius = jnp.sqrt(k[:, None, None] + k[:, None] + (first + jnp.arange(width)) ** 2) * (n / grid)
        low = jnp.minimum(radius.astype(jnp.int32), len(table) - 2)
        part = jnp.minimum(radius - low, 1)[..., None]  # between shells: a step would ring in the map
        found = table[low] * (1 - part) + table[low + 1] * part
        scale = found[..., 1] / jnp.maximum(block[..., 2] + found[..., 0], 1e-20)
        values = lax.complex(block[..., 0] * scale, block[..., 1] * scale)
        for axis in (0, 1):
            values = cropped(jnp.fft.ifft(values, axis=axis), axis)
        return lax.dynamic_update_slice_in_dim(rows, values, first, axis=2)

    rows = jnp.zeros((n, n, grid // 2 + 1), jnp.complex64)
    rows = lax.fori_loop(0, -(-(grid // 2 + 1) // width), transform, rows)
    decay = plane.kernel.apodisation(n, grid)
    line = jnp.asarray(decay[half] / decay, total.dtype)  # phi^(0) is in the weights too

    def finished(item: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        row, z, factor = item
        values = cropped(jnp.fft.irfft(row, grid), 1) * (factor * line[:, None] * line)
        outside = _outside(n, z)
        return values, jnp.sum(outside * values), jnp.sum(outside)

    z = jnp.arange(n, dtype=total.dtype) - half
    volume, sums, counts = lax.map(finished, (rows, z, line))
    return volume + _outside(n, z[:, None, None]) * (sums.sum() / counts.sum() - volume)


def _outside(n: int, z: Float[Array, "..."]) -> Float[Array, "... n n"]:
    """0 inside the ball, 1 outside of it, with a soft edge, at z voxels from the centre."""
    edge, x2 = min(EDGE, n / 8), (jnp.arange(n, dtype=z.dtype) - n // 2) ** 2
    distance = jnp.sqrt(z**2 + x2[:, None] + x2)
    return 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.clip((distance - (n // 2 - edge)) / edge, 0, 1))
