"""All that a spectrum can hold: groups of lines whose ratios hold, tied into families, with scatter, pile-up and background."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray

from lfjax.xrf.components import Lines, escaping, let_through, line_columns, pile_up, scatter_lines, snip, splines
from lfjax.xrf.detector import Detector
from lfjax.xrf.instrument import SILICON_K_EV, Instrument, escape
from lfjax.xrf.lines import Family, edges_of, family as family_of
from lfjax.xrf.poisson_fit import Counts, Ties
from lfjax.xrf.tube import emitted
from lfjax.xrf.window import Window

SPREAD = {"K": 0.04, "L": 0.12, "M": 0.3}
"""Relative error of the ratios between groups of a family: that of the tables, and absorption in the object."""
SPREAD_OF_ESCAPE = 0.3
"""Relative error of the share of escape peaks: photons that come slantwise, and layers that detect nothing."""
UNSEEN = 0.7
"""Trust in families whose element has stronger lines outside the spectrum."""
LOWEST_EDGE_EV = 4000.0  # absorption edges below lie closer to the lines of their element than a detector tells apart
LEAST_ESCAPE = 1e-5  # share of escape peaks that is too small to be seen
SPREAD_OF_SHELLS = {"K": 1.0, "L": 1.0, "M": 2.0}
"""Relative error of the ratio between families of an element, which is that of a thin film: what absorbs between source and
detector weakens lower ones, and yields of M shells differ up to threefold between tables."""
ABSORBED, SPREAD_OF_ABSORBED = 0.02, 3.0
"""Background below an element's edges per count in its lines, and its relative error: the element's absorption makes both."""
SPREAD_OF_TUBE = 0.2
"""Relative error of the ratios between scattered lines of the tube: electrons excite them, and anode and object absorb them."""


def _group(name: str, energies: Float[NDArray[np.float64], " lines"], rates: Float[NDArray[np.float64], " lines"]) -> Lines:
    return Lines(name, energies, rates / rates.sum(), np.zeros(len(rates)))


class Dictionary(NamedTuple):
    """Families that may be in a spectrum, and scatter.

    Attributes:
        families: candidates.
        groups: lines of each group of each family.
        owner: family of each group.
        share: of the counts of its family, which escape peaks come on top of.
        lines: whether a group holds lines of the element; else it is the escape peaks of a family.
        ties: shares of groups, and ratios between families of an element.
        scatter: lines of the tube: groups of those scattered without loss, and those of Compton.
        scatter_ties: shares of these groups in the lines of their shell.
        instrument: that sees them.
        edges: element -> energies in eV and jumps of the absorption edges at which the object's scatter may fall.
        evidence: whether a family proves its element: that of most energy of those which are well excited, and any above it.
            Lines of lower shells are weaker, absorbed, and many; alone they prove nothing.
        trust: share of the growth of the likelihood that counts for a family: less where stronger lines of its element lie
            outside the spectrum, and cannot be looked for.
    """

    families: tuple[Family, ...]
    groups: tuple[Lines, ...]
    owner: Int[NDArray[np.integer], " groups"]
    share: Float[NDArray[np.float64], " groups"]
    lines: Bool[NDArray[np.bool_], " groups"]
    ties: Ties
    scatter: tuple[Lines, ...]
    scatter_ties: Ties
    instrument: Instrument
    edges: dict[str, list[tuple[float, float]]]
    evidence: Bool[NDArray[np.bool_], " families"]
    trust: Float[NDArray[np.float64], " families"]

    @classmethod
    def of(cls, families: Sequence[Family], instrument: Instrument, *, edges: bool = True) -> Dictionary:
        """The dictionary of some families, seen by an instrument; `edges`: whether scatter may fall at absorption edges."""
        groups, owner, share, strength, escapes = [], [], [], [], []
        energies = np.concatenate([family.energies_ev for family in families] or [np.zeros(0)])  # one look into the tables
        ends = np.cumsum([len(family.rates) for family in families])[:-1]
        efficiency, leaving = (np.split(values, ends) for values in (instrument.efficiency(energies), escape(energies)))
        for number, family in enumerate(families):
            seen = family.through(efficiency[number])
            for part in map(list, family.groups):
                rates = seen.rates[part]
                groups.append(_group(family.name, seen.energies_ev[part], rates))
                owner.append(number)
                share.append(rates.sum())
            lost = seen.rates * leaving[number]
            if lost.sum() > LEAST_ESCAPE:
                groups.append(_group(f"{family.name} escape", seen.energies_ev - SILICON_K_EV, lost))
                owner.append(number)
                share.append(lost.sum())
                escapes.append(len(groups) - 1)
            strength.append(emitted(family.element, family.shell, instrument) * float(family.rates @ efficiency[number]))
        owners, shares, evidence = np.array(owner, int), np.array(share, float), _evidence(families, instrument)
        lines = ~np.isin(np.arange(len(groups)), escapes)
        ties = _ties(families, owners, shares, lines, np.array(strength), evidence)
        steps = _edges(families if edges else ())
        known = owners, shares, lines, ties, *_scatter(instrument), instrument, steps, evidence, _trust(families, instrument)
        return cls(tuple(families), tuple(groups), *known)

    def columns_of(self, elements: Collection[str], unproven: str | None = None) -> NDArray[np.int64]:
        """Numbers of the groups of some elements, without the evidence for one of them."""
        ours = [
            number
            for number, family in enumerate(self.families)
            if family.element in elements and not (family.element == unproven and self.evidence[number])
        ]
        return np.flatnonzero(np.isin(self.owner, ours))


def _scatter(instrument: Instrument) -> tuple[tuple[Lines, ...], Ties]:
    """Groups of lines of the tube that are scattered without loss, those of Compton, and ties of the groups.

    Compton lines are one component per shell: their shift is below a width in L, and those of K lie above the usual fits.
    """
    sources = instrument.tube_families()
    groups, owner, share = [], [], []
    for number, source in enumerate(sources):
        seen = source.through(instrument.efficiency(source.energies_ev))
        for part in map(list, seen.groups if source.shell else [range(len(seen.rates))]):
            groups.append(escaping(_group(f"{source.name.strip()} Rayleigh", seen.energies_ev[part], seen.rates[part])))
            owner.append(number)
            share.append(seen.rates[part].sum())
    shifted = [each for each in scatter_lines(instrument) if each.name.endswith("Compton")]
    whole = np.equal.outer(owner, owner).astype(float)
    tied = whole.sum(axis=1) > 1
    ties = Ties(np.eye(len(owner))[tied], whole[tied], np.array(share)[tied], np.full(np.count_nonzero(tied), SPREAD_OF_TUBE))
    return (*groups, *shifted), ties.taken(np.arange(len(groups)), len(shifted))


def _edges(families: Sequence[Family]) -> dict[str, list[tuple[float, float]]]:
    """K and L edges of the elements of some families, but those that a detector does not tell apart from their lines."""
    found: dict[str, list[tuple[float, float]]] = {family.element: [] for family in families}
    for element, edges in found.items():
        for level, edge in edges_of(element).items():
            if level[0] in "KL" and edge.energy > LOWEST_EDGE_EV and edge.jump_ratio > 1:
                edges.append((edge.energy, edge.jump_ratio))
    return found


def _ties(
    families: Sequence[Family],
    owner: Int[NDArray[np.integer], " groups"],
    share: Float[NDArray[np.float64], " groups"],
    lines: Bool[NDArray[np.bool_], " groups"],
    strength: Float[NDArray[np.float64], " families"],
    evidence: Bool[NDArray[np.bool_], " families"],
) -> Ties:
    """Each group to its family; each family that proves nothing to those of its element that do."""
    member = np.equal.outer(np.arange(len(families)), owner).astype(float) * lines
    shells = np.array([SPREAD[families[number].shell] for number in owner])
    spread = np.where(lines, shells, SPREAD_OF_ESCAPE)
    alone = share > 1 - 1e-9
    parts, wholes = [np.eye(len(owner))[~alone]], [member[owner][~alone]]
    ratios, spreads = [share[~alone]], [spread[~alone]]
    for number, family in enumerate(families):
        proof = [i for i, other in enumerate(families) if other.element == family.element and evidence[i]]
        if not evidence[number] and strength[proof].sum() > 0:
            parts.append(member[[number]])
            wholes.append(member[proof].sum(axis=0, keepdims=True))
            ratios.append(strength[[number]] / strength[proof].sum())
            spreads.append(np.array([SPREAD_OF_SHELLS[family.shell]]))
    return Ties(*(np.concatenate(each) for each in (parts, wholes, ratios, spreads)))


def _trust(families: Sequence[Family], instrument: Instrument) -> Float[NDArray[np.float64], " families"]:
    here = {(family.element, family.shell) for family in families}

    def unseen(family: Family) -> bool:
        made = (family_of(family.element, shell, instrument.highest_ev) for shell in "KL" if shell < family.shell)
        above = [each for each in made if each is not None]
        return any(each.edge_ev <= instrument.well_excited_ev and (each.element, each.shell) not in here for each in above)

    return np.array([UNSEEN if unseen(family) else 1.0 for family in families])


def _evidence(families: Sequence[Family], instrument: Instrument) -> Bool[NDArray[np.bool_], " families"]:
    least: dict[str, float] = {}
    for family in families:
        if family.edge_ev <= instrument.well_excited_ev:
            least[family.element] = max(least.get(family.element, 0.0), family.strongest_ev)
    return np.array([family.strongest_ev >= least.get(family.element, 0.0) for family in families], bool)


class Design(NamedTuple):
    """Columns of a dictionary in a window, at the numbers of a detector.

    Attributes:
        groups: counts per bin of each group of lines.
        families: the same for whole families at their tabulated ratios.
        edges: of background that elements with absorption edges in the window let through.
        owner: element of each of them.
        rest: of scatter, pile-up and background, which every fit has.
        rest_ties: of scatter.
    """

    groups: Float[NDArray[np.float64], "bins groups"]
    families: Float[NDArray[np.float64], "bins families"]
    edges: Float[NDArray[np.float64], "bins edges"]
    owner: tuple[str, ...]
    rest: Float[NDArray[np.float64], "bins rest"]
    rest_ties: Ties

    @classmethod
    def of(cls, dictionary: Dictionary, detector: Detector, window: Window, spectrum: Counts) -> Design:
        """Columns of all candidates; `spectrum`, with all its channels, makes pile-up and edges."""
        binned = np.asarray(line_columns(detector, [*dictionary.groups, *dictionary.scatter], window.edges))
        groups = binned[:, : len(dictionary.groups)]
        members = np.zeros((len(dictionary.groups), len(dictionary.families)))
        members[np.arange(len(members)), dictionary.owner] = dictionary.share
        inside = np.where(np.arange(detector.channels) >= window.edges[0], spectrum, 0)
        piled = window.binned(pile_up(inside, detector))[:, None]
        rest = np.concatenate([binned[:, len(dictionary.groups) :], piled, window.binned(splines(detector))], axis=1)
        seen = np.flatnonzero(rest.sum(axis=0) > 1e-3)
        ties = dictionary.scatter_ties.taken(np.arange(len(dictionary.scatter)), rest.shape[1] - len(dictionary.scatter))
        low, high = window.energies_ev[[0, -1]]
        near = {each: [edge for edge in edges if low < edge[0] < high] for each, edges in dictionary.edges.items()}
        smooth = snip(spectrum, detector)
        through = [(each, let_through(detector, dictionary.instrument, edges, smooth)) for each, edges in near.items() if edges]
        owner = tuple(element for element, columns in through for _ in range(columns.shape[1]))
        edges = window.binned(np.concatenate([np.zeros((detector.channels, 0)), *(columns for _, columns in through)], axis=1))
        edges /= np.maximum(edges.sum(axis=0), 1e-30)
        return cls(groups, groups @ members, edges, owner, rest[:, seen], ties.taken(seen))

    def all_of(self, dictionary: Dictionary) -> tuple[NDArray[np.float64], Ties]:
        """Columns and ties of a fit with all elements."""
        return self.taken(dictionary, {family.element for family in dictionary.families})

    def taken(
        self, dictionary: Dictionary, elements: Collection[str], unproven: str | None = None
    ) -> tuple[NDArray[np.float64], Ties]:
        """Columns and ties of a fit with some elements, see `Dictionary.columns_of`: groups first, then edges and the rest."""
        ours, seen = self._chosen(dictionary, elements, unproven)
        lines = [dictionary.families[number].element for number in dictionary.owner[ours]]
        columns = np.concatenate([self.groups[:, ours], self.edges[:, seen], self.rest], axis=1)
        whole = np.array([[element == self.owner[i] for element in lines] for i in seen], float).reshape(len(seen), len(ours))
        part, behind = np.pad(np.eye(len(seen)), ((0, 0), (len(ours), 0))), ((0, 0), (0, len(seen)))
        ratio, spread = np.full(len(seen), ABSORBED), np.full(len(seen), SPREAD_OF_ABSORBED)
        ties = dictionary.ties.taken(ours, len(seen)).joined(Ties(part, np.pad(whole, behind), ratio, spread))
        return columns, ties.beside(self.rest_ties)

    def carried(
        self,
        dictionary: Dictionary,
        amplitudes: Float[NDArray[np.float64], " columns"],
        before: Collection[str],
        elements: Collection[str],
        unproven: str | None = None,
    ) -> Float[NDArray[np.float64], " others"]:
        """Amplitudes of a fit with some elements, for the columns of a fit with others; 0 where the first had none."""
        every = np.zeros(self.groups.shape[1] + self.edges.shape[1] + self.rest.shape[1])
        every[self._numbers(*self._chosen(dictionary, before, None))] = amplitudes
        return every[self._numbers(*self._chosen(dictionary, elements, unproven))]

    def _chosen(
        self, dictionary: Dictionary, elements: Collection[str], unproven: str | None
    ) -> tuple[NDArray[np.int64], list[int]]:
        """Numbers of the groups and edges of some elements."""
        ours = dictionary.columns_of(elements, unproven)
        there = {dictionary.families[number].element for number in dictionary.owner[ours]}
        return ours, [i for i, element in enumerate(self.owner) if element in there]

    def _numbers(self, groups: NDArray[np.int64], edges: Sequence[int]) -> NDArray[np.int64]:
        """Numbers of columns among all of them."""
        first, last = self.groups.shape[1], self.groups.shape[1] + self.edges.shape[1]
        return np.concatenate([groups, first + np.array(edges, int), last + np.arange(self.rest.shape[1])])


@jax.jit
def counts_of(detector: Detector, energies: Array, broadening: Array, counts: Array, edges: Array) -> Array:
    """Counts per bin of lines: the same as `line_columns` times amplitudes, differentiable in the detector."""
    widths = jnp.sqrt(detector.fwhm_ev(energies) ** 2 + broadening**2)
    return detector.pulses(energies, widths, edges) @ counts
