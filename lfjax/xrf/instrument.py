"""The instrument between object and counts: tube, air, window, thickness of the detector, and escape from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import xraydb
from jaxtyping import Float
from numpy.typing import NDArray

from lfjax.errors import require
from lfjax.xrf.lines import Family, family

REST_EV = 510998.95
"""Energy of an electron at rest, eV."""
SILICON_K_EV = 1740.0
"""Energy of the K lines of silicon, which escape, eV."""

Energies = Float[NDArray[np.float64], "*n"]


class Instrument(NamedTuple):
    """What the user knows of the scanner; all of it is optional, and each number sharpens the ratios of lines.

    Attributes:
        highest_ev: highest energy of the exciting photons, eV: the voltage of the tube, or the energy of a monochromatic beam.
        anode: element of the tube's anode; the object scatters its characteristic lines. None: unknown.
        monochromatic: whether all exciting photons have `highest_ev`, as at a synchrotron; the object scatters them.
        angle_deg: angle between beam and detector as seen by the scattered photon, degrees: 180 is straight back.
        air_cm: path through air, cm.
        beryllium_um: thickness of the window, micrometres.
        silicon_um: thickness of the detector, micrometres.
    """

    highest_ev: float = 50000.0
    anode: str | None = None
    monochromatic: bool = False
    angle_deg: float = 135.0
    air_cm: float = 0.0
    beryllium_um: float = 0.0
    silicon_um: float = 500.0

    def checked(self) -> Instrument:
        """This instrument, after a check of its numbers.

        Raises:
            ParameterError: a number is out of range; the message names it.
        """
        require(1000 <= self.highest_ev <= 5e5, "highest_ev", self.highest_ev, "1000 to 500,000 eV")
        require(0 <= self.angle_deg <= 180, "angle_deg", self.angle_deg, "0 to 180 degrees")
        for name in ("air_cm", "beryllium_um"):
            require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "zero or more")
        require(0 < self.silicon_um < math.inf, "silicon_um", self.silicon_um, "a positive number")
        if self.anode is not None:
            require(family(self.anode, "K") is not None, "anode", self.anode, "an element such as Rh")
        return self

    def efficiency(self, energies_ev: Energies) -> Energies:
        """Share of photons that reach the detector and stop in it: exp(-mu_air t) exp(-mu_Be t) (1 - exp(-mu_Si t))."""
        energy = np.maximum(np.asarray(energies_ev, float), 100.0)
        through = xraydb.material_mu("air", energy) * self.air_cm + xraydb.material_mu("Be", energy, density=1.848) * (
            1e-4 * self.beryllium_um
        )
        stopped = -np.expm1(-xraydb.material_mu("Si", energy, density=2.329) * 1e-4 * self.silicon_um)
        return np.asarray(np.exp(-through) * stopped)

    def compton_ev(self, energy_ev: float) -> float:
        """Energy after Compton scattering: E / (1 + E (1 - cos angle) / 511 keV)."""
        return energy_ev / (1 + energy_ev / REST_EV * (1 - math.cos(math.radians(self.angle_deg))))

    def before_compton_ev(self, energy_ev: Energies) -> Energies:
        """Energy before Compton scattering, the inverse of `compton_ev`; infinite where no photon has so much after it."""
        left = 1 - np.asarray(energy_ev) / REST_EV * (1 - math.cos(math.radians(self.angle_deg)))
        return np.asarray(np.divide(energy_ev, left, out=np.full_like(left, np.inf), where=left > 0))

    @property
    def well_excited_ev(self) -> float:
        """Edges below this energy absorb many photons: 0.6 of the highest for a tube, whose spectrum falls to its end."""
        return self.highest_ev if self.monochromatic else 0.6 * self.highest_ev

    def tube_families(self) -> list[Family]:
        """Lines that the object scatters: of the anode, or the monochromatic beam."""
        if self.monochromatic:
            return [Family("beam", "", ("beam",), np.array([self.highest_ev]), np.ones(1))]
        if self.anode is None:
            return []
        every = (family(self.anode, shell, self.highest_ev) for shell in ("K", "L"))
        return [each for each in every if each is not None]


def escape(energies_ev: Energies) -> Energies:
    """Counts in the escape peak of silicon, as a fraction of those in the line.

    For photons that come straight on, with the absorption mu(E) of silicon and mu_K of its own K lines,

        e / (1 - e),   e = 1/2 omega_K (1 - 1/J) (1 - mu_K / mu(E) log(1 + mu(E) / mu_K)).

    Source: Reed & Ware, J. Phys. E 5, 582 (1972).
    """
    energy = np.maximum(np.asarray(energies_ev, float), 100.0)
    edge = xraydb.xray_edges("Si")["K"]
    ratio = xraydb.mu_elam("Si", energy, kind="photo") / xraydb.mu_elam("Si", SILICON_K_EV, kind="photo")
    share = 0.5 * edge.fyield * (1 - 1 / edge.jump_ratio) * (1 - np.log1p(ratio) / ratio)
    return np.where(energy > edge.energy, share / (1 - share), 0.0)
