"""Planes of a TIFF file: which series, whether they are whole, and their values with more light as more."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from lfjax.errors import FileError
from lfjax.io.arrays import grey
from lfjax.io.claims import FOLLOW, array_bytes, is_small, require_claim
from lfjax.io.ome import ome_files, ome_master

Page = tifffile.TiffPage | tifffile.TiffFrame


@dataclass(frozen=True)
class Planes:
    """Grey planes (y, x) of one series of an open file.

    Attributes:
        path: of the file.
        file: open.
        axes: letters of the axes of the series, colour left out; the last two are Y and X.
        shape: of these axes.
        dtype: of the values, in native byte order.
        pages: one per plane, None where the file has none; empty if the planes are mapped.
        mapped: (n, y, x), the whole series, if it lies in the file as one array.
        number: of the series; None: all of them, one after the other.
        keyframe: a page that tells how the values are stored.
    """

    path: Path
    file: tifffile.TiffFile
    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pages: tuple[Page | None, ...]
    mapped: np.ndarray | None
    number: int | None
    keyframe: tifffile.TiffPage

    @property
    def count(self) -> int:
        """Number of planes."""
        return math.prod(self.shape[:-2])

    @property
    def stored(self) -> int:
        """Bytes of the files that hold the planes."""
        handles = {self.file.filehandle, *(page.parent.filehandle for page in self.pages if page is not None)}
        return sum(handle.size for handle in handles)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Planes (n, y, x); of those that the file lacks, zeros. MINISWHITE is inverted: more light is more."""
        y, x = self.shape[-2:]
        claimed = array_bytes((len(numbers), y, x), self.dtype.itemsize)
        if not is_small(claimed):
            require_claim(self.path, claimed, stored=self.stored, what=f"{len(numbers)} planes of shape {(y, x)}")
        if self.mapped is not None:
            block = np.array(self.mapped[list(numbers)], self.dtype)
        else:
            here = [k for k, number in enumerate(numbers) if self.pages[number] is not None]
            found = self._decode([numbers[k] for k in here])
            block = np.zeros((len(numbers), y, x), self.dtype)
            block[here] = found.reshape(len(here), y, x)
        return self._upright(block)

    def _decode(self, numbers: list[int]) -> np.ndarray:
        if not numbers:
            return np.zeros((0, *self.shape[-2:]), self.dtype)
        with _open_files([self.pages[k] for k in numbers]):
            if self.number is not None:
                found = self.file.asarray(key=numbers, series=self.number)
                found = found.reshape(len(numbers), *self.keyframe.shape)
            else:
                found = np.stack([self.pages[k].asarray() for k in numbers])  # type: ignore[union-attr]
        return grey(self.path, found, samples=_samples(self.keyframe))

    def _upright(self, block: np.ndarray) -> np.ndarray:
        if self.keyframe.photometric != tifffile.PHOTOMETRIC.MINISWHITE:
            return block
        if self.dtype.kind != "u":
            raise FileError(f"{self.path}: MINISWHITE with values of type {self.dtype}; expected unsigned integers")
        return np.asarray(2 ** int(np.ravel(self.keyframe.bitspersample)[0]) - 1 - block, self.dtype)


@contextmanager
def _open_files(pages: Sequence[Page | None]) -> Iterator[None]:
    """The other files of an OME-TIFF, open while their pages are read, and no longer: there may be thousands."""
    handles = {page.parent.filehandle for page in pages if page is not None}
    closed = [handle for handle in handles if handle.closed]
    for handle in closed:
        handle.open()
    try:
        yield
    finally:
        for handle in closed:
            handle.close()


def open_planes(path: str | Path, series: int | None = None, *, follow_links: bool = False) -> Planes:
    """Open one series of a TIFF file; series of one kind that follow one another in the file count as one.

    Args:
        path: a TIFF or BigTIFF file; of an OME-TIFF of several files, any of them.
        series: which; needed where the file has several of different kinds.
        follow_links: whether an OME-TIFF may name files in other folders.

    Raises:
        FileError: the file is broken or truncated, a file that it names is missing, or it holds several series, colours,
            or no numbers.
    """
    file = tifffile.TiffFile(path)
    try:
        _require_end(path, file)
        master = _beside(Path(path), file, follow_links)
        if master is not None:
            file.close()
            return open_planes(master, series, follow_links=follow_links)
        return _planes(Path(path), file, series)
    except BaseException:
        file.close()
        raise


