"""Spikes of all neurons of a recording, however long their traces."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from lfjax.activity.fluorescence import peak_dff
from lfjax.activity.measures import frame_noise
from lfjax.activity.spike_times import Pulse, spikes
from lfjax.progress import Steps
from lfjax.simulate.calcium import JGCAMP8F

JGCAMP8F_PULSE = Pulse(*JGCAMP8F.time_constants_s)
PIECE = 8192  # frames of a long trace that spikes are sought in at once
MOST_EVENTS = 256  # of a piece; more are sought where all these are found


def find_spikes(
    traces: ArrayLike,
    frame_s: float,
    *,
    pulse: Pulse = JGCAMP8F_PULSE,
    amplitude: float | None = None,
    least_snr: float = 1.5,
    track: Callable[..., Any] | None = None,
) -> tuple[list[Float[np.ndarray, " _"]], Float[np.ndarray, " n"]]:
    """Spike times of every trace by `spikes`, and its noise. Long traces go through it in overlapping pieces of 8192 frames.

    Args:
        traces: dF/F, (n, t).
        frame_s: duration of a frame.
        pulse: shape of a transient: `Pulse(*indicator.time_constants_s)`, the indicator one of `simulate.INDICATORS`.
        amplitude: dF/F of one spike; by default, for each neuron the median height of the transients that a first pass finds,
            since single spikes are the most frequent.
        least_snr: peak dF/F of one spike over the noise of a frame; neurons below this SNR report no spikes, since noise alone
            would look like some.
        track: see `lfjax.progress.track`.

    Returns:
        n arrays of times in seconds, and (n,) standard deviations of a frame's noise.
    """
    values = np.asarray(traces, np.float32)
    noises = frame_noise(values) if values.shape[1] > 1 else np.zeros(len(values))
    found: list[np.ndarray] = []
    numbers = Steps(range(len(values)), 1, "neurons")
    for i in track(numbers, "spikes") if track else numbers:
        one = amplitude
        if one is None:
            guess = max(float(peak_dff(values[i][None])[0]) / 4, 1e-3)
            heights = _events(values[i], frame_s, pulse, guess, noises[i])[1]
            one = float(np.median(heights)) if len(heights) else guess
        loud = one >= least_snr * noises[i]
        found.append(np.sort(np.repeat(*_events(values[i], frame_s, pulse, one, noises[i])[::2])) if loud else np.zeros(0))
    return found, noises


def _events(
    trace: Float[np.ndarray, " t"], frame_s: float, pulse: Pulse, amplitude: float, noise: float
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Times, heights and numbers of spikes of all events of a trace."""
    parts = []
    for piece, low, high in _pieces(len(trace), math.ceil(8 * pulse.decay_s / frame_s)):
        most = min(MOST_EVENTS, max(1, len(trace)))  # events are at least a frame apart
        while True:
            got = spikes(trace[piece], frame_s, pulse, amplitude, noise=noise, most=most)
            there = np.asarray(got.found)
            if not there.all() or most >= len(trace):
                break
            most = min(2 * most, len(trace))  # every entry holds an event: there may be more
        at = np.asarray(got.times_s) + piece.start * frame_s
        there = there & (at >= low * frame_s) & (at < high * frame_s)
        parts.append((at[there], np.asarray(got.amplitudes)[there], np.asarray(got.counts)[there]))
    times, heights, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    return times, heights, counts


def _pieces(t: int, overlap: int) -> list[tuple[slice, float, float]]:
    """Overlapping pieces of a long trace, all of one length, and the frames (from, to) whose events each one reports."""
    length = max(PIECE, 4 * overlap)
    if t <= length:
        return [(slice(0, t), -math.inf, math.inf)]
    count = math.ceil((t - overlap) / (length - overlap))
    starts = np.linspace(0, t - length, count).round().astype(int)
    edges = [-math.inf, *((a + length + b) / 2 for a, b in zip(starts, starts[1:], strict=False)), math.inf]
    return [(slice(int(a), int(a) + length), edges[i], edges[i + 1]) for i, a in enumerate(starts)]
