"""Nonnegative least squares with one small matrix and many right-hand sides: time courses of known footprints."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import require, require_finite, require_shape
from lfjax.solvers.momentum import advance, points_uphill
from lfjax.solvers.units import power_of_two


def nonnegative_least_squares(
    gram: Float[Array, "n n"], right: Float[Array, "n t"], *, tolerance: float = 1e-5, steps: int = 1000
) -> Float[Array, "n t"]:
    """min 1/2 c^T G c - b^T c over c >= 0, for every column b: G = A^T A and b = A^T y of min |y - A c|^2.

    The unconstrained solution comes first. Where it is positive, as it mostly is for fluorescence over a baseline, it is the
    result. Otherwise FISTA starts from it, restarted where it goes uphill, with G scaled to a diagonal of one. It ends when
    the largest violation of the optimality conditions (c >= 0, G c - b >= 0, c (G c - b) = 0) is below `tolerance` times the
    largest |b|.

    Args:
        gram: G, symmetric and positive definite, or nearly so where columns of A are similar.
        right: b, one problem per column.
        tolerance: largest violation allowed, see above, in the scaled problem.
        steps: largest number of steps; a run that reaches it ends with a violation above the tolerance.

    Returns:
        c, one solution per column.

    Raises:
        ShapeError: the shapes do not match.
        ParameterError: `tolerance` is not positive, or a number is NaN or infinite. Under jit and vmap there are no values to
            look at, and one such column spoils the others.

    Source: Beck & Teboulle, SIAM J. Imaging Sci. (2009); O'Donoghue & Candes, Found. Comput. Math. (2015), for the restart.
    """
    require_shape("gram", gram.shape, (gram.shape[0], gram.shape[0]))
    require_shape("right", right.shape, (gram.shape[0], "t"))
    require(tolerance > 0, "tolerance", tolerance, "a positive number")
    for name, values in (("gram", gram), ("right", right)):
        if not isinstance(values, jax.core.Tracer):
            require_finite(name, values)
    unit = power_of_two(jnp.max(jnp.abs(right)))
    scale = jax.lax.rsqrt(jnp.maximum(jnp.diagonal(gram), jnp.finfo(gram.dtype).tiny))
    G, b = gram * scale[:, None] * scale, right / unit * scale[:, None]
    ridge = 10 * jnp.finfo(gram.dtype).eps * len(gram)
    factor = jax.scipy.linalg.cho_factor(G + ridge * jnp.eye(len(G), dtype=G.dtype))
    start = jnp.maximum(jax.scipy.linalg.cho_solve(factor, b), 0)
    lipschitz = jnp.max(jnp.sum(jnp.abs(G), axis=0))  # at least the largest eigenvalue
    enough = tolerance * jnp.max(jnp.abs(b))

    def violation(c: Array) -> Array:
        gradient = G @ c - b
        return jnp.max(jnp.where(c > 0, jnp.abs(gradient), jnp.maximum(-gradient, 0)))

    def unsolved(state: tuple[Array, Array, Array, Array, Array]) -> Array:
        return (state[3] < steps) & (state[4] > enough)

    def step(state: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
        c, ahead, clock, count, _ = state
        new = jnp.maximum(ahead - (G @ ahead - b) / lipschitz, 0)
        later, momentum = advance(clock)
        uphill = points_uphill(ahead, new, c, axis=0)  # each column has its own clock
        later, momentum = jnp.where(uphill, 1.0, later), jnp.where(uphill, 0.0, momentum)
        return new, new + momentum * (new - c), later, count + 1, violation(new)

    clock = jnp.ones(b.shape[1], b.dtype)
    state = (start, start, clock, jnp.asarray(0), violation(start))
    return jax.lax.while_loop(unsolved, step, state)[0] * scale[:, None] * unit
