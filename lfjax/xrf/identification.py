"""Which elements a spectrum shows, by the growth of the likelihood that each brings; overlaps fall to the other lines.

An element comes with all its families between the ends of the spectrum: lead is not in a spectrum without Pb M where Pb L is.
So S K beside Pb M, As K beside Pb L, and Ti K beside Ba L gain only what the other element cannot explain with its own ratios
of lines, which are known to a few per cent (`dictionary.SPREAD`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from lfjax.errors import ParameterError, require, require_finite, require_shape
from lfjax.xrf.detector import Detector
from lfjax.xrf.dictionary import Design, Dictionary
from lfjax.xrf.instrument import Instrument
from lfjax.xrf.lines import Family, families as families_between
from lfjax.xrf.poisson_fit import Counts, CountsFit, fit_counts, gain_of
from lfjax.xrf.precision import in_double
from lfjax.xrf.window import Window

SYSTEMATICS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08)
"""Errors of the model's counts in a bin, as a fraction of them, that are tried: shapes of lines, ratios, background."""
RIGHT = 1.15
"""Squares over variances, per bin and tie that the amplitudes leave free, at which the model explains the spectrum."""
GAIN = 12.5
"""Growth of the log-likelihood that makes an element: a single line at 5 sigma."""
LOWEST_EV = 950.0
"""Below lie noise, L and M lines of light elements, and much absorption by air."""
OCKHAM = 8.0
"""Prior odds and Ockham's factor of an element, as a growth of the log-likelihood, see `elements`."""
WEAK = 1.5 * GAIN  # growth of the log-likelihood up to which rivals count: a line at 6 sigma
UNSURE = 400.0  # fall of the log-likelihood from which no other elements can stand in for one
SCREEN = 0.5  # share of `GAIN` at which an element joins; the foretold gain is too low where ratios are not fixed
TRIES, STAND_INS = 8, 3  # least sure elements that are tried, and elements that may take their place
SWAPS = 4  # of elements for others
MOST = 60  # elements that are tried one after the other
POSSIBLE = 2.0
"""Growth of the log-likelihood from which an element may be there, though nothing proves it: a single line at 2 sigma."""


class Element(NamedTuple):
    """An element that a spectrum shows.

    Attributes:
        symbol: such as Pb.
        probability: that it is there, see `elements`.
        gain: growth of the log-likelihood with it, less that of its rivals; half the square of its significance in sigma.
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
        detector: of the spectrum.
        instrument: of the spectrum.
        elements: found, those of most evidence first.
        possible: symbol -> growth of the log-likelihood, of those that would raise it by `POSSIBLE` or more, but not by `GAIN`;
            most first.
        window: bins of the fit.
        model: expected counts per bin.
        background: the part of `model` that is no line of an element.
        families: families of the elements, with the rates that the spectrum shows, air and window included, in place of those
            of the tables.
        misfit: (counts - model)^2 / variance, mean over bins: about 1, or less, where the model is right.
        systematic: error of the model, as a fraction of it, that the variance contains.
    """

    detector: Detector
    instrument: Instrument
    elements: tuple[Element, ...]
    possible: dict[str, float]
    window: Window
    model: Counts
    background: Counts
    families: tuple[Family, ...]
    misfit: float
    systematic: float

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
    systematic: float | None = None,
) -> Identified:
    """Elements of a spectrum that nobody has named.

    The fit starts with scatter, pile-up and a smooth background. The element whose best family raises the likelihood most
    joins, all amplitudes are fitted again, and so on while one raises it by `GAIN`. Then each element is taken out in turn:
    those without which the likelihood falls by less leave, and those that others replace at less cost. With the fall D,

        probability = 1 / (1 + exp(-(D - 8)) + sum over rivals of exp(-(D - D_r))),

    the posterior of a test between a model with the element and one without, at prior odds times Ockham's factor of exp(-8):
    that of a line which may be any of about 100, with an amplitude between nothing and a hundred times its own error. Rivals
    are elements that would raise the likelihood by D_r in its place, such as Mo L for S K; they count up to D = 19. Elements
    stay with a probability of 0.989, that of D = 12.5 without rivals.

    Args:
        counts: (channels,), zero or more: a sum or mean spectrum, or one pixel. A mean counts as if each pixel were one
            spectrum: give the sum.
        detector: energies and widths, see `calibrate`.
        instrument: what is known of the scanner.
        candidates: symbols to consider. None: Na to U, see `usual_elements`.
        lowest_ev: lowest energy of the fit, eV.
        highest_ev: highest energy, eV. None: the end of the channels, or where the Compton lines of the tube begin.
        systematic: error of the model, see `fit_counts`. None: the smallest of `SYSTEMATICS` with which the fit explains the
            spectrum, so that what no model of the detector explains is not taken for elements.

    Raises:
        ParameterError: counts are negative, or a number is out of range.
        ShapeError: `counts` is not one spectrum of the detector's channels.
    """
    with in_double():
        task = _Task.of(counts, detector, instrument, (lowest_ev, highest_ev), systematic, candidates)
        for error in SYSTEMATICS if systematic is None else (systematic,):
            task = task._replace(systematic=error)
            symbols, fit, falls = task.kept(task.joined(task.air()))
            if task.explains(fit):
                break
        return task.result(symbols, fit, falls)


