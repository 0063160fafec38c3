"""Peaks of a spectrum that nobody has named: algebra on stretches, order by evidence, joint maximum likelihood, errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import nnls

from lfjax.errors import require, require_finite, require_shape
from lfjax.xrf.components import snip, splines
from lfjax.xrf.detector import FWHM, Detector
from lfjax.xrf.identification import checked_counts
from lfjax.xrf.peak_evidence import Odds, Prior, odds, stretch_peaks, window
from lfjax.xrf.peak_likelihood import FLOOR, Peaked, Stretch, curves_of, maximise
from lfjax.xrf.peak_start import crop, cut
from lfjax.xrf.poisson_fit import CountsFit, gain_of
from lfjax.xrf.precision import in_double

MOST = 4  # peaks of a stretch that the algebra is asked for; the joint fit finds what is left
ROUNDS = 40  # of peaks that leave or join
SLOTS = (8, 24)  # the number of peaks is padded to the first, or a multiple of the second: few programs to compile
GRID = 0.25  # widths between energies at which one more peak is tried
NEAR = 0.3  # widths within which a trial is not repeated
FAR = 3.0  # widths beyond which changes do not touch one another
APART = 0.35  # widths by which the halves of a split peak move

Floats = NDArray[np.float64]


class Peaks(NamedTuple):
    """Peaks of a spectrum, in rising order of energy.

    Attributes:
        energies_ev: of the peaks.
        counts: in each peak.
        errors_ev: Cramer-Rao bound of each energy, neighbours and background unknown.
        errors_counts: Cramer-Rao bound of the counts in each peak.
        gains: growth of the log-likelihood that each peak brings, all else fitted again; half its squared significance.
        background: expected counts per channel without the peaks; 0 outside the fit.
    """

    energies_ev: Float[Floats, " peaks"]
    counts: Float[Floats, " peaks"]
    errors_ev: Float[Floats, " peaks"]
    errors_counts: Float[Floats, " peaks"]
    gains: Float[Floats, " peaks"]
    background: Float[Floats, " channels"]


def peaks(
    counts: ArrayLike,
    detector: Detector,
    *,
    lowest_ev: float | None = None,
    highest_ev: float | None = None,
    largest: int = 64,
    background: ArrayLike | None = None,
    systematic: float = 0.0,
) -> Peaks:
    """Peaks of known shape at unknown energies, their number found as well.

    1. On the axis u(E) = integral of dE / w(E) all lines are alike. Stretches of it, cut where nothing stands above the
       background, become exponential features; the matrix pencil gives 1, 2, ... peaks at three orders of the features.
    2. Each set is fitted by Poisson maximum likelihood, and the one of largest evidence is kept (Laplace):

           log Z = log L + sum_k log prior(E_k, a_k) + K log 2 pi + log det C / 2,

       C the covariance of energies and counts, with E uniform in the fit and a log-uniform up to all counts.
    3. All peaks and the background are fitted together. Peaks whose evidence is negative leave; the peak, or the split of a
       peak in two, that promises the largest growth joins if its evidence is positive, until none does.

    Args:
        counts: (channels,), zero or more.
        detector: energies and widths, see `calibrate`.
        lowest_ev: lowest energy of the fit, eV. None: the first channel above 0.
        highest_ev: highest energy of the fit, eV. None: the last channel.
        largest: largest number of peaks.
        background: columns (channels, columns), nonnegative; None: `splines`. What no sum of them holds becomes peaks once the
            counts are many: half a sine over 1.5 keV, 2000 counts per channel, differs from a cubic by 1.8 standard deviations
            of a channel, and a third of such spectra show a peak or more.
        systematic: error of the pulses, as a fraction of the model: counts then have the variance mu + (systematic mu)^2.
            Spectra of very many counts otherwise show the error of the pulse as further peaks beside strong ones.

    Raises:
        ParameterError: counts are negative, or a number is out of range.
        ShapeError: `counts` or `background` have other channels than the detector.

    Source: Yan et al., IEEE Trans. Comput. Imaging (2021), for the algebra; MacKay, Neural Comput. 4, 415 (1992), for the
    evidence.
    """
    spectrum = checked_counts(counts, detector.channels)
    require(isinstance(largest, int) and largest >= 1, "largest", largest, "a whole number, 1 or more")
    require(0 <= systematic < 1, "systematic", systematic, "0 to 1")
    with in_double():
        energies = np.asarray(detector.energies_ev)
        low = max(0.0, float(energies[0])) if lowest_ev is None else lowest_ev
        high = float(energies[-1]) if highest_ev is None else highest_ev
        inside = np.flatnonzero((energies >= low) & (energies <= high))
        require(low < high and len(inside) >= 8, "lowest_ev and highest_ev", (low, high), "a range of 8 channels or more")
        part = slice(int(inside[0]), int(inside[-1]) + 1)
        columns = splines(detector) if background is None else np.asarray(background, np.float64)
        require_shape("background", columns.shape, (detector.channels, "columns"))
        require_finite("background", columns)
        columns = columns[part]
        columns = columns[:, columns.sum(axis=0) > 1e-6 * columns.sum(axis=0).max(initial=0)]
        own = crop(detector, part.start, len(inside))
        stretch = Stretch(jnp.asarray(spectrum[part]), own, jnp.asarray(columns), jnp.ones(len(inside)), systematic)
        here, found = _search(stretch, Prior.of(stretch.counts, own), largest)
        smooth = np.zeros(detector.channels)
        smooth[part] = columns @ here.background
        order = np.argsort(np.where(here.present, here.energies_ev, np.inf))[: here.number]
        told = here.energies_ev, here.counts, found.errors_ev, found.errors_counts, found.gains
        energies, areas, errors_ev, errors_counts, gains = (np.asarray(each)[order] for each in told)
        return Peaks(energies, areas, errors_ev, errors_counts, gains, smooth)


class _Trial(NamedTuple):
    """A peak that may join, or a peak that may be two."""

    energy_ev: float
    counts: float
    width_ev: float
    split: bool

    def near(self, other: _Trial, widths: float) -> bool:
        return bool(abs(self.energy_ev - other.energy_ev) < widths * self.width_ev)

    def beside(self, energy_ev: float) -> bool:
        return bool(abs(self.energy_ev - energy_ev) < self.width_ev)


class _Set(NamedTuple):
    """Peaks in slots, those that are there before the empty ones, and the background."""

    energies_ev: Floats
    counts: Floats
    background: Floats
    present: Bool[NDArray[np.bool_], " slots"]

    @classmethod
    def of(cls, energies_ev: Floats, counts: Floats, background: Floats) -> _Set:
        number = len(energies_ev)
        slots = SLOTS[0] if number <= SLOTS[0] else SLOTS[1] * math.ceil(number / SLOTS[1])
        padding = (0, slots - number)
        return cls(np.pad(energies_ev, padding), np.pad(counts, padding), background, np.arange(slots) < number)

    @property
    def peaks(self) -> Peaked:
        return Peaked(*(jnp.asarray(each) for each in self[:3]))

    @property
    def number(self) -> int:
        return int(self.present.sum())

    def fitted(self, stretch: Stretch) -> _Set:
        energies, counts, background = (np.asarray(each) for each in maximise(stretch, self.peaks, self.present))
        return _Set(energies, counts, background, self.present)

    def without(self, gone: Bool[NDArray[np.bool_], " slots"]) -> _Set:
        kept = self.present & ~gone
        return _Set.of(self.energies_ev[kept], self.counts[kept], self.background)

    def plus(self, trials: list[_Trial]) -> _Set:
        halves = [each for each in trials if each.split]
        kept = self.present & ~np.isin(self.energies_ev, [each.energy_ev for each in halves])
        new = [(each.energy_ev, each.counts) for each in trials if not each.split]
        new += [(each.energy_ev + side * APART * each.width_ev, each.counts / 2) for each in halves for side in (-1, 1)]
        energies, counts = np.array(new).T
        joined = np.concatenate([self.energies_ev[kept], energies]), np.concatenate([self.counts[kept], counts])
        return _Set.of(*joined, self.background)


class _Grid(NamedTuple):
    """Energies at which another peak is tried."""

    energies_ev: Floats
    shares: Floats

    @classmethod
    def of(cls, detector: Detector) -> _Grid:
        ends = detector.warped(detector.energies_ev[np.array([0, -1])])
        energies = detector.unwarped(np.arange(float(ends[0]) + 0.5, float(ends[1]) - 0.5, GRID))
        return cls(np.asarray(energies), np.asarray(jax.jit(Detector.pulses)(detector, energies)))


def _search(stretch: Stretch, prior: Prior, largest: int) -> tuple[_Set, Odds]:
    channels, grid = window(stretch.detector), _Grid.of(stretch.detector)
    here = _first(stretch, prior, channels).fitted(stretch)
    tried: list[_Trial] = []
    new: list[_Trial] = []
    for _ in range(ROUNDS):
        found = odds(stretch, here.peaks, here.present, prior, channels=channels)
        evidence = np.where(here.present, np.asarray(found.evidence), np.inf)
        crowded = here.number > largest
        if crowded or evidence.min() < 0:
            gone = _weak(here, evidence, stretch.detector, crowded)
            new = [each for each in new if not any(each.beside(energy) for energy in here.energies_ev[gone])]
            here = here.without(gone).fitted(stretch)
            continue
        # where a peak has joined, others that failed beside it may succeed
        tried = [each for each in tried if each in new or not any(each.near(other, FAR) for other in new)]
        new = _trials(stretch, here, prior, grid, tried)[: largest - here.number]
        if not new:
            break
        tried += new
        here = here.plus(new).fitted(stretch)
    return here, found


def _first(stretch: Stretch, prior: Prior, channels: int) -> _Set:
    """Peaks of all stretches, each stretch by itself."""
    width = float(np.mean(stretch.detector.fwhm_ev(stretch.detector.energies_ev)) / stretch.detector.gain_ev) / FWHM
    smooth = snip(gaussian_filter1d(stretch.counts, width), stretch.detector)
    net, ends = stretch.counts - smooth, cut(np.asarray(stretch.counts), smooth, stretch.detector)
    found = [stretch_peaks(stretch, net, jnp.array(each), prior, channels=channels, most=MOST) for each in ends]
    own = np.concatenate([np.zeros(0, bool), *(np.asarray(each[2]) for each in found)])
    energies, counts = (np.concatenate([np.zeros(0), *(np.asarray(each[i]) for each in found)])[own] for i in (0, 1))
    return _Set.of(energies, counts, nnls(stretch.columns, np.maximum(smooth, 0))[0])


def _weak(here: _Set, evidence: Floats, detector: Detector, crowded: bool) -> Bool[NDArray[np.bool_], " slots"]:
    """Peaks that leave: those of negative evidence, the weakest of each neighbourhood; where too many are left, the weakest."""
    places, gone = np.asarray(detector.warped(here.energies_ev)), np.zeros(len(evidence), bool)
    for k in np.argsort(evidence):
        alone = not np.any(gone & (np.abs(places - places[k]) < FAR))
        gone[k] = here.present[k] and ((evidence[k] < 0 and alone) or (crowded and not gone.any()))
    return gone


def _trials(stretch: Stretch, here: _Set, prior: Prior, grid: _Grid, tried: list[_Trial]) -> list[_Trial]:
    """Peaks that may join, and peaks that may be two, each the best of its neighbourhood, by the gain foretold.

    A pair of peaks a distance d apart is, to second order in d, the peak in their middle and d^2 / 8 times its second
    derivative, counts the same.
    """
    detector, y, columns = stretch.detector, np.asarray(stretch.counts), np.asarray(stretch.columns)
    energies, counts = here.energies_ev[here.present], here.counts[here.present]
    shapes = jax.jit(curves_of)(detector, jnp.asarray(here.energies_ev))
    shares, slopes, curvature = (np.asarray(each)[:, here.present] for each in shapes)
    mu = shares @ counts + columns @ here.background
    weights = np.asarray(1 / ((mu + FLOOR) * (1 + float(stretch.dispersion) * mu)))
    known = np.concatenate([shares, slopes * counts, columns[:, here.background > 0]], axis=1)
    fit = CountsFit(np.ones(known.shape[1]), mu, weights, 0.0, 1)
    gain = gain_of(known, np.concatenate([grid.shares, curvature], axis=1), y, fit)
    at = np.concatenate([grid.energies_ev, energies])
    widths = np.asarray(detector.fwhm_ev(at))
    height = np.maximum((weights * (y - mu)) @ grid.shares / (weights @ grid.shares**2), 1.0)
    height = np.concatenate([height, counts])
    split = np.arange(len(at)) >= len(grid.energies_ev)
    found: list[_Trial] = []
    for i in np.argsort(-gain):
        if gain[i] < prior.least(float(widths[i])):
            break
        trial = _Trial(float(at[i]), float(height[i]), float(widths[i]), bool(split[i]))
        again = any(trial.near(other, NEAR) and trial.split == other.split for other in tried)
        if not again and not any(trial.near(other, FAR) for other in found):
            found.append(trial)
    return found
