"""Runs that keep a state: one process for each, and one line that tells what an interruption leaves."""

from __future__ import annotations

import atexit
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from lfjax.io.lock import locked

_locks = ExitStack()
_states: list[tuple[Path, str]] = []
_heard: list[int] = []  # signals that have interrupted the command


def claim(output: Path, states: dict[Path, str], number: int = 0) -> None:
    """Hold the lock of a result until the command ends.

    Args:
        output: the result.
        states: file or folder that a run keeps -> its content, in the plural.
        number: number of this process among several that share the result.

    Raises:
        BusyError: another process holds it.
    """
    _locks.enter_context(locked(output, number))
    _states.extend(states.items())


def kept_text() -> str | None:
    """What the run has kept so far, and how to resume it. None: nothing."""
    for place, content in _states:
        if place.is_file() or (place.is_dir() and any(place.iterdir())):
            return f"{content} are kept in {place}, and the same command resumes"
    return None


@contextmanager
def one_run() -> Iterator[None]:
    """The time of a command: SIGTERM counts as Ctrl-C, both are noted, and its locks are released at the end."""
    main = threading.current_thread() is threading.main_thread()
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    mine = {number: usual for number, usual in defaults.items() if main and signal.getsignal(number) == usual}
    for number in mine:
        signal.signal(number, _interrupt)
    try:
        with _locks:
            yield
    finally:
        _states.clear()
        _heard.clear()
        for number, usual in mine.items():
            signal.signal(number, usual)
        if signal.SIGTERM in mine:
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # all is done: the exit code shall say so


def told_when_interrupted(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with one line on standard error, and exit code 130, where Ctrl-C ends it; 143 for SIGTERM.

    Libraries turn an interruption into errors of their own: one that comes while TensorStore is imported is an ImportError.
    """

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except (KeyboardInterrupt, Exception) as error:
            if not (isinstance(error, KeyboardInterrupt) or _heard):
                raise
            typer.echo(f"lfjax: interrupted; {kept_text() or 'files that are whole stay, and nothing else is kept'}", err=True)
            raise typer.Exit(143 if signal.SIGTERM in _heard else 130) from None

    return run


def _interrupt(number: int, frame: FrameType | None) -> None:
    _heard.append(number)
    raise KeyboardInterrupt