def fitted(
    counts: ArrayLike,
    detector: Detector,
    families: Sequence[Family],
    instrument: Instrument = Instrument(),  # noqa: B008 - a tuple
    *,
    lowest_ev: float = LOWEST_EV,
    highest_ev: float | None = None,
    systematic: float | None = None,
) -> Identified:
    """The fit of given families to a spectrum, whether it shows them or not; arguments, result and errors as of `elements`.

    Args:
        counts: (channels,).
        detector: energies and widths.
        families: to fit, and no others.
        instrument: what is known of the scanner.
        lowest_ev: lowest energy of the fit, eV.
        highest_ev: see `elements`.
        systematic: see `elements`.
    """
    require(len(families) > 0, "families", len(families), "one or more")
    with in_double():
        task = _Task.of(counts, detector, instrument, (lowest_ev, highest_ev), systematic, families=families)
        symbols = list(dict.fromkeys(family.element for family in families))
        for error in SYSTEMATICS if systematic is None else (systematic,):
            task = task._replace(systematic=error)
            fit = task.fit(symbols)
            if task.explains(fit):
                break
        return task.result(symbols, fit, task.falls(symbols, fit))


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


def probability(fall: float) -> float:
    """Posterior of an element without which the log-likelihood falls by `fall`, see `elements`."""
    return 1 / (1 + math.exp(min(OCKHAM - fall, 700)))


