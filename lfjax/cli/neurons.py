"""The command `lfjax neurons`: neurons of a movie."""

from __future__ import annotations

import math
import statistics
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from lfjax import activity, io, pipeline, simulate, viz
from lfjax.cli.figures import beside, write_figures
from lfjax.cli.groups import grouped
from lfjax.cli.light_field import describe
from lfjax.cli.options import (
    INDICATORS,
    CameraOptions,
    DepthsOption,
    DevicesOption,
    MicroscopeOption,
    MovieArgument,
    MovieOptions,
    RegisterOption,
    TissueOptions,
    ToleranceOption,
    VoxelsOption,
    input_files,
    parse_depths,
    parse_voxel_um,
    require_folder,
    require_no_input,
    require_output,
)
from lfjax.cli.runs import claim
from lfjax.errors import require
from lfjax.progress import track

FILES = (".h5", ".hdf5")
FIT = 0.7  # correlation of the mean frame with its model below which a warning is given
REPORTS = {"--report": (".html", ".pdf"), "--nwb": (".nwb",)}


@grouped
def extract_neurons(
    raw: MovieArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to write, .h5.")],
    camera: CameraOptions,
    movie: MovieOptions,
    tissue: TissueOptions,
    structure: Annotated[
        Path | None, typer.Option(help="Structural volume (tdTomato); if not given, neurons are found as they fire.")
    ] = None,
    structure_voxel_um: Annotated[
        str | None, typer.Option(help="Its voxel size Z,Y,X, if the file does not tell.", metavar="Z,Y,X")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Your own somata: a volume of labels (TIFF, HDF5, NPY), in place of --structure.")
    ] = None,
    masks_voxel_um: Annotated[
        str | None, typer.Option(help="Their voxel size Z,Y,X, if the file does not tell.", metavar="Z,Y,X")
    ] = None,
    microscope: MicroscopeOption = None,
    register: RegisterOption = False,
    z: DepthsOption = None,
    voxels: VoxelsOption = 4,
    diameter_um: Annotated[float, typer.Option(help="Diameter of a soma.")] = 12.0,
    indicator: Annotated[str, typer.Option(help=f"Calcium indicator: {', '.join(INDICATORS)}.")] = "jgcamp8f",
    rise_ms: Annotated[float | None, typer.Option(help="Half-rise time, if not that of the indicator.")] = None,
    decay_ms: Annotated[float | None, typer.Option(help="Half-decay time, if not that of the indicator.")] = None,
    false_discovery: Annotated[
        float, typer.Option(help="Largest expected fraction of false neurons, without --structure.")
    ] = 0.05,
    chunk: Annotated[int, typer.Option(help="Frames per chunk: sets the memory.")] = 256,
    devices: DevicesOption = 1,
    report: Annotated[Path | None, typer.Option(help="One page to look at: .html or .pdf.")] = None,
    nwb: Annotated[Path | None, typer.Option(help="NWB file for other tools; needs --session-start.")] = None,
    session_start: Annotated[
        str | None, typer.Option(help="Start of the recording, with time zone: 2026-03-04T10:30:00+00:00.")
    ] = None,
    session: Annotated[Path | None, typer.Option(help="TOML file about subject and session, for --nwb.")] = None,
    suite2p: Annotated[Path | None, typer.Option(help="Folder to write for suite2p's window.")] = None,
    tolerance: ToleranceOption = 0.02,
) -> None:
    """Neurons of a movie without volumes in between: places, footprints, time courses, dF/F, spikes; NAME.json tells how.

    The time courses are kept in a folder beside the result during the run. Started again after an interruption, the command
    resumes.
    """
    figures_file = Path(f"{beside(output, FILES)}json")
    inputs = (*camera.files(), *input_files(raw, microscope, structure, masks, session))
    require_output(output, FILES, inputs, beside=[figures_file])
    for (option, suffixes), path in zip(REPORTS.items(), (report, nwb), strict=True):
        if path is not None:
            require_output(path, suffixes, inputs, option=option)
    for option, value in (("--session-start", session_start), ("--session", session)):
        require(value is None or nwb is not None, option, str(value), "nothing without --nwb")
    if suite2p is not None:
        require(not suite2p.exists(), "--suite2p", str(suite2p), "a new folder: it exists already")
        require_folder(suite2p, "--suite2p")
    courses = pipeline.neurons.courses_of(output)
    partial = courses.with_name(f".{courses.name}.partial")
    claim(output, {partial: "time courses of finished chunks", courses: "the time courses"})
    about = {} if session is None else activity.read_session(session)
    if nwb is not None and (session_start is not None or "session_start" not in about):
        about["session_start"] = _instant(session_start)
    sensor = simulate.find_indicator(indicator, rise_ms=rise_ms, decay_ms=decay_ms)
    above, grid = tissue.read(), pipeline.Grid(parse_depths(z), voxels)
    scope = camera.microscope(microscope)
    if scope is not None:
        grid.of(scope)  # refused before any frame is read
    known = camera.read()
    volume = None if structure is None else io.read_volume(structure, follow_links=movie.follow_links)
    own = None if masks is None else activity.read_masks(masks)
    stated = parse_voxel_um("--structure-voxel-um", structure_voxel_um)
    apart = parse_voxel_um("--masks-voxel-um", masks_voxel_um)
    frames = movie.open(raw)
    require_no_input([figures_file, *(path for path in (report, nwb) if path is not None)], frames.files)
    made = pipeline.extract_neurons(
        frames, output, scope, structure=None if volume is None else volume.array,
        structure_um=stated or (None if volume is None else volume.voxel_um), masks=None if own is None else own.array,
        masks_um=apart or (None if own is None else own.voxel_um), calibration=known,
        grid=grid, run=pipeline.Run(chunk=chunk, devices=devices), register=register,
        diameter_um=diameter_um, indicator=sensor, false_discovery=false_discovery, frame_s=movie.frame_s,
        bad_frames=movie.bad_frames, tissue=above, tolerance=tolerance, track=track,
    )  # fmt: skip
    found, bad = made.neurons, made.recording.survey.bad
    figures = {
        "z_um": made.recording.grid.depths, "voxel_um": found.voxel_um, "trusted": made.trusted,
        "saturated": made.recording.survey.saturated, "correlation": made.correlation, "frames": found.dff.shape[1],
        "frame_s": found.frame_s, "bad_frames": {str(number): reason for number, reason in bad.items()},
        "lost_frames": made.recording.survey.dropped, "neurons": len(found),
        "without_baseline": int((~found.valid).sum()),
        "false_discovery": made.false_discovery if math.isfinite(made.false_discovery) else None,
    }  # fmt: skip
    write_figures(figures_file, raw, camera, made.recording.rectifier, figures)
    if report is not None:
        viz.write_report(report, found, made.structure, title=Path(raw).name)
    if nwb is not None:
        told = {"description": f"light-field recording {Path(raw).name}", "indicator": indicator}
        activity.write_nwb(nwb, found, **told | about)
    if suite2p is not None:
        activity.write_suite2p(suite2p, found, structure=made.structure, decay_s=sensor.time_constants_s[1])
    typer.echo(describe(made.recording.rectifier, made.trusted))
    if made.correlation < FIT:
        typer.echo(
            f"warning: neurons and neuropil explain the mean frame with a correlation of {made.correlation:.2f} only; is the "
            "structure of this tissue, in place and not mirrored, and are depths and microscope right?",
            err=True,
        )
    peak, spikes = statistics.median(activity.peak_dff(found.dff)), sum(map(len, found.spikes))
    dark = int((~found.valid).sum())
    notes = [f"{dark} without a baseline above the noise, whose dF/F is 0"] if dark else []
    if math.isfinite(made.false_discovery):
        notes.append(f"about {made.false_discovery:.1%} of them false")
    if made.recording.survey.saturated:
        notes.append(f"{made.recording.survey.saturated:.2g} of the values saturated")
    notes += [f"{len(bad)} bad frames ({movie.bad_frames})"] if bad else []
    typer.echo(
        f"{output}: {len(found)} neurons, {found.dff.shape[1]} frames, fit of the mean frame {made.correlation:.3f}, peak dF/F "
        f"{peak:.2f} (median), {spikes} spikes" + "".join(f", {note}" for note in notes)
    )


def _instant(text: str | None) -> datetime:
    try:
        instant = datetime.fromisoformat(text or "")
    except ValueError:
        instant = None
    require(
        instant is not None and instant.tzinfo is not None,
        "--session-start",
        text,
        "a time with its zone, in ISO 8601, or `start` in --session",
    )
    assert instant is not None
    return instant
