"""Frames and volumes in HDF5: the dataset `frame`, or the dataset `volume` with attributes voxel_um, axes and unit."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import FileError
from lfjax.io.arrays import Volume, VoxelUm, check_array, check_volume, reading
from lfjax.io.atomic import writing


def read_frame(path: str | Path) -> np.ndarray:
    """Read the dataset `frame`, (y, x); see `lfjax.io.read_frame`."""
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        return check_array(path, numbers(path, file, "frame"), "yx")


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
    with writing(path) as temporary, h5py.File(temporary, "w") as file:
        dataset = file.create_dataset("volume", data=array)
        dataset.attrs.update({"voxel_um": size, "axes": "zyx", "unit": "um"})


def write_frame(path: str | Path, frame: ArrayLike) -> None:
    """Write `frame` (y, x); see `lfjax.io.write_frame`."""
    array = check_array(path, frame, "yx")
    with writing(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("frame", data=array)


def numbers(path: str | Path, file: h5py.File, name: str) -> np.ndarray:
    """Read a dataset of numbers; text and objects are refused before they are loaded.

    Raises:
        FileError: the file has no such dataset, or it does not hold numbers.
    """
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise FileError(f"{path}: holds {sorted(file) or 'nothing'}; expected a dataset {name!r}")
    if dataset.dtype.kind not in "uif" or dataset.shape is None:
        raise FileError(f"{path}: dataset {name!r} holds {dataset.dtype}; expected integers or floats")
    return np.asarray(dataset[()])
