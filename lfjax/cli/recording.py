"""The commands that look at a recording before it is reconstructed: calibrate, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lfjax import io, optics, pipeline, viz
from lfjax.cli.groups import grouped
from lfjax.cli.light_field import PageOption, describe
from lfjax.cli.options import (
    PRESETS,
    CameraOptions,
    DepthsOption,
    FollowOption,
    LensletOptions,
    MicroscopeOption,
    MovieArgument,
    MovieOptions,
    OverwriteOption,
    VoxelsOption,
    input_files,
    parse_depths,
    parse_voxel_um,
    require_output,
)
from lfjax.io.atomic import together
from lfjax.progress import track

MARKS = {"ok": "ok  ", "note": "note", "problem": "FAIL"}


@grouped
def calibrate_camera(
    white: Annotated[Path, typer.Argument(help="Raw white frame: a homogeneous fluorescent slide.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Calibration to write, .toml; its arrays go beside it, .h5.")],
    lenslets: LensletOptions,
    microscope: Annotated[str, typer.Option(help=f"Preset ({', '.join(PRESETS)}) or TOML file.")],
    page: PageOption = None,
    follow_links: FollowOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure the lenslets once, for all recordings of a day; beside it goes NAME.grid.png, to see that the grid fits.

    `rectify`, `reconstruct`, `movie`, `neurons` and `check` take the file as `--calibration`.
    """
    picture, arrays = output.with_suffix(".grid.png"), output.with_suffix(".h5")
    inputs = (white, *lenslets.files(), *input_files(microscope))
    require_output(output, (".toml",), inputs, overwrite=overwrite, beside=[arrays, picture])
    scope, known = optics.load_microscope(microscope), lenslets.numbers()
    frame = io.read_frame(white, page=page, follow_links=follow_links)
    rectifier = optics.Rectifier.calibrate(scope, frame, white=frame, **known)
    with together(arrays, output):
        optics.write_calibration(output, rectifier)
    viz.lenslet_grid(frame, rectifier, path=picture)
    typer.echo(describe(rectifier))
    typer.echo(f"{output}: use it as --calibration; {picture} shows whether the grid fits the lenslets")


@grouped
def check_recording(
    raw: MovieArgument,
    camera: CameraOptions,
    movie: MovieOptions,
    structure: Annotated[Path | None, typer.Option(help="Structural volume (tdTomato).")] = None,
    structure_voxel_um: Annotated[
        str | None, typer.Option(help="Its voxel size Z,Y,X, if the file does not tell.", metavar="Z,Y,X")
    ] = None,
    microscope: MicroscopeOption = None,
    z: DepthsOption = None,
    voxels: VoxelsOption = 4,
    diameter_um: Annotated[float, typer.Option(help="Diameter of a soma.")] = 12.0,
) -> None:
    """Look at a recording before the work: exit code 1 where something would spoil the result."""
    scope, grid = camera.microscope(microscope), pipeline.Grid(parse_depths(z), voxels)
    if scope is not None:
        grid.of(scope)  # refused before any frame is read
    known = camera.read()
    volume = None if structure is None else io.read_volume(structure, follow_links=movie.follow_links)
    stated = parse_voxel_um("--structure-voxel-um", structure_voxel_um)
    found = pipeline.check_recording(
        movie.open(raw), scope, structure=None if volume is None else volume.array,
        structure_um=stated or (None if volume is None else volume.voxel_um), calibration=known,
        grid=grid, diameter_um=diameter_um, frame_s=movie.frame_s, track=track,
    )  # fmt: skip
    for finding in found:
        typer.echo(f"{MARKS[finding.level]}  {finding.name:16s} {finding.text}")
    problems = sum(finding.level == "problem" for finding in found)
    typer.echo("ready" if not problems else f"{problems} of these would spoil the result")
    if problems:
        raise typer.Exit(1)
