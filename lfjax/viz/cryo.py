"""Figures of cryo-EM: Fourier shell correlations, image stacks, sections of maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.viz.drawing import new_figure, round_length, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LOWEST = -0.3
"""Least correlation that a plot shows."""
STYLES = ((3.4, "-"), (2.2, "--"), (1.6, "-."), (1.1, "-"))
"""Width and dashes of the first, second, ... curve of a plot: of curves that lie on each other all are seen."""


def shell_correlations(
    curves: Mapping[str, ArrayLike],
    box_angstrom: float,
    path: str | Path | None = None,
    *,
    thresholds: tuple[float, ...] = (0.5, 0.143),
    resolution_angstrom: float | None = None,
) -> Figure:
    """Fourier shell correlations against spatial frequency, with the period in angstroms at the ticks.

    Later curves are thinner and lie on earlier ones. The axis reaches down to the lowest value, or to -0.3 with a note that
    counts the values below.

    Args:
        curves: name of each curve -> correlation per shell, from `tomography.fsc`.
        box_angstrom: side of the box, voxels times voxel size.
        path: PNG file to write; None: no file.
        thresholds: correlations marked by lines.
        resolution_angstrom: period marked by a vertical line with its value; None, or infinite: no mark.

    Returns:
        The figure.

    Raises:
        ParameterError: no curve, or a resolution that is not positive.
        ShapeError: a curve has other than one axis.
    """
    require(len(curves) > 0, "curves", dict(curves), "one or more")
    figure = new_figure((6.0, 4.0), layout="constrained")
    axes: Axes = figure.add_subplot()
    shells, lowest, hidden = 1, -0.1, 0
    for i, (name, curve) in enumerate(curves.items()):
        values = np.asarray(curve, float)
        require_shape(f"curve {name}", values.shape, ("shell",))
        shells = max(shells, len(values) - 1)
        lowest, hidden = min(lowest, float(np.nanmin(values))), hidden + int((values < LOWEST).sum())
        width, dashes = STYLES[i % len(STYLES)]
        axes.plot(np.arange(len(values)) / box_angstrom, values, label=name, linewidth=width, linestyle=dashes)
    for value in thresholds:
        axes.axhline(value, color="0.6", linewidth=0.8, linestyle="--")
        axes.text(1.01, value, f"{value:g}", transform=axes.get_yaxis_transform(), va="center")
    if resolution_angstrom is not None and np.isfinite(resolution_angstrom):
        require(resolution_angstrom > 0, "resolution_angstrom", resolution_angstrom, "more than 0")
        axes.axvline(1 / resolution_angstrom, color="0.3", linewidth=0.8, linestyle=":")
        mark, where = f"{resolution_angstrom:.2f} A", (1 / resolution_angstrom, 1.0)
        axes.annotate(mark, where, xycoords=axes.get_xaxis_transform(), ha="center", va="bottom")  # above: clear of the legend
    ticks = np.linspace(0, shells, 7)[1:] / box_angstrom
    axes.set_xticks(ticks, [f"{1 / t:.3g}" for t in ticks])
    axes.set(xlabel="period / angstrom", ylabel="Fourier shell correlation")
    axes.set(xlim=(0, shells / box_angstrom), ylim=(max(lowest - 0.05, LOWEST), 1.05))
    if hidden:
        told = f"{hidden} value{'s' if hidden > 1 else ''} below {LOWEST:g}"
        axes.text(0.01, 0.01, told, transform=axes.transAxes, fontsize=8, color="0.3")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return saved(figure, path)


def image_grid(
    images: ArrayLike, path: str | Path | None = None, *, columns: int = 6, titles: Sequence[str] | None = None
) -> Figure:
    """Images in rows, each on its own grey scale; x points to the right, y down.

    Args:
        images: (n, y, x), of which the first 24 are shown.
        path: PNG file to write; None: no file.
        columns: images per row.
        titles: one title per image.

    Returns:
        The figure.

    Raises:
        ShapeError: the images are not (n, y, x).
    """
    shown = np.asarray(images)[:24]
    require_shape("images", shown.shape, ("n", "y", "x"))
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    high = 1.5 if titles is None else 1.75
    figure = new_figure((1.5 * columns, high * rows), layout="constrained")
    for i, image in enumerate(shown):
        axes = figure.add_subplot(rows, columns, i + 1)
        low, top = np.percentile(image, (0.5, 99.5))
        axes.imshow(image, cmap="gray", vmin=low, vmax=max(top, low + 1e-12))
        axes.set_axis_off()
        if titles is not None:
            axes.set_title(titles[i], fontsize=8)
    return saved(figure, path)


def sections(
    volume: ArrayLike,
    path: str | Path | None = None,
    *,
    count: int = 6,
    voxel_angstrom: float | None = None,
    title: str | None = None,
) -> Figure:
    """Evenly spaced sections of a map across z, on one grey scale; a map of one value says so.

    Args:
        volume: the map, (z, y, x).
        path: PNG file to write; None: no file.
        count: number of sections.
        voxel_angstrom: voxel size, for a scale bar in the first section; None: no bar.
        title: a line above the sections, such as "inside the mask"; None: no line.

    Returns:
        The figure.

    Raises:
        ParameterError: the voxel size is not positive.
        ShapeError: the map has other than three axes.
    """
    array = np.asarray(volume)
    require_shape("volume", array.shape, ("z", "y", "x"))
    stated = voxel_angstrom is None or bool(np.isfinite(voxel_angstrom) and voxel_angstrom > 0)
    require(stated, "voxel_angstrom", voxel_angstrom, "more than 0")
    heights = np.linspace(0, len(array) - 1, count + 2).round().astype(int)[1:-1]
    figure = new_figure((1.6 * count, 1.9 if title is None else 2.2), layout="constrained")
    low, top = np.percentile(array, (0.5, 99.8))
    if low == top:  # little of the box is not solvent, or all of it is
        low, top = array.min(), array.max()
    for i, z in enumerate(heights):
        axes = figure.add_subplot(1, count, i + 1)
        axes.imshow(array[z], cmap="gray", vmin=low, vmax=max(top, low + 1e-12))
        axes.set_title(f"z = {z - len(array) // 2}", fontsize=8)
        axes.set_axis_off()
        if i == 0 and voxel_angstrom is not None:
            _scale_bar(axes, array.shape, voxel_angstrom)
        if low == top:
            axes.text(
                0.5, 0.5, f"constant\n{low:.4g}", transform=axes.transAxes, color="w", ha="center", va="center", fontsize=8
            )
    if title is not None:
        figure.suptitle(title, fontsize=9)
    return saved(figure, path)


def _scale_bar(axes: Axes, shape: tuple[int, ...], voxel_angstrom: float) -> None:
    """A bar of a round length, at most half the width, in the lower left corner, with its length on it."""
    from matplotlib.patheffects import withStroke

    length = round_length(shape[2] * voxel_angstrom / 2)
    left, low = 0.06 * shape[2], 0.93 * shape[1]
    outline = [withStroke(linewidth=2.5, foreground="k")]
    axes.plot(
        [left, left + length / voxel_angstrom],
        [low, low],
        "w",
        linewidth=2,
        path_effects=[withStroke(linewidth=4, foreground="k")],
    )
    axes.text(left, 0.9 * shape[1], f"{length:g} A", color="w", fontsize=7, va="bottom", path_effects=outline)
