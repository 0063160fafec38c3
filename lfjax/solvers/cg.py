"""Conjugate gradients of fixed length for weighted least squares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.solvers.base import AbstractSolver
from lfjax.solvers.problem import Problem


class CGState(NamedTuple):
    """Estimate, its image, residual of the normal equations, search direction, squared norm of the residual."""

    x: Array
    image: Any
    residual: Array
    direction: Array
    squared: Array


class Quadratic(NamedTuple):
    """1/2 <x, N x> - <b, x>, computed through a linear image of x, so that a step costs one pass forward and one back.

    Attributes:
        image: p -> the image of p: one array, or a pytree of several.
        residual: (x, its image) -> b - N x.
        curvature: (p, its image) -> <p, N p>.
    """

    image: Callable[[Array], Any]
    residual: Callable[[Array, Any], Array]
    curvature: Callable[[Array, Any], Array]

    def start(self, x: Array) -> CGState:
        """The state at x."""
        image = self.image(x)
        residual = self.residual(x, image)
        return CGState(x, image, residual, residual, jnp.sum(residual**2))

    def step(self, state: CGState) -> CGState:
        """One step along the search direction."""
        p = state.direction
        p_image = self.image(p)
        length = safe_ratio(state.squared, self.curvature(p, p_image))
        x, image = jax.tree.map(lambda a, b: a + length * b, (state.x, state.image), (p, p_image))
        residual = self.residual(x, image)  # recomputed, not updated: no drift in float32
        squared = jnp.sum(residual**2)
        return CGState(x, image, residual, residual + safe_ratio(squared, state.squared) * p, squared)


class CG(AbstractSolver[CGState]):
    """min_x 1/2 |W^(1/2) (y - H x)|^2 + mu/2 |x|^2, by CG on (H^T W H + mu) x = H^T W y. Signed: no x >= 0.

    A finished iteration stays where it is (0/0 is taken as 0), so a fixed length never gives NaN; library CGs whose
    breakdown test scales with the size do, on float32 volumes.

    Args:
        ridge: mu >= 0.

    Source: Hestenes & Stiefel, J. Res. NBS 49, 409 (1952), in the form CGLS.
    """

    ridge: float | Array = 0.0
    takes_normal_equations: ClassVar[bool] = True
    powers: ClassVar[Mapping[str, tuple[int, int]]] = {"ridge": (0, 1)}

    def init(self, problem: Problem, x0: Array | None) -> CGState:
        """Start at `x0`, or at zero."""
        return self._quadratic(problem).start(problem.start(x0))

    def step(self, problem: Problem, state: CGState) -> CGState:
        """One CG step: one H and one H^T."""
        return self._quadratic(problem).step(state)

    def objective(self, problem: Problem, state: CGState) -> Float[Array, ""]:
        """Least squares plus mu/2 |x|^2."""
        return problem.least_squares(state.x, state.image) + 0.5 * self.ridge * jnp.sum(state.x**2)

    def _quadratic(self, problem: Problem) -> Quadratic:
        return Quadratic(
            image=problem.op.matvec,
            residual=lambda x, image: -problem.gradient(image) - self.ridge * x,
            curvature=lambda p, image: problem.curvature(p, image) + self.ridge * jnp.sum(p**2),
        )


def safe_ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is not positive."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
