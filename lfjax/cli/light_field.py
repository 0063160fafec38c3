"""The commands for one light-field frame: psf, simulate, rectify, reconstruct."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lfjax import io, optics, pipeline, simulate, viz
from lfjax.cli.options import (
    DEPTHS,
    SAMPLES,
    DarkOption,
    DepthsOption,
    MicroscopeOption,
    SparsityOption,
    ToleranceOption,
    VariationOption,
    VoxelsOption,
    WhiteOption,
    parse_depths,
)
from lfjax.errors import require
from lfjax.pipeline import SOLVERS
from lfjax.progress import track

if TYPE_CHECKING:
    from lfjax.optics import Rectifier

RawArgument = Annotated[Path, typer.Argument(help="Raw light-field frame, TIFF or HDF5.")]
SUFFIXES = (".ome.tif", ".tif", ".tiff", ".h5", ".hdf5")


def write_psf(
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to write.")],
    microscope: MicroscopeOption = "60x1.2w",
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    tolerance: ToleranceOption = 0.02,
) -> None:
    """Compute the wave-optics PSF of a microscope and write it with its parameters."""
    scope = optics.load_microscope(microscope)
    result = optics.cached_psf(scope, parse_depths(z), voxels, tolerance=tolerance, track=track)
    optics.write_psf(output, result)
    error = result.convergence_error
    typer.echo(
        f"{output}: {len(result.z_um)} depths, {voxels} x {voxels} voxels per lenslet, {result.lenslets} x "
        f"{result.lenslets} lenslets, oversampling {result.oversampling}, convergence error {error:.2%}"
    )


def simulate_frame(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    microscope: MicroscopeOption = "60x1.2w",
    sample: Annotated[str, typer.Option(help=f"One of {', '.join(SAMPLES)}.")] = "neurons",
    lenslets: Annotated[int, typer.Option(help="Side of the light field in lenslets.")] = 25,
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    pitch_px: Annotated[
        float | None, typer.Option(help="Raw pixels per lenslet; by default that of the microscope's camera, or 0.96 N.")
    ] = None,
    rotation_rad: Annotated[float, typer.Option(help="Rotation of the lenslets in radians.")] = 0.004,
    photons: Annotated[float, typer.Option(help="Photons in the brightest pixel.")] = 2000.0,
    count: Annotated[int, typer.Option(help="Neurons or beads in the volume.")] = 12,
    seed: Annotated[int, typer.Option(help="Fixes all random numbers.")] = 0,
) -> None:
    """Simulate a raw frame: tilted, of non-integer pitch, vignetted and noisy, with its white and dark frames and the truth."""
    require(sample in SAMPLES, "--sample", sample, "one of " + ", ".join(SAMPLES))  # before the PSF is computed
    scope, depths = optics.load_microscope(microscope), parse_depths(z)
    made = simulate.raw_recording(
        seed, scope, sample=sample, lenslets=lenslets, z_um=depths, voxels_per_lenslet=voxels,
        pitch_px=pitch_px, rotation_rad=rotation_rad, photons=photons, count=count,
        psf=optics.cached_psf(scope, depths, voxels, track=track),
    )  # fmt: skip
    for name in ("light_field", "white", "dark"):
        io.write_frame(output / f"{name}.tif", getattr(made.frames, name))
    io.write_volume(output / "truth.ome.tif", made.volume, made.voxel_um)
    with io.writing(output / "microscope.toml") as temporary:
        temporary.write_text(scope.to_toml(), encoding="utf-8")
    lattice = made.frames.lattice
    typer.echo(f"{output}: raw frame {made.frames.light_field.shape}, pitch {lattice.pitch_px:.3f} px, white, dark, truth")


def rectify_frame(
    raw: RawArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="TIFF or HDF5 file for the rectified frame.")],
    microscope: MicroscopeOption = "60x1.2w",
    white: WhiteOption = None,
    dark: DarkOption = None,
) -> None:
    """Find the lenslets and resample the frame to N whole pixels per lenslet, with the dark frame subtracted."""
    io.require_format(output)
    whites, darks = (None if path is None else io.read_frame(path) for path in (white, dark))
    frame = io.read_frame(raw)
    rectifier = optics.Rectifier.calibrate(optics.load_microscope(microscope), frame, white=whites, dark=darks)
    io.write_frame(output, rectifier(frame))
    typer.echo(_describe(rectifier))


def reconstruct_frame(
    raw: RawArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Volume to write: .ome.tif, .tif or .h5.")],
    microscope: MicroscopeOption = "60x1.2w",
    white: WhiteOption = None,
    dark: DarkOption = None,
    solver: Annotated[str, typer.Option(help=f"One of {', '.join(SOLVERS)}.")] = "richardson_lucy",
    iterations: Annotated[int | None, typer.Option(help="The solver's own default if not given.")] = None,
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    sparsity: SparsityOption = 1e-3,
    total_variation: VariationOption = 1e-3,
    anti_alias: Annotated[bool, typer.Option(help="Smooth each plane to the sampling at its depth.")] = True,
    withhold: Annotated[float, typer.Option(help="Fraction of the pixels kept from the fit, as a test of it.")] = 0.0,
    tolerance: ToleranceOption = 0.02,
) -> None:
    """Reconstruct a volume from a raw frame; beside it go NAME.png (projections), NAME.fit.png and NAME.json (figures)."""
    io.require_format(output)
    whites, darks = (None if path is None else io.read_frame(path) for path in (white, dark))
    result = pipeline.reconstruct(
        io.read_frame(raw), optics.load_microscope(microscope), calibration=pipeline.Calibration(whites, darks),
        grid=pipeline.Grid(parse_depths(z), voxels), solver=solver, iterations=iterations, sparsity=sparsity,
        total_variation=total_variation, anti_alias=anti_alias, withhold=withhold, tolerance=tolerance, track=track,
    )  # fmt: skip
    suffix = next((suffix for suffix in SUFFIXES if output.name.endswith(suffix)), "")
    beside = output.with_name(output.name.removesuffix(suffix) + ".")
    io.write_volume(output, result.volume, result.voxel_um)
    viz.projections(result.volume, result.voxel_um, path=f"{beside}png")
    viz.resynthesis(result.light_field, result.image, result.mask, path=f"{beside}fit.png")
    figures = {
        "solver": solver,
        "iterations": len(result.objective) - 1,
        "correlation": result.correlation,
        "withheld_correlation": result.withheld_correlation,
        "pitch_px": result.rectifier.lattice.pitch_px,
        "rotation_rad": result.rectifier.lattice.rotation_rad,
        "voxel_um": result.voxel_um,
        "psf_oversampling": result.psf.oversampling,
        "psf_convergence_error": result.psf.convergence_error,
    }
    with io.writing(f"{beside}json") as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    typer.echo(_describe(result.rectifier))
    withheld = "" if result.withheld_correlation is None else f", on withheld pixels {result.withheld_correlation:.4f}"
    typer.echo(f"{output}: the volume explains the frame with correlation {result.correlation:.4f}{withheld}")


def _describe(rectifier: Rectifier) -> str:
    lattice = rectifier.lattice
    return (
        f"lenslets: pitch {lattice.pitch_px:.3f} px, rotation {lattice.rotation_rad:+.4f} rad, field "
        f"{rectifier.field[0]} x {rectifier.field[1]}, {float(rectifier.mask.mean()):.0%} of the pixels trusted"
    )
