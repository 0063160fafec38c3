"""Points in space from noisy views at unknown angles: structures from triples of views, poses by search, all refined together.

Where noise or an unlucky direction spoils some views, no view is trusted. Every triple of views gives a structure; it is judged
by how well it explains all raw samples, each view at its own best pose, and the best ones are refined.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require, require_shape
from lfjax.fri.planar import Features, Sampling, amplitudes, esprit
from lfjax.fri.refine import least_squares, require_x64
from lfjax.fri.search import alternating_projection
from lfjax.fri.unknown_view import (
    Structure,
    factorise,
    project,
    random_rotations,
    refine_structure,
    rotation,
)

GRID = 3  # places a sample and axis on which points of a view are searched
ORIENTATIONS = 1500  # of a pose search: about 15 degrees apart


class Effort(NamedTuple):
    """How hard `recover_noisy` tries.

    Attributes:
        triples: of views, at most; all there are if fewer.
        structures: that are refined.
        rounds: of pose search and refinement.
        steps: of each refinement.
    """

    triples: int = 60
    structures: int = 3
    rounds: int = 2
    steps: int = 12


def recover_noisy(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    count: int,
    features: Features,
    *,
    key: Array,
    effort: Effort = Effort(),  # noqa: B008 - immutable
) -> Structure:
    """Points with distinct amplitudes from noisy samples of views at unknown angles.

    1. Points of each view: by ESPRIT and by alternating projection on a grid, both refined on the samples, the better one kept.
    2. Structures: points of three views matched by the order of their amplitudes, factorised; one a triple.
    3. Poses: each view's best of many orientations of a structure, refined on its samples. Structures are ranked by the
       misfit of all views, in which one bad view counts no more than twice the median.
    4. The best structures are refined with all poses on all samples, views that fit badly are posed anew, and the one with the
       least misfit wins.

    Args:
        sampling: kernel and grid of all views.
        views: samples.
        count: K.
        features: see `planar.Features`.
        key: of the orientations and triples that are tried.
        effort: how many.
    """
    require_x64("recover_noisy")
    p = len(views)
    require_shape("views", views.shape, ("p", sampling.size, sampling.size))
    require(p >= 3, "views", p, "three or more")
    turns_key, triples_key = jax.random.split(key)
    found = jax.lax.map(lambda y: _view_points(sampling, y, count, features), views)
    order = jnp.argsort(found[1], axis=1)
    places = jnp.take_along_axis(found[0], order[:, :, None], axis=1)
    heights = jnp.median(jnp.take_along_axis(found[1], order, axis=1), axis=0)

    triples = np.array(list(itertools.combinations(range(p), 3)))
    chosen = jnp.asarray(triples)
    if len(triples) > effort.triples:
        chosen = jax.random.permutation(triples_key, chosen)[: effort.triples]
    orientations = random_rotations(turns_key, ORIENTATIONS)

    def judge(triple: Array) -> tuple[Array, Array]:
        points, _, _, _ = factorise(places[triple])
        misfits = jax.vmap(lambda y: _poses(sampling, y, points, heights, orientations)[1])(views)
        return points, jnp.sum(jnp.minimum(misfits, 2 * jnp.median(misfits)))

    candidates, scores = jax.lax.map(judge, chosen)
    best = jnp.argsort(jnp.nan_to_num(scores, nan=jnp.inf))[: effort.structures]

    def finish(points: Array) -> Structure:
        rotations, shifts = _search(sampling, views, points, heights, orientations)
        nothing = jnp.zeros(p)
        structure = Structure(points, heights, rotations, shifts, nothing, jnp.asarray(True))
        structure = refine_structure(sampling, views, structure, steps=effort.steps)
        for _ in range(effort.rounds - 1):
            rotations, shifts = _search(sampling, views, structure.points, structure.amplitudes, orientations)
            again = structure._replace(rotations=rotations, shifts=shifts)
            again = refine_structure(sampling, views, again, steps=effort.steps)
            better = _total(again, views) < _total(structure, views)
            structure = jax.tree.map(lambda a, b, better=better: jnp.where(better, a, b), again, structure)
        return structure

    finished = jax.lax.map(finish, candidates[best])
    winner = jnp.argmin(jax.vmap(lambda s: _total(s, views))(finished))
    return jax.tree.map(lambda leaf: leaf[winner], finished)


def _total(structure: Structure, views: Array) -> Array:
    """|samples - model|^2 of all views."""
    return jnp.sum(structure.residual**2 * jnp.sum(views**2, axis=(1, 2)))


def _view_points(
    sampling: Sampling, samples: Float[Array, "m n"], count: int, features: Features
) -> tuple[Array, Array]:
    """Points and amplitudes of one view, by two ways, the better one."""
    limit = features.reach * sampling.spacing

    def residual(parameters: tuple[Array, Array]) -> Array:
        return (sampling.plane(*parameters) - samples).ravel()

    def finish(points: Array) -> tuple[tuple[Array, Array], Array]:
        points = jnp.clip(jnp.nan_to_num(points), -limit, limit)
        return least_squares(residual, (points, amplitudes(sampling, samples, points)), steps=8)

    axis = jnp.linspace(-limit, limit, int(GRID * 2 * features.reach) + 1)
    lines = sampling.basis(axis)
    dictionary = jnp.einsum("ym,xn->yxmn", lines, lines).reshape(len(axis) ** 2, -1)
    index = alternating_projection(dictionary, samples.ravel(), count, cycles=4)
    searched, first = finish(jnp.stack([axis[index % len(axis)], axis[index // len(axis)]], axis=-1))
    algebraic, second = finish(features.place(esprit(features(samples), count)) * sampling.spacing)
    return jax.tree.map(lambda a, b: jnp.where(first < second, a, b), searched, algebraic)


def _poses(
    sampling: Sampling, samples: Array, points: Array, heights: Array, orientations: Array, keep: int = 1
) -> tuple[tuple[Array, Array], Array]:
    """The best orientations of a structure for a view, their shifts (from the centre of mass), and the least misfit."""
    n = jnp.asarray(sampling.positions) * sampling.spacing
    total = jnp.sum(samples)
    centre = jnp.stack([jnp.sum(samples.sum(0) * n), jnp.sum(samples.sum(1) * n)]) / total
    own = project(points, orientations, jnp.zeros((len(orientations), 2)))
    shifts = centre - jnp.einsum("k,pki->pi", heights, own) / jnp.sum(heights)
    misfit = jax.vmap(lambda q: jnp.sum((sampling.plane(q, heights) - samples) ** 2))(own + shifts[:, None])
    best = jnp.argsort(misfit)[:keep]
    return (orientations[best], shifts[best]), misfit[best[0]]


def _search(
    sampling: Sampling, views: Array, points: Array, heights: Array, orientations: Array
) -> tuple[Array, Array]:
    """The pose of every view: the three best orientations, each refined on the samples, and the best of these."""

    def pose(samples: Array) -> tuple[Array, Array]:
        (turns, shifts), _ = _poses(sampling, samples, points, heights, orientations, keep=3)

        def finish(turn: Array, shift: Array) -> tuple[Array, Array, Array]:
            def residual(parameters: tuple[Array, Array]) -> Array:
                view = project(points, (rotation(parameters[0]) @ turn)[None], parameters[1][None])[0]
                return (sampling.plane(view, heights) - samples).ravel()

            (by, to), cost = least_squares(residual, (jnp.zeros(3), shift), steps=8)
            return rotation(by) @ turn, to, cost

        refined, moved, costs = jax.vmap(finish)(turns, shifts)
        winner = jnp.argmin(costs)
        return refined[winner], moved[winner]

    return jax.lax.map(pose, views)
