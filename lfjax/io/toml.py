"""TOML files: tables whose keys and types are checked, so that an error names file, key, the value and the one expected.

>>> from typing import NamedTuple
>>> class Volume(NamedTuple):
...     z_um: tuple[float, ...]
...     lenslets: int = 9
>>> of_table(Volume, "volume", {"z_um": [-1, 1]})
Volume(z_um=(-1, 1), lenslets=9)
>>> of_table(Volume, "volume", {"z_um": "abc"})
Traceback (most recent call last):
lfjax.errors.ParameterError: [volume] z_um = 'abc': expected a list of numbers
"""

from __future__ import annotations

import inspect
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lfjax.errors import FileError, LfjaxError, ParameterError, require
from lfjax.io.arrays import reason
from lfjax.io.texts import read_text

T = TypeVar("T")
KINDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
}
"""Types of values, in the singular and in the plural."""


def read_toml(path: str | Path, holds: str) -> dict[str, Any]:
    """The tables of a TOML file.

    Args:
        path: the file.
        holds: its content, for the message: "a microscope".

    Raises:
        FileError: it is missing, a folder, not text in UTF-8, or not TOML.
    """
    text = read_text(path, "TOML", f"{holds} in TOML")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, or numbers beyond Python's limits
        raise FileError(f"{path}: cannot be read ({reason(error)}); expected {holds} in TOML") from error


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn an error about a value of a file into a `FileError` that names the file; a `FileError` names its own."""
    try:
        yield
    except FileError:
        raise
    except LfjaxError as error:
        raise FileError(f"{path}: {error}") from error


@contextmanager
def within(table: str) -> Iterator[None]:
    """Put the name of a table before an error about one of its values."""
    try:
        yield
    except LfjaxError as error:
        raise ParameterError(f"[{table}] {error}") from error


def of_table(kind: type[T], name: str, table: Any) -> T:
    """A dataclass or named tuple from a table, whose values must have the types of its annotations.

    A whole number stands for a float too, a list for a tuple; NaN is no number. The ranges are those that `kind` checks.

    Args:
        kind: the class; its fields are numbers, truth values, texts, tuples of these, and None.
        name: name of the table, for messages.
        table: the values by key.

    Raises:
        ParameterError: it is no table, a key is unknown or missing, or a value has another type or is out of range. The message
            names table and key.
    """
    require_table(name, table)
    hints, known = typing.get_type_hints(kind), inspect.signature(kind).parameters
    require_keys(f"[{name}]", table, known, [key for key, field in known.items() if field.default is field.empty])
    values = {key: _value(f"[{name}] {key}", value, hints[key]) for key, value in table.items()}
    with within(name):
        return kind(**values)


def require_table(name: str, table: Any) -> None:
    """Raise `ParameterError` unless a value is a table."""
    require(isinstance(table, Mapping), name, table, f"a table, [{name}]")


def require_keys(where: str, table: Mapping[str, Any], known: Iterable[str], needed: Iterable[str] = ()) -> None:
    """Refuse unknown and missing keys by name.

    Args:
        where: the table, for messages.
        table: the values by key.
        known: keys that may be there.
        needed: those of them that must.

    Raises:
        ParameterError: a key is unknown or missing; the message lists the known ones.
    """
    known = list(known)
    unknown, missing = sorted(set(table) - set(known)), sorted(set(needed) - set(table))
    if unknown or missing:
        said = [f"unknown {', '.join(unknown)}"] * bool(unknown) + [f"missing {', '.join(missing)}"] * bool(missing)
        raise ParameterError(f"{where}: {'; '.join(said)}: expected {', '.join(known)}")


def is_number(value: Any) -> bool:
    """Whether a value is a number, infinity included; True, False and NaN are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return is_number(value) and math.isfinite(value)


def _value(where: str, value: Any, hint: Any) -> Any:
    """A value as the type of an annotation, lists as tuples.

    Raises:
        ParameterError: it has another type.
    """
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    plain = tuple(value) if isinstance(value, list) else value
    require(any(_fits(plain, option) for option in options), where, value, " or ".join(map(_expected, options)))
    return plain


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is tuple:
        of = typing.get_args(hint)
        several = of[-1] is ...
        return (
            isinstance(value, tuple)
            and (several or len(value) == len(of))
            and all(_fits(one, of[0] if several else of[at]) for at, one in enumerate(value))
        )
    if hint is float:
        return is_number(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if hint is type(None) else isinstance(value, hint)


def _expected(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        of = typing.get_args(hint)
        return f"{'a list of' if of[-1] is ... else len(of)} {KINDS[of[0]][1]}"
    return "none" if hint is type(None) else KINDS[hint][0]


def toml_lines(values: Mapping[str, Any]) -> str:
    """Lines `name = value` of a TOML document, for numbers, text and lists of them; None, unknown to TOML, is left out."""
    plain = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items() if value is not None}
    return "".join(f"{name} = {value}\n".replace("\x7f", "\\u007f") for name, value in plain.items())
