"""Figures of how well found poses agree with true ones."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from lfjax.rotation.alignment import fits_of_hands
from lfjax.rotation.matrices import random_rotations

DRAWS = 4  # sets of random poses


class PoseComparison(NamedTuple):
    """Angles between found and true poses that remain after their alignment; single numbers have no axis.

    Attributes:
        median_rad: median angle in radians, at the better hand.
        mean_rad: mean angle in radians.
        below_10_degrees: share of the poses, 0 to 1, with an angle below 10 degrees.
        mirrored: whether the found poses are those of the mirror image.
        other_hand_rad: median angle at the other hand. Where it is near `median_rad`, the poses do not tell the hand.
        null_rad: median angle that as many random poses have after the same alignment.
        turn: rotation G of the object, R_found ~ R_true G up to the mirror image and the point group.
        error_rad: (n,), angle of each pose in radians.
    """

    median_rad: Float[Array, ""]
    mean_rad: Float[Array, ""]
    below_10_degrees: Float[Array, ""]
    mirrored: Bool[Array, ""]
    other_hand_rad: Float[Array, ""]
    null_rad: Float[Array, ""]
    turn: Float[Array, "3 3"]
    error_rad: Float[Array, " n"]


@partial(jax.jit, static_argnames="handedness")
def compare(
    found: Float[ArrayLike, "n 3 3"],
    truth: Float[ArrayLike, "n 3 3"],
    *,
    group: Float[ArrayLike, "order 3 3"] | None = None,
    handedness: bool = True,
    key: Array | None = None,
) -> PoseComparison:
    """Angles of found poses from true ones, after the robust alignment of `align_poses`, beside those of random poses.

    The alignment fits one turn and one of two hands to the poses, and a point group offers several poses per image, so random
    poses have smaller angles than the 132 degrees of two random rotations: `null_rad` is their median, the mean of 4 draws.

    The hand is not observable from single views: the mirror image explains every image as well. `mirrored` tells that of
    `found` against that of `truth`; `tomography.hand_of_pairs` tells the true one from tilt pairs.

    >>> truth = random_rotations(jax.random.key(1), 50)
    >>> result = compare(truth @ truth[7], truth)
    >>> float(result.median_rad) < 1e-5 < 1.5 < float(result.null_rad), bool(result.mirrored)
    (True, False)

    Args:
        found: (n, 3, 3), estimated poses.
        truth: (n, 3, 3), true poses.
        group: (order, 3, 3), rotations of the point group in the frame of the true poses, from `tomography.symmetry_group`;
            the angle is the smallest over its elements. None: C1.
        handedness: whether the mirror image may be chosen; False where both sets have the true hand.
        key: random key of the random poses; None: `jax.random.key(0)`.

    Raises:
        ShapeError: the two sets differ in shape.
        ParameterError: there is no pose.
    """
    found = jnp.asarray(found)
    keys = jax.random.split(jax.random.key(0) if key is None else key, DRAWS)
    random = jnp.stack([random_rotations(k, len(found)) for k in keys]).astype(found.dtype)
    every = jnp.concatenate([found[None], random])
    fits = jax.lax.map(lambda poses: fits_of_hands(poses, truth, robust=True, group=group), every)  # one program for all sets
    mirrored = handedness & (fits.score[:, 1] < fits.score[:, 0])
    better = jnp.where(mirrored, fits.score[:, 1], fits.score[:, 0])
    hand = mirrored[0].astype(int)
    error = fits.error[0, hand]
    return PoseComparison(
        median_rad=better[0],
        mean_rad=jnp.mean(error),
        below_10_degrees=jnp.mean(error < np.deg2rad(10.0), dtype=error.dtype),
        mirrored=mirrored[0],
        other_hand_rad=fits.score[0, 1 - hand],
        null_rad=jnp.mean(better[1:]),
        turn=fits.turn[0, hand],
        error_rad=error,
    )
