"""Alignment of two sets of poses, up to what projections do not determine: a turn of the object and its mirror image.

The poses R'_i found and R_i true of image i obey R'_i ~ R_i g_i G, with one rotation G of the object and, where it has a point
group, any element g_i of that. So M_i = R_i^T R'_i, the relative rotations, scatter about G: G is their mean, or, where many
poses are wrong, their median.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from lfjax.errors import require, require_shape
from lfjax.rotation.matrices import distance, nearest

STEPS = 20  # of reweighting; an exact turn is reached within ten
STARTS = 16  # of which one is within the noise of the turn, but for 1e-6, where 60 % of the poses are
COMPARED = 1000  # poses by which the starts are compared


class Alignment(NamedTuple):
    """How found poses differ from the true ones.

    Attributes:
        turn: rotation G of the object, R_found ~ R_true G up to the mirror image.
        mirrored: whether the found poses are those of the mirror image.
        error: (n,), remaining angle of each pose in radians.
    """

    turn: Float[Array, "3 3"]
    mirrored: Bool[Array, ""]
    error: Float[Array, " n"]


@partial(jax.jit, static_argnames=("handedness", "robust"))
def align_poses(
    found: Float[ArrayLike, "n 3 3"],
    truth: Float[ArrayLike, "n 3 3"],
    *,
    handedness: bool = True,
    robust: bool = True,
    group: Float[ArrayLike, "order 3 3"] | None = None,
) -> Alignment:
    """Compare poses up to a rotation of the object and its mirror image, which projections do not determine.

    With F = diag(1, 1, -1), the projection of F X at pose F R F is that of X at pose R. G minimises the sum of the angles
    e_i from R_i G to the found poses, by means of weight 1 / max(e_i, floor), repeated, with the least of 1 degree and the
    median angle as the floor. The start is the best of several, the mean and single pairs of poses; of starts and of hands,
    the one with the least median counts. Fewer than half of the poses, wrong in whichever way, do not change the turn by more
    than the noise of the others does.

    This is the default because a search leaves some images at wrong poses, and a single one of them turns all others where
    squares are summed. Where every pose is known to be near, `robust=False` gives the turn with an error lower by some 10 %.

    Args:
        found: (n, 3, 3), estimated poses.
        truth: (n, 3, 3), true poses.
        handedness: whether to try the mirror image too.
        robust: False: G minimises the squared (chordal) distances of all poses, and their sum chooses the hand.
        group: (order, 3, 3), rotations of the point group of the object in the frame of the true poses, from
            `tomography.symmetry_group`: R g is the same view as R, and the angle to the nearest of them counts. None: C1.

    Raises:
        ShapeError: the two sets differ in shape.
        ParameterError: there is no pose.
    """
    fits = fits_of_hands(found, truth, robust=robust, group=group)
    mirrored = handedness & (fits.score[1] < fits.score[0])
    hand = mirrored.astype(int)
    return Alignment(fits.turn[hand], mirrored, fits.error[hand])


class HandFits(NamedTuple):
    """Alignments of the found poses and of their mirror images.

    Attributes:
        turn: rotation of the object for each hand.
        error: remaining angles in radians.
        score: figure of merit of each hand, the lower the better: median angle, or mean squared angle.
    """

    turn: Float[Array, "2 3 3"]
    error: Float[Array, "2 n"]
    score: Float[Array, "2"]


def fits_of_hands(
    found: Float[ArrayLike, "n 3 3"],
    truth: Float[ArrayLike, "n 3 3"],
    *,
    robust: bool,
    group: Float[ArrayLike, "order 3 3"] | None = None,
) -> HandFits:
    """Alignment of found poses as they are, and as those of the mirror image; arguments and errors are of `align_poses`."""
    found, truth = jnp.asarray(found), jnp.asarray(truth)
    require_shape("found", found.shape, ("n", 3, 3))
    require_shape("truth", truth.shape, found.shape)
    require(len(found) > 0, "found", len(found), "one or more poses")
    elements = jnp.eye(3)[None] if group is None else jnp.asarray(group)
    require_shape("group", elements.shape, ("order", 3, 3))
    signs = jnp.stack([jnp.ones((3, 3)), jnp.asarray(np.outer((1, 1, -1), (1, 1, -1)))])  # F R F has the signs of its entries
    both = found * signs[:, None].astype(found.dtype)
    relative = jnp.einsum("nji,hnjk->hnik", truth, both, precision="highest")
    turn, error = jax.vmap(partial(_turn, elements=elements.astype(relative.dtype), robust=robust))(relative)
    return HandFits(turn, error, _score(error, robust))


def _score(error: Array, robust: bool) -> Array:
    return jnp.median(error, axis=-1) if robust else jnp.mean(error**2, axis=-1)


def _turn(relative: Array, elements: Array, robust: bool) -> tuple[Array, Array]:
    """Turn of the object, and the angle of each pose from it."""
    n = len(relative)
    turn = nearest(jnp.sum(relative, axis=0))
    if robust or len(elements) > 1:
        pick = np.linspace(0, n - 1, min(n, STARTS)).round().astype(int)
        few = _few(relative)

        def one(start: Array) -> tuple[Array, Array]:
            end = _repeated(few, elements, robust, start)
            return end, _score(_angles(_onto(few, elements, end), end), robust)

        ends, scores = jax.vmap(one)(jnp.concatenate([turn[None], relative[pick]]))
        turn = ends[jnp.argmin(scores)]
    turn = _repeated(relative, elements, robust, turn)
    return turn, distance(_onto(relative, elements, turn), turn)


def _few(values: Array) -> Array:
    """Evenly spaced ones among many values, which represent all."""
    return values[np.linspace(0, len(values) - 1, min(len(values), COMPARED)).round().astype(int)]


def _repeated(relative: Array, elements: Array, robust: bool, start: Array) -> Array:
    """The turn after steps of assignment to the elements of the group and of reweighting."""

    def step(_: Array, turn: Array) -> Array:
        near = _onto(relative, elements, turn)
        error = _angles(near, turn)
        floor = jnp.clip(jnp.median(_few(error)), 1e-6, np.deg2rad(1.0))
        weight = 1 / jnp.maximum(error, floor) if robust else jnp.ones_like(error)
        # the mean of differences from the last turn: sums of 1e5 matrices in float32 would cost 0.04 degrees
        change = jnp.sum((weight / jnp.sum(weight))[:, None, None] * (near - turn), axis=0)
        return nearest(turn + change)

    return jax.lax.fori_loop(0, STEPS, step, start)


def _onto(relative: Array, elements: Array, turn: Array) -> Array:
    """g^T M of each pose, with the element g of the group for which it is nearest to the turn."""
    if len(elements) == 1:
        return relative
    turned = jnp.einsum("gij,jk->gik", elements, turn, precision="highest")
    best = jnp.argmax(jnp.einsum("nij,gij->ng", relative, turned, precision="highest"), axis=1)
    return jnp.einsum("nji,njk->nik", elements[best], relative, precision="highest")


def _angles(relative: Array, turn: Array) -> Array:
    """Angles from the turn by chords, accurate near 0, where weights depend on them."""
    return 2 * jnp.arcsin(jnp.minimum(jnp.sqrt(jnp.sum((relative - turn) ** 2, axis=(-2, -1)) / 8), 1.0))
