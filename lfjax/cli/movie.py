"""The command `lfjax movie`: reconstructs every frame of a movie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lfjax import io, optics, pipeline
from lfjax.cli.options import (
    DEPTHS,
    WARM,
    DarkOption,
    DepthsOption,
    DevicesOption,
    MovieArgument,
    MovieWhiteOption,
    RateOption,
    RectifiedOption,
    RegisterOption,
    SparsityOption,
    ToleranceOption,
    VariationOption,
    VoxelsOption,
    parse_depths,
)
from lfjax.errors import require
from lfjax.pipeline import SOLVERS
from lfjax.progress import track


def reconstruct_movie(
    raw: MovieArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="OME-Zarr folder to write, .zarr.")],
    microscope: Annotated[str, typer.Option(help="Preset or TOML file; a model brings its own.")] = "60x1.2w",
    white: MovieWhiteOption = None,
    dark: DarkOption = None,
    rectified: RectifiedOption = False,
    register: RegisterOption = False,
    background: Annotated[int, typer.Option(help="Rank of the slow background that is subtracted; 0 subtracts none.")] = 0,
    solver: Annotated[str, typer.Option(help=f"One of {', '.join(SOLVERS)}.")] = "ista",
    iterations: Annotated[int, typer.Option(help="Iterations per frame.")] = 20,
    model: Annotated[str | None, typer.Option(help="Model file, or `small`, in place of a solver.")] = None,
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    sparsity: SparsityOption = 1e-3,
    total_variation: VariationOption = 1e-3,
    warm: Annotated[str, typer.Option(help=f"Start of each frame: {', '.join(WARM)}.")] = "background",
    rate_hz: RateOption = 100.0,
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
    require(output.suffix == ".zarr", "--output", str(output), "a name that ends with .zarr")
    for name, value in (("--rate-hz", rate_hz), ("--iterations", iterations), ("--chunk", chunk), ("--batch", batch)):
        require(value > 0, name, value, "a positive number")
    for name, value in (("--sparsity", sparsity), ("--total-variation", total_variation), ("--background", background)):
        require(value >= 0, name, value, "zero or more")
    whites, darks = (None if path is None else io.read_frame(path) for path in (white, dark))
    made = pipeline.reconstruct_movie(
        io.open_movie(raw), output, None if model else optics.load_microscope(microscope),
        calibration=pipeline.Calibration(whites, darks, rectified), grid=pipeline.Grid(parse_depths(z), voxels),
        run=pipeline.Run(chunk, batch, devices), model=model, solver=solver, iterations=iterations, sparsity=sparsity,
        total_variation=total_variation, warm=warm, register=register, background=background, frame_s=1 / rate_hz,
        tolerance=tolerance, process=me, settings={"raw": raw.name}, track=track,
    )  # fmt: skip
    if me.number == 0:
        size = " x ".join(f"{v:.3g}" for v in made.voxel_um)
        frames, *volume = made.shape
        typer.echo(
            f"{made.path}: {frames} volumes of {tuple(volume)}, voxels of {size} um by {made.microscope.name}; opens in napari"
        )
