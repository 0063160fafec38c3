"""Progress of long loops, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def track(items: Iterable[Any], description: str) -> Iterator[Any]:
    """Yield the items, and show a bar with the time elapsed and remaining.

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
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, transient=False) as progress:
        yield from progress.track(items, description=description)


def _timed(items: Iterable[Any], description: str) -> Iterator[Any]:
    start = time.perf_counter()
    try:
        yield from items
    finally:  # also when the caller stops early
        print(f"{description}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
