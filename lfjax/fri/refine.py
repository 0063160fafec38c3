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

FREE = 1e-10  # singular values below this share of the largest belong to directions that the samples leave free


def require_x64(name: str) -> None:
    """Raise `ParameterError` unless JAX runs in float64: roots of what noise of 1e-7 moves are of no use."""
    expected = 'True: call jax.config.update("jax_enable_x64", True), or use `with jax.enable_x64(True):`'
    require(bool(jax.config.read("jax_enable_x64")), f"jax_enable_x64, which {name} needs,", False, expected)


def left_divide(a: Array, b: Array) -> Array:
    """argmin |a x - b| for a tall matrix, or a batch of them, by its singular values.

    One factorisation, not the two of QR and LU: on a CPU a batched one waits for threads of the pool that it runs on, and two
    that do not depend on each other, started together on as few threads, wait for ever (jax::ParallelBatchMap, JAX 0.10.2).
    For the same reason nothing here is factorised beside something else.
    """
    u, values, vt = jnp.linalg.svd(a, full_matrices=False)
    return vt.mT.conj() @ ((u.mT.conj() @ b) / values[..., :, None])


def least_squares(
    residual: Callable[[Any], Array], start: Any, *, steps: int = 50, polish: int = 3, tolerance: float = 1e-14
) -> tuple[Any, Float[Array, ""]]:
    """argmin |residual(x)|^2 from a start: optimistix's Levenberg-Marquardt, then Gauss-Newton steps as long as they help.

    The damping of the first makes it safe far from the answer and slow near it, where directions are free (a rotation of
    everything); the pseudo-inverse of the second leaves these alone. Gradients pass through the solution by the implicit
    function theorem, not through the steps. Batch by `jax.vmap`.

    Args:
        residual: of any pytree of parameters.
        start: the parameters to start from.
        steps: of Levenberg-Marquardt at most; 0 leaves it out.
        polish: of Gauss-Newton.
        tolerance: relative and absolute change of the parameters at which the first stops.

    Returns:
        The parameters, and |residual|^2 there.
    """
    solver: Any = optx.LevenbergMarquardt(rtol=tolerance, atol=tolerance)
    found = start
    if steps:
        found = optx.least_squares(lambda x, _: residual(x), solver, start, max_steps=steps, throw=False).value
    flat, unravel = ravel_pytree(found)
    constant = jax.lax.stop_gradient(flat)

    def of(x: Array) -> Array:
        return jax.lax.stop_gradient(residual(unravel(x)).ravel())

    def step(x: Array, _: None) -> tuple[Array, None]:
        slopes = jax.lax.stop_gradient(jax.jacfwd(lambda p: residual(unravel(p)).ravel())(x))
        new = x - jnp.linalg.lstsq(slopes, of(x), rcond=FREE)[0]
        return jnp.where(jnp.sum(of(new) ** 2) < jnp.sum(of(x) ** 2), new, x), None

    polished, _ = jax.lax.scan(step, constant, None, length=polish)
    found = unravel(flat + jax.lax.stop_gradient(polished - constant))
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
    inverse = jnp.where(values > FREE * values[0], 1 / jnp.where(values > 0, values, 1), 0)
    return sigma**2 * (right.T * inverse**2) @ right
