"""Movies in HDF5."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np

from lfjax.errors import FileError
from lfjax.io.claims import array_bytes, require_claim
from lfjax.io.hdf5 import choose_dataset, stored_chunks
from lfjax.io.hdf5_attributes import Attributes
from lfjax.io.movie_source import Choice, Layout, Source, check_axes, lay_out, missing_frames


def open_source(path: Path, choice: Choice) -> Source:
    """Open a dataset of an HDF5 file as a movie; see `lfjax.io.open_movie`."""
    choice.only(path, "dataset", "axes", "channel", "follow_links")
    file = h5py.File(path, "r")
    try:
        dataset = choose_dataset(path, file, choice.dataset, ("frames",), (3, 2), follow_links=choice.follow_links)
        layout = lay_out(path, _axes(path, dataset, choice.axes), dataset.shape, choice.channel)
        linked = choice.follow_links and (dataset.is_virtual or dataset.external or dataset.file != file)
        if dataset.chunks is not None:
            size = array_bytes(dataset.chunks, dataset.dtype.itemsize)
            require_claim(path, size, stored=math.inf if linked else None, what=f"a chunk of dataset {dataset.name!r}")
        return Source(
            shape=layout.movie_shape,
            dtype=dataset.dtype,
            read=lambda numbers: layout.arrange(np.asarray(dataset[layout.select(numbers)])),
            frame_s=_frame_s(path, file, dataset),
            files=(path,),
            missing=_missing(path, dataset, layout),
            close=file.close,
            stored=math.inf if linked else None,
        )
    except BaseException:
        file.close()
        raise


def _axes(path: Path, dataset: h5py.Dataset, asked: str | None) -> str:
    """Letters of the axes: as asked, as the file tells, or t, y, x."""
    ndim, found = dataset.ndim, f"dataset {dataset.name!r} of shape {dataset.shape}"
    if asked is not None:
        return check_axes(asked, ndim, found)
    told = Attributes(path, dataset).get("axes")
    told = told.decode() if isinstance(told, bytes) else told
    if isinstance(told, str) and len(told) == ndim and set(told.lower()) <= set("tzcyx"):
        return told.lower()
    if "MATLAB_class" in dataset.attrs:
        raise FileError(
            f"{path}: {found}, written by MATLAB, which reverses axes; name them with axes= (--axes): "
            "'txy' for a movie (y, x, t) in MATLAB"
        )
    usual = {2: "yx", 3: "tyx"}.get(ndim)
    if usual is None and ndim > 3 and set(dataset.shape[1:-2]) == {1}:
        usual = "t" + (ndim - 3) * "?" + "yx"
    if usual is None:
        raise FileError(f"{path}: {found}; name its axes with axes= (--axes), 'tcyx' for example")
    return usual


def _frame_s(path: Path, file: h5py.File, dataset: h5py.Dataset) -> float | None:
    """Interval from the attribute frame_s or rate_hz, of the dataset or of the file."""
    for holder in (dataset, file):
        for name in ("frame_s", "rate_hz"):
            value = Attributes(path, holder).get(name)
            if value is None:
                continue
            number = np.ravel(value)
            if number.dtype.kind not in "uif" or number.size != 1 or not (np.isfinite(number) & (number > 0)).all():
                raise FileError(f"{path}: attribute {name} is {value!r}; expected a positive number")
            return float(number[0]) if name == "frame_s" else 1 / float(number[0])
    return None


def _missing(path: Path, dataset: h5py.Dataset, layout: Layout) -> dict[int, str]:
    """Frames whose chunks were never written."""
    if dataset.is_virtual or dataset.external:
        return {}
    if dataset.chunks is None:
        if dataset.id.get_storage_size() == 0:
            raise FileError(f"{path}: dataset {dataset.name!r} of shape {dataset.shape} was never written; expected values")
        return {}
    there = stored_chunks(dataset)
    if len(there) == math.prod(math.ceil(n / c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)):
        return {}
    return missing_frames(path, layout, dataset.chunks, there.__contains__)
