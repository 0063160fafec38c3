"""The command that makes neurons of a movie."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import typer

from lfjax import activity, io, optics, parallel, viz
from lfjax.cli.options import DEPTHS, DepthsOption, VoxelsOption, parse_depths
from lfjax.errors import FileError, require
from lfjax.movies import prepare as recordings
from lfjax.optics import LightField, load_microscope
from lfjax.progress import track


def neurons(
    raw: Annotated[Path, typer.Argument(help="Frames (t, y, x): HDF5 with `frames`, a TIFF stack, or OME-Zarr.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to write, .h5.")],
    structure: Annotated[
        Path | None, typer.Option(help="Structural volume (tdTomato), same grid; if not given, neurons are found as they fire.")
    ] = None,
    microscope: Annotated[str, typer.Option(help="Preset or TOML file.")] = "60x1.2w",
    white: Annotated[Path | None, typer.Option(help="Raw white frame; the mean of the movie if not given.")] = None,
    dark: Annotated[Path | None, typer.Option(help="Raw dark frame.")] = None,
    rectified: Annotated[bool, typer.Option(help="Frames are rectified already, dark subtracted.")] = False,
    register: Annotated[bool, typer.Option(help="Move frames onto the first ones: rigid, across the axis.")] = False,
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    rate_hz: Annotated[float, typer.Option(help="Frames a second of the recording.")] = 100.0,
    diameter_um: Annotated[float, typer.Option(help="Of a soma.")] = 12.0,
    chunk: Annotated[int, typer.Option(help="Frames a chunk: what is in memory.")] = 256,
    devices: Annotated[int, typer.Option(help="Over which the frames of a chunk are spread.")] = 1,
    report: Annotated[Path | None, typer.Option(help="One page to look at: .html or .pdf.")] = None,
    nwb: Annotated[Path | None, typer.Option(help="NWB file for other tools; needs --session-start.")] = None,
    session_start: Annotated[
        str | None, typer.Option(help="When it was recorded, with time zone: 2026-03-04T10:30:00+00:00.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Largest relative convergence error of the PSF.")] = 0.02,
) -> None:
    """Neurons of a movie without volumes in between: places, footprints, time courses, dF/F, spikes.

    Time courses are kept in a folder beside the result while the run goes on; started again, it goes on from there.
    """
    require(rate_hz > 0, "--rate-hz", rate_hz, "a positive number")
    for option, path, suffixes in (
        ("--output", output, (".h5", ".hdf5")), ("--report", report, (".html", ".pdf")), ("--nwb", nwb, (".nwb",))
    ):  # fmt: skip
        require(path is None or path.suffix in suffixes, option, str(path), f"a name that ends with {' or '.join(suffixes)}")
    require(session_start is None or nwb is not None, "--session-start", session_start, "nothing without --nwb")
    mesh = parallel.mesh(devices) if devices != 1 else None
    begun = _instant(session_start) if nwb is not None else None
    frames = io.open_movie(raw)
    scope = load_microscope(microscope)
    depths = parse_depths(z)
    psf = optics.cached_psf(scope, depths, voxels, tolerance=tolerance, track=track)
    whites, darks = (None if path is None else io.read_frame(path) for path in (white, dark))
    lit = recordings.light_fields(
        frames, scope, psf, white=whites, dark=darks, rectified=rectified, register=register, frame_s=1 / rate_hz
    )
    op = LightField(psf, lit.field)
    extent = min(n * v for n, v in zip(op.in_shape[1:], psf.voxel_um[1:], strict=True))
    require(0 < diameter_um < extent, "--diameter-um", diameter_um, f"a size above 0 and below the field's {extent:.3g} um")
    volume = None
    if structure is None:
        centres = activity.discover(lit.frames, 1 / rate_hz, op, psf.voxel_um, diameter_um=diameter_um)
        footprints = activity.soma_footprints(centres, op.in_shape, psf.voxel_um, diameter_um=diameter_um)
        masks = footprints > 0.5 * footprints.max((1, 2, 3), keepdims=True)
    else:
        volume = io.read_volume(structure).array
        if volume.shape != op.in_shape:
            raise FileError(f"{structure}: volume of {volume.shape}; expected {op.in_shape}, the grid of the reconstruction")
        somata = activity.segment_somata(volume, psf.voxel_um, diameter_um=diameter_um)
        centres, masks = somata.centres_um, somata.masks()
        footprints = masks * np.maximum(volume, 0)
    require(len(centres) > 0, "neurons", "none were found", "a structural volume, or a movie, in which neurons show")
    rings = activity.neuropil_rings(centres, masks, psf.voxel_um)
    found = activity.extract(
        lit.frames, op, centres, footprints.astype(np.float32), output.with_suffix(".courses.zarr"), frame_s=1 / rate_hz,
        voxel_um=psf.voxel_um, mean=jnp.asarray(lit.mean), neuropil=rings, size=chunk,
        mesh=mesh, track=track,
    )  # fmt: skip
    activity.write_neurons(output, found)
    if report is not None:
        viz.write_report(report, found, volume, title=raw.name)
    if nwb is not None and begun is not None:
        activity.write_nwb(nwb, found, session_start=begun, description=f"light-field recording {raw.name}")
    peak = np.median(activity.peak_dff(found.dff))
    typer.echo(f"{output}: {len(found)} neurons, {found.dff.shape[1]} frames, peak dF/F {peak:.2f} (median), "
               f"{sum(map(len, found.spikes))} spikes")  # fmt: skip


def _instant(text: str | None) -> datetime:
    try:
        instant = datetime.fromisoformat(text or "")
    except ValueError:
        instant = None
    require(instant is not None and instant.tzinfo is not None, "--session-start", text, "a time with its zone, in ISO 8601")
    assert instant is not None
    return instant