def _beside(path: Path, file: tifffile.TiffFile, follow_links: bool) -> Path | None:
    """Check that the other files of an OME-TIFF lie beside it, since tifffile reads zeros without; return its main file."""
    if not file.is_ome or file.ome_metadata is None:
        return None
    master = ome_master(file.ome_metadata)
    for name in [master] if master else ome_files(file.ome_metadata):
        if not follow_links and (Path(name).name != name or "\\" in name or ":" in name):
            raise FileError(f"{path}: names a file {name!r} in another folder; expected files beside it, or {FOLLOW}")
        if not os.path.isfile(path.parent / name):
            raise FileError(f"{path}: planes are in {name!r}, which is missing; expected all files of the OME-TIFF")
    return path.parent / master if master else None


def _planes(path: Path, file: tifffile.TiffFile, number: int | None) -> Planes:
    series = _choose(path, file, number)
    first = series[0]
    keyframe = first.keyframe
    if keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE and not file.is_imagej:  # ImageJ colours grey values
        raise FileError(f"{path}: a palette of colours; expected grey values")
    if first.dtype is None or first.dtype.kind not in "uif":
        raise FileError(f"{path}: values of type {first.dtype}; expected integers or floats")
    axes, shape = first.axes, tuple(first.shape)
    if len(series) > 1:
        axes, shape = "I" + axes[-2:], (sum(math.prod(one.shape[:-2]) for one in series), *shape[-2:])
    if "S" in axes:  # the samples of a pixel lie together (last), or in planes
        place = axes.index("S")
        axes, shape = axes.replace("S", ""), shape[:place] + shape[place + 1 :]
    if not axes.endswith("YX"):
        raise FileError(f"{path}: axes {first.axes} of shape {first.shape}; expected planes that end with YX")
    require_complete(path, file, series)
    count, mapped = math.prod(shape[:-2]), None
    pages: tuple[Page | None, ...] = ()
    if len(series) == 1 and first.dataoffset is not None and "S" not in first.axes:
        stored = first.dtype.newbyteorder(file.byteorder)
        mapped = np.memmap(path, stored, "r", first.dataoffset, (count, *shape[-2:]))
    else:
        pages = tuple(page for one in series for page in one.pages)
        if len(pages) != count:
            raise FileError(f"{path}: {len(pages)} planes; expected {count}, axes {first.axes} of shape {first.shape}")
    one = None if len(series) > 1 else file.series.index(first)
    planes = Planes(path, file, axes, shape, first.dtype.newbyteorder("="), pages, mapped, one, keyframe)
    segment = array_bytes(keyframe.chunks, first.dtype.itemsize)
    if not is_small(segment):
        require_claim(path, segment, stored=planes.stored, what=f"a strip or tile of shape {keyframe.chunks}")
    return planes


def _choose(path: Path, file: tifffile.TiffFile, number: int | None) -> list[tifffile.TiffPageSeries]:
    """The series to read: the chosen one, the only one, or all if they are one movie in pieces."""
    found = file.series
    if number is not None:
        if not 0 <= number < len(found):
            raise FileError(f"{path}: series={number}; expected 0 to {len(found) - 1}")
        return [found[number]]
    if not found:
        raise FileError(f"{path}: holds no image; expected one image or stack")
    if len(found) > 1 and not _one_movie(found):
        each = "; ".join(f"{k}: {one.axes} {one.shape} {one.dtype}" for k, one in enumerate(found))
        raise FileError(f"{path}: {len(found)} images of different kinds ({each}); choose one with series= (--series)")
    return list(found)


