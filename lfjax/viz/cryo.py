"""Figures of cryo-EM: Fourier shell correlations, image stacks, sections of maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.viz.drawing import new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def shell_correlations(
    curves: Mapping[str, ArrayLike],
    box_angstrom: float,
    path: str | Path | None = None,
    *,
    thresholds: tuple[float, ...] = (0.5, 0.143),
) -> Figure:
    """Fourier shell correlations against spatial frequency, with the period in angstroms at the ticks.

    Args:
        curves: name of each curve -> correlation per shell, from `tomography.fsc`.
        box_angstrom: side of the box, voxels times voxel size.
        path: PNG file to write; None: no file.
        thresholds: correlations marked by lines.

    Returns:
        The figure.

    Raises:
        ParameterError: no curve.
        ShapeError: a curve has other than one axis.
    """
    require(len(curves) > 0, "curves", dict(curves), "one or more")
    figure = new_figure((6.0, 4.0), layout="constrained")
    axes: Axes = figure.add_subplot()
    shells = 1
    for name, curve in curves.items():
        values = np.asarray(curve, float)
        require_shape(f"curve {name}", values.shape, ("shell",))
        shells = max(shells, len(values) - 1)
        axes.plot(np.arange(len(values)) / box_angstrom, values, label=name)
    for value in thresholds:
        axes.axhline(value, color="0.6", linewidth=0.8, linestyle="--")
        axes.text(1.01, value, f"{value:g}", transform=axes.get_yaxis_transform(), va="center")
    ticks = np.linspace(0, shells, 7)[1:] / box_angstrom
    axes.set_xticks(ticks, [f"{1 / t:.3g}" for t in ticks])
    axes.set(xlabel="period / angstrom", ylabel="Fourier shell correlation")
    axes.set(xlim=(0, shells / box_angstrom), ylim=(-0.15, 1.05))
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


def sections(volume: ArrayLike, path: str | Path | None = None, *, count: int = 6) -> Figure:
    """Evenly spaced sections of a map across z, on one grey scale.

    Args:
        volume: the map, (z, y, x).
        path: PNG file to write; None: no file.
        count: number of sections.

    Returns:
        The figure.

    Raises:
        ShapeError: the map has other than three axes.
    """
    array = np.asarray(volume)
    require_shape("volume", array.shape, ("z", "y", "x"))
    heights = np.linspace(0, len(array) - 1, count + 2).round().astype(int)[1:-1]
    figure = new_figure((1.6 * count, 1.9), layout="constrained")
    low, top = np.percentile(array, (0.5, 99.8))
    for i, z in enumerate(heights):
        axes = figure.add_subplot(1, count, i + 1)
        axes.imshow(array[z], cmap="gray", vmin=low, vmax=max(top, low + 1e-12))
        axes.set_title(f"z = {z - len(array) // 2}", fontsize=8)
        axes.set_axis_off()
    return saved(figure, path)
