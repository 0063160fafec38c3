"""Movies of frames (t, y, x) in files, read piece by piece: one type for all containers."""

from __future__ import annotations

import math
import operator
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from lfjax._lazy import load
from lfjax.errors import FileError, LfjaxError, require
from lfjax.io.arrays import check_array, reason
from lfjax.io.atomic import writing
from lfjax.io.claims import is_small, require_claim
from lfjax.io.hdf5_file import new_hdf5
from lfjax.io.images import read_frame
from lfjax.io.movie_files import find_files, open_files
from lfjax.io.movie_source import Choice, Source, dropped_frames, gather, read_frames

MOVIES = {
    ".h5": "movie_hdf5", ".hdf5": "movie_hdf5", ".tif": "movie_tiff", ".tiff": "movie_tiff", ".btf": "movie_tiff",
    ".tf8": "movie_tiff", ".zarr": "movie_zarr", ".npy": "npy",
}  # fmt: skip
"""Suffix -> the module of `lfjax.io` that opens it."""
EXPECTED = "expected a movie: HDF5, TIFF, Zarr or NPY, or a folder, pattern or list of such files or of PNG"
IMAGEJ_TYPES = ("uint8", "uint16", "float32")
IMAGEJ_LIMIT_BYTES = 2**32 - 2**25


