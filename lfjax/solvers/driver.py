"""The one loop that runs every solver."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from lfjax.errors import ParameterError, require, require_finite, require_shape
from lfjax.linop import LinearOperator
from lfjax.solvers.base import AbstractSolver, Solver, StateT, in_own_units, iterate
from lfjax.solvers.problem import NormalEquations, Problem
from lfjax.solvers.units import Units

DIVIDE = ("step_size", "penalty")  # parameters that are, or divide, the length of a step


class Result(NamedTuple):
    """Result of `run`.

    Attributes:
        x: the volume.
        image: H x, the data that the volume explains.
        objective: (iterations + 1,), value before the first and after every iteration, in 64 bits.
        iterations: number of iterations done.
        converged: whether the stopping rule ended the run.
        state: state of the solver in the problem's own units: `iterate` resumes from it with the solver and the problem that
            `in_own_units` gives, and state.x is x / units.data, before `smooth`.
    """

    x: Array
    image: Array
    objective: np.ndarray
    iterations: int
    converged: bool
    state: Any


@eqx.filter_jit
def _start(solver: AbstractSolver[StateT], problem: Problem, x0: Array | None) -> tuple[StateT, Array, Units, dict[str, Array]]:
    """State and objective before the first step in the problem's own units, these units, and which numbers are finite."""
    finite = {"data": jnp.isfinite(problem.data).all(), "x0": jnp.isfinite(0.0 if x0 is None else x0).all()}
    solver, problem, units = in_own_units(solver, problem)
    state = solver.init(problem, None if x0 is None else x0 / units.data)
    return state, solver.objective(problem, state), units, finite


@eqx.filter_jit(donate="all-except-first")
def _advance(fixed: tuple[AbstractSolver[StateT], Problem], state: StateT, iterations: int) -> tuple[StateT, Array]:
    """Do steps in the problem's own units; the new state reuses the buffers of the old one."""
    solver, problem, _ = in_own_units(*fixed)
    return iterate(solver, problem, state, iterations)


@eqx.filter_jit
def _finish(problem: Problem, smooth: LinearOperator | None, x: Array, image: Array, unit: Array) -> tuple[Array, Array]:
    """The estimate and its image in the units of the data; filtered, and zero or more if the unfiltered estimate is."""
    if smooth is None:
        return unit * x, unit * problem.synthesise(x, image)
    filtered = smooth(x)
    positive = jnp.maximum(filtered, 0)
    x, image = jax.lax.cond(
        jnp.all(x >= 0), lambda: (positive, problem.op(positive)), lambda: (filtered, problem.synthesise(x, image))
    )
    return unit * x, unit * image


