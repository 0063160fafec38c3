"""MRC files: maps with their axes in order, and image stacks read piece by piece. `mrc_layout` tells which modes are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mrcfile
import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import FileError, require
from lfjax.io.arrays import check_array, reading
from lfjax.io.atomic import writing
from lfjax.io.checked_numbers import LARGEST
from lfjax.io.claims import array_bytes, require_claim
from lfjax.io.mrc_layout import read_layout, read_values

HEADER_BYTES = 1024
Zyx = tuple[float, float, float]


class Map(NamedTuple):
    """A density map.

    Attributes:
        array: (z, y, x), whatever the order in the file.
        voxel_angstrom: voxel size (z, y, x).
        origin_angstrom: position (z, y, x) of voxel (0, 0, 0): the file's start indices times the voxel size plus its origin.
    """

    array: np.ndarray
    voxel_angstrom: Zyx
    origin_angstrom: Zyx


def read_map(path: str | Path, *, voxel_angstrom: float | None = None) -> Map:
    """Read a map and put its axes into the order (z, y, x) by the header's MAPC, MAPR, MAPS.

    Args:
        path: .mrc or .map, also compressed by gzip or bzip2.
        voxel_angstrom: voxel size to use instead of that in the file; needed if the file has none.

    Raises:
        FileError: the file is missing, broken, of a mode that is not read, one image, a stack of volumes or not finite, its
            origin is NaN or infinite, or neither file nor caller gives a voxel size.
    """
    with reading(path, "MRC"):
        layout = read_layout(path)
        if layout.single or layout.volumes > 1:
            found = "one image" if layout.single else f"a stack of {layout.volumes} volumes"
            raise FileError(f"{path}: {found}; expected one volume")
        require_claim(path, array_bytes(layout.shape, 4), what=f"the header of shape {layout.shape}")
        array = read_values(layout)
        array = array.astype(np.float32 if layout.dtype.kind == "f" else layout.dtype.newbyteorder("="))
    array = check_array(path, array, "zyx")
    axes = layout.axes[::-1]
    if sorted(axes) != [1, 2, 3]:
        raise FileError(f"{path}: axes {list(layout.axes)} in MAPC, MAPR, MAPS; expected an order of 1, 2, 3")
    array = np.ascontiguousarray(array.transpose([axes.index(a) for a in (3, 2, 1)]))
    # the cell is that of x, y, z; start indices belong to sections, rows, columns
    first = tuple(layout.first[axes.index(a)] for a in (3, 2, 1))
    size = _size(path, layout.voxel_angstrom, voxel_angstrom)
    if not all(abs(value) <= LARGEST for value in layout.origin_angstrom):
        found = f"origin {layout.origin_angstrom} (z, y, x) in the header"
        raise FileError(f"{path}: {found}; expected numbers of at most {LARGEST:g} in size, in angstroms")
    origin = tuple(s * v + o for s, v, o in zip(first, size, layout.origin_angstrom, strict=True))
    return Map(array, size, origin)  # type: ignore[arg-type]


def write_map(
    path: str | Path, volume: ArrayLike, voxel_angstrom: float | Zyx, *, origin_angstrom: Zyx = (0.0, 0.0, 0.0)
) -> None:
    """Write a map as 32-bit floats with axes x, y, z, as ChimeraX, RELION and IMOD read it.

    Args:
        path: .mrc or .map.
        volume: (z, y, x).
        voxel_angstrom: voxel size, one number or (z, y, x).
        origin_angstrom: position (z, y, x) of voxel (0, 0, 0).

    Raises:
        FileError: the volume is not a finite array (z, y, x).
        ParameterError: the voxel size is not positive.
    """
    array = check_array(path, np.asarray(volume, np.float32), "zyx")
    size = np.broadcast_to(np.asarray(voxel_angstrom, float), 3)
    require(bool(np.all(np.isfinite(size) & (size > 0))), "voxel_angstrom", voxel_angstrom, "positive numbers")
    with writing(path, HEADER_BYTES + array.nbytes) as temporary, mrcfile.new(temporary, overwrite=True) as file:
        file.set_data(array)
        file.voxel_size = tuple(size[::-1])
        file.header.origin = tuple(origin_angstrom[::-1])


class Stack:
    """Images of an .mrcs (or .mrc) file, read on request, so that a file may be larger than memory.

    A file compressed by gzip or bzip2 is decompressed into memory as a whole.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "particles.mrcs"
    >>> write_stack(path, np.zeros((8, 16, 16)), 2.0)
    >>> Stack(path)[[0, 5, 7]].shape
    (3, 16, 16)

    Attributes:
        path: path of the file.
        shape: (n, y, x).
        pixel_angstrom: pixel size along x. None: the file does not state it.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a file.

        Raises:
            FileError: the file is missing, truncated, of a mode that is not read, its columns are not x or its rows not y, its
                pixel size is NaN or infinite, or it holds no images but volumes.
        """
        self.path = Path(path)
        with reading(path, "MRC"):
            layout = read_layout(path)
            if layout.volumes:
                found = f"{layout.volumes} volumes of {layout.shape[0] // layout.volumes} sections"
                raise FileError(f"{path}: {found}; expected images, or one volume at a time by read_map")
            if any(layout.axes) and layout.axes[:2] != (1, 2):  # some programs leave all three at 0
                found = f"axes {list(layout.axes)} in MAPC, MAPR, MAPS"
                raise FileError(f"{path}: {found}; expected images with columns along x (1) and rows along y (2)")
            self._data = read_values(layout)
        self.shape: tuple[int, int, int] = layout.shape
        pixel = layout.voxel_angstrom[2]
        if not abs(pixel) <= LARGEST:
            raise FileError(f"{path}: pixel size {pixel} in the header; expected a positive number, or 0 where it is not known")
        self.pixel_angstrom = pixel if pixel > 0 else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Images by number, slice or list, as 32-bit floats.

        Raises:
            FileError: a pixel is NaN or infinite; the message names the image.
        """
        found = np.asarray(self._data[index], np.float32)
        if self._data.dtype.kind == "f" and not np.isfinite(found).all():
            bad = ~np.isfinite(found).reshape(-1, found.shape[-2] * found.shape[-1]).all(axis=1)
            number = int(np.atleast_1d(np.arange(len(self))[index])[bad.argmax()])
            told = f"{number + 1}@{self.path}: NaN or infinite pixels in image {number + 1}"
            raise FileError(f"{told}; expected finite values")
        return found


