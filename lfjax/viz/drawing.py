"""Shared by all figures: a figure without pyplot, lengths of scale bars, PNG files."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfjax._lazy import load
from lfjax.io.atomic import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


def round_length(at_most: float) -> float:
    """The largest of ..., 0.5, 1, 2, 5, 10, 20, 50, ... up to a given length.

    >>> round_length(37.0)
    20.0
    """
    decade = 10.0 ** math.floor(math.log10(at_most))
    return float(max(step * decade for step in (1, 2, 5) if step * decade <= at_most * (1 + 1e-9)))


@contextmanager
def drawing_soon() -> Iterator[None]:
    """Load Matplotlib in a thread beside the work of the block, so that the figures after it need not wait for that."""
    thread = threading.Thread(target=lambda: new_figure((1, 1)).add_subplot(), daemon=True)
    thread.start()
    yield
    thread.join()


def new_figure(size_inch: tuple[float, float], **options: Any) -> Figure:
    """An empty figure of a size in inches; the options are those of Matplotlib's `Figure`."""
    figure: Figure = load("matplotlib.figure").Figure(figsize=size_inch, dpi=DPI, **options)
    return figure


def saved(figure: Figure, path: str | Path | None) -> Figure:
    """Write the figure to a PNG file, if a path is given, and return it."""
    if path is not None:
        with writing(path) as temporary:
            figure.savefig(temporary, format="png")
    return figure
