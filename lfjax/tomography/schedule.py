"""The passes of a search for unknown poses: which frequencies, which poses, how many times.

Frequencies scale with the size of the particle: an angle a moves its rim, at a radius of r box lengths, by r a box lengths, so
the band K = 6 of a particle with r = 0.42 is K = 6 * 0.42 / r of another. Several starts at the lowest band, on a grid of 576
rotations, compete by their evidence; the best passes through two bands on a grid of 4608 and then, in ever smaller balls about
the poses found so far, up to the band at whose rim the map is no longer resolved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import ArrayLike, Float

RADIUS = 0.42  # of the particle, in box lengths, to which the limits below belong
START = (6, 10)  # least and largest first band
ENOUGH = 60.0  # expected log-likelihood ratio of an image at its pose that settles the first band
SHARE = 0.7  # of what all frequencies tell together, which settles it too
GRIDS = ((8, 6), (11, 4))  # bands and their numbers of passes on the fine grid
NEAR = ((13, (8.0, 6.0, 4.0)), (16, (4.0, 3.0, 3.0)), (20, (2.5, 2.0)), (25, (1.8, 1.4)), (31, (1.2, 1.0)), (40, (0.9, 0.7)))
"""Bands and the radii of their balls in degrees."""
COARSE, FINE = 1, 2
"""Orders of the grids of rotations."""
MANY = 12  # elements of a point group from which on grids are one order finer, and starts begin at the largest first band
EXTRA = 600  # images, over those of a set: further passes of a band, since few images determine the map little, and converge
MORE = 24  # slowly; at most so many,
SHRINKING = 0.93  # each in smaller balls
MODES = 4  # poses of each image about which the first search in balls looks
STARTING = 20  # passes of each start
RESOLVED = 0.5  # share of the power at the rim of a band above which the next band is searched


@dataclass(frozen=True)
class Step:
    """One pass.

    Attributes:
        kind: "coarse" and "fine" search a grid of rotations, "whole" the coarse one for all images of a set of which the
            starts saw some, "again" the fine one for images that fit too little, "near" searches balls.
        limit: band, cycles per box.
        turn: number of the pass in its band, from 0.
        start: number of the start, from 0, of coarse passes.
        width_rad: radius of the balls.
        modes: number of poses of each image about which there are balls.
        whole: whether all images of a large set take part.
        last: whether the band ends with it.
    """

    kind: str
    limit: int
    turn: int = 0
    start: int = 0
    width_rad: float = 0.0
    modes: int = 1
    whole: bool = False
    last: bool = False


def first_limit(information: Float[ArrayLike, " r"], radius: float, elements: int = 1) -> int:
    """The band at which to start: the lowest whose information suffices.

    The information of a band is the sum of c^2 tau2 / s2 over its samples: the expected log-likelihood ratio between an image
    at its pose and no particle. A CTF takes it from the lowest frequencies, so that the search has to start higher. So does a
    point group of many elements: the low frequencies of such a particle are those of a ball, the same from every side.

    Args:
        information: information up to each shell from frequency 0 on.
        radius: radius of the particle in box lengths.
        elements: number of rotations of the particle's point group.
    """
    told = np.asarray(information)
    least, most = (min(round(k * RADIUS / radius), len(told) - 1) for k in START)
    least = most if elements >= MANY else least
    enough = int(np.argmax(told >= min(ENOUGH, SHARE * float(told[-1]))))
    return min(max(enough, least), most)


def steps(start: int, restarts: int, near: int, radius: float, nyquist: float, images: int) -> list[Step]:
    """All passes.

    Args:
        start: first band.
        restarts: number of starts.
        near: how many bands are searched in balls.
        radius: radius of the particle in box lengths.
        nyquist: Nyquist frequency in cycles per box.
        images: number of images; few determine the map little, and converge slowly.
    """
    found = [Step("coarse", start, i, number, last=i == STARTING - 1) for number in range(restarts) for i in range(STARTING)]
    found += [Step("whole", start, whole=True)]
    return found + steps_from(start, near, radius, nyquist, images)


def steps_from(start: int, near: int, radius: float, nyquist: float, images: int) -> list[Step]:
    """The passes after the starts."""

    def scaled(limit: int) -> int:
        return min(round(limit * RADIUS / radius), math.ceil(nyquist) - 1)

    grids = [max(scaled(limit), start) for limit, _ in GRIDS]
    counts = [passes for _, passes in GRIDS]
    found = [Step("fine", k, i, last=i == n - 1) for k, n in zip(grids, counts, strict=True) for i in range(n)]
    found[-1] = replace(found[-1], whole=True)
    for number, (limit, widths) in enumerate(NEAR[:near]):
        if number == 1:
            found.append(Step("again", grids[-1]))
        widths = (*widths, *(widths[-1] * SHRINKING**i for i in range(min(MORE, EXTRA // images))))
        for i, width in enumerate(widths):
            modes = MODES if number == 0 and i == 0 else 1
            last = i == len(widths) - 1
            found.append(Step("near", scaled(limit), i, 0, math.radians(width), modes, whole=True, last=last))
    return found


def more_bands(near: int, resolved: float, radius: float, nyquist: float) -> bool:
    """Whether to search another band: the map is resolved at the rim of the last, and the next lies below Nyquist."""
    if near >= len(NEAR) or resolved < RESOLVED:
        return False
    return round(NEAR[near][0] * RADIUS / radius) < nyquist - 0.5
