"""The command `lfjax`: what the Python API does, from the shell."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import typer

from lfjax import io, optics, pipeline, simulate, viz
from lfjax.cli import (
    cryo as cli_cryo,
    info as cli_info,
    movie as cli_movie,
    neurons as cli_activity,
    train as cli_train,
)
from lfjax.cli.options import DEPTHS, DepthsOption, VoxelsOption, parse_depths
from lfjax.errors import CalibrationWarning, LfjaxError, require
from lfjax.optics import PRESETS, Rectifier, load_microscope
from lfjax.progress import track

app = typer.Typer(
    help="Light-field microscopy: from a raw camera frame to a calibrated 3-D volume. Networks: train, evaluate. "
    "Cryo-EM: project, backproject, fsc.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

MicroscopeOption = Annotated[
    str, typer.Option(help=f"Preset ({', '.join(PRESETS)}) or TOML file; `lfjax info PRESET` prints one to start from.")
]
ToleranceOption = Annotated[float, typer.Option(help="Largest relative convergence error of the PSF.")]
RawArgument = Annotated[Path, typer.Argument(help="Raw light-field frame, TIFF or HDF5.")]
WhiteOption = Annotated[Path | None, typer.Option(help="Raw white frame.")]
DarkOption = Annotated[Path | None, typer.Option(help="Raw dark frame.")]


@app.command(epilog="Example: lfjax psf --microscope 60x1.2w --z -4.5:4.5:1 --voxels 4 -o psf.h5")
def psf(
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file to write.")],
    microscope: MicroscopeOption = "60x1.2w",
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    tolerance: ToleranceOption = 0.02,
) -> None:
    """Compute the wave-optics PSF of a microscope and write it with its parameters."""
    result = optics.cached_psf(load_microscope(microscope), parse_depths(z), voxels, tolerance=tolerance, track=track)
    optics.write_psf(output, result)
    error = result.convergence_error
    typer.echo(
        f"{output}: {len(result.z_um)} depths, {voxels} x {voxels} voxels a lenslet, {result.lenslets} x "
        f"{result.lenslets} lenslets, oversampling {result.oversampling}, convergence error {error:.2%}"
    )


@app.command("simulate", epilog="Example: lfjax simulate --microscope 60x1.2w --lenslets 25 --sample neurons -o demo")
def simulate_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    microscope: MicroscopeOption = "60x1.2w",
    sample: Annotated[str, typer.Option(help="neurons, cortex or beads.")] = "neurons",
    lenslets: Annotated[int, typer.Option(help="Lenslets a side of the light field.")] = 25,
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    pitch_px: Annotated[float | None, typer.Option(help="Raw pixels a lenslet; by the parameters if known.")] = None,
    rotation_rad: Annotated[float, typer.Option(help="Rotation of the lenslets, radians.")] = 0.004,
    photons: Annotated[float, typer.Option(help="Photons in the brightest pixel.")] = 2000.0,
    count: Annotated[int, typer.Option(help="Neurons or beads in the volume.")] = 12,
    seed: Annotated[int, typer.Option(help="Seed that fixes everything.")] = 0,
) -> None:
    """Simulate a raw frame: tilted, of non-integer pitch, vignetted and noisy, with its white and dark frames and the truth."""
    require(sample in simulate.SAMPLES, "--sample", sample, "one of " + ", ".join(simulate.SAMPLES))  # at once
    scope = load_microscope(microscope)
    made = simulate.raw_recording(
        seed, scope, sample=sample, lenslets=lenslets, z_um=parse_depths(z), voxels_per_lenslet=voxels,
        pitch_px=pitch_px, rotation_rad=rotation_rad, photons=photons, count=count,
        psf=optics.cached_psf(scope, parse_depths(z), voxels, track=track),
    )  # fmt: skip
    for name in ("light_field", "white", "dark"):
        io.write_frame(output / f"{name}.tif", np.asarray(getattr(made.frames, name)))
    io.write_volume(output / "truth.ome.tif", np.asarray(made.volume), made.voxel_um)
    with io.writing(output / "microscope.toml") as temporary:
        temporary.write_text(scope.to_toml(), encoding="utf-8")
    lattice = made.frames.lattice
    typer.echo(f"{output}: raw frame {made.frames.light_field.shape}, pitch {lattice.pitch_px:.3f} px, white, dark, truth")


@app.command(epilog="Example: lfjax rectify raw.tif --white white.tif --dark dark.tif --microscope 60x1.2w -o lf.tif")
def rectify(
    raw: RawArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="TIFF or HDF5 file for the rectified frame.")],
    microscope: MicroscopeOption = "60x1.2w",
    white: WhiteOption = None,
    dark: DarkOption = None,
) -> None:
    """Find the lenslets and resample the frame to N whole pixels a lenslet, dark subtracted."""
    frame, white_frame, dark_frame = _read_frames(raw, white, dark)
    rectifier = Rectifier.calibrate(load_microscope(microscope), frame, white=white_frame, dark=dark_frame)
    io.write_frame(output, np.asarray(rectifier(jnp.asarray(frame, jnp.float32)), np.float32))
    typer.echo(_describe(rectifier))


@app.command(
    epilog="Example: lfjax reconstruct raw.tif --white white.tif --dark dark.tif --microscope 60x1.2w "
    "--solver richardson_lucy -o volume.ome.tif"
)
def reconstruct(
    raw: RawArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Volume to write: .ome.tif, .tif or .h5.")],
    microscope: MicroscopeOption = "60x1.2w",
    white: WhiteOption = None,
    dark: DarkOption = None,
    solver: Annotated[str, typer.Option(help=f"One of {', '.join(pipeline.SOLVERS)}.")] = "richardson_lucy",
    iterations: Annotated[int | None, typer.Option(help="The solver's own default if not given.")] = None,
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    sparsity: Annotated[float, typer.Option(help="l1 weight, fraction of the one that empties the volume.")] = 1e-3,
    total_variation: Annotated[float, typer.Option(help="TV weight of admm, same unit.")] = 1e-3,
    anti_alias: Annotated[bool, typer.Option(help="Smooth each plane to what is sampled at its depth.")] = True,
    withhold: Annotated[float, typer.Option(help="Fraction of pixels kept from the fit as a test of it.")] = 0.0,
    tolerance: ToleranceOption = 0.02,
) -> None:
    """Reconstruct a volume from a raw frame; beside it go NAME.png (projections), NAME.fit.png and NAME.json (figures)."""
    frame, white_frame, dark_frame = _read_frames(raw, white, dark)
    result = pipeline.reconstruct(
        frame, load_microscope(microscope), white=white_frame, dark=dark_frame, z_um=parse_depths(z),
        voxels_per_lenslet=voxels, solver=solver, iterations=iterations, sparsity=sparsity,
        total_variation=total_variation, anti_alias=anti_alias, withhold=withhold, tolerance=tolerance, track=track,
    )  # fmt: skip
    stem = output.name
    for suffix in (".ome.tif", ".tif", ".tiff", ".h5", ".hdf5"):
        stem = stem.removesuffix(suffix)
    io.write_volume(output, np.asarray(result.volume, np.float32), result.voxel_um)
    viz.projections(result.volume, result.voxel_um, path=output.with_name(f"{stem}.png"))
    viz.resynthesis(result.light_field, result.image, result.mask, path=output.with_name(f"{stem}.fit.png"))
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
    with io.writing(output.with_name(f"{stem}.json")) as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    typer.echo(_describe(result.rectifier))
    withheld = "" if result.withheld_correlation is None else f", on withheld pixels {result.withheld_correlation:.4f}"
    typer.echo(f"{output}: the volume explains the frame with correlation {result.correlation:.4f}{withheld}")


app.command(epilog="Example: lfjax info 25x1.0w --device h100 --voxels 3 --lenslets 106")(cli_info.info)

app.command(epilog="Example: lfjax project map.mrc --n 1000 --snr 0.1 -o particles.star")(cli_cryo.project)
app.command(epilog="Example: lfjax backproject particles.star -o map.mrc --half-maps")(cli_cryo.backproject)
app.command(epilog="Example: lfjax fsc map_half1.mrc map_half2.mrc --radius 120")(cli_cryo.fsc)

app.command(epilog="Example: lfjax movie raw.h5 --microscope scope.toml --white white.tif --solver ista -o volumes.zarr")(
    cli_movie.movie
)
app.command(epilog="Example: lfjax neurons raw.h5 --structure tdtomato.tif --microscope scope.toml -o neurons.h5")(
    cli_activity.neurons
)
app.command(epilog="Example: lfjax train recipe.toml -o model.h5 --folder run")(cli_train.train)
app.command(epilog="Example: lfjax evaluate small")(cli_train.evaluate)


def _read_frames(raw: Path, white: Path | None, dark: Path | None) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """The frames that were named; `io` tells what is wrong with one."""
    whites, darks = (None if path is None else io.read_frame(path) for path in (white, dark))
    return io.read_frame(raw), whites, darks


def _describe(rectifier: Rectifier) -> str:
    lattice = rectifier.lattice
    return (
        f"lenslets: pitch {lattice.pitch_px:.3f} px, rotation {lattice.rotation_rad:+.4f} rad, field "
        f"{rectifier.field[0]} x {rectifier.field[1]}, {float(rectifier.mask.mean()):.0%} of the pixels trusted"
    )


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    if issubclass(category, CalibrationWarning):
        typer.echo(f"warning: {message}", err=True)


def run() -> None:
    """Run the command; bad input ends with one line on stderr and exit code 2."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        app()
    except (LfjaxError, OSError) as error:  # OSError: a full disk, a folder that cannot be written
        typer.echo(f"lfjax: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    run()
