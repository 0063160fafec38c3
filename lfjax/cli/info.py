"""The command `lfjax info`: what follows from the numbers of a microscope, and what reconstruction costs on a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lfjax import optics, performance, pipeline
from lfjax.cli.groups import grouped
from lfjax.cli.options import DEVICES, PRESETS, DepthsOption, VoxelsOption, parse_depths
from lfjax.cli.particle_options import ParticleOptions
from lfjax.cli.particles import PARTICLE_FILES, describe
from lfjax.errors import require
from lfjax.pipeline import SOLVERS

if TYPE_CHECKING:
    from lfjax.optics import LightField
    from lfjax.performance import Cost, Device

RATE_HZ = 100  # volumes per second that the last column of the table asks for, a usual camera rate
HEADER = (
    f"{'per frame':30s} {'GFLOP':>9s} {'GB':>8s} {'ms':>8s} {'bound by':>11s} {'per second':>10s}   devices for {RATE_HZ}/s"
)


@grouped
def print_info(
    particles: ParticleOptions,
    source: Annotated[
        list[str] | None,
        typer.Argument(help="Preset, TOML file, or particle file (.star, or .cs with its passthrough). None: the presets."),
    ] = None,
    z: DepthsOption = None,
    voxels: VoxelsOption = 4,
    device: Annotated[
        str | None,
        typer.Option(help=f"Print what reconstruction costs on this device: {', '.join(DEVICES)}, or cpu with its peaks."),
    ] = None,
    lenslets: Annotated[int, typer.Option(help="Side of the light field in lenslets.")] = 31,
    batch: Annotated[int, typer.Option(help="Frames computed at once.")] = 16,
    precision: Annotated[str, typer.Option(help="Precision of H: float32, tf32 or bfloat16.")] = "float32",
    anti_alias: Annotated[bool, typer.Option(help="Smooth each plane in the solvers, as `lfjax reconstruct` does.")] = True,
    model: Annotated[
        Path | None, typer.Option(help="Model file, or `small`; prints the cost of the model too. Needs --device.")
    ] = None,
    tflops: Annotated[float | None, typer.Option(help="Measured float32 peak, 1e12 flops per second.")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="Measured memory bandwidth, GB/s.")] = None,
) -> None:
    """Print a microscope as TOML, with its derived numbers; with --device also flops, bytes and least time per frame.

    Of a particle file, print its optics groups, flags and half-sets, and the memory that its map takes.
    """
    if not source:
        for name in PRESETS:
            typer.echo(name)
        return
    microscope, *more = source
    if microscope.lower().endswith(PARTICLE_FILES):
        for line in describe(particles.open([Path(name) for name in source])):
            typer.echo(line)
        return
    require(not more, "SOURCE", more, "one microscope")
    scope = optics.load_microscope(microscope)
    depths = pipeline.Grid(parse_depths(z), voxels).of(scope).depths
    processor = None if device is None else performance.find_device(device, tflops, bandwidth)
    require(model is None or processor is not None, "--model", str(model), "nothing without --device")
    widths = ", ".join(f"{w:.2f}" for w in optics.sampling_widths(scope, depths))
    typer.echo(scope.to_toml(), nl=False)
    if scope.camera_pixel_um is None:
        typer.echo("# camera_pixel_um = ...  # of a raw pixel at the lenslets; not stated, so raw frames are compared with N")
    else:
        typer.echo(f"# raw pixels per lenslet: {scope.raw_pitch_px:.3f}")
    low, high = optics.depth_range(scope)
    typer.echo(f"# usable depths: {low:.3g} to {high:.3g} um, from which --z takes its default, {depths_text(depths)}")
    typer.echo(f"# one lenslet in the sample: {float(scope.object_pitch_um):.3f} um")
    typer.echo(f"# voxel at s = {voxels}: {scope.voxel_um(voxels):.3f} um")
    typer.echo(f"# half angle: {math.degrees(float(scope.half_angle)):.1f} degrees")
    typer.echo(f"# sampling distance at these depths, in lenslets: {widths}")
    if processor is None:
        return
    op = performance.abstract_light_field(scope, depths, voxels, lenslets, batch, precision)
    smooth = performance.abstract_filter(scope, op, depths) if anti_alias and scope.repeats_square else None
    for line in (*_sizes(op, batch, precision), processor.peaks, HEADER):
        typer.echo(f"# {line}")
    for name, spent in performance.operator_costs(op, batch).items():
        typer.echo(f"# {_row(name, spent, processor)}")
    for name, (_, iterations) in SOLVERS.items():
        once, whole = performance.solver_costs(op, name, iterations, batch, smooth)
        typer.echo(f"# {_row(f'{name}, 1 iteration', once, processor)}")
        typer.echo(f"# {_row(f'{name}, {iterations} iterations', whole, processor)}")
    if model is not None:
        spent, shape = performance.model_cost(model, lenslets, batch)
        typer.echo(f"# {_row(model.name, spent, processor)}")
        typer.echo(f"# {model.name} gives volumes of {' x '.join(map(str, shape))} voxels")


def depths_text(z_um: Sequence[float]) -> str:
    """Depths as `--z` takes them."""
    steps = [b - a for a, b in zip(z_um, z_um[1:], strict=False)]
    if len(steps) < 2 or max(steps) - min(steps) > 1e-6 * max(map(abs, z_um)):
        return ",".join(f"{z:g}" for z in z_um)
    return f"{z_um[0]:g}:{z_um[-1]:g}:{steps[0]:g}"


def _sizes(op: LightField, batch: int, precision: str) -> list[str]:
    volume, field, tile = (" x ".join(map(str, shape)) for shape in (op.in_shape, op.field, op.tiles.tile))
    matrices = op.kernel.matrices
    gib = matrices.size * matrices.dtype.itemsize / 2**30
    reach = 2 * op.psf_reach + 1
    return [
        f"volume of {volume} voxels, field of {field} lenslets, PSF of {reach} x {reach}",
        f"H in {precision}: matrices of {gib:.2f} GiB for tiles of {tile} lenslets, read once for {batch} frames",
    ]


def _row(name: str, spent: Cost, device: Device) -> str:
    """A line of the table; the last column is the number of such devices that reach `RATE_HZ` at their peaks."""
    least = performance.roofline(spent, device)
    numbers = f"{spent.flops / 1e9:9.4g} {spent.bytes / 1e9:8.3g} {1e3 * least.seconds:8.3g} {least.limit:>11s}"
    return f"{name:30s} {numbers} {1 / least.seconds:10.4g} {RATE_HZ * least.seconds:18.2g}"
