"""Evenly spaced rotations, for searches over all of them."""

from __future__ import annotations

import jax
import numpy as np
from numpy.typing import NDArray

from lfjax.errors import require
from lfjax.rotation.matrices import from_euler


def grid(order: int) -> NDArray[np.float64]:
    """Evenly spaced rotations (Hopf grid): 12 * 4^order HEALPix directions, each with 6 * 2^order angles about it.

    These are 72 * 8^order rotations, about 60 / 2^order degrees apart (Yershova et al., Int. J. Robot. Res. 29, 801 (2010);
    Gorski et al., Astrophys. J. 622, 759 (2005)).

    Args:
        order: 0 (72 rotations), 1 (576), 2 (4608), 3 (36864), at most 6.
    """
    require(isinstance(order, int) and 0 <= order <= 6, "order", order, "a whole number from 0 to 6")
    polar, azimuth = _healpix(2**order)
    turns = 6 * 2**order
    psi = 2 * np.pi * (np.arange(turns) + 0.5) / turns
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        return np.asarray(from_euler(np.repeat(azimuth, turns), np.repeat(polar, turns), np.tile(psi, len(polar))))


def _healpix(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Polar angle and azimuth of the pixel centres, ring by ring."""
    polar, azimuth = [], []
    for ring in range(1, 4 * side):
        cap = min(ring, 4 * side - ring)
        if cap < side:
            height, count, offset = 1 - cap**2 / (3 * side**2), 4 * cap, 0.5
            height = height if ring < 2 * side else -height
        else:
            height, count = 4 / 3 - 2 * ring / (3 * side), 4 * side
            offset = 0.5 * ((ring - side + 1) % 2)
        polar.append(np.full(count, np.arccos(height)))
        azimuth.append(2 * np.pi * (np.arange(count) + offset) / count)
    return np.concatenate(polar), np.concatenate(azimuth)
