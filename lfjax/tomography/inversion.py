"""Volumes from images at known poses by weighted Fourier inversion.

    V^(g) = sum_i phi * (|k| CTF_i Y_i) / (sum_i phi * (|k| CTF_i^2) + 1 / S),   V = IFT(V^) / phi^

Every sample of every image is spread onto an oversampled grid with the kernel phi of `gridding`. The ramp |k| makes up for
planes being denser near the origin, without which the division by phi^, which corrects for the gridding, overdoes it there by
5 %. The division by the weights is a Wiener filter with signal-to-noise ratio S of one sample. What is left without noise is
3 %, with CTF 8 % (its zeros, and the low frequencies that it takes away, are not interpolated well): least squares has no such
error. Sums are what is kept: images come batch by batch, from several devices or processes, whose sums are added.

Anything else that solves least squares takes `FourierSlice` as its operator: `solvers.CG`, nonnegative `FISTA`, `ADMM` (TV).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size
from lfjax.rotation import symmetry_group
from lfjax.tomography import fourier_shells, gridding
from lfjax.tomography.fourier_slice import Plane, View, accumulate
from lfjax.tomography.particles import Particles

NEAR = 0.5  # cycles a box: what the frequency 0 counts for beside the others


class Sums(eqx.Module):
    """What has been spread so far: real and imaginary part of the data, and the weights.

    >>> from lfjax.tomography.particles import random_particles
    >>> some = random_particles(jax.random.key(0), 20, pixel_angstrom=4.0)
    >>> images = some.projector(16)(jnp.ones((16, 16, 16)))
    >>> Sums.empty(16).add(some, images).volume().shape
    (16, 16, 16)
    """

    total: Float[Array, "gz gy gx 3"]
    plane: Plane = eqx.field(static=True)

    @classmethod
    def empty(cls, size: int, *, kernel: int = 3, padding: float = 2.0, cutoff: float | None = 1.0) -> Sums:
        """Nothing yet.

        Args:
            size: pixels a side.
            kernel: taps of the Kaiser-Bessel kernel.
            padding: cells of the grid a side, over `size`.
            cutoff: radius, in units of Nyquist, of the frequencies that count.
        """
        grid = 2 * good_size(int(np.ceil(padding * size / 2)))
        plane = Plane(size, grid, gridding.kaiser_bessel(kernel, grid / size), cutoff)
        return cls(jnp.zeros((*gridding.grid_shape(plane.kernel, grid), 3)), plane)

    def add(self, particles: Particles, images: Float[Array, "n y x"], *, symmetry: str = "C1", batch: int = 64) -> Sums:
        """With more images.

        Args:
            particles: what is known of them.
            images: (n, y, x).
            symmetry: of the particle, see `rotation.symmetry_group`; every image counts for each of its elements.
            batch: images at a time.
        """
        size = self.plane.size
        require_shape("images", jnp.shape(images), (len(particles), size, size))
        views = View(particles.rotations, particles.shifts, particles.ctf, particles.pixel_angstrom)
        total = self.total
        for element in symmetry_group(symmetry):
            turned = views._replace(rotation=views.rotation @ jnp.asarray(element, views.rotation.dtype))
            total = _add(total, self.plane, turned, jnp.asarray(images, total.dtype), batch)
        return Sums(total, self.plane)

    def __add__(self, other: Sums) -> Sums:
        require(self.plane == other.plane, "other", other.plane, f"sums of the same setting, {self.plane}")
        return Sums(self.total + other.total, self.plane)

    def weights(self) -> Float[Array, " r"]:
        """Mean weight in each shell of the oversampled grid, one shell a cycle of the image."""
        plane = self.plane
        weight = gridding.fold(self.total, plane.kernel, plane.grid)[..., 2]
        return fourier_shells.shell_means(
            weight, fourier_shells.shells(plane.grid, per=plane.grid / plane.size), plane.size // 2 + 1
        )

    def volume(self, wiener: float | Float[Array, " r"] | None = None) -> Float[Array, "z y x"]:
        """The map.

        Args:
            wiener: 1 / S in units of weights. One number; or one for each shell (0 to size // 2 cycles a box), whose mean
                amplitude is then kept, so that only the directions and rings of CTF within a shell are weighed against each
                other. A thousandth of the mean weight if not given, which only keeps empty frequencies empty.
        """
        plane = self.plane
        total = gridding.fold(self.total, plane.kernel, plane.grid)
        weight = total[..., 2]
        term = jnp.asarray(1e-3 * jnp.mean(weight) if wiener is None else wiener, weight.dtype)
        if term.ndim:
            require_shape("wiener", term.shape, (plane.size // 2 + 1,))
            radius = jnp.asarray(fourier_shells.radii(plane.grid) * (plane.size / plane.grid), term.dtype)
            shell = jnp.arange(len(term), dtype=term.dtype)  # between shells on a line: a step would ring in the map
            mean = jnp.interp(radius, shell, self.weights())
            term = jnp.interp(radius, shell, term)
            total = total * (1 + term / jnp.maximum(mean, 1e-20))[..., None]
        spectrum = jax.lax.complex(total[..., 0], total[..., 1]) / jnp.maximum(weight + term, 1e-20)
        full = jnp.fft.irfftn(spectrum, (plane.grid,) * 3)
        half = plane.size // 2
        inside = jnp.roll(full, (half,) * 3, (0, 1, 2))[: plane.size, : plane.size, : plane.size]
        decay = plane.kernel.apodisation(plane.size, plane.grid)
        scale = jnp.asarray(decay / decay[half], full.dtype)  # phi^(0) is in the weights too
        return inside / (scale[:, None, None] * scale[:, None] * scale)


@functools.partial(jax.jit, static_argnames=("plane", "batch"))
def _add(total: Array, plane: Plane, views: View, images: Array, batch: int) -> Array:
    ramp = jnp.asarray(np.maximum(np.hypot(*plane.frequencies), NEAR), total.dtype)

    def step(total: Array, item: Any) -> Array:
        def one(view: View, image: Array) -> Array:
            transfer = plane.transfer(view)
            data = plane.samples(image, view.shift) * transfer
            return jnp.stack([data.real, data.imag, jnp.broadcast_to(transfer**2, data.shape)], axis=-1) * ramp[:, None]

        return plane.spread(total, item[0], jax.vmap(one)(*item))

    return accumulate(step, total, (views, images), batch)


class Reconstruction(NamedTuple):
    """A map and how far it can be trusted.

    Attributes:
        volume: of all images, each shell scaled by what the half-maps have in common there.
        halves: the two half-maps, unfiltered.
        curve: their Fourier shell correlation.
        resolution_angstrom: where it falls below 0.143.
    """

    volume: Float[Array, "z y x"]
    halves: tuple[Array, Array]
    curve: Float[Array, " r"]
    resolution_angstrom: float


def reconstruct(
    batches: Iterable[tuple[Any, Particles]], size: int, *, symmetry: str = "C1", kernel: int = 3, padding: float = 2.0
) -> Reconstruction:
    """Map and half-maps from images at known poses, filtered as the half-maps tell.

    S of a shell is FSC / (1 - FSC) over the mean weight of a half-set there, and at least half of one over that weight. Each
    shell is then scaled by sqrt(2 FSC / (1 + FSC)), the correlation that the map has with the truth (Rosenthal & Henderson,
    J. Mol. Biol. 333, 721 (2003)).

    Args:
        batches: (images, particles) one after the other, such as `ParticleFile.batches`; particles have half-sets 1 and 2.
        size: pixels a side.
        symmetry: of the particle.
        kernel: taps.
        padding: of the grid.

    Raises:
        ParameterError: a half-set is empty.
    """
    sums = [Sums.empty(size, kernel=kernel, padding=padding) for _ in range(2)]
    pixel, count = 1.0, [0, 0]
    for images, particles in batches:
        half = np.asarray(particles.half)
        for i in range(2):
            chosen = np.flatnonzero(half == i + 1)
            if len(chosen):
                sums[i] = sums[i].add(particles[chosen], jnp.asarray(images)[chosen], symmetry=symmetry)
                count[i] += len(chosen)
        pixel = float(particles.pixel_angstrom[0])
    require(min(count) > 0, "half", count, "images in both half-sets, 1 and 2; see Particles.with_half_sets")
    halves = (sums[0].volume(), sums[1].volume())
    curve = fourier_shells.fsc(*halves)
    trusted = jnp.clip(curve, 1 / 3, 0.999)
    wiener = sums[0].weights() * (1 - trusted) / trusted
    common = jnp.clip(curve, 0, 1)
    volume = fourier_shells.scale_shells((sums[0] + sums[1]).volume(wiener), jnp.sqrt(2 * common / (1 + common)))
    return Reconstruction(volume, halves, curve, fourier_shells.resolution(curve, size * pixel))
