"""One look at a whole recording before any work: mean, peaks, saturation, and the frames that would spoil a result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy.ndimage import percentile_filter

from lfjax.errors import FileError, require
from lfjax.movies.frames import Frames
from lfjax.movies.repair import name_first
from lfjax.progress import Steps

BLOCK_BYTES = 2**28  # of frames in memory at a time, at most
SAMPLE = 4096  # pixels of which the spread is taken
Track = Callable[[Iterable[int], str], Iterable[int]]


class Survey(NamedTuple):
    """Result of one pass over a movie.

    Attributes:
        mean: (y, x), mean of the good frames.
        peak: (y, x), largest value of each pixel in the good frames, in their type.
        saturation: level at which the camera saturates. None: no pixel reaches such a level.
        saturated: fraction of the values of the good frames at or above it; 0 without a level.
        bad: frame number -> what is wrong with it.
        dropped: frame number -> number of frames that were lost right before it.
    """

    mean: Float[np.ndarray, "y x"]
    peak: Shaped[np.ndarray, "y x"]
    saturation: float | None
    saturated: float
    bad: dict[int, str]
    dropped: dict[int, int]

    @property
    def still(self) -> bool:
        """Whether all good frames are the same."""
        return np.array_equal(self.mean, self.peak.astype(np.float32))


class _Marks(NamedTuple):
    """What the first pass notes of every frame.

    Attributes:
        mean, spread: (t,), mean of the pixels, and their range from 5 % to 95 %, which a few hot pixels do not change.
        flat: (t,), whether all pixels have one value.
        spoilt: (t,), number of values that are NaN or infinite.
        changed: (t,), fraction of the pixels that differ from the frame before, 1 for the first.
        counted: (t,), whether the sums include it.
    """

    mean: np.ndarray
    spread: np.ndarray
    flat: np.ndarray
    spoilt: np.ndarray
    changed: np.ndarray
    counted: np.ndarray


class _Sums:
    """Sum, peak, and count of values at or above a level, over frames."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], level: float | None) -> None:
        lowest = -np.inf if dtype.kind == "f" else np.iinfo(dtype).min
        self.sum, self.peak = np.zeros(shape), np.full(shape, lowest, dtype)
        self.frames, self.count, self.level, self.fixed = 0, 0, level, level is not None

    def add(self, frame: np.ndarray) -> None:
        self.frames += 1
        self.sum += frame
        np.maximum(self.peak, frame, out=self.peak)
        top = float(frame.max())
        if not self.fixed and (self.level is None or top > self.level):
            self.level, self.count = top, 0  # the highest value so far: the level, if the camera saturates
        if self.level is not None and top >= self.level:
            self.count += int(np.count_nonzero(frame >= self.level))


def survey(
    frames: Frames,
    *,
    saturation: float | None = None,
    size: int = 64,
    track: Track | None = None,
) -> Survey:
    """Read a movie once, block by block, and tell its mean, its peaks, its saturation and its bad frames.

    A frame is bad that

    - lacks chunks or planes in its file (`frames.missing` of `io.Movie`),
    - holds NaN or infinity,
    - holds one value everywhere,
    - equals the frame before, in a movie of integers whose frames otherwise differ in 5 % of the pixels or more, as noise makes
      them: the camera gave one image twice,
    - is more than ten times as bright as the median one: a white frame among the others,
    - is black: the range of its pixels (5 % to 95 %) is below a fifth of that of the movie, or its mean falls by 10 robust
      standard deviations and that range by half against the frames around it (the upper quartile of 101, so that runs of black
      frames, bursts of activity and bleaching do not mislead).

    A second pass follows only where black or repeated frames were counted in, or where the level of saturation is not the
    highest value.

    Args:
        frames: (t, y, x).
        saturation: level at which the camera saturates. None: found from the peaks.
        size: largest number of frames in memory; fewer where they are large.
        track: see `lfjax.progress.track`.

    Raises:
        FileError: all frames are bad.
        ParameterError: `saturation` is not a finite number, `size` is less than 1, or the movie is empty.
    """
    require(size >= 1, "size", size, "1 frame or more")
    require(len(frames) > 0, "frames", len(frames), "1 frame or more")
    require(saturation is None or math.isfinite(saturation), "saturation", saturation, "a finite number")
    dtype = np.dtype(frames.dtype)
    lacking: Mapping[int, str] = getattr(frames, "missing", {})
    marks, sums = _first_pass(frames, _Sums(tuple(frames.shape[1:]), dtype, saturation), lacking, size, track)
    bad = dict(sorted({**_bad(marks, dtype.kind in "ui" and sums.peak.size >= 600), **lacking}.items()))
    if len(bad) == len(frames):
        raise FileError(f"all {len(frames)} frames are bad ({name_first(bad)}); expected a movie")
    if marks.counted.sum() > len(frames) - len(bad):
        sums = _again(frames, _Sums(sums.peak.shape, dtype, saturation), bad, size, track)
    level = saturation if saturation is not None else _find_saturation(sums.peak)
    if level is not None and level != sums.level:
        sums = _again(frames, _Sums(sums.peak.shape, dtype, level), bad, size, track)
    share = 0.0 if level is None else sums.count / (sums.frames * sums.peak.size)
    mean = (sums.sum / sums.frames).astype(np.float32)
    return Survey(mean, sums.peak, level, share, bad, dict(getattr(frames, "dropped", {})))


