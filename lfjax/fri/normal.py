"""Normal equations of points in a plane from one-dimensional Gram matrices, and damped Gauss-Newton steps on them.

With images separable along x and y, the inner product of two of them, or of their derivatives, is a product of two
one-dimensional ones: a K x K Gram matrix an axis takes the place of a Jacobian of all samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from lfjax.fri.planar import Sampling


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


def point_normal(
    sampling: Sampling,
    samples: Float[Array, "m n"],
    points: Float[Array, "k 2"],
    amplitudes: Float[Array, " k"],
    jacobian: Float[Array, "3k q"],
) -> Normal:
    """Normal equations of `Sampling.plane` in parameters that move its points; the kernel must be smooth.

    The cost is a difference of sums as large as |samples|^2: its rounding is 1e-16 of that.

    Args:
        sampling: kernel and grid.
        samples: y.
        points: (x, y).
        amplitudes: of them.
        jacobian: d (all x, all y, all amplitudes) / d parameters.
    """
    slope = Sampling(sampling.kernel.derivative(), sampling.size, sampling.spacing)
    k, weight = len(amplitudes), amplitudes[:, None]
    x, y = (sampling.basis(points[:, axis]) for axis in (0, 1))
    by_x, by_y = (slope.basis(points[:, axis]) / sampling.spacing * weight for axis in (0, 1))
    along_x, along_y = jnp.concatenate([by_x, x, x]), jnp.concatenate([y, by_y, y])
    if 3 * k > samples.size:  # more points than samples: the Jacobian itself is the smaller matrix
        columns = jnp.einsum("pm,pn,pq->mnq", along_y, along_x, jacobian).reshape(samples.size, -1)
        misfit = (jnp.einsum("km,kn->mn", y, x * weight) - samples).ravel()
        return Normal(misfit @ misfit, columns.T @ misfit, columns.T @ columns)
    gram = (along_x @ along_x.T) * (along_y @ along_y.T)
    seen = jnp.sum((along_y @ samples) * along_x, axis=1)
    gradient = gram[:, 2 * k :] @ amplitudes - seen
    cost = jnp.sum(samples**2) - amplitudes @ (seen[2 * k :] - gradient[2 * k :])
    return Normal(cost, jacobian.T @ gradient, jacobian.T @ gram @ jacobian)


def descend(
    linearise: Callable[[Any], Normal],
    move: Callable[[Any, Array], Any],
    start: Any,
    *,
    steps: int,
    damping: float = 1e-3,
) -> tuple[Any, Float[Array, ""]]:
    """Levenberg-Marquardt on normal equations: a fixed number of steps, each kept if the cost falls. Batch it by `jax.vmap`.

    Half of the digits that `refine.least_squares` has, and a small part of its time.

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
