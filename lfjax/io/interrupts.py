"""Ctrl-C that waits until what must not be torn is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C, and what a program treats alike, waits until the block ends; the second of its kind does not.

    For other libraries that write with threads of their own: torn away, these threads print tracebacks when the process ends.
    Only signals with a handler in Python wait, and only where the main thread runs the block: no other one is interrupted.
    """
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    mine = {number: handler for number, handler in usual.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        mine = {}
    waiting: set[int] = set()

    def wait(number: int, frame: FrameType | None) -> None:
        if number in waiting:
            mine[signal.Signals(number)](number, frame)
        waiting.add(number)

    for number in mine:
        signal.signal(number, wait)
    try:
        yield
    finally:
        for number, handler in mine.items():
            signal.signal(number, handler)
        for late in waiting:
            signal.raise_signal(late)
