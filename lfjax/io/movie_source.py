"""What every container of a movie gives: frames by number, the layout of its axes, its clock, and the frames that it lacks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lfjax.errors import FileError, LfjaxError, require
from lfjax.io.arrays import reason

SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "us": 1e-6, "µs": 1e-6,
    "μs": 1e-6, "microsecond": 1e-6, "ns": 1e-9, "nanosecond": 1e-9, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0,
}  # fmt: skip
"""Unit of time, as OME-XML, OME-Zarr and ImageJ write it -> seconds."""


MOST_CHUNKS = 2 * 10**7  # that are looked for; a broken header can claim any number


class Choice(NamedTuple):
    """What a user asks of a file, see `lfjax.io.open_movie`."""

    dataset: str | None = None
    axes: str | None = None
    channel: int | None = None
    series: int | None = None
    follow_links: bool = False

    def only(self, path: Path, *used: str) -> None:
        """Refuse choices that this format has no use for.

        Raises:
            FileError: one is given that is not in `used`.
        """
        refuse_unused(path, self._asdict(), used)


def refuse_unused(path: Path, asked: Mapping[str, Any], used: Sequence[str]) -> None:
    """Refuse choices that a format has no use for.

    Raises:
        FileError: one is given (not None, nor False) that is not in `used`.
    """
    for name, value in asked.items():
        if value is not None and value is not False and name not in used:
            raise FileError(f"{path}: {name}={value!r}: this format has no {name}; expected none")


def _nothing() -> None: ...


@dataclass(frozen=True)
class Source:
    """Frames in a container.

    Attributes:
        shape: (t, y, x).
        dtype: type of the values, in any byte order.
        read: range of frame numbers, of positive step -> (n, y, x).
        frame_s: time from frame to frame in seconds. None: unknown.
        times_s: (t,), time of each frame in seconds. None: unknown.
        files: files that hold the frames.
        missing: frame number -> which part of it the container lacks.
        dropped: frame number -> number of frames lost right before it.
        close: closes the files.
        stored: bytes that the values come from; None: those of the files; infinite: unknown.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[range], np.ndarray]
    frame_s: float | None = None
    times_s: np.ndarray | None = None
    files: tuple[Path, ...] = ()
    missing: Mapping[int, str] = field(default_factory=dict)
    dropped: Mapping[int, int] = field(default_factory=dict)
    close: Callable[[], None] = _nothing
    stored: float | None = None


class Layout(NamedTuple):
    """How the axes of an array hold a movie.

    Attributes:
        axes: one letter per axis, of t, y, x, and others that are fixed.
        shape: of the array.
        fixed: axis number -> index, for every axis but t, y, x.
    """

    axes: str
    shape: tuple[int, ...]
    fixed: Mapping[int, int]

    @property
    def movie_shape(self) -> tuple[int, int, int]:
        """(t, y, x), where t is 1 if there is no axis t."""
        sizes = dict(zip(self.axes, self.shape, strict=True))
        return sizes.get("t", 1), sizes["y"], sizes["x"]

    def select(self, numbers: range) -> tuple[int | slice, ...]:
        """Index of frames in the array; their axes keep the order of the array."""
        part = {"t": slice(numbers.start, numbers.stop, numbers.step)}
        return tuple(self.fixed.get(k, part.get(letter, slice(None))) for k, letter in enumerate(self.axes))

    def arrange(self, block: np.ndarray) -> np.ndarray:
        """Selected frames as (n, y, x)."""
        kept = [letter for k, letter in enumerate(self.axes) if k not in self.fixed]
        if "t" not in kept:
            kept, block = ["t", *kept], block[None]
        return block.transpose([kept.index(letter) for letter in "tyx"])


