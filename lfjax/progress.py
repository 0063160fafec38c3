"""Progress of long loops, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Steps(list[Any]):
    """Items of which each stands for several of something, so that a progress bar can tell their rate.

    Args:
        items: what to loop over.
        each: of the unit, an item.
        unit: "frames", for example.
    """

    def __init__(self, items: Iterable[Any], each: int, unit: str) -> None:
        super().__init__(items)
        self.each, self.unit = each, unit


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, each: int, unit: str) -> None:
        super().__init__()
        self.each, self.unit = each, unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{self.each * speed:.3g} {self.unit}/s")


def track(items: Iterable[Any], description: str) -> Iterator[Any]:
    """Yield the items, and show a bar with the time elapsed and remaining; of `Steps` also how many units a second.

    Where standard error is not a terminal (a log, a batch job) one plain line is written when the loop ends.

    Args:
        items: what to loop over; the remaining time needs a length.
        description: what the loop does.

    Yields:
        The items.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _timed(items, description)
        return
    rate = (_Rate(items.each, items.unit),) if isinstance(items, Steps) else ()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *rate, TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, transient=False) as progress:
        yield from progress.track(items, description=description)


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
