"""Figures of post-processed maps: the Guinier plot, sections coloured by local resolution."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.viz.drawing import new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lfjax.tomography import Guinier


def guinier_plot(plot: Guinier, path: str | Path | None = None) -> Figure:
    """Logarithm of the mean amplitude of each shell against 1 / d^2, at each stage of sharpening, and the line of the fit.

    Args:
        plot: of `tomography.postprocess` or `tomography.sharpen`.
        path: PNG file to write; None: no file.

    Returns:
        The figure.
    """
    x = np.asarray(plot.inverse_square)
    figure = new_figure((6.0, 4.0), layout="constrained")
    axes: Axes = figure.add_subplot()
    stages = [("mean of half-maps", plot.original, "0.6")]
    if not np.allclose(plot.original, plot.without_mtf, equal_nan=True):
        stages.append(("divided by the MTF", plot.without_mtf, "tab:olive"))
    if not np.array_equal(plot.without_mtf, plot.weighted, equal_nan=True):
        stages.append(("weighted by the FSC", plot.weighted, "tab:blue"))
    stages.append(("sharpened", plot.sharpened, "tab:orange"))
    for name, values, colour in stages:
        axes.plot(x, values, label=name, color=colour)
    if np.isfinite(plot.slope):
        ends = x[plot.fitted][[0, -1]]
        label = f"fit, B = {4 * plot.slope:.1f} $\\mathrm{{\\AA^2}}$"
        axes.plot(ends, plot.intercept + plot.slope * ends, "k--", linewidth=1, label=label)
    shown = np.concatenate([np.asarray(values)[1:] for _, values, _ in stages])
    shown = shown[np.isfinite(shown)]
    if len(shown):
        low, high = np.percentile(shown, 2), shown.max()  # the last weighted shells would take most of the axis
        axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes.set_xlim(0, x[-1])
    ticks = np.linspace(0, x[-1], 7)[1:]
    axes.set_xticks(ticks, [f"{t**-0.5:.3g}" for t in ticks])
    axes.set(xlabel="period d / angstrom, on a scale of $1/d^2$", ylabel="ln mean amplitude")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return saved(figure, path)


def local_resolutions(
    volume: ArrayLike,
    resolution_angstrom: ArrayLike,
    path: str | Path | None = None,
    *,
    mask: ArrayLike | None = None,
    limits_angstrom: tuple[float, float] | None = None,
) -> Figure:
    """Central sections of a map in grey, and the same coloured by the local resolution inside the mask.

    Args:
        volume: the map, (z, y, x).
        resolution_angstrom: period at each voxel, from `tomography.resolution_map`.
        path: PNG file to write; None: no file.
        mask: voxels above 1/2 are coloured; None: all.
        limits_angstrom: shortest and longest period of the colours; None: the 2nd and 98th percentile inside the mask.

    Returns:
        The figure.

    Raises:
        ParameterError: the mask has no voxel above 1/2.
        ShapeError: the arrays differ in shape or have other than three axes.
    """
    density, periods = np.asarray(volume), np.asarray(resolution_angstrom)
    require_shape("volume", density.shape, ("z", "y", "x"))
    require_shape("resolution_angstrom", periods.shape, density.shape)
    inside = np.ones(density.shape, bool) if mask is None else np.asarray(mask) > 0.5
    require_shape("mask", inside.shape, density.shape)
    require(bool(inside.any()), "mask", "no voxel above 0.5", "a mask that is not empty")
    low, high = np.percentile(periods[inside], (2, 98)) if limits_angstrom is None else limits_angstrom
    figure = new_figure((7.2, 4.9), layout="constrained")
    grey = dict(zip(("vmin", "vmax"), np.percentile(density, (0.5, 99.8)), strict=True))
    colours: Any = None
    middle = [side // 2 for side in density.shape]
    names = (("xy", "x", "y"), ("xz", "x", "z"), ("yz", "y", "z"))
    panels: list[Axes] = []
    for i, (plane, across, up) in enumerate(names):
        cut = [np.take(a, middle[i], i) for a in (density, periods, inside)]
        for row in range(2):
            axes: Axes = figure.add_subplot(2, 3, 3 * row + i + 1)
            axes.imshow(cut[0], cmap="gray", origin="lower", **grey)
            if row:
                shown = np.ma.masked_where(~cut[2], cut[1])
                colours = axes.imshow(shown, cmap="turbo", origin="lower", vmin=low, vmax=max(high, low + 1e-6))
                panels.append(axes)
            axes.set(xticks=[], yticks=[], xlabel=across, ylabel=up)
            axes.set_title(f"{plane} through the centre" if not row else "", fontsize=8)
    figure.colorbar(colours, ax=panels, label="local resolution / angstrom", shrink=0.9)
    return saved(figure, path)
