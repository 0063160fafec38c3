"""Which point of one view is which of another, when all points look alike: the common line.

Two projections of one set of points share a line: the two planes of view meet in a direction, along which both see the same
1-D positions. Along the right pair of in-plane angles the sorted positions agree, and their order is the correspondence.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lfjax.errors import require, require_shape
from lfjax.fri.planar import Features, Sampling, recover_points
from lfjax.fri.refine import require_x64
from lfjax.fri.unknown_view import Structure, factorise, refine_structure

ANGLES = 240  # of the first view; as many of half a turn of the second, twice for its two senses
CANDIDATES = 24  # pairs of angles that are looked at closer
EXACT = 1e-7  # misfit above which a finer search is worth its time


def common_line_orders(
    first: Float[Array, "k 2"], second: Float[Array, "k 2"], *, angles: int = ANGLES, candidates: int = CANDIDATES
) -> tuple[Int[Array, "c k"], Float[Array, " c"]]:
    """Candidate correspondences of two views, the best first: permutations of the points of `second`, and their misfit.

    For every pair of angles the sorted positions along both directions are compared; the best local pairs are refined by
    Gauss-Newton on the two angles for the order found there. The misfit has two parts. What four centred rows of rank 3 leave,
    the fourth singular value of both views together over the third, tells candidates apart for five points or more, unless an
    affine map takes the structure into itself (a prism, a box). The gap that is left between both sets of positions along the
    line, over their size, then decides.

    Args:
        first: points of a view.
        second: of another, in any order.
        angles: of the search.
        candidates: that are refined.
    """
    require_shape("second", second.shape, first.shape)
    a, b = first - first.mean(0), second - second.mean(0)
    alpha = jnp.arange(angles) * np.pi / angles
    beta = jnp.arange(2 * angles) * np.pi / angles

    def along(points: Array, angle: Array) -> Array:
        return points @ jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    one, two = (jnp.sort(jax.vmap(along, (None, 0))(p, t), axis=1) for p, t in ((a, alpha), (b, beta)))
    distance = jnp.sum(one**2, 1)[:, None] + jnp.sum(two**2, 1)[None] - 2 * one @ two.T
    around = [jnp.roll(distance, (i, j), (0, 1)) for i, j in itertools.product((-1, 0, 1), repeat=2) if (i, j) != (0, 0)]
    lowest = distance <= jnp.min(jnp.stack(around), axis=0)
    _, index = jax.lax.top_k(-jnp.where(lowest, distance, jnp.inf).ravel(), candidates)

    def look(place: Array) -> tuple[Array, Array]:
        angle = jnp.stack([alpha[place // (2 * angles)], beta[place % (2 * angles)]])

        def order(angle: Array) -> Array:
            return jnp.argsort(along(b, angle[1]))[jnp.argsort(jnp.argsort(along(a, angle[0])))]

        def step(angle: Array, _: None) -> tuple[Array, None]:
            matched = b[order(angle)]

            def gap(t: Array) -> Array:
                return along(a, t[0]) - along(matched, t[1])

            jacobian = jax.jacfwd(gap)(angle)
            damped = jacobian.T @ jacobian + 1e-12 * jnp.sum(a**2) * jnp.eye(2)
            move = jnp.linalg.solve(damped, jacobian.T @ gap(angle))
            return angle - jnp.clip(move, -0.1, 0.1), None

        angle, _ = jax.lax.scan(step, angle, None, length=4)
        permutation = order(angle)
        values = jnp.linalg.svd(jnp.concatenate([a, b[permutation]], axis=1), compute_uv=False)
        gap = along(a, angle[0]) - along(b[permutation], angle[1])
        return permutation, values[3] / values[2] + jnp.linalg.norm(gap) / jnp.linalg.norm(a)

    permutations, misfit = jax.vmap(look)(index)
    best = jnp.argsort(misfit)
    return permutations[best], misfit[best]


def match_views(views: Float[Array, "3 k 2"], *, keep: int = 4) -> tuple[Float[Array, "3 k 2"], Float[Array, ""]]:
    """Three views with their points in one order, and the misfit of it; for four points by trying all orders.

    Candidates of the views 2 and 3 against 1 by `common_line_orders`; of all pairs of the best `keep` of each, the one that
    `affine_misfit` finds most like projections of one structure is taken. Where even that is not exact, the search is done
    again on angles four times as fine: points that nearly coincide along the common line change their order quickly.

    Args:
        views: points of three views, each in its own order.
        keep: candidates a pair of views.

    Returns:
        The views in the order of the first, and their `affine_misfit`: large if the match is wrong.
    """
    require_x64("match_views")
    require_shape("views", views.shape, (3, "k", 2))
    k = views.shape[1]
    require(k >= 4, "views", k, "four points or more")
    if k == 4:
        every = jnp.asarray(list(itertools.permutations(range(4))))
        return _best(views, every, every)

    def search(angles: int) -> tuple[Array, Array]:
        seconds, thirds = jax.vmap(lambda view: common_line_orders(views[0], view, angles=angles)[0][:keep])(views[1:])
        return _best(views, seconds, thirds)

    found = search(ANGLES)
    again = jax.lax.cond(found[1] > EXACT, lambda: search(4 * ANGLES), lambda: found)
    return jax.tree.map(lambda a, b: jnp.where(again[1] < found[1], a, b), again, found)


def match_all(views: Float[Array, "p k 2"]) -> Float[Array, "p k 2"]:
    """Any number of views with their points in the order of the first one: each in turn beside the first two."""
    require_shape("views", views.shape, ("p", "k", 2))
    require(len(views) >= 3, "views", len(views), "three or more")
    first, _ = match_views(views[:3])
    others = [match_views(jnp.stack([first[0], first[1], view]))[0][2] for view in views[3:]]
    return jnp.stack([*first, *others])


def recover_alike(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    count: int,
    features: Features,
    *,
    view_steps: int = 20,
    steps: int = 50,
) -> Structure:
    """Points of equal amplitudes from the samples of views at unknown angles: `recover`, matched by common lines.

    Args:
        sampling: kernel and grid of all views.
        views: samples, three or more.
        count: K, four or more.
        features: see `planar.Features`.
        view_steps: of refinement of each view; 0 is the algebra alone.
        steps: of refinement of everything together on the raw samples; 0 leaves it out.
    """
    require_x64("recover_alike")
    require_shape("views", views.shape, ("p", sampling.size, sampling.size))
    found = jax.vmap(lambda y: recover_points(sampling, y, count, features, refine=view_steps))(views)
    points, rotations, shifts, determined = factorise(match_all(found.points))
    nothing = jnp.zeros(len(views))
    amplitudes = jnp.full(count, jnp.mean(found.amplitudes))
    start = Structure(points, amplitudes, rotations, shifts, nothing, determined, nothing == 0)
    return refine_structure(sampling, views, start, steps=steps)


def _best(views: Array, seconds: Array, thirds: Array) -> tuple[Array, Array]:
    def misfit(second: Array, third: Array) -> Array:
        return affine_misfit(jnp.stack([views[0], views[1][second], views[2][third]]))

    scores = jax.lax.map(lambda s: jax.vmap(lambda t: misfit(s, t))(thirds), seconds)
    best = jnp.argmin(jnp.nan_to_num(scores, nan=jnp.inf))
    second, third = seconds[best // len(thirds)], thirds[best % len(thirds)]
    return jnp.stack([views[0], views[1][second], views[2][third]]), scores.ravel()[best]


def affine_misfit(views: Float[Array, "p k 2"]) -> Float[Array, ""]:
    """How far matched views are from projections of one structure: |q - model| / |q| after `factorise`."""
    points, rotations, shifts, determined = factorise(views)
    model = jnp.einsum("pij,kj->pki", rotations[:, :2], points) + shifts[:, None]
    size = jnp.linalg.norm(views - views.mean(1, keepdims=True))
    return jnp.where(determined, jnp.linalg.norm(model - views) / size, jnp.inf)
