"""Which of many candidate places hold a neuron that fires: transients beyond noise, each explained by one place only.

1. The light of candidate i in frame t is p_i(t) = <H s_i, y_t>_W. One pass over the movie gives p, and G = <H s_i, H s_j>_W is
   known: all that follows needs these alone.
2. Each p_i is filtered by the indicator's pulse made orthogonal to a constant and a slope, so that bleaching and drift vanish.
   On static tissue the result is noise of zero mean: its largest value T, in units of that noise, has P(T > u) <= t Q(u),
   with Q the tail of the normal distribution. The noise of a trace is at least that of its photons; motion adds to it.
3. Candidates are taken in descending order of T. What a taken one explains, in pixels (p and G conditional on it) and in time
   (its transients, within a few diameters), no longer counts for the others.
4. Benjamini & Hochberg, J. R. Stat. Soc. B 57, 289 (1995), over all places where one could have been found, sets the threshold.
   Calcium transients only rise, so dips as deep as the threshold are false discoveries that Gaussian noise does not explain
   (motion, flicker): they raise it until they are rare too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.fft import irfft, next_fast_len, rfft
from scipy.ndimage import maximum_filter1d
from scipy.optimize import nnls
from scipy.stats import norm

from lfjax.activity.direct import photon_weights
from lfjax.activity.spike_times import Pulse
from lfjax.errors import require, require_shape
from lfjax.movies.frames import Frames, check_weights

BEFORE, AFTER = 2.0, 3.0  # decay times of the pulse before its onset and after it that the filter spans
LOUD = 4.0  # standard deviations of noise below which no value counts as a transient
LEAST_QUIET = 0.2  # fraction of frames without transients that must remain for an estimate of the noise
ASYMMETRY = 0.6  # squares left by rising pulses over those left by falling ones: 0.8 to 1.1 for motion, below 0.5 for neurons
STEPS = 60  # of the fit of pulses
LONGEST, STRETCHES = 20000, 5  # frames from which noise is estimated, in so many stretches of a longer movie
ROUNDING = 1e-5  # changes smaller than this fraction of the light are rounding of float32, not noise
LEAST_SHARE = 0.05  # of a candidate's image that those taken before do not explain: with less, it is the same place


class Significance(NamedTuple):
    """Candidates that fire.

    Attributes:
        chosen: (k,), numbers of the candidates, the most significant first.
        p_values: (k,), probability that noise alone exceeds the candidate's largest transient in some frame.
        false_discovery: estimated fraction of false ones among the chosen.
        still: whether no candidate changes at all: the frames are identical.
    """

    chosen: Int[np.ndarray, " k"]
    p_values: Float[np.ndarray, " k"]
    false_discovery: float
    still: bool


class Projections(NamedTuple):
    """A movie seen through the images of candidates; the last row is that of the mean frame.

    Attributes:
        light: (n + 1, t), p.
        gram: (n + 1, n + 1), G.
    """

    light: Float[np.ndarray, "m t"]
    gram: Float[np.ndarray, "m m"]


def project_movie(
    frames: Frames, images: ArrayLike, mean: ArrayLike, *, weights: ArrayLike | None = None, size: int = 256
) -> Projections:
    """p and G in one pass over a movie; see the head of this module.

    Args:
        frames: (t, y, x).
        images: (n, y, x), H s.
        mean: (y, x), mean frame; it weighs the pixels (`photon_weights`), and is the last image.
        weights: (y, x), trust of each pixel; None: 1.
        size: frames in memory at a time.

    Raises:
        ShapeError: the shapes do not fit each other.
        ParameterError: as `photon_weights`.
    """
    b, shape = np.asarray(images, np.float32), frames.shape[1:]
    require_shape("images", b.shape, ("n", *shape))
    require_shape("mean", np.shape(mean), shape)
    trust = np.ones(shape, np.float32) if weights is None else check_weights(weights, shape)
    flat = np.concatenate([b, np.asarray(mean, np.float32)[None]]).reshape(len(b) + 1, -1)
    weighted = flat * np.asarray(photon_weights(np.asarray(mean, np.float32), weights=trust)).ravel()
    light = np.empty((len(flat), len(frames)), np.float32)
    for first in range(0, len(frames), size):
        block = np.asarray(frames[first : first + size], np.float32)
        light[:, first : first + len(block)] = weighted @ block.reshape(len(block), -1).T
    return Projections(light, (weighted @ flat.T).astype(float))


def least_frames(frame_s: float, pulse: Pulse) -> int:
    """Number of frames below which noise and transients cannot be told apart: twice the length of the filter, at least 32."""
    return max(32, 2 * len(pulse_filter(frame_s, pulse)))


def significant(
    projections: Projections,
    centres_um: ArrayLike,
    frame_s: float,
    *,
    pulse: Pulse,
    places: int,
    false_discovery: float = 0.05,
    shared_um: float = 36.0,
) -> Significance:
    """The candidates that fire, at a stated rate of false ones; the method stands at the head of this module.

    A false discovery is a place without transients. Two neurons within `shared_um` that always fire together count as one.

    Args:
        projections: from `project_movie`, n candidates.
        centres_um: (n, 3), their places.
        frame_s: duration of a frame.
        pulse: shape of a transient.
        places: number of places where a neuron could have been found; at least n.
        false_discovery: largest expected fraction of false ones.
        shared_um: distance within which transients of a place that was taken explain those of another.

    Raises:
        ShapeError: the shapes do not fit each other.
        ParameterError: `false_discovery` is not between 0 and 1, or the movie is too short.
    """
    light, gram = projections
    n, t = len(light) - 1, light.shape[1]
    centres = np.asarray(centres_um, float)
    require_shape("centres_um", centres.shape, (n, 3))
    require_shape("gram", gram.shape, (n + 1, n + 1))
    require(0 < false_discovery < 1, "false_discovery", false_discovery, "a fraction between 0 and 1")
    least = least_frames(frame_s, pulse)
    require(t >= least, "frames", t, f"{least} or more at {1 / frame_s:g} Hz, in which transients and noise differ")
    shape = pulse_filter(frame_s, pulse)
    rounding = ROUNDING * np.abs(light).mean(1)
    light, gram = _without(light, gram, n)  # what all the light does together: flicker, activity of the whole neuropil
    photons = _photon_noise(light, gram)
    traces = np.stack([np.correlate(row, shape, "valid") for row in light.astype(float)]).astype(np.float32)
    response = np.correlate(np.pad(_pulse(frame_s, pulse), len(shape) - 1), shape, "valid")
    chosen, heights, dips = _choose(traces, gram, photons, rounding, centres, shared_um, response)
    still = bool(np.all(np.ptp(light[:n], axis=1) <= rounding[:n]))
    p = np.minimum(1, traces.shape[1] * norm.sf(heights))
    order = np.argsort(p, kind="stable")
    chosen, heights, p = chosen[order], heights[order], p[order]
    rank = np.arange(1, len(p) + 1)
    expected = np.minimum.accumulate((p * max(places, n) / np.maximum(rank, 1))[::-1])[::-1]
    deep = np.array([np.sum(dips >= height) for height in heights]) / np.maximum(rank, 1)
    rate = np.maximum(expected, np.minimum.accumulate(deep[::-1])[::-1])
    count = int(np.sum(rate <= false_discovery))
    return Significance(chosen[:count], p[:count], float(rate[count - 1]) if count else 0.0, still)


def pulse_filter(frame_s: float, pulse: Pulse) -> Float[np.ndarray, " k"]:
    """The pulse, of norm 1, from two decay times before its onset to three after, orthogonal to a constant and a slope."""
    before, after = (max(2, math.ceil(span * pulse.decay_s / frame_s)) for span in (BEFORE, AFTER))
    at = np.arange(-before, after + 1)
    values = np.array(pulse(at * frame_s, frame_s), float)
    drift = np.stack([np.ones(len(at)), at - at.mean()], axis=1)
    values -= drift @ np.linalg.lstsq(drift, values)[0]
    return values / np.linalg.norm(values)


def _pulse(frame_s: float, pulse: Pulse) -> Float[np.ndarray, " k"]:
    """One transient until it has faded."""
    return np.array(pulse(np.arange(max(3, math.ceil(8 * pulse.decay_s / frame_s))) * frame_s, frame_s), float)


def _without(
    light: Float[np.ndarray, "m t"], gram: Float[np.ndarray, "m m"], i: int
) -> tuple[Float[np.ndarray, "m t"], Float[np.ndarray, "m m"]]:
    """p and G conditional on image i."""
    if gram[i, i] <= 0:
        return light.copy(), gram.copy()
    part = gram[:, i] / gram[i, i]
    return light - part[:, None].astype(np.float32) * light[i], gram - part[:, None] * gram[i]


def _photon_noise(light: Float[np.ndarray, "m t"], gram: Float[np.ndarray, "m m"]) -> float:
    """phi of Cov(p) = phi G, which holds for photon noise weighed by 1 / photons: the variance per photon.

    It rests on all candidates and on the differences of neighbouring frames, so that it is precise in short movies too, where
    the spread of a single trace is not.
    """
    own = np.diag(gram)[:-1]
    seen = own > 1e-6 * max(float(own.max(initial=0)), np.finfo(float).tiny)
    if not seen.any():
        return 0.0
    noise = np.median(np.abs(np.diff(light[:-1][seen], axis=1)), axis=1) / (0.6745 * math.sqrt(2))
    return float(np.median(noise**2 / own[seen]))


def _choose(
    traces: Float[np.ndarray, "m t"],
    gram: Float[np.ndarray, "m m"],
    photons: float,
    rounding: Float[np.ndarray, " m"],
    centres: Float[np.ndarray, "n 3"],
    shared_um: float,
    response: Float[np.ndarray, " r"],
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " l"]]:
    """Candidates in descending order of T, their T, and the depths of the dips of the others."""
    n = len(traces) - 1
    own = np.diag(gram)[:n].copy()
    left, stale = own > 0, own > 0
    height, dip = np.zeros(n), np.zeros(n)
    taken: dict[int, np.ndarray] = {}
    tops: list[float] = []

    def score(rows: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """T and the deepest dip of the traces of some candidates, in units of their noise."""
        photon = np.sqrt(photons * np.maximum(np.diag(gram)[rows], 0))
        noise, deepest = _noise(given, np.maximum(photon, np.maximum(rounding[rows], 1e-30)), response)
        return given.max(1) / noise, deepest / noise

    while True:
        left &= np.diag(gram)[:n] > LEAST_SHARE * own
        rows = np.flatnonzero(left & stale)
        if len(rows):
            height[rows], dip[rows] = score(rows, traces[rows])
        best = int(np.argmax(np.where(left, height, -np.inf)))
        if not left[best] or height[best] < LOUD:
            break
        left[best], stale, alone = False, np.zeros(n, bool), height[best]
        near = [trace for j, trace in taken.items() if np.linalg.norm(centres[j] - centres[best]) <= shared_um]
        if near:
            known = np.stack(near, axis=1).astype(float)
            rest = traces[best] - known @ nnls(known, traces[best].astype(float))[0]
            alone = min(alone, float(score(np.array([best]), rest[None])[0][0]))
        if alone >= LOUD:
            taken[best] = traces[best].copy()
            tops.append(alone)
            stale = gram[:n, best] ** 2 > 1e-5 * gram[best, best] * own
            traces, gram = _without(traces, gram, best)
    return np.array(list(taken), int), np.array(tops), dip[left]


def _noise(
    traces: Float[np.ndarray, "k t"], photons: Float[np.ndarray, " k"], response: Float[np.ndarray, " r"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Standard deviation of filtered traces without their transients, and the depth of the deepest dip.

    Transients rise fast and fall slowly; noise and motion look the same upside down. A trace that a sum of rising pulses
    fits much better than a sum of falling ones is that of a neuron, and what the fit leaves is its noise, even where the neuron
    never rests. The noise of every other trace is its spread away from its few transients, motion included.

    Args:
        traces: F.
        photons: standard deviation of their photon noise: the result is at least that.
        response: a, the filter's response to one pulse.
    """
    t = traces.shape[1]
    if t > LONGEST:  # some stretches of a long movie
        starts = np.linspace(0, t - LONGEST // STRETCHES, STRETCHES).astype(int)
        parts = [_noise(traces[:, i : i + LONGEST // STRETCHES], photons, response) for i in starts]
        return np.median([part[0] for part in parts], axis=0), np.max([part[1] for part in parts], axis=0)
    data = traces.astype(float)
    up, down = (_unexplained(sign * data, photons, response) for sign in (1, -1))
    spreads, dips = np.zeros(len(data)), np.zeros(len(data))
    for i, trace in enumerate(data):
        if np.sum(up[i] ** 2) < ASYMMETRY * np.sum(down[i] ** 2):
            below = -up[i][up[i] < 0]
            spreads[i], dips[i] = np.percentile(below, 68.27) if len(below) else 0.0, below.max(initial=0)
        else:
            spreads[i], dips[i] = _spread(trace, len(response) // 4)
    return np.maximum(spreads, photons), dips


def _unexplained(
    data: Float[np.ndarray, "k t"], photons: Float[np.ndarray, " k"], response: Float[np.ndarray, " r"]
) -> Float[np.ndarray, "k t"]:
    """F - a * x at the minimum over x >= 0 of |F - a * x|^2 / 2 + 3 sigma |a| sum(x), by FISTA."""
    t, reach = data.shape[1], len(response) - 1
    size = next_fast_len(t + 2 * reach, real=True)
    spectrum = rfft(response, size)[None]
    lipschitz, threshold = float(np.max(np.abs(spectrum)) ** 2), 3 * photons[:, None] * np.linalg.norm(response)

    def forward(x: np.ndarray) -> np.ndarray:
        return irfft(rfft(x, size) * spectrum, size)[:, reach : reach + t]

    x = ahead = np.zeros((len(data), t + reach))
    clock = 1.0
    for _ in range(STEPS):
        padded = np.zeros((len(data), size))
        padded[:, reach : reach + t] = data - forward(ahead)
        gradient = irfft(rfft(padded) * spectrum.conj(), size)[:, : t + reach]
        new = np.maximum(ahead + (gradient - threshold) / lipschitz, 0)
        later = (1 + math.sqrt(1 + 4 * clock**2)) / 2
        x, ahead, clock = new, new + (clock - 1) / later * (new - x), later
    return data - forward(x)


def _spread(trace: Float[np.ndarray, " t"], around: int) -> tuple[float, float]:
    """Standard deviation of a trace away from its transients, from percentiles, and its deepest dip there."""
    low, middle = np.percentile(trace, [15.866, 50])
    spread = float(middle - low)  # transients rise: the lower half has least of them
    quiet = np.ones(trace.shape, bool)
    for _ in range(4):
        calm = maximum_filter1d((trace > LOUD * spread).astype(np.uint8), 2 * around + 1) == 0
        if calm.mean() < LEAST_QUIET:
            break
        quiet = calm
        low, high = np.percentile(trace[quiet], [15.866, 84.134])
        spread = min(spread, float(high - low) / 2)
    return spread, float(np.max(-trace[quiet], initial=0))