def lay_out(path: Path, axes: str, shape: Sequence[int], channel: int | None) -> Layout:
    """Find the movie among the axes of an array.

    Args:
        path: for messages.
        axes: one letter per axis: t, z, c, y, x; q and i (unnamed sequences) count as t where there is no t.
        shape: of the array.
        channel: index along c.

    Raises:
        FileError: planes along z, channels without a choice, or an axis that no movie has.
    """
    letters, sizes = axes.lower(), tuple(int(n) for n in shape)
    unnamed = [k for k, letter in enumerate(letters) if letter in "qi" and sizes[k] > 1]
    if len(unnamed) == 1 and not any(letter == "t" and n > 1 for letter, n in zip(letters, sizes, strict=True)):
        letters = "".join("t" if k in unnamed else "?" if letter == "t" else letter for k, letter in enumerate(letters))
    found = ", ".join(f"{letter} ({n})" for letter, n in zip(letters, sizes, strict=True))
    if letters.count("y") != 1 or letters.count("x") != 1 or letters.count("t") > 1:
        raise FileError(f"{path}: axes {found}; expected t, y, x: name them with axes= (--axes), 'tyx' for example")
    fixed = {}
    for k, (letter, n) in enumerate(zip(letters, sizes, strict=True)):
        if letter in "tyx":
            continue
        if letter == "c":
            if n > 1 and channel is None:
                raise FileError(f"{path}: {n} channels, axes {found}; choose one with channel= (--channel), 0 to {n - 1}")
            if channel is not None and not 0 <= channel < n:
                raise FileError(f"{path}: channel={channel}; expected 0 to {n - 1}, axes {found}")
            fixed[k] = channel or 0
        elif n == 1:
            fixed[k] = 0
        elif letter == "z":
            other = letters.replace("z", "t") if "t" not in letters else "tyx"
            raise FileError(
                f"{path}: {n} planes along z, axes {found}: a volume; expected a movie t, y, x. "
                f"If z counts frames, say axes={other!r} (--axes {other})"
            )
        else:
            raise FileError(f"{path}: axes {found}; expected t, y, x: name them with axes= (--axes), 'tyx' for example")
    if channel not in (None, 0) and "c" not in letters:
        raise FileError(f"{path}: channel={channel}, but there is one channel, axes {found}")
    return Layout(letters, sizes, fixed)


def check_axes(axes: str, ndim: int, found: str) -> str:
    """Check the letters that a user gives for the axes of an array; return them in lower case.

    Raises:
        ParameterError: a letter is unknown or twice there, y or x is missing, or their number is not `ndim`.
    """
    letters = axes.lower()
    good = len(set(letters)) == len(letters) == ndim and set("yx") <= set(letters) <= set("tzcyx")
    require(good, "axes", axes, f"{ndim} different letters of t, z, c, y, x, with y and x, for the axes of {found}")
    return letters


