"""Fourier shell correlation: of two maps, corrected for a mask, and the resolution it tells.

    FSC(r) = sum_shell Re(A conj B) / sqrt(sum_shell |A|^2 sum_shell |B|^2)

Shell r holds the frequencies of r - 1/2 to r + 1/2 cycles a box. (Harauz & van Heel, Optik 73, 146 (1986).)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from lfjax.errors import require, require_shape


def shells(n: int, *, per: float = 1.0) -> Int[NDArray[np.int64], "n n h"]:
    """Shell of each frequency of `rfftn` of an n^3 volume; `per` cycles make one shell."""
    return np.floor(radii(n) / per + 0.5).astype(np.int64)


def radii(n: int) -> Float[NDArray[np.float64], "n n h"]:
    """Length of each frequency of `rfftn` of an n^3 volume, in cycles a box."""
    k, h = np.fft.fftfreq(n) * n, np.arange(n // 2 + 1)
    return np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + h**2)


def shell_means(values: Float[Array, "n n h"], shell: NDArray[np.int64], count: int) -> Float[Array, " r"]:
    """Mean over each of the first `count` shells."""
    total = jax.ops.segment_sum(jnp.stack([values.ravel(), jnp.ones(values.size)], -1), shell.ravel(), count)
    return total[:, 0] / jnp.maximum(total[:, 1], 1)


def fsc(a: Float[Array, "z y x"], b: Float[Array, "z y x"]) -> Float[Array, " r"]:
    """Fourier shell correlation for 0 to n // 2 cycles a box.

    Args:
        a: a cubic map.
        b: of the same shape.
    """
    a, b = jnp.asarray(a, float), jnp.asarray(b, float)
    n = a.shape[0]
    require_shape("a", a.shape, (n, n, n))
    require_shape("b", b.shape, a.shape)
    fa, fb = jnp.fft.rfftn(a), jnp.fft.rfftn(b)
    # a frequency and its negative are both there in the first and, for even n, the last column: others count twice
    weight = np.full(n // 2 + 1, 2.0)
    weight[0] = 1.0
    if n % 2 == 0:
        weight[-1] = 1.0
    products = jnp.stack([(fa * fb.conj()).real, jnp.abs(fa) ** 2, jnp.abs(fb) ** 2], axis=-1) * weight[:, None]
    sums = jax.ops.segment_sum(products.reshape(-1, 3), shells(n).ravel(), n // 2 + 1)
    power = sums[:, 1] * sums[:, 2]
    return sums[:, 0] / jnp.sqrt(jnp.where(power > 0, power, 1))


def resolution(curve: Float[Array, " r"], box_angstrom: float, threshold: float = 0.143) -> float:
    """Where a curve first falls below a threshold, in angstroms, between shells on a straight line; that of the last if never.

    Args:
        curve: from `fsc`.
        box_angstrom: voxels a side times voxel size.
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
    return box_angstrom / (last + step)


class MaskedFsc(NamedTuple):
    """Correlations of half-maps inside a mask.

    Attributes:
        unmasked: of the half-maps as they are.
        masked: inside the mask, which itself correlates.
        randomised: the same with random phases beyond `cutoff`: what the mask alone does.
        corrected: (masked - randomised) / (1 - randomised) beyond the cutoff, masked before.
        cutoff: shell from which phases are random: where `unmasked` falls below 0.8.
    """

    unmasked: Float[Array, " r"]
    masked: Float[Array, " r"]
    randomised: Float[Array, " r"]
    corrected: Float[Array, " r"]
    cutoff: int


def masked_fsc(
    first: Float[Array, "z y x"], second: Float[Array, "z y x"], mask: Float[Array, "z y x"], *, key: Array | None = None
) -> MaskedFsc:
    """Fourier shell correlation inside a mask, corrected for it by phase randomisation.

    Args:
        first: half-map.
        second: the other.
        mask: 0 to 1, with a soft edge.
        key: of the random phases.

    Source: Chen et al., Ultramicroscopy 135, 24 (2013).
    """
    key = jax.random.key(0) if key is None else key
    require_shape("mask", mask.shape, first.shape)
    plain, masked = fsc(first, second), fsc(first * mask, second * mask)
    low = np.flatnonzero(np.asarray(plain[1:]) < 0.8)
    cutoff = int(low[0]) + 1 if len(low) else len(plain) - 1
    mixed = [randomise_phases(k, v, cutoff) * mask for k, v in zip(jax.random.split(key), (first, second), strict=True)]
    noise = fsc(*mixed)
    beyond = jnp.arange(len(plain)) >= cutoff + 2  # two shells of margin, as RELION leaves
    corrected = jnp.where(beyond, (masked - noise) / jnp.maximum(1 - noise, 1e-6), masked)
    return MaskedFsc(plain, masked, noise, corrected, cutoff)


def randomise_phases(key: Array, volume: Float[Array, "z y x"], cutoff: int) -> Float[Array, "z y x"]:
    """The volume with the phases of all shells from `cutoff` on drawn anew; the powers stay."""
    noise = jnp.fft.rfftn(jax.random.normal(key, volume.shape))
    spectrum = jnp.fft.rfftn(volume)
    other = jnp.abs(spectrum) * noise / jnp.maximum(jnp.abs(noise), 1e-20)
    return jnp.fft.irfftn(jnp.where(shells(volume.shape[0]) >= cutoff, other, spectrum), volume.shape)


def scale_shells(volume: Float[Array, "z y x"], factors: Float[Array, " r"]) -> Float[Array, "z y x"]:
    """The volume with each shell of frequencies multiplied by a factor; the last one counts for all beyond."""
    shell = np.minimum(shells(volume.shape[0]), len(factors) - 1)
    return jnp.fft.irfftn(jnp.fft.rfftn(volume) * factors[shell], volume.shape)


def spherical_mask(n: int, radius: float, edge: float = 5.0) -> Float[NDArray[np.float64], "n n n"]:
    """1 inside a ball about the centre n // 2, falling to 0 over `edge` voxels along a raised cosine.

    Args:
        n: voxels a side.
        radius: in voxels.
        edge: in voxels.
    """
    x = np.arange(n) - n // 2
    distance = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius) / edge, 0, 1))
