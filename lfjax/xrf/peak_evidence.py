"""How many peaks a spectrum shows: the evidence of sets of peaks, and the gain of each."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from lfjax.xrf.detector import Detector
from lfjax.xrf.peak_fit import cubic, started
from lfjax.xrf.peak_likelihood import Peaked, Stretch, covariance, maximise
from lfjax.xrf.peak_start import ORDERS, STRETCH, algebraic, crop, warped_samples

NEIGHBOURS = 8  # peaks that are fitted again where one is taken out, itself included
AGAINST = 3.0  # ln of the prior odds against one more peak, which make an isolated peak in 20 keV stand at 5 sigma
LOOSE = 0.125  # largest volume of an energy and counts, in widths and counts


class Prior(NamedTuple):
    """What is known of a peak before: an energy anywhere in a range, counts on any scale up to all of them.

    Attributes:
        span_ev: length of the range.
        scales: ln of the largest number of counts over the smallest, 1.
    """

    span_ev: float
    scales: float

    @classmethod
    def of(cls, counts: Float[ArrayLike, " channels"], detector: Detector) -> Prior:
        """The prior of the peaks of some channels."""
        return cls(float(np.asarray(detector.gain_ev)) * detector.channels, math.log(max(float(np.sum(counts)), math.e)))

    def cost(self, counts: Array, logdet: Array, widths_ev: Array) -> Array:
        """-ln of prior times the volume of the posterior: E uniform, ln a uniform, and (2 pi) sqrt(det C).

        An energy known to no better than a quarter of a width, and counts to no better than half of them, are no peak.
        """
        volume = jnp.minimum(logdet / 2, jnp.log(LOOSE * widths_ev * counts))
        return jnp.log(self.span_ev * self.scales * counts / (2 * np.pi)) - volume + AGAINST

    def least(self, width_ev: float) -> float:
        """Least cost of a peak."""
        return math.log(self.span_ev * self.scales / (2 * math.pi * LOOSE * width_ev)) + AGAINST


class Odds(NamedTuple):
    """Evidence for each peak of a set.

    Attributes:
        gains: growth of the log-likelihood that the peak brings.
        evidence: ln of the odds for the peak, the other peaks being there: its gain less its cost.
        errors_ev: Cramer-Rao bound.
        errors_counts: Cramer-Rao bound.
    """

    gains: Float[Array, " slots"]
    evidence: Float[Array, " slots"]
    errors_ev: Float[Array, " slots"]
    errors_counts: Float[Array, " slots"]


def window(detector: Detector) -> int:
    """Channels of a stretch."""
    widest = float(detector.fwhm_ev(detector.energies_ev[-1]))
    return min(detector.channels, math.ceil(STRETCH * widest / float(np.asarray(detector.gain_ev))))


def part_of(stretch: Stretch, first: ArrayLike, channels: int, columns: Array | None = None) -> Stretch:
    """Some channels, from `first` on; the columns of the background are those given, or the cubic ones."""
    counts, used = (jax.lax.dynamic_slice_in_dim(jnp.asarray(each), first, channels) for each in (stretch.counts, stretch.used))
    smooth = jnp.asarray(cubic(channels)) if columns is None else columns
    return Stretch(counts, crop(stretch.detector, first, channels), smooth, used, stretch.systematic)


@partial(jax.jit, static_argnames=("channels", "most"))
def stretch_peaks(
    whole: Stretch, net: Float[Array, " whole"], ends: Float[Array, "2"], prior: Prior, *, channels: int, most: int
) -> tuple[Float[Array, " most"], Float[Array, " most"], Bool[Array, " most"]]:
    """Peaks of one stretch: the set of largest evidence among those of 1 to `most` peaks from each order of the features.

    Args:
        whole: the spectrum.
        net: counts above the background.
        ends: of the stretch, in widths of a line.
        prior: of a peak.
        channels: number of channels around the middle of the stretch that take part.
        most: largest number of peaks.

    Returns:
        Energies, counts, and which of them are peaks.
    """
    middle = jnp.mean(ends)
    energies = whole.detector.energies_ev
    first = jnp.argmin(jnp.abs(energies - whole.detector.unwarped(middle))) - channels // 2
    part = part_of(whole, jnp.clip(first, 0, whole.detector.channels - channels), channels)
    places = part.detector.warped(part.detector.energies_ev)
    part = part._replace(used=part.used * ((places > ends[0] - 1) & (places < ends[1] + 1)))
    inside = jnp.where(
        (whole.detector.warped(energies) > ends[0] - 0.5) & (whole.detector.warped(energies) < ends[1] + 0.5), net, 0
    )
    samples = warped_samples(inside, whole.detector, middle)
    sets = [(k, algebraic(samples, k, order)) for k in range(1, most + 1) for order in ORDERS if order > k]
    starts = jnp.stack([jnp.pad(found, (0, most - k)) for k, found in sets])
    present = np.arange(most) < np.array([k for k, _ in sets])[:, None]

    def climb(places: Array, present: Array) -> tuple[Peaked, Array]:
        start = started(part, part.detector.unwarped(middle + places), present)
        found = maximise(part, start, present, growth=1e-3, steps=20)
        return found, total(part, found, present, prior)

    found, evidence = jax.vmap(climb)(starts, jnp.asarray(present))
    best = jnp.argmax(jnp.nan_to_num(evidence, nan=-jnp.inf))
    places = part.detector.warped(found.energies_ev[best])
    own = (places >= ends[0]) & (places <= ends[1]) & jnp.asarray(present)[best] & (found.counts[best] > 0)
    return found.energies_ev[best], found.counts[best], own


def total(stretch: Stretch, peaks: Peaked, present: Bool[Array, " peaks"], prior: Prior) -> Float[Array, ""]:
    """ln of the evidence of a set of peaks by Laplace's method, the background at its maximum."""
    both = jnp.concatenate([present, present])
    bound = jnp.where(both[:, None] & both, covariance(stretch, peaks, present), jnp.diag(jnp.where(both, 0.0, 1.0)))
    widths = stretch.detector.fwhm_ev(peaks.energies_ev)
    counts = jnp.where(present, jnp.maximum(peaks.counts, 1e-9), 1)
    alone = jnp.where(present, prior.cost(counts, jnp.full(len(present), jnp.inf), widths), 0)
    loosest = jnp.sum(jnp.where(present, jnp.log(LOOSE * widths * counts), 0))
    tighter = loosest - jnp.minimum(jnp.linalg.slogdet(bound)[1] / 2, loosest)
    return stretch.log_likelihood(stretch.expected(peaks)) - jnp.sum(alone) - tighter


