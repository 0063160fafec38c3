"""From a raw movie to neurons, without volumes in between: the function behind the command `lfjax neurons`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from lfjax import activity, metrics
from lfjax.activity.neurons import Neurons
from lfjax.activity.spike_times import Pulse
from lfjax.errors import FileError, require
from lfjax.io.lock import locked
from lfjax.linop import LinearOperator
from lfjax.movies.identity import fingerprint
from lfjax.movies.prepare import LightFields
from lfjax.optics import LightField, Microscope
from lfjax.pipeline.recording import Recording, open_recording
from lfjax.pipeline.settings import Calibration, Grid, Run, Tissue, tissue_settings
from lfjax.simulate import JGCAMP8F, Indicator

VoxelUm = tuple[float, float, float]


class Places(NamedTuple):
    """Positions and shapes of neurons.

    Attributes:
        centres_um: (n, 3), (z, y, x) from the corner of the volume.
        footprints: (n, z, y, x), brightness of each neuron.
        masks: (n, z, y, x), 1 inside each soma.
        false_discovery: estimated fraction of places without a neuron; NaN: not estimated, since they come from a structure.
        reason: why no neuron was found.
    """

    centres_um: Float[np.ndarray, "n 3"]
    footprints: Float[np.ndarray, "n z y x"]
    masks: Float[np.ndarray, "n z y x"]
    false_discovery: float = float("nan")
    reason: str = ""


class Extraction(NamedTuple):
    """Neurons of a recording, and what their quality hangs on.

    Attributes:
        neurons: the neurons, as the file at `path` holds them.
        path: the HDF5 file.
        structure: (z, y, x), the structural volume on the grid of the reconstruction; None: none was given.
        false_discovery: estimated fraction of false neurons; NaN: the neurons come from a structure or from masks.
        recording: the calibrated recording.
        trusted: share of the trusted pixels.
        correlation: Pearson correlation, over the trusted pixels, of the mean frame and of the light that the neurons and the
            neuropil around them have in it. Structure of other tissue, or shifted, has a low one.
    """

    neurons: Neurons
    path: Path
    structure: Float[np.ndarray, "z y x"] | None
    false_discovery: float
    recording: Recording
    trusted: float
    correlation: float


def extract_neurons(
    frames: Any,
    output: str | Path,
    microscope: Microscope | None = None,
    *,
    structure: ArrayLike | None = None,
    structure_um: VoxelUm | None = None,
    masks: ArrayLike | None = None,
    masks_um: VoxelUm | None = None,
    calibration: Calibration = Calibration(),  # noqa: B008 - frozen
    grid: Grid = Grid(),  # noqa: B008 - frozen
    run: Run = Run(chunk=256),  # noqa: B008 - frozen
    tissue: Tissue | None = None,
    register: bool = False,
    diameter_um: float = 12.0,
    indicator: Indicator = JGCAMP8F,
    false_discovery: float = 0.05,
    frame_s: float | None = None,
    bad_frames: str = "error",
    tolerance: float = 0.02,
    track: Callable[..., Any] | None = None,
) -> Extraction:
    """Neurons of a movie: places, footprints, time courses, dF/F, spikes; written to a file.

    The places come from a structural volume, from masks, or from the activity itself; the time courses are fitted to the light
    fields. During the run, the time courses are kept in a folder beside the result, so that a second call after an
    interruption resumes; it refuses other inputs and settings.

    Args:
        frames: (t, row, col), camera frames: an array, or `io.open_movie`.
        output: HDF5 file to write, .h5; it must not exist.
        microscope: its parameters. None: those of the calibration.
        structure: (z, y, x), structural volume (tdTomato). None: no structure.
        structure_um: its voxel size (z, y, x); it is resampled to the grid. None: it is on the grid.
        masks: (z, y, x) of whole numbers, one per neuron and 0 outside, or (n, z, y, x): the user's own somata.
        masks_um: their voxel size. None: they are on the grid.
        calibration: white and dark frame, or a calibration made before.
        grid: depths and voxels per lenslet. Depths that are left open cover the usable range in steps of a soma or less.
        run: chunks, batches and devices.
        tissue: tissue that scatters the light. None: clear.
        register: shift frames onto the first ones, across the axis.
        diameter_um: diameter of a soma.
        indicator: the calcium indicator, whose transients spikes have.
        false_discovery: largest expected fraction of false neurons among those found by their activity.
        frame_s: seconds per frame. None: that of the file.
        bad_frames: treatment of missing, black, doubled and broken frames: "error", "skip" or "interpolate".
        tolerance: largest convergence error of the PSF.
        track: see `lfjax.progress.track`.

    Raises:
        FileError: `output` exists, an interrupted run had other inputs or settings, or frames are bad.
        BusyError: another process writes `output`.
        NoSpaceError: the disk is full; the time courses that were written stay, and the same call resumes.
        ParameterError: a number out of range, or no neuron is found.
        ShapeError: `structure` or `masks` do not fit the grid.
        LfjaxError: see `optics.Rectifier.calibrate`.
    """
    output = Path(output)
    _require_new(output)
    require(structure is None or masks is None, "masks", "given", "a structural volume or masks, not both")
    require(0 < false_discovery < 1, "false_discovery", false_discovery, "a fraction between 0 and 1")
    run.check()
    mesh = run.mesh()
    require(0 < diameter_um < math.inf, "diameter_um", diameter_um, "a positive number")
    recording = open_recording(
        frames, microscope, calibration, grid, frame_s=frame_s, bad_frames=bad_frames, step_um=diameter_um, track=track
    )
    still = len(frames) > 1 and recording.survey.still
    require(not still, "frames", f"{len(frames)} times the same frame", "a recording, in which at least the noise changes")
    shape, voxel_um = recording.volume_grid()  # what does not fit is refused before the PSF is computed
    extent_um = min(n * v for n, v in zip(shape[1:], voxel_um[1:], strict=True))
    expected = f"a size above 0 and below the field's {extent_um:.3g} um"
    require(0 < diameter_um < extent_um, "diameter_um", diameter_um, expected)
    volume, places = None, None
    if structure is not None:
        volume = activity.resample_structure(structure, structure_um, shape, voxel_um, diameter_um=diameter_um)
        places = _labelled(volume, voxel_um, diameter_um)
    elif masks is not None:
        own = activity.masks_to_places(masks, shape, voxel_um, voxel_um=masks_um, diameter_um=diameter_um)
        places = Places(own.centres_um, own.masks, own.masks)
    psf = recording.psf(tolerance, track)
    ready = recording.light_fields(psf, register=register)
    clear = LightField(psf, ready.field)
    op = clear if tissue is None else tissue.before(clear, psf)
    if places is None:
        places = _firing(ready, op, psf.voxel_um, diameter_um, recording.frame_s, indicator, false_discovery, run.batch)
    told = "none were found" + f": {places.reason}" * bool(places.reason)
    require(len(places.masks) > 0, "neurons", told, "a structural volume, or a movie, in which neurons show")
    rings = activity.neuropil_rings(places.centres_um, places.masks, psf.voxel_um)
    explained = _explained(op, places.footprints, rings, ready)
    settings = {
        **recording.settings(), "tissue": tissue_settings(tissue), "register": register, "diameter_um": diameter_um,
        "indicator": indicator.time_constants_s, "false_discovery": false_discovery, "bad_frames": bad_frames,
        "tolerance": tolerance, "inputs": fingerprint(frames, structure, masks),
    }  # fmt: skip
    courses = courses_of(output)
    with locked(output):
        _require_new(output)
        found = activity.extract(
            ready.frames, op, places.centres_um, places.footprints, courses, frame_s=recording.frame_s, voxel_um=psf.voxel_um,
            mean=jnp.asarray(ready.mean), weights=ready.weights, neuropil=rings, moments=recording.moments,
            pulse=Pulse(*indicator.time_constants_s), size=run.chunk, mesh=mesh, settings=settings, track=track,
        )  # fmt: skip
        found = _marked(found, recording)
        activity.write_neurons(output, found)
        activity.remove_courses(courses)  # only now: a run killed before resumes from it
    return Extraction(found, output, volume, places.false_discovery, recording, float(ready.mask.mean()), explained)


def courses_of(output: str | Path) -> Path:
    """The folder that keeps time courses during a run, beside its result NAME.h5: NAME.courses.zarr."""
    return Path(output).with_name(f"{Path(output).stem}.courses.zarr")


def _require_new(output: Path) -> None:
    if output.exists():
        raise FileError(f"{output}: exists already; expected a new name, since results are not overwritten")


def _marked(found: Neurons, recording: Recording) -> Neurons:
    """The neurons with their depths, and without spikes in frames that the camera did not take."""
    filled, spikes = recording.filled, found.spikes
    if filled is not None:
        frames = [np.clip((times / found.frame_s).astype(int), 0, len(filled) - 1) for times in spikes]
        spikes = [times[~filled[at]] for times, at in zip(spikes, frames, strict=True)]
    return dataclasses.replace(found, spikes=spikes, filled=filled, z_um=recording.grid.depths)


def _explained(op: LinearOperator, footprints: ArrayLike, rings: ArrayLike, ready: LightFields) -> float:
    """Correlation of the mean frame with the images of neurons and neuropil that fit it best."""
    images = activity.direct_images(op, footprints, ready.mean, weights=ready.weights, neuropil=rings, rest=False)
    light = images.time_courses(ready.mean[None])[:, 0]
    model = np.tensordot(np.asarray(light), np.asarray(images.images), 1)
    return float(metrics.correlation(ready.mean, model, ready.mask))


def _firing(
    ready: LightFields,
    op: LinearOperator,
    voxel_um: VoxelUm,
    diameter_um: float,
    frame_s: float,
    indicator: Indicator,
    false_discovery: float,
    batch: int,
) -> Places:
    """Neurons that fire in the movie, as round somata."""
    found = activity.discover(
        ready.frames, frame_s, op, voxel_um, weights=ready.weights, diameter_um=diameter_um,
        pulse=Pulse(*indicator.time_constants_s), false_discovery=false_discovery, batch=batch,
    )  # fmt: skip
    z, y, x = op.in_shape
    footprints = activity.soma_footprints(found.centres_um, (z, y, x), voxel_um, diameter_um=diameter_um)
    masks = footprints > 0.5 * footprints.max((1, 2, 3), keepdims=True)
    return Places(found.centres_um, footprints, masks.astype(np.float32), found.false_discovery, found.reason)


def _labelled(structure: np.ndarray, voxel_um: VoxelUm, diameter_um: float) -> Places:
    """Somata of a structural volume, with its brightness as footprints."""
    somata = activity.segment_somata(structure, voxel_um, diameter_um=diameter_um)
    masks = somata.masks().astype(np.float32)
    return Places(somata.centres_um, masks * np.maximum(structure, 0).astype(np.float32), masks)
