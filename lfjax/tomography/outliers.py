"""Images that fit nothing: the probability that an image shows the particle, from how well its best poses explain it.

`fit` and `excess` of `search.Posterior` are about N(0, 1) for an image of the map at its true pose. An image of nothing has a
fit far below 0, one of something else an excess above 0: (fit - excess) / sqrt(2) tells both. Where these numbers fall into two
groups, a mixture of two normal distributions tells the groups apart. There are two where the mixture, with three parameters
more, explains the numbers better than one normal distribution by the Bayesian information criterion, and where their means lie
apart.

Source: Schwarz, Ann. Stat. 6, 461 (1978).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float
from numpy.typing import NDArray

ENOUGH = 20  # images from which on a second group is looked for
APART = 3.0  # standard deviations of the upper group that lie at least between the means of both
STEPS = 100


def goodness(fit: Float[ArrayLike, " n"]) -> Float[NDArray[np.float32], " n"]:
    """Probability of each image to belong to the upper group of fits; 1 for all where there is one group.

    Args:
        fit: (fit - excess) / sqrt(2) of each image, see `search.Posterior`.
    """
    z = np.asarray(fit, float)
    ones = np.ones(len(z), np.float32)
    if len(z) < ENOUGH:
        return ones
    centre = np.median(z[z >= np.quantile(z, 0.4)])
    width = max(float(np.quantile(z, 0.84) - centre), 1.0)
    low = z < centre - APART * width
    if not low.any():
        return ones
    means = np.array([centre, z[low].mean()])
    widths = np.array([width, max(float(z[low].std()), width)])
    share = np.array([1 - low.mean(), low.mean()])
    member = np.stack([~low, low]).astype(float)
    for _ in range(STEPS):
        log = np.log(share)[:, None] - 0.5 * ((z - means[:, None]) / widths[:, None]) ** 2 - np.log(widths)[:, None]
        member = np.exp(log - log.max(0))
        member = member / member.sum(0)
        mass = np.maximum(member.sum(1), 1e-9)
        share = mass / len(z)
        means = (member * z).sum(1) / mass
        widths = np.maximum(np.sqrt((member * (z - means[:, None]) ** 2).sum(1) / mass), width / 2)
    two = float(np.logaddexp.reduce(log, axis=0).sum()) - 0.5 * len(z) * np.log(2 * np.pi)
    one = -0.5 * len(z) * (np.log(2 * np.pi * max(float(z.var()), 1e-12)) + 1)
    if means[0] - means[1] < APART * widths[0] or two - one < 1.5 * np.log(len(z)):
        return ones
    above = z >= means[0]  # a wide lower group would take the best fits too
    return np.where(above, 1.0, member[0]).astype(np.float32)
