"""ISRA: the multiplicative update for least squares, often called Richardson-Lucy in light-field codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.solvers.base import AbstractSolver
from lfjax.solvers.problem import Problem
from lfjax.solvers.richardson_lucy import positive


class ISRAState(NamedTuple):
    """Estimate, its image H x, and the back projection H^T W y."""

    x: Array
    image: Array
    back: Array


class ISRA(AbstractSolver[ISRAState]):
    """min_x 1/2 |W^(1/2) (y - H x)|^2,  x >= 0, by x <- x * H^T W y / H^T W H x  (image space reconstruction algorithm).

    Gaussian noise where `RichardsonLucy` has Poisson noise: bright pixels pull harder.

    Source: Daube-Witherspoon & Muehllehner, IEEE Trans. Med. Imaging 5, 61 (1986); De Pierro (1987).
    """

    needs_counts: ClassVar[bool] = True
    powers: ClassVar[Mapping[str, tuple[int, int]]] = {}

    def init(self, problem: Problem, x0: Array | None) -> ISRAState:
        """Start at a positive `x0`, or at a constant volume. Zeros stay zeros."""
        x = problem.flat_start() if x0 is None else x0
        return ISRAState(x, problem.op.matvec(x), problem.op.rmatvec(problem.weights * problem.data))

    def step(self, problem: Problem, state: ISRAState) -> ISRAState:
        """One multiplicative update: one H and one H^T."""
        x = jnp.maximum(state.x * state.back / positive(problem.op.rmatvec(problem.weights * state.image)), 0)
        return ISRAState(x, problem.op.matvec(x), state.back)

    def objective(self, problem: Problem, state: ISRAState) -> Float[Array, ""]:
        """Least squares."""
        return problem.least_squares(state.x, state.image)
