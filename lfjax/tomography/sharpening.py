"""Sharpening of a map: detector, weights by the correlation of half-maps, B-factor, low-pass filter.

    V'^(k) = V^(k) / MTF(s) sqrt(2 C / (1 + C)) exp(-B s^2 / 4),    s = |k| in 1 / angstrom,

with MTF the modulation transfer function of the detector, and C the half-map correlation of the shell, up to the first shell
where it is not positive. B is four times the slope of ln(mean |V^|) of the weighted map against s^2 (Guinier plot); negative B
sharpens.

Source: Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003); conventions of `relion_postprocess` (RELION 3.1).
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float
from numpy.typing import NDArray

from lfjax.errors import DataWarning, FileError, ParameterError, require, require_shape
from lfjax.tomography import fourier_shells
from lfjax.tomography.filters import low_pass_profile, radial_filter, table_radii

LEAST = 1e-4  # correlation below which a shell, and all beyond it, are taken as noise
THRESHOLD = 0.143
"""Correlation of half-maps at which a resolution is read (Rosenthal & Henderson 2003)."""


class Mtf(NamedTuple):
    """Modulation transfer function of a detector.

    Attributes:
        frequency: in 1 / pixel of the detector, ascending; Nyquist is 0.5.
        value: transfer at each frequency, 1 at frequency 0, more than 0.
    """

    frequency: Float[NDArray[np.float64], " m"]
    value: Float[NDArray[np.float64], " m"]


class Guinier(NamedTuple):
    """The Guinier plot: natural logarithm of the mean amplitude per shell; NaN where a shell is empty.

    Attributes:
        inverse_square: 1 / d^2 of each shell in 1 / angstrom^2, from shell 0 to n // 2.
        original: of the mean of the half-maps; amplitudes are those of the transform divided by the number of voxels.
        without_mtf: after division by the MTF.
        weighted: after weighting by the correlation.
        sharpened: after the B-factor.
        fitted: whether a shell is part of the fit of the line.
        slope: of the line through `weighted`, B / 4; NaN without a fit.
        intercept: of the line.
        correlation: coefficient of determination of the fit.
    """

    inverse_square: Float[NDArray[np.float64], " r"]
    original: Float[NDArray[np.float64], " r"]
    without_mtf: Float[NDArray[np.float64], " r"]
    weighted: Float[NDArray[np.float64], " r"]
    sharpened: Float[NDArray[np.float64], " r"]
    fitted: Bool[NDArray[np.bool_], " r"]
    slope: float
    intercept: float
    correlation: float


class Sharpened(NamedTuple):
    """A sharpened map.

    Attributes:
        volume: the map.
        b_factor: B in angstrom^2 that it was sharpened with, negative for sharpening; 0: not sharpened.
        guinier: the plot behind B.
        warnings: each thing to know of the fit, also given as `DataWarning`.
    """

    volume: Float[Array, "z y x"]
    b_factor: float
    guinier: Guinier
    warnings: tuple[str, ...]


def read_mtf(path: str | Path) -> Mtf:
    """Read the MTF of a detector from a STAR file with `rlnResolutionInversePixel` and `rlnMtfValue`, as RELION has them.

    Raises:
        FileError: the file is missing or broken, lacks a column, its frequencies do not ascend from 0 or more to a finite one,
            or a value is not a number above 0.
    """
    from lfjax.io.star import read_star

    names = ("rlnResolutionInversePixel", "rlnMtfValue")
    tables = read_star(path)
    table = next((t for t in tables.values() if set(names) <= set(t.columns)), None)
    if table is None:
        have = sorted({column for t in tables.values() for column in t.columns})
        raise FileError(f"{path}: columns {', '.join(map(str, have))}: expected {names[0]} and {names[1]}")
    columns = []
    for name in names:
        try:
            columns.append(table[name].to_numpy(float))
        except ValueError as error:
            raise FileError(f"{path}: {name} holds a value that is no number: {error}") from error
    frequency, value = columns
    ascending = len(frequency) > 1 and frequency[0] >= 0 and bool(np.all(np.diff(frequency) > 0))
    if not (ascending and frequency[-1] < np.inf):
        raise FileError(f"{path}: {names[0]} = {frequency[:3].tolist()} ...: expected two or more, ascending from 0")
    bad = ~(np.isfinite(value) & (value > 1e-10))
    if bad.any():
        row = int(np.argmax(bad))
        raise FileError(f"{path}: {names[1]} = {value[row]:g} in row {row + 1}: expected more than 0")
    return Mtf(frequency, value)


def sharpen(
    volume: Float[ArrayLike, "z y x"],
    voxel_angstrom: float,
    curve: Float[ArrayLike, " r"],
    *,
    b_factor: float | None = None,
    fit_range_angstrom: tuple[float, float | None] = (10.0, None),
    mtf: Mtf | None = None,
    mtf_pixel_angstrom: float | None = None,
    lowpass_angstrom: float | None = None,
    skip_fsc_weighting: bool = False,
) -> Sharpened:
    """A map divided by the MTF, weighted by a correlation of half-maps, and sharpened. Frequencies beyond Nyquist become 0.

    Args:
        volume: cubic map, the mean of the half-maps.
        voxel_angstrom: voxel size.
        curve: correlation of the half-maps per shell, from 0 to n // 2 cycles per box, corrected for the mask.
        b_factor: B in angstrom^2, negative to sharpen; None: found from the Guinier plot; 0: no sharpening.
        fit_range_angstrom: longest and shortest period of the fit. None as the shortest: the period where the curve falls below
            0.143; 0: the last shell that the weighting keeps, the default of RELION, which reaches into shells whose weight is
            mostly chance.
        mtf: MTF of the detector, from `read_mtf`; None: no division.
        mtf_pixel_angstrom: pixel size of the micrographs, in whose pixels the MTF is; None: the voxel size.
        lowpass_angstrom: period of a last low-pass filter with a soft edge; None: none, as the weights end where the
            correlation ends, or, without weighting, the period where the curve falls below 0.143.
        skip_fsc_weighting: whether to leave out the factor sqrt(2 C / (1 + C)).

    Raises:
        ParameterError: an option is out of range, or the curve is never above 0.143 and chance.
        ShapeError: the map is no cube, or the curve has other than n // 2 + 1 shells.

    Warns:
        DataWarning: too few shells for a fit, or a B-factor that does not sharpen.
    """
    n = jnp.shape(volume)[0]
    require_shape("volume", jnp.shape(volume), (n, n, n))
    require_shape("curve", jnp.shape(curve), (n // 2 + 1,))
    require(math.isfinite(voxel_angstrom) and voxel_angstrom > 0, "voxel_angstrom", voxel_angstrom, "more than 0")
    require(b_factor is None or math.isfinite(b_factor), "b_factor", b_factor, "a finite number of square angstroms")
    pixel = voxel_angstrom if mtf_pixel_angstrom is None else mtf_pixel_angstrom
    require(math.isfinite(pixel) and pixel > 0, "mtf_pixel_angstrom", mtf_pixel_angstrom, "more than 0")
    longest, shortest = fit_range_angstrom
    ordered = math.isfinite(longest) and longest > 0 and (shortest is None or 0 <= shortest < longest)
    require(ordered, "fit_range_angstrom", fit_range_angstrom, "(longest, shortest)")
    cut_stated = lowpass_angstrom is None or (math.isfinite(lowpass_angstrom) and lowpass_angstrom > 0)
    require(cut_stated, "lowpass_angstrom", lowpass_angstrom, "more than 0")
    correlation, box = np.asarray(curve, float), n * voxel_angstrom
    resolution = fourier_shells.resolution(correlation, box, THRESHOLD)
    if math.isinf(resolution):
        raise ParameterError(f"curve: never above {THRESHOLD} and chance: expected half-maps that agree at some frequency")

    radius = table_radii(n)
    stages = [np.ones_like(radius), 1 / _mtf_at(mtf, radius / box, pixel)]
    stages.append(stages[-1] * (1.0 if skip_fsc_weighting else _weights(correlation, radius)))
    amplitudes = np.asarray(_amplitude_sums(jnp.asarray(volume, float)), float)
    plots = [_log_amplitudes(amplitudes, stage, n) for stage in stages]
    inverse_square = (np.arange(n // 2 + 1) / box) ** 2
    ends = (longest, resolution if shortest is None else max(shortest, 1e-6))
    fitted = (inverse_square >= ends[0] ** -2) & (inverse_square <= ends[1] ** -2) & np.isfinite(plots[-1])
    slope, intercept, share = _line(inverse_square[fitted], plots[-1][fitted])
    notes = []
    if b_factor is None:
        b_factor = 0.0 if math.isnan(slope) else 4 * slope
        if math.isnan(slope):
            few = f"{fitted.sum()} shells from {longest:g} A to {resolution if shortest is None else shortest:.2f} A"
            notes.append(f"{few}: too few to fit a B-factor; the map is not sharpened")
    if b_factor > 0:
        notes.append(f"the B-factor, {b_factor:.1f} A^2, is positive: it dampens high frequencies, where negative ones sharpen")
    stages.append(stages[-1] * np.exp(-b_factor / 4 * (radius / box) ** 2) * (radius <= n / 2))
    plots.append(_log_amplitudes(amplitudes, stages[-1], n))
    cut = resolution if lowpass_angstrom is None and skip_fsc_weighting else lowpass_angstrom
    table = stages[-1] if cut is None else stages[-1] * low_pass_profile(radius, np.floor(box / cut + 0.5))
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    original, without_mtf, weighted, sharpened = plots
    guinier = Guinier(inverse_square, original, without_mtf, weighted, sharpened, fitted, slope, intercept, share)
    return Sharpened(radial_filter(volume, table), float(b_factor), guinier, tuple(notes))


def _weights(curve: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """sqrt(2 C / (1 + C)) of the shell of each entry, 0 from the first shell without correlation on."""
    kept = np.cumprod(curve >= LEAST) * np.maximum(curve, 0)
    per_shell = np.append(np.sqrt(2 * kept / (1 + kept)), 0.0)
    return per_shell[np.minimum(np.floor(radius + 0.5).astype(int), len(curve))]


def _mtf_at(mtf: Mtf | None, frequency: NDArray[np.float64], pixel: float) -> NDArray[np.float64]:
    """The MTF at frequencies in 1 / angstrom, its ends continued."""
    if mtf is None:
        return np.ones_like(frequency)
    require(bool(np.min(mtf.value) > 0), "mtf", float(np.min(mtf.value)), "values above 0")
    return np.interp(frequency * pixel, mtf.frequency, mtf.value)


@jax.jit
def _amplitude_sums(volume: Array) -> Float[Array, "t 2"]:
    """Sum of |V^| over the frequencies of each squared length, and their number."""
    n = volume.shape[0]
    twice = fourier_shells.multiplicity(n)
    amplitudes = jnp.abs(jnp.fft.rfftn(volume)) / volume.size
    values = jnp.stack([amplitudes * twice, jnp.broadcast_to(twice, amplitudes.shape)], axis=-1)
    return jax.ops.segment_sum(values.reshape(-1, 2), fourier_shells.squared_radii(n).ravel(), len(table_radii(n)))


def _log_amplitudes(sums: NDArray[np.float64], factor: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """ln of the mean amplitude of each shell of the map filtered by a table; NaN where it is 0."""
    shell = np.floor(table_radii(n) + 0.5).astype(int)
    total, count = (np.bincount(shell, v, minlength=n // 2 + 1)[: n // 2 + 1] for v in (sums[:, 0] * factor, sums[:, 1]))
    mean = total / np.maximum(count, 1)
    return np.log(np.where(mean > 0, mean, np.nan))


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Slope, intercept and coefficient of determination of the least-squares line; NaN with fewer than three points."""
    if len(x) < 3:
        return math.nan, math.nan, math.nan
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept), float(np.corrcoef(x, y)[0, 1] ** 2)
