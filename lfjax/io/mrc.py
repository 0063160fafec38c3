"""MRC files: maps with their axes in order, and image stacks read piece by piece (with `mrcfile`; Cheng et al., 2015)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import mrcfile
import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import FileError, require
from lfjax.io.arrays import check_array, reading
from lfjax.io.atomic import writing

Zyx = tuple[float, float, float]
HEADER_BYTES = 1024


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
        FileError: the file is missing, broken, not a volume or not finite, or neither file nor caller gives a voxel size.
    """
    with reading(path, "MRC"), _opened(path) as file:
        array, axes = np.array(file.data), [int(file.header[name]) for name in ("maps", "mapr", "mapc")]
        voxel = tuple(float(file.voxel_size[a]) for a in "zyx")
        start = tuple(int(file.header[f"n{name}start"]) for name in "zyx")
        origin = tuple(float(file.header.origin[a]) for a in "zyx")
    array = check_array(path, array, "zyx")
    if sorted(axes) != [1, 2, 3]:
        raise FileError(f"{path}: axes {axes[::-1]} in MAPC, MAPR, MAPS; expected an order of 1, 2, 3")
    array = np.ascontiguousarray(array.transpose([axes.index(a) for a in (3, 2, 1)]))
    # mrcfile divides the cell of an axis by MZ, MY, MX; start indices belong to sections, rows, columns
    first = tuple(start[axes.index(a)] for a in (3, 2, 1))
    size = _size(path, voxel, voxel_angstrom)
    return Map(array, size, tuple(s * v + o for s, v, o in zip(first, size, origin, strict=True)))  # type: ignore[arg-type]


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
    with writing(path) as temporary, mrcfile.new(temporary, overwrite=True) as file:
        file.set_data(array)
        file.voxel_size = tuple(size[::-1])
        file.header.origin = tuple(origin_angstrom[::-1])


class Stack:
    """Images of an .mrcs (or .mrc) file, read on request, so that a file may be larger than memory.

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
            FileError: the file is missing, truncated, or not an MRC file of images.
        """
        self.path = Path(path)
        with reading(path, "MRC"), _opened(path, mrcfile.mmap) as file:
            data = file.data
            self._data = data[None] if data.ndim == 2 else data
            pixel = float(file.voxel_size.x)
        if self._data.ndim != 3:
            raise FileError(f"{path}: array of shape {self._data.shape}; expected images (n, y, x)")
        self.shape: tuple[int, int, int] = self._data.shape
        self.pixel_angstrom = pixel if pixel > 0 else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Images by number, slice or list, as 32-bit floats."""
        return np.asarray(self._data[index], np.float32)


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
    with writing(path) as temporary, mrcfile.new_mmap(temporary, (count, *first.shape[1:]), mrc_mode=2, overwrite=True) as file:
        done = 0
        for batch in _chain(first, batches):
            part = check_array(path, np.asarray(batch, np.float32), "nyx")
            if part.shape[1:] != first.shape[1:] or done + len(part) > (count or 0):
                found = f"a batch of shape {part.shape} after {done} images"
                raise FileError(f"{path}: {found}; expected {count} images of {first.shape[1:]}")
            file.data[done : done + len(part)] = part
            done += len(part)
        if done != count:
            raise FileError(f"{path}: {done} images; expected count = {count}")
        file.set_image_stack()
        file.voxel_size = (pixel_angstrom, pixel_angstrom, pixel_angstrom)
        file.update_header_from_data()
        file.update_header_stats()


def _chain(first: np.ndarray, rest: Iterator[ArrayLike]) -> Iterator[ArrayLike]:
    yield first
    yield from rest


@contextmanager
def _opened(path: str | Path, opener: Callable[..., Any] = mrcfile.open) -> Iterator[Any]:
    """Open a valid file; warnings of mrcfile become errors, except those about a missing identity string of the header."""
    _check_extended_header(Path(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.filterwarnings("ignore", "Map ID string not found|Unrecognised machine stamp", RuntimeWarning)
        with opener(path, mode="r", permissive=True) as file:
            if file.data is None:
                raise FileError(f"{path}: no data; expected a complete MRC file")
            yield file


def _check_extended_header(path: Path) -> None:
    """Refuse an extended header (NSYMBT, bytes 93 to 96) longer than the file, before mrcfile allocates it."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or head[:2] in (b"\x1f\x8b", b"BZ"):  # cut or compressed: mrcfile finds out
        return
    stamp: Literal["big", "little"] = "big" if head[212] == 0x11 else "little"
    claimed, present = int.from_bytes(head[92:96], stamp), path.stat().st_size - HEADER_BYTES
    if claimed > present:
        raise FileError(f"{path}: extended header of {claimed} bytes in a file with {present} after the header")


def _size(path: str | Path, found: tuple[float, ...], given: float | None) -> Zyx:
    if given is not None:
        require(math.isfinite(given) and given > 0, "voxel_angstrom", given, "a positive number")
        return (given,) * 3
    if not all(math.isfinite(v) and v > 0 for v in found):
        raise FileError(f"{path}: voxel size {found} in the file; expected positive numbers, or the argument voxel_angstrom")
    return found  # type: ignore[return-value]
