"""Footprints from function: the volumes whose light follows given time courses.

    min over s >= 0, s_i = 0 outside of its support:   sum_t |y_t - sum_i c_i(t) H s_i|^2_W

The movie enters only by A = Y C^T and G = C C^T, which one pass over it accumulates. Alternated with time courses, this is
constrained nonnegative matrix factorisation (Pnevmatikakis et al., Neuron 89, 285 (2016)) through the optics.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.linop import LinearOperator
from lfjax.movies.frames import Frames
from lfjax.solvers import Problem, momentum


class Statistics(NamedTuple):
    """Sums over a movie that determine footprints.

    Attributes:
        seen: (n, row, col), A: sum of the frames weighted by each time course.
        gram: (n, n), G: products of time courses.
    """

    seen: Float[np.ndarray, "n row col"]
    gram: Float[np.ndarray, "n n"]


def movie_statistics(frames: Frames, courses: ArrayLike, *, size: int = 256) -> Statistics:
    """A and G, in one pass over the movie.

    Args:
        frames: (t, row, col).
        courses: C, (n, t).
        size: frames in memory at a time.

    Raises:
        ShapeError: `courses` has other than one value per frame.
    """
    c = np.asarray(courses, np.float32)
    require_shape("courses", c.shape, ("n", len(frames)))
    seen = np.zeros((len(c), *frames.shape[1:]))
    for first in range(0, len(frames), size):
        seen += np.tensordot(c[:, first : first + size], np.asarray(frames[first : first + size], np.float32), 1)
    return Statistics(seen, c.astype(float) @ c.T.astype(float))


def refine_footprints(
    op: LinearOperator,
    footprints: ArrayLike,
    statistics: Statistics,
    support: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    steps: int = 10,
) -> Float[np.ndarray, "n z y x"]:
    """Refine all footprints together by accelerated projected gradient (FISTA).

    Args:
        op: H.
        footprints: (n, z, y, x), the first iterate.
        statistics: from `movie_statistics`, with the courses of the same components in the same order.
        support: (n, z, y, x), true where a footprint may be nonzero: near its soma. A footprint with an empty support is
            held fixed: neuropil, for example.
        weights: (row, col), weight of each pixel (`photon_weights`).
        steps: number of gradient steps.

    Raises:
        ShapeError: the shapes do not fit each other.
        ParameterError: no steps.
    """
    start = jnp.asarray(footprints, jnp.float32)
    require_shape("footprints", start.shape, ("n", *op.in_shape))
    require_shape("support", np.shape(support), start.shape)
    require_shape("statistics.seen", np.shape(statistics.seen), (len(start), *op.out_shape))
    require(steps >= 1, "steps", steps, "1 or more")
    free = np.asarray(support, bool)
    w = np.ones(op.out_shape, np.float32) if weights is None else np.asarray(weights, np.float32)
    scale = float(np.trace(statistics.gram)) / len(start)
    gram, seen = (np.asarray(a / scale, np.float32) for a in (statistics.gram, statistics.seen))
    largest = jnp.asarray(np.linalg.eigvalsh(gram.astype(float))[-1], jnp.float32)
    return np.asarray(
        _refine(op, start, jnp.asarray(free), jnp.asarray(w), jnp.asarray(gram), jnp.asarray(seen), largest, steps)
    )


@eqx.filter_jit
def _refine(
    op: LinearOperator,
    start: Float[Array, "n z y x"],
    free: Bool[Array, "n z y x"],
    weights: Float[Array, "row col"],
    gram: Float[Array, "n n"],
    seen: Float[Array, "n row col"],
    largest: Float[Array, ""],
    steps: int,
) -> Float[Array, "n z y x"]:
    lipschitz = largest * Problem(op, jnp.zeros(op.out_shape), weights).lipschitz()
    kept = ~free.any((1, 2, 3), keepdims=True)

    def step(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        s, before, clock = state
        later, push = momentum.advance(clock)
        ahead = s + push * (s - before)
        residual = jnp.tensordot(gram, jax.lax.map(op.matvec, ahead), 1) - seen
        gradient = jax.lax.map(op.rmatvec, weights * residual)
        new = jnp.where(free, jnp.maximum(ahead - gradient / lipschitz, 0), 0)
        return (jnp.where(kept, s, new), s, later), None

    return jax.lax.scan(step, (start, start, jnp.ones(())), None, length=steps)[0][0]
