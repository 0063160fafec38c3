"""What became of a mutated file: right, refused clearly, or one of six faults."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import pandas as pd

from lfjax.errors import LfjaxError

GOOD = ("right", "clear")
FAULTS = ("unclear", "raw", "crash", "hang", "blow-up", "silent")
HANG_S = 10.0
BLOW_UP_MIB = 1000.0
LONGEST = 700  # letters of a message that is still one line: those of `lfjax.errors`, and its three dots


class Outcome(NamedTuple):
    """One mutated file.

    Attributes:
        reader: its name.
        number: of the case: with the name of the reader it gives the mutation again.
        mutation: what was done to which file.
        kind: one of `GOOD` or `FAULTS`.
        message: of the error, or what is wrong with the result.
        seconds: that the reader took.
        mebibytes: by which its memory grew at most.
    """

    reader: str
    number: int
    mutation: str
    kind: str
    message: str
    seconds: float
    mebibytes: float


def leaves(value: Any) -> list[np.ndarray]:
    """Arrays and numbers of a result, however they are nested."""
    if isinstance(value, pd.DataFrame):
        return [leaf for name in range(value.shape[1]) for leaf in leaves(value.iloc[:, name].to_numpy())]
    if isinstance(value, eqx.Module) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return [leaf for field in dataclasses.fields(value) for leaf in leaves(getattr(value, field.name, None))]
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    if isinstance(value, (list, tuple)):
        return [leaf for one in value for leaf in leaves(one)]
    return [np.asarray(value)] if isinstance(value, (np.ndarray, np.generic, jax.Array, float, int)) else []


def judge_error(error: BaseException, names: Sequence[str]) -> tuple[str, str]:
    """Whether an error is one line of lfjax that names one of the files.

    Args:
        error: what the reader raised.
        names: of the files that it was given.
    """
    message = str(error)
    if not isinstance(error, LfjaxError):
        return "raw", f"{type(error).__name__}: {message}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return "blow-up", message
        cause = cause.__cause__
    lines = len(message.splitlines()) > 1 or any(ord(letter) < 32 for letter in message)
    named = any(name in message for name in names)
    wrong = [
        what
        for what, there in (
            ("several lines", lines), ("no file named", not named), ("too long", len(message) > LONGEST),
            ("an address", re.search(r"object at 0x|<class '", message) is not None), ("secrets", "root:" in message),
        )
        if there
    ]  # fmt: skip
    return ("unclear", f"{', '.join(wrong)}: {message}") if wrong else ("clear", message)


def judge_result(result: Any, good: Any, mutation: str, exact: bool, *, finite: bool = True) -> tuple[str, str]:
    """Whether a result may stand: finite, and that of the good file where bytes are only missing.

    Args:
        result: what the reader returned.
        good: what it returns for the good file.
        mutation: what was done.
        exact: whether a file without its end must give the result of the good file; texts may end earlier.
        finite: whether NaN and infinity are silent nonsense.
    """
    arrays, wanted = leaves(result), leaves(good)
    for array in arrays if finite else ():
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            return "silent", f"{array.dtype} {array.shape} with NaN or infinity"
        if array.dtype.kind == "O":
            bad = [v for v in array.ravel() if isinstance(v, float) and not math.isfinite(v)]
            if bad:
                return "silent", f"objects {array.shape} with {bad[0]}"
    lost = any(told in mutation for told in ("truncated to", "never written", "chunk written", "virtual", "external"))
    if exact and lost:
        same = len(arrays) == len(wanted) and all(np.array_equal(a, b) for a, b in zip(arrays, wanted, strict=True))
        if not same:
            return "silent", "a file without all its values is read, with other values"
    return "right", ""
