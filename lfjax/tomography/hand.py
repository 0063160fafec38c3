"""The hand of a map from tilt pairs: two images of one particle, between which the stage has been turned by a known rotation.

The mirror image of a map explains single views as well as the map does: with F = diag(1, 1, -1), the projection of F X at pose
F R F is that of X at pose R. Two images of one particle tell the hands apart. With K the known rotation of the stage in the
frame of the image, true poses obey

    R_tilted R_untilted^T = K,

whichever way the map is turned, and those of the mirror image F K F, which for a tilt about an axis in the plane of the image
is K^T: the tilt in the other direction (Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Shaped
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.rotation.matrices import distance, from_vector

CHANCE = 0.01
"""Probability up to which a hand is decided: how often pairs that tell nothing are as one-sided."""
TIE_RAD = 1e-4
"""Difference of angles below which a pair prefers neither hand."""


class HandOfPairs(NamedTuple):
    """Evidence of tilt pairs on the hand of found poses; single numbers have no axis.

    Attributes:
        as_found_rad: median angle between found and known relative rotations, in radians.
        mirrored_rad: the same for the mirror image of the found poses.
        tilt_rad: median angle of the known rotations: the angle that poses without any tilt between them would have.
        pairs: number of pairs nearer to one of the hands.
        nearer_as_found: number of pairs nearer to the known rotation as found than mirrored.
        chance: probability that pairs which tell nothing are as one-sided, from the binomial distribution.
        decided: whether chance is at most `CHANCE` and the median angle of the better hand at most `tilt_rad`.
        mirrored: whether the mirror image of the found poses agrees better; without meaning where `decided` is false.
    """

    as_found_rad: Float[Array, ""]
    mirrored_rad: Float[Array, ""]
    tilt_rad: Float[Array, ""]
    pairs: Int[Array, ""]
    nearer_as_found: Int[Array, ""]
    chance: Float[Array, ""]
    decided: Bool[Array, ""]
    mirrored: Bool[Array, ""]

    @property
    def statement(self) -> str:
        """The hand in words, with the numbers that decide it, or the reason why it stays open."""
        found, mirrored, tilt = (float(np.rad2deg(a)) for a in (self.as_found_rad, self.mirrored_rad, self.tilt_rad))
        both = f"{found:.1f} degrees as found, {mirrored:.1f} mirrored (median of {int(self.pairs)} pairs, tilt {tilt:.1f})"
        if bool(self.decided):
            return f"{both}: the {'mirror image' if bool(self.mirrored) else 'hand as found'} is right"
        if float(self.chance) > CHANCE:
            return f"{both}: undecided, chance alone is as one-sided in {100 * float(self.chance):.2g} % of cases"
        return f"{both}: undecided, neither hand is nearer than no tilt at all"


@jax.jit
def tilt_rotations(tilt_rad: Float[ArrayLike, "*#m"], axis_rad: Float[ArrayLike, "*#m"]) -> Float[Array, "*#m 3 3"]:
    """Rotations of the stage about an axis in the plane of the image.

    Args:
        tilt_rad: angle in radians, right-handed about the axis: about x, positive from y to z.
        axis_rad: direction of the axis in radians, from x towards y.
    """
    tilt, axis = jnp.broadcast_arrays(jnp.asarray(tilt_rad), jnp.asarray(axis_rad))
    return from_vector(tilt[..., None] * jnp.stack([jnp.cos(axis), jnp.sin(axis), jnp.zeros_like(axis)], axis=-1))


@jax.jit
def hand_of_pairs(
    untilted: Float[ArrayLike, "m 3 3"],
    tilted: Float[ArrayLike, "m 3 3"],
    known: Float[ArrayLike, "*#m 3 3"],
    *,
    group: Float[ArrayLike, "order 3 3"] | None = None,
) -> HandOfPairs:
    """Which hand of found poses agrees with the known rotations between pairs of images, if either does.

    A pair counts for the hand whose relative rotation, Q = R_tilted R_untilted^T or F Q F, is nearer to the known K. Where the
    poses tell nothing, both are equally likely, and the number of pairs is binomial with 1/2, whatever the tilts are. The hand
    is decided if that is improbable and the better hand is nearer than no tilt at all, which wrong axes are not.

    Pairs should share no image, as the errors of a shared one count several times; fewer than eight decide nothing. A wrong
    sign of the tilt gives the wrong hand: check it by a sample of known hand.

    >>> poses = from_vector(jax.random.normal(jax.random.key(0), (20, 3)))
    >>> known = tilt_rotations(0.3, 1.5)
    >>> print(hand_of_pairs(poses, known.T @ poses, known).statement)
    34.4 degrees as found, 0.0 mirrored (median of 20 pairs, tilt 17.2): the mirror image is right

    Args:
        untilted: (m, 3, 3), found poses of the first images.
        tilted: (m, 3, 3), found poses of the second images of the same particles.
        known: K, (m, 3, 3) or one for all pairs; from `tilt_rotations`, or R_tilted R_untilted^T of known poses.
        group: (order, 3, 3), rotations g of the point group of the object in the frame of the found poses: the nearest of
            R_tilted g R_untilted^T counts. None: C1.

    Raises:
        ShapeError: the numbers of poses differ.
        ParameterError: there is no pair.
    """
    untilted, tilted, known = jnp.asarray(untilted), jnp.asarray(tilted), jnp.asarray(known)
    require_shape("untilted", untilted.shape, ("m", 3, 3))
    require_shape("tilted", tilted.shape, untilted.shape)
    require(len(untilted) > 0, "untilted", len(untilted), "one or more pairs")
    require_shape("known", known.shape[-2:], (3, 3))
    known = jnp.broadcast_to(known, tilted.shape)
    elements = jnp.eye(3, dtype=tilted.dtype)[None] if group is None else jnp.asarray(group, tilted.dtype)
    require_shape("group", elements.shape, ("order", 3, 3))
    between = jnp.einsum("nij,gjk,nlk->gnil", tilted, elements, untilted, precision="highest")
    signs = np.outer((1, 1, -1), (1, 1, -1))  # F Q F has the entries of Q with these
    to_known = jax.vmap(distance, (0, None))
    found, mirrored = (jnp.min(to_known(q, known), axis=0) for q in (between, between * signs.astype(between.dtype)))
    differs = jnp.abs(found - mirrored) > TIE_RAD
    pairs, nearer = jnp.sum(differs), jnp.sum(differs & (found < mirrored))
    chance = _chance(jnp.maximum(nearer, pairs - nearer), pairs, found.dtype)
    medians = jnp.median(found), jnp.median(mirrored)
    tilt = jnp.median(distance(known, jnp.eye(3, dtype=known.dtype)))
    mirror = 2 * nearer < pairs
    decided = (chance <= CHANCE) & (jnp.where(mirror, medians[1], medians[0]) <= tilt)
    return HandOfPairs(*medians, tilt, pairs, nearer, chance, decided, mirror)


def _chance(most: Array, pairs: Array, dtype: np.dtype) -> Array:
    """Probability that one of two sides gets this many pairs or more, P = 2 I_1/2(most, pairs - most + 1); 1 without pairs."""
    upper = jax.scipy.special.betainc(jnp.maximum(most, 1).astype(dtype), (pairs - most + 1).astype(dtype), 0.5)
    return jnp.where(pairs > 0, jnp.minimum(2 * upper, 1), 1).astype(dtype)


def pairs_within(
    particles: Sequence[object] | Shaped[NDArray[np.generic], " n"],
) -> tuple[Int[NDArray[np.int64], " m"], Int[NDArray[np.int64], " m"]]:
    """Pairs of images of one particle that share no image: the k-th of 2 h images with the (k + h)-th.

    In a tilt series that begins with the small tilts, each pair has a small and a large one.

    >>> pairs_within(["a", "b", "a", "a", "a", "b", "a"])
    (array([0, 2, 1]), array([3, 4, 5]))

    Args:
        particles: name or number of the particle of each image.

    Returns:
        Rows of the first and of the second images.
    """
    by_name: dict[object, list[int]] = {}
    for row, name in enumerate(np.asarray(particles).tolist()):
        by_name.setdefault(name, []).append(row)
    halves = [(rows[: len(rows) // 2], rows[len(rows) // 2 : len(rows) // 2 * 2]) for rows in by_name.values()]
    first, second = (np.array([row for pair in halves for row in pair[side]], np.int64) for side in (0, 1))
    return first, second
