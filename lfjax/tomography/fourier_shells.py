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
    return jnp.asarray(table, jnp.int32)[_squared_radii(n)]


def radii(n: int) -> Float[Array, "n n h"]:
    """Length of each frequency of `rfftn` of an n^3 volume, in cycles per box."""
    return jnp.sqrt(_squared_radii(n).astype(float))


def _squared_radii(n: int) -> Int[Array, "n n h"]:
    k, h = (np.fft.fftfreq(n) * n).round().astype(np.int32) ** 2, np.arange(n // 2 + 1, dtype=np.int32) ** 2
    return jnp.asarray(k)[:, None, None] + jnp.asarray(k)[:, None] + h


def shell_means(values: Float[Array, "n n h"], shell: Int[Array, "n n h"], count: int) -> Float[Array, " r"]:
    """Mean over each of the first `count` shells."""
    total = jax.ops.segment_sum(jnp.stack([values.ravel(), jnp.ones(values.size)], -1), shell.ravel(), count)
    return total[:, 0] / jnp.maximum(total[:, 1], 1)


def fsc(a: Float[ArrayLike, "z y x"], b: Float[ArrayLike, "z y x"]) -> Float[Array, " r"]:
    """Fourier shell correlation from 0 to n // 2 cycles per box.

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
    # a frequency and its negative are both there in the first and, for even n, the last column: others count twice
    weight = np.full(n // 2 + 1, 2.0)
    weight[0] = 1.0
    if n % 2 == 0:
        weight[-1] = 1.0
    products = jnp.stack([(fa * fb.conj()).real, jnp.abs(fa) ** 2, jnp.abs(fb) ** 2], axis=-1) * weight[:, None]
    sums = jax.ops.segment_sum(products.reshape(-1, 3), shells(n).ravel(), n // 2 + 1)
    power = sums[:, 1] * sums[:, 2]
    return sums[:, 0] / jnp.sqrt(jnp.where(power > 0, power, 1))


def resolution(curve: Float[ArrayLike, " r"], box_angstrom: float, threshold: float = 0.143) -> float:
    """Period in angstroms at which a curve first falls below a threshold, by linear interpolation between shells.

    A curve that never falls below the threshold gives the period of its last shell; one that starts below it gives infinity.

    Args:
        curve: result of `fsc`.
        box_angstrom: side of the box, voxels times voxel size.
        threshold: 0.143 for half-maps (Rosenthal & Henderson 2003), 0.5 for a map and its model.
    """
    require(box_angstrom > 0, "box_angstrom", box_angstrom, "more than 0")
    values = np.asarray(curve, float)
    below = np.flatnonzero(values[1:] < threshold)
    if not len(below):
        return box_angstrom / (len(values) - 1)
    last = int(below[0])  # the shell before the one below
    if last == 0:
        return math.inf
    step = (values[last] - threshold) / (values[last] - values[last + 1])
    return float(box_angstrom / (last + step))


class MaskedFsc(NamedTuple):
    """Correlations of half-maps inside a mask.

    Attributes:
        unmasked: FSC of the half-maps as they are.
        masked: FSC inside the mask, which itself correlates.
        randomised: FSC inside the mask with random phases from `cutoff` on: the correlation due to the mask alone.
        corrected: (masked - randomised) / (1 - randomised) beyond the cutoff, masked before it.
        cutoff: first shell with random phases, where `unmasked` falls below 0.8.
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
) -> MaskedFsc:
    """Fourier shell correlation inside a mask, corrected for the mask by phase randomisation.

    Args:
        first: half-map.
        second: the other half-map.
        mask: values from 0 to 1, with a soft edge.
        key: random key of the phases; None: a fixed one.

    Raises:
        ShapeError: maps and mask are not cubes of one size.

    Source: Chen et al., Ultramicroscopy 135, 24 (2013).
    """
    n = jnp.shape(first)[0]
    require_shape("first", jnp.shape(first), (n, n, n))
    require_shape("second", jnp.shape(second), jnp.shape(first))
    require_shape("mask", jnp.shape(mask), jnp.shape(first))
    found = _masked_fsc(first, second, mask, jax.random.key(0) if key is None else key)
    return found._replace(cutoff=int(found.cutoff))


@jax.jit
def _masked_fsc(first: ArrayLike, second: ArrayLike, mask: ArrayLike, key: Array) -> MaskedFsc:
    halves = jnp.stack([jnp.asarray(first, float), jnp.asarray(second, float)])
    plain, masked = _fsc(*halves), _fsc(*(halves * mask))
    low = plain[1:] < 0.8
    cutoff = jnp.where(low.any(), jnp.argmax(low) + 1, len(plain) - 1)
    mixed = jax.vmap(lambda k, half: randomise_phases(k, half, cutoff))(jax.random.split(key), halves)
    noise = _fsc(*(mixed * mask))
    beyond = jnp.arange(len(plain)) >= cutoff + 2  # two shells of margin, as RELION leaves
    corrected = jnp.where(beyond, (masked - noise) / jnp.maximum(1 - noise, 1e-6), masked)
    return MaskedFsc(plain, masked, noise, corrected, cutoff)  # type: ignore[arg-type] # a whole number outside of jit


@jax.jit
def randomise_phases(key: Array, volume: Float[ArrayLike, "z y x"], cutoff: Int[ArrayLike, ""]) -> Float[Array, "z y x"]:
    """The volume with random phases in all shells from `cutoff` on; the power of each frequency stays.

    Args:
        key: random key.
        volume: cubic map.
        cutoff: first shell with random phases.
    """
    shape = jnp.shape(volume)
    noise = jnp.fft.rfftn(jax.random.normal(key, shape))
    spectrum = jnp.fft.rfftn(volume)
    other = jnp.abs(spectrum) * noise / jnp.maximum(jnp.abs(noise), 1e-20)
    return jnp.fft.irfftn(jnp.where(shells(shape[0]) >= cutoff, other, spectrum), shape)


@jax.jit
def scale_shells(volume: Float[Array, "z y x"], factors: Float[Array, " r"]) -> Float[Array, "z y x"]:
    """The volume with each shell of frequencies multiplied by a factor; the last factor serves all shells beyond."""
    shell = jnp.minimum(shells(volume.shape[0]), len(factors) - 1)
    return jnp.fft.irfftn(jnp.fft.rfftn(volume) * factors[shell], volume.shape)


def spherical_mask(n: int, radius: float, edge: float = 5.0) -> Float[NDArray[np.float64], "n n n"]:
    """1 inside a ball about the centre n // 2, falling to 0 over `edge` voxels along a raised cosine.

    Args:
        n: voxels per side.
        radius: radius of the ball in voxels.
        edge: width of the soft edge in voxels.
    """
    x = np.arange(n) - n // 2
    distance = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius) / edge, 0, 1))
