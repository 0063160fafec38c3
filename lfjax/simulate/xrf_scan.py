"""The scan of a painting: an X-ray spectrum for each pixel, with the expected counts of every family of lines beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, UInt
from numpy.typing import NDArray

from lfjax.errors import ParameterError, require
from lfjax.simulate.layered_emission import Emission, emission
from lfjax.simulate.painting import Layer, Painting
from lfjax.simulate.pigments import Material, find_material
from lfjax.xrf.components import COMPTON_WIDTH, Lines, line_columns, pile_up, with_escape
from lfjax.xrf.detector import Detector
from lfjax.xrf.instrument import Instrument, escape
from lfjax.xrf.lines import Family, families as families_between
from lfjax.xrf.tube import LOWEST_EV, Beam, tube_beam

SCANNER = Instrument(50000.0, anode="Rh", angle_deg=135.0, air_cm=1.0, beryllium_um=12.5, silicon_um=500.0)
"""A usual scanner: a rhodium tube at 50 kV straight above the panel, a detector at 45 degrees, 1 cm away."""
KEY_FAMILIES = {
    "lead white": "Pb L",
    "vermilion": "Hg L",
    "azurite": "Cu K",
    "smalt": "Co K",
    "umber": "Mn K",
    "ochre": "Fe K",
    "lead-tin yellow": "Sn L",
    "bone black": "Ca K",
}
"""Pigment -> family by which a map shows it."""
BLOCK = 2048  # pixels at a time
FINE = 10  # lines per bin that stand for a smooth spectrum

Energies = Float[NDArray[np.float64], " energies"]


class Scan(NamedTuple):
    """Spectra of a panel.

    Attributes:
        cube: counts, unsigned integers of 16 bits, or 32 where they do not fit.
        truth: family, such as "Pb L" -> its expected counts at each pixel, escape peaks aside.
        expected: expected counts per channel, summed over the panel.
        families: of `truth`, as the atoms emit them.
        detector: that recorded it.
        instrument: that recorded it.
        dwell_s: time per pixel.
    """

    cube: UInt[np.ndarray, "rows columns channels"]
    truth: dict[str, Float[NDArray[np.float64], "rows columns"]]
    expected: Float[NDArray[np.float64], " channels"]
    families: tuple[Family, ...]
    detector: Detector
    instrument: Instrument
    dwell_s: float


def scan(
    painting: Painting,
    key: Array,
    instrument: Instrument = SCANNER,
    detector: Detector | None = None,
    *,
    counts: float | None = 20.0,
    dwell_s: float = 0.1,
    rate_cps: float = 5e4,
    resolving_s: float = 3e-7,
    beam_deg: float = 90.0,
) -> Scan:
    """Spectra of a painting under the beam of a tube: Poisson counts about what the layers send out.

    The air between panel and detector is the topmost layer, so that its argon shows. Two photons within `resolving_s` are
    recorded as one of their joint energy.

    Args:
        painting: see `paint`.
        key: random key of the counts.
        instrument: the scanner, see `emission` for its angle.
        detector: None: 2048 channels of 15 eV that begin at -100 eV.
        counts: expected counts of a main family per pixel: the median over pigments of the mean over those pixels that show
            the pigment, each by its family in `KEY_FAMILIES`. None: `rate_cps` sets the scale.
        dwell_s: time per pixel.
        rate_cps: mean counts per second, where `counts` is None.
        resolving_s: time within which the detector takes two photons for one.
        beam_deg: angle between beam and surface.

    Raises:
        ParameterError: a number is out of range, a material is unknown, or the painting shows no pigment of `KEY_FAMILIES`.
    """
    require(counts is None or 0 < counts < 1e9, "counts", counts, "a positive number")
    for name, value in (("dwell_s", dwell_s), ("rate_cps", rate_cps)):
        require(0 < value < math.inf, name, value, "a positive number")
    require(0 <= resolving_s < math.inf, "resolving_s", resolving_s, "zero or more")
    instrument = instrument.checked()
    detector = Detector(2048, 15.0, -100.0) if detector is None else detector
    air = Layer("air", ("air",), np.full((1, *painting.shape), 1e4 * instrument.air_cm))
    areal, materials = areal_masses((air, *painting.layers))
    symbols = sorted({symbol for each in materials for symbol in each.elements})
    families = families_between(LOWEST_EV, instrument.highest_ev, elements=symbols, exciting_ev=instrument.highest_ev)
    beam, bare = tube_beam(instrument), instrument._replace(air_cm=0.0)
    sent = emission(areal, materials, families, beam, instrument, beam_deg=beam_deg)
    areas, columns = counted(sent, families, beam, bare, detector)
    maps = areas[:, : sum(len(each.rates) for each in families)] @ _members(families)
    if counts is not None:
        scale = counts / _main_counts(maps, families, painting)
    else:
        scale = rate_cps * dwell_s / float((areas @ columns.sum(axis=0)).mean())
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    expected, cube, recorded = np.zeros(detector.channels), [], []
    for first in range(0, len(areas), BLOCK):
        spectra, alone = _piled(scale * areas[first : first + BLOCK] @ columns.T, detector, resolving_s / dwell_s)
        drawn = rng.poisson(spectra)
        cube.append(drawn.astype(np.uint16 if drawn.max() < 2**16 else np.uint32))
        expected += spectra.sum(axis=0)
        recorded.append(alone)
    maps = (maps * scale * np.concatenate(recorded)[:, None]).reshape(*painting.shape, len(families))
    truth = {each.name: maps[..., i] for i, each in enumerate(families)}
    whole = np.concatenate(cube).reshape(*painting.shape, detector.channels)
    return Scan(whole, truth, expected, tuple(families), detector, instrument, dwell_s)


def areal_masses(layers: tuple[Layer, ...]) -> tuple[Float[NDArray[np.float64], "pixels layers materials"], list[Material]]:
    """Mass of each material in each layer at each pixel, g/cm^2, and the materials.

    Raises:
        ParameterError: a material is unknown, or a thickness is negative.
    """
    names = list(dict.fromkeys(name for layer in layers for name in layer.materials))
    materials = [find_material(name) for name in names]
    shape = layers[0].thickness_um.shape[1:]
    areal = np.zeros((*shape, len(layers), len(names)))
    for number, layer in enumerate(layers):
        lowest = float(layer.thickness_um.min())
        require(lowest >= 0, f"thickness_um of {layer.name}", lowest, "zero or more")
        for name, thickness in zip(layer.materials, layer.thickness_um, strict=True):
            areal[..., number, names.index(name)] += 1e-4 * thickness * find_material(name).density
    return areal.reshape(-1, len(layers), len(names)), materials


def counted(
    sent: Emission, families: Sequence[Family], beam: Beam, instrument: Instrument, detector: Detector
) -> tuple[Float[NDArray[np.float64], "pixels components"], Float[NDArray[np.float64], "channels components"]]:
    """Photons of each component that the detector counts, and where it counts them.

    Args:
        sent: see `emission`.
        families: of `sent`.
        beam: that excited it.
        instrument: gives efficiency and Compton shift.
        detector: gives the pulses.

    Returns:
        Counts of each component, escape peaks aside, in the units of the beam; and the share of them in each channel. Lines of
        the families come first, then scattered lines and scattered continuum.
    """
    bins = len(beam.energies_ev)
    lines_ev, smooth_ev = (
        np.array([instrument.compton_ev(e) for e in each.tolist()]) for each in (beam.lines_ev, beam.energies_ev)
    )
    rayleigh, compton = np.asarray(sent.rayleigh, np.float64), np.asarray(sent.compton, np.float64)
    energies = np.concatenate([each.energies_ev for each in families] or [np.zeros(0)])
    broadened = [each._replace(broadening_ev=COMPTON_WIDTH * each.energies_ev) for each in _single(lines_ev)]
    parts = [
        (sent.lines, energies, _single(energies)),
        (rayleigh[:, bins:], beam.lines_ev, _single(beam.lines_ev)),
        (compton[:, bins:], lines_ev, broadened),
        (rayleigh[:, :bins], beam.energies_ev, _smooth(beam.energies_ev)),
        (compton[:, :bins], smooth_ev, _smooth(smooth_ev)),
    ]
    counts = [np.asarray(photons, np.float64) * instrument.efficiency(at) for photons, at, _ in parts if len(at)]
    columns = np.asarray(line_columns(detector, [line for _, _, lines in parts for line in lines]), np.float64)
    return np.concatenate(counts, axis=1), columns


def _members(families: list[Family]) -> Float[NDArray[np.float64], "lines families"]:
    """1 where a line is of a family."""
    owner = np.repeat(np.arange(len(families)), [len(each.rates) for each in families])
    return np.equal.outer(owner, np.arange(len(families))).astype(float)


def _single(energies: Energies) -> list[Lines]:
    """A component for each line, with its escape peak."""
    shares = escape(energies) if len(energies) else energies
    return [
        with_escape(Family("", "", ("",), energies[i : i + 1], np.ones(1)), shares[i : i + 1]) for i in range(len(energies))
    ]


def _smooth(energies: Energies) -> list[Lines]:
    """A component for each node of a piecewise linear spectrum, as lines so close that no detector sees them apart."""
    if len(energies) < 2:
        return []
    step = float(np.diff(energies).mean())
    t = np.arange(1 - FINE, FINE) / FINE
    return [Lines("", energy + step * t, (1 - np.abs(t)) / FINE, np.zeros(len(t))) for energy in energies.tolist()]


def _piled(
    spectra: Float[NDArray[np.float64], "pixels channels"], detector: Detector, share: float
) -> tuple[Float[NDArray[np.float64], "pixels channels"], Float[NDArray[np.float64], " pixels"]]:
    """Spectra with pile-up, and the fraction of photons recorded alone.

    Of N photons, p = N share find another one close behind; each such pair is lost twice and recorded once.
    """
    if share == 0:
        return spectra, np.ones(len(spectra))
    total = spectra.sum(axis=1)
    pairs = share * total
    highest = float(pairs.max())
    require(highest < 0.2, "resolving_s", highest, "a pile-up below 0.2 of the photons; lower the rate or this time")
    alone = 1 - 2 * pairs
    double = np.stack([pile_up(each, detector) for each in spectra])
    return alone[:, None] * spectra + (pairs * total)[:, None] * double, alone


def _main_counts(areas: Float[NDArray[np.float64], "pixels families"], families: list[Family], painting: Painting) -> float:
    """Median over pigments of the mean counts of the main family of each where it is seen."""
    names, visible = [each.name for each in families], painting.visible.ravel()
    found = [
        areas[visible == number, names.index(KEY_FAMILIES[pigment])].mean()
        for number, pigment in enumerate(painting.pigments)
        if KEY_FAMILIES.get(pigment) in names and np.any(visible == number)
    ]
    if not found:
        raise ParameterError(f"painting: expected a visible pigment out of {', '.join(KEY_FAMILIES)}, or counts=None")
    return float(np.median(found))
