"""How the axes of an array hold a spectral cube: which are rows, columns, energies, detectors, which is a list of points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from lfjax.errors import FileError, require
from lfjax.io.cube import EnergyAxis
from lfjax.io.movie_source import refuse_unused

LETTERS = {
    **dict.fromkeys(("y", "row", "rows", "line", "lines", "height", "vertical"), "y"),
    **dict.fromkeys(("x", "column", "columns", "col", "cols", "sample", "samples", "width", "horizontal"), "x"),
    **dict.fromkeys(("e", "energy", "energies", "channel", "channels", "mca", "spectrum", "spectra", "ev", "kev"), "e"),
    **dict.fromkeys(("d", "detector", "detectors", "det", "element", "elements"), "d"),
    **dict.fromkeys(("p", "point", "points", "pixel", "pixels", "frame", "frames"), "p"),
}
"""Name of an axis in a file, in lower case -> its letter: y rows, x columns, e energies, d detectors, p points of a list."""
EXPECTED = "name them with axes=, of y, x, e (energies), d (detectors), p (points of a list): 'eyx' for example"
Detector = int | Literal["sum"] | None


class Ask(NamedTuple):
    """What a user asks of a file of spectra, see `lfjax.io.open_cube`."""

    dataset: str | None = None
    axes: str | None = None
    detector: Detector = None
    grid: tuple[int, int] | None = None
    energy: EnergyAxis | None = None
    follow_links: bool = False

    def only(self, path: Path, *used: str) -> None:
        """Refuse what this format has no use for.

        Raises:
            FileError: something is asked that is not in `used`; `energy` and `follow_links` always are.
        """
        refuse_unused(path, self._asdict(), (*used, "energy", "follow_links"))


class CubeLayout(NamedTuple):
    """Where a cube lies in an array.

    Attributes:
        axes: a letter per axis: e, and y and x or p, and perhaps d, and ? for others of length 1.
        shape: of the array.
        grid: (rows, columns).
        detector: number of the detector, or "sum".
    """

    axes: str
    shape: tuple[int, ...]
    grid: tuple[int, int]
    detector: int | Literal["sum"]

    @property
    def cube_shape(self) -> tuple[int, int, int]:
        """(rows, columns, channels)."""
        return *self.grid, self.shape[self.axes.index("e")]

    def sum_type(self, dtype: np.dtype) -> np.dtype:
        """Type of the counts: that of the array, or one that holds the sum of its detectors."""
        wide = {"u": np.uint64, "i": np.int64, "f": np.float64}
        return np.dtype(wide[dtype.kind]) if self.detector == "sum" and "d" in self.axes else dtype

    def load(self, read: Callable[[tuple[int | slice, ...]], np.ndarray], rows: range) -> np.ndarray:
        """Rows (n, columns, channels) of an array that `read` gives by its index."""
        if "p" in self.axes:
            first, last = rows.start * self.grid[1], rows.stop * self.grid[1]
        else:
            first, last = rows.start, rows.stop
        one: int | slice = slice(None) if self.detector == "sum" else self.detector
        parts: Mapping[str, int | slice] = {"d": one, "?": 0, "y": slice(first, last), "p": slice(first, last)}
        index = tuple(parts.get(letter, slice(None)) for letter in self.axes)
        block = np.asarray(read(index))
        kept = [letter for letter, part in zip(self.axes, index, strict=True) if isinstance(part, slice)]
        if "d" in kept:
            block = block.sum(kept.index("d"), dtype=self.sum_type(block.dtype))
            kept.remove("d")
        block = block.transpose([kept.index(letter) for letter in "ypxe" if letter in kept])
        return block.reshape(len(rows), *self.cube_shape[1:])


def lay_out(
    path: Path,
    found: str,
    shape: Sequence[int],
    ask: Ask,
    names: Sequence[str] = (),
    told: Mapping[str, int] | None = None,
    grid: tuple[int, int] | None = None,
) -> CubeLayout:
    """Find the cube among the axes of an array.

    The spectrum lies along the axis that the user, the names of the axes or `told` say, or else along the last if it is the
    longest. Two axes are left for rows and columns, in this order unless they are named; a third is that of detectors; one
    alone is a list of points.

    Args:
        path: for messages.
        found: the array, for messages.
        shape: of the array.
        ask: what the user says.
        names: of the axes, in the file; empty: none.
        told: what else tells the spectrum's axis -> that axis.
        grid: (rows, columns) of a list of points, by the file.

    Raises:
        FileError: axes that lfjax cannot tell apart, or that contradict one another; several detectors without a choice; or a
            list of points without a grid that fits.
    """
    sizes = tuple(int(n) for n in shape)
    if ask.axes is not None:
        letters = _asked(ask.axes, len(sizes), found)
    else:
        letters = _guessed(path, found, sizes, [LETTERS.get(name.lower(), "?") for name in names], told or {})
    for k, n in enumerate(sizes):
        if letters[k] == "?" and n != 1:
            raise FileError(f"{path}: {found}: axis {k} of length {n} is unknown; {EXPECTED}")
    detectors = sizes[letters.index("d")] if "d" in letters else 1
    detector = 0 if ask.detector is None and detectors == 1 else ask.detector
    if detector is None or not (detector == "sum" or 0 <= detector < detectors):
        wrong = "" if detector is None else f"detector={detector!r}; "
        raise FileError(
            f"{path}: {found}: {wrong}{detectors} detectors; choose one with detector=0 to {detectors - 1}, or detector='sum'"
        )
    return CubeLayout(letters, sizes, _grid(path, found, letters, sizes, ask.grid or grid), detector)


def _asked(axes: str, ndim: int, found: str) -> str:
    letters = axes.lower()
    good = len(letters) == len(set(letters)) == ndim and set(letters) - {"d"} in ({"e"}, {"e", "p"}, {"e", "y", "x"})
    require(good, "axes", axes, f"{ndim} letters for the axes of {found}: e, and y and x or p, and d if it has detectors")
    return letters


def _guessed(path: Path, found: str, sizes: tuple[int, ...], named: list[str], told: Mapping[str, int]) -> str:
    letters = named if len(named) == len(sizes) else ["?"] * len(sizes)
    for letter in "yxedp":
        if letters.count(letter) > 1:
            letters = ["?" if one == letter else one for one in letters]
    says = {**told, **({"the names of the axes": letters.index("e")} if "e" in letters else {})}
    if len(set(says.values())) > 1:
        each = ", ".join(f"axis {axis} by {source}" for source, axis in says.items())
        raise FileError(f"{path}: {found}: the spectrum is {each}; {EXPECTED}")
    if says:
        spectrum = next(iter(says.values()))
    elif sizes and all(n < sizes[-1] for n in sizes[:-1]):
        spectrum = len(sizes) - 1
    else:
        raise FileError(f"{path}: {found}: nothing tells which axis is that of energies; {EXPECTED}")
    letters[spectrum] = "e"
    rest = [k for k in range(len(sizes)) if k != spectrum and letters[k] not in "d"]
    spare = len(rest) - 2
    for k in [k for k in rest if letters[k] == "?" and sizes[k] == 1][: max(spare, 0)]:
        rest.remove(k)
    if len(rest) == 1:
        letters[rest[0]] = "p"
    elif len(rest) == 2:
        upright = [letters[k] for k in rest] not in (["x", "y"], ["x", "?"], ["?", "y"])
        letters[rest[0]], letters[rest[1]] = "yx" if upright else "xy"
    elif len(rest) > 2:
        raise FileError(f"{path}: {found}: nothing tells which axis is that of detectors; {EXPECTED}")
    return "".join(letters)


def _grid(path: Path, found: str, letters: str, sizes: tuple[int, ...], grid: tuple[int, int] | None) -> tuple[int, int]:
    if "y" in letters:
        shape = sizes[letters.index("y")], sizes[letters.index("x")]
        if grid is not None and tuple(grid) != shape:
            raise FileError(f"{path}: {found}: {shape[0]} rows of {shape[1]} points; expected the grid {tuple(grid)}")
        return shape
    points = sizes[letters.index("p")] if "p" in letters else 1
    if grid is None and points != 1:
        raise FileError(f"{path}: {found}: a list of {points} spectra; expected its rows and columns as the grid (--grid)")
    rows, columns = grid or (1, 1)
    if min(rows, columns) < 1 or math.prod((int(rows), int(columns))) != points:
        raise FileError(f"{path}: {found}: {points} spectra; expected rows x columns of the grid ({rows}, {columns})")
    return int(rows), int(columns)
