"""Lines of the elements beside an independent table, and what shells emit when."""

import numpy as np
import pytest

from lfjax.errors import ParameterError
from lfjax.xrf import families, family, parse_families
from lfjax.xrf.lines import M_LINES

XRAYLIB = {"Ka1": "KA1", "Ka2": "KA2", "Kb1": "KB1", "Kb3": "KB3", "La1": "LA1", "La2": "LA2", "Lb1": "LB1", "Lg1": "LG1"}


@pytest.mark.parametrize("name", ["Ca K", "Fe K", "Cu K", "As K", "Sn L", "Ba L", "Au L", "Hg L", "Pb L"])
def test_energies_and_rates_agree_with_xraylib(name):
    xraylib = pytest.importorskip("xraylib")
    ours = family(*name.split(), exciting_ev=40_000.0)
    number = xraylib.SymbolToAtomicNumber(ours.element)
    energies = dict(zip(ours.names, ours.energies_ev, strict=True))
    rates = dict(zip(ours.names, ours.rates, strict=True))
    shared = [line for line in ours.names if line in XRAYLIB]
    theirs = {line: getattr(xraylib, f"{XRAYLIB[line]}_LINE") for line in shared}
    strongest = max(shared, key=lambda line: rates[line])
    for line in shared:
        assert energies[line] == pytest.approx(1000 * xraylib.LineEnergy(number, theirs[line]), abs=6)
        if ours.shell == "K":
            ratio = xraylib.RadRate(number, theirs[line]) / xraylib.RadRate(number, theirs[strongest])
        else:
            ratio = np.divide(*(xraylib.CS_FluorLine_Kissel_Cascade(number, theirs[each], 40.0) for each in (line, strongest)))
        assert rates[line] / rates[strongest] == pytest.approx(ratio, rel=0.15, abs=0.004)


@pytest.mark.parametrize("element", ["Ta", "Au", "Hg", "Pb", "U"])
def test_m_lines_agree_with_xraylib(element):
    xraylib = pytest.importorskip("xraylib")
    number, ours = xraylib.SymbolToAtomicNumber(element), family(element, "M", 40_000.0)
    codes = [(f"{M_LINES[name][0]}{M_LINES[name][1]}_LINE") for name in ours.names]
    codes[ours.names.index("Ma")] = "MA1_LINE"
    theirs = np.array([xraylib.CS_FluorLine_Kissel_Cascade(number, getattr(xraylib, code), 40.0) for code in codes])
    energies = np.array([1000 * xraylib.LineEnergy(number, getattr(xraylib, code)) for code in codes])
    np.testing.assert_allclose(ours.energies_ev, energies, atol=25)
    rates = theirs / theirs.sum()
    delta = ours.names.index("Md")
    assert 0.01 < rates[delta] < 0.13  # it varies most, see M_LINES
    np.testing.assert_allclose(np.delete(ours.rates, delta), np.delete(rates, delta), rtol=0.35, atol=0.03)


def test_energy_of_the_tube_chooses_the_shells():
    assert family("Pb", "K", 50_000.0) is None  # edge at 88 keV
    assert family("Ba", "K", 30_000.0) is None
    assert family("Pb", "L", 13_100.0).names == tuple(
        n for n in family("Pb", "L").names if n[:2] in ("Ll", "La") or n in ("Lb6", "Lb2,15", "Lb5")
    )  # only L3 has a vacancy
    assert family("Pb", "L").rates.sum() == pytest.approx(1)
    assert [each.name for each in parse_families("Pb, Fe K, Hg M", 40_000.0)] == ["Pb L", "Fe K", "Hg M"]
    found = families(6000.0, 7000.0, exciting_ev=40_000.0)
    assert "Fe K" in [each.name for each in found]
    assert all(6000 <= each.strongest_ev <= 7000 for each in found)
    assert [each.strongest_ev for each in found] == sorted(each.strongest_ev for each in found)


@pytest.mark.parametrize(
    ("text", "wrong"), [("Xx", "'Xx': expected a symbol"), ("Pb N", "shell"), ("U K", "such as Pb L or Fe K")]
)
def test_names_that_are_no_families(text, wrong):
    with pytest.raises(ParameterError, match=wrong):
        parse_families(text, 40_000.0)
