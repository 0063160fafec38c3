"""Numbers that a file holds one by one, in columns of tables and in attributes: finite, or refused by place.

A pose that is NaN gives a map that is NaN, and 1e300 is infinite in 32 bits: both are refused where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray

from lfjax.errors import FileError

LARGEST = 1e9
"""Largest number in size: beyond any pose, length or exposure in the units of these files."""


def require_rows(
    path: str | Path,
    column: str,
    values: Shaped[NDArray[Any], "rows ..."],
    right: Bool[NDArray[np.bool_], "rows ..."],
    expected: str,
    block: str = "",
) -> None:
    """Refuse a column with a wrong entry.

    >>> require_rows("a.star", "rlnVoltage", np.array([300.0, 0.0]), np.array([True, False]), "more than 0", "optics")
    Traceback (most recent call last):
    lfjax.errors.FileError: a.star: optics, row 2, column rlnVoltage: 0.0; expected more than 0

    Args:
        path: path of the file, for messages.
        column: name of the column.
        values: its entries, as the file has them.
        right: whether an entry is right; of entries with several numbers, whether each number is.
        expected: the entries that may be.
        block: name of the table.

    Raises:
        FileError: an entry is wrong; the message names file, table, row (from 1), column and entry, and counts the others.
    """
    wrong = ~right.all(axis=tuple(range(1, right.ndim)))
    if not wrong.any():
        return
    row, count = int(np.argmax(wrong)), int(wrong.sum())
    entry = " ".join(str(values[row]).split())
    more = f" ({count} rows are like it)" if count > 1 else ""
    raise FileError(f"{path}: {f'{block}, ' * bool(block)}row {row + 1}, column {column}: {entry}; expected {expected}{more}")


def finite_column(
    path: str | Path, column: str, values: Shaped[NDArray[Any], "rows ..."], block: str = ""
) -> Float[NDArray[np.float64], "rows ..."]:
    """A column of finite numbers.

    Args:
        path: path of the file, for messages.
        column: name of the column.
        values: its entries: numbers, or objects that are numbers or their texts.
        block: name of the table.

    Raises:
        FileError: an entry is text, NaN, infinite or larger than `LARGEST`; see `require_rows`.
    """
    numbers = _numbers(values)
    with np.errstate(invalid="ignore"):
        right = np.abs(numbers) <= LARGEST  # False for NaN
    expected = "a number" if not np.isfinite(numbers).all() else f"a number of at most {LARGEST:g} in size"
    require_rows(path, column, values, right, expected, block)
    return numbers


def _numbers(entries: NDArray[Any]) -> Float[NDArray[np.float64], "rows ..."]:
    """Entries as 64-bit floats, NaN for those that are none."""
    if entries.dtype.kind in "biuf":
        return entries.astype(np.float64)
    found = np.full(entries.shape, np.nan)
    for place, entry in np.ndenumerate(entries):
        try:
            found[place] = float(entry)
        except (TypeError, ValueError, OverflowError):
            continue
    return found


def finite_attribute(
    path: str | Path, attributes: Mapping[str, Any], name: str, *, positive: bool = False, count: int | None = None
) -> tuple[float, ...]:
    """Numbers of an attribute.

    Args:
        path: path of the file, for messages.
        attributes: attributes by name.
        name: one of them.
        positive: whether they have to be more than 0.
        count: how many they have to be; None: one or more.

    Raises:
        FileError: there is no such attribute, or it is anything else.
    """
    wanted = f"{'a' if count == 1 else count or 'one or more'} {'positive ' * positive}number{'s' * (count != 1)}"
    if name not in attributes:
        raise FileError(f"{path}: no attribute {name}; expected {wanted}")
    found = np.ravel(np.asarray(attributes[name]))
    fits = found.dtype.kind in "iuf" and len(found) > 0 and count in (None, len(found))
    if not fits or not (np.abs(found) <= LARGEST).all() or (positive and not (found > 0).all()):
        entry = " ".join(str(attributes[name]).split())[:80]
        raise FileError(f"{path}: attribute {name} = {entry}; expected {wanted}")
    return tuple(float(number) for number in found)
