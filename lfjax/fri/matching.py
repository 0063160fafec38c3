"""Correspondence of indistinguishable points between views, by common lines.

Two projections of one set of points share a line: their image planes intersect in a direction along which both have the same
1-D positions. At the right pair of in-plane angles the sorted positions agree, and their order is the correspondence.
"""

from __future__ import annotations

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lfjax.errors import require, require_shape
from lfjax.fri.planar import Features, Sampling, recover_points
from lfjax.fri.refine import require_x64
from lfjax.fri.unknown_view import Structure, factorise, refine_structure

ANGLES = 240  # angles per half turn of the first view; the second, of two senses, takes a whole turn
CANDIDATES = 24  # pairs of angles that are refined
EXACT = 1e-7  # misfit above which a finer search is worth its time


@eqx.filter_jit
def common_line_orders(
    first: Float[Array, "k 2"], second: Float[Array, "k 2"], *, angles: int = ANGLES, candidates: int = CANDIDATES
) -> tuple[Int[Array, "c k"], Float[Array, " c"]]:
    """Candidate correspondences of two views, best first.

    For every pair of angles the sorted positions along both directions are compared. Gauss-Newton on the two angles, for the
    order found there, refines the best local pairs. The misfit is a sum of two terms. The ratio of the fourth to the third
    singular value of both centred views, 0 for a rank of 3, discriminates for five points or more, unless an affine map takes
    the structure into itself (a prism, a box). The remaining relative gap between both sets of positions along the line then
    decides.

    Args:
        first: points of one view.
        second: points of another view, in any order.
        angles: number of angles per half turn.
        candidates: number of pairs of angles that are refined.

    Returns:
        Permutations of the points of `second`, and the misfit of each.
    """
    require_shape("second", second.shape, first.shape)
    return _refine_orders(first, second, _candidate_angles(first, second, angles, candidates))


