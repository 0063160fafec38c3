"""Figures of neurons: positions, dF/F, spikes, measures of quality, and a page of all of these."""

from __future__ import annotations

import colorsys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from lfjax.activity.measures import Quality, quality
from lfjax.activity.neurons import Neurons
from lfjax.activity.tradeoff import IterationTradeoff
from lfjax.errors import require, require_shape
from lfjax.viz.drawing import new_figure, round_length, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

GOLDEN = 0.618034  # of the hue circle from one neuron to the next, so that consecutive neurons differ in colour
NUMBERED = 60  # largest number of neurons that projections label
FADED = 0.02  # fraction of a footprint's maximum below which it is not drawn
PAGE_INCH = (8.27, 11.69)  # A4
TABLE = (3, 26)  # columns and rows of the table on a page


def colours(n: int) -> Float[np.ndarray, "n 3"]:
    """A bright RGB colour for each neuron, the same in all figures."""
    return np.array([colorsys.hsv_to_rgb((0.02 + GOLDEN * i) % 1, 0.8, 0.95) for i in range(n)]).reshape(n, 3)


def footprints(neurons: Neurons, structure: ArrayLike | None = None, path: str | Path | None = None) -> Figure:
    """Maximum projections of footprints along z and along y, coloured by neuron, over those of the structure in grey.

    Up to 60 neurons are numbered.

    Args:
        neurons: n neurons.
        structure: (z, y, x), on the voxels of the footprints.
        path: PNG file to write; None: no file.

    Raises:
        ShapeError: the structure has another shape, or the arrays of the neurons do not fit each other.
    """
    neurons.check()
    depth, height, width = _lengths_um(neurons)
    inch = 5.0 / max(width, height + depth)  # per micrometre
    figure = new_figure((max(width * inch, 1.5) + 0.9, (height + depth) * inch + 1.2), layout="constrained")
    _draw_footprints(figure, neurons, structure)
    return saved(figure, path)


def traces(neurons: Neurons, path: str | Path | None = None, *, most: int = 25) -> Figure:
    """dF/F of neurons, each divided by its maximum, one above the other, with a tick below for each spike.

    Args:
        neurons: n neurons.
        path: PNG file to write; None: no file.
        most: largest number of neurons to show, those of the highest peak SNR.

    Raises:
        ParameterError: `most` is not 1 or more.
        ShapeError: the arrays of the neurons do not fit each other.
    """
    require(most >= 1, "most", most, "1 or more")
    shown = _best(neurons, most)
    figure = new_figure((8.0, 1.1 + 0.28 * len(shown)), layout="constrained")
    _draw_traces(figure.add_subplot(), neurons, shown)
    return saved(figure, path)


def raster(neurons: Neurons, path: str | Path | None = None) -> Figure:
    """Spikes of all neurons against time, and above them their mean rate in bins of 1/100 of the recording, 0.1 s or more.

    Args:
        neurons: n neurons.
        path: PNG file to write; None: no file.

    Raises:
        ShapeError: the arrays of the neurons do not fit each other.
    """
    neurons.check()
    figure = new_figure((8.0, 2.0 + min(0.06 * len(neurons), 6.0)), layout="constrained")
    _draw_raster(figure, neurons)
    return saved(figure, path)


def tradeoff(found: IterationTradeoff, path: str | Path | None = None) -> Figure:
    """Confinement and temporal SNR against iterations, with a dotted line at the knee.

    Args:
        found: from `activity.iteration_tradeoff`.
        path: PNG file to write; None: no file.
    """
    figure = new_figure((6.0, 3.5), layout="constrained")
    left = figure.add_subplot()
    left.semilogx(found.iterations, found.confinement, "o-", color="tab:blue")
    left.set_xlabel("iterations")
    left.set_ylabel("fraction of the activity within the radius", color="tab:blue")
    right = left.twinx()
    right.semilogx(found.iterations, found.snr_db, "s-", color="tab:red")
    right.set_ylabel("peak dF/F over noise (dB)", color="tab:red")
    left.axvline(found.best, color="gray", ls=":")
    left.set_xticks(found.iterations, [str(k) for k in found.iterations])
    left.minorticks_off()
    return saved(figure, path)


def distributions(values: Quality, path: str | Path | None = None) -> Figure:
    """Histograms of peak dF/F, peak SNR, spikes per second and confinement.

    Args:
        values: from `activity.quality`.
        path: PNG file to write; None: no file.
    """
    figure = new_figure((8.0, 2.2), layout="constrained")
    _draw_distributions(figure, values, columns=4)
    return saved(figure, path)


