"""Two peaks closer than their width, energies and number unknown, beside the Cramer-Rao bound and PyMca."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Report, timed
from lfjax.xrf import Detector, PeaksBound, fit_peaks, peaks, peaks_bound

Floats = NDArray[np.float64]

DETECTOR = Detector(100, 15.0, 5700.0, noise_ev=90.0)
TOTAL, BACKGROUND = 10_000, 5.0  # counts of both peaks; counts per channel
FAILED = 5.0  # bounds by which an energy or an area is off


class Scene(NamedTuple):
    """Two peaks and spectra of them."""

    name: str
    energies_ev: Floats
    counts: Floats
    spectra: Floats
    bound: PeaksBound


def scene(apart: float, ratio: float, number: int) -> Scene:
    """Peaks `apart` widths from each other, the second with `ratio` times the counts of the first."""
    energies = 6400 + apart * float(DETECTOR.fwhm_ev(6400.0)) * np.array([-0.5, 0.5])
    counts = TOTAL * np.array([1, ratio]) / (1 + ratio)
    mu = np.asarray(DETECTOR.pulses(jnp.asarray(energies))) @ counts + BACKGROUND
    spectra = np.random.default_rng(round(100 * apart + ratio)).poisson(mu, (number, len(mu))).astype(float)
    name = f"peaks {apart:g} FWHM apart, 1:{ratio:g}, {TOTAL} counts, {number} spectra"
    return Scene(name, energies, counts, spectra, peaks_bound(DETECTOR, energies, counts, BACKGROUND))


def searched(made: Scene) -> tuple[Floats, Floats]:
    """Energies and areas by `peaks`, of which nothing is told; NaN where their number is not two."""
    found = [peaks(spectrum, DETECTOR) for spectrum in made.spectra]
    both = [np.stack(each[:2]) if len(each.energies_ev) == 2 else np.full((2, 2), np.nan) for each in found]
    energies, areas = np.stack(both, axis=1)
    return energies, areas


def pymca(made: Scene) -> tuple[Floats, Floats]:
    """Energies and areas by PyMca's least squares over both and a constant, from the true ones; widths are told."""
    from PyMca5.PyMcaMath.fitting import Gefit, SpecfitFuns

    x, widths = np.asarray(DETECTOR.energies_ev), np.asarray(DETECTOR.fwhm_ev(made.energies_ev))
    gain = float(DETECTOR.gain_ev)

    def model(values: Floats, at: Floats) -> Floats:
        peaks = [value for pair in zip(values[:2], values[2:4], widths, strict=True) for value in pair]
        return np.asarray(gain * SpecfitFuns.agauss(peaks, at) + values[4])

    start = [*made.counts, *made.energies_ev, BACKGROUND]
    fits = [
        Gefit.LeastSquaresFit(model, start, xdata=x, ydata=y, sigmadata=np.sqrt(np.maximum(y, 1)), weightflag=1, maxiter=100)
        for y in made.spectra
    ]
    found = np.array([fit[0] for fit in fits])
    return found[:, 2:4], found[:, :2]


def in_bounds(made: Scene, energies: Floats, areas: Floats) -> tuple[float, float, float]:
    """Largest RMS error over its bound, of energies and of areas, and the fraction of failures, which the first leave out."""
    off = (energies - made.energies_ev) / np.asarray(made.bound.errors_ev)
    off_areas = (areas - made.counts) / np.asarray(made.bound.errors_counts)
    failed = ~np.all((np.abs(off) < FAILED) & (np.abs(off_areas) < FAILED), axis=1)  # NaN fails
    rms = [float(np.sqrt(np.mean(each[~failed] ** 2, axis=0)).max()) for each in (off, off_areas)]
    return rms[0], rms[1], float(failed.mean())


def peak_rows(report: Report, toy: bool) -> None:
    """Figures of `peaks`, of `fit_peaks` told the number, and of PyMca told the lines, on the same spectra."""
    number = 6 if toy else 500
    fit = jax.jit(jax.vmap(lambda y: fit_peaks(y, DETECTOR, 2)))
    with jax.enable_x64(True):
        for apart, ratio in [(0.8, 1.0)] if toy else [(0.8, 1.0), (0.6, 1.0), (1.0, 1.0), (0.8, 5.0)]:
            made = scene(apart, ratio, number)
            found = searched(made)
            energies, areas, failed = in_bounds(made, *found)
            bounded = (apart, ratio) == (0.8, 1.0) and not toy  # errors of six spectra are no figure
            for what, value in (("energies", energies), ("areas", areas)):
                title = f"{made.name}: RMS error of {what} over the bound"
                report.row(title, value, "1", "<= 1.2" if bounded else None, value <= 1.2 if bounded else None, "PyMca")
            report.row(
                f"{made.name}: failed",
                failed,
                "1",
                "<= 0.02" if bounded else None,
                failed <= 0.02 if bounded else None,
                "PyMca",
            )
            told, seconds = timed(lambda made=made: jax.block_until_ready(fit(made.spectra)), repeats=1)
            others = {
                "fit_peaks told the number": (np.asarray(told.energies_ev), np.asarray(told.counts)),
                "PyMca told the lines": pymca(made),
            }
            for name, values in others.items():
                for what, value in zip(("energies", "areas", "failed"), in_bounds(made, *values), strict=True):
                    report.row(f"{made.name}, {name}: {what}", value, "1")
            report.row(f"{made.name}, fit_peaks of all in one call", seconds, "s")
