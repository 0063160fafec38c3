"""Figures of the views of a particle: where they look from, the frequencies they measure, the resolution by direction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfjax.errors import require, require_shape
from lfjax.viz.drawing import new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lfjax.tomography import DirectionalFsc, TransferSections


def orientations(rotations: ArrayLike, path: str | Path | None = None, *, bins: int | None = None) -> Figure:
    """Number of views from each direction, over the whole sphere in Mollweide's projection, which keeps areas.

    A direction is the line of sight in the frame of the object, (sin tilt cos rot, sin tilt sin rot, cos tilt) in RELION's
    angles. Bins have equal solid angles, so that uniform views give one colour but for chance.

    Args:
        rotations: (n, 3, 3), object to image.
        path: PNG file to write; None: no file.
        bins: bins from pole to pole, twice as many around; None: from 6 to 36, for about ten views per bin.

    Returns:
        The figure.

    Raises:
        ParameterError: no view, or no bin.
        ShapeError: the rotations are not (n, 3, 3).
    """
    turns = np.asarray(rotations, float)
    require_shape("rotations", turns.shape, ("n", 3, 3))
    require(len(turns) > 0, "rotations", len(turns), "one or more views")
    require(bins is None or bins >= 1, "bins", bins, "1 or more")
    figure = new_figure((7.0, 4.0), layout="constrained")
    axes: Axes = figure.add_subplot(projection="mollweide")
    mesh, counts = draw_orientations(axes, turns, bins)
    axes.set(xlabel="rot / degrees (azimuth about z)", ylabel="tilt / degrees (angle to z)")
    mean = len(turns) / counts.size
    axes.set_title(f"{len(turns)} views, {mean:.3g} per bin if uniform; 0 to {counts.max():.0f} here", fontsize=9)
    figure.colorbar(mesh, ax=axes, label="views per bin", shrink=0.7)
    return saved(figure, path)


def draw_orientations(axes: Axes, rotations: NDArray[np.floating], bins: int | None = None) -> tuple[Any, NDArray[np.floating]]:
    """Draw the directions of views on axes in Mollweide's projection, see `orientations`.

    Args:
        axes: axes of projection "mollweide".
        rotations: (n, 3, 3), object to image.
        bins: bins from pole to pole; None: from 6 to 36.

    Returns:
        The coloured cells, for a colour bar, and the views of each bin.
    """
    rows = int(np.clip(np.sqrt(len(rotations) / 20), 6, 36)) if bins is None else bins
    x, y, z = rotations[:, 2].T
    heights, around = np.linspace(-1, 1, rows + 1), np.linspace(-np.pi, np.pi, 2 * rows + 1)
    counts = np.histogram2d(np.clip(z, -1, 1), np.arctan2(y, x), [heights, around])[0]
    # a bin is drawn as many small cells, as the sides of a large one would be straight lines across the curved map
    south, east = np.linspace(-np.pi / 2, np.pi / 2, 181), np.linspace(-np.pi, np.pi, 361)
    row = np.minimum((np.sin((south[1:] + south[:-1]) / 2) + 1) / 2 * rows, rows - 1).astype(int)
    column = (np.arange(360) * 2 * rows) // 360
    fine = counts[row[:, None], column]
    mesh = axes.pcolormesh(east, south, fine, cmap="viridis", vmin=0, vmax=max(counts.max(), 1), rasterized=True)
    axes.set_xticks(np.deg2rad([-120, -60, 0, 60, 120]), ["-120", "-60", "0", "60", "120"], color="0.85", fontsize=8)
    axes.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]), ["150", "120", "90", "60", "30"], fontsize=8)
    axes.grid(color="w", linewidth=0.3)
    return mesh, counts


def transfer(sections: TransferSections, path: str | Path | None = None) -> Figure:
    """Power of the transfer of a set of views in three central planes of the frequencies, on a logarithmic scale.

    Args:
        sections: of `tomography.transfer_sections`.
        path: PNG file to write; None: no file.

    Returns:
        The figure.
    """
    from matplotlib.colors import LogNorm

    power = np.asarray(sections.power, float)
    angle, radius = np.asarray(sections.angle_rad), np.asarray(sections.frequency)
    positive = power[power > 0]
    high = float(positive.max()) if len(positive) else 1.0
    low = max(float(np.percentile(positive, 1)), high * 1e-4) if len(positive) else 0.1
    step, wide = angle[1] - angle[0], radius[1] - radius[0]
    edges = np.arange(2 * len(angle) + 1) * step - step / 2
    rings = np.r_[max(radius[0] - wide / 2, 0.0), radius + wide / 2]
    x, y = rings * np.cos(edges)[:, None], rings * np.sin(edges)[:, None]
    figure = new_figure((8.4, 3.3), layout="constrained")
    panels = []
    for i, (across, up) in enumerate((("x", "y"), ("x", "z"), ("y", "z"))):
        axes: Axes = figure.add_subplot(1, 3, i + 1)
        whole = np.ma.masked_less_equal(np.concatenate([power[i], power[i]]), 0)  # a frequency and its negative
        mesh = axes.pcolormesh(x, y, whole, cmap="viridis", norm=LogNorm(low, max(high, low * 1.01)))
        axes.set_facecolor("0.75")
        end = rings[-1]
        ticks = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) * radius[-1]
        labels = ["" if t == 0 else f"{1 / abs(t):.3g}" for t in ticks]
        axes.set_xticks(ticks, labels)
        axes.set_yticks(ticks, labels)
        axes.set(aspect="equal", xlim=(-end, end), ylim=(-end, end))
        axes.set(xlabel=f"period along {across} / angstrom", ylabel=f"period along {up} / angstrom")
        axes.tick_params(labelsize=8)
        panels.append(axes)
    figure.colorbar(mesh, ax=panels, label="sum of $|\\mathrm{CTF}|^2$ (grey: none)", shrink=0.8)
    return saved(figure, path)


def directional_correlations(found: DirectionalFsc, box_angstrom: float, path: str | Path | None = None) -> Figure:
    """Correlations in cones: their range and mean per shell, and the resolution in each direction of a half sphere.

    The half sphere z > 0 is drawn in Lambert's projection, which keeps areas: z in the middle, the equator as the border.

    Args:
        found: of `tomography.directional_fsc`.
        box_angstrom: side of the box, voxels times voxel size.
        path: PNG file to write; None: no file.

    Returns:
        The figure.
    """
    require(box_angstrom > 0, "box_angstrom", box_angstrom, "more than 0")
    curves, axis = np.asarray(found.curves), np.asarray(found.directions)
    frequency = np.arange(curves.shape[1]) / box_angstrom
    figure = new_figure((8.6, 3.6), layout="constrained")
    left: Axes = figure.add_subplot(1, 2, 1)
    left.fill_between(frequency, curves.min(0), curves.max(0), color="tab:blue", alpha=0.2, linewidth=0, label="all cones")
    quarter, upper = np.percentile(curves, (25, 75), axis=0)
    left.fill_between(frequency, quarter, upper, color="tab:blue", alpha=0.4, linewidth=0, label="half of the cones")
    left.plot(frequency, curves.mean(0), color="tab:blue", label="mean")
    left.axhline(0.143, color="0.6", linewidth=0.8, linestyle="--")
    ticks = np.linspace(0, frequency[-1], 7)[1:]
    left.set_xticks(ticks, [f"{1 / t:.3g}" for t in ticks])
    left.set(xlabel="period / angstrom", ylabel="correlation in a cone", xlim=(0, frequency[-1]), ylim=(-0.3, 1.05))
    left.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    right: Axes = figure.add_subplot(1, 2, 2)
    upward = np.where(axis[:, 2:] < 0, -axis, axis)
    flat = upward[:, :2] / np.sqrt(1 + upward[:, 2:])
    shown = np.where(np.isfinite(found.resolution_angstrom), found.resolution_angstrom, np.nan)
    size = 22000 / max(len(axis), 50)
    points = right.scatter(flat[:, 0], flat[:, 1], c=shown, s=size, cmap="turbo", plotnonfinite=True, linewidths=0)
    ring = np.linspace(0, 2 * np.pi, 200)
    right.plot(np.cos(ring), np.sin(ring), color="0.4", linewidth=0.8)
    for name, across, up in (("x", 1.08, 0.0), ("y", 0.0, 1.08), ("z", 0.0, 0.0)):
        right.text(across, up, name, ha="center", va="center", bbox={"facecolor": "w", "linewidth": 0, "pad": 1, "alpha": 0.8})
    right.set(aspect="equal", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
    right.set_axis_off()
    right.set_title(f"worst / best {found.ratio:.2f}, sphericity {found.sphericity:.3f}", fontsize=9)
    figure.colorbar(points, ax=right, label="resolution / angstrom", shrink=0.8)
    return saved(figure, path)
