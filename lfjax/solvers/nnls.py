"""Small nonnegative least squares with one matrix and many right-hand sides: time courses of known footprints."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import require, require_shape


def nonnegative_least_squares(
    gram: Float[Array, "n n"], right: Float[Array, "n t"], *, tolerance: float = 1e-5, steps: int = 1000
) -> Float[Array, "n t"]:
    """min 1/2 c^T G c - b^T c over c >= 0, for every column b: G = A^T A and b = A^T y of min |y - A c|^2.

    The unconstrained solution comes first; where all of it is positive, which fluorescence over a baseline mostly is, that was
    all. Otherwise FISTA goes on from it, restarted where it goes uphill, with G scaled to a diagonal of one, until the largest
    violation of the optimality conditions (c >= 0, G c - b >= 0, c (G c - b) = 0) is below `tolerance` times the largest |b|.

    Args:
        gram: symmetric, positive definite or, with columns that look alike, nearly so.
        right: one problem a column.
        tolerance: see above, in the scaled problem.
        steps: at most; the largest violation left is then above the tolerance.

    Raises:
        ShapeError: the shapes do not fit.
        ParameterError: a number outside its meaning.

    Source: Beck & Teboulle, SIAM J. Imaging Sci. (2009); O'Donoghue & Candes, Found. Comput. Math. (2015), for the restart.
    """
    require_shape("gram", gram.shape, (gram.shape[0], gram.shape[0]))
    require_shape("right", right.shape, (gram.shape[0], "t"))
    require(tolerance > 0, "tolerance", tolerance, "a positive number")
    scale = jax.lax.rsqrt(jnp.maximum(jnp.diagonal(gram), jnp.finfo(gram.dtype).tiny))
    G, b = gram * scale[:, None] * scale, right * scale[:, None]
    ridge = 10 * jnp.finfo(gram.dtype).eps * len(gram)
    factor = jax.scipy.linalg.cho_factor(G + ridge * jnp.eye(len(G), dtype=G.dtype))
    start = jnp.maximum(jax.scipy.linalg.cho_solve(factor, b), 0)
    lipschitz = jnp.max(jnp.sum(jnp.abs(G), axis=0))  # at least the largest eigenvalue
    enough = tolerance * jnp.max(jnp.abs(b))

    def violation(c: Array) -> Array:
        slope = G @ c - b
        return jnp.max(jnp.where(c > 0, jnp.abs(slope), jnp.maximum(-slope, 0)))

    def go(state: tuple[Array, Array, Array, Array, Array]) -> Array:
        return (state[3] < steps) & (state[4] > enough)

    def turn(state: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
        c, ahead, clock, step, _ = state
        new = jnp.maximum(ahead - (G @ ahead - b) / lipschitz, 0)
        uphill = jnp.sum((ahead - new) * (new - c), axis=0) > 0  # column by column
        later = jnp.where(uphill, 1.0, (1 + jnp.sqrt(1 + 4 * clock**2)) / 2)
        momentum = jnp.where(uphill, 0.0, (clock - 1) / later)
        return new, new + momentum * (new - c), later, step + 1, violation(new)

    clock = jnp.ones(b.shape[1], b.dtype)
    state = (start, start, clock, jnp.asarray(0), violation(start))
    return jax.lax.while_loop(go, turn, state)[0] * scale[:, None]