def run(
    solver: AbstractSolver[StateT],
    problem: Problem,
    iterations: int,
    *,
    x0: ArrayLike | None = None,
    smooth: LinearOperator | None = None,
    tolerance: float = 0.0,
    chunk: int = 10,
    track: Callable[..., Any] | None = None,
    callback: Callable[[int, Array, float], None] | None = None,
) -> Result:
    """Run a solver for a number of iterations, or until its objective changes too little.

    It computes in units of the data's own rms, so that data of 1e-30 and of 1e30 give the same volume up to scale; see
    `in_own_units`.

    Args:
        solver: `ISTA`, `FISTA`, `RichardsonLucy`, `ISRA`, `ADMM`, `CG`, `SIRT`, or an `AbstractSolver` of your own.
        problem: operator, data and weights; or `NormalEquations`, for ISTA, FISTA, CG and ADMM.
        iterations: largest number of iterations.
        x0: warm start, of shape `problem.op.in_shape`; the solver's own start if not given.
        smooth: A, a linear map of volumes (`optics.AntiAlias`): solve for u with H A in place of H, and return x = A u.
            Where u is nonnegative, the small negative overshoot of A is cut off.
        tolerance: stop once the objective changes by less than this fraction over a chunk; 0 never stops early.
        chunk: iterations between two calls of the stopping rule, progress bar and callback.
        track: wraps a range to show its progress, see `lfjax.progress.track`.
        callback: called after each chunk with (iterations done, x, objective).

    Returns:
        The volume, its image and the history.

    Raises:
        ParameterError: a number is out of range; data of weight above 0, `x0` or a parameter of the solver are NaN or infinite;
            the data are negative and the solver needs counts; the solver does not take normal equations; or it diverges, as
            with too large a step size.
        ShapeError: x0 or `smooth` does not fit the problem.
    """
    for count_name, number in (("iterations", iterations), ("chunk", chunk)):
        require(isinstance(number, (int, np.integer)) and number >= 1, count_name, number, "a whole number, 1 or more")
    require(tolerance >= 0, "tolerance", tolerance, "0 or more")
    if x0 is not None:
        x0 = jnp.asarray(x0, problem.data.dtype)
        require_shape("x0", x0.shape, problem.op.in_shape)
    name = type(solver).__name__
    if isinstance(problem.data, jax.core.Tracer):
        raise ParameterError("problem: run is a loop in Python; expected arrays. Inside jit, vmap and grad use solvers.solve")
    require(isinstance(solver, AbstractSolver), "solver", name, "a subclass of AbstractSolver")
    if isinstance(problem, NormalEquations):
        require(solver.takes_normal_equations, "solver", name, "ISTA, FISTA, CG or ADMM with NormalEquations")
    elif solver.needs_counts:
        problem.require_nonnegative(name)
    inner = problem if smooth is None else problem.through(smooth)

    state, first, units, finite = _start(solver, inner, x0)
    for argument, values in (("data", problem.data), ("x0", x0)):
        if not finite[argument]:
            require_finite(argument, values)
    _check_parameters(solver)  # last: NaN in the data makes NaN of a sparsity relative to them
    objective = units.of(solver.objective_powers)
    state = jax.tree.map(jnp.copy, state)  # one buffer per array, for `_advance` to reuse
    history, done, converged = [objective * np.asarray(first, float)[None]], 0, False
    watched = tolerance > 0 or track is not None or callback is not None
    size = min(chunk, iterations) if watched else iterations
    sizes = [size] * (iterations // size) + [iterations % size] * (iterations % size > 0)
    for count in track(sizes, f"{name}, {iterations} iterations") if track else sizes:
        state, values = _advance((solver, inner), state, count)
        history.append(objective * np.asarray(values, float))
        _check_progress(name, done, history[-1])
        done += count
        if callback is not None:
            x = state.x * units.data
            callback(done, x if smooth is None else smooth(x), float(history[-1][-1]))
        before, after = history[-2][-1], history[-1][-1]
        if tolerance > 0 and abs(before - after) <= tolerance * abs(before):
            converged = True
            break
    x, image = _finish(problem, smooth, state.x, state.image, units.data)
    return Result(x, image, np.concatenate(history), done, converged, state)


def _check_parameters(solver: Solver) -> None:
    """Refuse numbers of a solver that are not finite, and those that a unit makes sizes if they are negative."""
    for field in dataclasses.fields(solver):
        value = getattr(solver, field.name)
        if isinstance(value, (float, int, jax.Array, np.ndarray, np.generic)):
            require_finite(field.name, value)
            if field.name in (solver.powers or {}):
                least = float(np.asarray(value).min())  # NumPy, not one more program
                if field.name in DIVIDE:
                    require(least > 0, field.name, least, "more than zero")
                require(least >= 0, field.name, least, "zero or more")


def _check_progress(name: str, done: int, objective: np.ndarray) -> None:
    """Refuse an objective that is not finite."""
    wrong = np.flatnonzero(~np.isfinite(objective))
    if len(wrong):
        value, after = float(objective[wrong[0]]), done + int(wrong[0]) + 1
        raise ParameterError(
            f"{name}: its objective is {value} after iteration {after}: expected a finite one; lower its step_size"
        )