def _find_saturation(peak: np.ndarray) -> float | None:
    from lfjax.optics.camera.pixels import find_saturation  # optics takes a second to import

    return find_saturation(peak)


def _blocks(frames: Frames, size: int, what: str, track: Track | None) -> Iterable[tuple[int, np.ndarray]]:
    """Number and values of every frame."""
    step = min(size, max(1, BLOCK_BYTES // max(1, math.prod(frames.shape[1:]) * np.dtype(frames.dtype).itemsize)))
    starts = Steps(range(0, len(frames), step), step, "frames")
    for first in track(starts, what) if track else starts:
        yield from enumerate(np.asarray(frames[first : first + step]), first)


def _first_pass(
    frames: Frames,
    sums: _Sums,
    lacking: Mapping[int, str],
    size: int,
    track: Track | None,
) -> tuple[_Marks, _Sums]:
    t = len(frames)
    marks = _Marks(np.zeros(t), np.zeros(t), np.zeros(t, bool), np.zeros(t, int), np.ones(t), np.zeros(t, bool))
    before = None
    for k, frame in _blocks(frames, size, "survey of the movie", track):
        if frame.dtype.kind == "f":
            marks.spoilt[k] = frame.size - np.count_nonzero(np.isfinite(frame))
        if before is not None:
            marks.changed[k] = np.count_nonzero(frame != before) / frame.size
        before = frame
        if marks.spoilt[k]:
            continue
        marks.flat[k] = frame.min() == frame.max()
        marks.mean[k] = frame.mean(dtype=np.float64)
        marks.spread[k] = np.ptp(np.percentile(frame.ravel()[:: max(1, frame.size // SAMPLE) | 1], (5, 95)))
        marks.counted[k] = k not in lacking and not marks.flat[k]
        if marks.counted[k]:
            sums.add(frame)
    return marks, sums


def _again(
    frames: Frames,
    sums: _Sums,
    bad: Mapping[int, str],
    size: int,
    track: Track | None,
) -> _Sums:
    """Sums over the good frames."""
    for k, frame in _blocks(frames, size, "second look at the movie", track):
        if k not in bad:
            sums.add(frame)
    return sums


def _bad(marks: _Marks, noisy: bool) -> dict[int, str]:
    """Frame number -> what is wrong with it.

    Args:
        marks: of every frame.
        noisy: whether frames may be noisy integers, of so many pixels that noise never repeats a frame.
    """
    bad = {int(k): f"black: {marks.mean[k]:.4g} on average" for k in np.flatnonzero(_black(marks))}
    bad |= {int(k): "the same as the frame before" for k in np.flatnonzero(_repeated(marks))} if noisy else {}
    bad |= {int(k): f"much brighter than the others: {marks.mean[k]:.4g} on average" for k in np.flatnonzero(_glaring(marks))}
    bad |= {int(k): f"one value everywhere, {marks.mean[k]:.4g}" for k in np.flatnonzero(marks.flat)}
    return bad | {int(k): f"{marks.spoilt[k]} values are NaN or infinite" for k in np.flatnonzero(marks.spoilt)}


def _repeated(marks: _Marks) -> np.ndarray:
    """Frames equal to the one before, where the others change as noise changes them: 5 % of 600 pixels never all stay."""
    changes = marks.changed[1:][marks.changed[1:] > 0]
    if not len(changes) or len(changes) < (len(marks.changed) - 1) / 3 or np.median(changes) < 0.05:
        return np.zeros(len(marks.changed), bool)
    return marks.changed == 0


def _glaring(marks: _Marks) -> np.ndarray:
    """Frames ten times as bright as most others: a white frame among them, not a burst of activity."""
    known = marks.spoilt == 0
    usual = float(np.median(marks.mean[known])) if known.any() else 0.0
    return known & (marks.mean > 10 * usual) if usual > 0 else np.zeros(len(known), bool)


def _black(marks: _Marks) -> np.ndarray:
    known = (marks.spoilt == 0) & ~marks.flat
    result = np.zeros(len(known), bool)
    mean, spread = marks.mean[known], marks.spread[known]
    if len(mean) < 3:
        return result
    near_mean, near_spread = (percentile_filter(a, 75, size=min(101, len(a)), mode="nearest") for a in (mean, spread))
    left = mean - near_mean
    sigma = 1.4826 * float(np.median(np.abs(left - np.median(left))))
    fallen = (left < -10 * sigma) & (spread < 0.5 * near_spread)
    result[known] = fallen | ((spread < 0.2 * np.percentile(spread, 75)) & (mean < np.percentile(mean, 75)))
    return result
