"""Materials of a painting: pigments in oil, grounds, support and air, each with its elements and density."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import xraydb

from lfjax.errors import ParameterError, require


class Material(NamedTuple):
    """What a layer is made of.

    Attributes:
        name: such as "azurite".
        elements: symbol -> mass fraction; they sum to 1.
        density: g/cm^3.
    """

    name: str
    elements: dict[str, float]
    density: float


def material(name: str, density: float, parts: Mapping[str, float]) -> Material:
    """A mixture of compounds.

    Args:
        name: of the material.
        density: g/cm^3.
        parts: chemical formula -> mass; masses are normalised to a sum of 1.

    Raises:
        ParameterError: a formula has no meaning, or a number is out of range.
    """
    require(0 < density < 25, "density", density, "0 to 25 g/cm^3")
    require(bool(parts) and min(parts.values()) >= 0 and sum(parts.values()) > 0, "parts", dict(parts), "masses above 0")
    total = sum(parts.values())
    elements: dict[str, float] = {}
    for formula, mass in parts.items():
        masses = _masses(formula)
        for symbol, own in masses.items():
            elements[symbol] = elements.get(symbol, 0.0) + mass / total * own / sum(masses.values())
    return Material(name, elements, float(density))


def in_oil(pigment: Material, oil: float) -> Material:
    """A pigment in dried linseed oil.

    Args:
        pigment: dry.
        oil: mass fraction of the oil.

    Returns:
        The paint; volumes add up: 1 / density = (1 - oil) / density of the pigment + oil / density of the oil.
    """
    require(0 <= oil < 1, "oil", oil, "a mass fraction below 1")
    shares = (pigment, 1 - oil), (LINSEED_OIL, oil)
    symbols = dict.fromkeys([*pigment.elements, *LINSEED_OIL.elements])
    elements = {symbol: sum(part.elements.get(symbol, 0.0) * share for part, share in shares) for symbol in symbols}
    return Material(pigment.name, elements, 1 / sum(share / part.density for part, share in shares))


def find_material(name: str) -> Material:
    """A paint, a ground, the support or air, by its name in `MATERIALS`.

    Raises:
        ParameterError: the name is none of them; the message lists all.
    """
    if name not in MATERIALS:
        raise ParameterError(f"material: {name!r}: expected one of {', '.join(MATERIALS)}")
    return MATERIALS[name]


def _masses(formula: str) -> dict[str, float]:
    """Symbol -> mass in a formula unit."""
    try:
        return {symbol: float(count) * xraydb.atomic_mass(symbol) for symbol, count in xraydb.chemparse(formula).items()}
    except ValueError:
        raise ParameterError(f"formula: {formula!r}: expected one such as Pb3(CO3)2(OH)2") from None


LINSEED_OIL = material("linseed oil", 0.95, {"C57H98O6": 1.0})
"""The binder, as the triglyceride of linoleic acid."""
PIGMENTS = {
    "lead white": (0.11, material("lead white", 6.8, {"Pb3(CO3)2(OH)2": 1})),
    "vermilion": (0.15, material("vermilion", 8.1, {"HgS": 1})),
    "azurite": (0.30, material("azurite", 3.8, {"Cu3(CO3)2(OH)2": 1})),
    "smalt": (
        0.35,
        material(
            "smalt",
            2.5,
            {"SiO2": 68, "K2O": 15, "CoO": 6.5, "As2O3": 4, "Fe2O3": 3, "NiO": 1, "Al2O3": 1, "CaO": 1.5},
        ),
    ),
    "umber": (
        0.45,
        material("umber", 3.5, {"FeO2H": 48, "MnO2": 14, "Al2Si2O9H4": 20, "SiO2": 12, "CaCO3": 4, "K2O": 1.4, "TiO2": 0.6}),
    ),
    "ochre": (0.40, material("ochre", 3.3, {"Fe2O3": 35, "Al2Si2O9H4": 40, "SiO2": 23, "K2O": 1.2, "TiO2": 0.8})),
    "lead-tin yellow": (0.12, material("lead-tin yellow", 8.3, {"Pb2SnO4": 1})),
    "bone black": (0.50, material("bone black", 2.5, {"Ca5(PO4)3OH": 84, "C": 16})),
}
"""Pigment -> mass fraction of oil that it is ground with, and the dry pigment.

Source: Artists' Pigments, National Gallery of Art, Washington: lead white, vermilion, azurite, smalt, lead-tin yellow in volume
2 (1993), smalt a potash glass of 66 to 72 % silica, 10 to 21 % potash, 2 to 18 % cobalt oxide, 0 to 8 % arsenic oxide; iron
oxides in volume 4 (2007), umbers with 45 to 70 % iron oxide and 5 to 20 % manganese oxide. Oil is what the pigment absorbs.
"""
MATERIALS = {
    **{name: in_oil(pigment, oil) for name, (oil, pigment) in PIGMENTS.items()},
    "chalk": material("chalk", 1.7, {"CaCO3": 89.9, "SrCO3": 0.1, "C6H10O5": 10}),
    "gypsum": material("gypsum", 1.5, {"CaSO4(H2O)2": 89.9, "SrSO4": 0.1, "C6H10O5": 10}),
    "wood": material("wood", 0.6, {"C6H10O5": 1}),
    "air": material("air", 0.001225, {"N": 75.52, "O": 23.19, "Ar": 1.29}),
}
"""Name -> material of a layer: paints, grounds in glue, the panel, and the air between it and the detector."""
