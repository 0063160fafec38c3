"""What an HDF5 file tells about its spectra: names of axes, energies, live times, distances of points.

It is looked for in the attributes of the dataset, in its group, the group `info` within, the group above if that is an
NXdetector (as PyMca does), and the NXdata group that leads to the dataset.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lfjax.errors import FileError
from lfjax.io.cube import EnergyAxis
from lfjax.io.cube_energy import listed_axis, polynomial_axis
from lfjax.io.cube_layout import LETTERS, Ask, CubeLayout
from lfjax.io.cube_raw import pixel_size
from lfjax.io.hdf5 import choose_dataset, find_node, read_values
from lfjax.io.hdf5_attributes import Attributes
from lfjax.io.movie_source import SECONDS

ENERGIES = ("energy", "energies", "energy_axis")
CALIBRATIONS = ("calibration", "energy_calib", "energy_calibration", "calib", "mca_calib")
LIVE = ("live_time", "live_times", "livetime", "dwell_time", "dwell", "elapsed_time")
GRIDS = ("grid", "grid_shape", "map_shape", "scan_shape")
EVEN = 0.05  # of the usual step, by which steps between points may differ


def attribute_text(value: Any) -> str | None:
    """An attribute as text; None: it is none."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.flat[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str]:
    """A list of texts: of an array, or of one text with colons or commas between its parts."""
    one = attribute_text(value)
    if one is not None:
        return re.split(r"[:,]", one)
    return [attribute_text(part) or "" for part in value.ravel()] if isinstance(value, np.ndarray) else []


