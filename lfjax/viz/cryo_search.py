"""The page of a search for unknown poses: its map, images beside their projections, directions of view, and how far it sees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.viz.cryo_views import draw_orientations
from lfjax.viz.drawing import new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6  # sections, images and projections


def search_page(
    volume: ArrayLike,
    images: ArrayLike,
    projections: ArrayLike,
    rotations: ArrayLike,
    curves: Mapping[str, ArrayLike],
    box_angstrom: float,
    path: str | Path | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """A page on a map of a search: sections, images above their projections, directions of view, correlations.

    Args:
        volume: the map, (z, y, x).
        images: (m, y, x), of which the first 6 are shown, each on its own grey scale.
        projections: (m, y, x), of the map at the poses of these images.
        rotations: (n, 3, 3) of all images, object to image.
        curves: name -> value from 0 to 1 per shell: correlations, or the share of the map that is resolved.
        box_angstrom: side of the box.
        path: PNG file to write; None: no file.
        title: a line above; None: none.

    Returns:
        The figure.

    Raises:
        ParameterError: no curve, or a box that is not positive.
        ShapeError: images and projections differ in shape, or an array has other axes.
    """
    array, seen, made = np.asarray(volume), np.asarray(images), np.asarray(projections)
    turns = np.asarray(rotations, float)
    require_shape("volume", array.shape, ("z", "y", "x"))
    require_shape("images", seen.shape, ("m", "y", "x"))
    require_shape("projections", made.shape, seen.shape)
    require_shape("rotations", turns.shape, ("n", 3, 3))
    require(len(curves) > 0, "curves", dict(curves), "one or more")
    require(box_angstrom > 0, "box_angstrom", box_angstrom, "more than 0")
    figure = new_figure((9.0, 8.4), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(4.8, 3.4))
    top, bottom = halves
    heights = np.linspace(0, len(array) - 1, SHOWN + 4).round().astype(int)[2:-2]
    scale = np.percentile(array, (0.5, 99.8))
    for column in range(SHOWN):
        shown = [("sections", array[heights[column]], scale)]
        if column < len(seen):
            shown += [(name, a[column], np.percentile(a[column], (1, 99))) for name, a in (("images", seen), ("map", made))]
        for row, (name, picture, (low, high)) in enumerate(shown):
            axes: Axes = top.add_subplot(3, SHOWN, row * SHOWN + column + 1)
            axes.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-12))
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(name if name != "map" else "projections")
            if row == 0:
                axes.set_title(f"z = {heights[column] - len(array) // 2}", fontsize=8)
    left, right = bottom.subfigures(1, 2, width_ratios=(5, 4))
    views: Axes = left.add_subplot(projection="mollweide")
    mesh, _ = draw_orientations(views, turns)
    views.set_title(f"directions of {len(turns)} views", fontsize=9)
    left.colorbar(mesh, ax=views, label="views per bin", shrink=0.7)
    plot: Axes = right.add_subplot()
    shells = 1
    for name, curve in curves.items():
        values = np.asarray(curve, float)
        require_shape(f"curve {name}", values.shape, ("shell",))
        shells = max(shells, len(values) - 1)
        plot.plot(np.arange(len(values)) / box_angstrom, values, label=name)
    for level in (0.5, 0.143):
        plot.axhline(level, color="0.6", linewidth=0.8, linestyle="--")
    ticks = np.linspace(0, shells, 6)[1:] / box_angstrom
    plot.set_xticks(ticks, [f"{1 / t:.3g}" for t in ticks])
    plot.set(xlabel="period / angstrom", xlim=(0, shells / box_angstrom), ylim=(-0.1, 1.05))
    plot.spines[["top", "right"]].set_visible(False)
    plot.legend(frameon=False, fontsize=8)
    if title is not None:
        figure.suptitle(title, fontsize=10)
    return saved(figure, path)
