"""Figures of a calibration: the lenslets that were found, over the frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import require_shape
from lfjax.optics import Lattice, Rectifier
from lfjax.viz.drawing import new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENSLETS = 6  # across a crop
SIDE_INCH = 2.2
COLOUR = "#ff5a00"  # seen on white discs and on black gaps
CORNERS = {  # of the area around a lenslet at (0, 0), in cells (Y, X)
    "square": [(-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5)],
    "hexagonal": [(-1 / 3, 0), (-1 / 6, 0.5), (1 / 6, 0.5), (1 / 3, 0), (1 / 6, -0.5), (-1 / 6, -0.5)],
}


def lenslet_grid(frame: ArrayLike, rectifier: Rectifier, path: str | Path | None = None) -> Figure:
    """Nine crops of a raw frame with the borders and the centres of the lenslets over them.

    A lattice that fits puts a dot in the middle of every disc of light, and the borders into the gaps, in all nine crops alike;
    a wrong pitch or rotation shows as a drift from crop to crop.

    Args:
        frame: (row, col), raw frame, best the white frame.
        rectifier: its calibration.
        path: PNG file to write; None: no file.

    Returns:
        The figure.

    Raises:
        ShapeError: the frame has another size than the calibration's.
    """
    from matplotlib.collections import PolyCollection

    raw = np.asarray(frame, float)
    require_shape("frame", raw.shape, rectifier.resample.in_shape)
    figure = new_figure((3 * SIDE_INCH + 0.2, 3 * SIDE_INCH + 0.75), layout="constrained")
    lattice = rectifier.lattice
    high, wide = lattice.cell_px
    side = [min(round(LENSLETS * size), length) for size, length in zip((wide, wide), raw.shape, strict=True)]
    axes = figure.subplots(3, 3)
    for i, j in np.ndindex(3, 3):
        top, left = (round(k / 2 * (length - n)) for k, length, n in zip((i, j), raw.shape, side, strict=True))
        crop = raw[top : top + side[0], left : left + side[1]]
        panel = axes[i, j]
        panel.imshow(crop, cmap="gray", vmin=crop.min(), vmax=np.percentile(crop, 99.8), interpolation="nearest")
        centres, borders = _lenslets(lattice, (top, left), (side[0], side[1]))
        panel.add_collection(PolyCollection(list(borders), closed=True, facecolor="none", edgecolor=COLOUR, linewidth=0.8))
        panel.plot(*centres.T, ".", color=COLOUR, markersize=4)
        panel.set(xlim=(-0.5, side[1] - 0.5), ylim=(side[0] - 0.5, -0.5), xticks=[], yticks=[])
        panel.set_title(f"row {top}, column {left}", fontsize=7)
    pitch = f"{wide:.3f} px" if lattice.pitch_y_px is None else f"{high:.3f} x {wide:.3f} px"
    figure.suptitle(
        f"{lattice.kind} lenslets, pitch {pitch}, rotation {np.degrees(lattice.rotation_rad):+.3f}°, "
        f"{rectifier.trusted:.0%} of the pixels trusted",
        fontsize=9,
    )
    return saved(figure, path)


def _lenslets(lattice: Lattice, corner: tuple[int, int], side: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Centres (n, 2) and borders (n, corners, 2) of the lenslets in a crop, as (x, y) from its corner."""
    ends = np.array([[corner[0] + a * side[0], corner[1] + b * side[1]] for a in (0, 1) for b in (0, 1)], float)
    cells = lattice.to_lattice(ends)
    low, high = np.floor(cells.min(0)) - 1, np.ceil(cells.max(0)) + 1
    whole = np.stack(np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
    middles = whole.reshape(-1, 2)
    if lattice.kind == "hexagonal":
        middles = np.concatenate([middles, middles + 0.5])
    around = middles[:, None] + np.array(CORNERS[lattice.kind])
    centres, borders = (lattice.to_raw(places) - np.array(corner) for places in (middles, around))
    return centres[:, ::-1], borders[..., ::-1]
