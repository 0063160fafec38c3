"""A simulated panel and overlaps of lines: calibration and elements that nobody told, and PyMca's maps beside.

`benchmarks/xrf.py` calls `panel_rows` and `overlap_rows`.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, UInt
from numpy.typing import NDArray

from benchmarks.common import Report
from lfjax.errors import CalibrationError
from lfjax.simulate import Scan, paint, scan
from lfjax.simulate.layered_emission import emission
from lfjax.simulate.pigments import material
from lfjax.simulate.xrf_scan import SCANNER, counted
from lfjax.xrf import Detector, Family, Instrument, calibrate, elements, families, spectrum
from lfjax.xrf.identification import LOWEST_EV, top_ev
from lfjax.xrf.tube import tube_beam

MORE = 64.0  # 512 x 512 pixels over 64 x 64
COUNTS = 20.0  # of a main family per pixel, see `simulate.scan`
LIMIT = 5.0  # standard deviations at which an element counts as there
MASSES = np.logspace(-5, -3, 5)  # of a film, g/cm^2
BACKGROUND = 2000.0  # scattered photons of a single spectrum
OVERLAPS = (("Pb", "As"), ("Ba", "Ti"), ("S", "Pb"), ("Pb", "S"))  # an element, and one that may be with it


def panel_rows(report: Report, toy: bool) -> None:
    """Calibration and elements from the sum of the spectra of a panel, five panels: no number and no element is told.

    The calibration has its bounds for the sum of 512 x 512 pixels; in that of 64 x 64, the Cramer-Rao bound of the width is
    1.3 % at 1.3 keV.

    An element counts as there where its expected counts reach `LIMIT` times the Cramer-Rao bound of the sum spectrum, all other
    families, scatter and background unknown. Every element that the panel and the air before it do not hold is false.
    """
    tally = {"nothing told": np.zeros(3), "detector told": np.zeros(3)}
    for seed in range(1 if toy else 5):
        seen = panel(seed, 32 if toy else 64)
        total = seen.cube.sum(axis=(0, 1), dtype=np.float64)
        told = elements(total, seen.detector, seen.instrument).symbols
        answers = {"nothing told": _calibration_rows(report, seen, total, f"panel {seed}"), "detector told": told}
        if not toy:
            long = panel(seed, 64, MORE)
            _calibration_rows(report, long, long.cube.sum(axis=(0, 1), dtype=np.float64), f"panel {seed}, 512 x 512", (2, 0.01))
        true, held = _there(seen), {each.element for each in seen.families}
        for name, symbols in answers.items():
            found = set(symbols)
            tally[name] += [len(found & true), len(found - held), len(true - found)]
            print(f"panel {seed}, {name}: false {sorted(found - held)}, missed {sorted(true - found)}", flush=True)
    for name, (right, wrong, missed) in tally.items():
        score = 2 * right / max(2 * right + wrong + missed, 1)
        report.at_least(f"panel, {COUNTS:g} counts per line and pixel, {name}: F1 of elements", score, 0.95)


def panel(seed: int, side: int = 64, times: float = 1.0) -> Scan:
    """A painted panel, seen by a detector whose gain and offset are no round numbers; `times` as long as usual per pixel."""
    draw, count = jax.random.split(jax.random.key(seed))
    detector = Detector(2048, 14.73, -112.0, noise_ev=84.0, fano=0.117)
    return scan(paint(draw, (side, side)), count, SCANNER, detector, counts=times * COUNTS, dwell_s=times * 0.1)


def _calibration_rows(
    report: Report, seen: Scan, total: NDArray[np.float64], name: str, bounds: tuple[float, float] | None = None
) -> tuple[str, ...]:
    """Errors of a calibration over the energies of the fit, and the elements that it rests on."""
    start = time.perf_counter()
    try:
        found = calibrate(total, seen.instrument)
    except CalibrationError:
        report.at_most(f"{name}: calibration from nothing fails", 1, 0)
        return ()
    seconds = time.perf_counter() - start
    ends = LOWEST_EV, top_ev(seen.detector, seen.instrument)
    lines = np.array([each.strongest_ev for each in seen.families if ends[0] < each.strongest_ev < ends[1]])
    channel = (lines - float(seen.detector.offset_ev)) / float(seen.detector.gain_ev)
    error = float(found.detector.offset_ev) + float(found.detector.gain_ev) * channel - lines
    width = np.asarray(found.detector.fwhm_ev(lines)) / np.asarray(seen.detector.fwhm_ev(lines)) - 1
    figures = (
        ("energy of lines, largest error of the calibration", error, "eV"),
        ("width of lines, largest relative error", width, ""),
    )
    for number, (what, values, unit) in enumerate(figures):
        if bounds is None:
            report.row(f"{name}: {what}", float(np.abs(values).max()), unit)
        else:
            report.at_most(f"{name}: {what}", float(np.abs(values).max()), bounds[number], unit)
    report.row(f"{name}: calibration and elements from nothing", seconds, "s")
    return found.identified.symbols


def _there(seen: Scan) -> set[str]:
    """Elements above the detection limit of the sum spectrum."""
    return {name.partition(" ")[0] for name, sigma in significance(seen).items() if sigma >= LIMIT}


def significance(seen: Scan) -> dict[str, float]:
    """Family -> its expected counts in the sum spectrum, over their Cramer-Rao bound between the ends of the fit."""
    energies = np.asarray(seen.detector.energies_ev)
    inside = (energies > LOWEST_EV) & (energies < top_ev(seen.detector, seen.instrument))
    columns = np.asarray(spectrum(seen.detector, seen.families, seen.instrument).columns, float)[inside]
    kept = np.flatnonzero(columns.sum(axis=0) > 1e-2)
    root = columns[:, kept] / np.sqrt(np.maximum(seen.expected[inside], 1e-2))[:, None]
    length = np.linalg.norm(root, axis=0)
    unit = root / length
    covariance = np.linalg.inv(unit.T @ unit + 1e-10 * np.eye(len(kept)))
    sigma = np.sqrt(np.diag(covariance)) / length
    return {
        seen.families[i].name: float(seen.truth[seen.families[i].name].sum() / sigma[number])
        for number, i in enumerate(kept)
        if i < len(seen.families)
    }


def overlap_rows(report: Report, toy: bool, counts: float = 200.0) -> None:
    """An element with and without another one whose lines lie on its own; both are films of random thickness on scatter.

    The strongest line of the other one has 200 counts, that of the element as many or five times as many. An answer is right if
    the element is found, and the other one where it is there and not where it is not.
    """
    rng = np.random.default_rng(0)
    detector = Detector(2048, 15.0, -100.0)
    for element, other in OVERLAPS:
        for times in (1, 5):
            right, stray, number = 0, 0, 4 if toy else 120
            for trial in range(number):
                there = trial % 2 == 0
                expected = single_spectrum(rng, detector, {element: times * counts, other: counts * there})
                found = set(elements(rng.poisson(expected), detector, SCANNER).symbols)
                right += element in found and (other in found) == there
                stray += len(found - {element, other})
            title = (
                f"{element} with and without {other} of {counts:g} counts, {element} of {times * counts:g}, {number} spectra"
            )
            bounded = (element, other) != ("Pb", "S") and times == 1
            (report.at_least if bounded else lambda name, value, _: report.row(name, value, "1"))(
                f"{title}: right", right / number, 0.95
            )
            report.row(f"{title}: other elements per spectrum", stray / number, "1")


def single_spectrum(
    rng: np.random.Generator, detector: Detector, counts: dict[str, float], background: float = BACKGROUND
) -> Float[NDArray[np.float64], " channels"]:
    """Expected counts of films of elements, each with so many in its strongest line, on the scatter of wood.

    Args:
        rng: chooses the mass of each film.
        detector: that records it.
        counts: symbol -> counts in the strongest line.
        background: scattered photons between the ends of the fit.
    """
    films = _films(detector)
    total = background * films["scatter"][0]
    for symbol, number in counts.items():
        total = total + number * films[symbol][rng.integers(len(MASSES))]
    return np.asarray(total)


@functools.cache
def _films(detector: Detector) -> dict[str, list[NDArray[np.float64]]]:
    """Spectra of a film of each mass of `MASSES`, 1 in the strongest line; and the scatter of wood, 1 between the ends."""
    beam, films = tube_beam(SCANNER), {}
    for symbol in sorted({symbol for pair in OVERLAPS for symbol in pair}):
        lines = families(LOWEST_EV, SCANNER.highest_ev, elements=[symbol], exciting_ev=SCANNER.highest_ev)
        number = sum(len(each.rates) for each in lines)
        sent = emission(MASSES[:, None, None], [material(symbol, 1.0, {symbol: 1})], lines, beam, SCANNER)
        areas, columns = counted(sent, lines, beam, SCANNER, detector)
        films[symbol] = [columns[:, :number] @ each / each.max() for each in areas[:, :number]]
    sent = emission(np.full((1, 1, 1), 0.5), [material("wood", 0.6, {"C6H10O5": 1})], [], beam, SCANNER)
    areas, columns = counted(sent, [], beam, SCANNER, detector)
    scatter, energies = columns @ areas[0], np.asarray(detector.energies_ev)
    inside = (energies > LOWEST_EV) & (energies < top_ev(detector, SCANNER))
    return films | {"scatter": [scatter / scatter[inside].sum()]}


def pymca_maps(
    cube: UInt[np.ndarray, "rows columns channels"],
    detector: Detector,
    instrument: Instrument,
    fitted: Sequence[Family],
    *,
    highest_ev: float | None = None,
    weight: int = 1,
) -> Float[NDArray[np.float64], "families rows columns"]:
    """Maps of PyMca's fast linear fit, configured with the true detector, instrument and families; the anode's L lines join.

    Args:
        cube: counts.
        detector: its numbers go into the configuration.
        instrument: its air, window and thickness of the detector do as well.
        fitted: families to fit, each with its strongest line between the ends of the fit.
        highest_ev: upper end of the fit. None: that of `xrf.elements`.
        weight: 0: unweighted; 1: by the mean spectrum.
    """
    from PyMca5.PyMcaDataDir import PYMCA_DATA_DIR
    from PyMca5.PyMcaIO.ConfigDict import ConfigDict
    from PyMca5.PyMcaPhysics.xrf.FastXRFLinearFit import FastXRFLinearFit

    settings = ConfigDict()
    settings.read(os.path.join(PYMCA_DATA_DIR, "McaTheory.cfg"))
    peaks: dict[str, list[str]] = {}
    for each in [*fitted, *(line for line in instrument.tube_families() if line.shell == "L")]:
        peaks.setdefault(each.element, []).append(each.shell)
    settings["peaks"] = peaks
    gain, offset = float(detector.gain_ev), float(detector.offset_ev)
    settings["detector"].update(
        zero=offset / 1000, gain=gain / 1000, noise=float(detector.noise_ev) / 1000, fano=float(detector.fano), detele="Si"
    )
    ends = LOWEST_EV, top_ev(detector, instrument) if highest_ev is None else highest_ev
    first, last = (int(np.clip((end - offset) / gain, 0, detector.channels - 1)) for end in ends)
    settings["fit"].update(
        energy=[instrument.highest_ev / 1000],
        energyweight=[1.0],
        energyflag=[1],
        energyscatter=[0],
        xmin=first,
        xmax=last,
        use_limit=1,
        stripflag=1,
        stripalgorithm=1,  # SNIP
        snipwidth=max(2, round(2.5 * float(detector.fwhm_ev(5900.0)) / gain)),
        continuum=0,
        hypermetflag=1,  # a Gaussian
        escapeflag=1,
        sumflag=0,
        scatterflag=0,
        linearfitflag=1,
    )
    settings["attenuators"]["atmosphere"] = [int(instrument.air_cm > 0), "Air", 0.0012048, instrument.air_cm, 1.0]
    settings["attenuators"]["window"] = [int(instrument.beryllium_um > 0), "Be1", 1.848, 1e-4 * instrument.beryllium_um, 1.0]
    settings["attenuators"]["Detector"] = [1, "Si1", 2.329, 1e-4 * instrument.silicon_um, 1.0]
    done = FastXRFLinearFit().fitMultipleSpectra(
        y=np.asarray(cube, np.float64), weight=weight, refit=1, configuration=settings, save=False
    )
    maps = dict(zip(done.labels("parameters"), done["parameters"], strict=True))
    return np.stack([np.asarray(maps[each.name], np.float64) for each in fitted])
