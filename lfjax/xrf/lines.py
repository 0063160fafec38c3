"""Energies and relative intensities of the X-ray lines of the elements, from the tables of xraydb.

A vacancy in shell s is filled with a line l at a rate

    rate(l) = vacancies(s) omega(s) p(l | s),

with fluorescence yield omega and branching p. The exciting photon makes vacancies in proportion to the jumps of absorption at
the edges below its energy (Sherman, Spectrochim. Acta 7, 283 (1955)), and Coster-Kronig transitions move them from L1 and L2
to L2 and L3 before a line is emitted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xraydb
from jaxtyping import Float
from numpy.typing import NDArray

from lfjax.errors import ParameterError, require

SHELLS = {"K": ("K",), "L": ("L1", "L2", "L3"), "M": ("M1", "M2", "M3", "M4", "M5")}
"""Shell of a family -> subshells whose vacancies it fills, from the most bound on."""
UNNATURAL = frozenset("Tc Pm Po At Rn Fr Ra Ac Pa".split())
"""Elements below uranium that no object holds in amounts that a scanner sees."""
GASES = frozenset("Ne Kr Xe".split())
"""Noble gases but argon, of which air has 1 %."""
M_LINES = {
    "Ma": ("M5", "N7", 0.575),
    "Mb": ("M4", "N6", 0.333),
    "Mz1": ("M5", "N3", 0.040),
    "Mz2": ("M4", "N2", 0.046),
    "Mg": ("M3", "N5", 0.020),
    "Md": ("M2", "N4", 0.040),
    "M3N1": ("M3", "N1", 0.016),
}
"""M line of a heavy element -> subshell of the vacancy, of the electron that fills it, and share of the family.

