"""A painting under X-rays beside closed forms, xraylib and PyMca; its counts are Poisson."""

import jax
import numpy as np
import pytest
import xraydb

from lfjax.errors import ParameterError
from lfjax.simulate import Layer, Painting, paint, scan
from lfjax.simulate.layered_emission import emission
from lfjax.simulate.pigments import MATERIALS, PIGMENTS, in_oil, material
from lfjax.simulate.xrf_scan import KEY_FAMILIES, SCANNER, areal_masses, counted
from lfjax.xrf import Detector, Instrument, escape, families
from lfjax.xrf.lines import family
from lfjax.xrf.tube import tube_beam

MONO = Instrument(20000.0, monochromatic=True, angle_deg=135.0)
BEAM = tube_beam(MONO)
SINE = np.sin(np.pi / 4)  # of the angle between the surface and the way to the detector; the beam falls straight down


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def mu(material_, energies):
    return sum(share * xraydb.mu_elam(symbol, energies) for symbol, share in material_.elements.items())


def lines_of(areal, materials, found):
    """Photons of each line per pixel."""
    return np.asarray(emission(areal, materials, found, BEAM, MONO).lines)


def test_a_thick_element_gives_the_closed_form():
    iron, lines = material("iron", 7.87, {"Fe": 1}), family("Fe", "K", 20000.0)
    got = lines_of(np.array([[[1e3]]]), [iron], [lines])[0]
    edge, tabled = xraydb.xray_edges("Fe")["K"], xraydb.xray_lines("Fe")
    for name, energy, seen in zip(lines.names, lines.energies_ev, got, strict=True):
        made = xraydb.mu_elam("Fe", 20000.0, kind="photo") * (1 - 1 / edge.jump_ratio) * edge.fyield * tabled[name].intensity
        absorbed = xraydb.mu_elam("Fe", 20000.0) + xraydb.mu_elam("Fe", energy) / SINE
        assert seen == pytest.approx(made / absorbed / (4 * np.pi), rel=2e-3)  # faint lines are left out


@pytest.mark.parametrize(("element", "shell", "rel"), [("Cu", "K", 0.08), ("Ca", "K", 0.17), ("Pb", "L", 0.08)])
def test_a_thin_layer_is_linear_and_agrees_with_xraylib(element, shell, rel):  # yields of calcium differ by 14 %
    xraylib = pytest.importorskip("xraylib")
    pure, lines = material(element, 1.0, {element: 1}), family(element, shell, 20000.0)
    thin, thinner = lines_of(np.array([[[2e-7]], [[1e-7]]]), [pure], [lines])
    np.testing.assert_allclose(thin, 2 * thinner, rtol=1e-3)
    code, name = (xraylib.KA_LINE, "Ka") if shell == "K" else (xraylib.LA_LINE, "La")
    ours = thin[[each.startswith(name) for each in lines.names]].sum()
    theirs = xraylib.CS_FluorLine_Kissel(xraydb.atomic_number(element), code, 20.0) * 2e-7 / (4 * np.pi)
    assert ours == pytest.approx(theirs, rel=rel)


def test_a_layer_above_absorbs_beam_and_lines():
    white, blue = MATERIALS["lead white"], MATERIALS["azurite"]
    found = [family("Pb", "M", 20000.0), family("Pb", "L", 20000.0)]
    above = 60e-4 * blue.density
    areal = np.array([[[above, 0], [0, 1e-6]], [[0, 0], [0, 1e-6]]])
    covered, bare = lines_of(areal, [blue, white], found)
    energies = np.concatenate([each.energies_ev for each in found])
    expected = np.exp(-above * (mu(blue, np.full(len(energies), 20000.0)) + mu(blue, energies) / SINE))
    np.testing.assert_allclose(covered / bare, expected, rtol=1e-4)
    m, count = covered / bare, len(found[0].rates)
    assert m[:count].max() < 5e-3 and m[count:].max() > 0.2


@pytest.mark.parametrize("element", ["C", "Ca", "Cu"])
def test_scatter_agrees_with_xraylib(element):
    xraylib = pytest.importorskip("xraylib")
    sent = emission(np.array([[[1e-6]]]), [material(element, 1.0, {element: 1})], [], BEAM, MONO)
    z, theta = xraydb.atomic_number(element), np.deg2rad(135.0)
    assert float(sent.rayleigh[0, 0]) == pytest.approx(1e-6 * xraylib.DCS_Rayl(z, 20.0, theta), rel=0.05)
    assert float(sent.compton[0, 0]) == pytest.approx(1e-6 * xraylib.DCS_Compt(z, 20.0, theta), rel=0.25)  # S(q) is averaged


def test_the_tube_agrees_with_pymca():
    ebel = pytest.importorskip("PyMca5.PyMcaPhysics.xrf.XRayTubeEbel")
    beam = tube_beam(SCANNER)
    window = ["Be", 1.848, 0.01]
    theirs = ebel.continuumEbel("Rh", 50.0, e=beam.energies_ev / 1000, window=window, alphae=70.0, alphax=20.0)
    np.testing.assert_allclose(beam.photons / 0.25, theirs, rtol=0.02)
    lines = ebel.characteristicEbel("Rh", 50.0, window=window, alphae=70.0, alphax=20.0)
    ours = sum(photons for energy, photons in zip(beam.lines_ev, beam.line_photons, strict=True) if energy > 20000)
    assert ours * 6 / 5 == pytest.approx(sum(photons for _, photons, _ in lines), rel=0.05)  # PyMca takes 6e13 for Ebel's 5e13