def _along(points: Float[Array, "k 2"], angle: Float[Array, ""]) -> Float[Array, " k"]:
    """Positions along a direction in the plane."""
    return points @ jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _candidate_angles(first: Array, second: Array, angles: int, candidates: int) -> Float[Array, "c 2"]:
    """Pairs of angles at the lowest local minima of the distance between sorted positions."""
    a, b = first - first.mean(0), second - second.mean(0)
    alpha, beta = (jnp.arange(turns * angles) * np.pi / angles for turns in (1, 2))
    one, two = (jnp.sort(jax.vmap(_along, (None, 0))(p, t), axis=1) for p, t in ((a, alpha), (b, beta)))
    distance = jnp.sum(one**2, 1)[:, None] + jnp.sum(two**2, 1)[None] - 2 * one @ two.T
    neighbours = [jnp.roll(distance, (i, j), (0, 1)) for i, j in itertools.product((-1, 0, 1), repeat=2) if (i, j) != (0, 0)]
    lowest = distance <= jnp.min(jnp.stack(neighbours), axis=0)
    _, index = jax.lax.top_k(-jnp.where(lowest, distance, jnp.inf).ravel(), candidates)
    return jnp.stack([alpha[index // (2 * angles)], beta[index % (2 * angles)]], axis=-1)


def _refine_orders(first: Array, second: Array, pairs: Float[Array, "c 2"]) -> tuple[Int[Array, "c k"], Float[Array, " c"]]:
    """Orders along pairs of angles, each pair refined, and their misfits, best first."""
    a, b = first - first.mean(0), second - second.mean(0)

    def order(pair: Array) -> Array:
        return jnp.argsort(_along(b, pair[1]))[jnp.argsort(jnp.argsort(_along(a, pair[0])))]

    def step(pair: Array, _: None) -> tuple[Array, None]:
        matched = b[order(pair)]

        def gap(t: Array) -> Array:
            return _along(a, t[0]) - _along(matched, t[1])

        jacobian = jax.jacfwd(gap)(pair)
        damped = jacobian.T @ jacobian + 1e-12 * jnp.sum(a**2) * jnp.eye(2)
        move = jnp.linalg.solve(damped, jacobian.T @ gap(pair))
        return pair - jnp.clip(move, -0.1, 0.1), None

    def refine(pair: Array) -> tuple[Array, Array]:
        pair, _ = jax.lax.scan(step, pair, None, length=4)
        permutation = order(pair)
        values = jnp.linalg.svd(jnp.concatenate([a, b[permutation]], axis=1), compute_uv=False)
        gap = _along(a, pair[0]) - _along(b[permutation], pair[1])
        return permutation, values[3] / values[2] + jnp.linalg.norm(gap) / jnp.linalg.norm(a)

    permutations, misfit = jax.vmap(refine)(pairs)
    best = jnp.argsort(misfit)
    return permutations[best], misfit[best]


@eqx.filter_jit
def match_views(views: Float[Array, "3 k 2"], *, keep: int = 4) -> tuple[Float[Array, "3 k 2"], Float[Array, ""]]:
    """Three views with their points in one order, and its misfit; four points are matched by trying all orders.

    `common_line_orders` gives candidates for views 2 and 3 against view 1. Among all pairs of the best `keep` of each, the one
    of least `affine_misfit` wins. If even that is not exact, the search repeats on angles four times as fine: points that
    nearly coincide along the common line change their order quickly.

    Args:
        views: points of three views, each in its own order.
        keep: number of candidates per pair of views.

    Returns:
        The views in the order of the first, and their `affine_misfit`, which is large if the match is wrong.
    """
    require_x64("match_views")
    require_shape("views", views.shape, (3, "k", 2))
    k = views.shape[1]
    require(k >= 4, "views", k, "four points or more")
    if k == 4:
        orders = jnp.asarray(list(itertools.permutations(range(4))))
        return _best_pair(views, orders, orders)

    def search(finer: Array) -> tuple[Array, Array]:
        pairs = jax.lax.cond(finer, lambda: grid_search(4 * ANGLES), lambda: grid_search(ANGLES))
        seconds, thirds = jax.vmap(lambda view, pairs: _refine_orders(views[0], view, pairs)[0][:keep])(views[1:], pairs)
        return _best_pair(views, seconds, thirds)

    def grid_search(angles: int) -> Array:
        return jax.vmap(lambda view: _candidate_angles(views[0], view, angles, CANDIDATES))(views[1:])

    def stage(number: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        again = jax.lax.cond(found[1] > EXACT, lambda: search(number == 1), lambda: found)
        return jax.tree.map(lambda a, b: jnp.where(again[1] < found[1], a, b), again, found)

    return jax.lax.fori_loop(0, 2, stage, (views, jnp.asarray(jnp.inf)))


def _best_pair(views: Array, seconds: Array, thirds: Array) -> tuple[Array, Array]:
    """Views in the pair of orders of least affine misfit, and that misfit."""

    def misfit(second: Array, third: Array) -> Array:
        return affine_misfit(jnp.stack([views[0], views[1][second], views[2][third]]))

    scores = jax.lax.map(lambda s: jax.vmap(lambda t: misfit(s, t))(thirds), seconds)
    best = jnp.argmin(jnp.nan_to_num(scores, nan=jnp.inf))
    second, third = seconds[best // len(thirds)], thirds[best % len(thirds)]
    return jnp.stack([views[0], views[1][second], views[2][third]]), scores.ravel()[best]


@eqx.filter_jit
def match_all(views: Float[Array, "p k 2"]) -> Float[Array, "p k 2"]:
    """Three or more views with their points in the order of the first; each further view is matched with the first two."""
    require_shape("views", views.shape, ("p", "k", 2))
    require(len(views) >= 3, "views", len(views), "three or more")
    first, _ = match_views(views[:3])
    if len(views) == 3:
        return first
    others = jax.lax.map(lambda view: match_views(jnp.stack([first[0], first[1], view]))[0][2], views[3:])
    return jnp.concatenate([first, others])


@eqx.filter_jit
def recover_alike(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    count: int,
    features: Features,
    *,
    view_steps: int = 20,
    steps: int = 50,
) -> Structure:
    """Points of equal amplitudes from the samples of views at unknown angles: as `recover`, matched by common lines.

    Args:
        sampling: kernel and grid of all views.
        views: samples of three or more views; rows are y.
        count: K, the number of points, four or more.
        features: see `planar.Features`.
        view_steps: number of refinement steps per view; 0: the algebra alone.
        steps: number of joint refinement steps on the raw samples; 0: none.
    """
    require_x64("recover_alike")
    require_shape("views", views.shape, ("p", sampling.size, sampling.size))
    found = jax.vmap(lambda y: recover_points(sampling, y, count, features, refine=view_steps))(views)
    points, rotations, shifts, determined = factorise(match_all(found.points))
    amplitudes = jnp.full(count, jnp.mean(found.amplitudes))
    start = Structure(points, amplitudes, rotations, shifts, jnp.zeros(len(views)), determined, jnp.ones(len(views), bool))
    return refine_structure(sampling, views, start, steps=steps)


@eqx.filter_jit
def affine_misfit(views: Float[Array, "p k 2"]) -> Float[Array, ""]:
    """Deviation of matched views from projections of one structure: |q - model| / |q| after `factorise`."""
    points, rotations, shifts, determined = factorise(views)
    model = jnp.einsum("pij,kj->pki", rotations[:, :2], points) + shifts[:, None]
    size = jnp.linalg.norm(views - views.mean(1, keepdims=True))
    return jnp.where(determined, jnp.linalg.norm(model - views) / size, jnp.inf)
