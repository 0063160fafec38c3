"""The one loop that runs every solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from lfjax.errors import ParameterError, require, require_shape
from lfjax.linop import LinearOperator
from lfjax.solvers.base import AbstractSolver, StateT, iterate
from lfjax.solvers.problem import NormalEquations, Problem


class Result(NamedTuple):
    """Result of `run`.

    Attributes:
        x: the volume.
        image: H x, the data that the volume explains.
        objective: (iterations + 1,), value before the first and after every iteration.
        iterations: number of iterations done.
        converged: whether the stopping rule ended the run.
        state: state of the solver, from which `iterate` resumes.
    """

    x: Array
    image: Array
    objective: np.ndarray
    iterations: int
    converged: bool
    state: Any


@eqx.filter_jit
def _start(solver: AbstractSolver[StateT], problem: Problem, x0: Array | None) -> tuple[StateT, Array]:
    state = solver.init(problem, x0)
    return state, solver.objective(problem, state)


@eqx.filter_jit(donate="all-except-first")
def _advance(fixed: tuple[AbstractSolver[StateT], Problem], state: StateT, iterations: int) -> tuple[StateT, Array]:
    """Do steps; the new state reuses the buffers of the old one."""
    return iterate(*fixed, state, iterations)


@eqx.filter_jit
def _finish(problem: Problem, smooth: LinearOperator | None, x: Array, image: Array) -> tuple[Array, Array]:
    """The estimate and its image; filtered, and zero or more if the unfiltered estimate is."""
    if smooth is None:
        return x, problem.synthesise(x, image)
    filtered = smooth(x)
    positive = jnp.maximum(filtered, 0)
    return jax.lax.cond(
        jnp.all(x >= 0), lambda: (positive, problem.op(positive)), lambda: (filtered, problem.synthesise(x, image))
    )


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
        ParameterError: a number is out of range, the data are negative and the solver needs counts, or the solver does not
            take normal equations.
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

    state, first = _start(solver, inner, x0)
    state = jax.tree.map(jnp.copy, state)  # one buffer per array, for `_advance` to reuse
    history, done, converged = [np.asarray(first)[None]], 0, False
    watched = tolerance > 0 or track is not None or callback is not None
    size = min(chunk, iterations) if watched else iterations
    sizes = [size] * (iterations // size) + [iterations % size] * (iterations % size > 0)
    for count in track(sizes, f"{name}, {iterations} iterations") if track else sizes:
        state, values = _advance((solver, inner), state, count)
        history.append(np.asarray(values))
        done += count
        if callback is not None:
            callback(done, jnp.copy(state.x) if smooth is None else smooth(state.x), float(history[-1][-1]))
        before, after = history[-2][-1], history[-1][-1]
        if tolerance > 0 and abs(before - after) <= tolerance * abs(before):
            converged = True
            break
    x, image = _finish(problem, smooth, state.x, state.image)
    return Result(x, image, np.concatenate(history), done, converged, state)
