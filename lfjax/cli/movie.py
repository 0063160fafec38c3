"""The command that reconstructs movies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import typer

from lfjax import io, movies, optics, parallel, pipeline
from lfjax.cli.options import DEPTHS, DepthsOption, VoxelsOption, parse_depths
from lfjax.errors import require
from lfjax.movies import prepare as recordings
from lfjax.movies.reconstruct import WARM
from lfjax.optics import LightField, load_microscope
from lfjax.progress import track
from lfjax.training.model_file import find_model


def movie(
    raw: Annotated[Path, typer.Argument(help="Frames (t, y, x): HDF5 with `frames`, a TIFF stack, or OME-Zarr.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="OME-Zarr folder to write, .zarr.")],
    microscope: Annotated[str, typer.Option(help="Preset or TOML file; a model brings its own.")] = "60x1.2w",
    white: Annotated[Path | None, typer.Option(help="Raw white frame; the mean of the movie if not given.")] = None,
    dark: Annotated[Path | None, typer.Option(help="Raw dark frame.")] = None,
    rectified: Annotated[bool, typer.Option(help="Frames are rectified already, dark subtracted.")] = False,
    register: Annotated[bool, typer.Option(help="Move frames onto the first ones: rigid, across the axis.")] = False,
    background: Annotated[int, typer.Option(help="Rank of the slow background to take away; 0 takes none.")] = 0,
    solver: Annotated[str, typer.Option(help=f"One of {', '.join(pipeline.SOLVERS)}.")] = "ista",
    iterations: Annotated[int, typer.Option(help="For each frame.")] = 20,
    model: Annotated[str | None, typer.Option(help="Model file, or `small`, in place of a solver.")] = None,
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    sparsity: Annotated[float, typer.Option(help="l1 weight, fraction of the one that empties the volume.")] = 1e-3,
    total_variation: Annotated[float, typer.Option(help="TV weight of admm, same unit.")] = 1e-3,
    warm: Annotated[str, typer.Option(help=f"Where frames start: {', '.join(WARM)}.")] = "background",
    rate_hz: Annotated[float, typer.Option(help="Frames a second of the recording.")] = 100.0,
    chunk: Annotated[int, typer.Option(help="Frames a chunk: what is in memory, and what a kill can cost.")] = 16,
    batch: Annotated[int, typer.Option(help="Frames at once on each device.")] = 4,
    devices: Annotated[int, typer.Option(help="Over which the frames of a chunk are spread.")] = 1,
    address: Annotated[str | None, typer.Option(help="host:port of process 0, of several; under SLURM not needed.")] = None,
    processes: Annotated[int | None, typer.Option(help="How many, with --address.")] = None,
    process: Annotated[int | None, typer.Option(help="Number of this one, with --address.")] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative convergence error of the PSF.")] = 0.02,
) -> None:
    """Reconstruct every frame of a movie, chunk by chunk; started again after any interruption, it goes on where it was."""
    me = parallel.join(address, processes, process)
    require(warm in WARM, "--warm", warm, f"one of {', '.join(WARM)}")
    require(solver in pipeline.SOLVERS, "--solver", solver, f"one of {', '.join(pipeline.SOLVERS)}")
    require(output.suffix == ".zarr", "--output", str(output), "a name that ends with .zarr")
    for name, value in (("--rate-hz", rate_hz), ("--iterations", iterations), ("--chunk", chunk), ("--batch", batch)):
        require(value > 0, name, value, "a positive number")
    for name, value in (("--sparsity", sparsity), ("--total-variation", total_variation), ("--background", background)):
        require(value >= 0, name, value, "zero or more")
    mesh = parallel.mesh(devices) if devices != 1 else None
    trained = None if model is None else find_model(model)
    scope = load_microscope(microscope) if trained is None else trained.recipe.microscope
    depths = parse_depths(z) if trained is None else tuple(trained.recipe.volume.z_um)
    across = voxels if trained is None else trained.recipe.volume.voxels_per_lenslet
    frames = io.open_movie(raw)
    psf = optics.cached_psf(scope, depths, across, tolerance=tolerance, track=track)
    whites, darks = (None if path is None else io.read_frame(path) for path in (white, dark))
    lit = recordings.light_fields(
        frames, scope, psf, white=whites, dark=darks, rectified=rectified, register=register, background=background,
        frame_s=1 / rate_hz,
    )  # fmt: skip
    op, start = LightField(psf, lit.field, frames=batch), None
    if trained is not None:
        reconstruct: Any = trained.network
    else:
        reconstruct = movies.frame_solver(
            lambda problem: pipeline.SOLVERS[solver][0](problem, sparsity, total_variation), op, jnp.asarray(lit.mean),
            iterations, weights=None if lit.mask is None else lit.mask.astype(jnp.float32), warm=warm != "none",
        )  # fmt: skip
        start = reconstruct.start if warm == "previous" else None
    chosen: dict[str, Any] = {"model": model} if trained is not None else {
        "solver": solver, "iterations": iterations, "sparsity": sparsity, "total_variation": total_variation, "warm": warm
    }  # fmt: skip
    chosen |= {"register": register, "background": background}
    chosen |= {"rectified": rectified, "tolerance": tolerance, "inputs": recordings.fingerprint(frames, whites, darks)}
    settings = {"raw": raw.name, "microscope": scope.to_dict(), "z_um": depths, "voxels": across} | chosen
    path = movies.reconstruct_movie(
        lit.frames, reconstruct, output, op.in_shape, psf.voxel_um, frame_s=1 / rate_hz,
        origin_um=(depths[0], 0.0, 0.0), size=chunk, batch=batch, start=start,
        mesh=mesh, process=me, settings=settings, track=track,
    )  # fmt: skip
    if me.number == 0:
        size = " x ".join(f"{v:.3g}" for v in psf.voxel_um)
        typer.echo(f"{path}: {len(frames)} volumes of {op.in_shape}, voxels of {size} um by {scope.name}; opens in napari")