class _Task(NamedTuple):
    """A spectrum, and all that may be in it."""

    detector: Detector
    instrument: Instrument
    dictionary: Dictionary
    window: Window
    design: Design
    systematic: float

    @classmethod
    def of(
        cls,
        counts: ArrayLike,
        detector: Detector,
        instrument: Instrument,
        ends_ev: tuple[float, float | None],
        systematic: float | None,
        candidates: Sequence[str] | None = None,
        families: Sequence[Family] | None = None,
    ) -> _Task:
        """After a check of the arguments; `families` in place of all those of `candidates` between the ends."""
        spectrum = checked_counts(counts, detector.channels)
        low, high = ends_ev[0], top_ev(detector, instrument.checked()) if ends_ev[1] is None else ends_ev[1]
        require(0 < low < high, "lowest_ev and highest_ev", (low, high), "a range above 0 within the channels")
        error = SYSTEMATICS[0] if systematic is None else systematic
        require(0 <= error < 1, "systematic", error, "0 to 1")
        window = Window.of(spectrum, detector, low, high)
        require(len(window.counts) >= 8, "lowest_ev and highest_ev", (low, high), "a range of 8 bins or more")
        every = families_between(low, high, elements=candidates, exciting_ev=instrument.highest_ev)
        chosen = every if families is None else families
        if not chosen:
            raise ParameterError("candidates: expected an element with a line between lowest_ev and highest_ev")
        dictionary = Dictionary.of(chosen, instrument)
        design = Design.of(dictionary, detector, window, spectrum)
        return cls(detector, instrument, dictionary, window, design, error)

    def fit(self, symbols: Sequence[str]) -> CountsFit:
        """With some elements."""
        columns, ties = self.design.taken(self.dictionary, symbols)
        return fit_counts(columns, self.window.counts, systematic=self.systematic, ties=ties)

    def explains(self, fit: CountsFit) -> bool:
        """Whether the squares over variances are those of noise."""
        return fit.misfit <= RIGHT * fit.free

    def air(self) -> list[str]:
        """Argon, where the photons go through air."""
        return ["Ar"] if self.instrument.air_cm > 0 and self.dictionary.columns_of(["Ar"]).size else []

    def joined(self, chosen: Sequence[str] = (), never: Collection[str] = (), more: int = MOST) -> list[str]:
        """Elements that raise the likelihood, one after the other, at most so many, behind those chosen already."""
        chosen, most = list(chosen), len(chosen) + more
        while len(chosen) < most:
            gain = self.gains(chosen, self.fit(chosen), never)
            best = int(np.argmax(gain))
            if gain[best] < SCREEN * GAIN:
                break
            chosen.append(self.dictionary.families[best].element)
        return chosen

    def gains(
        self, chosen: Sequence[str], fit: CountsFit, never: Collection[str] = (), unproven: str | None = None
    ) -> Float[NDArray[np.float64], " families"]:
        """Growth of the log-likelihood that each family which proves a new element would bring; -1 for all others."""
        columns, ties = self.design.taken(self.dictionary, [*chosen, *([unproven] if unproven else [])], unproven)
        gain = self.dictionary.trust * gain_of(columns, self.design.families, self.window.counts, fit, ties)
        new = [family.element not in {*chosen, *never} for family in self.dictionary.families] & self.dictionary.evidence
        return np.where(new, gain, -1.0)

    def swapped(self, symbols: list[str], fit: CountsFit, falls: Mapping[str, float]) -> list[str] | None:
        """A better set in which one element that is not sure gives way to others; None: there is none.

        One after the other is greedy: Cd L takes the counts of K K and Sn L, and neither then gains enough alone.
        """
        cost = fit.misfit / 2 + GAIN * len(symbols)
        unsure = sorted((each for each in symbols if falls[each] < UNSURE), key=lambda each: falls[each])
        for symbol in unsure[:TRIES]:
            others = self.joined([each for each in symbols if each != symbol], [symbol], STAND_INS)
            columns, ties = self.design.taken(self.dictionary, others)
            there = fit_counts(columns, self.window.counts, ties=ties, weights=fit.weights)
            if there.misfit / 2 + GAIN * len(others) < cost - 1:
                return others
        return None

    def falls(
        self, symbols: Sequence[str], fit: CountsFit, known: Mapping[str, float] = MappingProxyType({})
    ) -> dict[str, float]:
        """How far the log-likelihood falls without the evidence for each element, at the weights of the whole fit.

        Rivals, which would explain the same counts, take their share of the odds, see `elements`. What was sure with more
        elements, `known`, stays sure with fewer.
        """
        found = {}
        for symbol in symbols:
            if known.get(symbol, 0.0) >= UNSURE:
                found[symbol] = known[symbol]
                continue
            columns, ties = self.design.taken(self.dictionary, symbols, symbol)
            start = self.design.carried(self.dictionary, fit.amplitudes, symbols, symbols, symbol)
            without = fit_counts(columns, self.window.counts, ties=ties, weights=fit.weights, start=start)
            fall = (without.misfit - fit.misfit) / 2
            if GAIN <= fall < WEAK:
                others = [each for each in symbols if each != symbol]
                gain = self.gains(others, without, unproven=symbol)
                own = np.array([family.element == symbol for family in self.dictionary.families])
                rivals = gain[~own & (gain > 0)] - gain[own].max()
                fall = max(0.0, OCKHAM - float(np.logaddexp.reduce([OCKHAM - fall, *np.minimum(rivals, 0.0)])))
            found[symbol] = fall
        return found

    def kept(self, symbols: list[str]) -> tuple[list[str], CountsFit, dict[str, float]]:
        """Elements without which the likelihood falls by `GAIN` or more, the fit with them, and how far it falls.

        Where one leaves, others may explain counts that were its own: S K those of Pb M, without which Pb L proves nothing.
        """
        swaps, gone, fit, falls = 0, set[str](), self.fit(symbols), dict[str, float]()
        while True:
            falls = self.falls(symbols, fit, falls)
            weakest = min(symbols, key=lambda symbol: falls[symbol], default=None)
            before = fit.misfit
            if weakest is not None and falls[weakest] < GAIN:
                gone.add(weakest)
                symbols = [each for each in symbols if each != weakest]
            elif swaps < SWAPS and (better := self.swapped(symbols, fit, falls)) is not None:
                symbols, swaps, gone, before, falls = better, swaps + 1, set(), math.inf, {}
            else:
                return symbols, fit, self.falls(symbols, fit)
            fit = self.fit(symbols)
            if (fit.misfit - before) / 2 >= GAIN:
                symbols = self.joined(symbols, gone, STAND_INS)
                fit = self.fit(symbols)

    def result(self, symbols: Sequence[str], fit: CountsFit, falls: dict[str, float]) -> Identified:
        """Elements by their evidence, and families with the rates that the fit has."""
        ours = self.dictionary.columns_of(symbols)
        amplitudes = fit.amplitudes[: len(ours)][self.dictionary.lines[ours]]
        owner = self.dictionary.owner[ours][self.dictionary.lines[ours]]
        counts: dict[str, dict[str, float]] = {symbol: {} for symbol in symbols}
        seen, strongest = [], dict.fromkeys(symbols, (-1.0, 0.0))
        for number in dict.fromkeys(owner.tolist()):
            family, own = self.dictionary.families[number], amplitudes[owner == number]
            counts[family.element][family.name] = float(own.sum())
            parts = own if own.sum() > 0 else self.dictionary.share[(self.dictionary.owner == number) & self.dictionary.lines]
            rates = np.zeros(len(family.rates))
            for group, part in zip(family.groups, parts, strict=True):
                within = family.rates[list(group)]
                rates[list(group)] = part * within / within.sum()
            seen.append(family._replace(rates=rates / rates.sum()))
            best = int(np.argmax(rates))
            line = own.sum() * rates[best], float(family.energies_ev[best])
            strongest[family.element] = max(strongest[family.element], line)
        found = [
            Element(symbol, probability(falls[symbol]), falls[symbol], counts[symbol], strongest[symbol][1])
            for symbol in sorted(symbols, key=lambda each: -falls[each])
        ]
        gains = self.gains(symbols, fit)
        possible: dict[str, float] = {}
        for i in np.argsort(-gains):
            if gains[i] >= POSSIBLE:
                possible.setdefault(self.dictionary.families[i].element, float(gains[i]))
        columns, _ = self.design.taken(self.dictionary, symbols)
        background = columns[:, len(ours) :] @ fit.amplitudes[len(ours) :]
        misfit = float(np.mean((self.window.counts - fit.model) ** 2 * fit.weights))
        setting = (self.detector, self.instrument, tuple(found), possible, self.window)
        return Identified(*setting, fit.model, background, tuple(seen), misfit, self.systematic)
