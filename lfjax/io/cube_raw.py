"""Cubes that lie in a file as one plain array beside a text header: Lispix (raw and rpl) and ENVI."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from lfjax.errors import FileError
from lfjax.io.claims import array_bytes

MICROMETRES = {
    "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometers": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimeters": 1e3, "cm": 1e4, "m": 1e6, "meter": 1e6, "meters": 1e6, "metre": 1e6,
}  # fmt: skip
"""Unit of length, in lower case, as scanners write it -> micrometres."""
Order = Literal["yxe", "yex", "eyx"]


def map_counts(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, offset: int, order: Order, header: Path
) -> Callable[[range], np.ndarray]:
    """Reader of rows (n, columns, channels) of a plain array.

    Args:
        path: of the array.
        shape: (rows, columns, channels).
        dtype: of the values, with their byte order.
        offset: bytes before them.
        order: their axes: "yxe" spectrum by spectrum, "yex" row by row of each channel, "eyx" image by image.
        header: the file that tells all this, for messages.

    Raises:
        FileError: the file has another length.
    """
    sizes = dict(zip("yxe", shape, strict=True))
    needed = offset + array_bytes(shape, dtype.itemsize)
    if os.path.getsize(path) != needed:
        told = f"{shape[0]} rows x {shape[1]} columns x {shape[2]} channels of {dtype.name} after {offset} bytes"
        raise FileError(f"{path}: {os.path.getsize(path)} bytes; expected {needed} by {header.name}: {told}")
    values = np.memmap(path, dtype, "r", offset, tuple(sizes[letter] for letter in order))
    turned = values.transpose([order.index(letter) for letter in "yxe"])
    return lambda rows: np.array(turned[rows.start : rows.stop])


def beside(path: Path, suffixes: Sequence[str], what: str) -> Path:
    """The file of the same name with one of some suffixes, in lower or upper case; an empty one is none at all.

    Raises:
        FileError: there is none.
    """
    names = [path.with_suffix(one) for suffix in suffixes for one in (suffix, suffix.upper())]
    found = next((one for one in names if os.path.isfile(one)), None)
    if found is None:
        raise FileError(f"{path}: {what} is missing; expected {path.with_suffix(suffixes[0]).name} beside it")
    return found


def whole_number(path: Path, fields: dict[str, str], name: str, least: int = 1, default: int | None = None) -> int:
    """A whole number of a text header.

    Raises:
        FileError: it is missing without a default, not a whole number, or less than `least`.
    """
    entry = fields.get(name)
    if entry is None and default is not None:
        return default
    if entry is None or not entry.isdecimal() or len(entry) > 18 or int(entry) < least:
        raise FileError(f"{path}: {name} is {'missing' if entry is None else entry}; expected a whole number from {least}")
    return int(entry)


def three_sizes(path: Path, fields: dict[str, str], names: tuple[str, str, str]) -> tuple[int, int, int]:
    """Three whole numbers of a text header, from 1; see `whole_number`."""
    first, second, third = (whole_number(path, fields, name) for name in names)
    return first, second, third


def real_number(path: Path, entry: str, name: str) -> float:
    """A finite number of a text header.

    Raises:
        FileError: it is none.
    """
    try:
        number = float(entry)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise FileError(f"{path}: {name} is {entry}; expected a number")
    return number


def one_of(path: Path, fields: dict[str, str], name: str, known: Sequence[str]) -> str:
    """A word of a text header, in lower case.

    Raises:
        FileError: it is missing or not one of those known.
    """
    entry = fields.get(name)
    if entry is None or entry.lower() not in known:
        raise FileError(f"{path}: {name} is {'missing' if entry is None else entry}; expected one of {', '.join(known)}")
    return entry.lower()


def pixel_size(sizes: Sequence[float], unit: str) -> tuple[float, float] | None:
    """Distance of points (y, x) in micrometres. None: the unit is not a length, or a size is 0."""
    scale = MICROMETRES.get(unit.strip().lower())
    if scale is None or not all(size > 0 for size in sizes):
        return None
    return scale * sizes[0], scale * sizes[1]
