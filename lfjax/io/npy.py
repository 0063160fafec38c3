"""Frames and spectra in files of NumPy (.npy): read only, and never as pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lfjax.errors import FileError
from lfjax.io.arrays import check_array, choose_page, reading
from lfjax.io.claims import require_claim
from lfjax.io.cube import Cube
from lfjax.io.cube_layout import Ask, lay_out as lay_out_cube
from lfjax.io.movie_source import Choice, Source, check_axes, lay_out


def read_frame(path: str | Path, *, page: int | None = None) -> np.ndarray:
    """Read an array (y, x), or one of (t, y, x); see `lfjax.io.read_frame`."""
    with reading(path, "NPY"):
        array = _mapped(path)
        number = choose_page(path, len(array) if array.ndim == 3 else 1, page)
        return check_array(path, np.array(array[number] if array.ndim == 3 else array, array.dtype.newbyteorder("=")), "yx")


def open_source(path: Path, choice: Choice) -> Source:
    """Open an array (t, y, x) or (y, x) as a movie; see `lfjax.io.open_movie`."""
    choice.only(path, "axes", "channel", "follow_links")
    array = _mapped(path)
    found = f"shape {array.shape}"
    usual = {2: "yx", 3: "tyx"}.get(array.ndim)
    if choice.axes is None and usual is None:
        raise FileError(f"{path}: {found}; name its axes with axes= (--axes), 'tcyx' for example")
    axes = check_axes(choice.axes, array.ndim, found) if choice.axes else usual
    layout = lay_out(path, axes or "", array.shape, choice.channel)
    return Source(
        shape=layout.movie_shape,
        dtype=array.dtype,
        read=lambda numbers: np.array(layout.arrange(array[layout.select(numbers)])),
        files=(path,),
    )


def _mapped(path: str | Path) -> np.ndarray:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uif":
        raise FileError(f"{path}: values of type {getattr(array, 'dtype', type(array).__name__)}; expected integers or floats")
    return array


def read_array(path: str | Path) -> np.ndarray:
    """Read any array of numbers, or table of named fields, whole, in native byte order.

    Raises:
        FileError: the file is missing, broken or shorter than its header says, holds objects, or more than memory takes.
    """
    with reading(path, "NumPy"):
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # which compares the file with its header
        if not isinstance(mapped, np.ndarray):
            raise FileError(f"{path}: several arrays (.npz); expected one")
        require_claim(path, mapped.nbytes)
        return np.array(mapped, mapped.dtype.newbyteorder("="))


def open_cube_array(path: Path, ask: Ask) -> Cube:
    """Open an array (rows, columns, channels), or of other axes, as a cube; see `lfjax.io.open_cube`."""
    ask.only(path, "axes", "detector", "grid")
    array = _mapped(path)
    layout = lay_out_cube(path, f"shape {array.shape}", array.shape, ask)
    return Cube(
        layout.cube_shape,
        layout.sum_type(array.dtype),
        lambda rows: np.array(layout.load(array.__getitem__, rows)),
        energy=ask.energy,
        files=(path,),
    )
