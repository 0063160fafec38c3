"""Groups of options that several commands share, each one parameter of the function of a command.

>>> from typing import Annotated
>>> @dataclasses.dataclass(frozen=True)
... class Size:
...     rows: int = 2
>>> @grouped
... def paint(colour: str, size: Size) -> str:
...     return colour * size.rows
>>> list(inspect.signature(paint).parameters)  # as Typer sees it
['colour', 'rows']
>>> paint("b", rows=3)
'bbb'
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any


def grouped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with each parameter that is a dataclass replaced by its fields, as keywords.

    Typer makes an option of every keyword. The fields are annotated as Typer wants its parameters, and all have defaults.

    Args:
        function: a command; it gets the dataclasses.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    names = inspect.signature(function).parameters
    groups = {name: hints[name] for name in names if dataclasses.is_dataclass(hints[name])}
    parameters = [p.replace(annotation=hints[name]) for name, p in names.items() if name not in groups]
    for group in groups.values():
        types = typing.get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, annotation=types[field.name], default=field.default)
            for field in dataclasses.fields(group)
        ]

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:
        for name, group in groups.items():
            fields = {field.name for field in dataclasses.fields(group)} & set(options)
            options[name] = group(**{field: options.pop(field) for field in fields})
        return function(*arguments, **options)

    del command.__wrapped__  # Typer and `inspect` would look at the function inside
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command
