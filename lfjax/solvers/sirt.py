"""SIRT: the simultaneous iterative reconstruction technique, weighted by the row and column sums of H."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.solvers.base import AbstractSolver
from lfjax.solvers.cg import safe_ratio
from lfjax.solvers.problem import Problem


class SIRTState(NamedTuple):
    """Estimate, its image, and the inverse sums of columns and rows."""

    x: Array
    image: Array
    columns: Array
    rows: Array


class SIRT(AbstractSolver[SIRTState]):
    """x <- max(x + C H^T R W (y - H x), 0), with C and R the inverse column and row sums of H.

    Args:
        nonnegative: whether to cut off negative values.

    Source: Gilbert, J. Theor. Biol. 36, 105 (1972).
    """

    nonnegative: bool = eqx.field(static=True, default=True)
    powers: ClassVar[Mapping[str, tuple[int, int]]] = {}

    def init(self, problem: Problem, x0: Array | None) -> SIRTState:
        """Start at `x0`, or at zero."""
        x = problem.start(x0)
        rows = problem.op.matvec(jnp.ones_like(x))
        columns = problem.op.rmatvec(problem.weights)
        inverse = [safe_ratio(jnp.ones_like(sums), sums) for sums in (columns, rows)]
        return SIRTState(x, problem.op.matvec(x), *inverse)

    def step(self, problem: Problem, state: SIRTState) -> SIRTState:
        """One iteration: one H and one H^T."""
        misfit = problem.weights * state.rows * (problem.data - state.image)
        x = state.x + state.columns * problem.op.rmatvec(misfit)
        x = jnp.maximum(x, 0) if self.nonnegative else x
        return state._replace(x=x, image=problem.op.matvec(x))

    def objective(self, problem: Problem, state: SIRTState) -> Float[Array, ""]:
        """Least squares, each ray weighted by R."""
        return 0.5 * jnp.sum(problem.weights * state.rows * (problem.data - state.image) ** 2)
