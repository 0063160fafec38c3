"""The contract between a solver and the loop that runs it."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from lfjax.solvers.problem import Problem
from lfjax.solvers.units import Units


@runtime_checkable
class State(Protocol):
    """The numbers that a solver carries from step to step: a pytree with at least the estimate and its image."""

    @property
    def x(self) -> Array:
        """The estimate."""
        ...

    @property
    def image(self) -> Array:
        """H x."""
        ...


StateT = TypeVar("StateT", bound=State)


class AbstractSolver(eqx.Module, Generic[StateT]):
    """A method as data plus three pure functions of its state; `solve` and `run` own the loop.

    Attributes:
        takes_normal_equations: whether the solver needs H only through H^T H and H^T y, as `NormalEquations` gives them.
        needs_counts: whether the data must be zero or more, and a start above zero, as multiplicative updates need.
        powers: parameter -> (a, b), where its unit is data^a weights^b: (1, 1) for a weight of |x|_1, as H^T W y has. Such
            parameters are zero or more; those without a unit are left out. None: not stated, and `solve` and `run` then
            compute in the units of the caller.
        objective_powers: the same for the objective; least squares have (2, 1).
    """

    takes_normal_equations: ClassVar[bool] = False
    needs_counts: ClassVar[bool] = False
    powers: ClassVar[Mapping[str, tuple[int, int]] | None] = None
    objective_powers: ClassVar[tuple[int, int]] = (2, 1)

    @abc.abstractmethod
    def init(self, problem: Problem, x0: Array | None) -> StateT:
        """The state before the first step, at `x0` if given."""

    @abc.abstractmethod
    def step(self, problem: Problem, state: StateT) -> StateT:
        """One iteration."""

    @abc.abstractmethod
    def objective(self, problem: Problem, state: StateT) -> Float[Array, ""]:
        """The number that this method drives down, at no extra application of H."""


Solver: TypeAlias = AbstractSolver[Any]
"""Any solver, whatever its state."""

SolverT = TypeVar("SolverT", bound=AbstractSolver[Any])


def iterate(
    solver: AbstractSolver[StateT], problem: Problem, state: StateT, iterations: int
) -> tuple[StateT, Float[Array, " iterations"]]:
    """A fixed number of steps as one `scan`, from a state that `init` or an earlier call gave: pure, for jit, vmap and grad.

    Returns:
        The state after the last step, and the objective after each.
    """

    def body(state: StateT, _: None) -> tuple[StateT, Array]:
        state = solver.step(problem, state)
        return state, solver.objective(problem, state)

    return jax.lax.scan(body, state, None, length=iterations)


def in_own_units(solver: SolverT, problem: Problem) -> tuple[SolverT, Problem, Units]:
    """A problem in units of its own data and weights, near their rms and maximum, and the solver with its parameters in them.

    `init`, `step` and `iterate` compute in the units that they are given: at 1e30 counts the squares of an objective exceed
    float32. In its own units a problem has numbers near 1. The volume is x * units.data, and warm starts are x0 / units.data.
    The units are powers of two, so that no number is rounded by the change, and derivatives pass through it.

    >>> from lfjax import linop, solvers
    >>> problem = solvers.Problem(linop.Identity((2,)), jnp.array([3e30, 4e30]))
    >>> solver, own, units = solvers.in_own_units(solvers.ISTA(1e30), problem)
    >>> bool(jnp.all(own.data * units.data == problem.data)), float(own.data.max()) < 4
    (True, True)

    Args:
        solver: any; one that does not state its `powers` comes back with the problem as it was.
        problem: any.

    Returns:
        The solver, the problem, and the units.
    """
    if solver.powers is None:
        one = jnp.ones((), problem.data.dtype)
        return solver, problem, Units(one, one)
    units = problem.units()
    given = [name for name in solver.powers if getattr(solver, name) is not None]
    if given:
        numbers = [_divided(getattr(solver, name), units, solver.powers[name]) for name in given]
        solver = eqx.tree_at(lambda s: [getattr(s, name) for name in given], solver, numbers)
    return solver, problem.in_units(units), units


def _divided(value: float | Array, units: Units, powers: tuple[int, int]) -> Array:
    """value / (data^a weights^b), one unit after the other, so that no product of units overflows."""
    number = jnp.asarray(value, jnp.result_type(value, units.data))
    for unit, power in zip(units, powers, strict=True):
        number = number / unit if power == 1 else number * unit if power == -1 else number
    return number


def solve(solver: Solver, problem: Problem, iterations: int, x0: ArrayLike | None = None) -> Array:
    """x after a fixed number of iterations: pure, for jit, vmap over data and grad.

    The solver computes in units of the data's own rms (`in_own_units`): data of 1e-30 and of 1e30 give the same volume up to
    scale. Values are not checked, since under jit, vmap and grad there are none to look at: NaN in the data gives NaN in the
    volume. `run` refuses it.

    >>> import jax.numpy as jnp
    >>> from lfjax import linop, solvers
    >>> solvers.solve(solvers.CG(), solvers.Problem(linop.Identity((2,)), jnp.array([1.0, 2.0])), 3)
    Array([1., 2.], dtype=float32)

    Args:
        solver: any of this room, or your own `AbstractSolver`.
        problem: operator, data and weights; or `NormalEquations`, for solvers that take them.
        iterations: number of steps.
        x0: warm start, of shape `problem.op.in_shape`; the solver's own start if not given.
    """
    solver, problem, units = in_own_units(solver, problem)
    start = None if x0 is None else problem.start(x0) / units.data
    return iterate(solver, problem, solver.init(problem, start), iterations)[0].x * units.data
