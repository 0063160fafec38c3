"""X-ray fluorescence: peaks, calibration, elements and maps of a simulated panel, overlaps, a large cube, real spectra.

`make bench-xrf`; BENCH_ARGS="--only peaks,real" runs a part. PyMca fits the same data in the same run.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, Report
from benchmarks.xrf_panel import overlap_rows, panel, panel_rows, pymca_maps
from benchmarks.xrf_peaks import peak_rows
from lfjax import io, pipeline
from lfjax.xrf import Instrument, calibrate, fitted, maps, parse_families

REAL = "Ni K, Zn K, Zn L, Co K, Sr K, Sr L, Ca K, Mn K, As K, As L, Cd L, Pb L, Pb M, Tl L, Tl M, Ar K, Ti K, Fe K, V K, Sb L, "
REAL += "Cu K, Se K, Se L, Cr K"
"""Families of PyMca's own configuration of XRFSpectrum.mca, but for Cu L, which lies below its threshold."""
BEAM = Instrument(17_480.0, monochromatic=True, angle_deg=90.0, air_cm=0.2, beryllium_um=8.0, silicon_um=450.0)


def map_rows(report: Report, toy: bool) -> None:
    """Correlation of maps with the truth, given the true families, beside PyMca's fast fit."""
    seen = panel(0, 16 if toy else 64)
    cube = np.asarray(seen.cube)
    strong = [each for each in seen.families if seen.truth[each.name].mean() > 0.5 and each.name != "Ar K"]
    given = fitted(cube.sum((0, 1)).astype(float), seen.detector, strong, seen.instrument)
    names = [each.name for each in given.families]
    ours = maps(cube, given).counts
    theirs = pymca_maps(cube, seen.detector, seen.instrument, given.families)

    def correlations(found: np.ndarray) -> np.ndarray:
        pairs = [(seen.truth[name].ravel(), values.ravel()) for name, values in zip(names, found, strict=True)]
        return np.array([np.corrcoef(truth, values)[0, 1] if values.std() > 0 else 0.0 for truth, values in pairs])

    mine, peer = correlations(ours), correlations(theirs)
    for name, a, b in zip(names, mine, peer, strict=True):
        report.row(f"maps, {name}: correlation with the truth", float(a), "", peer=f"PyMca {b:.3f}")
    report.at_least("maps: mean correlation less that of PyMca's fast fit", float(mine.mean() - peer.mean()), 0.0)
    report.row("maps: mean correlation", float(mine.mean()), "", peer=f"PyMca {peer.mean():.4f}")


def large_rows(report: Report, toy: bool) -> None:
    """Seconds and memory from the file of a large cube to its maps."""
    side = 32 if toy else 512
    tile = panel(1, 16 if toy else 64)
    cube, times = np.asarray(tile.cube).astype(np.uint16), side // tile.cube.shape[0]
    strong = parse_families("Pb L, Hg L, Cu K, Fe K, Mn K, Co K, Ca K, Sn L, K K, Ni K", tile.instrument.highest_ev)
    given = fitted(cube.sum((0, 1)).astype(float) * times**2, tile.detector, strong, tile.instrument)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cube.h5"
        gain, offset = float(tile.detector.gain_ev), float(tile.detector.offset_ev)
        rows = (np.tile(cube[y : y + 1], (1, times, 1)) for _ in range(times) for y in range(len(cube)))
        io.write_cube(path, rows, io.EnergyAxis(offset, gain))
        with io.open_cube(path) as scan:
            start = time.perf_counter()
            found = pipeline.map_scan(scan, given, path=Path(folder) / "rows.zarr")
            seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = f"{side} x {side} x {tile.detector.channels}"
    report.at_most(f"{size}: file to maps of {len(found.names)} families, compiling included", seconds, 60, "s")
    report.at_most(f"{size}: memory of the process", peak, 4, "GiB")
    few, many = (np.tile(cube, (1, n, 1)) for n in (1, max(2, times)))
    spent = []
    for part in (few, many):  # two sizes: what it takes once, and what it takes per pixel
        start = time.perf_counter()
        pymca_maps(part, tile.detector, tile.instrument, given.families)
        spent.append(time.perf_counter() - start)
    pixels = [part.shape[0] * part.shape[1] for part in (few, many)]
    scaled = spent[1] + (spent[1] - spent[0]) * (side**2 - pixels[1]) / (pixels[1] - pixels[0])
    report.row(f"{size}: PyMca's fast fit in memory, scaled from {pixels[0]} and {pixels[1]} pixels", scaled, "s", peer="PyMca")
    report.at_least(f"{size}: time of PyMca's fast fit over that of lfjax", scaled / seconds, 1, peer="PyMca")


def real_rows(report: Report, toy: bool) -> None:
    """PyMca's standard, with nothing told but the beam: its detector and its elements beside PyMca's own configuration."""
    import PyMca5

    if toy:
        return
    with io.open_cube(Path(PyMca5.__file__).parent / "PyMcaData" / "XRFSpectrum.mca") as cube:
        counts = cube.read(range(1)).sum((0, 1)).astype(float)
    start = time.perf_counter()
    found = calibrate(counts, BEAM)
    report.row("XRFSpectrum.mca: calibration and elements from nothing", time.perf_counter() - start, "s")
    theirs = [name.strip() for name in REAL.split(",")]
    ours = {name for each in found.identified.elements for name in each.counts}
    report.at_least(
        "XRFSpectrum.mca: share of the families of PyMca's configuration", len(ours & set(theirs)) / len(theirs), 0.95
    )
    strange = set(found.identified.symbols) - {name.split()[0] for name in theirs}
    report.at_most("XRFSpectrum.mca: elements above 5 sigma that are not in it", len(strange), 0)
    energies = np.array([each.strongest_ev for each in found.identified.families])
    channel = (energies + 492.773) / 5.02883
    error = float(found.detector.offset_ev) + float(found.detector.gain_ev) * channel - energies
    report.at_most("XRFSpectrum.mca: energies of lines against PyMca's calibration, largest", np.abs(error).max(), 5, "eV")


def main() -> None:
    """Run the parts that are asked for."""
    parts: dict[str, Callable[[Report, bool], None]] = {
        "peaks": peak_rows, "panel": panel_rows, "maps": map_rows, "overlaps": overlap_rows, "large": large_rows,
        "real": real_rows,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="small sizes as in CI; writes nothing")
    parser.add_argument("--only", default="", help=f"some of {', '.join(parts)}")
    told = parser.parse_args()
    report = Report("xrf", told.toy)
    for name in told.only.split(",") if told.only else parts:
        parts[name](report, told.toy)
        if not told.toy:
            report.write(parts=(RESULTS / "xrf.json").exists())


if __name__ == "__main__":
    main()
