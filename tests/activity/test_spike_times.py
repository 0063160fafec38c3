"""Spike times against simulated traces, and the pulse against the indicator's response."""

import jax
import numpy as np
import pytest

from lfjax.activity.spike_times import Pulse, spike_score, spikes
from lfjax.errors import ParameterError, ShapeError
from lfjax.simulate import JGCAMP8F, activity

PULSE = Pulse(*JGCAMP8F.time_constants_s)
FRAME = 0.01


@jax.jit
def pulses(t):
    return PULSE(t, FRAME)


def trace_of(times, amplitudes, frames=400, baseline=0.0):
    t = np.arange(frames) * FRAME
    return baseline + sum(a * np.asarray(pulses(t - s)) for a, s in zip(amplitudes, times, strict=True))


def test_the_pulse_is_the_indicator():
    fine = np.asarray(jax.jit(lambda t: PULSE(t, 1e-4))(np.arange(-10, 4000) * 1e-4))
    impulse = np.eye(1, 4000, dtype=np.float32)
    direct = np.asarray(jax.jit(lambda s: JGCAMP8F.response(s, 1e-4))(impulse))[0] / 0.41
    np.testing.assert_allclose(fine[10:-1], (direct[:-1] + direct[1:])[: len(fine[10:-1])] / 2, atol=2e-3)
    assert fine[:9].max() == 0
    assert fine.max() == pytest.approx(1.0, abs=1e-3)


def test_spikes_are_found_between_the_frames():
    times, amplitudes = [0.5032, 1.2079, 1.2961, 2.7713], [0.41, 0.82, 0.41, 1.23]
    found = spikes(trace_of(times, amplitudes, baseline=0.1), FRAME, PULSE, 0.41, noise=1e-3, most=16, refine=20)
    order = np.argsort(np.where(found.found, found.times_s, np.inf))[:4]
    assert int(found.found.sum()) == 4
    np.testing.assert_allclose(np.asarray(found.times_s)[order], times, atol=1e-3)
    np.testing.assert_allclose(np.asarray(found.amplitudes)[order], amplitudes, rtol=0.02)
    assert list(np.asarray(found.counts)[order]) == [1, 2, 1, 3]
    assert float(found.baseline) == pytest.approx(0.1, abs=2e-3)
    assert len(found.train()) == 7


@jax.jit
def spikes_of(traces):
    return jax.lax.map(lambda y: spikes(y, FRAME, PULSE, 0.41, most=100), traces)


def test_noise_alone_holds_no_spikes_and_its_size_is_found():
    found = spikes_of(0.08 * np.random.default_rng(0).normal(size=(6, 1000)).astype(np.float32))
    assert int(np.sum(found.counts)) <= 1
    np.testing.assert_allclose(found.noise, 0.08, rtol=0.1)


@pytest.mark.parametrize("rate", [1.0, 5.0])
def test_jgcamp8f_at_100_hz_and_snr_5(rate):
    made = activity(jax.random.key(1), 6, 1000, FRAME, rate_hz=rate, rate_spread=0.0, burst_spread=0.0)
    noisy = np.asarray(made.dff) + 0.41 / 5 * np.random.default_rng(2).normal(size=made.dff.shape)
    found = jax.tree.map(np.asarray, spikes_of(noisy.astype(np.float32)))
    scores = []
    for n in range(6):
        truth = np.repeat(np.arange(10000) * made.step_s, np.asarray(made.spikes[n]).astype(int))
        scores.append(spike_score(truth, jax.tree.map(lambda leaf, n=n: leaf[n], found).train())[0])
    assert np.mean(scores) >= 0.9


def test_scores_match_each_spike_once():
    assert spike_score([1.0, 2.0], [1.01, 2.5]) == (0.5, 0.5, 0.5)
    assert spike_score([1.0], [0.99, 1.01])[1] == 0.5
    assert spike_score([], [])[0] == 1.0
    assert spike_score([1.0, 1.03], [1.02, 1.04], 0.021)[0] == 1.0


def test_bad_arguments_are_named():
    with pytest.raises(ShapeError, match="trace"):
        spikes(np.zeros((2, 10)), FRAME, PULSE, 0.41)
    with pytest.raises(ParameterError, match="frame_s"):
        spikes(np.zeros(10), 0.0, PULSE, 0.41)
