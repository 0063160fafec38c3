"""Progress of long loops, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn


class Steps(list[Any]):
    """Items of a loop, each of which stands for several units, so that a progress bar can show the units per second.

    Args:
        items: items to loop over.
        each: units per item.
        unit: name of the unit, "frames" for example.
    """

    def __init__(self, items: Iterable[Any], each: int, unit: str) -> None:
        super().__init__(items)
        self.each, self.unit = each, unit


def track(items: Iterable[Any], description: str) -> Iterator[Any]:
    """Yield the items, and show a bar with the time elapsed and remaining; for `Steps` also the units per second.

    Where standard error is not a terminal (a log, a batch job), or Rich is not installed, one plain line is written when the
    loop ends.

    Args:
        items: items to loop over; the remaining time needs a length.
        description: name of the loop.

    Yields:
        The items.
    """
    console = _terminal()
    if console is None:
        yield from _timed(items, description)
        return
    from rich.progress import Progress

    with Progress(*_columns(items), console=console, transient=False) as progress:
        yield from progress.track(items, description=description)


def _terminal() -> Console | None:
    """Standard error as a terminal. None: it is none, or Rich is not installed."""
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    console = Console(stderr=True)
    return console if console.is_terminal else None


def _columns(items: Iterable[Any]) -> tuple[ProgressColumn, ...]:
    from rich import progress
    from rich.text import Text

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None or not isinstance(items, Steps) else f"{items.each * speed:.3g} {items.unit}/s")

    first = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
    rate = (Rate(),) if isinstance(items, Steps) else ()
    return (*first, *rate, progress.TimeElapsedColumn(), progress.TimeRemainingColumn())


def _timed(items: Iterable[Any], description: str) -> Iterator[Any]:
    start, done = time.perf_counter(), 0
    try:
        for item in items:
            yield item
            done += 1
    finally:  # also when the caller stops early
        spent = time.perf_counter() - start
        rate = f", {items.each * done / spent:.3g} {items.unit}/s" if isinstance(items, Steps) and spent > 0 else ""
        print(f"{description}: {spent:.1f} s{rate}", file=sys.stderr)
