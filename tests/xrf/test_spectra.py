"""From a spectrum to its detector and its elements: simulated with Poisson noise, and PyMca's real spectra."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest
import xraydb

from lfjax.errors import LfjaxError
from lfjax.simulate import paint, scan
from lfjax.simulate.layered_emission import emission
from lfjax.simulate.pigments import material
from lfjax.simulate.xrf_scan import SCANNER, counted
from lfjax.xrf import (
    Detector,
    Instrument,
    calibrate,
    elements,
    escape,
    family,
    fitted,
    let_through,
    parse_families,
    pile_up,
    read_detector,
    snip,
    spectrum,
    splines,
    write_detector,
)
from lfjax.xrf.detector_fit import fit_detector
from lfjax.xrf.tube import tube_beam

TRUE = Detector(1024, 20.0, -60.0, noise_ev=85.0, fano=0.118)
TUBE = Instrument(highest_ev=40_000.0, anode="Rh")


@functools.cache
def simulated(names, counts=20_000.0, background=200_000.0, seed=0, detector=TRUE):
    """Counts per channel with Poisson noise: `counts` in each family, and a smooth background."""
    with jax.enable_x64(True):
        model = spectrum(detector, parse_families(names, TUBE.highest_ev), TUBE, background=splines(detector, 5000.0))
        amplitudes = np.full(len(model.names), background / 5)
        amplitudes[: model.families] = counts
        return np.random.default_rng(seed).poisson(np.asarray(model(amplitudes))).astype(float)


MANY = "Pb L, Hg L, Cu K, Fe K, Mn K, Ca K, Sn L, Ti K, Zn K"


def test_elements_that_nobody_named():
    found = elements(simulated(MANY), TRUE, TUBE)
    assert set(found.symbols) == {"Pb", "Hg", "Cu", "Fe", "Mn", "Ca", "Sn", "Ti", "Zn"}
    assert 0.3 < found.misfit < 1.2  # below 1, since 2 % of the model count as its own error
    for each in found.elements:
        assert each.probability > 0.99
        name = next(name for name in each.counts if name in MANY)
        assert each.counts[name] == pytest.approx(20_000, rel=0.1)


def test_background_alone_holds_no_element():
    for seed in range(5):
        assert elements(simulated("Fe K", counts=0.0, seed=seed), TRUE, TUBE).symbols == ()


@pytest.mark.parametrize("there", ["Pb L", "Pb L, As K", "Ba L", "Ba L, Ti K", "As K", "Ti K"])
def test_overlaps_are_told_apart_by_the_other_lines(there):
    found = elements(simulated(there, counts=2000.0, background=20_000.0), TRUE, TUBE)
    assert set(found.symbols) == {name.split()[0] for name in there.split(", ")}


def test_the_detector_is_found_from_nothing():
    counts = simulated(MANY, counts=200_000.0)
    found = calibrate(counts, TUBE)
    for energy in (2000.0, 6400.0, 12_600.0):
        channel = (energy + 60) / 20
        ours = float(found.detector.offset_ev) + float(found.detector.gain_ev) * channel
        assert ours == pytest.approx(energy, abs=2)
        assert float(found.detector.fwhm_ev(energy)) == pytest.approx(float(TRUE.fwhm_ev(energy)), rel=0.02)
    assert abs(float(found.detector.gain_ev) - 20) < 5 * found.errors["gain_ev"] + 1e-3
    assert set(found.identified.symbols) >= {"Pb", "Hg", "Cu", "Fe"}


def test_a_detector_with_a_large_offset_and_small_channels_is_found():
    """At half the gain the lines of the tube, as strong as those of the painting, would lie beyond the end of the spectrum."""
    detector = Detector(4096, 10.03, -957.0, noise_ev=75.0, fano=0.114)
    seen = scan(paint(jax.random.key(7), (16, 16)), jax.random.key(8), SCANNER, detector, counts=160.0)
    found = calibrate(seen.cube.sum(axis=(0, 1), dtype=np.float64), seen.instrument)
    for energy in (2342.0, 6400.0, 10_551.0):
        ours = float(found.detector.offset_ev) + float(found.detector.gain_ev) * (energy + 957) / 10.03
        assert ours == pytest.approx(energy, abs=2)
    assert set(found.identified.symbols) <= {each.element for each in seen.families}


def test_numbers_do_not_depend_on_the_start():
    counts, families = simulated(MANY, counts=200_000.0), parse_families(MANY, TUBE.highest_ev)
    with jax.enable_x64(True):
        found = [
            fit_detector(counts, Detector(1024, *start), families, TUBE, (950.0, 15_000.0), systematic=0.0, steps=20)
            for start in ((20.03, -70.0), (19.98, -50.0))
        ]
    one, other = found
    for name in ("gain_ev", "offset_ev", "noise_ev", "fano"):
        apart = abs(float(getattr(one.detector, name)) - float(getattr(other.detector, name)))
        assert apart < 0.1 * one.errors[name], name
        error = abs(float(getattr(one.detector, name)) - float(getattr(TRUE, name)))
        assert error < 4 * one.errors[name], name


def test_lines_of_the_tube_in_other_ratios_are_no_elements():
    lines = family("Rh", "L", TUBE.highest_ev)
    rates = lines.rates * np.linspace(0.9, 1.1, len(lines.rates))  # the anode absorbs those of low energy
    scattered = lines._replace(rates=rates / rates.sum())
    pulses = np.asarray(TRUE.pulses(scattered.energies_ev)) @ scattered.rates
    smooth = np.asarray(splines(TRUE, 5000.0)).sum(axis=1)
    counts = np.random.default_rng(0).poisson(300_000 * pulses + 50_000 * smooth).astype(float)
    assert elements(counts, TRUE, TUBE).symbols == ()


def test_scatter_of_lead_falls_at_its_edges():
    lead, beam = material("lead", 11.3, {"Pb": 1.0}), tube_beam(SCANNER)
    sent = emission(np.full((1, 1, 1), 1.0), [lead], [], beam, SCANNER)
    areas, columns = counted(sent, [], beam, SCANNER, TRUE)
    energies = np.asarray(TRUE.energies_ev)
    inside = (energies > 6000) & (energies < 18_000)
    true = (columns @ areas[0])[inside]
    edges = [(xraydb.xray_edges("Pb")[level].energy, xraydb.xray_edges("Pb")[level].jump_ratio) for level in ("L3", "L2", "L1")]
    smooth = np.asarray(splines(TRUE))[inside]
    steps = let_through(TRUE, SCANNER, edges, np.ones(TRUE.channels))[inside]

    def left(matrix):
        model = matrix @ np.linalg.lstsq(matrix / true[:, None], np.ones(len(true)), rcond=None)[0]
        return np.sqrt(np.mean((model / true - 1) ** 2))

    assert left(smooth) > 0.04  # splines alone
    assert left(np.concatenate([smooth, steps], axis=1)) < 0.02


def test_elements_that_explain_the_same_counts_are_possible_and_none_is_sure():
    beam = Instrument(17_480.0, monochromatic=True)  # excites no K line of molybdenum
    sulphur = spectrum(TRUE, parse_families("S K", 17_480.0), beam, background=splines(TRUE, 5000.0))
    amplitudes = np.full(len(sulphur.names), 20_000.0)
    amplitudes[0] = 300.0
    counts = np.random.default_rng(0).poisson(np.asarray(sulphur(amplitudes))).astype(float)
    found = elements(counts, TRUE, beam, candidates=["S", "Mo"])
    assert found.symbols == () and set(found.possible) == {"S", "Mo"}
    assert elements(counts, TRUE, beam, candidates=["S", "Fe"]).symbols == ("S",)


def test_a_spectrum_without_lines_has_no_calibration():
    with pytest.raises(LfjaxError, match="no peak stands out"):
        calibrate(np.random.default_rng(0).poisson(np.full(512, 20.0)).astype(float), TUBE)


def pymca_file(name):
    pymca = pytest.importorskip("PyMca5")
    return Path(pymca.__file__).parent / "PyMcaData" / name


def test_a_real_standard_shows_the_elements_of_pymcas_configuration():
    text = pymca_file("XRFSpectrum.mca").read_text().splitlines()
    counts = np.array([float(line) for line in text if line.strip() and not line.startswith("#")])
    beam = Instrument(17_480.0, monochromatic=True, angle_deg=90.0, air_cm=0.2, beryllium_um=8.0, silicon_um=450.0)
    found = calibrate(counts, beam)
    assert float(found.detector.gain_ev) == pytest.approx(5.02883, rel=5e-4)  # PyMca's own fit
    assert float(found.detector.offset_ev) == pytest.approx(-492.773, abs=4)
    theirs = "Ni Zn Co Sr Ca Mn As Cd Pb Tl Ar Ti Fe V Sb Cu Se Cr".split()
    assert set(found.identified.symbols) <= set(theirs)  # none that is not there
    fitted_there = sum(len(each.counts) for each in found.identified.elements if each.symbol in theirs)
    assert fitted_there >= 0.95 * 23  # families that PyMca's configuration names, but for Cu L below the threshold


def test_given_families_are_fitted_whether_they_are_there_or_not():
    families = parse_families("Fe K, Cu K, Se K", TUBE.highest_ev)
    found = fitted(simulated("Fe K, Cu K"), TRUE, families, TUBE)
    counts = {name: number for each in found.elements for name, number in each.counts.items()}
    assert counts["Fe K"] == pytest.approx(20_000, rel=0.05)
    assert counts["Se K"] < 600
    assert [each.name for each in found.families] == [each.name for each in families]


def test_escape_of_silicon_beside_closed_limits():
    share = escape(np.array([1500.0, 1900.0, 6400.0, 20_000.0]))
    assert share[0] == 0  # below the edge of silicon nothing escapes
    assert 0.01 < share[1] < 0.025  # just above it, most is absorbed at the surface
    assert 0.002 < share[2] < 0.006  # iron: a few in a thousand (Van Grieken & Markowicz, section 4.III)
    assert share[3] < 3e-4


def test_pile_up_adds_energies():
    counts = np.zeros(1024)
    counts[200] = 1000.0  # 3940 eV
    pairs = pile_up(counts, TRUE)
    assert pairs.sum() == pytest.approx(1)
    assert np.sum(pairs * (-60 + 20 * np.arange(1024))) == pytest.approx(2 * 3940)


def test_snip_keeps_a_background_and_clips_peaks():
    smooth = 400 + 300 * np.exp(-(((np.arange(1024) - 500) / 300) ** 2))
    peak = 5000 * np.exp(-(((np.arange(1024) - 400) / 3) ** 2))
    np.testing.assert_allclose(snip(smooth, TRUE)[50:-50], smooth[50:-50], rtol=0.02)
    np.testing.assert_allclose(snip(smooth + peak, TRUE)[380:420], smooth[380:420], rtol=0.05)


def test_a_detector_file_returns_what_was_written(tmp_path):
    write_detector(tmp_path / "d.toml", TRUE, TUBE)
    detector, instrument = read_detector(tmp_path / "d.toml")
    assert instrument == TUBE
    assert jax.tree.all(jax.tree.map(lambda a, b: float(a) == float(b), detector, TRUE))
    (tmp_path / "d.toml").write_text((tmp_path / "d.toml").read_text().replace("gain_ev = 20.0", "gain_ev = -1"))
    with pytest.raises(LfjaxError, match="d.toml.*gain_ev"):
        read_detector(tmp_path / "d.toml")


@pytest.mark.parametrize(
    ("counts", "options", "wrong"),
    [
        (np.ones(1000), {}, "counts"),
        (-np.ones(1024), {}, "zero or more"),
        (np.zeros(1024), {}, "a photon or more"),
        (np.full(1024, np.nan), {}, "counts"),
        (np.ones(1024), {"lowest_ev": 30_000.0}, "lowest_ev"),
        (np.ones(1024), {"systematic": 2.0}, "systematic"),
        (np.ones(1024), {"candidates": ["Xx"]}, "'Xx'"),
    ],
)
def test_bad_arguments_are_named(counts, options, wrong):
    with pytest.raises(LfjaxError, match=wrong):
        elements(counts, TRUE, TUBE, **options)


@pytest.mark.parametrize("bad", [{"anode": "Xx"}, {"highest_ev": 10.0}, {"angle_deg": 200.0}, {"air_cm": -1.0}])
def test_instruments_that_are_none(bad):
    with pytest.raises(LfjaxError, match="element|highest_ev|angle_deg|air_cm"):
        Instrument(**bad).checked()
