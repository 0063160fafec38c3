"""The command `lfjax info`: what follows from a microscope's numbers, the speed it can be had at included."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import typer
from jaxtyping import Array, Bool, Float

from lfjax import solvers
from lfjax.cli.options import DEPTHS, DepthsOption, VoxelsOption, parse_depths
from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.optics import PRESETS, PSF, AntiAlias, LightField, Microscope, load_microscope, sampling_widths
from lfjax.optics.psf.images import support_lenslets
from lfjax.performance.bounds import DEVICES, Device, find_device, roofline
from lfjax.performance.counting import Cost, cost
from lfjax.pipeline import SOLVERS
from lfjax.training.model_file import find_model

RATE = 100  # volumes a second, as a camera takes them


def info(
    microscope: Annotated[str | None, typer.Argument(help="Preset or TOML file; lists the presets if not given.")] = None,
    z: DepthsOption = DEPTHS,
    voxels: VoxelsOption = 4,
    device: Annotated[
        str | None, typer.Option(help=f"Print what reconstruction costs on it: {', '.join(DEVICES)}, or cpu with its peaks.")
    ] = None,
    lenslets: Annotated[int, typer.Option(help="Lenslets a side of the light field.")] = 31,
    batch: Annotated[int, typer.Option(help="Frames computed at once.")] = 16,
    precision: Annotated[str, typer.Option(help="Of H: float32, tf32 or bfloat16.")] = "float32",
    anti_alias: Annotated[bool, typer.Option(help="Smooth each plane in the solvers, as `lfjax reconstruct` does.")] = True,
    model: Annotated[Path | None, typer.Option(help="Model file or `small`, whose cost to print; needs --device.")] = None,
    tflops: Annotated[float | None, typer.Option(help="Measured float32 peak, 1e12 flops a second.")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="Measured memory bandwidth, GB/s.")] = None,
) -> None:
    """Print a microscope as TOML, with what follows from it; with --device, flops, bytes and least times of a frame."""
    if microscope is None:
        for name in PRESETS:
            typer.echo(name)
        return
    scope = load_microscope(microscope)
    depths = parse_depths(z)
    processor = None if device is None else find_device(device, tflops, bandwidth)
    widths = ", ".join(f"{w:.2f}" for w in sampling_widths(scope, depths))
    typer.echo(scope.to_toml(), nl=False)
    typer.echo(f"# one lenslet in the sample: {float(scope.object_pitch_um):.3f} um")
    typer.echo(f"# voxel at s = {voxels}: {scope.voxel_um(voxels):.3f} um")
    typer.echo(f"# half angle: {np.degrees(float(scope.half_angle)):.1f} degrees")
    typer.echo(f"# sampling distance at z = {z} um, in lenslets: {widths}")
    require(model is None or processor is not None, "--model", str(model), "nothing without --device")
    if processor is None:
        return
    op = abstract_light_field(scope, depths, voxels, lenslets, batch, precision)
    smooth = eqx.filter_eval_shape(AntiAlias, scope, depths, voxels, op.in_shape[1:]) if anti_alias else None
    for line in (*_sizes(op, batch, precision), processor.peaks, _HEADER):
        typer.echo(f"# {line}")
    for name, spent in operator_costs(op, batch).items():
        typer.echo(f"# {_row(name, spent, processor)}")
    for name, (_, iterations) in SOLVERS.items():
        once, all_of_it = solver_costs(op, name, iterations, batch, smooth)
        typer.echo(f"# {_row(f'{name}, 1 iteration', once, processor)}")
        typer.echo(f"# {_row(f'{name}, {iterations} iterations', all_of_it, processor)}")
    if model is not None:
        spent, shape = model_cost(model, lenslets, batch)
        typer.echo(f"# {_row(model.name, spent, processor)}")
        typer.echo(f"# {model.name} gives volumes of {' x '.join(map(str, shape))} voxels")


def abstract_light_field(
    microscope: Microscope, z_um: tuple[float, ...], voxels_per_lenslet: int, lenslets: int, frames: int, precision: str
) -> LightField:
    """H without its numbers: shapes alone, from the PSF's rays; no wave is computed and no memory is taken.

    Its PSF is taken as mirror symmetric, which that of every lattice of `Microscope` is, aberrations aside.

    Args:
        microscope: the parameters.
        z_um: depths of the planes.
        voxels_per_lenslet: s.
        lenslets: a side of the field.
        frames: of a batch.
        precision: see `LightField`.

    Raises:
        ParameterError: a number out of range.
    """
    n = microscope.pixels_per_lenslet
    require(1 <= voxels_per_lenslet <= n, "voxels", voxels_per_lenslet, f"a whole number from 1 to {n}")
    support = support_lenslets(microscope, z_um)
    sides = (support * pixels for pixels in microscope.cell_pixels)
    values: Any = jax.ShapeDtypeStruct((len(z_um), *microscope.cell_voxels(voxels_per_lenslet), *sides), jnp.float32)
    build = partial(LightField, field=(lenslets, lenslets), mirror=True, frames=frames, precision=precision)  # type: ignore[arg-type]
    return eqx.filter_eval_shape(build, PSF(values, microscope, z_um))


def operator_costs(op: LightField, batch: int) -> dict[str, Cost]:
    """Of H and of H^T, a frame of a batch."""
    return {
        "H": _a_frame(lambda op, x: op.matvec(x), op, batch, op.in_shape),
        "H^T": _a_frame(lambda op, y: op.rmatvec(y), op, batch, op.out_shape),
    }


def solver_costs(
    op: LightField, name: str, iterations: int, batch: int, smooth: LinearOperator | None = None
) -> tuple[Cost, Cost]:
    """Of one iteration, and of a whole reconstruction, a frame of a batch.

    Step sizes are taken as known: |H| is found once a recording. Objective, l1 weight and last re-synthesis count.

    Args:
        op: H; its arrays may be `jax.ShapeDtypeStruct`.
        name: in `pipeline.SOLVERS`.
        iterations: of the reconstruction.
        batch: frames.
        smooth: see `solvers.run`.
    """

    def spent(number: int) -> Cost:
        mask = jax.ShapeDtypeStruct(op.out_shape, jnp.bool_)
        return _a_frame(lambda fixed, y: _reconstruct(name, number, y, *fixed), (op, smooth, mask), batch, op.out_shape)

    first = spent(1)
    once = spent(2) - first
    return once, first + (iterations - 1) * once


def model_cost(path: Path, lenslets: int, batch: int) -> tuple[Cost, tuple[int, ...]]:
    """Of a trained model, a frame of a batch, and the shape of its volume; one made for a single field keeps that.

    Raises:
        FileError: not a model.
    """
    network, recipe = find_model(path)
    shape = tuple(lenslets * pixels for pixels in recipe.cells[1])
    if recipe.model.kind == "physics":
        shape = network.data_term.out_shape
    volume = jax.eval_shape(network, jax.ShapeDtypeStruct(shape, jnp.float32))
    return _a_frame(lambda network, y: network(y), network, batch, shape), volume.shape


def _a_frame(function: Any, fixed: Any, batch: int, shape: tuple[int, ...]) -> Cost:
    frames = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    return cost(lambda fixed, frames: jax.vmap(partial(function, fixed))(frames), fixed, frames) / batch


def _reconstruct(
    name: str,
    iterations: int,
    y: Float[Array, "y x"],
    op: LightField,
    smooth: LinearOperator | None,
    mask: Bool[Array, "y x"],
) -> tuple[Array, Array]:
    """What `pipeline.reconstruct` computes of a rectified frame."""
    problem = solvers.Problem(op, y, mask)
    solver = SOLVERS[name][0](problem, 1e-3, 1e-3)
    known = {f.name: 1.0 for f in dataclasses.fields(solver) if f.name in ("step_size", "penalty")}
    solver = dataclasses.replace(solver, **known)
    inner = problem if smooth is None else problem.through(smooth)
    state, _ = solvers.iterate(solver, inner, solver.init(inner, None), iterations)
    if smooth is None:
        return state.x, state.image
    x = jnp.maximum(smooth(state.x), 0)
    return x, op(x)


def _sizes(op: LightField, batch: int, precision: str) -> list[str]:
    volume, field, tile = (" x ".join(map(str, shape)) for shape in (op.in_shape, op.field, op.tiles.tile))
    matrices = op.kernel.matrices
    gib = matrices.size * matrices.dtype.itemsize / 2**30
    reach = 2 * op.psf_reach + 1
    return [
        f"volume of {volume} voxels, field of {field} lenslets, PSF of {reach} x {reach}",
        f"H in {precision}: matrices of {gib:.2f} GiB for tiles of {tile} lenslets, read once for {batch} frames",
    ]


_HEADER = f"{'a frame':30s} {'GFLOP':>9s} {'GB':>8s} {'ms':>8s} {'bound by':>11s} {'a second':>9s}   devices for {RATE}/s"


def _row(name: str, spent: Cost, device: Device) -> str:
    """A line of the table; the last column is how many such devices do `RATE` a second, at their peaks."""
    least = roofline(spent, device)
    numbers = f"{spent.flops / 1e9:9.4g} {spent.bytes / 1e9:8.3g} {1e3 * least.seconds:8.3g} {least.limit:>11s}"
    return f"{name:30s} {numbers} {1 / least.seconds:9.4g} {RATE * least.seconds:18.2g}"
