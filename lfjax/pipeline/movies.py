"""From a raw movie to a movie of volumes: what the command `lfjax movie` runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from lfjax import movies, parallel
from lfjax.errors import require
from lfjax.movies.identity import fingerprint
from lfjax.movies.reconstruct import WARM
from lfjax.optics import LightField, Microscope
from lfjax.pipeline.methods import SOLVERS
from lfjax.pipeline.recording import open_recording
from lfjax.pipeline.settings import Calibration, Grid, Run, Tissue, tissue_settings


class MovieVolumes(NamedTuple):
    """A reconstructed movie on disk.

    Attributes:
        path: the OME-Zarr folder.
        shape: (t, z, y, x).
        voxel_um: voxel size (z, y, x) in micrometres.
        microscope: the microscope of the reconstruction; that of the model, if a model made it.
        trusted: share of the trusted pixels.
        bad: bad frames, number -> reason; they were left out or interpolated.
    """

    path: Path
    shape: tuple[int, int, int, int]
    voxel_um: tuple[float, float, float]
    microscope: Microscope
    trusted: float
    bad: Mapping[int, str]


def reconstruct_movie(
    frames: Any,
    output: str | Path,
    microscope: Microscope | None = None,
    *,
    calibration: Calibration = Calibration(),  # noqa: B008 - frozen
    grid: Grid = Grid(),  # noqa: B008 - frozen
    run: Run = Run(),  # noqa: B008 - frozen
    tissue: Tissue | None = None,
    model: str | Path | None = None,
    solver: str = "ista",
    iterations: int = 20,
    sparsity: float = 1e-3,
    total_variation: float = 1e-3,
    warm: str = "background",
    register: bool = False,
    background: int = 0,
    frame_s: float | None = None,
    bad_frames: str = "error",
    tolerance: float = 0.02,
    process: parallel.Process | None = None,
    settings: Mapping[str, Any] | None = None,
    track: Callable[..., Any] | None = None,
) -> MovieVolumes:
    """Reconstruct every frame of a movie, chunk by chunk; a second call after an interruption resumes.

    Args:
        frames: (t, y, x), camera frames: an array, or `io.open_movie`.
        output: OME-Zarr folder to write, whose name ends with .zarr.
        microscope: its parameters. None: those of the calibration or of the model.
        calibration: white and dark frame, or a calibration made before.
        grid: depths and voxels per lenslet; a model brings its own.
        run: chunks, batches and devices.
        tissue: tissue that scatters the light. None: clear. A model brings its own.
        model: model file, or "small", in place of a solver.
        solver: a name in `SOLVERS`.
        iterations: iterations per frame.
        sparsity: l1 weight as a fraction of the weight that makes the volume zero (ista, fista, admm).
        total_variation: TV weight in the same unit (admm).
        warm: start of each frame, one of `movies.reconstruct.WARM`: "none", the volume of the mean frame ("background"), or
            the volume of the frame before ("previous").
        register: shift frames onto the first ones, across the axis.
        background: rank of the slow background that is subtracted; 0 subtracts none.
        frame_s: seconds per frame. None: that of the file.
        bad_frames: treatment of missing, black, doubled and broken frames: "error", "skip" or "interpolate".
        tolerance: largest convergence error of the PSF.
        process: this process of several, from `parallel.join`.
        settings: further settings to keep with the result; a resumed run must have the same.
        track: see `lfjax.progress.track`.

    Raises:
        FileError: `output` exists, or holds a run with other settings.
        LfjaxError: names the argument, its value and the expected one.
    """
    require(warm in WARM, "warm", warm, f"one of {', '.join(WARM)}")
    require(solver in SOLVERS, "solver", solver, f"one of {', '.join(SOLVERS)}")
    require(iterations >= 1, "iterations", iterations, "1 or more")
    for name, value in (("sparsity", sparsity), ("total_variation", total_variation), ("background", background)):
        require(value >= 0, name, value, "zero or more")
    run.check()
    mesh = run.mesh()
    network, scope, grid = _network(model, microscope, grid)
    recording = open_recording(frames, scope, calibration, grid, frame_s=frame_s, bad_frames=bad_frames, track=track)
    scope, grid = recording.microscope, recording.grid
    psf = recording.psf(tolerance, track)
    ready = recording.light_fields(psf, register=register, background=background)
    clear, start = LightField(psf, ready.field, frames=run.batch), None
    op = clear if tissue is None else tissue.before(clear, psf)
    if network is None:
        network = movies.frame_solver(
            lambda problem: SOLVERS[solver][0](problem, sparsity, total_variation), op, jnp.asarray(ready.mean), iterations,
            weights=ready.weights, warm=warm != "none",
        )  # fmt: skip
        start = network.start if warm == "previous" else None
        how: dict[str, Any] = {"solver": solver, "iterations": iterations, "sparsity": sparsity}
        how |= {"total_variation": total_variation, "warm": warm}
    else:
        how = {"model": str(model)}
        require(tissue is None, "tissue", tissue, "none beside a model, which was trained in tissue of its own")
    chosen = {
        **recording.settings(), **how, "tissue": tissue_settings(tissue), "register": register, "background": background,
        "bad_frames": bad_frames, "trusted": float(ready.mask.mean()), "tolerance": tolerance,
        "inputs": fingerprint(frames), **(settings or {}),
    }  # fmt: skip
    path = movies.reconstruct_movie(
        ready.frames, network, output, clear.in_shape, psf.voxel_um, frame_s=recording.frame_s,
        origin_um=(psf.z_um[0], 0.0, 0.0), size=run.chunk, batch=run.batch, start=start, mesh=mesh, process=process,
        settings=chosen, track=track,
    )  # fmt: skip
    shape = (len(ready.frames), *clear.in_shape)
    return MovieVolumes(path, shape, psf.voxel_um, scope, float(ready.mask.mean()), dict(recording.survey.bad))


def _network(model: str | Path | None, microscope: Microscope | None, grid: Grid) -> tuple[Any, Microscope | None, Grid]:
    """The model's network with its microscope and grid; without a model (None, microscope, grid)."""
    if model is None:
        return None, microscope, grid
    from lfjax.training.model_file import find_model  # loads Flax

    network, recipe = find_model(model)
    return network, recipe.microscope, Grid(tuple(recipe.volume.z_um), recipe.volume.voxels_per_lenslet)
