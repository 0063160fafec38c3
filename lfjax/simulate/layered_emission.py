"""What a stack of layers sends to the detector under a beam of X-rays: lines of its elements, and scattered photons.

A layer j of areal mass m_j holds the mass fraction c of an element. With the absorption a = mu(E) m_j / sin(phi) of the beam
and b = mu(E_l) m_j / sin(psi) of the line in it, and A and B the same in all layers above,

    I_l = 1 / (4 pi) sum_j sum_E N(E) tau(E) r_l(E) c m_j / sin(phi) exp(-A - B) (1 - exp(-a - b)) / (a + b)

photons per steradian: primary fluorescence. Lines that lines of other elements excite are left out; in layers of paint they are
a few per cent. r_l(E), photons of the line per absorbed photon, comes from `xrf.family`.

Source: Sherman, Spectrochim. Acta 7, 283 (1955); de Boer, X-Ray Spectrom. 19, 145 (1990), equation 5, for layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xraydb
from jaxtyping import Array, Float
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.simulate.pigments import Material
from lfjax.xrf.instrument import REST_EV, Instrument
from lfjax.xrf.lines import Family, family as family_of
from lfjax.xrf.tube import Beam

ELECTRON_CM = 2.8179403e-13  # classical radius of the electron
AVOGADRO = 6.02214076e23
HC_EV_ANGSTROM = 12398.42
BATCH = 8  # pixels at a time, whose arrays stay in the cache

Table = Float[NDArray[np.float64], "rows columns"]
Vector = Float[NDArray[np.float64], "*n"]


class Emission(NamedTuple):
    """Photons per steradian, for each pixel.

    Attributes:
        lines: of the families, one after the other.
        rayleigh: scattered without loss of energy, for each bin and then each line of the beam.
        compton: scattered with a loss.
    """

    lines: Float[Array, "pixels lines"]
    rayleigh: Float[Array, "pixels energies"]
    compton: Float[Array, "pixels energies"]


class _Tables(NamedTuple):
    """All that does not depend on the pixel; absorption is per g/cm^2 along the path, in and out."""

    photons: Array
    into: Array
    out: Array
    out_compton: Array
    out_rayleigh: Array
    share: Array
    production: Array
    rayleigh: Array
    compton: Array


def emission(
    areal: Float[np.ndarray, "pixels layers materials"] | Float[Array, "pixels layers materials"],
    materials: Sequence[Material],
    families: Sequence[Family],
    beam: Beam,
    instrument: Instrument,
    *,
    beam_deg: float = 90.0,
) -> Emission:
    """Lines and scatter of a stack of layers.

    Args:
        areal: mass of each material in each layer, g/cm^2; the first layer is on top. A layer is a mixture.
        materials: of the last axis.
        families: whose lines are computed.
        beam: that falls on the object.
        instrument: its `angle_deg`, minus `beam_deg`, is psi, the angle between the surface and the way to the detector.
        beam_deg: phi, angle between the beam and the surface.

    Raises:
        ParameterError: the detector lies behind the surface, or an angle is out of range.
        ShapeError: the last axis of `areal` is not one of the materials.
    """
    require(0 < beam_deg < 180, "beam_deg", beam_deg, "an angle between 0 and 180 degrees")
    takeoff = instrument.angle_deg - beam_deg
    require(
        0 < takeoff < 180, "angle_deg", instrument.angle_deg, f"above beam_deg = {beam_deg:g}: a detector before the object"
    )
    require_shape("areal", np.shape(areal), ("pixels", "layers", len(materials)))
    sines = math.sin(math.radians(beam_deg)), math.sin(math.radians(takeoff))
    return _emission(jnp.asarray(areal, jnp.result_type(float)), _tables(materials, families, beam, instrument, *sines))


def _tables(
    materials: Sequence[Material], families: Sequence[Family], beam: Beam, instrument: Instrument, into: float, out: float
) -> _Tables:
    energies = np.concatenate([beam.energies_ev, beam.lines_ev])
    lines = np.concatenate([each.energies_ev for each in families] or [np.zeros(0)])
    owner = np.array([each.element for each in families for _ in each.rates])
    symbols = list(dict.fromkeys(symbol for each in materials for symbol in each.elements))
    fractions = np.array([[each.elements.get(symbol, 0.0) for symbol in symbols] for each in materials])
    shifted = np.array([instrument.compton_ev(float(energy)) for energy in energies])

    def mu(at: Vector) -> Table:
        return fractions @ np.array([xraydb.mu_elam(symbol, at) for symbol in symbols])

    production = np.concatenate([_production(each, energies) for each in families] or [np.zeros((len(energies), 0))], axis=1)
    share = np.array([[each.elements.get(symbol, 0.0) for symbol in owner] for each in materials])
    theta = math.radians(instrument.angle_deg)
    elastic = fractions @ np.array([_rayleigh(symbol, energies, theta) for symbol in symbols])
    inelastic = fractions @ np.array([xraydb.incoherent_cross_section_elam(symbol, energies) for symbol in symbols])
    photons = np.concatenate([beam.photons, beam.line_photons]) / into
    at_energies = mu(energies)
    found = (
        photons,
        at_energies / into,
        mu(lines) / out if len(lines) else np.zeros((len(materials), 0)),
        mu(shifted) / out,
        at_energies / out,
        share.reshape(len(materials), len(lines)),
        production / (4 * np.pi),
        elastic,
        inelastic * _klein_nishina(energies, theta),
    )
    return _Tables(*(jnp.asarray(each, jnp.result_type(float)) for each in found))


def _production(family: Family, energies: Vector) -> Table:
    """tau(E) r_l(E), cm^2/g: photons of each line of a family for each energy of the beam.

    The rates change at the edges alone, so that they are looked up once between two of them.
    """
    edges = sorted(edge.energy for edge in xraydb.xray_edges(family.element).values())
    interval = np.searchsorted(edges, energies)
    rates = np.zeros((len(energies), len(family.rates)))
    for number in np.unique(interval):
        ours = interval == number
        excited = family_of(family.element, family.shell, float(energies[ours].max()))
        if excited is not None:
            told = dict(zip(excited.names, excited.strength * excited.rates, strict=True))
            rates[ours] = [told.get(name, 0.0) for name in family.names]
    return np.asarray(rates * xraydb.mu_elam(family.element, energies, kind="photo")[:, None])


def _rayleigh(symbol: str, energies: Vector, theta: float) -> Vector:
    """Differential cross section of free atoms, cm^2/g and sr: r_e^2 f0(q)^2 (1 + cos^2 theta) / 2."""
    q = math.sin(theta / 2) * energies / HC_EV_ANGSTROM
    polarised = (1 + math.cos(theta) ** 2) / 2
    atoms = AVOGADRO / xraydb.atomic_mass(symbol)
    return np.asarray(ELECTRON_CM**2 * atoms * polarised * xraydb.f0(symbol, q) ** 2)


def _klein_nishina(energies: Vector, theta: float) -> Vector:
    """Share of the photons that an electron scatters which goes into an angle, per sr."""
    k = energies / REST_EV
    ratio = 1 / (1 + k * (1 - math.cos(theta)))
    differential = ratio**2 * (ratio + 1 / ratio - math.sin(theta) ** 2) / 2
    log = np.log1p(2 * k)
    total = (
        2 * np.pi * ((1 + k) / k**2 * (2 * (1 + k) / (1 + 2 * k) - log / k) + log / (2 * k) - (1 + 3 * k) / (1 + 2 * k) ** 2)
    )
    return np.asarray(differential / total)


@jax.jit
def _emission(areal: Array, tables: _Tables) -> Emission:
    def one(masses: Array) -> Emission:
        into, out = masses @ tables.into, masses @ tables.out
        above = jnp.exp(into - jnp.cumsum(into, axis=0)) * tables.photons
        source = masses @ tables.share * jnp.exp(out - jnp.cumsum(out, axis=0))
        within = _mean_transmission(into[:, :, None] + out[:, None, :])
        lines = jnp.sum(above[:, :, None] * tables.production * source[:, None, :] * within, axis=(0, 1))

        def scattered(sections: Array, leaving: Array) -> Array:
            back = masses @ leaving
            left = jnp.exp(back - jnp.cumsum(back, axis=0)) * _mean_transmission(into + back)
            return jnp.sum(above * (masses @ sections) * left, axis=0)

        elastic, inelastic = (tables.rayleigh, tables.out_rayleigh), (tables.compton, tables.out_compton)
        return Emission(lines, scattered(*elastic), scattered(*inelastic))

    return jax.lax.map(one, areal, batch_size=BATCH)


def _mean_transmission(depth: Array) -> Array:
    """(1 - exp(-x)) / x, by its series where the difference would lose digits."""
    small = depth < 0.03
    safe = jnp.where(small, 1.0, depth)
    return jnp.where(small, 1 - depth / 2 + depth**2 / 6 - depth**3 / 24, (1 - jnp.exp(-safe)) / safe)
