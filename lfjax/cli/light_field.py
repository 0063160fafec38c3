"""The commands for one light-field frame: psf, rectify, reconstruct."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lfjax import io, optics, pipeline, viz
from lfjax.cli.figures import beside, write_figures
from lfjax.cli.groups import grouped
from lfjax.cli.options import (
    CameraOptions,
    DepthsOption,
    FollowOption,
    MicroscopeOption,
    OverwriteOption,
    SparsityOption,
    TissueOptions,
    ToleranceOption,
    VariationOption,
    VoxelsOption,
    input_files,
    parse_depths,
    require_output,
)
from lfjax.pipeline import SOLVERS
from lfjax.progress import track

if TYPE_CHECKING:
    from lfjax.optics import Rectifier

RawArgument = Annotated[Path, typer.Argument(help="Raw light-field frame: TIFF, PNG, NPY or HDF5.")]
PageOption = Annotated[int | None, typer.Option(help="Page of a stack to use, from 0.")]
VOLUMES = (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".h5", ".hdf5")
FRAMES = (".tif", ".tiff", ".h5", ".hdf5")


def write_psf(
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to write.")],
    microscope: MicroscopeOption = "60x1.2w",
    z: DepthsOption = None,
    voxels: VoxelsOption = 4,
    tolerance: ToleranceOption = 0.02,
    overwrite: OverwriteOption = False,
) -> None:
    """Compute the wave-optics PSF of a microscope and write it with its parameters."""
    require_output(output, (".h5", ".hdf5"), input_files(microscope), overwrite=overwrite)
    scope = optics.load_microscope(microscope or "60x1.2w")
    grid = pipeline.Grid(parse_depths(z), voxels).of(scope)
    result = optics.cached_psf(scope, grid.depths, voxels, tolerance=tolerance, track=track)
    optics.write_psf(output, result)
    error = result.convergence_error
    typer.echo(
        f"{output}: {len(result.z_um)} depths, {voxels} x {voxels} voxels per lenslet, {result.lenslets} x "
        f"{result.lenslets} lenslets, oversampling {result.oversampling}, convergence error {error:.2%}"
    )


@grouped
def rectify_frame(
    raw: RawArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="TIFF or HDF5 file for the rectified frame.")],
    camera: CameraOptions,
    microscope: MicroscopeOption = None,
    page: PageOption = None,
    follow_links: FollowOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Find the lenslets and resample the frame to N whole pixels per lenslet, without its dark level; NAME.json tells how."""
    figures = Path(f"{beside(output, FRAMES)}json")
    require_output(output, FRAMES, (raw, *camera.files(), *input_files(microscope)), overwrite=overwrite, beside=[figures])
    scope, known = camera.microscope(microscope), camera.read()
    frame = io.read_frame(raw, page=page, follow_links=follow_links)
    rectifier = known.prepare(scope, frame)
    io.write_frame(output, rectifier(frame))
    write_figures(figures, raw, camera, rectifier, {})
    typer.echo(describe(rectifier))


@grouped
def reconstruct_frame(
    raw: RawArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Volume to write: .ome.tif, .tif or .h5.")],
    camera: CameraOptions,
    tissue: TissueOptions,
    microscope: MicroscopeOption = None,
    page: PageOption = None,
    follow_links: FollowOption = False,
    solver: Annotated[str, typer.Option(help=f"One of {', '.join(SOLVERS)}.")] = "richardson_lucy",
    iterations: Annotated[int | None, typer.Option(help="The solver's own default if not given.")] = None,
    z: DepthsOption = None,
    voxels: VoxelsOption = 4,
    sparsity: SparsityOption = 1e-3,
    total_variation: VariationOption = 1e-3,
    anti_alias: Annotated[
        bool | None,
        typer.Option(
            "--anti-alias/--no-anti-alias", help="Smooth each plane to the sampling at its depth. [default: if square]"
        ),
    ] = None,
    withhold: Annotated[float, typer.Option(help="Fraction of the pixels kept from the fit, as a test of it.")] = 0.0,
    tolerance: ToleranceOption = 0.02,
    overwrite: OverwriteOption = False,
) -> None:
    """Reconstruct a volume from a raw frame; beside it go NAME.png (projections), NAME.fit.png and NAME.json (figures)."""
    name = beside(output, VOLUMES)
    pictures = [Path(f"{name}{kind}") for kind in ("png", "fit.png", "json")]
    require_output(output, VOLUMES, (raw, *camera.files(), *input_files(microscope)), overwrite=overwrite, beside=pictures)
    above, depths = tissue.read(), parse_depths(z)
    scope, known = camera.microscope(microscope), camera.read()
    if scope is not None:
        pipeline.Grid(depths, voxels).of(scope)  # refused before the frame is read
    result = pipeline.reconstruct(
        io.read_frame(raw, page=page, follow_links=follow_links), scope, calibration=known,
        grid=pipeline.Grid(depths, voxels), tissue=above,
        solver=solver, iterations=iterations, sparsity=sparsity, total_variation=total_variation, anti_alias=anti_alias,
        withhold=withhold, tolerance=tolerance, track=track,
    )  # fmt: skip
    io.write_volume(output, result.volume, result.voxel_um)
    viz.projections(result.volume, result.voxel_um, z_um=result.psf.z_um, path=f"{name}png")
    viz.resynthesis(result.light_field, result.image, result.mask, path=f"{name}fit.png")
    figures = {
        "z_um": result.psf.z_um,
        "voxel_um": result.voxel_um,
        "trusted": result.trusted,
        "saturated": result.saturated,
        "solver": solver,
        "iterations": len(result.objective) - 1,
        "correlation": result.correlation,
        "withheld_correlation": result.withheld_correlation,
        "psf_oversampling": result.psf.oversampling,
        "psf_convergence_error": result.psf.convergence_error,
    }
    write_figures(f"{name}json", raw, camera, result.rectifier, figures)
    typer.echo(describe(result.rectifier, result.trusted))
    clipped = f"; saturated, hence not trusted: {result.saturated:.2g} of the raw pixels" if result.saturated else ""
    withheld = "" if result.withheld_correlation is None else f", on withheld pixels {result.withheld_correlation:.4f}"
    fit = "nothing of the frame" if result.correlation is None else f"the frame with correlation {result.correlation:.4f}"
    typer.echo(f"{output}: the volume explains {fit}{withheld}{clipped}")


def describe(rectifier: Rectifier, trusted: float | None = None) -> str:
    """The lenslets of a recording in one line; `trusted`: share of the pixels that were used, without saturated ones."""
    share = rectifier.trusted if trusted is None else trusted
    lattice = rectifier.lattice
    high, wide = lattice.cell_px
    pitch = f"{wide:.3f} px" if lattice.pitch_y_px is None else f"{high:.3f} x {wide:.3f} px (y x)"
    return (
        f"lenslets: {lattice.kind}, pitch {pitch}, rotation {math.degrees(lattice.rotation_rad):+.3f} degrees, field "
        f"{rectifier.field[0]} x {rectifier.field[1]}, {share:.0%} of the pixels trusted"
    )
