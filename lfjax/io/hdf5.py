"""Frames and volumes in HDF5: the dataset `frame`, or the dataset `volume` with attributes voxel_um, axes and unit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import FileError
from lfjax.io.arrays import Volume, VoxelUm, check_array, check_volume, choose_page, reading
from lfjax.io.hdf5_file import new_hdf5


def read_frame(path: str | Path, *, page: int | None = None, dataset: str | None = None) -> np.ndarray:
    """Read the dataset `frame`, (y, x), or one of `frames`, (t, y, x); see `lfjax.io.read_frame`."""
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        found = choose_dataset(path, file, dataset, ("frame", "frames"), (2, 3))
        if found.ndim != 3:
            choose_page(path, 1, page)
            frame = np.asarray(found[()])
        else:
            frame = np.asarray(found[choose_page(path, len(found), page)])
        if "MATLAB_class" in found.attrs and frame.ndim == 2:  # MATLAB stores the last axis first
            frame = frame.T
        return check_array(path, frame, "yx")


def read_volume(path: str | Path) -> Volume:
    """Read the dataset `volume`, (z, y, x), and its voxel size; see `lfjax.io.read_volume`."""
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        array = check_array(path, numbers(path, file, "volume"), "zyx")
        attributes = dict(file["volume"].attrs)
        for name, expected in (("axes", "zyx"), ("unit", "um")):
            found = attributes.get(name, expected)
            if str(found) != expected:
                raise FileError(f"{path}: attribute {name} of volume is {found!r}; expected {expected!r}")
        voxel_um = attributes.get("voxel_um")
        if voxel_um is None:
            return Volume(array, None)
        size = np.ravel(voxel_um)
        if size.dtype.kind not in "uif" or size.size != 3 or not (np.isfinite(size) & (size > 0)).all():
            raise FileError(f"{path}: attribute voxel_um of volume is {voxel_um!r}; expected 3 positive numbers")
        return Volume(array, tuple(float(v) for v in size))  # type: ignore[arg-type]


def write_volume(path: str | Path, volume: ArrayLike, voxel_um: VoxelUm) -> None:
    """Write `volume` (z, y, x) with its voxel size; see `lfjax.io.write_volume`."""
    array, size = check_volume(path, volume, voxel_um)
    with new_hdf5(path, array.nbytes) as file:
        dataset = file.create_dataset("volume", data=array)
        dataset.attrs.update({"voxel_um": size, "axes": "zyx", "unit": "um"})


def write_frame(path: str | Path, frame: ArrayLike) -> None:
    """Write `frame` (y, x); see `lfjax.io.write_frame`."""
    array = check_array(path, frame, "yx")
    with new_hdf5(path, array.nbytes) as file:
        file.create_dataset("frame", data=array)


def numbers(path: str | Path, file: h5py.File, name: str) -> np.ndarray:
    """Read a dataset of numbers; text and objects are refused before they are loaded.

    Raises:
        FileError: the file has no such dataset, or it does not hold numbers, or not in this file.
    """
    return np.asarray(choose_dataset(path, file, name)[()])


def choose_dataset(
    path: str | Path, file: h5py.File, name: str | None, usual: Sequence[str] = (), ndims: Sequence[int] = ()
) -> h5py.Dataset:
    """Find the dataset that a user names, or the usual one, or the only one of as many axes as
    the first of `ndims` that the file has.

    Values outside the file (external links, external storage, virtual datasets) are refused: whoever wrote the file would
    choose which other files of its reader are opened.

    Raises:
        FileError: no such dataset, several to choose from, or not one of numbers in this file.
    """
    here = [name] if name is not None else [one for one in usual if _find(path, file, one) is not None]
    counts = ([one for one, shape in _datasets(file).items() if len(shape) == ndim] for ndim in ndims if not here)
    fitting = here or next(filter(None, counts), [])
    chosen = fitting[0] if here or len(fitting) == 1 else None
    if chosen is None:
        raise FileError(f"{path}: holds {_listed(file)}; choose a dataset with dataset= (--dataset)")
    dataset = _find(path, file, chosen)
    if not isinstance(dataset, h5py.Dataset):
        raise FileError(f"{path}: holds {_listed(file)}; expected a dataset {chosen!r}")
    if dataset.shape is None or dataset.dtype.kind not in "uif":
        raise FileError(f"{path}: dataset {chosen!r} holds {dataset.dtype}; expected integers or floats")
    if dataset.is_virtual or dataset.external:
        kind = "virtual" if dataset.is_virtual else "stored in another file"
        raise FileError(f"{path}: dataset {chosen!r} is {kind}; expected its values in this file")
    return dataset


def _find(path: str | Path, file: h5py.File, name: str) -> h5py.Dataset | h5py.Group | None:
    """What a name leads to, or None; soft links are followed, external links are not."""
    parts, node, jumps = [part for part in name.split("/") if part], file["/"], 0
    while parts:
        part = parts.pop(0)
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise FileError(f"{path}: {name!r} is a link into the file {link.filename!r}; expected its values in this one")
        if isinstance(link, h5py.SoftLink):
            jumps += 1
            if jumps > 16:
                return None
            parts = [one for one in link.path.split("/") if one] + parts
            node = file["/"] if link.path.startswith("/") else node
        elif link is None:
            return None
        else:
            node = node[part]
    return node


def _listed(file: h5py.File) -> str:
    return ", ".join(f"{name!r} {shape}" for name, shape in _datasets(file).items()) or "no numbers"


def _datasets(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the datasets of numbers; links are not followed."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "uif" and not node.is_virtual and node.shape is not None:
            found[name] = tuple(node.shape)

    file.visititems(note)
    return found
