"""Frames and volumes in files; the suffix tells the format."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike

from lfjax._lazy import load
from lfjax.errors import FileError
from lfjax.io.arrays import Volume

FORMATS = {".tif": "tiff", ".tiff": "tiff", ".h5": "hdf5", ".hdf5": "hdf5"}
"""Suffix -> the module of `lfjax.io` that reads and writes it."""
FRAMES = {**FORMATS, ".png": "png", ".npy": "npy"}
"""Suffix -> the module of `lfjax.io` that reads one frame from it."""


def read_frame(
    path: str | Path, *, page: int | None = None, dataset: str | None = None, follow_links: bool = False
) -> np.ndarray:
    """Read one camera frame; more light is more, also in TIFF files of the kind MINISWHITE, whose values are inverted.

    Colour images are read where red, green and blue are equal, as programs that know no grey write them.

    Args:
        path: .tif, .tiff, .ome.tif, .h5, .hdf5, .png or .npy.
        page: number of the page of a stack, from 0; needed where there are several.
        dataset: name of the dataset in HDF5. None: `frame`, or `frames`, or the only one of two axes (of three, if there
            is none).
        follow_links: whether values may lie in other files that the file names, see `open_movie`.

    Returns:
        (y, x), of the integer or floating type the file has.

    Raises:
        FileError: missing, broken, of unknown suffix, a stack without `page`, a colour image, or not finite real numbers.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FRAMES:
        raise FileError(f"{path}: suffix {suffix!r} is not known; expected one of {', '.join(FRAMES)}, .ome.tif")
    module = load(f"lfjax.io.{FRAMES[suffix]}")
    if FRAMES[suffix] == "hdf5":
        return module.read_frame(path, page=page, dataset=dataset, follow_links=follow_links)
    if dataset is not None:
        raise FileError(f"{path}: dataset={dataset!r}: only HDF5 files have datasets; expected none")
    links = {"follow_links": follow_links} if FRAMES[suffix] == "tiff" else {}
    return module.read_frame(path, page=page, **links)


def read_volume(path: str | Path, *, follow_links: bool = False) -> Volume:
    """Read a volume and its voxel size.

    Args:
        path: .tif, .tiff, .ome.tif, .h5 or .hdf5.
        follow_links: whether values may lie in other files that the file names, see `open_movie`.

    Returns:
        `(array, voxel_um)`: (z, y, x) of the type the file has, and the voxel size (z, y, x) in micrometres, None
        if the file does not tell.

    Raises:
        FileError: missing, broken, of unknown suffix, or not one finite grey stack.
    """
    return _format(path).read_volume(path, follow_links=follow_links)


def write_volume(path: str | Path, volume: ArrayLike, voxel_um: tuple[float, float, float]) -> None:
    """Write a volume with its voxel size, as 32-bit floats.

    Args:
        path: .ome.tif (OME-TIFF), .tif or .tiff (ImageJ hyperstack), .h5 or .hdf5.
        volume: (z, y, x).
        voxel_um: voxel size (z, y, x) in micrometres.

    Raises:
        FileError: unknown suffix, or an array that is not a finite volume, or too big for the format.
        ParameterError: `voxel_um` is not three positive numbers.
    """
    _format(path).write_volume(path, volume, voxel_um)


def write_frame(path: str | Path, frame: ArrayLike) -> None:
    """Write one image; its type is kept.

    Args:
        path: .tif, .tiff, .ome.tif, .h5 or .hdf5.
        frame: (y, x), integer or floating.

    Raises:
        FileError: unknown suffix, or an array that is not a finite grey image.
    """
    _format(path).write_frame(path, frame)


def require_format(path: str | Path) -> None:
    """Refuse a name whose suffix no format has; commands ask before any work is done.

    Raises:
        FileError: unknown suffix.
    """
    if Path(path).suffix.lower() not in FORMATS:
        suffix = Path(path).suffix.lower()
        raise FileError(f"{path}: suffix {suffix!r} is not known; expected one of {', '.join(FORMATS)}, .ome.tif")


def _format(path: str | Path) -> ModuleType:
    require_format(path)
    return load(f"lfjax.io.{FORMATS[Path(path).suffix.lower()]}")
