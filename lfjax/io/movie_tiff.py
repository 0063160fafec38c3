"""Movies in TIFF: contiguous stacks are mapped, all others decoded plane by plane."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from lfjax.io.movie_source import SECONDS, Choice, Source, check_axes, clock, lay_out
from lfjax.io.ome import ome_clock
from lfjax.io.tiff_planes import Planes, open_planes


def open_source(path: Path, choice: Choice) -> Source:
    """Open a TIFF file as a movie; see `lfjax.io.open_movie`."""
    choice.only(path, "axes", "channel", "series", "follow_links")
    planes = open_planes(path, choice.series, follow_links=choice.follow_links)
    try:
        return _source(planes, choice)
    except BaseException:
        planes.file.close()
        raise


def _source(planes: Planes, choice: Choice) -> Source:
    path = planes.path
    axes = check_axes(choice.axes, len(planes.shape), f"shape {planes.shape}") if choice.axes else planes.axes
    layout = lay_out(path, axes, planes.shape, choice.channel)
    which = tuple(layout.fixed.get(k, slice(None)) for k in range(len(axes) - 2))
    numbers = np.ravel(np.arange(planes.count).reshape(planes.shape[:-2])[which])
    frame_s, times_s = _clock(planes, numbers, choice.channel or 0)
    lacking = [t for t, number in enumerate(numbers) if planes.pages and planes.pages[number] is None]
    files = {path, *(Path(page.parent.filehandle.path) for page in planes.pages if page is not None)}
    return Source(
        shape=layout.movie_shape,
        dtype=planes.dtype,
        read=lambda wanted: planes.read(numbers[wanted.start : wanted.stop : wanted.step].tolist()),
        frame_s=frame_s,
        times_s=times_s,
        files=tuple(sorted(files)),
        missing=dict.fromkeys(lacking, "its plane is missing"),
        close=planes.file.close,
        stored=planes.stored,
    )


def _clock(planes: Planes, numbers: np.ndarray, channel: int) -> tuple[float | None, np.ndarray | None]:
    """Interval and times from OME-XML, Micro-Manager or ImageJ."""
    file, count = planes.file, len(numbers)
    if file.is_ome and file.ome_metadata:
        found = ome_clock(file.ome_metadata, planes.number or 0, channel, count)
        if found[0] is not None:
            return found
    if file.is_micromanager:
        return _micromanager_s(planes, numbers), None
    about: dict[str, Any] = file.imagej_metadata or {}
    unit = SECONDS.get(str(about.get("tunit", "s")))
    interval, rate = about.get("finterval"), about.get("fps")
    if isinstance(interval, (int, float)) and unit is not None:
        return clock(interval * unit, None, count)
    return clock(1 / rate if isinstance(rate, (int, float)) and rate > 0 else None, None, count)


def _micromanager_s(planes: Planes, numbers: np.ndarray) -> float | None:
    """Mean interval from the elapsed times of the first and last frame; the summary states only what was asked for."""
    ends = [planes.pages[numbers[k]] for k in (0, -1)] if planes.pages else [None]
    if len(numbers) < 2 or any(page is None for page in ends):
        return None
    about = [_tags(page).get("MicroManagerMetadata") for page in ends]
    elapsed: list[Any] = [one.value.get("ElapsedTime-ms") if one is not None else None for one in about]
    if any(not isinstance(value, (int, float)) for value in elapsed):
        return None
    step = (elapsed[1] - elapsed[0]) / (len(numbers) - 1) / 1e3
    return step if math.isfinite(step) and step > 0 else None


def _tags(page: Any) -> Any:
    if isinstance(page, tifffile.TiffFrame):
        return {} if page.is_virtual else page.aspage().tags
    return page.tags