def test_materials():
    for each in MATERIALS.values():
        assert sum(each.elements.values()) == pytest.approx(1)
    masses = {symbol: xraydb.atomic_mass(symbol) for symbol in ("Hg", "S")}
    _, vermilion = PIGMENTS["vermilion"]
    assert vermilion.elements["Hg"] == pytest.approx(masses["Hg"] / sum(masses.values()))
    paint_ = in_oil(vermilion, 0.15)
    assert paint_.elements["Hg"] == pytest.approx(0.85 * vermilion.elements["Hg"])
    assert paint_.density == pytest.approx(1 / (0.85 / 8.1 + 0.15 / 0.95))
    with pytest.raises(ParameterError, match="Pb3"):
        material("wrong", 1.0, {"no formula": 1})


@pytest.mark.parametrize("seed", range(6))
def test_a_painting_shows_all_pigments_and_is_fixed_by_its_key(seed):
    first, again = (paint(jax.random.key(seed), (40, 56)) for _ in range(2))
    np.testing.assert_array_equal(first.layers[0].thickness_um, again.layers[0].thickness_um)
    share = np.bincount(first.visible.ravel(), minlength=8) / first.visible.size
    assert first.shape == (40, 56) and share.min() > 0.02
    assert first.layers[0].thickness_um.sum(axis=0).min() > 5
    assert first.layers[1].thickness_um.max() > 5 and [each.name for each in first.layers][-2:] == ["ground", "panel"]


def plain(rows=24, columns=24):
    """Lead white on chalk, the same everywhere."""
    layers = [
        Layer(name, (name,), np.full((1, rows, columns), depth)) for name, depth in (("lead white", 30.0), ("chalk", 99.0))
    ]
    return Painting(tuple(layers), np.zeros((rows, columns), int), tuple(PIGMENTS))


def test_counts_are_poisson_about_what_is_expected():
    seen = scan(plain(), jax.random.key(3), detector=Detector(512, 60.0, -100.0), counts=300.0)
    cube = seen.cube.reshape(-1, 512).astype(float)
    mean, pixels = seen.expected / len(cube), len(cube)
    strong = mean > 1
    assert seen.cube.dtype == np.uint16 and strong.sum() > 20
    ratio = cube.var(axis=0, ddof=1)[strong] / mean[strong]
    assert abs(ratio.mean() - 1) < 4 * np.sqrt(3 / pixels / strong.sum())
    score = (cube.mean(axis=0) - mean)[strong] / np.sqrt(mean[strong] / pixels)
    assert np.mean(score**2) == pytest.approx(1, abs=4 * np.sqrt(2 / strong.sum()))
    np.testing.assert_allclose(seen.truth["Pb L"], 300, rtol=0.01)  # less what piles up


def test_pulses_keep_the_counts_and_pile_up_takes_one_of_two():
    key, detector = jax.random.key(0), Detector(512, 100.0, -100.0)
    alone, piled = (
        scan(plain(16, 16), key, detector=detector, counts=None, rate_cps=1e5, dwell_s=0.1, resolving_s=time)
        for time in (0, 2e-7)
    )
    assert alone.expected.sum() / 256 == pytest.approx(1e4)
    assert piled.expected.sum() == pytest.approx(alone.expected.sum() * (1 - 1e5 * 2e-7))
    assert piled.truth["Pb L"].sum() == pytest.approx(alone.truth["Pb L"].sum() * (1 - 2 * 1e5 * 2e-7))
    energies = np.asarray(detector.energies_ev)
    doubled = (energies > 20600) & (energies < 21500)  # two photons of Pb L alpha
    assert piled.expected[doubled].sum() > 1.1 * alone.expected[doubled].sum()


def test_components_of_the_detector_hold_each_photon_once():
    lines, beam = families(3000.0, 50000.0, elements=["Fe"], exciting_ev=50000.0), tube_beam(SCANNER, step_ev=1000.0)
    sent = emission(np.array([[[1e-4]]]), [material("iron", 7.87, {"Fe": 1})], lines, beam, SCANNER)
    areas, columns = counted(sent, lines, beam, SCANNER, Detector(1100, 50.0, -100.0))
    shares = columns.sum(axis=0)
    assert areas.shape == (1, len(shares)) and areas.min() >= 0
    line, scattered = np.split(shares, [len(lines[0].rates)])
    np.testing.assert_allclose(line, 1 + escape(lines[0].energies_ev), atol=1e-6)
    np.testing.assert_allclose(scattered, 1, atol=0.03)  # some escapes, too


def test_the_scale_is_the_median_of_the_main_families():
    painting = paint(jax.random.key(1), (20, 20))
    seen = scan(painting, jax.random.key(2), counts=20.0, resolving_s=0.0, detector=Detector(256, 120.0))
    means = [seen.truth[KEY_FAMILIES[name]][painting.visible == i].mean() for i, name in enumerate(painting.pigments)]
    assert np.median(means) == pytest.approx(20)
    assert np.all(seen.truth["Ar K"] > 0)
    areal, materials = areal_masses(painting.layers)
    assert areal.shape == (400, 5, len(materials))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: paint(jax.random.key(0), (8, 8)), "shape"),
        (lambda: paint(jax.random.key(0), ground="clay"), "chalk"),
        (lambda: scan(plain(), jax.random.key(0), counts=0.0), "counts"),
        (lambda: scan(plain(), jax.random.key(0), SCANNER._replace(anode=None)), "anode"),
        (lambda: scan(plain(), jax.random.key(0), SCANNER._replace(angle_deg=80.0)), "angle_deg"),
        (
            lambda: scan(Painting((Layer("x", ("mud",), np.ones((1, 4, 4))),), np.zeros((4, 4), int), ()), jax.random.key(0)),
            "mud",
        ),
        (lambda: scan(plain(), jax.random.key(0), resolving_s=1.0), "resolving_s"),
    ],
)
def test_errors_name_the_argument(call, says):
    with pytest.raises(ParameterError, match=says):
        call()