def activity_page(neurons: Neurons, structure: ArrayLike | None = None, *, title: str = "Neurons") -> Figure:
    """These figures and a table on one page of A4; the table holds the neurons of the highest SNR if not all fit.

    Args:
        neurons: n neurons.
        structure: see `footprints`.
        title: title of the page.

    Raises:
        ShapeError: see `footprints`.
    """
    neurons.check()
    values = quality(neurons)
    page = new_figure(PAGE_INCH)
    name = textwrap.fill(textwrap.shorten(title, 140, placeholder=" ..."), 75)
    page.suptitle(name, fontsize=12, y=0.99, parse_math=False)
    page.text(0.5, 0.952, summary(neurons), ha="center", va="top", fontsize=9)
    rows: Any = page.subfigures(4, 1, height_ratios=(0.07, 0.33, 0.36, 0.28))
    top, middle = (row.subfigures(1, 2, width_ratios=(0.55, 0.45)) for row in rows[1:3])
    page.set_layout_engine("constrained")
    _draw_footprints(top[0], neurons, structure)
    _draw_distributions(top[1], values, columns=2)
    _draw_traces(middle[0].add_subplot(), neurons, _best(neurons, 25))
    _draw_raster(middle[1], neurons)
    _draw_table(rows[3].add_subplot(), neurons, values)
    return page


def summary(neurons: Neurons) -> str:
    """One line with the numbers of neurons, of those without a defined dF/F, of spikes and frames, and the volume's size."""
    frames, undefined = np.shape(neurons.dff)[1], int(np.sum(~np.asarray(neurons.valid)))
    without = f" ({undefined} with F0 within the noise: no dF/F)" if undefined else ""
    size = " x ".join(f"{length:.4g}" for length in _lengths_um(neurons))
    return (
        f"{len(neurons)} neurons{without}, {sum(map(len, neurons.spikes))} spikes, {frames} frames at "
        f"{1 / neurons.frame_s:.4g} Hz ({frames * neurons.frame_s:.4g} s), volume (z, y, x) {size} µm"
    )


def _lengths_um(neurons: Neurons) -> tuple[float, float, float]:
    z, y, x = (n * v for n, v in zip(np.shape(neurons.footprints)[1:], neurons.voxel_um, strict=True))
    return z, y, x


def _best(neurons: Neurons, most: int) -> Int[np.ndarray, " k"]:
    """Indices of the neurons of the highest peak SNR, in ascending order."""
    return np.sort(np.argsort(-quality(neurons).snr_db, kind="stable")[:most])


def _overlay(neurons: Neurons, structure: Float[np.ndarray, "z y x"] | None, axis: int) -> Float[np.ndarray, "row column 3"]:
    """The structure in grey, and over it the neuron that is brightest along `axis`, with its brightness as opacity."""
    shape = np.delete(np.shape(neurons.footprints)[1:], axis)
    picture = np.zeros((*shape, 3))
    if structure is not None:
        low, high = np.percentile(structure, (1, 99.9))
        grey = np.clip((structure.max(axis) - low) / max(high - low, np.finfo(float).tiny), 0, 1)
        picture += 0.8 * grey[..., None]
    strongest, colour = np.zeros(tuple(shape)), np.zeros_like(picture)
    for footprint, paint in zip(np.asarray(neurons.footprints), colours(len(neurons)), strict=True):
        flat = footprint.max(axis) / max(float(footprint.max()), np.finfo(float).tiny)
        over = flat > np.maximum(strongest, FADED)
        strongest[over], colour[over] = flat[over], paint
    return picture + strongest[..., None] * (colour - picture)


def _draw_footprints(figure: FigureBase, neurons: Neurons, structure: ArrayLike | None) -> None:
    data = None if structure is None else np.asarray(structure, float)
    if data is not None:
        require_shape("structure", data.shape, np.shape(neurons.footprints)[1:])
    depth, height, width = _lengths_um(neurons)
    over, under = figure.subplots(2, 1, height_ratios=(height, depth), sharex=True)
    for axes, axis, name, length in ((over, 0, "y", height), (under, 1, "z", depth)):
        picture = _overlay(neurons, data, axis)
        axes.imshow(picture, extent=(0, width, length, 0), interpolation="nearest")
        _label(axes, None, f"{name} (µm)")
        axes.set_label(f"{name}x")
        for i, (z, y, x) in enumerate(np.asarray(neurons.centres_um)[: NUMBERED if len(neurons) <= NUMBERED else 0]):
            axes.annotate(str(i), (x, (y, z)[axis]), fontsize=6, ha="center", va="center", gid="number", **_white())
    _label(under, "x (µm)")
    over.set_title("maximum projections of footprints" + (" over structure" if data is not None else ""), fontsize=9)
    _bar(over, width, height)


def _bar(axes: Axes, width: float, height: float) -> None:
    """A white scale bar of round length in the lower right corner."""
    length = round_length(width / 4)
    right, low = 0.96 * width, 0.95 * height
    (line,) = axes.plot((right - length, right), (low, low), gid="scale bar", scalex=False, scaley=False, **_white(4.2))
    line.set(linewidth=3, solid_capstyle="butt")
    axes.annotate(
        f"{length:g} µm", (right - length / 2, low), (0, 3), textcoords="offset points", ha="center", fontsize=8, **_white()
    )


def _white(width: float = 1.2) -> dict[str, Any]:
    """Options of white with a dark edge, visible on any colour."""
    from matplotlib.patheffects import withStroke

    return {"color": "white", "path_effects": [withStroke(linewidth=width, foreground="#202020")]}


