"""What the numbers and names of options may be, checked before a command opens any file.

A number is finite and positive, a count 1 or more, and a text not empty, unless a table of this module says otherwise; a new
option is thus checked without a word about it.

>>> from typing import Annotated
>>> import typer
>>> @ranged
... def paint(batch: Annotated[int, typer.Option(help="Walls at once.")] = 1) -> int:
...     return batch
>>> paint(batch=3)
3
>>> paint(batch=0)
Traceback (most recent call last):
lfjax.errors.ParameterError: --batch 0: expected 1 or more, at most 2147483647
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

from lfjax.errors import require

LARGEST = 1e12
"""Largest number with a unit: beyond any instrument, and far from where 32-bit floats overflow."""
MOST = 2**31 - 1
"""Largest count: arrays of more entries along an axis are not indexed."""
ZERO_TOO = (
    "--tissue-um", "--shift", "--sparsity", "--total-variation", "--firing-hz", "--motion-um", "--extend", "--soft",
    "--channel", "--series", "--page", "--slow-background", "--process",
    "--air-cm", "--beryllium-um", "--smooth", "--angle-deg",
)  # fmt: skip
"""Options that may be zero."""
SIGNED = ("--offset-ev", "--rotation", "--rotation-rad", "--threshold", "--b-factor")
"""Options that may be negative."""
SPECIAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "--anisotropy": (lambda g: 0 <= g < 1, "0 to below 1"),
    "--bleach-s": (lambda t: t > 0, "a positive number, or inf"),
    "--false-discovery": (lambda q: 0 < q < 1, "a fraction between 0 and 1"),
    "--islands": (lambda f: 0 <= f <= 1, "a fraction from 0 to 1"),
    "--kernel": (lambda n: 2 <= n <= 8, "2 to 8"),
    "--seed": (lambda s: 0 <= s < 2**32, f"0 to {2**32 - 1}, a number of 32 bits"),
    "--snr": (lambda s: 0 < s <= LARGEST, f"a positive number, at most {LARGEST:g}, or no --snr for images without noise"),
    "--tolerance": (lambda e: 0 < e < 1, "a number between 0 and 1"),
    "--withhold": (lambda f: 0 <= f < 1, "a fraction from 0 to below 1"),
}
"""Options with a range of their own: whether a value may be, and the values that may."""


def ranged(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the values of its options checked before it runs.

    Args:
        function: a command, whose parameters have Typer's annotations.

    Returns:
        The same command; it raises `ParameterError` with the name of the option as the user types it.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    names = {name: option_name(name, hints[name]) for name in inspect.signature(function).parameters}

    @functools.wraps(function)
    def command(*arguments: Any, **values: Any) -> Any:
        for name, value in values.items():
            for one in value if isinstance(value, (list, tuple)) else (value,):
                check_value(names[name], one)
        return function(*arguments, **values)

    return command


def option_name(name: str, annotation: Any) -> str:
    """An option as the user types it, in its long form; of an argument, its name in the help."""
    for info in getattr(annotation, "__metadata__", ()):
        if type(info).__name__ == "ArgumentInfo":
            return name.upper()
        # Typer takes the first name inside Annotated for a default until it makes the option
        for declared in (getattr(info, "default", None), *(getattr(info, "param_decls", None) or ())):
            if isinstance(declared, str) and declared.startswith("--"):
                return declared
    return f"--{name.replace('_', '-')}"


def check_value(option: str, value: Any) -> None:
    """Refuse a value of an option.

    Args:
        option: its name, for the tables and the message.
        value: a number or a text; others, and None, pass. (A path that is empty is the folder ".", as a user may mean it.)

    Raises:
        ParameterError: it is out of range, or empty.
    """
    if isinstance(value, str):
        require(value != "", option, value, "a name or a text that is not empty")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if option in SPECIAL:
        holds, expected = SPECIAL[option]
        require(holds(value), option, value, expected)
        return
    most = MOST if isinstance(value, int) else LARGEST
    if option in SIGNED:
        require(abs(value) <= most, option, value, f"a number, {-most:g} to {most:g}")
    elif option in ZERO_TOO:
        require(0 <= value <= most, option, value, f"zero or more, at most {_text(most)}")
    elif isinstance(value, int):
        require(1 <= value <= most, option, value, f"1 or more, at most {_text(most)}")
    else:
        require(0 < value <= most, option, value, f"a positive number, at most {_text(most)}")


def _text(most: float) -> str:
    return str(most) if isinstance(most, int) else f"{most:g}"
