"""Poses of images of a known map: the search of `unknown_poses` with the map given.

Scale and fall-off of the map need not be those of the images: every pass fits a factor for each shell. With the true map the
poses are as good as the noise allows, the bound against which a search without a map is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.errors import require, require_shape
from lfjax.tomography import schedule
from lfjax.tomography.bands import MARGIN, Band, band_of, resized, shell_powers
from lfjax.tomography.fourier_shells import scale_shells
from lfjax.tomography.image_batches import Stack
from lfjax.tomography.particles import Particles
from lfjax.tomography.passes import Poses
from lfjax.tomography.pose_search import Pass, PoseSearch, tell_doubts
from lfjax.tomography.posterior_map import Estimate, powers_in
from lfjax.tomography.schedule import Step
from lfjax.tomography.search import slices

WORTH = 0.5  # expected gain of an image's log-likelihood for which another band is searched
ALIKE = 0.8  # correlation of views that a symmetry makes the same, below which a map lacks it
TRIED = 16  # of them


class Oriented(NamedTuple):
    """Poses of images of a known map.

    Attributes:
        particles: the particles with their poses and displacements.
        poses: posterior of each image.
        good: probability of each image to show the map.
        history: lines of the passes.
        explained: share of the images' signal that the map explains; about 1 for the map that they show, see
            `PoseSearch.explained`.
    """

    particles: Particles
    poses: Poses
    good: Float[NDArray[np.float32], " n"]
    history: tuple[Pass, ...]
    explained: float


def orient(
    volume: Float[ArrayLike, "z y x"],
    images: Stack,
    particles: Particles,
    *,
    radius_angstrom: float | None = None,
    symmetry: str = "C1",
    shift_px: float = 0.0,
    key: Array,
    noise: Float[ArrayLike, "groups r"] | None = None,
    mesh: Mesh | None = None,
    keep: Callable[[Pass], Any] | None = None,
) -> Oriented:
    """Poses and displacements of images, given the map that they show.

    Args:
        volume: map of the images' box, particles bright, on any scale.
        images: (n, y, x), as in `abinitio`.
        particles: optics of the images, and the shifts about which they are searched; rotations are ignored.
        radius_angstrom: radius of the ball that holds the particle; None: 0.42 of the box.
        symmetry: point group of the map.
        shift_px: standard deviation of the displacements along each axis, pixels.
        key: random key.
        noise: relative noise power of each optics group and shell; None: white.
        mesh: devices over which the images are spread.
        keep: called with the line of every pass.

    Raises:
        ShapeError: map, images and particles do not agree.
        ParameterError: an argument is out of range, or the map lacks the symmetry.

    Warns:
        DataWarning: the images do not determine their poses, see `tell_doubts`.
    """
    size = images.shape[-1]
    require_shape("volume", jnp.shape(volume), (size,) * 3)
    search = PoseSearch(
        images, particles, radius_angstrom=radius_angstrom, symmetry=symmetry, shift_px=shift_px, noise=noise, mesh=mesh
    )
    poses, near = Poses.unknown(len(particles)), 2
    history: list[Pass] = []
    first = Step("whole", search.start, whole=True)  # it finds the displacements about which the next passes look
    estimate = _first(search, band_of(first.limit), volume)
    alike = _alike(search, band_of(first.limit), estimate)
    expected = f"one that the map has: the views that it makes the same correlate by {alike:.2f}, not by {ALIKE} or more"
    require(alike >= ALIKE, "symmetry", symmetry, expected)
    while True:
        plan = [first, *search.steps(near)]
        for step in plan[len(history) :]:
            band = band_of(step.limit)
            if estimate.volume.shape[0] != band.size and step.kind != "again":
                estimate = _in_band(search, band, volume, estimate)
            number = len(history)
            before, turn = estimate, jax.random.fold_in(key, number)
            index = search.chosen(step, poses, turn)
            estimate, poses = search.advance(step, before, poses, turn, index, update="scale")
            history.append(search.line(number, step, before, estimate, poses, index))
            if keep is not None:
                keep(history[-1])
        if not schedule.more_bands(near, _worth(search, estimate, plan[-1].limit), search.radius, search.nyquist):
            explained = search.explained(estimate)
            tell_doubts(history, poses, shift_px, explained)
            return Oriented(search.particles_at(poses), poses, poses.good, tuple(history), explained)
        near += 1


def _first(search: PoseSearch, band: Band, volume: Float[ArrayLike, "z y x"]) -> Estimate:
    """The map on the scale of the images, by the powers of both."""
    small = resized(volume, band.size)
    power, noise = powers_in(band, search.powers)
    some = slice(1, band.limit + 1)
    scale = jnp.sqrt(power[some].sum() / jnp.maximum(shell_powers(small)[some].sum(), 1e-20))
    return Estimate(scale * small, power, noise, jnp.zeros_like(power))


def _alike(search: PoseSearch, band: Band, estimate: Estimate) -> float:
    """Least correlation, over the point group, of views of the map that its symmetry makes the same; all shells count alike."""
    turns = np.asarray(rotation.random_rotations(jax.random.key(0), TRIED), np.float32)
    both = jnp.asarray(turns @ search.group[:, None].astype(np.float32)).reshape(-1, 3, 3)
    views = np.asarray(slices(band, estimate.volume, both)).reshape(len(search.group), TRIED, -1)
    power = np.asarray(band.means(jnp.asarray((np.abs(views) ** 2).mean((0, 1)), jnp.float32)))
    samples = np.bincount(band.shell, band.count, band.shells)
    views = views * np.sqrt(band.count / np.maximum(power * samples, 1e-30)[band.shell]) * (band.shell > 0)
    products = (np.conj(views) * views[0]).real.sum((1, 2))
    powers = (np.abs(views) ** 2).sum((1, 2))
    return float((products / np.maximum(np.sqrt(powers * powers[0]), 1e-30)).min())


def _in_band(search: PoseSearch, band: Band, volume: Float[ArrayLike, "z y x"], before: Estimate) -> Estimate:
    """The map of another band, with the factors of the shells known so far; the last one serves the new shells."""
    old, shells = before.volume.shape[0], len(before.noise)
    gain = jnp.sqrt(shell_powers(before.volume) / jnp.maximum(shell_powers(resized(volume, old)), 1e-20))
    shell = np.minimum(np.arange(band.shells), old // 2 - MARGIN)  # the last shell that the band before reached
    power, noise = powers_in(band, search.powers)
    noise = jnp.concatenate([before.noise[: band.shells], noise[shells:]])
    return Estimate(scale_shells(resized(volume, band.size), gain[shell]), power, noise, jnp.zeros_like(power))


def _worth(search: PoseSearch, estimate: Estimate, limit: int) -> float:
    """1 if the shells from two below to the rim of a band gain more than WORTH of log-likelihood per image; else 0."""
    band = band_of(limit)
    contrast = search.powers.contrast[np.minimum(np.arange(band.shells), len(search.powers.contrast) - 1)]
    energy = shell_powers(estimate.volume) / estimate.noise * contrast
    samples = np.bincount(band.shell, band.count, band.shells)
    return float(np.sum((np.asarray(energy) * samples)[limit - 2 : limit + 1]) > WORTH)