def _one_movie(found: Sequence[tifffile.TiffPageSeries]) -> bool:
    """Whether series are pieces of one movie: unnamed stacks of one plane shape and type, whole one after the other."""
    kinds = {(one.shape[-2:], str(one.dtype), _stored(one)) for one in found}
    plain = all(one.kind in ("shaped", "generic", "uniform") and one.axes in ("YX", "IYX", "QYX", "TYX") for one in found)
    if len(kinds) > 1 or not plain or any(len(one.pages) != math.prod(one.shape[:-2]) for one in found):
        return False
    order = [page.index if page is not None else -1 for one in found for page in one.pages]
    return order == sorted(order)


def _stored(series: tifffile.TiffPageSeries) -> tuple[int, Any]:
    key: Any = series.keyframe
    return key.photometric, key.bitspersample


def _samples(page: tifffile.TiffPage) -> Literal["first", "last", "none"]:
    return "first" if page.axes.startswith("S") else "last" if page.axes.endswith("S") else "none"


def require_complete(path: str | Path, file: tifffile.TiffFile, series: Sequence[tifffile.TiffPageSeries]) -> None:
    """Refuse a truncated file: tifffile reads what is missing as zeros, or as a shorter stack without its description.

    Planes that an OME-TIFF announces and never got (a recording that was stopped) are no truncation.

    Raises:
        FileError: planes, the end of the list of pages, or the description are missing.
    """
    stopped = file.is_ome and _ended(file)
    for one in series:
        pages = list(one.pages)
        whole = _ended(file) and (stopped or all(page is not None for page in pages))
        if file.is_imagej:
            whole &= (file.imagej_metadata or {}).get("images", 1) * math.prod(file.pages.first.shape) == one.size
        if one.dataoffset is not None:
            whole &= one.dataoffset + one.nbytes <= file.filehandle.size
        if not (whole and all(_holds(page) for page in pages if page is not None)):
            raise FileError(f"{path}: truncated, the header states {one.shape} values; expected a complete TIFF file")


def _holds(page: Page) -> bool:
    """Whether the file of a page holds all its segments."""
    key: Any = page.keyframe
    size = page.parent.filehandle.size
    offsets, counts = page.dataoffsets, page.databytecounts
    bits = int(np.ravel(key.bitspersample)[0])
    packed = 0 if key.compression != tifffile.COMPRESSION.NONE else key.size * bits // 8
    if len(offsets) != len(counts) or len(offsets) < math.prod(key.chunked) or sum(counts) < packed:
        return False
    return all(0 < offset and 0 < count and offset + count <= size for offset, count in zip(offsets, counts, strict=True))


def _ended(file: tifffile.TiffFile) -> bool:
    """Whether the list of pages is there to its end, and the description of the first page."""
    first, last = file.pages[0], file.pages[len(file.pages) - 1]
    described = 270 in _directory(file, first.offset)[0]
    return _directory(file, last.offset)[1] == 0 and (not described or 270 in getattr(first, "tags", ()))


def _require_end(path: str | Path, file: tifffile.TiffFile) -> None:
    """Refuse a list of pages that leads back into itself, which tifffile would follow for ever; a torn one is left to it."""
    layout, handle, seen, offset = file.tiff, file.filehandle, set[int](), file.pages.first.offset
    while offset:
        if offset in seen:
            raise FileError(f"{path}: the list of pages is a circle at byte {offset}; expected one that ends")
        seen.add(offset)
        handle.seek(offset)
        try:
            (count,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
            handle.seek(offset + layout.tagnosize + count * layout.tagsize)
            (offset,) = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
        except struct.error:
            return


def _directory(file: tifffile.TiffFile, offset: int) -> tuple[list[int], int]:
    """Tag codes of the page at an offset, and the offset of the next page, 0 for the last (TIFF 6.0, section 2)."""
    layout, handle = file.tiff, file.filehandle
    handle.seek(offset)
    (count,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    entries = handle.read(count * layout.tagsize)
    (following,) = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    codes = [struct.unpack_from(layout.byteorder + "H", entries, i * layout.tagsize)[0] for i in range(count)]
    return codes, following