def write_stack(
    path: str | Path, images: ArrayLike | Iterable[ArrayLike], pixel_angstrom: float, *, count: int | None = None
) -> None:
    """Write images (n, y, x) as an MRC stack of 32-bit floats.

    Args:
        path: .mrcs.
        images: an array (n, y, x), or an iterable of batches (m, y, x), each written as it arrives.
        pixel_angstrom: pixel size.
        count: total number of images; needed for batches.

    Raises:
        FileError: the images differ in size, are not finite, or are fewer or more than `count`.
        ParameterError: the pixel size is not positive, or batches come without `count`.
    """
    require(math.isfinite(pixel_angstrom) and pixel_angstrom > 0, "pixel_angstrom", pixel_angstrom, "a positive number")
    batches: Iterator[ArrayLike]
    if hasattr(images, "shape"):
        count, batches = images.shape[0], iter([images])  # type: ignore[list-item]
    else:
        require(count is not None, "count", count, "the number of images, for batches")
        batches = iter(images)  # type: ignore[arg-type]
    first = check_array(path, np.asarray(next(batches), np.float32), "nyx")
    with writing(path, HEADER_BYTES + 4 * (count or 0) * first[0].size) as temporary:
        with mrcfile.new(temporary, overwrite=True) as file:  # the header, with the first image
            file.set_data(first[:1])
            file.set_image_stack()
            file.voxel_size = (pixel_angstrom, pixel_angstrom, pixel_angstrom)
            header = file.header.copy()
        # not through a memory map: on a full disk its pages kill the process
        with open(temporary, "r+b") as raw:
            raw.seek(HEADER_BYTES)
            done, sums, header.dmin, header.dmax = 0, np.zeros(2), np.inf, -np.inf
            for batch in _chain(first, batches):
                part = np.ascontiguousarray(check_array(path, np.asarray(batch, np.float32), "nyx"), "<f4")
                if part.shape[1:] != first.shape[1:] or done + len(part) > (count or 0):
                    found = f"a batch of shape {part.shape} after {done} images"
                    raise FileError(f"{path}: {found}; expected {count} images of {first.shape[1:]}")
                raw.write(part.data)
                done += len(part)
                sums += part.sum(dtype=float), np.square(part, dtype=float).sum()
                header.dmin, header.dmax = min(header.dmin, part.min()), max(header.dmax, part.max())
            if done != count:
                raise FileError(f"{path}: {done} images; expected count = {count}")
            mean, square = sums / (done * first[0].size)
            header.nz, header.dmean, header.rms = done, mean, math.sqrt(max(square - mean**2, 0))
            raw.seek(0)
            raw.write(header.tobytes())


def _chain(first: np.ndarray, rest: Iterator[ArrayLike]) -> Iterator[ArrayLike]:
    yield first
    yield from rest


def _size(path: str | Path, found: tuple[float, ...], given: float | None) -> Zyx:
    if given is not None:
        require(math.isfinite(given) and given > 0, "voxel_angstrom", given, "a positive number")
        return (given,) * 3
    if not all(0 < v <= LARGEST for v in found):
        raise FileError(f"{path}: voxel size {found} in the file; expected positive numbers, or the argument voxel_angstrom")
    return found  # type: ignore[return-value]
