"""Map and half-maps from images at known poses, filtered by the correlation of the half-maps.

`sums` spreads and inverts; this module runs over batches and makes the filter. The sums of both half-sets take most of its
memory, see `memory_bytes`: batches are spread piece by piece, half-maps are inverted one after the other, and the second sum is
then added to the first in place.

Least-squares solvers take `FourierSlice` as their operator: `solvers.CG`, nonnegative `FISTA`, `ADMM` (TV).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.tomography import fourier_shells, gridding, sums
from lfjax.tomography.fourier_slice import Plane
from lfjax.tomography.particles import Particles
from lfjax.tomography.sums import Sums as Sums
from lfjax.tomography.symmetric_sums import symmetrise
from lfjax.tomography.symmetry import symmetry_group


class Reconstruction(NamedTuple):
    """A map and its reliability.

    Attributes:
        volume: map from all images, each shell filtered by the correlation of the half-maps.
        unfiltered: map from all images without that filter.
        halves: the two half-maps, unfiltered.
        curve: Fourier shell correlation of the half-maps.
        resolution_angstrom: period at which the curve falls below 0.143.
    """

    volume: Float[Array, "z y x"]
    unfiltered: Float[Array, "z y x"]
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
    noise: Float[ArrayLike, "groups r"] | None = None,
    curve: Float[ArrayLike, " r"] | None = None,
) -> Reconstruction:
    """Map and half-maps from images at known poses, filtered by the correlation of the half-maps.

    S of a shell is FSC / (1 - FSC) over the mean weight of a half-set there. Each shell is then scaled by
    sqrt(2 FSC / (1 + FSC)), the correlation of the map with the truth (Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003)).
    FSC is the smooth estimate `fourier_shells.falling`: where the curve is 0 by chance, the map is not.

    Args:
        batches: (images, particles) one after the other, such as `ParticleFile.batches`; particles have half-sets 1 and 2.
        size: pixels per side.
        symmetry: point group of the particle.
        kernel: taps of the interpolation.
        padding: ratio of the cells of the grid per side to `size`.
        noise: relative noise power of each optics group and shell (0 to size // 2 cycles per box), which divides data and
            weights of its images; None: the same for all.
        curve: correlation of each shell by which the map is filtered, such as that of half-maps whose poses were found
            independently; None: that of these half-maps.

    Raises:
        ParameterError: a half-set is empty, a noise power is not positive, or an optics group has none.
        ShapeError: images and particles differ in number, or the images in size, or noise or curve in their shells.
    """
    plane = sums.plane_of(size, kernel, padding)
    if curve is not None:
        require_shape("curve", jnp.shape(curve), (size // 2 + 1,))
    totals = [Sums.empty(size, kernel=kernel, padding=padding).total for _ in range(2)]
    group = np.asarray(symmetry_group(symmetry), jnp.result_type(float))
    pixel, capacity, count = 1.0, 0, np.zeros(2, int)
    for images, particles in batches:
        require_shape("images", jnp.shape(images), (len(particles), size, size))
        capacity = max(capacity, len(particles))  # shorter batches are filled up to it: one program serves all
        at_once = _at_once(plane, capacity)
        members, counts = _half_sets(np.asarray(particles.half), capacity, at_once)
        filled = (particles, images, sums.noise_of_each(particles, noise, size))
        filled = jax.tree.map(lambda leaf, n=capacity: _filled(leaf, n), filled)
        if counts.any():
            totals = _add_halves(totals, plane, at_once, *filled, members, counts)
        count += counts
        pixel = float(np.asarray(particles.pixel_angstrom)[0])
    require(bool(count.min() > 0), "half", count.tolist(), "images in both half-sets, 1 and 2; see Particles.with_half_sets")
    return _maps(plane, totals, group, size * pixel, curve)


def memory_bytes(size: int, *, kernel: int = 3, padding: float = 2.0, images: int = 512, symmetry: str = "C1") -> int:
    """Peak memory of `reconstruct` on a CPU, the process included.

    Args:
        size: pixels per side.
        kernel: taps of the interpolation.
        padding: ratio of the cells of the grid per side to `size`.
        images: most images per batch.
        symmetry: point group of the particle; any but C1 takes a third sum for a while.
    """
    plane = sums.plane_of(size, kernel, padding)
    total = 12 * math.prod(gridding.grid_shape(plane.kernel, plane.grid))
    volume, rows = 4 * size**3, 8 * size**2 * (plane.grid // 2 + 1)
    spreading = 2 * _at_once(plane, images) * _spread_bytes(plane) + 2 * 4 * images * size**2
    inverting = rows + 3 * volume + BLOCKS
    correlating = 12 * volume - total  # one of the sums is gone by then
    turning = total + 2 * BLOCKS if len(symmetry_group(symmetry)) > 1 else 0
    return PROCESS + 2 * total + max(spreading, turning, inverting, correlating)


PROCESS = 352 * 2**20  # bytes: Python, JAX, its programs and their compiler, whose share differs by 70 MiB from run to run
BLOCKS = 80 * 2**20  # bytes: ten copies of the columns that are transformed at once; the program of a symmetry takes as much
SPREAD = 64 * 2**20  # bytes of taps of one half-set that are in memory at once


def _spread_bytes(plane: Plane) -> int:
    """Bytes of the taps of one image."""
    return 12 * plane.frequencies.shape[1] * plane.kernel.width**3


def _at_once(plane: Plane, images: int) -> int:
    """Images of each half-set that are spread at once, for batches of so many images."""
    return max(1, min(32, SPREAD // _spread_bytes(plane), -(-images // 2)))


def _half_sets(half: Int[NDArray[np.int64], " n"], capacity: int, at_once: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Indices of the images of each half-set, (2, capacity in whole spreads), and how many of them count."""
    chosen = [np.flatnonzero(half == number) for number in (1, 2)]
    members = np.zeros((2, -(-capacity // at_once) * at_once), np.int32)
    for row, indices in zip(members, chosen, strict=True):
        row[: len(indices)] = indices
    return members, np.array([len(indices) for indices in chosen], np.int32)


def _filled(leaf: ArrayLike, length: int) -> ArrayLike:
    """An array filled up with zeros along its leading axis."""
    short = length - jnp.shape(leaf)[0]
    return np.pad(np.asarray(leaf), [(0, short)] + [(0, 0)] * (jnp.ndim(leaf) - 1)) if short else leaf


@functools.partial(jax.jit, static_argnums=(1, 2), donate_argnums=0)
def _add_halves(
    totals: list[Array],
    plane: Plane,
    at_once: int,
    particles: Particles,
    images: Array,
    noise: Array | None,
    members: Int[Array, "2 m"],
    counts: Int[Array, "2"],
) -> list[Array]:
    """Sums of both half-sets side by side: the two scatters run in parallel on a CPU, where each of them is serial."""
    views = sums.views_of(particles)

    def step(i: Array, totals: list[Array]) -> list[Array]:
        place = i * at_once + jnp.arange(at_once)
        chosen, counted = members[:, place].ravel(), (place < counts[:, None]).ravel()
        seen, pictures, powers = jax.tree.map(lambda leaf: leaf[chosen], (views, images, noise))
        taps = sums.image_taps(plane, seen, pictures.astype(totals[0].dtype), powers, counted)
        halves = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), taps)
        return [gridding.add_taps(t, jax.tree.map(lambda leaf, h=h: leaf[h], halves)) for h, t in enumerate(totals)]

    return jax.lax.fori_loop(0, -(-counts.max() // at_once), step, totals)


@functools.partial(jax.jit, static_argnums=1, donate_argnums=0)
def _folded(total: Array, plane: Plane, group: Array) -> Array:
    return symmetrise(plane, gridding.fold(total, plane.kernel, plane.grid), group)


@functools.partial(jax.jit, donate_argnums=0)
def _added(first: Array, second: Array) -> Array:
    return first + second


def _maps(
    plane: Plane, totals: list[Array], group: NDArray[np.floating], box_angstrom: float, given: ArrayLike | None = None
) -> Reconstruction:
    """Half-maps and maps; each of the sums is let go as soon as it has served."""

    shells = plane.size // 2 + 1

    def plain(total: Array) -> Array:
        return sums.inverse(plane, total, np.zeros(shells, np.float32), np.ones(shells, np.float32))

    for half in range(2):
        totals[half] = _folded(totals[half], plane, group)  # one after the other: each needs a copy if there is a symmetry
        jax.block_until_ready(totals[half])
    halves = (plain(totals[0]), plain(totals[1]))
    jax.block_until_ready(halves)
    both = _added(totals[0], totals.pop())
    totals.clear()
    curve = fourier_shells.fsc(*halves)
    smooth = fourier_shells.falling(curve if given is None else given)
    mean = sums.shell_weights(plane, both)
    term = mean / 2 * (1 - smooth) / smooth
    gain = (1 + term / np.maximum(mean, 1e-20)) * np.sqrt(2 * smooth / (1 + smooth))
    volume = sums.inverse(plane, both, term.astype(np.float32), gain.astype(np.float32))
    return Reconstruction(volume, plain(both), halves, curve, fourier_shells.resolution(curve, box_angstrom))