class About:
    """What stands beside a dataset of spectra.

    Attributes:
        names: of the axes, as the file has them; empty: it has none.
    """

    def __init__(self, path: Path, file: h5py.File, name: str, dataset: h5py.Dataset, ask: Ask) -> None:
        self._path, self._dataset, self._ask = path, dataset, ask
        above = find_node(path, file, name.rpartition("/")[0], ask.follow_links)
        self._groups = list(_around(path, above, dataset))
        self.names = self._axis_names(name.rpartition("/")[2])

    def axis_names(self) -> list[str]:
        """Names of the axes, without what programs add to them: "sample_y" is read as "y"."""
        parts = [[word for word in re.split(r"[^a-z]+", name.lower()) if word in LETTERS] for name in self.names]
        return [words[-1] if words else "" for words in parts]

    def _axis_names(self, own: str) -> list[str]:
        group = self._groups[0]
        signal = attribute_text(self._told(group).get("signal"))
        for holder in [group, self._dataset] if signal in (None, own) else [self._dataset]:
            names = _texts(self._told(holder).get("axes"))
            if len(names) == self._dataset.ndim:
                return names
        labels = _texts(self._told(self._dataset).get("DIMENSION_LABELS"))
        return labels if len(labels) == self._dataset.ndim and any(labels) else []

    def spectrum(self) -> dict[str, int]:
        """What tells the axis of the spectrum, but for the names of axes: the interpretation, or energies of its length."""
        meaning, ndim = attribute_text(self._told(self._dataset).get("interpretation")), self._dataset.ndim
        if meaning == "spectrum":
            return {"its interpretation": ndim - 1}
        if meaning == "image" and ndim == 3:
            return {"its interpretation": 0}
        if "e" in [LETTERS.get(name) for name in self.axis_names()]:
            return {}
        lengths = {one.shape[0] for one in self._datasets(ENERGIES) if one.ndim == 1}
        fitting = [k for k, n in enumerate(self._dataset.shape) if n in lengths]
        return {"its energies": fitting[0]} if len(fitting) == 1 else {}

    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) of a list of points, of an attribute or dataset."""
        for values in (*self._attributes(GRIDS), *(self._read(one) for one in self._datasets(GRIDS) if one.size == 2)):
            numbers = np.ravel(values)
            if numbers.size != 2 or numbers.dtype.kind not in "ui" or (numbers < 1).any():
                raise FileError(f"{self._path}: a grid of {numbers.tolist()[:4]}; expected rows and columns")
            return int(numbers[0]), int(numbers[1])
        return None

    def energy(self, channels: int) -> EnergyAxis | None:
        """Energy of the channels, from a list, or a calibration: offset, slope and a quadratic term; see `polynomial_axis`."""
        named = [name for name in self.names if LETTERS.get(name.lower()) == "e" or "energy" in name.lower()]
        for one in self._datasets(named):
            if one.ndim == 1 and one.shape != (channels,):
                raise FileError(f"{self._path}: axis {one.name!r} of shape {one.shape}; expected {channels} energies")
        for one in self._datasets((*named, *ENERGIES)):
            if one.shape == (channels,):
                axis = listed_axis(self._path, self._read(one), self._unit(one), f"dataset {one.name!r}")
                if axis is not None:
                    return axis
        for one in self._datasets(CALIBRATIONS):
            if one.ndim == 1 and one.size in (2, 3):
                return polynomial_axis(self._path, self._read(one), channels, self._unit(one), f"dataset {one.name!r}")
        for name in (*ENERGIES, *CALIBRATIONS):
            for values in self._attributes((name,)):
                told, numbers = f"attribute {name}", np.ravel(values)
                if numbers.dtype.kind not in "uif":
                    raise FileError(f"{self._path}: {told} holds {numbers.dtype}; expected numbers")
                unit = next((attribute_text(one) for one in self._attributes((f"{name}_units", f"{name}_unit"))), None)
                if numbers.size == channels > 3:
                    return listed_axis(self._path, numbers, unit, told)
                if numbers.size in (2, 3):
                    return polynomial_axis(self._path, numbers, channels, unit, told)
        return None

    def live_s(self, layout: CubeLayout) -> np.ndarray | None:
        """(rows, columns), live or dwell times in seconds; of several detectors that of the chosen one."""
        points = math.prod(layout.grid)
        sizes = [n for n, letter in zip(layout.shape, layout.axes, strict=True) if letter != "e"]
        for one in self._datasets(LIVE):
            unit = (self._unit(one) or "s").strip()
            if unit not in SECONDS:
                raise FileError(f"{self._path}: dataset {one.name!r} in {unit!r}; expected a unit of time")
            if one.size == 1:
                values = np.full(layout.grid, float(np.ravel(self._read(one))[0]))
            elif "d" in layout.axes and list(one.shape) == sizes and layout.detector != "sum":
                kept = [letter for letter in layout.axes if letter not in "ed"]
                taken = np.take(self._read(one), layout.detector, layout.axes.replace("e", "").index("d"))
                values = (taken.T if "".join(kept) == "xy" else taken).reshape(layout.grid)
            elif one.size == points:
                values = self._read(one)
                turned = layout.axes.replace("e", "").replace("?", "") == "xy" and values.ndim == 2
                values = (values.T if turned else values).reshape(layout.grid)
            elif one.ndim < 2 or (layout.detector == "sum" and list(one.shape) == sizes):
                continue  # times per detector or per row
            else:
                told = f"dataset {one.name!r} of shape {one.shape}"
                raise FileError(f"{self._path}: {told}; expected times of shape {layout.grid}")
            if not ((values >= 0) & (values < math.inf)).all():
                raise FileError(f"{self._path}: dataset {one.name!r}: a time is negative or not finite; expected seconds")
            return SECONDS[unit] * values.astype(np.float64)
        return None

    def pixel_um(self, layout: CubeLayout) -> tuple[float, float] | None:
        """Distance of points (y, x) from the attribute pixel_um, or from datasets of their even positions y and x."""
        for values in self._attributes(("pixel_um",)):
            numbers = np.ravel(values)
            if numbers.dtype.kind not in "uif" or numbers.size not in (1, 2) or not ((numbers > 0) & (numbers < 1e9)).all():
                raise FileError(f"{self._path}: attribute pixel_um is {values!r}; expected one or two positive numbers")
            return float(numbers[0]), float(numbers[-1])
        if "y" not in layout.axes or len(self.names) != len(layout.axes):
            return None
        steps = [self._step_um(self.names[layout.axes.index(letter)], n) for letter, n in zip("yx", layout.grid, strict=True)]
        return None if steps[0] is None or steps[1] is None else (steps[0], steps[1])

    def _step_um(self, name: str, count: int) -> float | None:
        for one in self._datasets((name,)):
            if one.ndim == 1 and one.shape != (count,):
                raise FileError(f"{self._path}: axis {one.name!r} of shape {one.shape}; expected {count} positions")
            if one.ndim != 1 or count < 2:
                continue
            steps = np.diff(np.asarray(self._read(one), np.float64))
            usual = abs(float(np.median(steps)))
            scale = pixel_size((usual, usual), self._unit(one) or "")
            if scale is not None and (np.abs(np.abs(steps) - usual) <= EVEN * usual).all():
                return scale[0]
        return None

    def _datasets(self, names: Sequence[str]) -> Iterator[h5py.Dataset]:
        """Datasets of numbers of these names, in any case, in the groups around; the first names first."""
        for wanted in names:
            for group in self._groups:
                for name in group:
                    if name.lower() == wanted.lower():
                        one = self._dataset_of(group, name)
                        if one is not None and one != self._dataset:
                            yield one

    def _dataset_of(self, group: h5py.Group, name: str) -> h5py.Dataset | None:
        full = f"{group.name.rstrip('/')}/{name}"
        node = find_node(self._path, group.file, full, self._ask.follow_links)
        if not isinstance(node, h5py.Dataset) or node.shape is None or node.dtype.kind not in "uif":
            return None
        return choose_dataset(self._path, group.file, full, follow_links=self._ask.follow_links)

    def _read(self, dataset: h5py.Dataset) -> np.ndarray:
        return read_values(self._path, dataset)

    def _attributes(self, names: Sequence[str]) -> Iterator[Any]:
        for name in names:
            for holder in (self._dataset, *self._groups):
                told = self._told(holder)
                yield from (told[own] for own in told if own.lower() == name)

    def _unit(self, dataset: h5py.Dataset) -> str | None:
        told = self._told(dataset)
        return attribute_text(told.get("units", told.get("unit")))

    def _told(self, node: h5py.Group | h5py.Dataset) -> Attributes:
        return Attributes(self._path, node)


def _around(path: Path, above: h5py.Group | h5py.Dataset | None, dataset: h5py.Dataset) -> Iterator[h5py.Group]:
    """Groups that tell about a dataset."""
    found = [above] if isinstance(above, h5py.Group) else []
    parent = dataset.parent
    if parent not in found:
        found.append(parent)
    info = parent.get("info") if parent.get("info", getclass=True, getlink=True) is h5py.HardLink else None
    if isinstance(info, h5py.Group):
        found.append(info)
    if attribute_text(Attributes(path, parent.parent).get("NX_class")) == "NXdetector":
        found.append(parent.parent)
    yield from found
