"""Conjugate gradients of fixed length for weighted least squares, jitted as one scan."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.solvers.problem import Problem


class CGState(NamedTuple):
    """Estimate, its image, residual of the normal equations, search direction, squared norm of the residual."""

    x: Array
    image: Array
    residual: Array
    direction: Array
    squared: Array


class CG(eqx.Module):
    """min_x 1/2 |W^(1/2) (y - H x)|^2 + mu/2 |x|^2, by CG on (H^T W H + mu) x = H^T W y. Signed: no x >= 0.

    A finished iteration stays where it is (0/0 is taken as 0), so a fixed length never gives NaN; library CGs whose
    breakdown test scales with the size do, on float32 volumes.

    Args:
        ridge: mu >= 0.

    Source: Hestenes & Stiefel, J. Res. NBS 49, 409 (1952), in the form CGLS.
    """

    ridge: float | Array = 0.0

    def init(self, problem: Problem, x0: Array | None) -> CGState:
        """Start at `x0`, or at zero."""
        x = jnp.zeros(problem.op.in_shape, problem.data.dtype) if x0 is None else x0
        image = problem.op.matvec(x)
        residual = -problem.gradient(image) - self.ridge * x
        return CGState(x, image, residual, residual, jnp.sum(residual**2))

    def step(self, problem: Problem, state: CGState) -> CGState:
        """One CG step: one H and one H^T."""
        p = state.direction
        p_image = problem.op.matvec(p)
        curvature = jnp.sum(problem.weights * p_image**2) + self.ridge * jnp.sum(p**2)
        length = safe_ratio(state.squared, curvature)
        x, image = state.x + length * p, state.image + length * p_image
        residual = -problem.gradient(image) - self.ridge * x  # recomputed, not updated: no drift in float32
        squared = jnp.sum(residual**2)
        return CGState(x, image, residual, residual + safe_ratio(squared, state.squared) * p, squared)

    def objective(self, problem: Problem, state: CGState) -> Float[Array, ""]:
        """Least squares plus mu/2 |x|^2."""
        return problem.least_squares(state.x, state.image) + 0.5 * self.ridge * jnp.sum(state.x**2)


def safe_ratio(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
