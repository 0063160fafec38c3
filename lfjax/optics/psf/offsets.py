"""Positions of the voxels in a lenslet, or in the cell of an array that repeats several."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lfjax.optics.microscope import Microscope


def sub_lenslet_offsets(s: int) -> np.ndarray:
    """Centres of s voxels across a lenslet, in lenslets from its centre."""
    return (np.arange(s) - (s - 1) / 2) / s


def cell_offsets(microscope: Microscope, s: int) -> Float[np.ndarray, "a b 2"]:
    """Centres (y, x) of the voxels of a cell, in pitches from its middle."""
    rows, columns = microscope.cell_voxels(s)
    high, wide = (float(size / microscope.lenslet_pitch_um) for size in microscope.cell_um)
    y, x = np.meshgrid(high * sub_lenslet_offsets(rows), wide * sub_lenslet_offsets(columns), indexing="ij")
    return np.stack([y, x], axis=-1)


def probe_offsets(microscope: Microscope, s: int) -> Float[np.ndarray, "source 2"]:
    """Offsets of the innermost and the outermost voxels of every lenslet (or hexagonal unit) of a cell, three of each."""
    offsets, (rows, columns) = cell_offsets(microscope, s), microscope.units
    y, x = offsets.shape[0] // rows, offsets.shape[1] // columns
    units = offsets.reshape(rows, y, columns, x, 2).swapaxes(1, 2)
    middle = (y - 1) // 2
    inner, corner, side = units[:, :, middle, (x - 1) // 2], units[:, :, 0, 0], units[:, :, middle, 0]
    return np.stack([inner, corner, side], axis=2).reshape(-1, 2)
