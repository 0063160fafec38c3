"""From fluorescence to dF/F: a baseline that bleaches and drifts, below activity that only adds."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d, percentile_filter

from lfjax.errors import require, require_shape


def baseline(
    traces: ArrayLike, frame_s: float, *, window_s: float = 10.0, percentile: float = 20.0, smooth_s: float = 0.05
) -> Float[np.ndarray, "n t"]:
    """F0: a low percentile of the smoothed trace in a running window.

    Bleaching within a window lowers the percentile. A first baseline therefore gives a trend, a parabola through its logarithm,
    which is divided out before the second one. The percentile is that of means over `window_s` / 100, which keeps the cost
    independent of the frame rate.

    Args:
        traces: F, (n, t).
        frame_s: duration of a frame.
        window_s: duration of the window; longer than bursts, shorter than bleaching.
        percentile: 0 to 100.
        smooth_s: standard deviation of the Gaussian that smooths the trace, since noise lowers a low percentile.

    Raises:
        ShapeError: the traces are not (n, t).
        ParameterError: a number is out of range.
    """
    traces = np.asarray(traces, float)
    require_shape("traces", traces.shape, ("n", "t"))
    for name, value in (("frame_s", frame_s), ("window_s", window_s)):
        require(0 < value < math.inf, name, value, "a positive number")
    require(0 <= smooth_s < math.inf, "smooth_s", smooth_s, "zero or more")
    require(0 <= percentile <= 100, "percentile", percentile, "a number from 0 to 100")
    t = traces.shape[1]
    smooth = gaussian_filter1d(traces, smooth_s / frame_s, axis=1, mode="nearest") if smooth_s > 0 else traces
    thin = max(1, min(int(window_s / frame_s / 100), t // 8))
    count = -(-t // thin)
    padded = np.pad(smooth, [(0, 0), (0, count * thin - t)], mode="edge")
    coarse = padded.reshape(len(traces), count, thin).mean(-1)
    width = max(1, min(round(window_s / frame_s / thin), 2 * count - 1))
    places = (np.arange(count) + 0.5) * thin - 0.5
    found = np.zeros(traces.shape)
    for row, trace in zip(found, coarse, strict=True):
        first = percentile_filter(trace, percentile, size=width, mode="nearest")
        trend = _trend(first)
        level = percentile_filter(trace / trend, percentile, size=width, mode="nearest")
        row[:] = np.interp(np.arange(t), places, trend * level)
    return found


def _trend(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """exp of a parabola through the logarithm of the values if all are positive; 1 otherwise."""
    if len(values) < 4 or values.min() <= 0:
        return np.ones_like(values)
    u = np.linspace(-1, 1, len(values))
    return np.exp(np.polynomial.Polynomial.fit(u, np.log(values), 2)(u))


def dff(
    traces: ArrayLike,
    frame_s: float,
    *,
    background: ArrayLike | float = 0.0,
    window_s: float = 10.0,
    percentile: float = 20.0,
    smooth_s: float = 0.05,
) -> Float[np.ndarray, "n t"]:
    """dF/F = (F - F0) / (F0 - background), F0 by `baseline`.

    Args:
        traces: F, (n, t).
        frame_s: duration of a frame.
        background: light in F from other sources than the neuron: a number, one per neuron (n, 1), or traces (n, t).
        window_s: see `baseline`.
        percentile: see `baseline`.
        smooth_s: see `baseline`.

    Returns:
        (n, t), dF/F; zero throughout for a trace whose dF/F is not defined, see `has_baseline`.

    Raises:
        ShapeError, ParameterError: as `baseline`.
    """
    values = np.asarray(traces, float)
    low = baseline(values, frame_s, window_s=window_s, percentile=percentile, smooth_s=smooth_s)
    own, least = low - np.asarray(background, float), _least(values)
    defined = _defined(own, least)[:, None]
    return np.where(defined, (values - low) / np.where(defined, np.maximum(own, least), 1), 0.0)


def has_baseline(
    traces: ArrayLike,
    frame_s: float,
    *,
    background: ArrayLike | float = 0.0,
    window_s: float = 10.0,
    percentile: float = 20.0,
    smooth_s: float = 0.05,
) -> Bool[np.ndarray, " n"]:
    """Whether dF/F is defined: the median of F0 - background exceeds the noise of a frame, and 1 % of the peak of the trace.

    Below the first limit the noise of a frame's dF/F is above 1, and the quotient tells of F0 more than of the neuron: a trace
    that is fitted with the constraint F >= 0 has an F0 of half its noise even where there is no neuron. Above the second, dF/F
    stays below 100, more than any indicator gives. Traces that are zero, negative or near zero have no dF/F.

    Args:
        traces: F, (n, t).
        frame_s: duration of a frame.
        background: see `dff`.
        window_s: see `baseline`.
        percentile: see `baseline`.
        smooth_s: see `baseline`.

    Raises:
        ShapeError, ParameterError: as `baseline`.
    """
    values = np.asarray(traces, float)
    low = baseline(values, frame_s, window_s=window_s, percentile=percentile, smooth_s=smooth_s)
    return _defined(low - np.asarray(background, float), _least(values))


def _least(values: Float[np.ndarray, "n t"]) -> Float[np.ndarray, "n 1"]:
    """Least F0: the noise of a frame, from the differences of neighbouring frames, and 1 % of the 99.5th percentile of |F|."""
    if values.shape[1] < 2:
        return 0.01 * np.abs(values).max(1, initial=0, keepdims=True)
    steps = np.median(np.abs(np.diff(values, axis=1)), axis=1) / (0.6745 * math.sqrt(2))
    return np.maximum(steps, 0.01 * np.percentile(np.abs(values), 99.5, axis=1))[:, None]


def _defined(own: Float[np.ndarray, "n t"], least: Float[np.ndarray, "n 1"]) -> Bool[np.ndarray, " n"]:
    return np.median(own, axis=1) > np.maximum(least[:, 0], np.finfo(np.float32).tiny)


def peak_dff(values: ArrayLike, *, percentile: float = 99.5) -> Float[np.ndarray, " n"]:
    """Peak dF/F of each trace, as a high percentile, which is robust to a single noisy frame.

    Args:
        values: dF/F, (n, t).
        percentile: 0 to 100.

    Raises:
        ShapeError: the values are not (n, t).
    """
    values = np.asarray(values, float)
    require_shape("values", values.shape, ("n", "t"))
    return np.percentile(values, percentile, axis=1)
