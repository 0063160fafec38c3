"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from lfjax.errors import ParameterError

DepthsOption = Annotated[
    str, typer.Option("--z", help="Depths in um as first:last:step; 0 is the native focal plane.", metavar="A:B:STEP")
]
VoxelsOption = Annotated[int, typer.Option("--voxels", help="Voxels across a lenslet, s (1 to N).")]
DEPTHS = "-4.5:4.5:1"


def parse_depths(text: str) -> tuple[float, ...]:
    """Depths in um of "first:last:step", last included.

    Raises:
        ParameterError: not three numbers, or a step that does not lead from the first to the last.
    """
    try:
        first, last, step = (float(part) for part in text.split(":"))
        count = round((last - first) / step) + 1
    except (ValueError, ZeroDivisionError, OverflowError):
        count = 0
    if not 1 <= count <= 1000:
        raise ParameterError(f"--z {text!r}: expected first:last:step in um, for example -4.5:4.5:1")
    return tuple(float(z) for z in first + step * np.arange(count))
