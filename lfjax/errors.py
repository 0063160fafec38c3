"""Errors and warnings of lfjax: every message names the argument, the value given and the value expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class LfjaxError(ValueError):
    """Base of all errors that lfjax raises on bad input."""


class ParameterError(LfjaxError):
    """A physical or numerical parameter is out of range."""


class ShapeError(LfjaxError):
    """An array does not have the shape that the function needs."""


class FileError(LfjaxError):
    """A file is missing, broken, or does not hold the data asked for."""


class CalibrationError(LfjaxError):
    """The lenslet lattice cannot be found in the frames given."""


class LfjaxWarning(UserWarning):
    """Base of all warnings of lfjax; commands print them."""


class DataWarning(LfjaxWarning):
    """A file says something unusual; the message tells how lfjax reads it."""


class CalibrationWarning(LfjaxWarning):
    """The frames and the stated parameters disagree; lfjax follows the frames."""


def require(holds: bool, argument: str, got: Any, expected: str) -> None:
    """Raise `ParameterError` naming the argument, its value and the expected value, unless `holds`."""
    if not holds:
        raise ParameterError(f"{argument} = {got!r}: expected {expected}")


def require_shape(argument: str, got: Sequence[int], expected: Sequence[int | str]) -> None:
    """Raise `ShapeError` unless `got` matches `expected`, where a string stands for any length.

    >>> require_shape("frame", (4, 5), ("y", "x"))
    """
    same = len(got) == len(expected) and all(isinstance(e, str) or g == e for g, e in zip(got, expected, strict=True))
    if not same:
        wanted = ", ".join(str(e) for e in expected)
        raise ShapeError(f"{argument} has shape {tuple(got)}: expected ({wanted})")
