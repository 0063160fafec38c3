"""Levenberg-Marquardt on normal equations, for problems of few parameters by the thousand: batch it by `jax.vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float


class Normal(NamedTuple):
    """A sum of squares around a place: cost + 2 gradient . d + d . matrix d for a small move d.

    Attributes:
        cost: |samples - model|^2.
        gradient: J^T (model - samples).
        matrix: J^T J, the Fisher matrix at unit noise.
    """

    cost: Float[Array, ""]
    gradient: Float[Array, " p"]
    matrix: Float[Array, "p p"]


def descend(
    linearise: Callable[[Any], Normal],
    move: Callable[[Any, Array], Any],
    start: Any,
    *,
    steps: int,
    damping: float = 1e-3,
) -> tuple[Any, Float[Array, ""]]:
    """Levenberg-Marquardt on normal equations: a fixed number of steps, each kept if the cost falls. Batch it by `jax.vmap`.

    Half of the digits that `fri.refine.least_squares` has, and a small part of its time.

    Args:
        linearise: parameters to normal equations of a small move.
        move: parameters and a move to parameters: addition, a turn.
        start: parameters, any pytree.
        steps: taken or refused.
        damping: of the first step, as a share of the diagonal.

    Returns:
        The parameters, and the cost there.
    """

    def step(state: tuple[Any, Normal, Array], _: None) -> tuple[tuple[Any, Normal, Array], None]:
        here, normal, share = state
        diagonal = jnp.diag(normal.matrix)
        damped = normal.matrix + jnp.diag(share * diagonal + 1e-12 * jnp.max(diagonal) + 1e-300)
        there = move(here, -cho_solve(cho_factor(damped), normal.gradient))
        new = linearise(there)
        better = new.cost < normal.cost
        kept = jax.tree.map(lambda a, b: jnp.where(better, a, b), (there, new), (here, normal))
        return (*kept, jnp.where(better, share / 5, jnp.minimum(4 * share, 1e6))), None

    (found, normal, _), _ = jax.lax.scan(step, (start, linearise(start), jnp.asarray(damping)), length=steps)
    return found, normal.cost
