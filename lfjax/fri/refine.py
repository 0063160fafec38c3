"""Maximum likelihood in white noise: Levenberg-Marquardt on the raw samples, and the Cramer-Rao bound of any model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from lfjax.errors import require


def require_x64(name: str) -> None:
    """Raise `ParameterError` unless JAX runs in float64: roots of what noise of 1e-7 moves are of no use."""
    expected = 'True: call jax.config.update("jax_enable_x64", True), or use `with jax.enable_x64(True):`'
    require(bool(jax.config.read("jax_enable_x64")), f"jax_enable_x64, which {name} needs,", False, expected)


def least_squares(
    residual: Callable[[Any], Array], start: Any, *, steps: int = 50, tolerance: float = 1e-14
) -> tuple[Any, Float[Array, ""]]:
    """argmin |residual(x)|^2 from a start, by optimistix's Levenberg-Marquardt; batch by `jax.vmap`.

    Gradients pass through the solution by the implicit function theorem, not through the steps.

    Args:
        residual: of any pytree of parameters.
        start: the parameters to start from.
        steps: at most.
        tolerance: relative and absolute change of the parameters at which it stops.

    Returns:
        The parameters, and |residual|^2 there.
    """
    solver: Any = optx.LevenbergMarquardt(rtol=tolerance, atol=tolerance)
    found = optx.least_squares(lambda x, _: residual(x), solver, start, max_steps=steps, throw=False).value
    return found, jnp.sum(residual(found) ** 2)


def cramer_rao(model: Callable[[Any], Array], parameters: Any, sigma: float | Array) -> Float[Array, "p p"]:
    """Cramer-Rao bound: covariance that no unbiased estimate goes below, sigma^2 (J^T J)^+, J of the noiseless samples.

    Where the samples leave directions free (a global rotation), the pseudo-inverse takes the smallest covariance: project
    it on what is determined.

    Args:
        model: parameters to samples.
        parameters: any pytree; rows and columns of the bound follow `jax.flatten_util.ravel_pytree`.
        sigma: standard deviation of white noise on the samples.
    """
    flat, unravel = ravel_pytree(parameters)
    jacobian = jax.jacfwd(lambda p: model(unravel(p)).ravel())(flat)
    _, values, right = jnp.linalg.svd(jacobian, full_matrices=False)
    inverse = jnp.where(values > 1e-10 * values[0], 1 / jnp.where(values > 0, values, 1), 0)
    return sigma**2 * (right.T * inverse**2) @ right