def _draw_traces(axes: Axes, neurons: Neurons, shown: Int[np.ndarray, " k"]) -> None:
    """Each trace divided by its maximum, printed to its right: on one scale a single burst would flatten all others."""
    dff = np.asarray(neurons.dff, float)[shown]
    seconds = max(dff.shape[1] * neurons.frame_s, neurons.frame_s)
    time = np.arange(dff.shape[1]) * neurons.frame_s
    paint = colours(len(neurons))
    offsets = -1.5 * np.arange(len(shown))
    for number, trace, offset in zip(shown, dff, offsets, strict=True):
        top = float(trace.max(initial=0))
        axes.plot(time, offset + np.maximum(trace / (top or 1), -0.4), color=paint[number] * 0.85, linewidth=0.6)
        times = neurons.spikes[number]
        axes.plot(times, np.full(len(times), offset - 0.35), "|", color="black", markersize=2.5, markeredgewidth=0.5, zorder=3)
        axes.text(1.01, offset + 0.3, f"{top:.3g}", transform=axes.get_yaxis_transform(), fontsize=7, va="center", gid="max")
    axes.text(1.01, 1.3, "max", transform=axes.get_yaxis_transform(), fontsize=7, va="center")
    _label(axes, "time (s)", "neuron" if len(shown) == len(neurons) else f"neuron ({len(shown)} of highest SNR)")
    axes.set_yticks(offsets + 0.1, [str(i) for i in shown], fontsize=7)
    axes.set(xlim=(0, seconds), ylim=(min(offsets, default=0) - 0.6, 1.5))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("dF/F, each divided by its maximum; ticks are spikes", fontsize=9)


def _draw_raster(figure: FigureBase, neurons: Neurons) -> None:
    seconds = max(np.shape(neurons.dff)[1] * neurons.frame_s, neurons.frame_s)
    above, axes = figure.subplots(2, 1, height_ratios=(1, 4), sharex=True)
    if len(neurons):
        size = max(0.4, min(4.0, 300 / len(neurons)))
        for number, (times, paint) in enumerate(zip(neurons.spikes, colours(len(neurons)), strict=True)):
            axes.plot(times, np.full(len(times), number), "|", color=paint * 0.85, markersize=size, markeredgewidth=0.6)
    bins = max(1, int(min(100, seconds / 0.1)))
    counts, edges = np.histogram(np.concatenate([np.zeros(0), *neurons.spikes]), bins, (0, seconds))
    above.stairs(counts / (seconds / bins) / max(len(neurons), 1), edges, color="0.3", fill=True)
    _label(above, None, "spikes/s")
    above.set_title(f"spikes of all {len(neurons)}, and their mean rate", fontsize=9)
    axes.set(xlim=(0, seconds), ylim=(max(len(neurons), 1) - 0.5, -0.5))
    _label(axes, "time (s)", "neuron")
    axes.yaxis.get_major_locator().set_params(integer=True)
    for part in (above, axes):
        part.spines[["top", "right"]].set_visible(False)
    above.set_ylim(bottom=0)


def _draw_distributions(figure: FigureBase, values: Quality, columns: int) -> None:
    names = ("peak dF/F", "peak SNR (dB)", "spikes/s", "confinement")
    parts = figure.subplots(4 // columns, columns).flat
    for i, (axes, name, numbers) in enumerate(zip(parts, names, values, strict=True)):
        finite = numbers[np.isfinite(numbers)]
        axes.hist(finite, bins=max(5, min(30, len(finite) // 4)), color="0.4")
        _label(axes, name, None if i % columns else "neurons")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)


def _draw_table(axes: Axes, neurons: Neurons, values: Quality) -> None:
    columns, most = TABLE
    axes.set_axis_off()
    shown = _best(neurons, columns * most)
    rows = max(1, -(-len(shown) // columns))
    size = 6.5 if rows <= 21 else 5.5  # points; fills the page
    head = f"{'no':>4} {'z':>6} {'y':>6} {'x':>6} {'dF/F':>6} {'dB':>5} {'Hz':>5}"
    for column in range(-(-len(shown) // rows)):
        part = shown[column * rows : (column + 1) * rows]
        lines = [
            f"{i:>4} {z:6.1f} {y:6.1f} {x:6.1f} {values.peak_dff[i]:6.2f} {values.snr_db[i]:5.1f} {values.spikes_hz[i]:5.2f}"
            for i, (z, y, x) in zip(part, np.asarray(neurons.centres_um)[part], strict=True)
        ]
        text = "\n".join([head, *lines])
        axes.text(0.02 + column / columns, 1, text, fontsize=size, family="monospace", va="top", ha="left", gid="table")
    note = f"; {len(neurons) - len(shown)} neurons of lower SNR omitted" if len(shown) < len(neurons) else ""
    axes.set_title(f"centres (z, y, x) in µm, peak dF/F, peak SNR in dB, spikes per second{note}", fontsize=9)


def _label(axes: Axes, x: str | None = None, y: str | None = None) -> None:
    """Names of the axes, and smaller tick labels."""
    if x:
        axes.set_xlabel(x, fontsize=9)
    if y:
        axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
