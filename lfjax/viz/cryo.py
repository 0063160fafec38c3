"""Figures of cryo-EM: Fourier shell correlations, image stacks, sections of maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.viz.volumes import _figure, _saved


def shell_correlations(
    curves: Mapping[str, ArrayLike],
    box_angstrom: float,
    path: str | Path | None = None,
    *,
    thresholds: tuple[float, ...] = (0.5, 0.143),
) -> Figure:
    """Fourier shell correlations against spatial frequency, with the period in angstroms at the ticks.

    Args:
        curves: from `tomography.fsc`, by name.
        box_angstrom: voxels a side times voxel size.
        path: PNG file to write, if any.
        thresholds: drawn as lines.
    """
    require(len(curves) > 0, "curves", dict(curves), "one or more")
    figure = _figure((6.0, 4.0), layout="constrained")
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
    return _saved(figure, path)


def image_grid(
    images: ArrayLike, path: str | Path | None = None, *, columns: int = 6, titles: list[str] | None = None
) -> Figure:
    """Images (n, y, x) in rows, each on its own grey scale; x to the right, y down as the array has it.

    Args:
        images: the first 24 are shown.
        path: PNG file to write, if any.
        columns: in a row.
        titles: one for each image.
    """
    shown = np.asarray(images)[:24]
    require_shape("images", shown.shape, ("n", "y", "x"))
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    high = 1.5 if titles is None else 1.75
    figure = _figure((1.5 * columns, high * rows), layout="constrained")
    for i, image in enumerate(shown):
        axes = figure.add_subplot(rows, columns, i + 1)
        low, top = np.percentile(image, (0.5, 99.5))
        axes.imshow(image, cmap="gray", vmin=low, vmax=max(top, low + 1e-12))
        axes.set_axis_off()
        if titles is not None:
            axes.set_title(titles[i], fontsize=8)
    return _saved(figure, path)


def sections(volume: ArrayLike, path: str | Path | None = None, *, count: int = 6) -> Figure:
    """Evenly spaced sections of a map (z, y, x) across z, on one grey scale.

    Args:
        volume: the map.
        path: PNG file to write, if any.
        count: of sections.
    """
    array = np.asarray(volume)
    require_shape("volume", array.shape, ("z", "y", "x"))
    heights = np.linspace(0, len(array) - 1, count + 2).round().astype(int)[1:-1]
    figure = _figure((1.6 * count, 1.9), layout="constrained")
    low, top = np.percentile(array, (0.5, 99.8))
    for i, z in enumerate(heights):
        axes = figure.add_subplot(1, count, i + 1)
        axes.imshow(array[z], cmap="gray", vmin=low, vmax=max(top, low + 1e-12))
        axes.set_title(f"z = {z - len(array) // 2}", fontsize=8)
        axes.set_axis_off()
    return _saved(figure, path)