@partial(jax.jit, static_argnames="channels")
def odds(stretch: Stretch, peaks: Peaked, present: Bool[Array, " slots"], prior: Prior, *, channels: int) -> Odds:
    """Gain and evidence of each peak of a joint maximum.

    The gain compares two fits of the channels around the peak: with it and without it, its neighbours free in both, as
    well as a smooth addition to the background and the height of all that stands farther.

    Args:
        stretch: the spectrum.
        peaks: at the maximum.
        present: peaks that are part of the model.
        prior: of a peak.
        channels: number of channels around each peak that take part.
    """
    detector, slots = stretch.detector, len(present)
    bound = covariance(stretch, peaks, present)
    shares = detector.pulses(peaks.energies_ev)
    mu = shares @ peaks.counts + stretch.columns @ peaks.background
    near = min(slots, NEIGHBOURS)

    def gain(k: Array) -> Array:
        middle = jnp.argmin(jnp.abs(detector.energies_ev - peaks.energies_ev[k]))
        first = jnp.clip(middle - channels // 2, 0, detector.channels - channels)
        distance = jnp.where(present, jnp.abs(peaks.energies_ev - peaks.energies_ev[k]), jnp.inf).at[k].set(-1.0)
        index = jnp.argsort(distance)[:near]
        free = present[index] & (distance[index] < channels * detector.gain_ev / 2)
        counts = jnp.where(free, peaks.counts[index], 0)
        far = jax.lax.dynamic_slice_in_dim(mu - shares[:, index] @ counts, first, channels)
        columns = jnp.concatenate([jnp.maximum(far, 0)[:, None], jnp.asarray(cubic(channels))], axis=1)
        part = part_of(stretch, first, channels, columns)
        start = Peaked(peaks.energies_ev[index], counts, jnp.zeros(columns.shape[1]).at[0].set(1.0))
        masks = jnp.stack([free & (jnp.arange(near) > 0), free])  # without the peak, and with it
        without, full = jax.vmap(lambda mask: part.expected(maximise(part, start, mask, growth=1e-3)))(masks)
        return part.growth(without, full)

    gains = jnp.where(present, jax.vmap(gain)(jnp.arange(slots)), 0)
    errors = jnp.sqrt(jnp.diagonal(bound))
    both = bound[jnp.arange(slots), jnp.arange(slots) + slots]
    determinant = jnp.maximum(jnp.diagonal(bound)[:slots] * jnp.diagonal(bound)[slots:] - both**2, 1e-300)
    cost = prior.cost(jnp.maximum(peaks.counts, 1e-9), jnp.log(determinant), detector.fwhm_ev(peaks.energies_ev))
    evidence = jnp.where(present & (peaks.counts > 0), gains - cost, -jnp.inf)
    return Odds(gains, evidence, errors[:slots], errors[slots:])
