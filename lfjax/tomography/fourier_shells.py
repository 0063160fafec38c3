"""Fourier shell correlation (FSC) of two maps, its correction for a mask, and the resolution that it gives.

    FSC(r) = sum_shell Re(A conj B) / sqrt(sum_shell |A|^2 sum_shell |B|^2)

Shell r holds the frequencies from r - 1/2 to r + 1/2 cycles per box. (Harauz & van Heel, Optik 73, 146 (1986).)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int
from numpy.typing import NDArray

from lfjax.errors import require, require_shape


def shells(n: int, *, per: float = 1.0) -> Int[Array, "n n h"]:
    """Shell index of each frequency of `rfftn` of an n^3 volume; a shell is `per` cycles per box wide."""
    # a table over the squared radius, a whole number, is exact, and small where a program holds it as a constant
    table = np.floor(np.sqrt(np.arange(3 * (n // 2) ** 2 + 1)) / per + 0.5)
    return jnp.asarray(table, jnp.int32)[squared_radii(n)]


def radii(n: int) -> Float[Array, "n n h"]:
    """Length of each frequency of `rfftn` of an n^3 volume, in cycles per box."""
    return jnp.sqrt(squared_radii(n).astype(float))


def squared_radii(n: int) -> Int[Array, "n n h"]:
    """Squared length of each frequency of `rfftn` of an n^3 volume, a whole number of (cycles per box)^2."""
    k, h = (np.fft.fftfreq(n) * n).round().astype(np.int32) ** 2, np.arange(n // 2 + 1, dtype=np.int32) ** 2
    return jnp.asarray(k)[:, None, None] + jnp.asarray(k)[:, None] + h


def multiplicity(n: int) -> Float[NDArray[np.float64], " h"]:
    """How many frequencies of the whole spectrum each column of `rfftn` stands for: one and its negative, or both are there."""
    return np.where(np.arange(n // 2 + 1) % (n / 2) == 0, 1.0, 2.0)


def shell_means(values: Float[Array, "n n h"], shell: Int[Array, "n n h"], count: int) -> Float[Array, " r"]:
    """Mean over each of the first `count` shells."""
    total = jax.ops.segment_sum(jnp.stack([values.ravel(), jnp.ones(values.size)], -1), shell.ravel(), count)
    return total[:, 0] / jnp.maximum(total[:, 1], 1)


def fsc(a: Float[ArrayLike, "z y x"], b: Float[ArrayLike, "z y x"]) -> Float[Array, " r"]:
    """Fourier shell correlation from 0 to n // 2 cycles per box; 1 in shell 0, which holds nothing but the means.

    Args:
        a: cubic map.
        b: map of the same shape.

    Raises:
        ShapeError: the maps are not cubes of one size.
    """
    n = jnp.shape(a)[0]
    require_shape("a", jnp.shape(a), (n, n, n))
    require_shape("b", jnp.shape(b), jnp.shape(a))
    return _fsc(a, b)


@jax.jit
def _fsc(a: ArrayLike, b: ArrayLike) -> Array:
    fa, fb = jnp.fft.rfftn(jnp.asarray(a, float)), jnp.fft.rfftn(jnp.asarray(b, float))
    n = fa.shape[0]
    products = jnp.stack([(fa * fb.conj()).real, jnp.abs(fa) ** 2, jnp.abs(fb) ** 2], axis=-1) * multiplicity(n)[:, None]
    sums = jax.ops.segment_sum(products.reshape(-1, 3), shells(n).ravel(), n // 2 + 1)
    power = sums[:, 1] * sums[:, 2]
    return (sums[:, 0] / jnp.sqrt(jnp.where(power > 0, power, 1))).at[0].set(1)


def falling(curve: Float[ArrayLike, " r"]) -> Float[NDArray[np.float64], " r"]:
    """Smooth estimate of the correlation about which an FSC curve scatters, for filters.

    The estimate never rises from the shell before the first one below 1/2 on: isotonic regression, each shell weighted by its
    N ~ 4 pi r^2 coefficients, then means over three shells with weights 1, 2, 1. It is at least 1 / sqrt(N), the standard error
    of the FSC of independent noise, so that no shell is empty by chance.

    Args:
        curve: result of `fsc`, from shell 0 on.

    Source: Barlow et al., Statistical Inference under Order Restrictions (1972), pool adjacent violators.
    """
    values = np.clip(np.nan_to_num(np.asarray(curve, float)), -1, 0.999)
    count = np.maximum(4 * np.pi * np.arange(len(values)) ** 2, 1)
    below = np.flatnonzero(values < 0.5)
    start = max(int(below[0]) - 1, 0) if len(below) else len(values)
    pools: list[tuple[float, float, int]] = []  # mean, weight and number of shells of each level
    for value, weight in zip(values[start:], count[start:], strict=True):
        pool = (float(value), float(weight), 1)
        while pools and pools[-1][0] < pool[0]:
            mean, total, shells = pools.pop()
            total += pool[1]
            pool = (mean + (pool[0] - mean) * pool[1] / total, total, shells + pool[2])
        pools.append(pool)
    levels = np.r_[values[:start], np.repeat([mean for mean, *_ in pools], [shells for *_, shells in pools])]
    smooth = np.convolve(np.pad(levels, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    smooth[:start] = levels[:start]
    return np.clip(smooth, 1 / np.sqrt(count), 0.999)


def chance_level(count: int, share: float = 1.0) -> Float[NDArray[np.float64], " r"]:
    """Correlation per shell that independent noise exceeds about once in 10^5 shells; shell 0, which tells nothing, has 1.

        tanh(3 / sqrt(M)),    M = 2 pi r^2 share,

    with M the number of independent complex coefficients of shell r: atanh(FSC) of noise is nearly Gaussian with the
    deviation 1 / sqrt(2 M).

    Args:
        count: number of shells, shell 0 among them.
        share: share of the box that a mask leaves, which makes neighbouring coefficients depend on each other.

    Source: Fisher, Metron 1, 3 (1921).
    """
    require(0 < share <= 1, "share", share, "more than 0 and at most 1")
    return np.r_[1.0, np.tanh(3 / np.sqrt(2 * np.pi * share * np.arange(1, count) ** 2.0))]


def resolution(curve: Float[ArrayLike, " r"], box_angstrom: float, threshold: float = 0.143, *, share: float = 1.0) -> float:
    """Period in angstroms at which a curve first falls below a threshold, by linear interpolation between shells.

    A curve that never falls below the threshold gives the period of its last shell. One that starts below it gives infinity;
    so does one with no shell above both the threshold and `chance_level` before it falls, as noise does that much.

    Args:
        curve: result of `fsc`.
        box_angstrom: side of the box, voxels times voxel size.
        threshold: 0.143 for half-maps (Rosenthal & Henderson 2003), 0.5 for a map and its model.
        share: see `chance_level`.

    Raises:
        ParameterError: a number of the curve is not finite, or an option is out of range.
    """
    require(box_angstrom > 0, "box_angstrom", box_angstrom, "more than 0")
    require(-1 <= threshold <= 1, "threshold", threshold, "a correlation, -1 to 1")
    values = np.asarray(curve, float)
    require(bool(np.isfinite(values).all()), "curve", "numbers that are not finite", "correlations; is a map not finite?")
    below = np.flatnonzero(values[1:] < threshold)
    last = int(below[0]) if len(below) else len(values) - 1  # the shell before the one below
    if not (values[: last + 1] >= chance_level(len(values), share)[: last + 1])[1:].any():
        return math.inf
    if not len(below):
        return box_angstrom / last
    step = (values[last] - threshold) / (values[last] - values[last + 1])
    return float(box_angstrom / (last + step))


class MaskedFsc(NamedTuple):
    """Correlations of half-maps inside a mask.

    Attributes:
        unmasked: FSC of the half-maps as they are.
        masked: FSC inside the mask, which itself correlates.
        randomised: FSC inside the mask with random phases from `cutoff` on: the correlation due to the mask alone.
        corrected: (masked - randomised) / (1 - randomised) from two shells beyond the cutoff on, masked before; masked
            everywhere under a mask that is 1 everywhere, which correlates nothing.
        cutoff: radius in cycles per box from which on phases are random: the first shell whose `unmasked` is below 0.8; the
            last shell where none is.
    """

    unmasked: Float[Array, " r"]
    masked: Float[Array, " r"]
    randomised: Float[Array, " r"]
    corrected: Float[Array, " r"]
    cutoff: int


def masked_fsc(
    first: Float[ArrayLike, "z y x"],
    second: Float[ArrayLike, "z y x"],
    mask: Float[ArrayLike, "z y x"],
    *,
    key: Array | None = None,
    draws: int = 1,
) -> MaskedFsc:
    """Fourier shell correlation inside a mask, corrected for the mask by phase randomisation.

    The randomisation starts, and the correction leaves two shells, as in RELION's `relion_postprocess`.

    Args:
        first: half-map.
        second: the other half-map.
        mask: values from 0 to 1, with a soft edge.
        key: random key of the phases; None: a fixed one.
        draws: sets of random phases, over which `randomised` is the mean; chance moves it, and `corrected` with it, by one
            over the root of the number of frequencies in a shell times the share of the box that the mask covers.

    Raises:
        ParameterError: no draw.
        ShapeError: maps and mask are not cubes of one size.

    Source: Chen et al., Ultramicroscopy 135, 24 (2013).
    """
    n = jnp.shape(first)[0]
    require_shape("first", jnp.shape(first), (n, n, n))
    require_shape("second", jnp.shape(second), jnp.shape(first))
    require_shape("mask", jnp.shape(mask), jnp.shape(first))
    require(draws >= 1, "draws", draws, "1 or more")
    keys = jax.random.split(jax.random.key(0) if key is None else key, draws)
    found = _masked_fsc(first, second, mask, keys)
    return found._replace(cutoff=int(found.cutoff))


@jax.jit
def _masked_fsc(first: ArrayLike, second: ArrayLike, mask: ArrayLike, keys: Array) -> MaskedFsc:
    halves = jnp.stack([jnp.asarray(first, float), jnp.asarray(second, float)])
    plain, masked = _fsc(*halves), _fsc(*(halves * mask))
    low = plain[1:] < 0.8
    cutoff = jnp.where(low.any(), jnp.argmax(low) + 1, len(plain) - 1)

    def draw(key: Array) -> Array:
        mixed = jax.vmap(lambda k, half: randomise_phases(k, half, cutoff))(jax.random.split(key), halves)
        return _fsc(*(mixed * mask))

    noise = jnp.mean(jax.lax.map(draw, keys), axis=0)
    beyond = jnp.arange(len(plain)) >= cutoff + 2  # two shells of margin, as RELION leaves
    beyond &= jnp.min(mask) <= 0.999  # chance in the random phases would raise or lower a curve that needs no correction
    corrected = jnp.where(beyond, (masked - noise) / jnp.maximum(1 - noise, 1e-6), masked)
    return MaskedFsc(plain, masked, noise, corrected, cutoff)  # type: ignore[arg-type] # a whole number outside of jit


@jax.jit
def randomise_phases(key: Array, volume: Float[ArrayLike, "z y x"], cutoff: Int[ArrayLike, ""]) -> Float[Array, "z y x"]:
    """The volume with random phases at all frequencies from `cutoff` on; the power of each frequency stays.

    Args:
        key: random key.
        volume: cubic map.
        cutoff: radius in cycles per box from which on, itself included, phases are random.
    """
    shape = jnp.shape(volume)
    noise, cutoff = jnp.fft.rfftn(jax.random.normal(key, shape)), jnp.asarray(cutoff)
    spectrum = jnp.fft.rfftn(volume)
    other = jnp.abs(spectrum) * noise / jnp.maximum(jnp.abs(noise), 1e-20)
    return jnp.fft.irfftn(jnp.where(squared_radii(shape[0]) >= cutoff**2, other, spectrum), shape)


@jax.jit
def scale_shells(volume: Float[Array, "z y x"], factors: Float[Array, " r"]) -> Float[Array, "z y x"]:
    """The volume with each shell of frequencies multiplied by a factor; the last factor serves all shells beyond."""
    shell = jnp.minimum(shells(volume.shape[0]), len(factors) - 1)
    return jnp.fft.irfftn(jnp.fft.rfftn(volume) * factors[shell], volume.shape)
