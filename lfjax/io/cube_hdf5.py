"""Cubes in HDF5: NXdata and NXmca of NeXus, what PyMca, MAPS and scanners write, and plain arrays.

The counts are the dataset that the file's `default` and `signal` attributes lead to, or the only one whose `interpretation` is
"spectrum", or the only one of a usual name, of three axes, of four, or of two. What is told about them stands beside them, see
`lfjax.io.cube_hdf5_about`. (NeXus, "NXdata"; V. A. Sole et al., Spectrochim. Acta B 62, 63 (2007) for PyMca.)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py

from lfjax.errors import FileError
from lfjax.io.claims import array_bytes, require_claim
from lfjax.io.cube import Cube
from lfjax.io.cube_hdf5_about import About, attribute_text
from lfjax.io.cube_layout import Ask, lay_out
from lfjax.io.hdf5 import choose_dataset, find_node, list_datasets, require_written
from lfjax.io.hdf5_attributes import Attributes

USUAL = ("counts", "mca_arr", "spectra", "cube", "mca")
"""Names of datasets of counts: of PyMca and NeXus, of MAPS, of scanners."""
DEPTH = 8  # groups that a chain of `default` attributes may lead through
LISTED = 8  # datasets that a message names


def open_hdf5(path: Path, ask: Ask) -> Cube:
    """Open a dataset of an HDF5 file as a cube; see `lfjax.io.open_cube`."""
    file = h5py.File(path, "r")
    try:
        return _cube(path, file, ask)
    except BaseException:
        file.close()
        raise


def _cube(path: Path, file: h5py.File, ask: Ask) -> Cube:
    name = _name(path, file, ask)
    dataset = choose_dataset(path, file, name, (), (3, 4, 2), follow_links=ask.follow_links)
    linked = dataset.is_virtual or bool(dataset.external) or dataset.file != file
    if dataset.chunks is not None:
        size = array_bytes(dataset.chunks, dataset.dtype.itemsize)
        require_claim(path, size, stored=math.inf if linked else None, what=f"a chunk of dataset {dataset.name!r}")
    require_written(path, dataset)
    about = About(path, file, name or dataset.name, dataset, ask)
    found = f"dataset {dataset.name!r} of shape {dataset.shape}"
    layout = lay_out(path, found, dataset.shape, ask, about.axis_names(), about.spectrum(), about.grid())
    return Cube(
        layout.cube_shape,
        layout.sum_type(dataset.dtype),
        lambda rows: layout.load(dataset.__getitem__, rows),
        energy=ask.energy or about.energy(layout.cube_shape[2]),
        live_s=about.live_s(layout),
        pixel_um=about.pixel_um(layout),
        files=(path,),
        close=file.close,
        stored=math.inf if linked else float(os.path.getsize(path)),
    )


def _name(path: Path, file: h5py.File, ask: Ask) -> str | None:
    """Name of the dataset of counts. None: `choose_dataset` finds it, or tells what there is."""
    if ask.dataset is not None:
        node = find_node(path, file, ask.dataset, ask.follow_links)
        signal = attribute_text(Attributes(path, node).get("signal")) if isinstance(node, h5py.Group) else None
        return f"{ask.dataset.rstrip('/')}/{signal}" if signal else ask.dataset
    default = _default(path, file, ask)
    if default is not None:
        return default
    for kind in (_spectra, _signals, _usual):
        names = list(kind(path, file))
        if len(names) > 1:
            shapes = list_datasets(file)
            each = ", ".join(f"{name!r} {shapes[name]}" for name in names[:LISTED])
            rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            raise FileError(f"{path}: several datasets of spectra, {each}{rest}; choose one with dataset= (--dataset)")
        if names:
            return names[0]
    return None


def _default(path: Path, file: h5py.File, ask: Ask) -> str | None:
    """Where the attributes `default`, from group to group, and then `signal` lead; None: to nothing of two axes or more."""
    name, node = "", file["/"]
    for _ in range(DEPTH):
        told = Attributes(path, node)
        signal = attribute_text(told.get("signal"))
        following = signal or attribute_text(told.get("default"))
        if not following:
            return None
        name = f"{name}/{following}" if name else following
        found = find_node(path, file, name, ask.follow_links)
        if signal:
            return name if isinstance(found, h5py.Dataset) and found.ndim > 1 else None
        if not isinstance(found, h5py.Group):
            return None
        node = found
    return None


def _where(file: h5py.File, holds: Callable[[str, h5py.Dataset], bool]) -> Iterator[str]:
    return (name for name, shape in list_datasets(file).items() if len(shape) > 1 and holds(name, file[name]))


def _spectra(path: Path, file: h5py.File) -> Iterator[str]:
    return _where(file, lambda _, one: attribute_text(Attributes(path, one).get("interpretation")) == "spectrum")


def _signals(path: Path, file: h5py.File) -> Iterator[str]:
    """Signals of three axes or more, of groups (NXdata, NXmca) or, in old files, with the attribute `signal` of their own."""

    def is_signal(name: str, dataset: h5py.Dataset) -> bool:
        told = attribute_text(Attributes(path, dataset.parent).get("signal")) == name.rpartition("/")[2]
        return dataset.ndim > 2 and (told or str(Attributes(path, dataset).get("signal", "")) in ("1", "b'1'"))

    return _where(file, is_signal)


def _usual(path: Path, file: h5py.File) -> Iterator[str]:
    return _where(file, lambda name, _: name.rpartition("/")[2].lower() in USUAL)