The tables of xraydb lack M zeta and M delta and give ten times too much to M gamma. These shares hold within a third from
tantalum to uranium, but for M delta, which has 1 to 12 % (Kissel's cross sections in xraylib, which a test compares).
"""
NEAR = 1.05  # ratio of energies of neighbours that absorption leaves alike
FAINT = 1e-3  # lines below this fraction of their family are left out


class Family(NamedTuple):
    """Lines of one element that one shell emits: their ratios are those of the atom, before anything absorbs.

    Attributes:
        element: symbol.
        shell: K, L or M.
        names: of the lines in Siegbahn's notation, such as Ka1.
        energies_ev: of the lines.
        rates: relative intensities; they sum to 1.
        strength: photons of the family per absorbed photon, roughly: vacancies times fluorescence yield, cascades included.
    """

    element: str
    shell: str
    names: tuple[str, ...]
    energies_ev: Float[NDArray[np.float64], " lines"]
    rates: Float[NDArray[np.float64], " lines"]
    strength: float = 1.0

    @property
    def name(self) -> str:
        """Element and shell, such as "Pb L"."""
        return f"{self.element} {self.shell}"

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the lines that keep their ratios whatever absorbs: of one subshell, and within 5 % of energy.

        The tables know the ratios of lines of one vacancy better than those of the vacancies; of L and M, these are subshells.
        Absorption in the object weakens lines by their energy: of one vacancy of lead, Ll lies at 9.2 keV and Lb2 at 12.6.
        """
        marks = [name[1] if self.shell == "K" else _subshell(self, name) for name in self.names]
        found: list[tuple[int, ...]] = []
        for mark in sorted(set(marks)):
            run: list[int] = []
            for i in (i for i in np.argsort(self.energies_ev) if marks[i] == mark):
                if run and self.energies_ev[i] > NEAR * self.energies_ev[run[-1]]:
                    found.append(tuple(run))
                    run = []
                run.append(int(i))
            found.append(tuple(run))
        return tuple(found)

    @property
    def edge_ev(self) -> float:
        """Energy from which photons excite it: that of its outermost subshell."""
        return float(
            min(edges_of(self.element)[level].energy for level in SHELLS[self.shell] if level in edges_of(self.element))
        )

    @property
    def strongest_ev(self) -> float:
        """Energy of the strongest line."""
        return float(self.energies_ev[np.argmax(self.rates)])

    def through(self, transmission: Float[NDArray[np.float64], " lines"]) -> Family:
        """The family behind a filter: each line weakened by its own transmission, rates summing to 1 again."""
        rates = self.rates * transmission
        return self._replace(rates=rates / rates.sum())


@functools.cache
def edges_of(element: str) -> Mapping[str, Any]:
    """Absorption edges of an element, by subshell: energy, fluorescence yield and jump; the tables are a data base on disk."""
    return dict(xraydb.xray_edges(element))


@functools.cache
def lines_of(element: str) -> Mapping[str, Any]:
    """Lines of an element, by name: energy, share of the subshell's photons, and levels."""
    return dict(xraydb.xray_lines(element))


@functools.cache
def family(element: str, shell: str, exciting_ev: float | None = None) -> Family | None:
    """Lines of a shell; None where the energy does not excite it, or the tables have no line of it.

    Args:
        element: symbol, H to U.
        shell: K, L or M.
        exciting_ev: energy of the exciting photons, or the highest of a tube in eV. None: every subshell of this shell is
            excited, and none above it.

    Raises:
        ParameterError: there is no such element or shell.

    Source: Elam, Ravel & Sieber, Radiat. Phys. Chem. 63, 121 (2002), through xraydb.
    """
    _require_element(element)
    require(shell in SHELLS, "shell", shell, "K, L or M")
    edges = edges_of(element)
    if shell == "M" and "N7" in edges:
        return _m_family(element, exciting_ev)
    vacancies = _vacancies(element, shell, np.inf if exciting_ev is None else float(exciting_ev))
    found = []
    for name, line in lines_of(element).items():
        starts = line.initial_level.split(",")  # M4,5 stands for both
        levels = [starts[0], *(starts[0][0] + more for more in starts[1:])]
        rate = sum(vacancies.get(level, 0.0) * edges[level].fyield for level in levels if level in edges) / len(levels)
        if rate * line.intensity > 0:
            found.append((name, float(line.energy), rate * line.intensity))
    if not found:
        return None
    strongest = max(rate for _, _, rate in found)
    kept = sorted((energy, name, rate) for name, energy, rate in found if rate >= FAINT * strongest)
    rates = np.array([rate for _, _, rate in kept])
    names, energies = tuple(name for _, name, _ in kept), np.array([energy for energy, _, _ in kept])
    return Family(element, shell, names, energies, rates / rates.sum(), _strength(element, shell, exciting_ev))


def families(
    lowest_ev: float,
    highest_ev: float,
    *,
    elements: Iterable[str] | None = None,
    exciting_ev: float | None = None,
    shells: Sequence[str] = ("K", "L", "M"),
) -> list[Family]:
    """Families whose strongest line lies in a range of energy, in the order of that line.

    Args:
        lowest_ev: lower end of the range in eV.
        highest_ev: upper end in eV.
        elements: symbols. None: Na to U but those of `UNNATURAL` and `GASES`.
        exciting_ev: see `family`.
        shells: to take.

    Raises:
        ParameterError: the range is empty, or there is no such element.
    """
    require(0 <= lowest_ev < highest_ev, "lowest_ev and highest_ev", (lowest_ev, highest_ev), "a range above 0")
    symbols = usual_elements() if elements is None else tuple(elements)
    every = (family(symbol, shell, exciting_ev) for symbol in symbols for shell in shells)
    within = [each for each in every if each is not None and lowest_ev <= each.strongest_ev <= highest_ev]
    return sorted(within, key=lambda each: each.strongest_ev)


@functools.cache
def usual_elements() -> tuple[str, ...]:
    """Symbols of Na to U but those of `UNNATURAL` and `GASES`."""
    symbols = (str(xraydb.atomic_symbol(z)) for z in range(11, 93))
    return tuple(symbol for symbol in symbols if symbol not in UNNATURAL | GASES)


def parse_families(text: str, exciting_ev: float | None = None, *, missing: bool = False) -> list[Family]:
    """Families from their names, "Pb L, Fe K, Cu"; without a shell, the family of most energy that is excited.

    Args:
        text: names between commas.
        exciting_ev: see `family`.
        missing: whether families that are not excited are left out; they are refused otherwise.

    Raises:
        ParameterError: a word is no element or shell, or no line of it is excited.
    """
    found = []
    for part in (word.strip() for word in text.split(",") if word.strip()):
        symbol, _, shell = part.partition(" ")
        _require_element(symbol)
        shells = (shell.strip(),) if shell else ("K", "L", "M")
        excited = [each for s in shells if (each := family(symbol, s, exciting_ev)) is not None]
        limit = "" if exciting_ev is None else f" below {exciting_ev / 1000:g} keV"
        if missing and not excited:
            continue
        require(bool(excited), "families", part, f"an element with lines{limit}, such as Pb L or Fe K")
        found.append(excited[0])
    return found


def _strength(element: str, shell: str, exciting_ev: float | None) -> float:
    """Vacancies of a shell, and one for each of a shell above, which its lines and Auger electrons pass on, times its yield."""
    edges = edges_of(element)
    highest = np.inf if exciting_ev is None else float(exciting_ev)
    own = _vacancies(element, shell, highest)
    above = sum(sum(_vacancies(element, each, highest).values()) for each in SHELLS if each < shell)
    outer = SHELLS[shell][-1] if SHELLS[shell][-1] in own else max(own, default="")
    weights = own | ({outer: own[outer] + above} if outer else {})
    return float(sum(number * edges[level].fyield for level, number in weights.items()))


def _m_family(element: str, exciting_ev: float | None) -> Family | None:
    """M lines with the shares of `M_LINES`, at the difference of the energies of their subshells."""
    edges = edges_of(element)
    if exciting_ev is not None and exciting_ev <= edges["M5"].energy:
        return None
    energies = {name: edges[upper].energy - edges[lower].energy for name, (upper, lower, _) in M_LINES.items()}
    listed = {name: line.energy for name, line in lines_of(element).items() if name in ("Ma", "Mb", "Mg")}
    energies |= listed
    names = tuple(sorted(energies, key=lambda name: energies[name]))
    rates = np.array([M_LINES[name][2] for name in names])
    numbers = np.array([float(energies[name]) for name in names])
    return Family(element, "M", names, numbers, rates / rates.sum(), _strength(element, "M", exciting_ev))


def _subshell(family: Family, line: str) -> str:
    if family.shell == "M" and line in M_LINES:
        return M_LINES[line][0]
    return str(lines_of(family.element)[line].initial_level)


def _vacancies(element: str, shell: str, exciting_ev: float) -> dict[str, float]:
    """Vacancies per absorbed photon of each subshell of a shell, Coster-Kronig transitions included."""
    edges = edges_of(element)
    left, made = 1.0, {}
    for level, edge in sorted(edges.items(), key=lambda item: -item[1].energy):
        if edge.energy >= exciting_ev or (np.isinf(exciting_ev) and level[0] < shell):
            continue
        share = 1 - 1 / edge.jump_ratio if edge.jump_ratio > 1 else 0.0
        made[level] = left * share
        left *= 1 - share
    levels = [level for level in SHELLS[shell] if level in made]
    if shell != "L":  # K has one subshell; of M the tables list no transition that changes the lines much
        return {level: made[level] for level in levels}
    final = dict.fromkeys(levels, 0.0)
    for level in levels:  # `total` counts L1 -> L2 -> L3 as well
        final[level] += made[level]
        for other in levels[levels.index(level) + 1 :]:
            final[other] += made[level] * _coster_kronig(element, level, other)
    return final


def _coster_kronig(element: str, initial: str, final: str) -> float:
    """Probability that a vacancy moves from one L subshell to another; 0 where the tables have none."""
    try:
        return float(xraydb.ck_probability(element, initial, final, total=True) or 0.0)
    except (ValueError, TypeError):
        return 0.0


def _require_element(symbol: str) -> None:
    try:
        xraydb.atomic_number(symbol)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ParameterError(f"element: {symbol!r}: expected a symbol such as Pb") from None
