"""Frames and volumes in HDF5: the dataset `frame`, or the dataset `volume` with attributes voxel_um, axes and unit."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import FileError
from lfjax.io.arrays import Volume, VoxelUm, check_array, check_volume, choose_page, reading
from lfjax.io.claims import FOLLOW, array_bytes, is_small, require_claim
from lfjax.io.hdf5_attributes import Attributes
from lfjax.io.hdf5_file import new_hdf5

LISTED = 8  # datasets that a message names


def read_frame(
    path: str | Path, *, page: int | None = None, dataset: str | None = None, follow_links: bool = False
) -> np.ndarray:
    """Read the dataset `frame`, (y, x), or one of `frames`, (t, y, x); see `lfjax.io.read_frame`."""
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        found = choose_dataset(path, file, dataset, ("frame", "frames"), (2, 3), follow_links=follow_links)
        number = choose_page(path, len(found) if found.ndim == 3 else 1, page)
        frame = read_values(path, found, number if found.ndim == 3 else None)
        if "MATLAB_class" in found.attrs and frame.ndim == 2:  # MATLAB stores the last axis first
            frame = frame.T
        return check_array(path, frame, "yx")


def read_volume(path: str | Path, *, follow_links: bool = False) -> Volume:
    """Read the dataset `volume`, (z, y, x), and its voxel size; see `lfjax.io.read_volume`."""
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        dataset = choose_dataset(path, file, "volume", follow_links=follow_links)
        array = check_array(path, read_values(path, dataset), "zyx")
        attributes = Attributes(path, dataset)
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


def numbers(path: str | Path, file: h5py.File, name: str, axes: str | None = None) -> np.ndarray:
    """Read a dataset of finite numbers, in native byte order; what cannot be one is refused before it is loaded.

    Args:
        path: for messages.
        file: open.
        name: of the dataset.
        axes: one letter per axis that it must have; None: any.

    Raises:
        FileError: the file has no such dataset, or it does not hold finite numbers, or not in this file, or not all of them
            were ever written, or they are more than file or memory can hold.
    """
    array = read_values(path, choose_dataset(path, file, name))
    if axes is not None:
        return check_array(path, array, axes)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = array.size - int(np.isfinite(array).sum())
        raise FileError(f"{path}: dataset {name!r}: {bad} of {array.size} values are NaN or infinite; expected finite values")
    return array


def read_values(path: str | Path, dataset: h5py.Dataset, page: int | None = None) -> np.ndarray:
    """The values of a dataset, or of one index along its first axis, in native byte order.

    Raises:
        FileError: not all of them are in the file, or they are more than file or memory can hold.
    """
    require_values(path, dataset, page)
    array = np.asarray(dataset[()] if page is None else dataset[page])
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def require_values(path: str | Path, dataset: h5py.Dataset, page: int | None = None) -> None:
    """Refuse a dataset whose values are not all there, or are more than file or memory can hold.

    HDF5 reads what was never written as zeros, and the shape of a dataset takes no space in the file.

    Args:
        path: for messages.
        dataset: of numbers.
        page: index along the first axis that is to be read; None: all.

    Raises:
        FileError: it is such a dataset.
    """
    shape = dataset.shape if page is None else dataset.shape[1:]
    chunks, elsewhere = dataset.chunks, dataset.is_virtual or bool(dataset.external)
    size = max(array_bytes(part, dataset.dtype.itemsize) for part in (shape, chunks or ()))
    if not is_small(size):
        held = math.inf if elsewhere else os.path.getsize(dataset.file.filename)
        require_claim(path, size, stored=held, what=_told(dataset))
    require_written(path, dataset, page)


def require_written(path: str | Path, dataset: h5py.Dataset, page: int | None = None) -> None:
    """Refuse a dataset whose values were never written, or not all of them; those in other files are not looked at.

    Args:
        path: for messages.
        dataset: of numbers.
        page: index along the first axis that is to be read; None: all.

    Raises:
        FileError: it is such a dataset.
    """
    chunks = dataset.chunks
    if dataset.is_virtual or dataset.external or 0 in (dataset.shape if page is None else dataset.shape[1:]):
        return
    if chunks is None:
        missing = dataset.id.get_storage_size() == 0
    elif page is None:
        missing = len(stored_chunks(dataset)) < math.prod(map(len, _chunk_grid(dataset)))
    else:
        rest, row, least = _chunk_grid(dataset)[1:], page // chunks[0], _least_bytes(dataset)
        missing = math.prod(map(len, rest)) > dataset.id.get_num_chunks() or any(
            dataset.id.get_chunk_info_by_coord(tuple(i * c for i, c in zip((row, *at), chunks, strict=True))).size < least
            for at in itertools.product(*rest)
        )
    if missing:
        raise FileError(f"{path}: {_told(dataset)} was never written, or not all of it; expected all its values")


def stored_chunks(dataset: h5py.Dataset) -> set[tuple[int, ...]]:
    """Numbers along the axes of the chunks that were written, without those too short for a checksum: HDF5 would crash."""
    offsets: list[tuple[int, ...]] = []
    sizes: list[int] = []

    def note(one: Any) -> None:
        offsets.append(one.chunk_offset)
        sizes.append(one.size)

    dataset.id.chunk_iter(note)
    at = np.array(offsets, np.int64).reshape(-1, len(dataset.chunks)) // dataset.chunks
    inside = (at < [len(one) for one in _chunk_grid(dataset)]).all(axis=1) & (np.array(sizes, float) >= _least_bytes(dataset))
    return set(map(tuple, at[inside].tolist()))


def _chunk_grid(dataset: h5py.Dataset) -> list[range]:
    """Numbers of the chunks along each axis."""
    return [range(math.ceil(n / size)) for n, size in zip(dataset.shape, dataset.chunks, strict=True)]


def _least_bytes(dataset: h5py.Dataset) -> int:
    """Bytes that a stored chunk has at least: all of them, or, after filters, one, beside a checksum of four."""
    plan = dataset.id.get_create_plist()
    filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
    if not filters:
        return array_bytes(dataset.chunks, dataset.dtype.itemsize)
    return 5 if h5py.h5z.FILTER_FLETCHER32 in filters else 1


def _told(dataset: h5py.Dataset) -> str:
    return f"dataset {dataset.name!r} of shape {dataset.shape}"


def choose_dataset(
    path: str | Path,
    file: h5py.File,
    name: str | None,
    usual: Sequence[str] = (),
    ndims: Sequence[int] = (),
    *,
    kinds: str = "uif",
    follow_links: bool | None = None,
) -> h5py.Dataset:
    """Find the dataset that a user names, or the usual one, or the only one of as many axes as
    the first of `ndims` that the file has.

    Values outside the file (external links, external storage, virtual datasets) are refused unless the caller follows links:
    whoever wrote the file would choose which other files of its reader are opened.

    Args:
        path: for messages.
        file: open.
        name: of the dataset; None: to be found.
        usual: names to look for.
        ndims: numbers of axes to look for.
        kinds: kinds of NumPy's types that count as numbers.
        follow_links: whether values may lie in other files. None: never, and the caller offers no choice.

    Raises:
        FileError: no such dataset, several to choose from, or not one of numbers in this file; or links are followed, and a
            file that holds its values is missing.
    """
    nodes = {one: find_node(path, file, one, follow_links) for one in ([name] if name is not None else usual)}
    here = [one for one, node in nodes.items() if node is not None or name is not None]
    counts = ([one for one, shape in list_datasets(file, kinds).items() if len(shape) == ndim] for ndim in ndims if not here)
    fitting = here or next(filter(None, counts), [])
    chosen = fitting[0] if here or len(fitting) == 1 else None
    if chosen is None:
        raise FileError(f"{path}: holds {_listed(file)}; choose a dataset with dataset= (--dataset)")
    dataset = nodes.get(chosen) or find_node(path, file, chosen, follow_links)
    if not isinstance(dataset, h5py.Dataset):
        raise FileError(f"{path}: holds {_listed(file)}; expected a dataset {chosen!r}")
    if dataset.shape is None or dataset.dtype.kind not in kinds:
        raise FileError(f"{path}: dataset {chosen!r} holds {dataset.dtype}; expected integers or floats")
    if dataset.is_virtual or dataset.external:
        _check_elsewhere(path, chosen, dataset, follow_links)
    return dataset


def _check_elsewhere(path: str | Path, name: str, dataset: h5py.Dataset, follow_links: bool | None) -> None:
    """Refuse values in other files, or, where links are followed, missing files: HDF5 reads zeros in place of their values."""
    kind = "virtual" if dataset.is_virtual else "stored in another file"
    if not follow_links:
        raise FileError(f"{path}: dataset {name!r} is {kind}; expected its values in this file{_advice(follow_links)}")
    folder = Path(dataset.file.filename).parent
    named = [one.file_name for one in dataset.virtual_sources()] if dataset.is_virtual else [one[0] for one in dataset.external]
    gone = next((one for one in named if one != "." and not (folder / one).is_file()), None)
    if gone is not None:
        raise FileError(f"{path}: dataset {name!r} is {kind}, {gone!r}, which is missing; expected that file")


def _advice(follow_links: bool | None) -> str:
    return "" if follow_links is None else f", or {FOLLOW}"


def find_node(path: str | Path, file: h5py.File, name: str, follow_links: bool | None) -> h5py.Dataset | h5py.Group | None:
    """What a name leads to, or None; soft links are followed, external links only if the caller says so."""
    parts, node, jumps = [part for part in name.split("/") if part], file["/"], 0
    while parts:
        part = parts.pop(0)
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink) and not follow_links:
            told = f"{name!r} is a link into the file {link.filename!r}"
            raise FileError(f"{path}: {told}; expected its values in this one{_advice(follow_links)}")
        if isinstance(link, h5py.SoftLink):
            jumps += 1
            if jumps > 16:
                return None
            parts = [one for one in link.path.split("/") if one] + parts
            node = node.file["/"] if link.path.startswith("/") else node
        elif link is None:
            return None
        else:
            node = node[part]
    return node


def _listed(file: h5py.File) -> str:
    found = [f"{name!r} {shape}" for name, shape in list_datasets(file).items()]
    rest = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return ", ".join(found[:LISTED]) + rest or "no numbers"


def list_datasets(file: h5py.File, kinds: str = "uif") -> dict[str, tuple[int, ...]]:
    """Name -> shape of the datasets of numbers; links are not followed."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in kinds and not node.is_virtual and node.shape is not None:
            found[name] = tuple(node.shape)

    file.visititems(note)
    return found
