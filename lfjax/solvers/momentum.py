"""Momentum of accelerated proximal gradients (FISTA), in one place: its clock, its factor, and where it restarts."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def advance(clock: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """t' = (1 + sqrt(1 + 4 t^2)) / 2 and the momentum (t - 1) / t': 0, 0.28, 0.43, ... towards 1, from t = 1.

    The extrapolated point is z = x_k + momentum (x_k - x_(k-1)).

    Args:
        clock: t, 1 at the start.

    Returns:
        t' and the momentum.

    Source: Beck & Teboulle, SIAM J. Imaging Sci. 2, 183 (2009), equations 4.2 and 4.3.
    """
    later = (1 + jnp.sqrt(1 + 4 * clock**2)) / 2
    return later, (clock - 1) / later


def points_uphill(z: Array, x: Array, x_before: Array, axis: int | tuple[int, ...] | None = None) -> Bool[Array, "*n"]:
    """(z - x) . (x - x_before) > 0: the step from z to x turned against the momentum, so the clock restarts at 1.

    Args:
        z: extrapolated point.
        x: the estimate that the step from z gives.
        x_before: the estimate before it.
        axis: axes of the scalar product; all if not given, so that one clock serves the whole array.

    Source: O'Donoghue & Candes, Found. Comput. Math. 15, 715 (2015), the gradient scheme.
    """
    return jnp.sum((z - x) * (x - x_before), axis=axis) > 0
