"""Volumes from images at known poses by weighted Fourier inversion.

    V^(g) = sum_i phi * (|k| CTF_i Y_i) / (sum_i phi * (|k| CTF_i^2) + 1 / S),   V = IFT(V^) / phi^

The kernel phi of `gridding` spreads every sample of every image onto an oversampled grid. Planes are denser near the origin;
the ramp |k| makes up for it, and without it the division by phi^, which corrects for the gridding, overcorrects there by 5 %.
The division by the weights is a Wiener filter with signal-to-noise ratio S of one sample. Without noise an error of 3 %
remains, with a CTF 8 % (its zeros, and the low frequencies that it removes, are not interpolated well); least squares has no
such error.
The state of a reconstruction is a sum, so images may come batch by batch, and sums of several devices or processes add up.

Least-squares solvers take `FourierSlice` as their operator: `solvers.CG`, nonnegative `FISTA`, `ADMM` (TV).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size
from lfjax.rotation import symmetry_group
from lfjax.tomography import fourier_shells, gridding
from lfjax.tomography.fourier_slice import Plane, View, accumulate
from lfjax.tomography.particles import Particles

NEAR = 0.5  # cycles per box: the ramp at frequency 0


class Sums(eqx.Module):
    """Spread sums of a set of images: real and imaginary part of the data, and the weights.

    >>> from lfjax.tomography.particles import random_particles
    >>> some = random_particles(jax.random.key(0), 20, pixel_angstrom=4.0)
    >>> images = some.projector(16)(jnp.ones((16, 16, 16)))
    >>> Sums.empty(16).add(some, images).volume().shape
    (16, 16, 16)

    Attributes:
        total: the sums on the grid with its margins.
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
        grid = 2 * good_size(int(np.ceil(padding * size / 2)))
        plane = Plane(size, grid, gridding.kaiser_bessel(kernel, grid / size), cutoff)
        return cls(jnp.zeros((*gridding.grid_shape(plane.kernel, grid), 3)), plane)

    def add(self, particles: Particles, images: Float[ArrayLike, "n y x"], *, symmetry: str = "C1", batch: int = 64) -> Sums:
        """The sums with more images.

        Args:
            particles: poses and optics of the images.
            images: (n, y, x).
            symmetry: point group of the particle, see `rotation.symmetry_group`; every image counts once per element.
            batch: most images per batch.

        Raises:
            ShapeError: images and particles differ in number, or the images in size from the sums.
        """
        size = self.plane.size
        require_shape("images", jnp.shape(images), (len(particles), size, size))
        total = self.total
        for element in symmetry_group(symmetry):
            total = _add(total, self.plane, batch, particles, images, element)
        return Sums(total, self.plane)

    def __add__(self, other: Sums) -> Sums:
        require(self.plane == other.plane, "other", other.plane, f"sums with the same settings, {self.plane}")
        return Sums(self.total + other.total, self.plane)

    def weights(self) -> Float[Array, " r"]:
        """Mean weight in each shell of the oversampled grid; a shell is one cycle per image wide."""
        return _shell_weights(self.plane, _fold(self.plane, self.total))

    def volume(self, wiener: Float[ArrayLike, "*r"] | None = None) -> Float[Array, "z y x"]:
        """The map.

        Args:
            wiener: 1 / S in units of weights: one number, or one per shell (0 to size // 2 cycles per box). Numbers per shell
                keep the mean amplitude of each shell, and weigh only the directions and CTF rings within a shell against each
                other. None: a thousandth of the mean weight, which only keeps empty frequencies empty.

        Raises:
            ShapeError: the number of shells is wrong.
        """
        if wiener is not None and jnp.ndim(wiener):
            require_shape("wiener", jnp.shape(wiener), (self.plane.size // 2 + 1,))
        return _invert(self.plane, _fold(self.plane, self.total), wiener)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _add(total: Array, plane: Plane, batch: int, particles: Particles, images: Array, element: Array) -> Array:
    def step(total: Array, item: tuple[View, Array], counted: Array) -> Array:
        return _spread(total, plane, *item, counted)

    return accumulate(step, total, (_views(particles, element), images.astype(total.dtype)), batch)


def _views(particles: Particles, element: Float[Array, "3 3"]) -> View:
    """The particles seen by one element of their symmetry group."""
    turned = particles.rotations @ element.astype(particles.rotations.dtype)
    return View(turned, particles.shifts, particles.ctf, particles.pixel_angstrom)


def _spread(total: Array, plane: Plane, views: View, images: Array, counted: Bool[Array, " n"]) -> Array:
    """Data and weights of those images of a batch that count, added to the sums."""
    ramp = jnp.asarray(np.maximum(np.hypot(*plane.frequencies), NEAR), total.dtype)

    def one(view: View, image: Array) -> Array:
        data = plane.samples(image, view.shift) * plane.matched(view)
        return jnp.stack([data.real, data.imag, jnp.broadcast_to(plane.power(view), data.shape)], axis=-1) * ramp[:, None]

    return plane.spread(total, views, jnp.where(counted[:, None, None], jax.vmap(one)(views, images), 0))


@functools.partial(jax.jit, static_argnums=0)
def _fold(plane: Plane, total: Array) -> Float[Array, "g g h 3"]:
    return gridding.fold(total, plane.kernel, plane.grid)


@functools.partial(jax.jit, static_argnums=0)
def _shell_weights(plane: Plane, folded: Array) -> Float[Array, " r"]:
    shell = fourier_shells.shells(plane.grid, per=plane.grid / plane.size)
    return fourier_shells.shell_means(folded[..., 2], shell, plane.size // 2 + 1)


@functools.partial(jax.jit, static_argnums=0)
def _invert(plane: Plane, folded: Array, wiener: Array | None) -> Float[Array, "z y x"]:
    weight = folded[..., 2]
    term = jnp.asarray(1e-3 * jnp.mean(weight) if wiener is None else wiener, weight.dtype)
    scale = jnp.ones(())
    if term.ndim:
        radius = fourier_shells.radii(plane.grid).astype(term.dtype) * (plane.size / plane.grid)
        shell = jnp.arange(len(term), dtype=term.dtype)  # linear between shells: a step would ring in the map
        mean = jnp.interp(radius, shell, _shell_weights(plane, folded))
        term = jnp.interp(radius, shell, term)
        scale = 1 + term / jnp.maximum(mean, 1e-20)
    spectrum = jax.lax.complex(folded[..., 0], folded[..., 1]) * scale / jnp.maximum(weight + term, 1e-20)
    full = jnp.fft.irfftn(spectrum, (plane.grid,) * 3)
    half = plane.size // 2
    inside = jnp.roll(full, (half,) * 3, (0, 1, 2))[: plane.size, : plane.size, : plane.size]
    decay = plane.kernel.apodisation(plane.size, plane.grid)
    apodisation = jnp.asarray(decay / decay[half], full.dtype)  # phi^(0) is in the weights too
    return inside / (apodisation[:, None, None] * apodisation[:, None] * apodisation)


class Reconstruction(NamedTuple):
    """A map and its reliability.

    Attributes:
        volume: map from all images, each shell filtered by the correlation of the half-maps.
        halves: the two half-maps, unfiltered.
        curve: Fourier shell correlation of the half-maps.
        resolution_angstrom: period at which the curve falls below 0.143.
    """

    volume: Float[Array, "z y x"]
    halves: tuple[Array, Array]
    curve: Float[Array, " r"]
    resolution_angstrom: float


def reconstruct(
    batches: Iterable[tuple[Float[ArrayLike, "_ y x"], Particles]],
    size: int,
    *,
    symmetry: str = "C1",
    kernel: int = 3,
    padding: float = 2.0,
) -> Reconstruction:
    """Map and half-maps from images at known poses, filtered by the correlation of the half-maps.

    S of a shell is FSC / (1 - FSC) over the mean weight of a half-set there, and at least half of one over that weight. Each
    shell is then scaled by sqrt(2 FSC / (1 + FSC)), the correlation of the map with the truth (Rosenthal & Henderson, J. Mol.
    Biol. 333, 721 (2003)).

    Args:
        batches: (images, particles) one after the other, such as `ParticleFile.batches`; particles have half-sets 1 and 2.
        size: pixels per side.
        symmetry: point group of the particle.
        kernel: taps of the interpolation.
        padding: ratio of the cells of the grid per side to `size`.

    Raises:
        ParameterError: a half-set is empty.
        ShapeError: images and particles differ in number, or the images in size.
    """
    start = Sums.empty(size, kernel=kernel, padding=padding)
    totals, group, capacity = (start.total, jnp.zeros_like(start.total)), symmetry_group(symmetry), 0
    pixel, count = 1.0, np.zeros(2, int)
    for images, particles in batches:
        require_shape("images", jnp.shape(images), (len(particles), size, size))
        capacity = max(capacity, len(particles))  # shorter batches are filled up to it: one program serves all
        members, counts = _half_sets(np.asarray(particles.half), capacity)
        filled = jax.tree.map(lambda leaf, n=capacity: _filled(leaf, n), (particles, images))
        for element in group if counts.any() else ():
            totals = _add_halves(totals, start.plane, *filled, members, counts, element)
        count += counts
        pixel = float(np.asarray(particles.pixel_angstrom)[0])
    require(bool(count.min() > 0), "half", count.tolist(), "images in both half-sets, 1 and 2; see Particles.with_half_sets")
    volume, halves, curve = _filtered(start.plane, totals)
    return Reconstruction(volume, halves, curve, fourier_shells.resolution(curve, size * pixel))


BATCH = 32  # images of each half-set that are spread at once


def _half_sets(half: Int[NDArray[np.int64], " n"], capacity: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Indices of the images of each half-set, (2, capacity in whole batches), and how many of them count."""
    chosen = [np.flatnonzero(half == number) for number in (1, 2)]
    members = np.zeros((2, -(-capacity // BATCH) * BATCH), np.int32)
    for row, indices in zip(members, chosen, strict=True):
        row[: len(indices)] = indices
    return members, np.array([len(indices) for indices in chosen], np.int32)


def _filled(leaf: ArrayLike, length: int) -> ArrayLike:
    """An array filled up with zeros along its leading axis."""
    short = length - jnp.shape(leaf)[0]
    return np.pad(np.asarray(leaf), [(0, short)] + [(0, 0)] * (jnp.ndim(leaf) - 1)) if short else leaf


@functools.partial(jax.jit, static_argnums=1, donate_argnums=0)
def _add_halves(
    totals: tuple[Array, Array],
    plane: Plane,
    particles: Particles,
    images: Array,
    members: Int[Array, "2 m"],
    counts: Int[Array, "2"],
    element: Array,
) -> tuple[Array, ...]:
    """Sums of both half-sets side by side: the two scatters run in parallel on a CPU, where each of them is serial."""
    views = _views(particles, element)

    def step(i: Array, totals: tuple[Array, Array]) -> tuple[Array, ...]:
        place = i * BATCH + jnp.arange(BATCH)

        def add(total: Array, member: Array, count: Array) -> Array:
            seen, chosen = jax.tree.map(lambda leaf: leaf[member[place]], (views, images.astype(total.dtype)))
            return _spread(total, plane, seen, chosen, place < count)

        return tuple(add(*half) for half in zip(totals, members, counts, strict=True))

    return jax.lax.fori_loop(0, -(-counts.max() // BATCH), step, totals)


@functools.partial(jax.jit, static_argnums=0)
def _filtered(plane: Plane, totals: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array], Array]:
    """The filtered map, the half-maps and their correlation."""
    first, second = (_fold(plane, total) for total in totals)
    halves = (_invert(plane, first, None), _invert(plane, second, None))
    curve = fourier_shells.fsc(*halves)
    trusted = jnp.clip(curve, 1 / 3, 0.999)
    wiener = _shell_weights(plane, first) * (1 - trusted) / trusted
    common = jnp.clip(curve, 0, 1)
    volume = _invert(plane, first + second, wiener)
    return fourier_shells.scale_shells(volume, jnp.sqrt(2 * common / (1 + common))), halves, curve
