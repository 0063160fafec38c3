"""From a raw movie to neurons, without volumes in between: what the command `lfjax neurons` runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from lfjax import activity
from lfjax.activity.neurons import Neurons
from lfjax.errors import require, require_shape
from lfjax.movies import prepare
from lfjax.optics import LightField, Microscope, cached_psf
from lfjax.pipeline.settings import Calibration, Grid, Run


class Places(NamedTuple):
    """Where neurons are.

    Attributes:
        centres_um: (n, 3), (z, y, x) from the corner of the volume.
        footprints: (n, z, y, x), brightness of each neuron.
        masks: (n, z, y, x), 1 inside each soma.
    """

    centres_um: Float[np.ndarray, "n 3"]
    footprints: Float[np.ndarray, "n z y x"]
    masks: Float[np.ndarray, "n z y x"]


def extract_neurons(
    frames: Any,
    microscope: Microscope,
    courses: str | Path,
    *,
    structure: ArrayLike | None = None,
    calibration: Calibration = Calibration(),  # noqa: B008 - frozen
    grid: Grid = Grid(),  # noqa: B008 - frozen
    run: Run = Run(chunk=256),  # noqa: B008 - frozen
    register: bool = False,
    diameter_um: float = 12.0,
    frame_s: float = 0.01,
    tolerance: float = 0.02,
    track: Callable[..., Any] | None = None,
) -> Neurons:
    """Neurons of a movie: places, footprints, time courses, dF/F, spikes.

    The places come from a structural volume, or from the activity itself; the time courses are fitted to the light fields.

    Args:
        frames: (t, y, x), camera frames: an array, or `io.open_movie`.
        microscope: its parameters.
        courses: folder (.zarr) that keeps the time courses during the run, so that a second call after an interruption resumes;
            removed at the end.
        structure: (z, y, x), structural volume (tdTomato) on the grid of the reconstruction. None: neurons are found as they
            fire.
        calibration: white and dark frame, or that the frames are rectified.
        grid: depths and voxels per lenslet.
        run: chunks, batches and devices.
        register: shift frames onto the first ones, across the axis.
        diameter_um: diameter of a soma.
        frame_s: seconds per frame.
        tolerance: largest convergence error of the PSF.
        track: see `lfjax.progress.track`.

    Raises:
        ParameterError: a number out of range, or no neuron is found.
        ShapeError: `structure` is not on the grid.
        LfjaxError: see `movies.light_fields`.
    """
    run.check()
    mesh = run.mesh()
    psf = cached_psf(microscope, grid.z_um, grid.voxels, tolerance=tolerance, track=track)
    ready = prepare.light_fields(
        frames, microscope, psf, white=calibration.white, dark=calibration.dark, rectified=calibration.rectified,
        register=register, frame_s=frame_s,
    )  # fmt: skip
    op = LightField(psf, ready.field)
    extent_um = min(n * v for n, v in zip(op.in_shape[1:], psf.voxel_um[1:], strict=True))
    expected = f"a size above 0 and below the field's {extent_um:.3g} um"
    require(0 < diameter_um < extent_um, "diameter_um", diameter_um, expected)
    if structure is None:
        places = _firing(ready, op, psf.voxel_um, diameter_um, frame_s, run.batch)
    else:
        require_shape("structure", np.shape(structure), op.in_shape)
        places = _labelled(np.asarray(structure), psf.voxel_um, diameter_um)
    require(len(places.masks) > 0, "neurons", "none were found", "a structural volume, or a movie, in which neurons show")
    rings = activity.neuropil_rings(places.centres_um, places.masks, psf.voxel_um)
    return activity.extract(
        ready.frames, op, places.centres_um, places.footprints, courses, frame_s=frame_s, voxel_um=psf.voxel_um,
        mean=jnp.asarray(ready.mean), neuropil=rings, size=run.chunk, mesh=mesh, track=track,
    )  # fmt: skip


def _firing(
    ready: prepare.LightFields,
    op: LightField,
    voxel_um: tuple[float, float, float],
    diameter_um: float,
    frame_s: float,
    batch: int,
) -> Places:
    """Neurons that fire in the movie, as round somata."""
    centres = activity.discover(ready.frames, frame_s, op, voxel_um, diameter_um=diameter_um, batch=batch)
    footprints = activity.soma_footprints(centres, op.in_shape, voxel_um, diameter_um=diameter_um)
    masks = footprints > 0.5 * footprints.max((1, 2, 3), keepdims=True)
    return Places(centres, footprints, masks.astype(np.float32))


def _labelled(structure: np.ndarray, voxel_um: tuple[float, float, float], diameter_um: float) -> Places:
    """Somata of a structural volume, with its brightness as footprints."""
    somata = activity.segment_somata(structure, voxel_um, diameter_um=diameter_um)
    masks = somata.masks().astype(np.float32)
    return Places(somata.centres_um, masks * np.maximum(structure, 0).astype(np.float32), masks)
