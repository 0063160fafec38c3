"""Energies and widths of a detector from a spectrum: a search over gain and offset, then all its numbers at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d, maximum_filter

from lfjax.errors import CalibrationError, require
from lfjax.solvers.nnls import nonnegative_least_squares
from lfjax.xrf.components import clipped, family_lines, scatter_lines
from lfjax.xrf.detector import FWHM, Detector
from lfjax.xrf.detector_fit import NUMBERS, DetectorFit, fit_detector
from lfjax.xrf.dictionary import Design, Dictionary
from lfjax.xrf.identification import GAIN, LOWEST_EV, Identified, checked_counts, elements, top_ev
from lfjax.xrf.instrument import Instrument
from lfjax.xrf.lines import Family, families as families_between, parse_families
from lfjax.xrf.poisson_fit import Counts, fit_counts
from lfjax.xrf.precision import in_double
from lfjax.xrf.window import Window

COMMON = (
    "Si K, P K, S K, Cl K, Ar K, K K, Ca K, Ti K, V K, Cr K, Mn K, Fe K, Co K, Ni K, Cu K, Zn K, As K, Se K, Br K, Rb K, Sr K, "
    "Zr K, Ag L, Cd L, Sn L, Sb L, Ba L, Au L, Hg L, Hg M, Pb L, Pb M, Bi L"
)
"""Families that paintings, glass, metals and standards show: the search has these alone, since all of them together explain any
spectrum at any gain."""
WIDTHS_EV = (85.0, 210.0)  # between which the median width of the lines of a spectrum lies
OFFSETS_EV = (-1000.0, 560.0, 60.0)  # first, last and step of the search
SYSTEMATIC = 0.015  # error of the model while gains are compared
BLUR_EV = 120.0  # FWHM by which the coarse search widens lines, so that its grid meets them
BINS = 600  # of the coarse search
SHARE = 0.1  # systematic error of the coarse search: no line outweighs ten others
FINEST = 5  # candidates of the coarse search that are fitted
RIVAL = 2.0  # times the least misfit: how far the common families alone decide
FIRST_STEPS = 4  # of Gauss-Newton, which rank the candidates
ROUNDS = 3  # of elements and numbers in turn
LIKELY = GAIN / 2  # growth of the log-likelihood from which an element joins the fit of the numbers
MOST_LEFT = 6.0  # misfit per bin of a calibration that is wrong; of one that lacks an element or the tube it is 1 to 3
UNREFINED = 0.03
"""Error of the model in the first round: elements would explain what the rough numbers of the detector leave."""


class Calibration(NamedTuple):
    """A calibrated detector.

    Attributes:
        detector: with the numbers found.
        errors: number of the detector -> its standard deviation, from the curvature of the likelihood.
        identified: elements and fit that it rests on.
    """

    detector: Detector
    errors: dict[str, float]
    identified: Identified


def calibrate(
    counts: ArrayLike,
    instrument: Instrument = Instrument(),  # noqa: B008 - a tuple
    *,
    maximum: ArrayLike | None = None,
    gain_ev: float | None = None,
    offset_ev: float | None = None,
    candidates: Sequence[str] | None = None,
    lowest_ev: float = LOWEST_EV,
) -> Calibration:
    """Gain, offset, noise, Fano factor and tail of a detector from a sum spectrum in which nobody has named a line.

    A grid of gains and offsets comes first: at each, a nonnegative fit of the families in `COMMON`, with widths that follow
    the energy. A wrong gain finds no ratios of lines that fit, and widths that do not. The best few are refined, and the one
    that leaves least unexplained is taken: its elements are identified and its numbers fitted in turn (`fit_detector`).

    Args:
        counts: (channels,), sum of the spectra of a cube.
        instrument: what is known of the scanner.
        maximum: (channels,), largest counts in each channel over the cube: lines of few pixels stand out. It joins the search;
            its counts are not Poisson, so that the numbers come from `counts`.
        gain_ev: from the file or from the user; searched within 3 %. None: searched.
        offset_ev: the same, within 150 eV.
        candidates: symbols of elements to consider, see `elements`.
        lowest_ev: lowest energy of the fit, eV.

    Raises:
        CalibrationError: no gain explains the lines of the spectrum, or the best one leaves much of it.
        ParameterError: a number is out of range, or counts are negative.
        ShapeError: `counts` or `maximum` is not one spectrum.
    """
    channels = np.asarray(counts).shape[0] if np.ndim(counts) == 1 else 0
    require(channels >= 64, "counts", np.shape(counts), "one spectrum of 64 channels or more")
    spectrum = checked_counts(counts, channels)
    extra = None if maximum is None else checked_counts(maximum, channels)
    for name, value in (("gain_ev", gain_ev), ("offset_ev", offset_ev)):
        require(value is None or bool(np.isfinite(value)), name, value, "a finite number")
    require(gain_ev is None or gain_ev > 0, "gain_ev", gain_ev, "a positive number")
    instrument = instrument.checked()
    known = (gain_ev, offset_ev)
    with in_double():
        searched = spectrum if extra is None else spectrum + extra * (spectrum.sum() / extra.sum())
        common = parse_families(COMMON, instrument.highest_ev, missing=True)
        ends = partial(_ends, instrument=instrument, lowest_ev=lowest_ev)
        starts = _starts(searched, common, instrument, known, lowest_ev)
        rough = partial(fit_detector, names=NUMBERS[:3], steps=FIRST_STEPS, rough=True)
        tried = [rough(spectrum, start, common, instrument, ends(start)) for start in starts]
        find = partial(elements, spectrum, instrument=instrument, candidates=candidates, lowest_ev=lowest_ev)
        detector = min(_different(tried), key=lambda each: _explained(each, spectrum, instrument, ends(each)))
        for number in range(ROUNDS):
            found = find(detector, systematic=None if number else UNREFINED)
            if not found.symbols:
                raise CalibrationError("counts: no gain and offset explain its lines; expected gain_ev and offset_ev")
            # an element that is likely there takes counts which the widths of its neighbours would otherwise explain
            shown = (*found.symbols, *(each for each, gain in found.possible.items() if gain >= LIKELY))
            families = families_between(*ends(detector), elements=shown, exciting_ev=instrument.highest_ev)
            fit = fit_detector(spectrum, detector, families, instrument, ends(detector), systematic=found.systematic)
            detector = fit.detector
        found = find(detector)
        if found.misfit > MOST_LEFT:
            told = f"the best gain, {float(detector.gain_ev):.3g} eV per channel, leaves {found.misfit:.2g} times the variance"
            raise CalibrationError(f"counts: {told}; expected what is known of the scanner, or gain_ev and offset_ev")
        return Calibration(detector, fit.errors, found)


def _different(tried: Sequence[DetectorFit]) -> list[Detector]:
    """Detectors that explain the spectrum about as well as the best, no two with the same gain."""
    kept: list[Detector] = []
    best = min(each.misfit for each in tried)
    for each in sorted(tried, key=lambda each: each.misfit):
        gain = float(each.detector.gain_ev)
        if each.misfit < RIVAL * best and all(abs(np.log(gain / float(other.gain_ev))) > 0.003 for other in kept):
            kept.append(each.detector)
    return kept


def _explained(detector: Detector, counts: Counts, instrument: Instrument, ends: tuple[float, float]) -> float:
    """Squares over variances per bin that all elements together leave."""
    window = Window.of(counts, detector, *ends)
    dictionary = Dictionary.of(families_between(*ends, exciting_ev=instrument.highest_ev), instrument, edges=False)
    columns, ties = Design.of(dictionary, detector, window, counts).all_of(dictionary)
    return fit_counts(columns, window.counts, systematic=SYSTEMATIC, ties=ties).misfit / len(window.counts)


def _ends(detector: Detector, instrument: Instrument, lowest_ev: float) -> tuple[float, float]:
    """Energies of the fit."""
    return lowest_ev, top_ev(detector, instrument)


def _starts(
    counts: Counts, common: Sequence[Family], instrument: Instrument, known: tuple[float | None, float | None], lowest_ev: float
) -> list[Detector]:
    """The best detectors of a grid, no two of them alike."""
    width, (gain, offset) = peak_width(counts), known
    gains = (
        np.geomspace(0.97 * gain, 1.03 * gain, 13) if gain else np.geomspace(WIDTHS_EV[0] / width, WIDTHS_EV[1] / width, 160)
    )
    offsets = np.arange(*OFFSETS_EV) if offset is None else np.linspace(-150, 150, 7) + offset
    grid = np.stack([each.ravel() for each in np.meshgrid(gains, offsets, indexing="ij")], axis=1)
    size = max(1, len(counts) // BINS)
    bins = len(counts) // size * size
    net = np.maximum(counts - clipped(counts, np.full(len(counts), 2.5 * width)), 0)
    data, noise = (values[:bins].reshape(-1, size).sum(axis=1) for values in (net, counts))
    weights = 1 / (np.maximum(noise, 1) + (SHARE * data) ** 2)
    # lines of the tube, too: a wrong gain would push those that it does not know out of the spectrum
    seen = [*(family_lines(each, instrument) for each in common), *scatter_lines(instrument)]
    energies, rates, broadening = (
        np.concatenate([getattr(each, name) for each in seen]) for name in ("energies_ev", "rates", "broadening_ev")
    )
    owner = np.repeat(np.arange(len(seen)), [len(each.rates) for each in seen])
    strong = rates > 0.02
    member = np.equal.outer(owner, np.arange(len(seen)))[strong] * rates[strong, None]
    middle = (np.arange(len(data)) + 0.5) * size - 0.5
    lines = energies[strong], broadening[strong]
    arrays = map(jnp.asarray, (grid, middle, data, weights, *lines, member, lowest_ev, instrument.highest_ev))
    left = _unexplained(*arrays, float(size))
    kept: list[tuple[float, float]] = []
    for g, o in grid[np.argsort(np.asarray(left))].tolist():
        if all(abs(np.log(g / other)) > 0.01 or abs(o - shift) > 130 for other, shift in kept):
            kept.append((g, o))
        if len(kept) == FINEST:
            break
    return [Detector(len(counts), g, o) for g, o in kept]


def peak_width(counts: Counts) -> float:
    """Full width at half maximum of the peaks of a spectrum, channels: their median, strong and weak ones alike.

    A Gaussian of standard deviation s answers the second derivative of a Gaussian of t, normalised to white noise, as
    t^(5/2) / (s^2 + t^2)^(3/2): most at t = sqrt(5) s (Lindeberg, Int. J. Comput. Vis. 30, 79 (1998)).
    """
    scales = np.geomspace(2.0, max(4.0, len(counts) / 20), 24)
    noise = np.sqrt(np.maximum(gaussian_filter1d(counts, scales[0]), 1))
    answers = np.stack([-(t**2.5) * gaussian_filter1d(counts, t, order=2, mode="nearest") for t in scales])
    tops = (answers == maximum_filter(answers, size=(3, 9))) & (answers > 20 * noise) & (answers > 0.005 * answers.max())
    tops[[0, -1]] = False
    scale, _ = np.nonzero(tops)
    if len(scale) == 0:
        raise CalibrationError("counts: no peak stands out of this spectrum; expected gain_ev and offset_ev, or more counts")
    return float(np.median(scales[scale]) / np.sqrt(5) * FWHM)


@partial(jax.jit, static_argnames=("size",))
def _unexplained(
    grid: Array,
    middle: Array,
    data: Array,
    weights: Array,
    lines: Array,
    broadening: Array,
    member: Array,
    lowest: Array,
    top: Array,
    size: float,
) -> Array:
    """Weighted squares that the families leave, at each gain and offset; counts outside the energies of the fit are left."""

    def at(pair: Array) -> Array:
        detector = Detector(2, pair[0], pair[1])
        energy = pair[1] + pair[0] * middle
        sigma = jnp.sqrt(detector.fwhm_ev(lines) ** 2 + broadening**2 + BLUR_EV**2) / FWHM
        shape = jnp.exp(-(((energy[:, None] - lines) / sigma) ** 2) / 2) * (size * pair[0] / (sigma * np.sqrt(2 * np.pi)))
        used = weights * ((energy > lowest) & (energy < top))
        columns = shape @ member
        gram = columns.T @ (used[:, None] * columns)
        gram += jnp.eye(len(gram)) * (1e-9 * jnp.trace(gram) + 1e-30)
        amplitudes = nonnegative_least_squares(gram, (columns.T @ (used * data))[:, None], tolerance=1e-3, steps=60)[:, 0]
        return jnp.sum(used * (data - columns @ amplitudes) ** 2) + jnp.sum((weights - used) * data**2)

    return jax.lax.map(at, grid, batch_size=32)
