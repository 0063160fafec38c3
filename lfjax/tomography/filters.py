"""Filters of maps that depend on the length of the frequency alone, as tables over its square.

    V'^(k) = t(|k|^2) V^(k),   |k|^2 a whole number in (cycles per box)^2

A table over a whole number is exact, one compiled program serves every filter of a size, and the profile is written in plain
NumPy.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.tomography.fourier_shells import squared_radii


def table_radii(n: int) -> Float[NDArray[np.float64], " t"]:
    """Radius in cycles per box of each entry of a table for an n^3 map: the roots of 0, 1, ..., 3 (n // 2)^2."""
    return np.sqrt(np.arange(3 * (n // 2) ** 2 + 1))


def radial_filter(volume: Float[ArrayLike, "z y x"], table: Float[ArrayLike, " t"]) -> Float[Array, "z y x"]:
    """The map with each frequency multiplied by the table's entry for its squared length.

    Args:
        volume: cubic map.
        table: one factor per entry of `table_radii`.

    Raises:
        ShapeError: the map is no cube, or the table has another length.
    """
    n = jnp.shape(volume)[0]
    require_shape("volume", jnp.shape(volume), (n, n, n))
    require_shape("table", jnp.shape(table), (len(table_radii(n)),))
    return _apply(jnp.asarray(volume, float), jnp.asarray(table, float))


@jax.jit
def _apply(volume: Array, table: Array) -> Array:
    return jnp.fft.irfftn(jnp.fft.rfftn(volume) * table[squared_radii(volume.shape[0])], volume.shape)


def low_pass_profile(
    radius: Float[NDArray[np.float64], " t"], cutoff: float, half_width: float = 1.0
) -> Float[NDArray[np.float64], " t"]:
    """1 below the cutoff, 0 above it, with a raised cosine from `half_width` below to `half_width` above.

    Args:
        radius: radii in cycles per box.
        cutoff: the middle of the edge in cycles per box.
        half_width: half the width of the edge in cycles per box.
    """
    low = max(0.0, cutoff - half_width)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - low) / (cutoff + half_width - low), 0, 1))


def low_pass(
    volume: Float[ArrayLike, "z y x"], period_angstrom: float, voxel_angstrom: float, *, edge_shells: float = 2.0
) -> Float[Array, "z y x"]:
    """The map without periods shorter than a given one; the edge is a raised cosine about the nearest whole shell.

    Args:
        volume: cubic map.
        period_angstrom: period at the middle of the edge. Where it is shorter than two voxels, the corners of the spectrum,
            which no sphere of frequencies holds, still pass.
        voxel_angstrom: voxel size.
        edge_shells: width of the edge in cycles per box.

    Raises:
        ParameterError: a length is not positive.
        ShapeError: the map is no cube.

    Source: the filter of RELION's `relion_mask_create --lowpass` and `relion_postprocess --low_pass`.
    """
    require(voxel_angstrom > 0, "voxel_angstrom", voxel_angstrom, "more than 0")
    require(period_angstrom > 0, "period_angstrom", period_angstrom, "more than 0")
    n = jnp.shape(volume)[0]
    cutoff = np.floor(n * voxel_angstrom / period_angstrom + 0.5)
    return radial_filter(volume, low_pass_profile(table_radii(n), cutoff, edge_shells / 2))
