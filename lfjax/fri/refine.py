"""Maximum likelihood in white noise: Levenberg-Marquardt on the raw samples, and the Cramer-Rao bound of any model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact

from lfjax.errors import require

FREE = 1e-10  # singular values below this fraction of the largest belong to directions that the samples leave free

Parameters = TypeVar("Parameters")  # any pytree of arrays


def require_x64(name: str) -> None:
    """Raise `ParameterError` unless JAX runs in float64: roots perturbed by rounding of 1e-7 are useless."""
    expected = 'True: call jax.config.update("jax_enable_x64", True), or use `with jax.enable_x64(True):`'
    require(bool(jax.config.read("jax_enable_x64")), f"jax_enable_x64, which {name} needs,", False, expected)


def left_divide(a: Inexact[Array, "*batch m n"], b: Inexact[Array, "*batch m q"]) -> Inexact[Array, "*batch n q"]:
    """argmin |a x - b| for a tall matrix, or a batch of them, by its singular values.

    One factorisation replaces the two of QR and LU. On a CPU a batched factorisation waits for threads of the pool that it
    runs on, and two that do not depend on each other, started together on as few threads, wait forever
    (jax::ParallelBatchMap, JAX 0.10.2). For the same reason nothing here is factorised beside something else.
    """
    u, values, vt = jnp.linalg.svd(a, full_matrices=False)
    return vt.mT.conj() @ ((u.mT.conj() @ b) / values[..., :, None])


def least_squares(
    residual: Callable[[Parameters], Array],
    start: Parameters,
    *,
    steps: int = 50,
    polish: int = 3,
    tolerance: float = 1e-14,
) -> tuple[Parameters, Float[Array, ""]]:
    """argmin |residual(x)|^2 from a start: optimistix's Levenberg-Marquardt, then Gauss-Newton steps that reduce the misfit.

    The damping of the former makes it safe far from the answer and slow near it, where directions are free (a rotation of
    everything); the pseudo-inverse of the latter leaves these alone. Gradients pass through the solution by the implicit
    function theorem, not through the steps. Compiled whole; batch by `jax.vmap`.

    Args:
        residual: function of any pytree of parameters.
        start: initial parameters.
        steps: largest number of Levenberg-Marquardt steps; 0: none.
        polish: number of Gauss-Newton steps.
        tolerance: relative and absolute change of the parameters at which Levenberg-Marquardt stops.

    Returns:
        The parameters, and |residual|^2 at them.
    """
    solver: Any = optx.LevenbergMarquardt(rtol=tolerance, atol=tolerance)

    @jax.jit
    def solve(start: Parameters) -> tuple[Parameters, Array]:
        flat, unravel = ravel_pytree(start)  # one leaf: far less to compile

        def misfit(x: Array) -> Array:
            return residual(unravel(x)).ravel()

        def gauss_newton(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            x, here = state
            jacobian = jax.lax.stop_gradient(jax.jacfwd(misfit)(x))
            new = x - jnp.linalg.lstsq(jacobian, here, rcond=FREE)[0]
            there = jax.lax.stop_gradient(misfit(new))
            better = jnp.sum(there**2) < jnp.sum(here**2)
            return jax.tree.map(lambda a, b: jnp.where(better, a, b), (new, there), state), None

        if steps:
            flat = optx.least_squares(lambda x, _: misfit(x), solver, flat, max_steps=steps, throw=False).value
        if polish:
            constant = jax.lax.stop_gradient(flat)
            state = (constant, jax.lax.stop_gradient(misfit(constant)))
            (polished, _), _ = jax.lax.scan(gauss_newton, state, None, length=polish)
            flat = flat + jax.lax.stop_gradient(polished - constant)
        return unravel(flat), jnp.sum(misfit(flat) ** 2)

    return solve(start)


def cramer_rao(
    model: Callable[[Parameters], Array], parameters: Parameters, sigma: Float[Array, ""] | float
) -> Float[Array, "p p"]:
    """Cramer-Rao bound, the least covariance of an unbiased estimate: sigma^2 (J^T J)^+, J of the noiseless samples.

    Where the samples leave directions free (a global rotation), the pseudo-inverse takes the smallest covariance: project
    it on the determined directions.

    Args:
        model: function from parameters to samples.
        parameters: any pytree; rows and columns of the bound follow `jax.flatten_util.ravel_pytree`.
        sigma: standard deviation of white noise on the samples.
    """

    @jax.jit
    def at_unit_noise(parameters: Parameters) -> Array:
        flat, unravel = ravel_pytree(parameters)
        jacobian = jax.jacfwd(lambda p: model(unravel(p)).ravel())(flat)
        _, values, right = jnp.linalg.svd(jacobian, full_matrices=False)
        inverse = jnp.where(values > FREE * values[0], 1 / jnp.where(values > 0, values, 1), 0)
        return (right.T * inverse**2) @ right

    return sigma**2 * at_unit_noise(parameters)
