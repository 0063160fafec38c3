"""ISTA: the proximal gradient method for sparse nonnegative volumes, and the step that unfolds into a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.solvers.base import AbstractSolver
from lfjax.solvers.cg import safe_ratio
from lfjax.solvers.problem import Problem


def proximal_step(x: Array, gradient: Array, step_size: Array | float, sparsity: Array | float) -> Array:
    """x <- ReLU(x - tau grad - tau lambda): gradient step, then the proximal map of lambda |x|_1 with x >= 0.

    This is the layer of `models.UnfoldedISTA`; step size and threshold may be learned arrays.
    """
    return jax.nn.relu(x - step_size * gradient - step_size * sparsity)


class ISTAState(NamedTuple):
    """Estimate, its image H x, and the step size."""

    x: Array
    image: Array
    step_size: Array


class ISTA(AbstractSolver[ISTAState]):
    """min_x 1/2 |W^(1/2) (y - H x)|^2 + lambda |x|_1,  x >= 0, by x <- ReLU(x - tau H^T W (H x - y) - tau lambda).

    Args:
        sparsity: lambda, in the units of H^T y; `Problem.lambda_max` gives its scale.
        step_size: tau; None: 1 / |W^(1/2) H|^2.

    Source: Daubechies, Defrise, De Mol, Comm. Pure Appl. Math. 57, 1413 (2004).
    """

    sparsity: float | Array = 0.0
    step_size: float | Array | None = None
    takes_normal_equations: ClassVar[bool] = True
    powers: ClassVar[Mapping[str, tuple[int, int]]] = {"sparsity": (1, 1), "step_size": (0, -1)}

    def init(self, problem: Problem, x0: Array | None) -> ISTAState:
        """Start at `x0`, or at zero."""
        x = problem.start(x0)
        return ISTAState(x, problem.op.matvec(x), choose_step_size(problem, self.step_size))

    def step(self, problem: Problem, state: ISTAState) -> ISTAState:
        """One proximal gradient step: one H and one H^T."""
        x = proximal_step(state.x, problem.gradient(state.image), state.step_size, self.sparsity)
        return ISTAState(x, problem.op.matvec(x), state.step_size)

    def objective(self, problem: Problem, state: ISTAState) -> Float[Array, ""]:
        """Least squares plus lambda |x|_1."""
        return problem.least_squares(state.x, state.image) + self.sparsity * jnp.sum(jnp.abs(state.x))


def choose_step_size(problem: Problem, step_size: float | Array | None) -> Array:
    """`step_size`, or 1 / |W^(1/2) H|^2; 0 where all weights are 0."""
    if step_size is None:
        step_size = safe_ratio(jnp.ones((), problem.data.dtype), problem.lipschitz())
    return jnp.asarray(step_size, problem.data.dtype)
