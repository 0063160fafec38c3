"""The lattice of lenslets on the sensor: where the cells are, in raw pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

KINDS: dict[str, float] = {"square": 1.0, "hexagonal": math.sqrt(3)}
"""Kinds of lattices, with the height of their cell in pitches."""


class Lattice(NamedTuple):
    """A lattice of cells of (pitch_y, pitch_x) raw pixels: centre(Y, X) = origin + pitch_y Y e_y + pitch_x X e_x.

    e_x = (sin r, cos r) and e_y = (cos r, -sin r) in (y, x): a positive rotation turns the rows of lenslets from the x axis
    towards larger y, clockwise on a screen whose y axis points down.

    A square lattice has one lenslet per cell, in its middle. A hexagonal lattice has the cell of `Microscope`, sqrt(3) pitches
    high: one lenslet in the middle and four quarters in the corners.

    Attributes:
        pitch_px: distance between lenslet centres along e_x.
        rotation_rad: r; square lattices: between -pi/4 and pi/4. A hexagonal lattice repeats itself every 60 degrees: of these
            angles r is the one nearest to 0 or to pi/2, so that the cells lie as straight in the frame as they can.
        origin_y_px: y of the centre of the lenslet nearest to the middle of the frame; pixel centres are whole numbers.
        origin_x_px: x of that centre.
        pitch_y_px: height of a cell, where the two pitches differ; None: `pitch_px`, or sqrt(3) `pitch_px` if hexagonal.
        kind: "square" or "hexagonal".
    """

    pitch_px: float
    rotation_rad: float
    origin_y_px: float
    origin_x_px: float
    pitch_y_px: float | None = None
    kind: str = "square"

    @property
    def cell_px(self) -> tuple[float, float]:
        """Size (pitch_y, pitch_x) of a cell."""
        return (self.pitch_px * KINDS[self.kind] if self.pitch_y_px is None else self.pitch_y_px, self.pitch_px)

    @property
    def axes(self) -> NDArray[np.float64]:
        """Rows e_y and e_x, each as (y, x)."""
        c, s = math.cos(self.rotation_rad), math.sin(self.rotation_rad)
        return np.array([[c, -s], [s, c]])

    def to_raw(self, cells: ArrayLike | Sequence[float]) -> NDArray[np.float64]:
        """Raw pixel positions (..., 2) of lattice coordinates (Y, X); centres of cells are whole numbers."""
        return np.array([self.origin_y_px, self.origin_x_px]) + np.asarray(cells) * np.array(self.cell_px) @ self.axes

    def to_lattice(self, pixels: ArrayLike | Sequence[float]) -> NDArray[np.float64]:
        """Lattice coordinates (..., 2) of raw pixel positions (y, x); inverse of `to_raw`."""
        return (np.asarray(pixels) - np.array([self.origin_y_px, self.origin_x_px])) @ self.axes.T / np.array(self.cell_px)

    def grouped(self, units: tuple[int, int]) -> Lattice:
        """Lattice of groups of (Y, X) cells as its cells; the group in its origin begins with the cell in the origin here."""
        y, x = self.to_raw([(count - 1) / 2 for count in units])
        high, wide = self.cell_px
        return Lattice(units[1] * wide, self.rotation_rad, float(y), float(x), units[0] * high, self.kind)

    def nearest(self, pixels: ArrayLike | Sequence[float]) -> NDArray[np.float64]:
        """Lattice coordinates (Y, X) of the centre of the lenslet nearest to a raw pixel position (y, x)."""
        at = self.to_lattice(pixels)
        near = [np.round(at - shift) + shift for shift in ((0.0, 0.0), (0.5, 0.5))[: 1 + (self.kind == "hexagonal")]]
        return min(near, key=lambda c: float(np.hypot(*((c - at) * self.cell_px))))

    def moved(self, pixels: ArrayLike | Sequence[float]) -> Lattice:
        """The same lattice with the lenslet nearest to a raw pixel position (y, x) as its origin."""
        return self._from(self.nearest(pixels))

    def starting(self, pixels: ArrayLike | Sequence[float], units: tuple[int, int]) -> Lattice:
        """The same lattice with a lenslet as its origin that lies whole groups of cells from the one at a raw pixel position.

        Of these the origin is the one nearest to the old origin.

        Args:
            pixels: (y, x), near the centre of a lenslet, the first one of a group.
            units: cells (Y, X) of a group.
        """
        first, size = self.nearest(pixels), np.array(units)
        return self._from(first - size * np.round(first / size))

    def _from(self, cell: NDArray[np.float64]) -> Lattice:
        y, x = self.to_raw(cell)
        return self._replace(origin_y_px=float(y), origin_x_px=float(x))