def missing_frames(
    path: Path, layout: Layout, chunks: Sequence[int], there: Callable[[tuple[int, ...]], bool]
) -> dict[int, str]:
    """Frames of which chunks are not stored: they would read as the fill value.

    A chunk that is missing at all times is a border that is empty by design, and not counted.

    Args:
        path: for messages.
        layout: of the array.
        chunks: size of a chunk along each axis.
        there: grid position of a chunk -> whether it is stored.

    Raises:
        FileError: no chunk is stored, or the header claims more than 20 million.
    """
    counts = [range(math.ceil(n / c)) for n, c in zip(layout.shape, chunks, strict=True)]
    for k, index in layout.fixed.items():
        counts[k] = range(index // chunks[k], index // chunks[k] + 1)
    time = layout.axes.find("t")
    if math.prod(map(len, counts)) > MOST_CHUNKS:
        raise FileError(f"{path}: shape {layout.shape} in chunks {tuple(chunks)}; expected at most {MOST_CHUNKS} chunks")
    absent: dict[int, set[tuple[int, ...]]] = {}
    for position in itertools.product(*counts):
        if not there(position):
            moment = position[time] if time >= 0 else 0
            absent.setdefault(moment, set()).add(tuple(p for k, p in enumerate(position) if k != time))
    steps = len(counts[time]) if time >= 0 else 1
    total = math.prod(map(len, counts)) // steps
    always = set.intersection(*absent.values()) if len(absent) == steps else set()
    if len(always) == total:
        raise FileError(f"{path}: none of its {total * steps} chunks is there; expected the values of a movie")
    size, result = (chunks[time] if time >= 0 else 1), {}
    for moment, positions in absent.items():
        lost = len(positions - always)
        if lost:
            last = min((moment + 1) * size, layout.movie_shape[0])
            result.update(dict.fromkeys(range(moment * size, last), f"{lost} of {total} chunks are missing"))
    return dict(sorted(result.items()))


def dropped_frames(times_s: np.ndarray) -> dict[int, int]:
    """Frames lost by the camera: frame number -> number of frames lost right before it, from gaps in the times.

    A gap counts as round(gap / median interval) - 1 frames, unless the intervals beside it make up for it, as they do
    where one time is late.

    Args:
        times_s: (t,), increasing.
    """
    steps = np.diff(times_s)
    if len(steps) < 2:
        return {}
    typical = float(np.median(steps))
    result = {}
    for k in np.flatnonzero(steps > 1.5 * typical):
        around = steps[max(0, k - 1) : k + 2]
        lost = min(round(float(steps[k]) / typical) - 1, round(float(around.sum()) / typical) - len(around))
        if lost > 0:
            result[int(k) + 1] = lost
    return result


def clock(
    frame_s: float | None, times_s: Sequence[float] | np.ndarray | None, count: int
) -> tuple[float | None, np.ndarray | None]:
    """Frame interval and times that agree.

    Args:
        frame_s: stated interval in seconds, or None.
        times_s: stated times in seconds, or None.
        count: number of frames.

    Returns:
        `(frame_s, times_s)`. Times count if they increase and there is one per frame. The interval is the stated one, or that
        of the times (their span over the number of intervals, lost frames included) where none is stated or they differ by
        more than 5 %: acquisition software states the interval that it was asked for.
    """
    times = None if times_s is None else np.asarray(times_s, np.float64)
    stated = frame_s if frame_s is not None and math.isfinite(frame_s) and frame_s > 0 else None
    if times is None or len(times) != count or count < 2 or not np.isfinite(times).all() or not (np.diff(times) > 0).all():
        return stated, None
    measured = float(times[-1] - times[0]) / (count - 1 + sum(dropped_frames(times).values()))
    return (stated if stated is not None and abs(stated - measured) <= 0.05 * measured else measured), times


def read_frames(path: Path, read: Callable[[range], np.ndarray], numbers: range) -> np.ndarray:
    """Frames (n, y, x) of an open file; where they cannot be read, the first that cannot is named.

    Args:
        path: the file, for the message.
        read: reads frames of the file.
        numbers: of the frames, from 0, of positive step.

    Raises:
        FileError: a frame cannot be read.
    """
    try:
        return read(numbers)
    except LfjaxError:
        raise
    except Exception as error:  # readers of damaged files raise errors of any kind
        wrong, why = numbers[0], error
        for number in numbers if len(numbers) > 1 else ():
            try:
                read(range(number, number + 1))
            except LfjaxError:
                raise
            except Exception as single:
                wrong, why = number, single
                break
        raise FileError(f"{path}: frame {wrong} cannot be read ({reason(why)}); expected a whole file") from why


def gather(frames: Any, numbers: np.ndarray) -> np.ndarray:
    """Frames (n, y, x) of any numbers, read by slices of neighbours.

    Args:
        frames: (t, y, x), read by slices.
        numbers: (n,), from 0, in any order.
    """
    wanted, places = np.unique(numbers, return_inverse=True)
    if not len(wanted):
        return np.asarray(frames[0:0])
    runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
    read = [np.asarray(frames[int(run[0]) : int(run[-1]) + 1]) for run in runs]
    block = read[0] if len(read) == 1 else np.concatenate(read)
    return block if np.array_equal(places, np.arange(len(block))) else block[places]
