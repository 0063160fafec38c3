"""Footprints from function: given time courses, where does their light come from?

    min over s >= 0, s_i = 0 outside of its support:   sum_t |y_t - sum_i c_i(t) H s_i|^2_W

The movie enters by A = Y C^T and G = C C^T alone, which are gathered on a stream; alternated with time courses this is
constrained nonnegative matrix factorisation (Pnevmatikakis et al., Neuron 89, 285 (2016)) through the optics.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require, require_shape
from lfjax.linop import LinearOperator
from lfjax.solvers import Problem


class Statistics(NamedTuple):
    """What footprints need of a movie.

    Attributes:
        seen: (n, y, x), A: frames weighed by each time course.
        gram: (n, n), G: products of time courses.
    """

    seen: Float[np.ndarray, "n y x"]
    gram: Float[np.ndarray, "n n"]


def movie_statistics(frames: Any, courses: Float[np.ndarray, "n t"], *, size: int = 256) -> Statistics:
    """A and G, the movie read once, `size` frames in memory at a time.

    Raises:
        ShapeError: not one value of each course a frame.
    """
    courses = np.asarray(courses, np.float32)
    require_shape("courses", courses.shape, ("n", len(frames)))
    add = jax.jit(lambda c, y: jnp.tensordot(c, y, 1))
    seen = np.zeros((len(courses), *frames.shape[1:]))
    for first in range(0, len(frames), size):
        block = np.asarray(frames[first : first + size], np.float32)
        seen += np.asarray(add(courses[:, first : first + size], block))
    return Statistics(seen, courses.astype(float) @ courses.T.astype(float))


def refine_footprints(
    op: LinearOperator,
    footprints: Float[np.ndarray, "n z y x"],
    statistics: Statistics,
    support: Any,
    *,
    weights: Float[Array, "y x"] | None = None,
    steps: int = 10,
) -> Float[np.ndarray, "n z y x"]:
    """Some steps of projected gradient on all footprints together, accelerated (FISTA).

    Args:
        op: H.
        footprints: to start from.
        statistics: from `movie_statistics`, with the courses of the same components in the same order.
        support: (n, z, y, x), true where a footprint may be: near its soma. A footprint whose support is empty stays as it is:
            neuropil, for example.
        weights: (y, x), of the pixels (`photon_weights`).
        steps: of the gradient.

    Raises:
        ShapeError: parts that do not fit each other.
        ParameterError: no steps.
    """
    s = jnp.asarray(footprints, jnp.float32)
    require_shape("footprints", s.shape, ("n", *op.in_shape))
    require_shape("support", np.shape(support), s.shape)
    require_shape("statistics.seen", np.shape(statistics.seen), (len(s), *op.out_shape))
    require(steps >= 1, "steps", steps, "1 or more")
    free = jnp.asarray(support).astype(bool)
    kept = ~free.any((1, 2, 3), keepdims=True)
    w = jnp.ones(op.out_shape) if weights is None else jnp.asarray(weights, jnp.float32)
    scale = float(np.trace(statistics.gram)) / len(s)
    gram, seen = (jnp.asarray(np.asarray(a) / scale, jnp.float32) for a in (statistics.gram, statistics.seen))
    largest = float(np.linalg.eigvalsh(np.asarray(gram, float))[-1])
    size = largest * Problem(op, jnp.zeros(op.out_shape), w).lipschitz()

    @jax.jit
    def move(s: Array, before: Array, clock: Array, gram: Array, seen: Array) -> tuple[Array, Array, Array]:
        later = (1 + jnp.sqrt(1 + 4 * clock**2)) / 2
        ahead = s + (clock - 1) / later * (s - before)
        left = jnp.tensordot(gram, jax.lax.map(op.matvec, ahead), 1) - seen
        slope = jax.lax.map(op.rmatvec, w * left)
        new = jnp.where(free, jnp.maximum(ahead - slope / size, 0), 0)
        return jnp.where(kept, s, new), s, later

    before, clock = s, jnp.ones(())
    for _ in range(steps):
        s, before, clock = move(s, before, clock, gram, seen)
    return np.asarray(s)
