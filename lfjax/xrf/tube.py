"""Photons of an X-ray tube: bremsstrahlung and characteristic lines of a thick anode, behind its window."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import xraydb
from jaxtyping import Float
from numpy.typing import NDArray

from lfjax.errors import require
from lfjax.xrf.instrument import Instrument
from lfjax.xrf.lines import SHELLS, edges_of, family

LOWEST_EV = 1000.0
"""Below, air and windows let no photon of a tube pass."""
CONTINUUM = 1.35e9  # photons per second, sr, mA and keV
LINES = {"K": (5e13, 2.0, 0.35), "L": (4.94e13, 8.0, 0.25)}  # photons per second, sr and mA; electrons of a shell; factor b

Energies = Float[NDArray[np.float64], " energies"]


class Beam(NamedTuple):
    """Photons that excite the object.

    Attributes:
        energies_ev: middles of the bins of the continuum, at equal distances.
        photons: in each bin, per second, sr and mA of the tube.
        lines_ev: characteristic lines, or the energy of a monochromatic beam.
        line_photons: in each line, same unit.
    """

    energies_ev: Energies
    photons: Energies
    lines_ev: Float[NDArray[np.float64], " lines"]
    line_photons: Float[NDArray[np.float64], " lines"]


def tube_beam(
    instrument: Instrument,
    *,
    step_ev: float = 250.0,
    electrons_deg: float = 70.0,
    photons_deg: float = 20.0,
    window_um: float = 100.0,
) -> Beam:
    """What the tube of an instrument sends out.

    With the overvoltage U = E_0 / E, atomic number Z, and the absorption f of the anode on the way out,

        N(E) = 1.35e9 Z (U - 1)^x f(E),   x = 1.109 - 0.00435 Z + 0.00175 E_0,
        N_l = c_s S_s^(-1) R omega_s p_l f(E_l),
        f(E) = (1 - exp(-chi)) / chi,   chi = 2 tau(E) rho z(E) sin(phi) / sin(epsilon),

    with the mean depth rho z, backscattering R and stopping S of Love and Scott.

    Args:
        instrument: gives anode and voltage. A monochromatic beam has one line of one photon and no continuum.
        step_ev: width of the bins of the continuum.
        electrons_deg: phi, angle between the electrons and the surface of the anode.
        photons_deg: epsilon, angle between the photons and this surface.
        window_um: thickness of the tube's beryllium window.

    Raises:
        ParameterError: the instrument has no anode, or a number is out of range.

    Source: Ebel, X-Ray Spectrom. 28, 255 (1999), equations 3 to 8; L lines: 32, 46 (2003).
    """
    require(10 <= step_ev <= 2000, "step_ev", step_ev, "10 to 2000 eV")
    for name, angle in (("electrons_deg", electrons_deg), ("photons_deg", photons_deg)):
        require(0 < angle <= 90, name, angle, "an angle above 0, up to 90 degrees")
    require(0 <= window_um < math.inf, "window_um", window_um, "zero or more")
    if instrument.monochromatic:
        return Beam(np.zeros(0), np.zeros(0), np.array([instrument.highest_ev]), np.ones(1))
    require(instrument.anode is not None, "anode", instrument.anode, "an element such as Rh")
    anode, highest = str(instrument.anode), instrument.highest_ev
    slant = math.sin(math.radians(electrons_deg)) / math.sin(math.radians(photons_deg))
    energies = np.arange(LOWEST_EV + step_ev / 2, highest - step_ev / 4, step_ev)
    photons = 1e-3 * step_ev * _continuum(anode, energies, highest, slant)
    found = [_characteristic(anode, shell, highest, slant) for shell in LINES]
    lines, line_photons = (np.concatenate(each) for each in zip(*found, strict=True))
    return Beam(energies, photons * _window(energies, window_um), lines, line_photons * _window(lines, window_um))


@functools.cache
def emitted(element: str, shell: str, instrument: Instrument) -> float:
    """Photons that a shell of an atom emits in the beam of an instrument, in a unit that shells of one element share.

        sum_E N(E) tau(E) y(E)

    with the photons N of `tube_beam`, the absorption tau of the element, and y, the photons of the shell per absorbed photon.
    Most photons of a tube lie below the K or L edges of heavy elements, and excite lower shells alone: Pb M has half as many
    counts as Pb L from a thin film, and a fourteenth where all photons lie above the L edges. An unknown tube counts as one of
    rhodium without its lines.

    Args:
        element: symbol.
        shell: K, L or M.
        instrument: tells the beam.
    """
    known = instrument.monochromatic or instrument.anode is not None
    beam = tube_beam(instrument if known else instrument._replace(anode="Rh"))
    energies = np.concatenate([beam.energies_ev, beam.lines_ev[: len(beam.lines_ev) if known else 0]])
    photons = np.concatenate([beam.photons, beam.line_photons])[: len(energies)]
    absorbed = photons * xraydb.mu_elam(element, energies, kind="photo")
    edges = sorted(edge.energy for edge in edges_of(element).values())
    total = 0.0
    for number, top in enumerate([*edges, 2 * instrument.highest_ev]):
        between = np.searchsorted(edges, energies, side="left") == number
        excited = family(element, shell, float(top)) if between.any() else None
        total += 0.0 if excited is None else excited.strength * float(absorbed[between].sum())
    return total


def _continuum(anode: str, energies: Energies, highest_ev: float, slant: float) -> Energies:
    """Bremsstrahlung per keV."""
    z = xraydb.atomic_number(anode)
    power = 1.109 - 0.00435 * z + 0.00175e-3 * highest_ev
    escaping = _escaping(anode, energies, highest_ev / energies, highest_ev, slant)
    return np.asarray(CONTINUUM * z * (highest_ev / energies - 1) ** power * escaping)


def _characteristic(anode: str, shell: str, highest_ev: float, slant: float) -> tuple[Energies, Energies]:
    """Energies and photons of the lines of a shell."""
    lines = family(anode, shell, highest_ev)
    if lines is None:
        return np.zeros(0), np.zeros(0)
    z, (constant, electrons, b) = xraydb.atomic_number(anode), LINES[shell]
    edge = xraydb.xray_edges(anode)[SHELLS[shell][-1]]
    u, root = highest_ev / edge.energy, math.sqrt(highest_ev / edge.energy)
    bare = u * math.log(u) + 1 - u
    slowed = 1 + 16.05 * math.sqrt(13.5 * z / edge.energy) * (root * math.log(u) + 2 * (1 - root)) / bare
    stopping = electrons * b / z * bare * slowed
    back = 1 - 0.0081517 * z + 3.613e-5 * z**2 + 0.009583 * z * math.exp(-u) + 0.001141e-3 * highest_ev
    escaping = _escaping(anode, lines.energies_ev, np.full(len(lines.rates), u), highest_ev, slant)
    return lines.energies_ev, constant * stopping * back * edge.fyield * lines.rates * escaping


def _escaping(anode: str, energies: Energies, overvoltage: Energies, highest_ev: float, slant: float) -> Energies:
    """f(E): share of the photons that leave the anode."""
    z, e0, log_u = xraydb.atomic_number(anode), highest_ev / 1000, np.log(overvoltage)
    log_z = math.log(z)
    eta = (0.1904 - 0.2236 * log_z + 0.1292 * log_z**2 - 0.0149 * log_z**3) * e0 ** (0.1382 - 0.9211 / math.sqrt(z))
    deepest = xraydb.atomic_mass(anode) / z * (0.787e-5 * math.sqrt(0.0135 * z) * e0**1.5 + 0.735e-6 * e0**2)
    mean = deepest * log_u * (0.49269 - 1.0987 * eta + 0.78557 * eta**2)
    mean /= 0.70256 - 1.09865 * eta + 1.0046 * eta**2 + log_u
    chi = 2 * xraydb.mu_elam(anode, energies, kind="photo") * mean * slant
    return np.asarray(-np.expm1(-chi) / chi)


def _window(energies: Energies, window_um: float) -> Energies:
    if len(energies) == 0:
        return np.ones(0)
    return np.asarray(np.exp(-xraydb.material_mu("Be", energies, density=1.848) * 1e-4 * window_um))
