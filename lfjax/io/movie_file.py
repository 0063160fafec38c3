"""Movies of frames (t, y, x) in HDF5, TIFF stacks and OME-Zarr, read piece by piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from lfjax._lazy import load
from lfjax.errors import FileError, LfjaxError
from lfjax.io.arrays import check_array
from lfjax.io.atomic import writing

EXPECTED = "expected a movie (t, y, x) of numbers: HDF5 with `frames`, a TIFF stack, or OME-Zarr"


def open_movie(path: str | Path) -> Any:
    """Open a movie as an array (t, y, x) with `shape`, `dtype`, `len()` and slices, which reads only the requested frames.

    HDF5 (.h5, .hdf5): the dataset `frames`. TIFF (.tif, .tiff): a stack, memory-mapped or, if compressed, decoded page by page.
    Zarr (.zarr): an array, or the finest level of OME-Zarr without its axes of length 1.

    Raises:
        FileError: the file is missing, broken, or not a movie.
        ModuleNotFoundError: the package that reads this format is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path}: no such file; {EXPECTED}")
    openers = {".h5": _hdf5, ".hdf5": _hdf5, ".tif": _tiff, ".tiff": _tiff, ".zarr": _zarr}
    opener = openers.get(path.suffix.lower())
    if opener is None:
        raise FileError(f"{path}: unknown suffix {path.suffix!r}; {EXPECTED}")
    try:
        movie = opener(path)
    except (LfjaxError, ModuleNotFoundError):
        raise
    except Exception as error:  # readers of damaged files raise errors of any kind
        raise FileError(f"{path}: cannot be read ({error}); {EXPECTED}") from error
    if movie is None or len(movie.shape) != 3 or 0 in movie.shape or np.dtype(movie.dtype).kind not in "uif":
        found = "nothing" if movie is None else f"{movie.dtype} {tuple(movie.shape)}"
        raise FileError(f"{path}: found {found}; {EXPECTED}")
    return movie


def write_movie(path: str | Path, frames: ArrayLike) -> None:
    """Write frames (t, y, x) in their own type to .h5 or .tif, as `open_movie` reads them.

    Raises:
        FileError: the suffix is unknown, or the frames are not a movie of finite numbers.
    """
    path = Path(path)
    array = check_array(path, frames, "tyx")
    suffix = path.suffix.lower()
    if suffix not in (".h5", ".hdf5", ".tif", ".tiff"):
        raise FileError(f"{path}: unknown suffix {suffix!r}; expected .h5, .hdf5, .tif or .tiff")
    with writing(path) as temporary:
        if suffix in (".h5", ".hdf5"):
            with h5py.File(temporary, "w") as file:
                file.create_dataset("frames", data=array, chunks=(1, *array.shape[1:]))
        else:
            big = array.nbytes > 2**32 - 2**25
            load("tifffile", "TIFF").imwrite(temporary, array, photometric="minisblack", metadata=None, ome=False, bigtiff=big)


def _hdf5(path: Path) -> h5py.Dataset | None:
    found = h5py.File(path, "r").get("frames")
    return found if isinstance(found, h5py.Dataset) else None


def _tiff(path: Path) -> Any:
    tifffile = load("tifffile", "TIFF")
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        size = file.filehandle.size
        whole = all(
            page is not None and all(a + n <= size for a, n in zip(page.dataoffsets, page.databytecounts, strict=True))
            for page in series.pages
        )
        if not whole:
            raise FileError(f"{path}: truncated, the header states {series.shape} values; expected a complete TIFF file")
        mapped = series.dataoffset is not None
    if mapped:
        return tifffile.memmap(path, mode="r")
    return load("zarr", "compressed TIFF").open_array(tifffile.imread(path, aszarr=True), mode="r")


def _zarr(path: Path) -> Any:
    zarr = load("zarr", "OME-Zarr")
    node: Any = zarr.open(store=str(path), mode="r")
    if isinstance(node, zarr.Group):
        about: Any = node.attrs.get("ome", node.attrs.asdict())
        scales = about.get("multiscales") if isinstance(about, dict) else None
        node = node[scales[0]["datasets"][0]["path"]] if scales else None
    if not isinstance(node, zarr.Array):
        return None
    return Squeezed(node) if 1 in node.shape[1:-2] else node


class Squeezed:
    """View of an array (t, 1, ..., 1, y, x) as (t, y, x)."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape = (array.shape[0], *(n for n in array.shape[1:-2] if n != 1), *array.shape[-2:])
        self.dtype = array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> np.ndarray:
        """Frames by number or slice."""
        found = np.asarray(self.array[which])
        return found.reshape(found.shape[: found.ndim - self.array.ndim + 1] + self.shape[1:])
