"""Movies without their bad frames: left out, or interpolated as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsIndex

import numpy as np

from lfjax.errors import FileError, require
from lfjax.io.movie_source import gather
from lfjax.movies.frames import Frames

BAD_FRAMES = ("error", "skip", "interpolate")


class GoodFrames:
    """A movie without its bad frames: they are left out, or replaced by interpolation in time as they are read.

    Attributes:
        shape: (t, y, x).
        dtype: as that of the movie; interpolated integers are rounded.
        numbers: (t,), number of each frame in the movie; -1 for one that the camera lost.
    """

    def __init__(self, frames: Frames, numbers: np.ndarray, before: np.ndarray, after: np.ndarray, weight: np.ndarray) -> None:
        """Frame k is (1 - weight_k) frames[before_k] + weight_k frames[after_k]."""
        self.frames, self.numbers = frames, numbers
        self._before, self._after, self._weight = before, after, weight
        self.shape, self.dtype = (len(numbers), *frames.shape[1:]), np.dtype(frames.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: SupportsIndex | slice) -> np.ndarray:
        """Frames by number or slice."""
        places = np.arange(len(self))[which]
        several = np.atleast_1d(places)
        weight = self._weight[several]
        made = gather(self.frames, self._before[several])
        mixed = np.flatnonzero(weight)
        if len(mixed):
            other, w = gather(self.frames, self._after[several[mixed]]), weight[mixed][:, None, None]
            between = (1 - w) * made[mixed] + w * other
            made = np.array(made)
            made[mixed] = np.rint(between) if self.dtype.kind in "ui" else between
        return made if np.ndim(places) else made[0]


def good_frames(frames: Frames, bad: Mapping[int, str], how: str, *, dropped: Mapping[int, int] | None = None) -> GoodFrames:
    """A movie without its bad frames.

    Args:
        frames: (t, y, x).
        bad: frame number -> what is wrong with it, from `survey`.
        how: "error" refuses a movie with bad or lost frames. "skip" leaves bad frames out, so that time jumps there.
            "interpolate" replaces each, linearly in time, from the nearest good frames before and after (at the ends of the
            movie the nearest is repeated), and fills in the frames that the camera lost, so that time runs evenly.
        dropped: frame number -> number of frames lost right before it, from `survey`.

    Raises:
        FileError: "error", and there are bad or lost frames; no frame is good; or as many frames were lost as there are.
        ParameterError: `how` is another word, or a number is no frame.
    """
    t, lost = len(frames), dict(dropped or {})
    require(how in BAD_FRAMES, "how", how, f"one of {', '.join(BAD_FRAMES)}")
    outside = [k for k in (*bad, *lost) if not 0 <= k < t]
    require(not outside, "bad", outside, f"frame numbers 0 to {t - 1}")
    texts = dict(sorted({**{k: f"{n} frames lost before it" for k, n in lost.items()}, **bad}.items()))
    if how == "error" and texts:
        raise FileError(
            f"{len(bad)} of {t} frames are bad and {sum(lost.values())} were lost ({name_first(texts)}); "
            "say how='skip' or 'interpolate' (--bad-frames skip|interpolate), or record again"
        )
    numbers = np.arange(t)
    good = np.array([k for k in range(t) if k not in bad], int)
    if not len(good):
        raise FileError(f"all {t} frames are bad ({name_first(bad)}); expected a movie")
    if how != "interpolate":
        return GoodFrames(frames, good, good, good, np.zeros(len(good)))
    if sum(lost.values()) >= t:
        raise FileError(
            f"{sum(lost.values())} frames were lost of a movie of {t}; expected fewer, or how='skip' and parts of it"
        )
    times = numbers + np.cumsum([lost.get(k, 0) for k in range(t)])  # number of each frame, had none been lost
    even = np.arange(int(times[0]), int(times[-1]) + 1)
    place = np.interp(even, times[good], np.arange(len(good)))
    below = np.floor(place).astype(int)
    weight = place - below
    original = np.full(len(even), -1)
    original[times - times[0]] = numbers
    return GoodFrames(frames, original, good[below], good[np.ceil(place).astype(int)], weight)


def name_first(texts: Mapping[int, str]) -> str:
    """The first few frames, with what is wrong with them."""
    first = "; ".join(f"frame {k}: {text}" for k, text in list(texts.items())[:4])
    return first + ("; ..." if len(texts) > 4 else "")
