"""Points in a plane from their one-dimensional projections at unknown angles: a sinogram without angles.

View i contains q_ik = x_k cos theta_i + y_k sin theta_i + t_i. This is `unknown_view` one dimension lower: three views of
three non-collinear points fix everything up to O(2) (Basu & Bresler, IEEE Trans. Image Process. 9, 1094 (2000)).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lfjax.errors import require, require_shape
from lfjax.fri.annihilation import recover_line
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.refine import least_squares, require_x64
from lfjax.fri.unknown_view import factorise

TRIPLES = 84  # largest number of triples of views that are tried
REFINED = 3  # structures from triples that are refined
ANGLES = 360  # angles tried per view


class Plane(NamedTuple):
    """Points in a plane and their one-dimensional views, up to O(2).

    Attributes:
        points: (x, y), centred on their mean.
        amplitudes: amplitude of each point.
        angles: theta of each view, in radians.
        shifts: t of each view.
        residual: |samples - model| / |samples| of each view.
        determined: whether the views fix the points.
    """

    points: Float[Array, "k 2"]
    amplitudes: Float[Array, " k"]
    angles: Float[Array, " p"]
    shifts: Float[Array, " p"]
    residual: Float[Array, " p"]
    determined: Bool[Array, ""]


@eqx.filter_jit
def line_samples(
    sampling: Sampling,
    points: Float[Array, "k 2"],
    amplitudes: Float[Array, " k"],
    angles: Float[Array, " p"],
    shifts: Float[Array, " p"],
) -> Float[Array, "p n"]:
    """Samples of all views.

    Args:
        sampling: kernel and grid.
        points: (x, y).
        amplitudes: amplitude of each point.
        angles: theta of each view, in radians.
        shifts: t of each view.
    """
    projected = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1) @ points.T + shifts[:, None]
    return jax.vmap(sampling.line, (0, None))(projected, amplitudes)


@eqx.filter_jit
def recover_plane(
    sampling: Sampling,
    views: Float[Array, "p n"],
    count: int,
    features: Features,
    *,
    method: str = "pencil",
    view_steps: int = 20,
    steps: int = 50,
) -> Plane:
    """Points with distinct amplitudes in a plane from the samples of three or more views at unknown angles.

    `recover_line` finds the points of each view; the order of their amplitudes matches them. Points often coincide along a
    line of sight and spoil that view. Therefore triples of views each give a structure, ranked by the misfit of all views,
    each at its best angle; the best few are refined on all samples. Pure and compiled whole.

    Args:
        sampling: kernel and grid of all views.
        views: samples of each view.
        count: K, the number of points, three or more.
        features: see `planar.Features`.
        method: method of `annihilation.recover_line`.
        view_steps: number of refinement steps per view; 0: the algebra alone.
        steps: number of joint refinement steps on the raw samples; 0: none.

    Raises:
        ParameterError: JAX does not run in float64, fewer than three views or points.
    """
    require_x64("recover_plane")
    p = len(views)
    require_shape("views", views.shape, ("p", sampling.size))
    require(p >= 3, "views", p, "three or more: two never fix the structure")
    require(count >= 3, "count", count, "three points or more: two lie on a line")
    lines = jax.vmap(lambda y: recover_line(sampling, y, count, features, method=method, refine=view_steps))(views)
    order = jnp.argsort(lines.amplitudes, axis=1)
    matched = jnp.take_along_axis(lines.points, order, axis=1)
    heights = jnp.take_along_axis(lines.amplitudes, order, axis=1)

    def finish(found: tuple[Array, Array, Array, Array]) -> tuple[tuple[Array, Array, Array, Array], Array]:
        if steps:
            found = least_squares(lambda q: line_samples(sampling, *q) - views, found, steps=steps)[0]
        return found, jnp.linalg.norm(line_samples(sampling, *found) - views, axis=1)

    if p == 3:
        points, rotations, shifts, determined = factorise(matched[:, :, None])  # no view is left to rank structures
        angles = jnp.arctan2(rotations[:, 0, 1], rotations[:, 0, 0])
        found, misfit = finish((points, jnp.median(heights, axis=0), angles, shifts[:, 0]))
    else:
        triples = list(itertools.combinations(range(p), 3))
        chosen = jnp.asarray(triples[:: -(-len(triples) // TRIPLES)])
        factors = jax.lax.map(lambda t: factorise(matched[t][:, :, None]), chosen)
        candidates, fixed = factors.points, factors.determined
        strengths = jax.vmap(lambda t: jnp.median(heights[t], axis=0))(chosen)
        scores = jax.lax.map(lambda c: _best_angles(sampling, views, *c)[2], (candidates, strengths))
        scores = jnp.sum(jnp.minimum(scores, 2 * jnp.median(scores, axis=1, keepdims=True)), axis=1)
        best = jnp.argsort(jnp.where(jnp.isfinite(scores) & fixed, scores, jnp.inf))[:REFINED]

        def improve(start: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array, Array], Array]:
            return finish((*start, *_best_angles(sampling, views, *start)[:2]))

        refined, misfits = jax.lax.map(improve, (candidates[best], strengths[best]))
        winner = jnp.argmin(jnp.nan_to_num(jnp.sum(misfits**2, axis=1), nan=jnp.inf))
        found, misfit, determined = jax.tree.map(lambda leaf: leaf[winner], (refined, misfits, fixed[best]))
    points, amplitudes, angles, shifts = found
    middle = points.mean(0)
    shifts = shifts + jnp.cos(angles) * middle[0] + jnp.sin(angles) * middle[1]
    residual = misfit / jnp.linalg.norm(views, axis=1)
    return Plane(points - middle, amplitudes, angles, shifts, residual, determined)


def _best_angles(sampling: Sampling, views: Array, points: Array, amplitudes: Array) -> tuple[Array, Array, Array]:
    """The best angle of each view, its shift by the centre of mass, and |samples - model|^2 there."""
    n = sampling.positions * sampling.spacing
    centres = views @ n / jnp.sum(views, axis=1)
    angles = jnp.arange(ANGLES) * 2 * np.pi / ANGLES
    projected = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1) @ points.T
    middles = projected @ amplitudes / jnp.sum(amplitudes)

    def one(view: Array, centre: Array) -> tuple[Array, Array, Array]:
        model = jax.vmap(sampling.line, (0, None))(projected + (centre - middles)[:, None], amplitudes)
        misfit = jnp.sum((model - view) ** 2, axis=1)
        best = jnp.argmin(misfit)
        return angles[best], centre - middles[best], misfit[best]

    return jax.vmap(one)(views, centres)
