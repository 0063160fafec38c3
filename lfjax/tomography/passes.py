"""One pass over images: their posteriors under a map, and the map, prior and noise that these posteriors make.

`grid_pass` looks at every rotation of a grid, turned at random so that no pass sees the grid of another; `near_pass` looks
about poses known before. Both update the `Poses` of the images and, unless the map is given, the `Estimate`.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.tomography import gridding, near_search, search
from lfjax.tomography.bands import Band
from lfjax.tomography.image_batches import ImageBatches
from lfjax.tomography.posterior_map import Estimate, next_estimate, rescaled
from lfjax.tomography.search import Expected, Posterior

MODES = 8  # poses of each image that are kept from pass to pass
POINTS = 96  # rotations in each ball of a search near known poses


class Poses(eqx.Module):
    """Posterior of each image of a set, its best MODES poses, best first; NumPy arrays on the host.

    Attributes: those of `search.Posterior`, and
        spread_rad: standard deviation of the posterior about the best pose.
        good: probability that the image shows the particle; it weighs the image in the sums.
    """

    rotations: Float[NDArray[np.float32], "n p 3 3"]
    shifts: Float[NDArray[np.float32], "n p 2"]
    weights: Float[NDArray[np.float32], "n p"]
    log_evidence: Float[NDArray[np.float32], " n"]
    fit: Float[NDArray[np.float32], " n"]
    excess: Float[NDArray[np.float32], " n"]
    spread_rad: Float[NDArray[np.float32], " n"]
    average: Float[NDArray[np.float32], "n 3 3"]
    displacement: Float[NDArray[np.float32], "n 2"]
    good: Float[NDArray[np.float32], " n"]

    @classmethod
    def unknown(cls, count: int) -> Poses:
        """Poses of images at which no pass has looked."""
        turns = np.broadcast_to(np.eye(3, dtype=np.float32), (count, MODES, 3, 3)).copy()
        none, zero, still = np.zeros((count, MODES), np.float32), np.zeros(count, np.float32), np.zeros((count, 2), np.float32)
        shifts = np.zeros((count, MODES, 2), np.float32)
        return cls(turns, shifts, none, zero, zero, zero, zero, turns[:, 0].copy(), still, np.ones(count, np.float32))

    def updated(self, seen: Sequence[tuple[Int[NDArray[np.int64], "..."], Posterior]]) -> Poses:
        """The poses with those of some batches of images replaced, all at once: a copy of all for each batch takes long."""
        if not seen:
            return self
        index = np.concatenate([images for images, _ in seen])
        found = jax.tree.map(
            lambda *parts: np.concatenate([part[:, :MODES] if part.ndim > 1 else part for part in parts]),
            *[posterior for _, posterior in seen],
        )
        cosine = np.clip((np.einsum("npij,nij->np", found.rotations, found.rotations[:, 0]) - 1) / 2, -1, 1)
        share = found.weights / np.maximum(found.weights.sum(1, keepdims=True), 1e-30)

        def replaced(old: NDArray[np.float32], new: ArrayLike) -> NDArray[np.float32]:
            fresh = old.copy()
            fresh[index] = new
            return fresh

        return Poses(
            rotations=replaced(self.rotations, found.rotations),
            shifts=replaced(self.shifts, found.shifts),
            weights=replaced(self.weights, found.weights),
            log_evidence=replaced(self.log_evidence, found.log_evidence),
            fit=replaced(self.fit, found.fit),
            excess=replaced(self.excess, found.excess),
            spread_rad=replaced(self.spread_rad, np.sqrt((share * np.arccos(cosine) ** 2).sum(1))),
            average=replaced(self.average, found.average),
            displacement=replaced(self.displacement, found.displacement),
            good=self.good,
        )


def grid_pass(
    images: ImageBatches,
    band: Band,
    estimate: Estimate,
    poses: Poses,
    key: Array,
    *,
    grid: Float[NDArray[np.float32], "g 3 3"],
    shifts: Float[NDArray[np.float32], "s 2"],
    shift_px: float,
    radius: float,
    group: Float[NDArray[np.floating], "e 3 3"],
    centred: bool = False,
    index: Int[NDArray[np.int64], " k"] | None = None,
    update: str = "map",
) -> tuple[Estimate, Poses]:
    """Posteriors over a grid of rotations and shifts.

    Args:
        images: the images.
        band: frequencies.
        estimate: map, prior and noise of the band.
        poses: poses found so far.
        key: random key of the turn of the grid.
        grid: rotations.
        shifts: displacements, pixels.
        shift_px: standard deviation of the displacements, pixels.
        radius: radius of the particle as a fraction of the box.
        group: rotations of the particle's point group.
        centred: whether the displacements are those from the best displacement found so far.
        index: images to look at; None: all.
        update: "map" makes the next map, prior and noise; "scale" keeps the map but for a factor of each shell, see
            `posterior_map.rescaled`; "none" keeps all.
    """
    turn, move = jax.random.split(key)
    turned = jnp.asarray(np.asarray(rotation.random_rotations(turn, 1)[0], np.float32) @ grid)
    if len(shifts) > 1:
        step = float(np.abs(shifts[1]).max())
        shifts = shifts + np.asarray(jax.random.uniform(move, (2,), minval=-step / 2, maxval=step / 2))
    found = search.slices(band, estimate.volume, turned)
    expected = search.nothing_expected(band, len(turned))
    seen: list[tuple[NDArray[np.int64], Posterior]] = []
    for batch in images.batches(band, index, poses.good):
        offsets = images.put(poses.shifts[images.filled(batch.images), 0] * np.float32(centred))
        posterior, expected = search.search_grid(
            band, found, turned, estimate.noise, jnp.asarray(shifts, jnp.float32), jnp.float32(shift_px), offsets,
            batch.samples, batch.weights, expected, size=images.pixels, top=min(MODES, len(turned)), mesh=images.mesh,
        )  # fmt: skip
        seen.append((batch.images, images.take(posterior, len(batch.images))))
    poses = poses.updated(seen)
    if update == "none":
        return estimate, poses
    if update == "scale":
        return rescaled(band, expected, estimate), poses
    total = search.spread_grid(band, turned, expected)
    return next_estimate(band, total, expected, estimate, jnp.float32(radius), jnp.asarray(group, jnp.float32)), poses


def near_pass(
    images: ImageBatches,
    band: Band,
    estimate: Estimate,
    poses: Poses,
    key: Array,
    *,
    width_rad: float,
    modes: int,
    shifts: Float[NDArray[np.float32], "s 2"],
    shift_px: float,
    radius: float,
    group: Float[NDArray[np.floating], "e 3 3"],
    index: Int[NDArray[np.int64], " k"] | None = None,
    update: str = "map",
) -> tuple[Estimate, Poses]:
    """Posteriors in balls of `width_rad` about the best `modes` poses of each image; see `grid_pass` for the rest."""
    grid = gridding.grid_shape(band.plane.kernel, band.plane.grid)
    none, m = jnp.zeros(()), jnp.zeros(len(band.shell))
    sums = (jnp.zeros((*grid, 3)), Expected(none + 0j, none, m, m, m, none))
    seen: list[tuple[NDArray[np.int64], Posterior]] = []
    for number, batch in enumerate(images.batches(band, index, poses.good)):
        filled = images.filled(batch.images)
        start = images.put((poses.rotations[filled, :modes], poses.shifts[filled, :modes]))
        posterior, sums = near_search.search_near(
            band, estimate.volume, estimate.noise, start, jnp.float32(width_rad), jnp.asarray(shifts, jnp.float32),
            jnp.float32(shift_px), batch.samples, batch.weights, jax.random.fold_in(key, number), sums, size=images.pixels,
            points=POINTS, mesh=images.mesh, spreading=update == "map",
        )  # fmt: skip
        seen.append((batch.images, images.take(posterior, len(batch.images))))
    poses = poses.updated(seen)
    if update == "none":
        return estimate, poses
    if update == "scale":
        return rescaled(band, sums[1], estimate), poses
    return next_estimate(band, sums[0], sums[1], estimate, jnp.float32(radius), jnp.asarray(group, jnp.float32)), poses
