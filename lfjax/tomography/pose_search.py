"""A search for poses: the images and their powers, the bands and grids, and the step from one pass to the next.

`unknown_poses` runs it without a map, `known_map` with one, `gold_standard` half by half.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Float, Int
from numpy.typing import NDArray

from lfjax import rotation
from lfjax.errors import DataWarning, require
from lfjax.tomography import schedule
from lfjax.tomography.bands import Band, band_of
from lfjax.tomography.image_batches import ImageBatches, Stack
from lfjax.tomography.outliers import goodness
from lfjax.tomography.particles import Particles
from lfjax.tomography.passes import Poses, grid_pass, near_pass
from lfjax.tomography.posterior_map import Estimate, first_map, in_band
from lfjax.tomography.powers import measured_powers
from lfjax.tomography.schedule import Step
from lfjax.tomography.search import disc, unit_grid
from lfjax.tomography.symmetry import symmetry_group

GRIDS = {"coarse": schedule.COARSE, "whole": schedule.COARSE, "fine": schedule.FINE, "again": schedule.FINE}
STUCK = -2.5  # fit below which an image is searched again over the whole grid
REACH = 3.0  # standard deviations of the displacements that the first search covers
SURE = 1.2  # the same once a displacement has been found
LEVER = 0.4  # displacements tried near known poses, over the path of the particle's rim in a ball
NEAREST_PX = 0.8  # and their least radius
AGAIN_RAD = (np.deg2rad(8.0), np.deg2rad(4.0))  # balls about the poses of a grid, for images that are searched again

LONELY = 0.25  # of the box: radius of a ball below which boxes are to be cut
FEWEST = 20  # images; fewer say little about a map
UNSETTLED_RAD = np.deg2rad(30.0)  # median spread after the last pass over a grid, beyond which poses count as undetermined
TOO_FAR = 1.5  # rms of the displacements found over that taken for granted
LITTLE = 0.9  # share of the images' signal that the right map explains at least
MANY_IMAGES = 2048  # images from which on passes over a grid look at some of them
SOME_IMAGES = 1024  # of them

Index = Int[NDArray[np.int64], " k"] | None
Grid = Float[NDArray[np.float32], "g 3 3"]


class Pass(NamedTuple):
    """A line of the history.

    Attributes:
        step: number of the pass, from 0.
        kind: kind of the pass, see `schedule.Step`.
        limit: band, cycles per box of the search.
        start: number of the start, while there are several.
        evidence: mean log-evidence of an image but for a constant of the band: the logarithm of the probability of its samples.
        spread_rad: median over images of the standard deviation of its posterior about the best pose.
        stuck: share of images that fit far less than an image of the map would.
        noise: largest ratio, over the shells of the band, of noise power and images' power; at most 1 for a map on their scale.
        period_angstrom: period of the highest frequency of the band.
    """

    step: int
    kind: str
    limit: int
    start: int
    evidence: float
    spread_rad: float
    stuck: float
    noise: float
    period_angstrom: float


def tell_doubts(history: Sequence[Pass], poses: Poses, shift_px: float, explained: float) -> None:
    """Warn where a search has not found poses, whatever its last passes say: in balls of a few degrees all looks settled.

    Args:
        history: lines of its passes.
        poses: what they found.
        shift_px: standard deviation of the displacements that the search took for granted, pixels.
        explained: share of the images' signal that the map explains, see `PoseSearch.explained`.

    Warns:
        DataWarning: there are too few images; or posteriors were wide on the last grid of all rotations; or displacements are
            larger than the search took for granted; or the map leaves signal unexplained.
    """
    count, fine = len(poses.fit), [line.spread_rad for line in history if line.kind == "fine"]
    if count < FEWEST:
        text = f"{count} images: so few explain themselves by any map; expected {FEWEST} or more, better hundreds"
        warnings.warn(text, DataWarning, stacklevel=4)
    if fine and fine[-1] > UNSETTLED_RAD:
        told = f"posteriors spread over {np.rad2deg(fine[-1]):.0f} degrees on the last grid of all rotations"
        wanted = f"expected less than {np.rad2deg(UNSETTLED_RAD):.0f}"
        text = f"{told}; {wanted}: the poses are not determined, and neither the map nor its resolution means anything"
        warnings.warn(text, DataWarning, stacklevel=4)
    if explained < LITTLE:
        told = f"the map explains {explained:.0%} of the images' signal; expected {LITTLE:.0%} or more"
        text = f"{told}: another object, a symmetry that the particle lacks, too small a radius, or poses that were not found"
        warnings.warn(text, DataWarning, stacklevel=4)
    moved = float(np.sqrt(np.mean(poses.displacement**2)))
    if shift_px and moved > TOO_FAR * shift_px:
        text = (
            f"displacements of {moved:.2g} pixels rms along each axis; expected about {shift_px:g}: search with a larger shift"
        )
        warnings.warn(text, DataWarning, stacklevel=4)


class PoseSearch:
    """What stays the same through all passes of a search.

    Attributes:
        images: the images in batches.
        pixel_angstrom: pixel size.
        radius: radius of the particle in box lengths.
        nyquist: cycles per box.
        powers: powers of signal and noise.
        start: first band.
    """

    def __init__(
        self,
        images: Stack,
        particles: Particles,
        *,
        radius_angstrom: float | None = None,
        symmetry: str = "C1",
        shift_px: float = 0.0,
        noise: Float[ArrayLike, "groups r"] | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        """The arguments of `unknown_poses.abinitio`.

        Raises:
            ShapeError: images and particles do not agree.
            ParameterError: an argument is out of range.
        """
        self.images = ImageBatches(images, particles, noise=noise, mesh=mesh)
        self.pixel_angstrom = float(np.asarray(particles.pixel_angstrom)[0])
        box = self.images.pixels * self.pixel_angstrom
        self.radius = schedule.RADIUS if radius_angstrom is None else radius_angstrom / box
        require(0 < self.radius < 0.5, "radius_angstrom", radius_angstrom, f"from 0 to {box / 2:.4g}, half the box")
        if self.radius < LONELY:
            told = f"radius_angstrom = {self.radius * box:.4g}: {self.radius:.2g} of the box, in which a search finds less"
            text = f"{told}; expected {LONELY:g} or more: cut the boxes (tomography.CutImages; no --whole-boxes)"
            warnings.warn(text, DataWarning, stacklevel=4)
        most = self.images.pixels / (2 * REACH)
        require(0 <= shift_px <= most, "shift_px", shift_px, f"0 to {most:.3g}: {REACH:g} of them within half the box")
        self.shift_px, self.group = shift_px, symmetry_group(symmetry)
        self.nyquist = self.images.pixels / 2
        widest = min(round(16 * schedule.RADIUS / self.radius), int(self.nyquist) - 1)
        self.powers = measured_powers(self.images, band_of(widest), self.radius)
        self.start = schedule.first_limit(self.powers.information, self.radius, len(self.group))
        finer = int(len(self.group) >= schedule.MANY)
        self.grids = {kind: unit_grid(order + finer, self.group) for kind, order in GRIDS.items()}

    def plan(self, restarts: int, near: int) -> list[Step]:
        """All passes with `near` bands searched in balls."""
        return schedule.steps(self.start, restarts, near, self.radius, self.nyquist, len(self.images))

    def steps(self, near: int) -> list[Step]:
        """The passes after the starts."""
        return schedule.steps_from(self.start, near, self.radius, self.nyquist, len(self.images))

    def chosen(self, step: Step, poses: Poses, key: Array) -> Index:
        """Images of a pass: of large sets some for each pass over a grid but the last, the same in every start; None: all."""
        count = len(self.images)
        if step.kind == "again":
            return np.flatnonzero(poses.fit < STUCK)
        if step.whole or count <= MANY_IMAGES:
            return None
        drawn = jax.random.fold_in(jax.random.fold_in(key, step.limit), step.turn)
        return np.sort(np.asarray(jax.random.choice(drawn, count, (SOME_IMAGES,), replace=False)))

    def first_map(self, key: Array) -> Estimate:
        """A map of the first band that knows nothing but size and power."""
        return first_map(key, band_of(self.start), self.powers, self.radius)

    def advance(
        self,
        step: Step,
        estimate: Estimate,
        poses: Poses,
        key: Array,
        index: Index,
        update: str = "map",
    ) -> tuple[Estimate, Poses]:
        """Estimate and poses after a pass over all images, or over those of `index`."""
        band = band_of(step.limit)
        small = in_band(estimate, band, self.powers)
        if step.kind == "near":
            small, poses = self._near(band, small, poses, key, step.width_rad, step.modes, index, update)
            good, chosen = poses.good.copy(), slice(None) if index is None else index
            told = (poses.fit - poses.excess)[chosen] / np.sqrt(2)
            good[chosen] = goodness(told)  # of these alone: half-sets know nothing of each other
            return small, eqx.tree_at(lambda p: p.good, poses, good)
        if step.kind == "again":
            return estimate, poses if index is None or not len(index) else self._again(band, small, poses, key, index)
        centred = step.kind == "fine"
        return self._grid(band, small, poses, key, self.grids[step.kind], centred, index, update)

    def _grid(
        self, band: Band, estimate: Estimate, poses: Poses, key: Array, grid: Grid, centred: bool, index: Index, update: str
    ) -> tuple[Estimate, Poses]:
        """A pass over a grid, about the displacements found so far or about those of the particles."""
        shifts = disc((SURE if centred else REACH) * self.shift_px, self.images.pixels / (4 * band.limit))
        return grid_pass(
            self.images, band, estimate, poses, key, grid=grid, shifts=shifts, shift_px=max(self.shift_px, 1e-3),
            radius=self.radius, group=self.group, centred=centred, index=index, update=update,
        )  # fmt: skip

    def _near(
        self, band: Band, estimate: Estimate, poses: Poses, key: Array, width_rad: float, modes: int, index: Index, update: str
    ) -> tuple[Estimate, Poses]:
        """A pass in balls of rotations, with displacements that move the particle as far as its rim moves."""
        reach = max(LEVER * width_rad * self.radius * self.images.pixels, NEAREST_PX) if self.shift_px else 0.0
        return near_pass(
            self.images, band, estimate, poses, key, width_rad=width_rad, modes=modes, shifts=disc(reach, reach / 2 or 1.0),
            shift_px=max(self.shift_px, 1e-3), radius=self.radius, group=self.group, index=index, update=update,
        )  # fmt: skip

    def _again(self, band: Band, estimate: Estimate, poses: Poses, key: Array, index: Int[NDArray[np.int64], " k"]) -> Poses:
        """Of the pose so far and of the best on the whole grid the one of greater evidence, in balls of one size."""
        keys = jax.random.split(key, 4)
        last = (1, index, "none")
        here = self._near(band, estimate, poses, keys[0], AGAIN_RAD[1], *last)[1]
        there = self._grid(band, estimate, poses, keys[1], self.grids["again"], False, index, "none")[1]
        there = self._near(band, estimate, there, keys[2], AGAIN_RAD[0], schedule.MODES, index, "none")[1]
        there = self._near(band, estimate, there, keys[3], AGAIN_RAD[1], *last)[1]
        better = there.log_evidence > here.log_evidence
        return jax.tree.map(lambda a, b: np.where(better.reshape(-1, *(1,) * (a.ndim - 1)), b, a), here, there)

    def line(
        self,
        number: int,
        step: Step,
        before: Estimate,
        estimate: Estimate,
        poses: Poses,
        index: Index,
    ) -> Pass:
        """What a pass over all images, or over those of `index`, came to, from the estimate before it to the one after."""
        band, chosen = band_of(step.limit), slice(None) if index is None or not len(index) else index
        measured = min(band.limit, self.powers.band.limit)
        # the likelihood without a particle depends on the noise, which differs from start to start: that of the pass, as even
        # its next value would tell more of the change of the noise than of the start
        noise = np.asarray(in_band(before, band, self.powers).noise, float)
        power = np.append(self.powers.images[: measured + 1], noise[measured + 1 :])
        norm = float(((np.log(noise) + power / noise)[band.shell] * band.count).sum())
        share = np.asarray(estimate.noise)[1 : measured + 1] / self.powers.images[1 : measured + 1]
        return Pass(
            step=number,
            kind=step.kind,
            limit=step.limit,
            start=step.start,
            evidence=float(poses.log_evidence[chosen].mean()) - norm,
            spread_rad=float(np.median(poses.spread_rad[chosen])),
            stuck=float(np.mean(poses.fit < STUCK)),
            noise=float(np.max(share)),
            period_angstrom=self.period_angstrom(step.limit),
        )

    def period_angstrom(self, limit: int) -> float:
        """Period of a frequency of `limit` cycles per box of the search."""
        return self.images.pixels * self.pixel_angstrom / limit

    def explained(self, estimate: Estimate) -> float:
        """Share of the images' signal in the upper half of the first band that a map explains, see `Powers.explained`."""
        return self.powers.explained(estimate.noise, self.start // 2, self.start)

    def particles_at(self, poses: Poses) -> Particles:
        """The particles at the posterior means of their poses and displacements."""
        given = self.images.particles
        mean = rotation.nearest(poses.average.astype(float))
        moved = jnp.asarray(poses.displacement, float)
        return eqx.tree_at(lambda p: (p.rotations, p.shifts), given, (jnp.asarray(mean, float), given.shifts + moved))
