"""The contract between a solver and the loop that runs it."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import equinox as eqx
import jax
from jaxtyping import Array, Float

from lfjax.solvers.problem import Problem


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
    """

    takes_normal_equations: ClassVar[bool] = False
    needs_counts: ClassVar[bool] = False

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


def solve(solver: Solver, problem: Problem, iterations: int, x0: Array | None = None) -> Array:
    """x after a fixed number of iterations: pure, for jit, vmap over data and grad.

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
    return iterate(solver, problem, solver.init(problem, x0), iterations)[0].x
