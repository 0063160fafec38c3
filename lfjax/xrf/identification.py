"""Which elements a spectrum shows, by the growth of the likelihood that each brings; overlaps fall to the other lines.

An element comes with all its families between the ends of the spectrum: lead is not in a spectrum without Pb M where Pb L is.
So S K beside Pb M, As K beside Pb L, and Ti K beside Ba L gain only what the other element cannot explain with its own ratios
of lines, which are known to a few per cent (`dictionary.SPREAD`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import ParameterError, require, require_finite, require_shape
from lfjax.xrf.detector import Detector
from lfjax.xrf.dictionary import Design, Dictionary
from lfjax.xrf.instrument import Instrument
from lfjax.xrf.lines import Family, families as families_between
from lfjax.xrf.poisson_fit import Counts, CountsFit, fit_counts, gain_of
from lfjax.xrf.window import Window

SYSTEMATIC = 0.02
"""Error of the model's counts in a bin, as a fraction of them: shapes of lines."""
GAIN = 12.5
"""Growth of the log-likelihood that makes an element: a single line at 5 sigma."""
LOWEST_EV = 950.0
"""Below lie noise, L and M lines of light elements, and much absorption by air."""
MOST = 60  # elements that are tried one after the other


class Element(NamedTuple):
    """An element that a spectrum shows.

    Attributes:
        symbol: such as Pb.
        probability: that it is there, see `elements`.
        gain: growth of the log-likelihood with it; half the square of its significance in sigma.
        counts: family, such as "Pb L" -> counts in its lines, escape peaks aside.
        strongest_ev: energy of its line of most counts.
    """

    symbol: str
    probability: float
    gain: float
    counts: dict[str, float]
    strongest_ev: float


