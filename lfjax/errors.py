"""What lfjax raises and warns: every message names the argument, what came and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class LfjaxError(ValueError):
    """Base of all errors that lfjax raises on bad input."""


class ParameterError(LfjaxError):
    """A physical or numerical parameter is outside its meaning."""


class ShapeError(LfjaxError):
    """An array has other dimensions than the function needs."""


class FileError(LfjaxError):
    """A file is missing, broken, or holds something else than was asked for."""


class CalibrationError(LfjaxError):
    """The lenslet lattice cannot be found in the frames given."""


class CalibrationWarning(UserWarning):
    """The frames and the stated parameters disagree; the frames were believed."""


def require(holds: bool, argument: str, got: Any, expected: str) -> None:
    """Raise `ParameterError` naming the argument, the value that came and what was expected."""
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
