"""Slow background of a movie: a low-rank model of static and slowly bleaching fluorescence, fitted in one pass.

y_t ~ sum_k u_k b_k(t) + activity,   k = 1 .. r

>>> import numpy as np
>>> bleaching = np.exp(-np.arange(3000) / 6000)[:, None, None]  # to 61 % in 30 s
>>> frames = bleaching * np.random.default_rng(0).random((1, 4, 4))
>>> left = SlowBackground.fit(frames, 0.01).remove(frames, 0)
>>> bool(np.abs(left).max() < 0.03), bool(np.median(np.abs(left)) < 0.001)  # largest in the first and last bins
(True, True)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d, percentile_filter

from lfjax.errors import require
from lfjax.movies.frames import Frames, check_weights

MOST_BINS = 128  # of a movie of any length: these images are held in memory


class SlowBackground(NamedTuple):
    """A background of rank r.

    Attributes:
        images: (r, y, x), u.
        courses: (r, bins), b at the middle of each bin.
        middles: (bins,), frame number of the middle of each bin.
    """

    images: Float[np.ndarray, "r y x"]
    courses: Float[np.ndarray, "r b"]
    middles: Float[np.ndarray, " b"]

    @classmethod
    def fit(
        cls,
        frames: Frames,
        frame_s: float,
        *,
        weights: ArrayLike | None = None,
        rank: int = 2,
        bin_s: float = 1.0,
        window_s: float = 10.0,
    ) -> SlowBackground:
        """Fit the background to means of frames over bins, reading the movie once, one bin in memory at a time.

        Activity only adds light, so a running low percentile replaces the bin means of each pixel before the singular value
        decomposition. It is scaled to the level of the median, since noise lowers a percentile too.

        Args:
            frames: (t, y, x).
            frame_s: duration of a frame.
            weights: (y, x), trust of each pixel, 0 or more. Time courses and levels come from trusted pixels alone; untrusted
                ones follow these. None: 1.
            rank: r; 1 is one image that bleaches, 2 lets parts bleach at different speeds.
            bin_s: duration of a bin. Bins are longer where a movie would have more than 128 of them, and shorter where it
                would have fewer than 4 r.
            window_s: duration of the window of the percentile: longer than bursts of activity, and shorter than bleaching,
                which a longer window takes for activity.

        Raises:
            ShapeError: `weights` is not a frame.
            ParameterError: a number is out of range, a weight is negative or not finite, or no pixel is trusted.
        """
        for name, value in (("frame_s", frame_s), ("bin_s", bin_s), ("window_s", window_s)):
            require(0 < value < math.inf, name, value, "a positive number")
        t = len(frames)
        require(isinstance(rank, int) and 1 <= rank <= t, "rank", rank, f"1 to the number of frames, {t}")
        trust = np.ones(frames.shape[1:], np.float32) if weights is None else check_weights(weights, frames.shape[1:])
        size = min(max(1, round(bin_s / frame_s), math.ceil(t / MOST_BINS)), max(1, t // (4 * rank)))
        edges = list(range(0, t - size // 2, size)) or [0]
        spans = [(a, min(a + size, t) if a != edges[-1] else t) for a in edges]
        means = np.stack([np.mean(np.asarray(frames[a:b], np.float32), axis=0) for a, b in spans])
        width = min(max(1, round(window_s / (size * frame_s))), 2 * len(spans) - 1)
        low = percentile_filter(means, 25, size=(width, 1, 1), mode="nearest") if width > 2 else means
        seen = trust > 0
        low = low * (np.median(means[:, seen]) / max(float(np.median(low[:, seen])), 1e-30))
        flat = low.reshape(len(spans), -1)
        _, vectors = np.linalg.eigh((flat * trust.ravel()) @ flat.T)
        vectors = vectors[:, ::-1][:, :rank]
        images = (vectors.T @ flat).reshape(rank, *low.shape[1:])
        courses = gaussian_filter1d(vectors.T, 1.0, axis=1, mode="nearest") if len(spans) > 4 else vectors.T
        return cls(images, courses, np.array([(a + b - 1) / 2 for a, b in spans]))

    def at(self, first: int, count: int) -> Float[np.ndarray, "t y x"]:
        """The background of `count` frames from number `first`."""
        numbers = np.arange(first, first + count)
        b = np.stack([np.interp(numbers, self.middles, course) for course in self.courses])
        return np.einsum("kt,kyx->tyx", b, self.images).astype(np.float32)

    def remove(self, frames: ArrayLike, first: int) -> Float[np.ndarray, "t y x"]:
        """Frames (t, y, x) minus the background; `first` is the number of the first of them in the movie."""
        block = np.asarray(frames, np.float32)
        return block - self.at(first, len(block))
