"""Errors and warnings of lfjax: every message names the argument, the value given and the value expected."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

LONGEST = 600  # letters of a message; a broken file may hold any number of names


class LfjaxError(ValueError):
    """Base of all errors that lfjax raises on bad input; the message is one line, whatever a file or a library put into it."""

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class ParameterError(LfjaxError):
    """A physical or numerical parameter is out of range."""


class ShapeError(LfjaxError):
    """An array does not have the shape that the function needs."""


class FileError(LfjaxError):
    """A file is missing, broken, or does not hold the data asked for."""


class CalibrationError(LfjaxError):
    """The lenslet lattice cannot be found in the frames given."""


class BusyError(LfjaxError):
    """Another process writes the same result; the message names it."""


class NoSpaceError(OSError):
    """A disk is full, or a quota is reached; the message names the file, the space that it needs, and the space there is."""

    def __str__(self) -> str:
        return str(self.strerror)


class LfjaxWarning(UserWarning):
    """Base of all warnings of lfjax; commands print them."""


class DataWarning(LfjaxWarning):
    """A file says something unusual; the message tells how lfjax reads it."""


class StorageWarning(LfjaxWarning):
    """Something on the disk is damaged or was not kept, and is computed again; results are not affected."""


class CalibrationWarning(LfjaxWarning):
    """The frames and the stated parameters disagree; lfjax follows the frames."""


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text as one line that a terminal can show: control characters are escaped, and the middle of a long text is left out.

    >>> one_line("first\\n  second\\x00")
    'first second\\\\x00'
    """
    joined = " ".join(part.strip() for part in text.splitlines() if part.strip())
    plain = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in joined)
    return plain if len(plain) <= longest else f"{plain[: longest - longest // 4]} ... {plain[-(longest // 4) :]}"


def require(holds: bool, argument: str, got: Any, expected: str) -> None:
    """Raise `ParameterError` naming the argument, its value and the expected value, unless `holds`.

    An option of a command appears as it is typed: `--restarts 0`, and a flag or an option that is missing without a value.
    """
    if not holds:
        raise ParameterError(f"{_typed(argument, got)}: expected {expected}")


def _typed(argument: str, got: Any) -> str:
    if not argument.startswith("-"):
        return f"{argument} = {got!r}"
    if got is None or got is True:
        return argument
    value = shlex.quote(got) if isinstance(got, str) else f"{got:.12g}" if isinstance(got, float) else str(got)
    return f"{argument} {value}"


def require_finite(argument: str, values: Any) -> None:
    """Raise `ParameterError` naming the first value that is NaN or infinite, and its place, unless all are finite.

    >>> require_finite("sparsity", 0.1)

    Args:
        argument: its name.
        values: a number or an array of real numbers.
    """
    import numpy as np  # `import lfjax` loads no arrays

    array = np.asarray(values)
    wrong = ~np.isfinite(array)
    if not wrong.any():
        return
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    place = f"[{', '.join(map(str, first))}]" if first else ""
    several = f", and {int(wrong.sum()) - 1} of {array.size - 1} others are not finite" if wrong.sum() > 1 else ""
    raise ParameterError(f"{argument}{place} = {float(array[first])}{several}: expected finite numbers")


def require_shape(argument: str, got: Sequence[int], expected: Sequence[int | str]) -> None:
    """Raise `ShapeError` unless `got` matches `expected`, where a string stands for any length.

    >>> require_shape("frame", (4, 5), ("y", "x"))
    """
    same = len(got) == len(expected) and all(isinstance(e, str) or g == e for g, e in zip(got, expected, strict=True))
    if not same:
        wanted = ", ".join(str(e) for e in expected)
        raise ShapeError(f"{argument} has shape {tuple(got)}: expected ({wanted})")
