"""Resolution of a map at each of its voxels, from half-maps, and the map filtered by it.

In the band of frequencies about f, with h the half-maps filtered to the band, m a mask and G a Gaussian window,

    C_f(x) = G * (m h1 h2) / sqrt(G * (m h1^2)  G * (m h2^2)),

which is the Fourier shell correlation inside the window about x. The window is a fixed number of periods 1 / f wide, so that
each C_f counts as many independent values (about 240 with the defaults, a standard deviation of 0.06). As the maps are filtered
before they are windowed, the window and the mask correlate nothing by themselves, and no random phases are needed. The
resolution at x is where C_f(x), from low to high f, first falls below a threshold.

After the local Fourier shell correlation of Cardone, Heymann & Steven, J. Struct. Biol. 184, 226 (2013).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from lfjax.errors import ParameterError, require, require_shape
from lfjax.tomography.filters import table_radii
from lfjax.tomography.fourier_shells import squared_radii
from lfjax.tomography.masks import check_mask

WIDTH = 0.3  # octaves from the middle of a band to its ends
SPACING = 0.125  # octaves between bands
State = tuple[Array, Array, Array, Array]  # log frequency found, correlation of the last band, still above, its log frequency
SIGMA = 1 / math.sqrt(8 * math.log(2))  # of a Gaussian whose full width at half maximum is 1


class LocalResolution(NamedTuple):
    """Resolution at each voxel.

    Attributes:
        resolution_angstrom: (z, y, x); a voxel where the half-maps do not agree at all has `coarsest_angstrom`, one where they
            agree up to Nyquist two voxels.
        coarsest_angstrom: the longest period that was looked at.
        percentiles: periods in angstroms than which 5, 25, 50, 75 and 95 % of the voxels inside the mask are better resolved.
    """

    resolution_angstrom: Float[Array, "z y x"]
    coarsest_angstrom: float
    percentiles: tuple[float, ...]


def resolution_map(
    first: Float[ArrayLike, "z y x"],
    second: Float[ArrayLike, "z y x"],
    voxel_angstrom: float,
    *,
    mask: Float[ArrayLike, "z y x"] | None = None,
    threshold: float = 0.5,
    window_periods: float = 3.0,
    coarsest_angstrom: float | None = None,
) -> LocalResolution:
    """The local resolution of two half-maps, at every voxel.

    Args:
        first: unfiltered half-map, not masked.
        second: the other half-map.
        voxel_angstrom: voxel size.
        mask: weight of each voxel from 0 to 1, which keeps the solvent out of the windows; None: 1 everywhere.
        threshold: correlation of half-maps at which the resolution is read; 0.5 is usual for local resolution, 0.143 gives
            finer numbers that are more often chance.
        window_periods: full width at half maximum of the window in periods of the band.
        coarsest_angstrom: longest period to look at; None: the one whose window fills half the box.

    Raises:
        ParameterError: an option is out of range, or the mask is no mask.
        ShapeError: maps and mask are not cubes of one size.

    Warns:
        DataWarning: the mask is not 0 at the border of the box.
    """
    n = jnp.shape(first)[0]
    require_shape("first", jnp.shape(first), (n, n, n))
    require_shape("second", jnp.shape(second), (n, n, n))
    require(voxel_angstrom > 0, "voxel_angstrom", voxel_angstrom, "more than 0")
    require(0 < threshold < 1, "threshold", threshold, "a correlation between 0 and 1")
    require(window_periods >= 1, "window_periods", window_periods, "1 or more periods")
    box = n * voxel_angstrom
    low = 2 * window_periods if coarsest_angstrom is None else box / coarsest_angstrom
    if not 1 <= low <= n / 4:
        expected = f"{4 * voxel_angstrom:g} (four voxels) to {box:g} (the box)"
        raise ParameterError(f"coarsest_angstrom = {coarsest_angstrom}, or the window, is {box / low:g} A: expected {expected}")
    weights = np.ones((n, n, n), np.float32)
    if mask is not None:
        require_shape("mask", np.shape(mask), (n, n, n))
        weights = check_mask(mask)
    octaves = np.arange(math.floor(math.log2(n / 2 / low) / SPACING) + 1)[::-1] * SPACING
    middles = n / 2 * 2.0**-octaves
    tables = np.stack([_band(n, middle) for middle in middles])
    widths = SIGMA * window_periods * n / middles  # of the windows, in voxels
    logs = _local_frequency(
        jnp.asarray(first, float), jnp.asarray(second, float), weights, tables, widths, np.log(middles), threshold
    )
    found = box * jnp.exp(-logs)
    inside = np.asarray(found)[weights > 0.5]
    return LocalResolution(found, float(box / middles[0]), tuple(np.percentile(inside, (5, 25, 50, 75, 95)).tolist()))


def _band(n: int, middle: float) -> NDArray[np.float64]:
    """Factors of a band over squared radii: a cosine over octaves, up to Nyquist."""
    radius = np.maximum(table_radii(n), 1e-9)
    octaves = np.log2(radius / middle)
    return np.where((np.abs(octaves) < WIDTH) & (radius <= n / 2), np.cos(np.pi / 2 * octaves / WIDTH), 0.0)


@jax.jit
def _local_frequency(
    first: Array, second: Array, mask: Array, tables: Array, widths: Array, logs: Array, threshold: Array
) -> Float[Array, "z y x"]:
    """Logarithm of the frequency, in cycles per box, at which the correlation of the windows falls below the threshold."""
    shape, square = first.shape, squared_radii(first.shape[0])
    spectra = [jnp.fft.rfftn(half) for half in (first, second)]
    kind = first.dtype

    def step(state: State, band: tuple[Array, Array, Array]) -> tuple[State, None]:
        found, before, alive, log_before = state
        table, width, log = band
        profile = table.astype(kind)[square]
        window = jnp.exp(-2 * (jnp.pi * width.astype(kind) / shape[0]) ** 2 * square)
        halves = [jnp.fft.irfftn(spectrum * profile, shape) for spectrum in spectra]
        halves = [half * jax.lax.rsqrt(jnp.mean(half**2) + 1e-30) for half in halves]

        def smooth(values: Array) -> Array:
            return jnp.fft.irfftn(jnp.fft.rfftn(values * mask) * window, shape)

        both, *powers = smooth(halves[0] * halves[1]), smooth(halves[0] ** 2), smooth(halves[1] ** 2)
        power = jnp.maximum(powers[0], 0) * jnp.maximum(powers[1], 0)
        now = jnp.where(power > 1e-12, both * jax.lax.rsqrt(jnp.maximum(power, 1e-12)), 0.0)
        share = jnp.clip((before - threshold) / jnp.maximum(before - now, 1e-6), 0, 1)
        reached = jnp.where(now >= threshold, log, log_before + share * (log - log_before))
        found = jnp.where(alive, reached, found)
        return (found, now, alive & (now >= threshold), log), None

    start = (jnp.full(shape, logs[0], kind), jnp.ones(shape, kind), jnp.ones(shape, bool), logs[0].astype(kind))
    bands = (tables, widths.astype(kind), logs.astype(kind))
    return jax.lax.scan(step, start, bands)[0][0]


def local_filter(
    volume: Float[ArrayLike, "z y x"],
    resolution_angstrom: Float[ArrayLike, "z y x"],
    voxel_angstrom: float,
    *,
    levels: int = 16,
) -> Float[Array, "z y x"]:
    """A map low-pass filtered at each voxel to the resolution there.

    The map is filtered to `levels` periods, evenly spaced on a logarithmic scale, with an edge of two shells, and each voxel
    takes the two nearest periods in linear proportion.

    Args:
        volume: cubic map.
        resolution_angstrom: of `resolution_map`.
        voxel_angstrom: voxel size.
        levels: number of filters, 2 or more.

    Raises:
        ParameterError: a resolution is not positive, or there are fewer than two levels.
        ShapeError: the shapes differ, or the map is no cube.
    """
    n = jnp.shape(volume)[0]
    require_shape("volume", jnp.shape(volume), (n, n, n))
    require_shape("resolution_angstrom", jnp.shape(resolution_angstrom), (n, n, n))
    require(voxel_angstrom > 0, "voxel_angstrom", voxel_angstrom, "more than 0")
    require(levels >= 2, "levels", levels, "2 or more")
    periods = np.asarray(resolution_angstrom, float)
    require(bool(np.isfinite(periods).all() and periods.min() > 0), "resolution_angstrom", periods.min(), "more than 0")
    frequency = np.minimum(n * voxel_angstrom / periods, n / 2)
    cutoffs = np.geomspace(frequency.min(), frequency.max() * (1 + 1e-9), levels)
    step = math.log(cutoffs[1] / cutoffs[0])
    place = np.log(frequency / cutoffs[0]) / max(step, 1e-9)
    return _blend(jnp.asarray(volume, float), jnp.asarray(place, float), jnp.asarray(cutoffs, float))


@jax.jit
def _blend(volume: Array, place: Array, cutoffs: Array) -> Float[Array, "z y x"]:
    spectrum, radius = jnp.fft.rfftn(volume), jnp.sqrt(squared_radii(volume.shape[0]).astype(volume.dtype))

    def step(total: Array, level: tuple[Array, Array]) -> tuple[Array, None]:
        number, cutoff = level
        passed = 0.5 + 0.5 * jnp.cos(jnp.pi * jnp.clip((radius - cutoff + 1) / 2, 0, 1))
        share = jnp.maximum(1 - jnp.abs(place - number), 0)
        return total + share * jnp.fft.irfftn(spectrum * passed, volume.shape), None

    numbers = jnp.arange(len(cutoffs), dtype=volume.dtype)
    return jax.lax.scan(step, jnp.zeros_like(volume), (numbers, cutoffs))[0]
