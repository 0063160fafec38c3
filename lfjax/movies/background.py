"""The light that is always there: a low-rank model of static and slowly bleaching fluorescence, fitted on a stream.

y_t ~ sum_k u_k b_k(t) + what neurons do,   k = 1 .. r

>>> import numpy as np
>>> fade = np.exp(-np.arange(400) / 300)[:, None, None]
>>> frames = fade * np.random.default_rng(0).random((1, 4, 4))
>>> slow = SlowBackground.fit(frames, 0.01, bin_s=0.1)
>>> bool(np.abs(slow.remove(frames, 0)).max() < 0.01)
True
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d, percentile_filter

from lfjax.errors import require

MOST_BINS = 128  # of a movie however long: what is in memory


class SlowBackground(NamedTuple):
    """A background of rank r.

    Attributes:
        images: (r, y, x), u.
        courses: (r, bins), b at the middle of each bin.
        middles: (bins,), frame numbers there.
    """

    images: Float[np.ndarray, "r y x"]
    courses: Float[np.ndarray, "r b"]
    middles: Float[np.ndarray, " b"]

    @classmethod
    def fit(cls, frames: Any, frame_s: float, *, rank: int = 2, bin_s: float = 1.0, window_s: float = 10.0) -> SlowBackground:
        """From the means of bins of frames, read once, one bin in memory at a time.

        Activity only adds light, so of each pixel's bin means a running low percentile is taken before the singular value
        decomposition; it is raised to the level of the median, since the percentile also falls with noise.

        Args:
            frames: (t, y, x): an array, or `io.open_movie`.
            frame_s: time of a frame.
            rank: r; 1 is one image that bleaches, 2 lets parts bleach at different speeds.
            bin_s: time of a bin; longer where a movie would have more than 128, shorter where it would have too few.
            window_s: of the running percentile.

        Raises:
            ParameterError: a number outside its meaning.
        """
        for name, value in (("frame_s", frame_s), ("bin_s", bin_s), ("window_s", window_s)):
            require(0 < value < math.inf, name, value, "a positive number")
        t = len(frames)
        require(isinstance(rank, int) and 1 <= rank <= t, "rank", rank, f"1 to the number of frames, {t}")
        size = min(max(1, round(bin_s / frame_s), math.ceil(t / MOST_BINS)), max(1, t // (4 * rank)))
        edges = list(range(0, t - size // 2, size)) or [0]
        spans = [(a, min(a + size, t) if a != edges[-1] else t) for a in edges]
        means = np.stack([np.mean(np.asarray(frames[a:b], np.float32), axis=0) for a, b in spans])
        width = min(max(1, round(window_s / (size * frame_s))), 2 * len(spans) - 1)
        low = percentile_filter(means, 25, size=(width, 1, 1), mode="nearest") if width > 2 else means
        low = low * (np.median(means) / max(float(np.median(low)), 1e-30))
        flat = low.reshape(len(spans), -1)
        values, vectors = np.linalg.eigh(flat @ flat.T)
        vectors = vectors[:, ::-1][:, :rank]
        images = (vectors.T @ flat).reshape(rank, *low.shape[1:])
        courses = gaussian_filter1d(vectors.T, 1.0, axis=1, mode="nearest") if len(spans) > 4 else vectors.T
        return cls(images, courses, np.array([(a + b - 1) / 2 for a, b in spans]))

    def at(self, first: int, count: int) -> Float[np.ndarray, "t y x"]:
        """The background of some frames."""
        numbers = np.arange(first, first + count)
        b = np.stack([np.interp(numbers, self.middles, course) for course in self.courses])
        return np.einsum("kt,kyx->tyx", b, self.images).astype(np.float32)

    def remove(self, frames: Float[np.ndarray, "t y x"], first: int) -> Float[np.ndarray, "t y x"]:
        """Frames without it; `first` is the number of the first of them in the movie."""
        return np.asarray(frames, np.float32) - self.at(first, len(frames))
