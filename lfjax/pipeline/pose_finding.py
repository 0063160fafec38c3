"""From a file of particles of unknown pose to poses, a map and half-maps in one call: what `lfjax abinitio` runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from lfjax.errors import require
from lfjax.io.lock import locked
from lfjax.pipeline.kept_search import KeptSearch
from lfjax.pipeline.particles import batches
from lfjax.pipeline.search_settings import (
    COMPILING,
    ReadySearch,
    SearchSettings,
    in_search_box,
    ready_search,
    search_of,
    settings_of,
)
from lfjax.tomography import (
    AbInitio,
    BandViews,
    ParticleFile,
    Particles,
    Pass,
    Reconstruction,
    State,
    images_beside_map,
    reconstruct,
    resolution,
    unknown_poses as searching,
)
from lfjax.tomography.gold_standard import RandomPhases, independent_halves

JUNK = 0.5  # probability of showing the particle below which an image is left out of the maps
SAFE = 0.8  # correlation of half-maps down to which phases are kept in the check for overfitting
FEWEST_HALF = 10  # images; the agreement of smaller half-sets is that of single images, and no resolution
SHOWN = 6  # images of each picture


class BandLook(NamedTuple):
    """A search at the end of a band, to be drawn.

    Attributes:
        line: the last pass of the band.
        volume: map of the band.
        views: some images and their projections.
        rotations: best rotation of every image.
        resolved: share of the map's power in each shell that the images determine, 1 - v / tau2.
        box_angstrom: side of the box.
    """

    line: Pass
    volume: Float[Array, "z y x"]
    views: BandViews
    rotations: Float[NDArray[np.floating], "n 3 3"]
    resolved: Float[NDArray[np.floating], " r"]
    box_angstrom: float


class FoundPoses(NamedTuple):
    """Poses found, and their maps.

    Attributes:
        particles: the particles at the poses found with one map of all images.
        search: result of the search, in the box of the search.
        good: probability of each image to show the particle.
        maps: map at those poses, filtered by the correlation of the half-maps, if half-sets have 10 images or more; the
            half-maps, from the poses that each half found by itself, and their correlation.
        curves: name -> Fourier shell correlation: "independent halves", "joint poses", and, with the check for overfitting,
            "random phases" and "corrected".
        randomised_from: shell from which on the phases are random in that check; 0: no check, as of half-sets below 10 images.
        radius_angstrom: radius of the ball in use.
        notes: one line for each thing that the file says and that changes the result.
        kept: the search on disk, to be removed when the results are written; None: it was not kept.
    """

    particles: Particles
    search: AbInitio
    good: Float[NDArray[np.float32], " n"]
    maps: Reconstruction
    curves: dict[str, NDArray[np.float64]]
    randomised_from: int
    radius_angstrom: float
    notes: tuple[str, ...]
    kept: KeptSearch | None = None

    @property
    def junk(self) -> NDArray[np.bool_]:
        """Images that fit nothing, and are left out of the maps."""
        return self.good < JUNK

    @property
    def half_counts(self) -> tuple[int, int]:
        """Images of each half-set in the maps."""
        first, second = (int(np.sum(np.asarray(self.particles.half)[~self.junk] == number)) for number in (1, 2))
        return first, second

    @property
    def measured(self) -> bool:
        """Whether the half-sets are large enough, 10 images each, for their agreement to be a resolution."""
        return min(self.half_counts) >= FEWEST_HALF


def find_poses(
    file: ParticleFile,
    settings: SearchSettings = SearchSettings(),  # noqa: B008 - frozen
    *,
    restarts: int | None = None,
    independent: bool = True,
    check_overfitting: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    told: Callable[[str], None] | None = None,
    passed: Callable[[Pass], Any] | None = None,
    looked: Callable[[BandLook], Any] | None = None,
    track: Callable[..., Any] | None = None,
) -> FoundPoses:
    """Find the poses of particles without any map to begin with, and reconstruct their map and half-maps.

    The images pass the checks of `CheckedImages`; those of large boxes are cropped in Fourier space for the search and read
    again, whole, for the maps. Images that show the particle with a probability below 1/2 are left out of the maps. With an
    `output`, the search is kept in a file beside it after every pass, and a second call after an interruption resumes there, to
    the same result; the caller removes that file, `FoundPoses.kept`, when the results are written.

    Args:
        file: particles, see `tomography.read_particles`; poses in it are ignored.
        settings: how to search.
        restarts: starts that compete by their evidence; None: 4, and 8 for up to 100 images.
        independent: whether each half-set then refines its poses by itself, so that the half-maps share no noise; False:
            half-maps at the joint poses, which agree a little too well.
        check_overfitting: whether the halves are refined once more with random phases beyond the last shell in which they
            correlate by 0.8; all correlation that is left there is overfitting.
        output: the result, beside which the search is kept; None: it is not kept.
        overwrite: whether a kept search of other settings is replaced.
        told: called with each note as soon as it is known.
        passed: called with the line of each pass, after the search is kept.
        looked: called at the end of each band.
        track: wraps loops to show their progress, see `lfjax.progress.track`.

    Raises:
        FileError: the images cannot be used, see `CheckedImages`, or a kept search has other settings or is broken.
        BusyError: another process searches for `output`.
        ParameterError: a setting is out of range, or most of the signal lies beyond the ball.
    """
    require(restarts is None or restarts >= 1, "restarts", restarts, "1 or more")
    require(independent or not check_overfitting, "check_overfitting", True, "independent half-sets")
    folder = None if output is None else Path(output).absolute().parent
    if output is not None and not overwrite:
        KeptSearch(output, {}).check()
    ready = ready_search(file, settings, folder=folder, told=told, track=track)
    starts = restarts or (8 if len(file) <= searching.FEW else 4)
    keys = jax.random.split(jax.random.key(settings.seed), 3)
    kept = None if output is None else kept_search(output, ready, settings, starts)

    def keep(state: State) -> None:
        if kept is not None:
            kept.keep(state)
        if passed is not None:
            passed(state.history[-1])
        if looked is not None:
            _look(ready, state, starts, looked)

    with nullcontext() if output is None else locked(output):
        state = None if kept is None else kept.state(replace=overwrite)
        if told:
            _tell_beginning(state, kept, told)
        found = searching.run(ready.search, keys[0], starts, state=state, keep=keep)
    made = _with_maps(ready, settings, found, keys[1:], independent, check_overfitting, folder, track)
    return made._replace(kept=kept)


def kept_search(output: str | Path, ready: ReadySearch, settings: SearchSettings, restarts: int) -> KeptSearch:
    """The file of a search beside its result.

    Args:
        output: the result.
        ready: the search.
        settings: how it searches.
        restarts: its starts.
    """
    return KeptSearch(output, {**settings_of(ready, settings), "restarts": restarts})


def _tell_beginning(state: State | None, kept: KeptSearch | None, told: Callable[[str], None]) -> None:
    """Say where the search begins, before a first pass that is silent for long."""
    if state is not None:
        told(f"resumed after pass {state.done} of an interrupted run")
    elif kept is not None and kept.path.exists():
        told(f"{kept.path.name}: not resumed, begun anew")
    told(COMPILING)


def _look(ready: ReadySearch, state: State, starts: int, looked: Callable[[BandLook], Any]) -> None:
    """Show the map of a band at its last pass; of the starts, the best."""
    search = ready.search
    step = search.plan(starts, state.near)[state.done - 1]
    if not step.last or (step.kind == "coarse" and step.start < starts - 1):
        return
    estimate, poses = state.leader if step.kind == "coarse" else (state.estimate, state.poses)
    best = np.argsort(-poses.fit, kind="stable")  # images of the middle: neither the best nor junk
    index = np.sort(best[np.linspace(0, len(best) - 1, 2 * SHOWN + 1).astype(int)[1::2]])
    share = 1 - np.asarray(estimate.variance) / np.maximum(np.asarray(estimate.prior), 1e-30)
    box = search.images.pixels * search.pixel_angstrom
    views = images_beside_map(search, step.limit, estimate, poses, np.unique(index))
    looked(BandLook(state.history[-1], estimate.volume, views, poses.rotations[:, 0], share[: step.limit + 1], box))


def _with_maps(
    ready: ReadySearch,
    settings: SearchSettings,
    found: AbInitio,
    keys: Array,
    independent: bool,
    check_overfitting: bool,
    folder: Path | None,
    track: Callable[..., Any] | None,
) -> FoundPoses:
    """Maps of the images that show the particle, at the poses of a search."""
    images, file = ready.images, ready.images.file
    joint = ready.low.enlarged(found.particles, images.particles)
    half = np.asarray(images.particles.half)
    order = file.order[found.good[file.order] >= JUNK]
    shared: dict[str, Any] = {"symmetry": settings.symmetry, "noise": images.noise}
    curves: dict[str, NDArray[np.float64]] = {}
    first, curve, shell = None, None, 0
    if independent:
        own = independent_halves(ready.search, found, half, keys[0], track=track, label="passes of half-set")
        apart = ready.low.enlarged(own, images.particles)
        first = reconstruct(batches(images, apart, order, track=track, label="half-maps"), file.size, **shared)
        curve = curves["independent halves"] = np.asarray(first.curve, float)
    maps = reconstruct(batches(images, joint, order, track=track, label="map"), file.size, curve=curve, **shared)
    images.tell_doubled()
    curves["joint poses"] = np.asarray(maps.curve, float)
    box = file.size * file.pixel_angstrom
    if first is not None:
        maps = maps._replace(halves=first.halves, curve=first.curve, resolution_angstrom=resolution(first.curve, box))
    few = min(int(np.sum(half[order] == number)) for number in (1, 2)) < FEWEST_HALF
    if few:
        maps = maps._replace(volume=maps.unfiltered, resolution_angstrom=float("inf"))
    if check_overfitting and curve is not None and not few:
        start = math.ceil(box / ready.search.period_angstrom(ready.search.steps(0)[0].limit))
        shell = max(int(np.argmax(np.r_[curve[1:] < SAFE, True])) + 1, start + 1)
        random = RandomPhases(images, shell, keys[1])
        low = in_search_box(random, images, settings, ready.radius_angstrom, ready.cut_px, folder=folder, track=track)
        search = search_of(low, settings, ready.radius_angstrom, ready.search.images.mesh)
        own = independent_halves(search, found, half, keys[0], track=track, label="random phases, passes of half-set")
        made = reconstruct(batches(random, low.enlarged(own, images.particles), order, track=track), file.size, **shared)
        noise = curves["random phases"] = np.asarray(made.curve, float)
        beyond = np.arange(len(curve)) >= shell + 2  # the edge of the phases is soft in the maps
        curves["corrected"] = np.where(beyond, (curve - noise) / np.maximum(1 - noise, 1e-3), curve)
    return FoundPoses(joint, found, found.good, maps, curves, shell, ready.radius_angstrom, images.notes)
