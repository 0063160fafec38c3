"""Figures of volumes, light fields and convergence; plain Matplotlib figures, without pyplot and its global state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.viz.drawing import new_figure, round_length, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLANK = "#26324a"  # colour of masked pixels
SIDE_INCH = 6.0  # longest side of the images of a figure


def projections(
    volume: ArrayLike,
    voxel_um: tuple[float, float, float],
    path: str | Path | None = None,
    *,
    z_um: Sequence[float] | None = None,
) -> Figure:
    """Maximum projections of a volume: xy, yz to its right and xz below it, aligned and at one scale.

    Args:
        volume: (z, y, x).
        voxel_um: voxel size (z, y, x) in micrometres.
        path: PNG file to write; None: no file.
        z_um: depth of each plane, evenly spaced; the figure then shows the depths of the first and last planes, with signs.

    Returns:
        The figure.

    Raises:
        ShapeError: the volume has other than three axes, or `z_um` other than one depth per plane.
    """
    data = _volume(volume)
    if z_um is not None:
        require_shape("z_um", np.shape(z_um), (len(data),))
    depth, height, width = (n * v for n, v in zip(data.shape, voxel_um, strict=True))
    inch = SIDE_INCH / max(width + depth, height + depth)  # per micrometre
    x0, gap, top, bottom = 0.35, 0.1, 0.3, 0.5
    w, h, d = width * inch, height * inch, depth * inch
    x0 += 0.0 if z_um is None else 0.3
    size = (max(x0 + w + gap + d + 0.1, 2.0), bottom + d + gap + h + top)
    figure = new_figure(size)
    limits = {"cmap": "gray", "vmin": min(0.0, data.min()), "vmax": data.max(), "aspect": "auto"}
    panels = (
        ("xy", data.max(0), (x0, bottom + d + gap, w, h)),
        ("yz", data.max(2).T, (x0 + w + gap, bottom + d + gap, d, h)),
        ("xz", data.max(1), (x0, bottom, w, d)),
    )
    for name, image, (left, low, wide, high) in panels:
        axes = figure.add_axes((left / size[0], low / size[1], wide / size[0], high / size[1]), label=name)
        axes.imshow(image, **limits)
        axes.set_axis_off()
        if name == "yz":
            _text(figure, left + wide / 2, low + high + 0.05, name, ha="center", va="bottom")
        else:
            _text(figure, x0 - 0.08, low + high / 2, name, ha="right", va="center")
        if z_um is not None and name == "xz":
            _depth_labels(figure, z_um, (x0 - 0.08, low, high))
    _scale_bar(figure, x0, 0.22, width, inch)
    return saved(figure, path)


def _depth_labels(figure: Figure, z_um: Sequence[float], place: tuple[float, float, float]) -> None:
    """Depths of the first plane, at the top of the xz panel, and of the last one, at its bottom, where there is room."""
    right, low, high = place
    if high < 0.45:
        _text(figure, right - 0.2, low + high / 2, f"z {z_um[0]:+.3g}\nto {z_um[-1]:+.3g}", ha="right", va="center", fontsize=6)
        return
    _text(figure, right, low + high, f"z {z_um[0]:+.3g} µm", ha="right", va="top", fontsize=7)
    _text(figure, right, low, f"z {z_um[-1]:+.3g} µm", ha="right", va="bottom", fontsize=7)


def planes(
    volume: ArrayLike, z_um: ArrayLike | Sequence[float], voxel_um: tuple[float, float, float], path: str | Path | None = None
) -> Figure:
    """All planes of a volume in a grid, at one grey scale, each titled with its depth.

    Args:
        volume: (z, y, x).
        z_um: depth of each plane in micrometres.
        voxel_um: voxel size (z, y, x) in micrometres.
        path: PNG file to write; None: no file.

    Returns:
        The figure.

    Raises:
        ShapeError: the volume has other than three axes, or `z_um` other than one depth per plane.
    """
    data = _volume(volume)
    require_shape("z_um", np.shape(z_um), (len(data),))
    height, width = data.shape[1] * voxel_um[1], data.shape[2] * voxel_um[2]
    columns = min(len(data), max(1, math.ceil(math.sqrt(len(data) * height / width))))
    rows = math.ceil(len(data) / columns)
    gap, title, margin, bottom = 0.1, 0.25, 0.15, 0.5
    inch = min(3.0 / max(width, height), 8.0 / (columns * width), 8.0 / (rows * height))
    inch = max(inch, 0.7 / width)  # room for the title of a plane
    w, h = width * inch, height * inch
    size = (max(2 * margin + columns * (w + gap) - gap, 2.0), bottom + rows * (h + title) + gap)
    figure = new_figure(size)
    for i, (plane, z) in enumerate(zip(data, np.asarray(z_um, float), strict=True)):
        left = margin + i % columns * (w + gap)
        low = size[1] - gap - (i // columns + 1) * (h + title)
        axes = figure.add_axes((left / size[0], low / size[1], w / size[0], h / size[1]), label=f"plane {i}")
        axes.imshow(plane, cmap="gray", vmin=min(0.0, data.min()), vmax=data.max(), aspect="auto")
        axes.set_axis_off()
        _text(figure, left + w / 2, low + h + 0.04, f"{z:+.4g} µm" if z else "0 µm", ha="center", va="bottom")
    _scale_bar(figure, margin, 0.22, width, inch)
    return saved(figure, path)


def resynthesis(
    light_field: ArrayLike, image: ArrayLike, mask: ArrayLike | None = None, path: str | Path | None = None
) -> Figure:
    """A light field beside the image of the reconstructed volume, with their correlation.

    Both use the grey scale of the light field: from 0, or its minimum if that is negative, to its 99.9th percentile.

    Args:
        light_field: (y, x), measured.
        image: (y, x), synthesised.
        mask: (y, x), True for valid pixels; the others are left blank and excluded from the correlation.
        path: PNG file to write; None: no file.

    Returns:
        The figure.

    Raises:
        ShapeError: the shapes differ.
        ParameterError: the mask excludes all pixels.
    """
    measured, made = np.asarray(light_field, float), np.asarray(image, float)
    require_shape("light_field", measured.shape, ("y", "x"))
    require_shape("image", made.shape, measured.shape)
    used = np.ones(measured.shape, bool) if mask is None else np.asarray(mask) > 0
    require_shape("mask", used.shape, measured.shape)
    require(bool(used.any()), "mask", "all zero", "one valid pixel or more")
    low, high = min(0.0, measured[used].min()), np.percentile(measured[used], 99.9)

    tall, wide = measured.shape
    inch = SIDE_INCH / max(tall, 2 * wide)
    w, h, gap, margin, top, bar = wide * inch, tall * inch, 0.15, 0.15, 0.6, 0.15
    size = (max(2 * margin + 2 * w + 2 * gap + bar + 0.6, 3.5), margin + h + top)
    figure = new_figure(size)
    for i, (name, pixels) in enumerate((("light field", measured), ("re-synthesis", made))):
        left = margin + i * (w + gap)
        axes = figure.add_axes((left / size[0], margin / size[1], w / size[0], h / size[1]), label=name)
        shown = axes.imshow(np.where(used, pixels, np.nan), cmap="gray", vmin=low, vmax=high, aspect="auto")
        axes.patch.set_facecolor(BLANK)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        _text(figure, left + w / 2, margin + h + 0.05, name, ha="center", va="bottom")
    left = margin + 2 * (w + gap)
    colorbar = figure.colorbar(shown, cax=figure.add_axes((left / size[0], margin / size[1], bar / size[0], h / size[1])))
    colorbar.ax.tick_params(labelsize=8)
    a, b = measured[used] - measured[used].mean(), made[used] - made[used].mean()
    scale = math.sqrt((a @ a) * (b @ b))
    title = f"correlation {a @ b / scale:.4f}" if scale > 0 else "correlation undefined: one image is constant"
    _text(figure, margin + w + gap / 2, size[1] - 0.06, title, ha="center", va="top", fontsize=11)
    return saved(figure, path)


def convergence(histories: Mapping[str, ArrayLike], path: str | Path | None = None) -> Figure:
    """Objective against iteration, one curve per solver; the scale is logarithmic unless an objective reaches 0 or less.

    Args:
        histories: name of each solver -> its objective per iteration, the start first.
        path: PNG file to write; None: no file.

    Returns:
        The figure.

    Raises:
        ParameterError: no history.
        ShapeError: a history has other than one axis.
    """
    from matplotlib.ticker import MaxNLocator

    require(len(histories) > 0, "histories", dict(histories), "one or more")
    figure = new_figure((6.0, 4.0), layout="constrained")
    axes: Axes = figure.add_subplot()
    curves = {name: np.asarray(history, float) for name, history in histories.items()}
    for name, curve in curves.items():
        require_shape(f"history of {name}", curve.shape, ("iteration",))
        axes.plot(curve, label=name, marker="o" if curve.size == 1 else None)
    if all((curve[np.isfinite(curve)] > 0).all() for curve in curves.values()):
        axes.set_yscale("log")
    axes.set(xlabel="iteration", ylabel="objective")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return saved(figure, path)


def _volume(volume: ArrayLike) -> np.ndarray:
    data = np.asarray(volume, float)
    require_shape("volume", data.shape, ("z", "y", "x"))
    return data


def _text(figure: Figure, x_inch: float, y_inch: float, text: str, **options: Any) -> None:
    wide, high = figure.get_size_inches()
    figure.text(x_inch / wide, y_inch / high, text, **{"fontsize": 9, **options})


def _scale_bar(figure: Figure, x_inch: float, y_inch: float, width_um: float, inch: float) -> None:
    """A bar of round length below the images, at most a third of the width of an image."""
    from matplotlib.lines import Line2D

    length_um = round_length(width_um / 3)
    wide, high = figure.get_size_inches()
    ends, y = (x_inch, x_inch + length_um * inch), y_inch / high
    figure.add_artist(
        Line2D([x / wide for x in ends], [y, y], color="black", linewidth=3, solid_capstyle="butt", gid="scale bar")
    )
    _text(figure, ends[1] + 0.08, y_inch, f"{length_um:g} µm", ha="left", va="center_baseline")
