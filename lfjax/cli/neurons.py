"""The command `lfjax neurons`: neurons of a movie."""

from __future__ import annotations

import statistics
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from lfjax import activity, io, optics, pipeline, viz
from lfjax.cli.options import (
    DEPTHS,
    DarkOption,
    DepthsOption,
    DevicesOption,
    MicroscopeOption,
    MovieArgument,
    MovieWhiteOption,
    RateOption,
    RectifiedOption,
    RegisterOption,
    ToleranceOption,
    VoxelsOption,
    parse_depths,
)
from lfjax.errors import require
from lfjax.progress import track

SUFFIXES = {"--output": (".h5", ".hdf5"), "--report": (".html", ".pdf"), "--nwb": (".nwb",)}


def extract_neurons(
    raw: MovieArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to write, .h5.")],
    structure: Annotated[
        Path | None, typer.Option(help="Structural volume (tdTomato), same grid; if not given, neurons are found as they fire.")
    ] = None,
    microscope: MicroscopeOption = "60x1.2w",
    white: MovieWhiteOption = None,
    dark: DarkOption = None,
    rectified: RectifiedOption = False,
    register: RegisterOption = False,
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    rate_hz: RateOption = 100.0,
    diameter_um: Annotated[float, typer.Option(help="Diameter of a soma.")] = 12.0,
    chunk: Annotated[int, typer.Option(help="Frames per chunk: sets the memory.")] = 256,
    devices: DevicesOption = 1,
    report: Annotated[Path | None, typer.Option(help="One page to look at: .html or .pdf.")] = None,
    nwb: Annotated[Path | None, typer.Option(help="NWB file for other tools; needs --session-start.")] = None,
    session_start: Annotated[
        str | None, typer.Option(help="Start of the recording, with time zone: 2026-03-04T10:30:00+00:00.")
    ] = None,
    tolerance: ToleranceOption = 0.02,
) -> None:
    """Neurons of a movie without volumes in between: places, footprints, time courses, dF/F, spikes.

    The time courses are kept in a folder beside the result during the run. Started again after an interruption, the command
    resumes.
    """
    require(rate_hz > 0, "--rate-hz", rate_hz, "a positive number")
    for (option, suffixes), path in zip(SUFFIXES.items(), (output, report, nwb), strict=True):
        require(path is None or path.suffix in suffixes, option, str(path), f"a name that ends with {' or '.join(suffixes)}")
    require(session_start is None or nwb is not None, "--session-start", session_start, "nothing without --nwb")
    start = None if nwb is None else _instant(session_start)
    whites, darks = (None if path is None else io.read_frame(path) for path in (white, dark))
    volume = None if structure is None else io.read_volume(structure).array
    found = pipeline.extract_neurons(
        io.open_movie(raw), optics.load_microscope(microscope), output.with_suffix(".courses.zarr"), structure=volume,
        calibration=pipeline.Calibration(whites, darks, rectified), grid=pipeline.Grid(parse_depths(z), voxels),
        run=pipeline.Run(chunk=chunk, devices=devices), register=register, diameter_um=diameter_um, frame_s=1 / rate_hz,
        tolerance=tolerance, track=track,
    )  # fmt: skip
    activity.write_neurons(output, found)
    if report is not None:
        viz.write_report(report, found, volume, title=raw.name)
    if nwb is not None and start is not None:
        activity.write_nwb(nwb, found, session_start=start, description=f"light-field recording {raw.name}")
    peak, spikes = statistics.median(activity.peak_dff(found.dff)), sum(map(len, found.spikes))
    typer.echo(f"{output}: {len(found)} neurons, {found.dff.shape[1]} frames, peak dF/F {peak:.2f} (median), {spikes} spikes")


def _instant(text: str | None) -> datetime:
    try:
        instant = datetime.fromisoformat(text or "")
    except ValueError:
        instant = None
    require(instant is not None and instant.tzinfo is not None, "--session-start", text, "a time with its zone, in ISO 8601")
    assert instant is not None
    return instant