class Identified(NamedTuple):
    """Elements of a spectrum and the fit behind them.

    Attributes:
        elements: found, those of most evidence first.
        window: bins of the fit.
        model: expected counts per bin.
        background: the part of `model` that is no line of an element.
        families: families of the elements, with the rates that the spectrum shows in place of those of the tables.
        misfit: (counts - model)^2 / variance, mean over bins: 1 where the model is right.
    """

    elements: tuple[Element, ...]
    window: Window
    model: Counts
    background: Counts
    families: tuple[Family, ...]
    misfit: float

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols of the elements."""
        return tuple(each.symbol for each in self.elements)


def elements(
    counts: ArrayLike,
    detector: Detector,
    instrument: Instrument = Instrument(),  # noqa: B008 - a tuple
    *,
    candidates: Sequence[str] | None = None,
    lowest_ev: float = LOWEST_EV,
    highest_ev: float | None = None,
    systematic: float = SYSTEMATIC,
) -> Identified:
    """Elements of a spectrum that nobody has named.

    The fit starts with scatter, pile-up and a smooth background. The element whose best family raises the likelihood most
    joins, all amplitudes are fitted again, and so on while one raises it by `GAIN`. Then each element is taken out in turn:
    those without which the likelihood falls by less leave. With the fall D of an element,

        probability = 1 / (1 + exp(-(D - 8))),

    the posterior of a test between a model with the element and one without, at prior odds times Ockham's factor of exp(-8):
    that of a line which may be any of about 100, with an amplitude between nothing and a hundred times its own error.

    Args:
        counts: (channels,), zero or more: a sum or mean spectrum, or one pixel. A mean counts as if each pixel were one
            spectrum: give the sum.
        detector: energies and widths, see `calibrate`.
        instrument: what is known of the scanner.
        candidates: symbols to consider. None: Na to U, see `usual_elements`.
        lowest_ev: lowest energy of the fit, eV.
        highest_ev: highest energy, eV. None: the end of the channels, or where the Compton lines of the tube begin.
        systematic: error of the model, see `fit_counts`.

    Raises:
        ParameterError: counts are negative, or a number is out of range.
        ShapeError: `counts` is not one spectrum of the detector's channels.
    """
    spectrum = checked_counts(counts, detector.channels)
    instrument = instrument.checked()
    top = top_ev(detector, instrument) if highest_ev is None else highest_ev
    require(0 < lowest_ev < top, "lowest_ev and highest_ev", (lowest_ev, top), "a range above 0 within the channels")
    require(0 <= systematic < 1, "systematic", systematic, "0 to 1")
    with jax.enable_x64(True):
        window = Window.of(spectrum, detector, lowest_ev, top)
        require(len(window.counts) >= 8, "lowest_ev and highest_ev", (lowest_ev, top), "a range of 8 bins or more")
        families = families_between(lowest_ev, top, elements=candidates, exciting_ev=instrument.highest_ev)
        if not families:
            raise ParameterError("candidates: expected an element with a line between lowest_ev and highest_ev")
        dictionary = Dictionary.of(families, instrument)
        design = Design.of(dictionary, detector, window, spectrum)
        chosen = _joined(dictionary, design, window, systematic)
        chosen, fit, falls = _kept(dictionary, design, window, systematic, chosen)
        return _identified(dictionary, design, window, fit, chosen, falls, instrument)


def checked_counts(counts: ArrayLike, channels: int) -> Counts:
    """A spectrum in 64 bits, after a check."""
    spectrum = np.asarray(counts, np.float64)
    require_shape("counts", spectrum.shape, (channels,))
    require_finite("counts", spectrum)
    require(float(spectrum.min()) >= 0, "counts", float(spectrum.min()), "zero or more in every channel")
    require(float(spectrum.sum()) > 0, "counts", 0, "a photon or more")
    return spectrum


def top_ev(detector: Detector, instrument: Instrument) -> float:
    """End of the channels, or where the first strong Compton line of the tube begins: no line is told apart from it."""
    last = float(np.asarray(detector.energies_ev)[-1])
    shifted = [instrument.compton_ev(each.strongest_ev) for each in instrument.tube_families() if each.shell != "L"]
    begins = [energy - 5 * float(detector.fwhm_ev(energy)) - 0.06 * energy for energy in shifted]
    return min([last, instrument.highest_ev, *begins])


def _joined(dictionary: Dictionary, design: Design, window: Window, systematic: float) -> list[str]:
    """Elements that raise the likelihood, one after the other."""
    chosen: list[str] = []
    while len(chosen) < MOST:
        columns, ties = design.taken(dictionary, chosen)
        fit = fit_counts(columns, window.counts, systematic=systematic, ties=ties)
        gain = gain_of(columns, design.families, window.counts, fit)
        open_ = np.array([family.element not in chosen for family in dictionary.families]) & dictionary.evidence
        best = int(np.argmax(np.where(open_, gain, -1)))
        if not open_.any() or gain[best] < GAIN:
            break
        chosen.append(dictionary.families[best].element)
    return chosen


def _kept(
    dictionary: Dictionary, design: Design, window: Window, systematic: float, chosen: list[str]
) -> tuple[list[str], CountsFit, dict[str, float]]:
    """Elements without which the likelihood falls by `GAIN` or more, the fit with them, and how far it falls."""
    while True:
        columns, ties = design.taken(dictionary, chosen)
        fit = fit_counts(columns, window.counts, systematic=systematic, ties=ties)
        falls = {}
        for symbol in chosen:
            fewer, their = design.taken(dictionary, chosen, symbol)
            without = fit_counts(fewer, window.counts, ties=their, weights=fit.weights)
            falls[symbol] = (without.misfit - fit.misfit) / 2
        weakest = min(chosen, key=lambda symbol: falls[symbol], default=None)
        if weakest is None or falls[weakest] >= GAIN:
            return chosen, fit, falls
        chosen = [each for each in chosen if each != weakest]


def _identified(
    dictionary: Dictionary,
    design: Design,
    window: Window,
    fit: CountsFit,
    chosen: list[str],
    falls: dict[str, float],
    instrument: Instrument,
) -> Identified:
    """The result, with the rates of families as the fit has them."""
    ours = dictionary.columns_of(chosen)
    owner, amplitudes = dictionary.owner[ours], fit.amplitudes[: len(ours)]
    counts: dict[str, dict[str, float]] = {symbol: {} for symbol in chosen}
    seen, strongest = [], dict.fromkeys(chosen, (0.0, 0.0))
    for number in sorted(set(owner)):
        family, own = dictionary.families[number], amplitudes[owner == number]
        counts[family.element][family.name] = float(own.sum())
        if own.sum() > 0:
            ratio = np.zeros(len(family.rates))
            for group, amplitude in zip(family.groups, own, strict=True):
                weight = family.rates[list(group)]
                ratio[list(group)] = amplitude * weight / weight.sum()
            seen.append(family._replace(rates=ratio / ratio.sum()))
            best = int(np.argmax(ratio))
            strongest[family.element] = max(strongest[family.element], (float(ratio[best]), float(family.energies_ev[best])))
    found = [
        Element(symbol, 1 / (1 + math.exp(-min(falls[symbol] - 8, 700))), falls[symbol], counts[symbol], strongest[symbol][1])
        for symbol in sorted(chosen, key=lambda each: -falls[each])
    ]
    background = design.rest @ fit.amplitudes[len(ours) :]
    misfit = float(np.mean((window.counts - fit.model) ** 2 * fit.weights))
    return Identified(tuple(found), window, fit.model, background, tuple(seen), misfit)
