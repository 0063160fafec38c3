"""Spike trains and their fluorescence through a calcium indicator."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from scipy.optimize import brentq

from lfjax.errors import require, require_shape
from lfjax.io.limits import require_memory


class Indicator(eqx.Module):
    """Fluorescence after a spike: dF/F = A (exp(-t / t_d) - exp(-t / t_d - t / t_r)) / its maximum.

    Attributes:
        rise_half_s: time from the spike to half of the peak.
        decay_half_s: time from the peak to half of it.
        peak: A, dF/F of one spike.

    Raises:
        ParameterError: a time or the peak is out of range; this form rises in less than 0.138 `decay_half_s`.
    """

    rise_half_s: float = eqx.field(static=True)
    decay_half_s: float = eqx.field(static=True)
    peak: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        for name in ("rise_half_s", "decay_half_s", "peak"):
            value = getattr(self, name)
            require(isinstance(value, (int, float)) and 0 < value < math.inf, name, value, "a positive number")
        limit = 0.138 * self.decay_half_s  # t exp(-t) has the slowest rise of this form
        require(self.rise_half_s < limit, "rise_half_s", self.rise_half_s, f"below {limit:.3g}, 0.138 of decay_half_s")

    @property
    def time_constants_s(self) -> tuple[float, float]:
        """(t_r, t_d) that give the two half times. Their ratio depends on t_r / t_d alone, which a root search finds."""
        wanted = self.rise_half_s / self.decay_half_s
        ratio = math.exp(brentq(lambda log: math.log(_half_times(math.exp(log))[0] / wanted), -12, 9))
        decay = self.decay_half_s / _half_times(ratio)[1]
        return ratio * decay, decay

    def response(self, spikes: Float[ArrayLike, "n t"], step_s: float) -> Float[Array, "n t"]:
        """dF/F of spike counts per time step: linear, and exact for spikes at the start of a step.

        Args:
            spikes: (n, t), counts.
            step_s: length of a step.

        Raises:
            ShapeError: `spikes` does not have two axes.
        """
        require_shape("spikes", jnp.shape(spikes), ("n", "t"))
        rise, decay = self.time_constants_s
        height = _height(rise / decay)
        rates = np.array([1 / decay, 1 / decay + 1 / rise])
        return _two_exponentials(spikes, np.exp(-step_s * rates), np.array([1.0, -1.0]) * (self.peak / height))


@jax.jit
def _two_exponentials(
    spikes: Float[ArrayLike, "n t"], fade: Float[ArrayLike, "2"], weights: Float[ArrayLike, "2"]
) -> Float[Array, "n t"]:
    """The weighted sum of two leaky integrators of the spikes, which decay by `fade` per step."""
    start = jnp.zeros((jnp.shape(spikes)[0], 2), jnp.result_type(float))
    fade, weights = jnp.asarray(fade, start.dtype), jnp.asarray(weights, start.dtype)

    def advance(state: Array, new: Array) -> tuple[Array, Array]:
        state = state * fade + new[:, None]
        return state, state @ weights

    _, trace = jax.lax.scan(advance, start, jnp.asarray(spikes, start.dtype).T)
    return trace.T


def _height(ratio: float) -> float:
    """Maximum of (1 - exp(-t / ratio)) exp(-t), at t = ratio log(1 + 1 / ratio)."""
    top = ratio * math.log1p(1 / ratio)
    return math.exp(-top) * -math.expm1(-top / ratio)


def _half_times(ratio: float) -> tuple[float, float]:
    """Half-rise time over half-decay time, and half-decay time, of (1 - exp(-t / ratio)) exp(-t)."""
    top, half = ratio * math.log1p(1 / ratio), _height(ratio) / 2

    def over(t: float) -> float:
        return math.exp(-t) * -math.expm1(-t / ratio) - half

    decay = brentq(over, top, top + 50) - top
    return brentq(over, 0, top) / decay, decay


JGCAMP8F = Indicator(rise_half_s=7.1e-3, decay_half_s=67.4e-3, peak=0.41)
"""One spike in cultured neurons (Zhang et al., Nature 615, 884 (2023)). dF/F is "moderately linear" up to 10 spikes, with
0.59 <= R^2 <= 0.82 over the jGCaMP8 sensors, and less so up to 40 (its Extended Data Fig. 6)."""


class Activity(NamedTuple):
    """Spikes and fluorescence of neurons.

    Attributes:
        spikes: (n, t substeps), counts per substep.
        dff: (n, t), dF/F averaged over each frame.
        step_s: length of a substep.
        frame_s: length of a frame.
    """

    spikes: Float[Array, "n s"]
    dff: Float[Array, "n t"]
    step_s: float
    frame_s: float


def activity(
    key: Array,
    neurons: int,
    frames: int,
    frame_s: float = 0.01,
    *,
    indicator: Indicator = JGCAMP8F,
    rate_hz: float = 0.5,
    rate_spread: float = 1.0,
    burst_s: float = 0.3,
    burst_spread: float = 1.5,
    substeps: int = 10,
) -> Activity:
    """Spike trains and their fluorescence, starting in the steady state.

    Rates are log-normal over neurons and, around each neuron's rate, log-normal in time with an exponential
    autocorrelation. Spikes are Poisson, at most one per substep.

    Args:
        key: random key.
        neurons: n.
        frames: t.
        frame_s: time per frame.
        indicator: kinetics of the indicator.
        rate_hz: median rate (assumed). Cortical firing rates are log-normal (Buzsaki & Mizuseki, Nat. Rev. Neurosci. 15, 264
            (2014)).
        rate_spread: standard deviation of the logarithm of the rate over neurons (assumed).
        burst_s: correlation time of the rate (assumed).
        burst_spread: standard deviation of the logarithm of the rate in time (assumed); 0: steady rates.
        substeps: substeps per frame; spikes fall on substeps.

    Raises:
        ParameterError: a number is out of range, or the spikes do not fit into the memory.
    """
    for name, number in (("neurons", neurons), ("frames", frames), ("substeps", substeps)):
        require(isinstance(number, (int, np.integer)) and number >= 1, name, number, "a whole number, 1 or more")
    for name, value in (("frame_s", frame_s), ("rate_hz", rate_hz), ("burst_s", burst_s)):
        require(0 < value < math.inf, name, value, "a positive number")
    for name, value in (("rate_spread", rate_spread), ("burst_spread", burst_spread)):
        require(0 <= value < math.inf, name, value, "zero or more")
    step_s = frame_s / substeps
    before = math.ceil(10 * indicator.decay_half_s / frame_s)  # discarded frames, after which the indicator is steady
    steps = (frames + before) * substeps
    require_memory("frames (--frames)", frames, 32 * neurons * steps)
    spikes = np.asarray(_spikes(key, neurons, steps, step_s, rate_hz, rate_spread, burst_s, burst_spread))
    dff = np.asarray(indicator.response(spikes, step_s)).reshape(neurons, frames + before, substeps).mean(-1)
    return Activity(jnp.asarray(spikes[:, before * substeps :]), jnp.asarray(dff[:, before:]), step_s, frame_s)


def spike_times(fired: Activity) -> list[Float[np.ndarray, " _"]]:
    """Spike times in seconds from the first frame, one ascending array per neuron; a spike begins its substep.

    Args:
        fired: from `activity`.
    """
    counts = np.asarray(fired.spikes).astype(int)
    return [np.repeat(np.arange(len(row)) * fired.step_s, row) for row in counts]


@partial(jax.jit, static_argnums=(1, 2))
def _spikes(
    key: Array,
    neurons: int,
    steps: int,
    step_s: Array,
    rate_hz: Array,
    rate_spread: Array,
    burst_s: Array,
    burst_spread: Array,
) -> Float[Array, "n t"]:
    """Spike counts of `activity`."""
    rate_key, burst_key, spike_key = jax.random.split(key, 3)
    rate = rate_hz * jnp.exp(rate_spread * jax.random.normal(rate_key, (neurons, 1)))
    keep = jnp.exp(-step_s / burst_s)
    noise = jax.random.normal(burst_key, (steps, neurons))

    def autoregression(level: Array, new: Array) -> tuple[Array, Array]:
        level = keep * level + jnp.sqrt(1 - keep**2) * new
        return level, level

    _, levels = jax.lax.scan(autoregression, noise[0], noise)
    rate = rate * jnp.exp(burst_spread * levels.T - burst_spread**2 / 2)
    return jax.random.bernoulli(spike_key, -jnp.expm1(-rate * step_s)).astype(jnp.result_type(float))
