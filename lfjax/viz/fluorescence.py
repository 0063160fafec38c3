"""Figures of X-ray fluorescence: a spectrum with its lines named, maps of elements, the periodic table of those found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from lfjax.errors import require, require_shape
from lfjax.viz.drawing import new_figure, saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows of the periodic table: first group of each run of elements, and their symbols.
TABLE = (
    ((0, "H"), (17, "He")),
    ((0, "Li Be"), (12, "B C N O F Ne")),
    ((0, "Na Mg"), (12, "Al Si P S Cl Ar")),
    ((0, "K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr"),),
    ((0, "Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe"),),
    ((0, "Cs Ba"), (3, "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn")),
    ((0, "Fr Ra"),),
    (),
    ((2, "La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu"),),
    ((2, "Ac Th Pa U"),),
)


def line_spectrum(
    energies_ev: ArrayLike,
    counts: ArrayLike,
    model: ArrayLike,
    background: ArrayLike,
    channels: ArrayLike,
    lines: Mapping[str, float],
    path: str | Path | None = None,
) -> Figure:
    """A spectrum on a logarithmic axis with its model and background, the strongest line of each family named above it.

    Args:
        energies_ev: (n,), middle of each bin, eV.
        counts: (n,).
        model: (n,), expected counts.
        background: (n,), the part of the model that is no line of an element.
        channels: (n,), channels per bin.
        lines: name of a family -> energy of its strongest line, eV.
        path: PNG file to write; None: no file.

    Returns:
        The figure: spectrum above, deviations in standard deviations below.

    Raises:
        ShapeError: the arrays differ in length.
    """
    arrays = (energies_ev, counts, model, background, channels)
    energy, bins, fitted, smooth, width = (np.asarray(each, float) for each in arrays)
    for name, array in (("counts", bins), ("model", fitted), ("background", smooth), ("channels", width)):
        require_shape(name, array.shape, energy.shape)
    seen, expected, smooth = bins / width, fitted / width, smooth / width
    figure = new_figure((10.0, 5.4), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    kev = energy / 1000
    axes.step(kev, np.maximum(seen, 0.5), where="mid", color="0.45", linewidth=0.8, label="spectrum")
    axes.plot(kev, np.maximum(expected, 0.5), color="C3", linewidth=1.0, label="model")
    axes.plot(kev, np.maximum(smooth, 0.5), color="C0", linewidth=0.8, label="background and scatter")
    top = float(np.log10(max(seen.max(), 10)))
    floor = float(np.log10(max(np.quantile(np.maximum(seen, 0.5), 0.02), 0.5))) - 0.3
    height = top - floor
    last = [-np.inf] * 6
    for name, at in sorted(lines.items(), key=lambda item: item[1]):
        x = at / 1000
        row = next((i for i, before in enumerate(last) if x - before > 0.035 * (kev[-1] - kev[0])), 5)
        last[row] = x
        peak = math.log10(max(float(np.interp(at, energy, expected)), 0.5))
        label = 10 ** (top + (0.06 + 0.07 * row) * height)
        axes.plot([x, x], [10**peak, label], color="0.75", linewidth=0.6, zorder=0)
        axes.text(x, label, name, fontsize=7, ha="center", va="bottom")
    axes.set(yscale="log", ylim=(10**floor, 10 ** (top + 0.55 * height)), ylabel="counts per channel", xlim=(kev[0], kev[-1]))
    axes.legend(frameon=False, loc="lower right", ncols=3, fontsize=8)
    below.plot(kev, (bins - fitted) / np.sqrt(np.maximum(fitted, 1)), color="0.3", linewidth=0.6)
    below.axhline(0, color="C3", linewidth=0.8)
    below.set(xlabel="energy / keV", ylabel="deviation / $\\sqrt{\\mathrm{counts}}$")
    for each in (axes, below):
        each.spines[["top", "right"]].set_visible(False)
    return saved(figure, path)


def element_maps(
    names: Sequence[str],
    maps: Float[NDArray[np.floating], "m rows columns"],
    path: str | Path | None = None,
) -> Figure:
    """Maps side by side, each between 0 and its 99.5th percentile, with that number of counts in the title.

    Args:
        names: of the maps.
        maps: (m, rows, columns).
        path: PNG file to write; None: no file.

    Raises:
        ParameterError: no map, or another number of names.
    """
    require(len(names) == len(maps) > 0, "names", len(names), f"one for each of {len(maps)} maps, 1 or more")
    columns = min(len(names), max(1, math.ceil(math.sqrt(len(names) * 1.4))))
    rows = math.ceil(len(names) / columns)
    aspect = maps.shape[1] / maps.shape[2]
    figure = new_figure((2.2 * columns, rows * (2.2 * min(max(aspect, 0.3), 3) + 0.3)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name, values in zip(panels, names, maps, strict=False):
        most = max(float(np.quantile(values, 0.995)), 1e-9)
        axes.imshow(values, cmap="gray", vmin=0, vmax=most, interpolation="nearest")
        axes.set_title(f"{name}, to {most:.3g}", fontsize=9)
    for axes in panels:
        axes.set_axis_off()
    return saved(figure, path)


def periodic_table(found: Mapping[str, float], path: str | Path | None = None) -> Figure:
    """The periodic table, in which the elements found stand out: the darker, the surer, with the probability below the symbol.

    Args:
        found: symbol -> probability.
        path: PNG file to write; None: no file.

    Raises:
        ParameterError: a symbol is not in the table.
    """
    places = {
        symbol: (row, start + i)
        for row, runs in enumerate(TABLE)
        for start, symbols in runs
        for i, symbol in enumerate(symbols.split())
    }
    for symbol in found:
        require(symbol in places, "found", symbol, "a symbol of the periodic table, H to U")
    from matplotlib.patches import Rectangle

    figure = new_figure((9.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    for symbol, (row, column) in places.items():
        likely = found.get(symbol)
        colour = "0.94" if likely is None else (0.75, 0.2, 0.15, 0.35 + 0.65 * likely)
        axes.add_patch(Rectangle((column, row), 0.94, 0.94, facecolor=colour, edgecolor="none"))
        axes.text(
            column + 0.47, row + 0.45, symbol, ha="center", va="center", fontsize=10, color="0.6" if likely is None else "k"
        )
        if likely is not None:
            told = "> 0.999" if likely > 0.999 else f"{likely:.2f}"
            axes.text(column + 0.47, row + 0.8, told, ha="center", va="center", fontsize=5.5)
    axes.set(xlim=(0, 18), ylim=(len(TABLE), 0), aspect="equal")
    axes.set_axis_off()
    return saved(figure, path)