class Movie:
    """A movie (t, y, x) in files, of which only the requested frames are read; from any thread.

    Attributes:
        shape: (t, y, x).
        dtype: type of the values, in native byte order.
        frame_s: time from frame to frame in seconds, from the metadata. None: unknown.
        times_s: (t,), time of each frame in seconds, from the metadata. None: unknown.
        files: files that hold the frames.
        missing: frame number -> which part of it the container lacks; such parts read as the fill value.
        dropped: frame number -> number of frames that were lost right before it, from gaps in the times or in the numbers of
            the files.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._lock = source, threading.Lock()
        self._closed = weakref.finalize(self, source.close)
        self.shape: tuple[int, int, int] = source.shape
        self.dtype: np.dtype[Any] = np.dtype(source.dtype).newbyteorder("=")
        self.frame_s: float | None = source.frame_s
        self.times_s: np.ndarray | None = source.times_s
        self.files: tuple[Path, ...] = source.files
        self.missing: Mapping[int, str] = dict(source.missing)
        self.dropped: Mapping[int, int] = dict(source.dropped)
        if self.times_s is not None and not self.dropped:
            self.dropped = dropped_frames(self.times_s)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        rate = "unknown rate" if self.frame_s is None else f"{1 / self.frame_s:.6g} Hz"
        return f"Movie({self.files[0].name if self.files else ''}, {self.shape}, {self.dtype}, {rate})"

    def __enter__(self) -> Movie:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._closed()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def __getitem__(self, which: SupportsIndex | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """One frame (y, x) by its number, or frames (n, y, x) by a slice, or by a list of numbers or of true and false.

        Raises:
            IndexError: there is no such frame.
            FileError: a frame cannot be read.
        """
        if isinstance(which, slice):
            return self._read(range(*which.indices(len(self))))
        if isinstance(which, (Sequence, np.ndarray)) and np.ndim(which) == 1:
            return gather(self, np.arange(len(self))[np.asarray(which, None if len(which) else int)])
        number = operator.index(which)  # type: ignore[arg-type]
        if not -len(self) <= number < len(self):
            raise IndexError(f"frame {number} of a movie of {len(self)} frames")
        number %= len(self)
        return self._read(range(number, number + 1))[0]

    def _stored(self) -> float:
        """Bytes that the frames come from."""
        stated = self._source.stored
        return sum(path.stat().st_size for path in self.files) if stated is None else stated

    def _read(self, numbers: range) -> np.ndarray:
        if not numbers:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        upward = numbers if numbers.step > 0 else numbers[::-1]
        where = self.files[0] if self.files else Path("movie")
        claimed = len(upward) * math.prod(self.shape[1:]) * self.dtype.itemsize
        if not is_small(claimed):
            require_claim(where, claimed, stored=self._stored(), what=f"{len(upward)} frames of shape {self.shape[1:]}")
        with self._lock:
            block = read_frames(where, self._source.read, upward)
        block = np.asarray(block, self.dtype)
        return block if numbers.step > 0 else block[::-1]


def open_movie(
    path: str | Path | Sequence[str | Path],
    *,
    dataset: str | None = None,
    axes: str | None = None,
    channel: int | None = None,
    series: int | None = None,
    follow_links: bool = False,
) -> Movie:
    """Open a movie of which only the requested frames are read.

    HDF5 (.h5, .hdf5): the dataset `frames`, or the only one of three axes. TIFF (.tif, .tiff): stacks of any layout and
    compression, BigTIFF, ImageJ hyperstacks, OME-TIFF of one or several files, where MINISWHITE is inverted so that more light
    is more. Zarr (.zarr): arrays, groups, OME-Zarr, bioformats2raw. NumPy (.npy). One image is a movie of one frame.

    The interval and times come from OME-XML (TimeIncrement, DeltaT), ImageJ (finterval, or else fps, which is the speed of its
    player), Micro-Manager (elapsed times), OME-Zarr (scale of t with a unit), or the attribute `frame_s` or `rate_hz` of an
    HDF5 dataset or file.

    Args:
        path: a file, a folder, a pattern such as "run/frame*.tif", or a list of files. Several files are one movie in
            natural order (frame2 before frame10), however they are listed.
        dataset: name of the dataset in HDF5 or Zarr.
        axes: letters of the axes, of t, z, c, y, x, where the file tells none or wrong ones: "tyx" for frames that a program
            saved as planes along z.
        channel: index along the axis c; needed where there are several channels.
        series: number of the image, where a TIFF file or a Zarr store holds several.
        follow_links: whether frames may lie in other files that a file names: external links, external storage and virtual
            datasets of HDF5, files of an OME-TIFF in other folders, and links in a Zarr store that lead out of it. By default
            they are refused by name: whoever wrote the file would choose which files of its reader are opened.

    Raises:
        FileError: the file is missing, truncated, broken, or not a movie; or it holds several channels, series or datasets,
            and none is chosen; or files differ in shape or type.
        ModuleNotFoundError: the package that reads this format is not installed.
    """
    choice = Choice(dataset, axes, channel, series, follow_links)

    def one(file: Path) -> Source:
        return _open(file, choice)

    if not isinstance(path, (str, Path)):
        files = [Path(p) for p in path]
        require(len(files) > 0, "path", path, "one file or more")
        return Movie(one(files[0]) if len(files) == 1 else open_files(files, one))
    path = Path(path)
    if path.is_dir() and not _is_zarr(path):
        return Movie(open_files(find_files(path, (*MOVIES, ".png")), one))
    if not path.exists() and any(letter in str(path) for letter in "*?["):
        return Movie(open_files(find_files(path, ()), one))
    return Movie(one(path))


def _is_zarr(path: Path) -> bool:
    return path.suffix.lower() == ".zarr" or any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def _open(path: Path, choice: Choice) -> Source:
    """Open one file; errors of any reader become a `FileError` that names it."""
    if not (os.path.isfile(path) or os.path.isdir(path)):
        raise FileError(f"{path}: {'not a regular file' if os.path.lexists(path) else 'no such file'}; {EXPECTED}")
    suffix = ".zarr" if path.is_dir() else path.suffix.lower()
    opener: Callable[[Path, Choice], Source]
    if suffix == ".png":
        opener = _image
    elif suffix in MOVIES:
        opener = load(f"lfjax.io.{MOVIES[suffix]}").open_source
    else:
        raise FileError(f"{path}: unknown suffix {path.suffix!r}; {EXPECTED}")
    try:
        source = opener(path, choice)
    except (LfjaxError, ModuleNotFoundError):
        raise
    except Exception as error:  # readers of damaged files raise errors of any kind
        raise FileError(f"{path}: cannot be read ({reason(error)}); {EXPECTED}") from error
    if 0 in source.shape:
        source.close()
        raise FileError(f"{path}: frames {source.shape}; {EXPECTED}")
    return source


def _image(path: Path, choice: Choice) -> Source:
    """An image as a movie of one frame."""
    choice.only(path, "follow_links")
    frame = read_frame(path)
    return Source((1, *frame.shape), frame.dtype, lambda numbers: read_frame(path)[None], files=(path,))


def write_movie(path: str | Path, frames: ArrayLike, *, frame_s: float | None = None) -> None:
    """Write frames (t, y, x) in their own type to .h5 or .tif, as `open_movie` reads them.

    Args:
        path: .h5, .hdf5, .tif or .tiff.
        frames: (t, y, x).
        frame_s: time from frame to frame in seconds: the attribute `frame_s` in HDF5; in TIFF `finterval` of ImageJ, or
            TimeIncrement of OME-TIFF where ImageJ has no such type, or has no room.

    Raises:
        FileError: the suffix is unknown, or the frames are not a movie of finite numbers.
        ParameterError: `frame_s` is not a positive number.
    """
    path = Path(path)
    require(frame_s is None or (math.isfinite(frame_s) and frame_s > 0), "frame_s", frame_s, "a positive number")
    array = check_array(path, frames, "tyx")
    suffix = path.suffix.lower()
    if suffix not in (".h5", ".hdf5", ".tif", ".tiff"):
        raise FileError(f"{path}: unknown suffix {suffix!r}; expected .h5, .hdf5, .tif or .tiff")
    if suffix in (".h5", ".hdf5"):
        with new_hdf5(path, array.nbytes) as file:
            dataset = file.create_dataset("frames", data=array, chunks=(1, *array.shape[1:]))
            if frame_s is not None:
                dataset.attrs["frame_s"] = frame_s
        return
    with writing(path, array.nbytes) as temporary:
        _write_tiff(temporary, array, frame_s)


def _write_tiff(path: Path, array: np.ndarray, frame_s: float | None) -> None:
    big = array.nbytes > IMAGEJ_LIMIT_BYTES
    about: dict[str, Any] = {"metadata": None, "ome": False, "bigtiff": big}
    if frame_s is not None and not big and array.dtype.name in IMAGEJ_TYPES:
        about = {"imagej": True, "metadata": {"axes": "TYX", "finterval": frame_s}}
    elif frame_s is not None:
        about = {"ome": True, "bigtiff": big, "metadata": {"axes": "TYX", "TimeIncrement": frame_s, "TimeIncrementUnit": "s"}}
    load("tifffile", "TIFF").imwrite(path, array, photometric="minisblack", **about)
