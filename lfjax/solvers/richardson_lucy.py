"""Richardson-Lucy: the multiplicative update for Poisson noise. Its Gaussian sibling is in `isra`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.solvers.base import AbstractSolver
from lfjax.solvers.problem import Problem

FLOOR = 1e-12  # smallest modelled intensity that divides, as a fraction of the largest
LARGEST_RATIO = 10.0  # of data to model in one step: an operator with negative lobes can model zero light where there is light


class RichardsonLucyState(NamedTuple):
    """Estimate, its image H x, and the sensitivity H^T w."""

    x: Array
    image: Array
    sensitivity: Array


class RichardsonLucy(AbstractSolver[RichardsonLucyState]):
    """min_x sum_i w_i ((H x)_i + b - y_i log((H x)_i + b)),  x >= 0, by x <- x * H^T(w y / (H x + b)) / H^T w.

    The expectation-maximisation step for Poisson data. Light-field codes often give this name to another update; that one,
    x * H^T y / H^T H x, is `ISRA` and fits least squares.

    A pixel may ask for at most 10 times its model in one step. That moves no fixed point, where the ratio is 1, and it
    keeps the step stable where H is not quite nonnegative, as after an anti-aliasing filter.

    Args:
        background: b >= 0, light per pixel that comes from no voxel.

    Source: Richardson, JOSA 62, 55 (1972); Lucy, Astron. J. 79, 745 (1974); Shepp & Vardi (1982).
    """

    background: float | Array = 0.0
    needs_counts: ClassVar[bool] = True
    powers: ClassVar[Mapping[str, tuple[int, int]]] = {"background": (1, 0)}
    objective_powers: ClassVar[tuple[int, int]] = (1, 1)

    def init(self, problem: Problem, x0: Array | None) -> RichardsonLucyState:
        """Start at a positive `x0`, or at a constant volume. Zeros stay zeros."""
        x = problem.flat_start() if x0 is None else x0
        return RichardsonLucyState(x, problem.op.matvec(x), problem.op.rmatvec(problem.weights))

    def step(self, problem: Problem, state: RichardsonLucyState) -> RichardsonLucyState:
        """One multiplicative update: one H and one H^T."""
        model = positive(state.image + self.background)
        ratio = problem.op.rmatvec(problem.weights * jnp.minimum(problem.data / model, LARGEST_RATIO))
        x = jnp.maximum(state.x * ratio / positive(state.sensitivity), 0)
        return RichardsonLucyState(x, problem.op.matvec(x), state.sensitivity)

    def objective(self, problem: Problem, state: RichardsonLucyState) -> Float[Array, ""]:
        """Poisson negative log-likelihood, up to a constant of the data (Csiszar's divergence)."""
        model = positive(state.image + self.background)
        y = problem.data
        return jnp.sum(problem.weights * (model - y + y * jnp.log(positive(y) / model)))


def positive(a: Array) -> Array:
    """a, raised to a tiny fraction of its maximum where it is smaller: safe to divide by."""
    return jnp.maximum(a, jnp.maximum(FLOOR * jnp.max(a), jnp.finfo(a.dtype).tiny))
