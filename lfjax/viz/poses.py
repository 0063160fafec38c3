"""Figures of poses: how far they are from the true ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.viz.drawing import new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_DEGREES = 0.1
"""Least angle that has a bin of its own; smaller ones count there."""


def pose_errors(error_rad: ArrayLike, path: str | Path | None = None, *, null_rad: float | None = None) -> Figure:
    """Histogram of the angles between found and true poses, on a logarithmic axis of 0.1 to 180 degrees.

    Args:
        error_rad: (n,), angle of each pose in radians, such as `PoseComparison.error_rad`.
        path: PNG file to write; None: no file.
        null_rad: median angle of random poses, marked by a line; None: no line.

    Returns:
        The figure.

    Raises:
        ParameterError: no angle.
        ShapeError: the angles have other than one axis.
    """
    degrees = np.rad2deg(np.asarray(error_rad, float))
    require_shape("error_rad", degrees.shape, ("n",))
    require(len(degrees) > 0, "error_rad", len(degrees), "one or more angles")
    bins = np.geomspace(LEAST_DEGREES, 180, 61)
    figure = new_figure((6.0, 3.4), layout="constrained")
    axes: Axes = figure.add_subplot()
    axes.hist(np.clip(degrees, LEAST_DEGREES * 1.001, 179.9), bins.tolist(), color="C0")
    small = (degrees < LEAST_DEGREES).sum()
    marks = [(float(np.median(degrees)), "median", "k", "-")]
    if null_rad is not None:
        marks.append((float(np.rad2deg(null_rad)), "median of random poses", "C3", "--"))
    for value, name, colour, dashes in marks:
        label = f"{name} {value:.3g}" if value >= LEAST_DEGREES else f"{name} below {LEAST_DEGREES:g}"
        axes.axvline(max(value, LEAST_DEGREES), color=colour, linestyle=dashes, linewidth=1.2, label=label)
    ticks = (0.1, 0.3, 1, 3, 10, 30, 90, 180)
    axes.set(xscale="log", xlim=(LEAST_DEGREES, 180), xlabel="angle from the true pose / degrees", ylabel="images")
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    below = f", {small} of them below {LEAST_DEGREES:g}" if small else ""
    axes.set_title(f"{len(degrees)} images, {np.mean(degrees < 10):.1%} below 10 degrees{below}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return saved(figure, path)
