"""The gold standard: half-maps whose images never saw the other half, from a common start without details.

The poses of `abinitio` are found with one map of all images, in which the noise of both halves takes part; half-maps at these
poses agree a little too well. For the resolution each half is refined by itself: it begins with the map low-passed to the first
fine band, at which nothing is in doubt, searches all rotations again, and proceeds to the last band with its own images only.
The agreement beyond the start then is that of independent maps. With random phases beyond a band in the images, what is left of
the agreement there is overfitting. Sources: Scheres & Chen, Nat. Methods 9, 853 (2012); Chen et al., Ultramicroscopy 135, 24
(2013).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int
from numpy.typing import NDArray

from lfjax.errors import require
from lfjax.tomography import schedule
from lfjax.tomography.image_batches import Stack
from lfjax.tomography.particles import Particles
from lfjax.tomography.pose_search import PoseSearch
from lfjax.tomography.unknown_poses import AbInitio

GRID_PASSES = 2  # over the fine grid in each band


def independent_halves(
    search: PoseSearch,
    found: AbInitio,
    half: NDArray[np.integer],
    key: Array,
    *,
    track: Callable[..., Any] | None = None,
    label: str = "half-set",
) -> Particles:
    """Particles at the poses that each half-set finds with its own images.

    Args:
        search: the search that found the poses.
        found: its result.
        half: half-set of each image, 1 or 2.
        key: random key.
        track: wraps the loop over the passes of each half-set, see `lfjax.progress.track`.
        label: name of these loops, before the number of the half-set.

    Raises:
        ParameterError: a half-set is empty.
    """
    sets = np.asarray(half)
    counts = [int(np.sum(sets == number)) for number in (1, 2)]
    require(min(counts) > 0 and sum(counts) == len(sets), "half", counts, "every image in half-set 1 or 2, both with images")
    plan = [step for step in search.steps(0) if step.turn < GRID_PASSES]
    last = found.band.limit
    every = search.steps(len(schedule.NEAR))
    plan += [step for step in every if step.kind == "near" and step.limit <= last]
    poses = found.poses
    for number in (1, 2):
        index, estimate = np.flatnonzero(sets == number), found.estimate
        mine = found.poses
        turns = list(enumerate(plan))
        for i, step in track(turns, f"{label} {number}") if track else turns:
            turn = jax.random.fold_in(jax.random.fold_in(key, number), i)
            estimate, mine = search.advance(step, estimate, mine, turn, index)
        poses = jax.tree.map(lambda a, b, at=index: _replaced(a, b, at), poses, mine)
    return eqx.tree_at(lambda p: p.half, search.particles_at(poses), jnp.asarray(sets))


def _replaced(old: NDArray[np.floating], new: NDArray[np.floating], at: NDArray[np.int64]) -> NDArray[np.floating]:
    found = old.copy()
    found[at] = new[at]
    return found


class RandomPhases:
    """A stack whose images have random phases from a frequency on, each image its own, and its powers as they were."""

    def __init__(self, images: Stack, limit: int, key: Array) -> None:
        self.images, self.limit, self.key = images, limit, key

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, y, x)."""
        return self.images.shape

    def __getitem__(self, index: NDArray[np.int64]) -> Float[NDArray[np.float32], "m y x"]:
        """Images of these indices."""
        return np.asarray(_random_phases(jnp.asarray(self.images[index]), self.limit, self.key, jnp.asarray(index)))


@jax.jit
def _random_phases(images: Float[ArrayLike, "m y x"], limit: Int[ArrayLike, ""], key: Array, index: Array) -> Array:
    images = jnp.asarray(images)
    n = images.shape[-1]
    k = np.hypot(np.rint(np.fft.fftfreq(n)[:, None] * n), np.arange(n // 2 + 1))

    def one(image: Array, i: Array) -> Array:
        spectrum = jnp.fft.rfft2(image)
        noise = jnp.fft.rfft2(jax.random.normal(jax.random.fold_in(key, i), image.shape))
        other = jnp.abs(spectrum) * noise / jnp.maximum(jnp.abs(noise), 1e-20)
        return jnp.fft.irfft2(jnp.where(k >= limit, other, spectrum), image.shape)

    return jax.vmap(one)(images, index)
