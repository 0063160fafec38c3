"""Costs of light-field reconstruction: of H, of every solver, and of a trained model, from shapes alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from lfjax import solvers
from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.optics import PSF, AntiAlias, LightField, Microscope
from lfjax.optics.psf.images import support_lenslets
from lfjax.performance.counting import Cost, cost
from lfjax.pipeline import SOLVERS


def abstract_light_field(
    microscope: Microscope, z_um: tuple[float, ...], voxels_per_lenslet: int, lenslets: int, frames: int, precision: str
) -> LightField:
    """H without its numbers: the rays of the PSF give all shapes; no wave is computed and no memory is taken.

    The PSF is assumed mirror symmetric, as that of every lattice of `Microscope` is without aberrations, unless a pattern of
    focal lengths is not.

    Args:
        microscope: its parameters.
        z_um: depths of the planes in micrometres.
        voxels_per_lenslet: s.
        lenslets: side of the field in lenslets.
        frames: frames per batch.
        precision: "float32", "tf32" or "bfloat16", see `LightField`.

    Returns:
        The operator, with `jax.ShapeDtypeStruct` in place of arrays.

    Raises:
        ParameterError: a number out of range.
    """
    n = microscope.pixels_per_lenslet
    require(1 <= voxels_per_lenslet <= n, "voxels", voxels_per_lenslet, f"a whole number from 1 to {n}")
    support = support_lenslets(microscope, z_um)
    rows = microscope.pattern
    mirror = rows is None or (
        microscope.lenslet_lattice == "square" and rows == rows[::-1] and all(row == row[::-1] for row in rows)
    )
    sides = (support * pixels for pixels in microscope.cell_pixels)
    values = jax.ShapeDtypeStruct((len(z_um), *microscope.cell_voxels(voxels_per_lenslet), *sides), jnp.float32)

    def build(values: Array) -> LightField:
        psf = PSF(values, microscope, z_um)
        return LightField(psf, (lenslets, lenslets), mirror=mirror, frames=frames, precision=precision)  # type: ignore[arg-type]

    return eqx.filter_eval_shape(build, values)


def abstract_filter(microscope: Microscope, op: LightField, z_um: tuple[float, ...]) -> AntiAlias:
    """The anti-aliasing filter of an operator without its numbers.

    Args:
        microscope: its parameters.
        op: H, which gives the grid.
        z_um: depths of the planes in micrometres.
    """
    return eqx.filter_eval_shape(AntiAlias, microscope, z_um, op.voxels_per_lenslet, op.in_shape[1:])


def operator_costs(op: LightField, batch: int) -> dict[str, Cost]:
    """Costs of "H" and "H^T" per frame, in a batch of `batch` frames."""
    return {
        "H": _per_frame(lambda op, x: op.matvec(x), op, batch, op.in_shape),
        "H^T": _per_frame(lambda op, y: op.rmatvec(y), op, batch, op.out_shape),
    }


def solver_costs(
    op: LightField, name: str, iterations: int, batch: int, smooth: LinearOperator | None = None
) -> tuple[Cost, Cost]:
    """Costs of one iteration and of a whole reconstruction, per frame.

    Step sizes count as known, since |H| is found once per recording. Objective, l1 weight and last re-synthesis are included.

    Args:
        op: H; its arrays may be `jax.ShapeDtypeStruct`.
        name: a name in `pipeline.SOLVERS`.
        iterations: iterations of the reconstruction.
        batch: frames per batch.
        smooth: anti-aliasing filter, see `solvers.run`.

    Returns:
        (cost of one iteration, cost of all).
    """

    def spent(number: int) -> Cost:
        mask = jax.ShapeDtypeStruct(op.out_shape, jnp.bool_)
        return _per_frame(lambda fixed, y: _volume(name, number, y, *fixed), (op, smooth, mask), batch, op.out_shape)

    first = spent(1)
    once = spent(2) - first
    return once, first + (iterations - 1) * once


def model_cost(path: str | Path, lenslets: int, batch: int) -> tuple[Cost, tuple[int, ...]]:
    """Cost of a trained model per frame, and the shape of its volume. A model made for one field keeps that field.

    Args:
        path: model file, or "small".
        lenslets: side of the field in lenslets.
        batch: frames per batch.

    Raises:
        FileError: not a model.
    """
    from lfjax.training.model_file import find_model  # loads Flax

    network, recipe = find_model(path)
    shape = tuple(lenslets * pixels for pixels in recipe.cells[1])
    if recipe.model.kind == "physics":
        shape = network.data_term.out_shape
    volume = jax.eval_shape(network, jax.ShapeDtypeStruct(shape, jnp.float32))
    return _per_frame(lambda network, y: network(y), network, batch, shape), volume.shape


def _per_frame(function: Callable[[Any, Array], Any], fixed: PyTree, batch: int, shape: tuple[int, ...]) -> Cost:
    frames = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    return cost(lambda fixed, frames: jax.vmap(partial(function, fixed))(frames), fixed, frames) / batch


def _volume(
    name: str,
    iterations: int,
    y: Float[Array, "row col"],
    op: LightField,
    smooth: LinearOperator | None,
    mask: Bool[Array, "row col"],
) -> tuple[Array, Array]:
    """Volume and image of a rectified frame, as `solvers.run` computes them, with step sizes given."""
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
