"""Spike times from a calcium trace: a stream of pulses of one shape, a signal of finite rate of innovation.

    y(t) = b + sum_k a_k h(t - t_k) + noise,   h(t) ~ exp(-t / t_d) - exp(-t / t_d - t / t_r), of maximum 1

1. Nonnegative sparse deconvolution on a grid finer than the frames (FISTA): min |y - b - h * x|^2 / 2 + threshold |x|_1.
2. Neighbouring masses of x form one event: its time is their centre, its number of spikes their sum over the amplitude of one.
3. Gauss-Newton on the samples refines all times and amplitudes at once.

Spikes as a signal of finite rate of innovation: Onativia, Schultz & Dragotti, J. Neural Eng. 10, 046017 (2013). The functions
are pure; batch neurons by `jax.vmap` or, with less memory, `jax.lax.map`. float32 is sufficient.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.solvers import momentum

SUBSTEPS = 2  # grid points per frame
STEPS = 300  # of FISTA


class Pulse(NamedTuple):
    """Shape of one transient.

    Attributes:
        rise_s: t_r, in seconds.
        decay_s: t_d, in seconds.
    """

    rise_s: float
    decay_s: float

    @property
    def height(self) -> float:
        """Maximum of the difference of exponentials."""
        top = self.rise_s * math.log1p(self.decay_s / self.rise_s)
        return math.exp(-top / self.decay_s) * -math.expm1(-top / self.rise_s)

    def __call__(self, t: ArrayLike, frame_s: float) -> Array:
        """h averaged over frames of `frame_s` that start at times t, in seconds; the shape of t."""
        slow, fast = 1 / self.decay_s, 1 / self.decay_s + 1 / self.rise_s

        def integral(u: Array) -> Array:
            late = jnp.maximum(u, 0)
            return -jnp.expm1(-slow * late) / slow + jnp.expm1(-fast * late) / fast

        start = jnp.asarray(t)
        return (integral(start + frame_s) - integral(start)) / (frame_s * self.height)


class Spikes(NamedTuple):
    """Events of one trace, in arbitrary order; entries where `found` is false are empty.

    Attributes:
        times_s: (k,), onset of the transient, not its peak; from the start of the trace.
        amplitudes: (k,), peak of the transient.
        counts: (k,), number of spikes of each event.
        found: (k,), whether the entry holds an event.
        baseline: b.
        noise: standard deviation of a frame's noise.
    """

    times_s: Float[Array, " k"]
    amplitudes: Float[Array, " k"]
    counts: Int[Array, " k"]
    found: Bool[Array, " k"]
    baseline: Float[Array, ""]
    noise: Float[Array, ""]

    def train(self) -> Float[np.ndarray, " n"]:
        """Times of all spikes in ascending order; an event of two spikes appears twice."""
        times = np.repeat(np.asarray(self.times_s), np.asarray(self.counts) * np.asarray(self.found))
        return np.sort(times)


def spikes(
    trace: ArrayLike,
    frame_s: float,
    pulse: Pulse,
    amplitude: ArrayLike,
    *,
    noise: ArrayLike | None = None,
    most: int = 256,
    merge_s: float = 0.02,
    refine: int = 4,
) -> Spikes:
    """Spikes of one trace.

    Args:
        trace: dF/F, (t,).
        frame_s: duration of a frame.
        pulse: shape of a transient.
        amplitude: peak of the transient of one spike. If it is unknown, the median of `Spikes.amplitudes` of a first pass with
            a low guess is an estimate: single spikes are the most frequent.
        noise: standard deviation of a frame's noise; by default estimated from the differences of neighbouring frames.
        most: largest number of events.
        merge_s: events closer than this are one event of several spikes.
        refine: number of Gauss-Newton steps on times, amplitudes and baseline.

    Raises:
        ShapeError: the trace has other than one axis.
        ParameterError: a number is out of range.
    """
    require_shape("trace", np.shape(trace), ("t",))
    for name, value in (("frame_s", frame_s), ("merge_s", merge_s)):
        require(0 < value < math.inf, name, value, "a positive number")
    require(isinstance(most, int) and most >= 1, "most", most, "1 or more")
    trace = jnp.asarray(trace, jnp.result_type(float))
    return _spikes(trace, jnp.asarray(amplitude), noise, float(frame_s), pulse, most, float(merge_s), refine)


@partial(jax.jit, static_argnums=(3, 4, 5, 6, 7))
def _spikes(
    trace: Float[Array, " t"],
    amplitude: Array,
    noise: Array | None,
    frame_s: float,
    pulse: Pulse,
    most: int,
    merge_s: float,
    refine: int,
) -> Spikes:
    if noise is None:  # median of |differences|; transients are rare
        noise = jnp.median(jnp.abs(jnp.diff(trace))) / 0.6745 / math.sqrt(2)
    sigma = jnp.asarray(noise, trace.dtype)
    x, base = _deconvolve(trace, sigma, frame_s, pulse)
    times, masses = _events(x, frame_s / SUBSTEPS, most, merge_s, 0.3 * amplitude)
    times, masses, base = _refine(trace, base, times, masses, frame_s, pulse, refine, merge_s)
    counts = jnp.where(times < 0, 0, jnp.round(masses / amplitude)).astype(int)
    counts = jnp.where((masses > 0.5 * amplitude) & (counts < 1), 1, counts)
    return Spikes(times, masses, counts, counts > 0, base, sigma)


def _deconvolve(
    trace: Float[Array, " t"], sigma: Float[Array, ""], frame_s: float, pulse: Pulse
) -> tuple[Float[Array, " s"], Float[Array, ""]]:
    """Sparse deconvolution: x at every substep, and the baseline."""
    t, step = trace.shape[0], frame_s / SUBSTEPS
    reach = min(t, math.ceil((8 * pulse.decay_s) / frame_s)) * SUBSTEPS
    response = pulse(jnp.arange(reach) * step - (SUBSTEPS - 1) * step, frame_s)  # to a spike at grid point 0, at every substep
    length = 1 << math.ceil(math.log2(t * SUBSTEPS + reach))
    spectrum = jnp.fft.rfft(response, length)

    def forward(x: Array) -> Array:
        return jnp.fft.irfft(jnp.fft.rfft(x, length) * spectrum, length)[SUBSTEPS - 1 : t * SUBSTEPS : SUBSTEPS]

    def adjoint(y: Array) -> Array:
        spread = jnp.zeros(t * SUBSTEPS, y.dtype).at[SUBSTEPS - 1 :: SUBSTEPS].set(y)
        return jnp.fft.irfft(jnp.fft.rfft(spread, length) * spectrum.conj(), length)[: t * SUBSTEPS]

    lipschitz = jnp.max(jnp.abs(spectrum)) ** 2 / SUBSTEPS * 1.01
    threshold = sigma * jnp.sqrt(jnp.sum(response[SUBSTEPS - 1 :: SUBSTEPS] ** 2))

    def iterate(state: tuple[Array, Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array, Array], None]:
        x, ahead, clock, base = state
        residual = trace - base - forward(ahead)
        new = jnp.maximum(ahead + (adjoint(residual) - threshold) / lipschitz, 0)
        base = jnp.median(trace - forward(new))
        later, push = momentum.advance(clock)
        return (new, new + push * (new - x), later, base), None

    zero = jnp.zeros(t * SUBSTEPS, trace.dtype)
    start = (zero, zero, jnp.ones((), trace.dtype), jnp.percentile(trace, 20.0).astype(trace.dtype))
    (x, _, _, base), _ = jax.lax.scan(iterate, start, None, length=STEPS)
    return x, base


def _events(x: Array, step: float, most: int, merge_s: float, least: Array | float) -> tuple[Array, Array]:
    """Centres and masses of neighbouring values, the heaviest first; masses below `least` are 0."""
    half = max(1, round(merge_s / step / 2))
    index = jnp.arange(x.shape[0])

    def heaviest(left: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        total = jnp.cumsum(jnp.pad(left, (half + 1, half)))
        window = total[2 * half + 1 :] - total[: -2 * half - 1]
        middle = jnp.argmax(window)
        inside = jnp.abs(index - middle) <= half
        mass = jnp.sum(left * inside)
        centre = jnp.sum(left * inside * index) / jnp.where(mass > 0, mass, 1)
        real = mass > least
        return jnp.where(inside & real, 0, left), (jnp.where(real, centre * step, -1.0), jnp.where(real, mass, 0.0))

    _, (times, masses) = jax.lax.scan(heaviest, x, None, length=most)
    return times, masses


def _refine(
    trace: Array, base: Array, times: Array, masses: Array, frame_s: float, pulse: Pulse, steps: int, merge_s: float
) -> tuple[Array, Array, Array]:
    """Gauss-Newton on times, amplitudes and baseline of all events; empty entries stay empty."""
    frames = jnp.arange(trace.shape[0]) * frame_s
    real = masses > 0

    def model(time: Array) -> Array:
        return pulse(frames - time, frame_s)

    def gauss_newton(state: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        times, masses, base = state
        shapes = jax.vmap(model)(times) * real[:, None]
        slopes = jax.vmap(lambda u: jax.jvp(model, (u,), (jnp.ones_like(u),))[1])(times) * (masses * real)[:, None]
        jacobian = jnp.concatenate([shapes, slopes, jnp.ones((1, trace.shape[0]))])
        gram = jacobian @ jacobian.T
        scale = jnp.diag(gram)
        damped = gram + jnp.diag(jnp.where(scale > 0, 1e-3 * scale, 1.0))
        move = jnp.linalg.solve(damped, jacobian @ (trace - base - masses @ shapes))
        k = times.shape[0]
        times = times + jnp.clip(move[k : 2 * k], -merge_s / 4, merge_s / 4)
        return (times, jnp.where(real, jnp.maximum(masses + move[:k], 0), 0), base + move[-1]), None

    (times, masses, base), _ = jax.lax.scan(gauss_newton, (times, masses, base), None, length=steps)
    return jnp.where(real, times, -1.0), masses, base


def spike_score(truth: ArrayLike, found: ArrayLike, tolerance_s: float = 0.02) -> tuple[float, float, float]:
    """F1, precision and recall of spike times under the largest one-to-one matching within a tolerance.

    Args:
        truth: true times, in seconds, in any order.
        found: found times.
        tolerance_s: largest difference of a match.

    Returns:
        (F1, precision, recall), from 0 to 1; F1 is 1 where there is nothing to find and nothing was found.
    """
    a, b = np.sort(np.ravel(truth)), np.sort(np.ravel(found))
    i = j = hits = 0
    while i < len(a) and j < len(b):
        if abs(a[i] - b[j]) <= tolerance_s:
            hits, i, j = hits + 1, i + 1, j + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    precision, recall = hits / max(len(b), 1), hits / max(len(a), 1)
    return (2 * hits / (len(a) + len(b)) if len(a) + len(b) else 1.0), precision, recall
