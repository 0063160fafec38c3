"""The command `lfjax movie`: reconstructs every frame of a movie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lfjax import pipeline
from lfjax.cli.groups import grouped
from lfjax.cli.options import (
    WARM,
    CameraOptions,
    DepthsOption,
    DevicesOption,
    MicroscopeOption,
    MovieArgument,
    MovieOptions,
    RegisterOption,
    SparsityOption,
    TissueOptions,
    ToleranceOption,
    VariationOption,
    VoxelsOption,
    parse_depths,
    require_output,
)
from lfjax.cli.runs import claim
from lfjax.errors import require
from lfjax.pipeline import SOLVERS
from lfjax.progress import track


@grouped
def reconstruct_movie(
    raw: MovieArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="OME-Zarr folder to write, .zarr.")],
    camera: CameraOptions,
    movie: MovieOptions,
    tissue: TissueOptions,
    microscope: MicroscopeOption = None,
    register: RegisterOption = False,
    slow_background: Annotated[int, typer.Option(help="Rank of the slow background that is subtracted; 0 subtracts none.")] = 0,
    solver: Annotated[str, typer.Option(help=f"One of {', '.join(SOLVERS)}.")] = "ista",
    iterations: Annotated[int, typer.Option(help="Iterations per frame.")] = 20,
    model: Annotated[str | None, typer.Option(help="Model file, or `small`, in place of a solver.")] = None,
    z: DepthsOption = None,
    voxels: VoxelsOption = 4,
    sparsity: SparsityOption = 1e-3,
    total_variation: VariationOption = 1e-3,
    warm: Annotated[str, typer.Option(help=f"Start of each frame: {', '.join(WARM)}.")] = "background",
    chunk: Annotated[int, typer.Option(help="Frames per chunk: sets the memory, and the work that a kill costs.")] = 16,
    batch: Annotated[int, typer.Option(help="Frames at once on each device.")] = 4,
    devices: DevicesOption = 1,
    address: Annotated[
        str | None, typer.Option(help="host:port of process 0, where there are several; SLURM needs none.")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="Number of processes, with --address.")] = None,
    process: Annotated[int | None, typer.Option(help="Number of this process, with --address.")] = None,
    tolerance: ToleranceOption = 0.02,
) -> None:
    """Reconstruct every frame of a movie, chunk by chunk. Started again after an interruption, the command resumes."""
    from lfjax import parallel  # loads JAX

    me = parallel.join(address, processes, process)
    require_output(output, (".zarr",), overwrite=me.number > 0)
    claim(output, {output.with_name(f".{output.name}.partial"): "finished chunks"}, me.number)
    scope = None if model and microscope is None else camera.microscope(microscope)
    require(not (model and scope), "--microscope", microscope, "nothing beside --model, which brings its own microscope")
    made = pipeline.reconstruct_movie(
        movie.open(raw), output, scope, calibration=camera.read(), grid=pipeline.Grid(parse_depths(z), voxels),
        run=pipeline.Run(chunk, batch, devices), model=model, solver=solver, iterations=iterations, sparsity=sparsity,
        total_variation=total_variation, warm=warm, register=register, background=slow_background, frame_s=movie.frame_s,
        bad_frames=movie.bad_frames, tissue=tissue.read(), tolerance=tolerance, process=me, track=track,
    )  # fmt: skip
    if me.number == 0:
        size = " x ".join(f"{v:.3g}" for v in made.voxel_um)
        frames, *volume = made.shape
        typer.echo(
            f"{made.path}: {frames} volumes of {tuple(volume)}, voxels of {size} um by {made.microscope.name}, "
            f"{made.trusted:.0%} of the pixels trusted, {len(made.bad)} bad frames; opens in napari"
        )
