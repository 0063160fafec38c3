"""How many photons the shells of an atom emit in the beam of a tube, against other codes, and what hangs on it."""

import numpy as np
import pytest

from benchmarks.xrf_panel import single_spectrum
from lfjax.simulate.layered_emission import emission
from lfjax.simulate.pigments import material
from lfjax.simulate.xrf_scan import SCANNER
from lfjax.xrf import Detector, Instrument, elements, family
from lfjax.xrf.tube import emitted, tube_beam

PAIRS = [("Pb", "M", "L"), ("As", "L", "K"), ("Hg", "M", "L"), ("Sn", "L", "K"), ("Cu", "L", "K")]


def ratio(element, lower, upper, instrument):
    return emitted(element, lower, instrument) / emitted(element, upper, instrument)


@pytest.mark.parametrize(("element", "lower", "upper"), PAIRS)
def test_a_thin_film_in_the_beam_emits_its_shells_in_that_ratio(element, lower, upper):
    shells = [family(element, shell, SCANNER.highest_ev) for shell in (lower, upper)]
    film = np.full((1, 1, 1), 1e-9)
    sent = emission(film, [material(element, 1.0, {element: 1})], shells, tube_beam(SCANNER), SCANNER)
    lines, count = np.asarray(sent.lines[0]), len(shells[0].rates)
    assert ratio(element, lower, upper, SCANNER) == pytest.approx(lines[:count].sum() / lines[count:].sum(), rel=0.01)


@pytest.mark.parametrize(("element", "lower", "upper"), PAIRS)
def test_one_energy_makes_the_ratio_of_the_tables(element, lower, upper):
    beam = Instrument(40_000.0, monochromatic=True)
    told = [family(element, shell, 40_000.0).strength for shell in (lower, upper)]
    assert ratio(element, lower, upper, beam) == pytest.approx(told[0] / told[1], rel=1e-9)


def test_an_unknown_tube_is_one_without_lines():
    with_lines, without = (ratio("Pb", "M", "L", each) for each in (SCANNER, SCANNER._replace(anode=None)))
    assert 0.3 < without < 0.5 * with_lines  # rhodium L lines excite Pb M


@pytest.mark.parametrize(
    ("element", "lower", "upper", "most"),
    [
        ("Sn", "L", "K", 1.1),
        ("Ag", "L", "K", 1.1),
        ("As", "L", "K", 1.1),
        ("U", "M", "L", 1.2),
        ("Pb", "M", "L", 1.5),
        ("Hg", "M", "L", 3.5),
    ],
)
def test_the_ratio_agrees_with_xraylib(element, lower, upper, most):
    xraylib = pytest.importorskip("xraylib")
    z, beam = xraylib.SymbolToAtomicNumber(element), tube_beam(SCANNER)
    energies = np.concatenate([beam.energies_ev, beam.lines_ev]) / 1000
    photons = np.concatenate([beam.photons, beam.line_photons])

    def made(lines):
        def at(energy):
            found = 0.0
            for line in lines:
                try:
                    found += xraylib.CS_FluorLine_Kissel_Cascade(z, line, energy)
                except ValueError:  # not excited
                    continue
            return found

        return sum(n * at(float(energy)) for n, energy in zip(photons, energies, strict=True))

    every = {
        "K": (xraylib.KA_LINE, xraylib.KB_LINE),
        "L": (xraylib.LA_LINE, xraylib.LB_LINE),
        "M": (xraylib.MA1_LINE, xraylib.MA2_LINE, xraylib.MB_LINE),
    }
    theirs = made(every[lower]) / made(every[upper])
    assert 1 / most < ratio(element, lower, upper, SCANNER) / theirs < most  # the yields of M shells are the uncertain ones


def test_arsenic_is_seen_beside_lead_and_not_without():
    rng, detector, right = np.random.default_rng(0), Detector(2048, 15.0, -100.0), 0
    for there in (True, False) * 4:
        expected = single_spectrum(rng, detector, {"Pb": 200.0, "As": 200.0 * there})
        found = elements(rng.poisson(expected), detector, SCANNER).symbols
        right += "Pb" in found and ("As" in found) == there
    assert right >= 7
