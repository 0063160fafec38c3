"""FISTA: ISTA with momentum, restarted where the momentum points uphill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.solvers.base import AbstractSolver
from lfjax.solvers.ista import choose_step_size, proximal_step
from lfjax.solvers.momentum import advance, points_uphill
from lfjax.solvers.problem import Problem


class FISTAState(NamedTuple):
    """Estimate and image, those of one step before, the momentum clock t, and the step size."""

    x: Array
    image: Array
    x_before: Array
    image_before: Array
    clock: Array
    step_size: Array


class FISTA(AbstractSolver[FISTAState]):
    """The problem of `ISTA`, by proximal steps from the extrapolated point z.

    z = x_k + (t_(k-1) - 1)/t_k (x_k - x_(k-1)),   t_k = (1 + sqrt(1 + 4 t_(k-1)^2)) / 2

    The image of z is the same combination of images known already, so a step costs one H and one H^T as in ISTA. The
    clock restarts when (z - x_(k+1)) . (x_(k+1) - x_k) > 0.

    Args:
        sparsity: lambda, see `ISTA`.
        step_size: tau; None: 1 / |W^(1/2) H|^2.

    Source: Beck & Teboulle, SIAM J. Imaging Sci. 2, 183 (2009); restart by O'Donoghue & Candes (2015).
    """

    sparsity: float | Array = 0.0
    step_size: float | Array | None = None
    takes_normal_equations: ClassVar[bool] = True
    powers: ClassVar[Mapping[str, tuple[int, int]]] = {"sparsity": (1, 1), "step_size": (0, -1)}

    def init(self, problem: Problem, x0: Array | None) -> FISTAState:
        """Start at `x0`, or at zero."""
        x = problem.start(x0)
        image = problem.op.matvec(x)
        one = jnp.ones((), problem.data.dtype)
        return FISTAState(x, image, x, image, one, choose_step_size(problem, self.step_size))

    def step(self, problem: Problem, state: FISTAState) -> FISTAState:
        """One extrapolated proximal gradient step: one H and one H^T."""
        clock, momentum = advance(state.clock)
        z = state.x + momentum * (state.x - state.x_before)
        z_image = state.image + momentum * (state.image - state.image_before)
        x = proximal_step(z, problem.gradient(z_image), state.step_size, self.sparsity)
        clock = jnp.where(points_uphill(z, x, state.x), 1.0, clock)
        return FISTAState(x, problem.op.matvec(x), state.x, state.image, clock, state.step_size)

    def objective(self, problem: Problem, state: FISTAState) -> Float[Array, ""]:
        """Least squares plus lambda |x|_1."""
        return problem.least_squares(state.x, state.image) + self.sparsity * jnp.sum(jnp.abs(state.x))
