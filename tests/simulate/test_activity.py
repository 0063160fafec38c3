"""Spikes, calcium, bleaching and motion against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError, ShapeError
from lfjax.simulate import JGCAMP8F, Indicator, Scene, activity, brain_motion, cortex
from lfjax.simulate.scene import BREATH_HZ, HEART_HZ, shift


def one_spike(steps):
    spikes = np.zeros((1, steps), np.float32)
    spikes[0, 0] = 1
    return spikes


@pytest.mark.parametrize("indicator", [JGCAMP8F, Indicator(0.01, 0.5, 1.0), Indicator(0.02, 0.15, 0.2)])
def test_one_spike_rises_and_decays_in_its_half_times(indicator):
    step = indicator.rise_half_s / 200
    spikes = one_spike(int(4 * indicator.decay_half_s / step))
    trace = np.asarray(indicator.response(spikes, step))[0]
    top = int(trace.argmax())
    assert trace.max() == pytest.approx(indicator.peak, rel=1e-3)
    assert np.interp(indicator.peak / 2, trace[:top], np.arange(top) * step) == pytest.approx(indicator.rise_half_s, rel=0.02)
    fall = np.interp(-indicator.peak / 2, -trace[top:], np.arange(len(trace) - top) * step)
    assert fall == pytest.approx(indicator.decay_half_s, rel=0.02)


def test_the_response_is_a_convolution():
    spikes = (np.random.default_rng(0).random((3, 400)) < 0.05).astype(float)
    kernel = np.asarray(JGCAMP8F.response(one_spike(400), 2e-3))[0]
    expected = np.stack([np.convolve(s, kernel)[:400] for s in spikes])
    np.testing.assert_allclose(JGCAMP8F.response(spikes, 2e-3), expected, atol=1e-5)


def test_rates_are_log_normal_and_frames_are_means():
    made = activity(jax.random.key(0), 400, 3000, 0.02, rate_hz=1.0, rate_spread=0.8, burst_spread=0.5, substeps=5)
    assert made.spikes.shape == (400, 15000)
    assert made.dff.shape == (400, 3000)
    spikes, dff = np.asarray(made.spikes), np.asarray(made.dff)
    rates = spikes.sum(1) / 60
    logarithms = np.log(rates[rates > 0])
    assert np.median(rates) == pytest.approx(1.0, rel=0.15)
    assert logarithms.std() == pytest.approx(0.8, rel=0.15)
    # on average a spike leaves the integral of its response, also at the start: the indicator is in its steady state
    tail = np.asarray(JGCAMP8F.response(one_spike(4000), 1e-3)).sum() * 1e-3
    for part in (slice(0, 1500), slice(1500, 3000)):
        rate = spikes[:, part.start * 5 : part.stop * 5].sum() / 400 / 30
        assert dff[:, part].mean() == pytest.approx(rate * tail, rel=0.05)


def test_a_scene_is_its_parts():
    tissue = cortex(jax.random.key(0), (6, 24, 24), (5.0, 2.0, 2.0), count=3, vessels=True)
    dff = jnp.asarray(np.abs(np.random.default_rng(1).standard_normal((3, 10), np.float32)))
    still = Scene(tissue, jnp.zeros((3, 10)), 0.1)
    np.testing.assert_allclose(still.volume(4), tissue.rest, rtol=1e-5, atol=1e-6)
    fading = Scene(tissue, dff, 0.1, neuropil_dff=jnp.zeros(10), bleach_s=2.0)
    light = np.einsum("n,nzyx->zyx", 1 + dff[:, 7], tissue.footprints) + tissue.neuropil
    expected = np.exp(-0.7 / 2) * np.asarray(tissue.transmission) * light
    np.testing.assert_allclose(fading.volume(7), expected, rtol=1e-4, atol=1e-6)
    stack = jax.jit(jax.vmap(fading.volume))(jnp.arange(10))
    np.testing.assert_allclose(stack[7], expected, rtol=1e-4, atol=1e-6)


def test_shifts_move_what_is_inside():
    moved = jax.jit(shift)
    x, expected = np.zeros((2, 5, 9, 9), np.float32)
    x[2, 4, 4] = expected[3, 2, 4] = 1
    np.testing.assert_allclose(moved(x, np.float32([1.0, -2.0, 0.0])), expected, atol=1e-6)
    image = np.asarray(moved(x, np.float32([0.25, 0.5, -0.4])))
    middle = [float((image * i).sum()) for i in np.meshgrid(*(np.arange(n) for n in x.shape), indexing="ij")]
    np.testing.assert_allclose(middle, [2.25, 4.5, 3.6], atol=1e-5)
    np.testing.assert_allclose(moved(np.ones_like(x), np.float32([3.3, -7.0, 0.2])), 1.0, rtol=1e-6)
    np.testing.assert_allclose(moved(np.ones((1, 3, 3), np.float32), np.float32([0.5, 0.0, 0.0])), 1.0)


def test_the_brain_moves_with_heart_and_breath():
    shifts = np.asarray(brain_motion(jax.random.key(0), 4000, 0.01, drift_um=0.0))
    power = np.abs(np.fft.rfft(shifts, axis=0)).sum(1)
    frequencies = np.fft.rfftfreq(4000, 0.01)
    assert sorted(frequencies[np.argsort(power)[-2:]]) == [BREATH_HZ, HEART_HZ]
    assert np.linalg.norm(shifts, axis=1).max() <= 1.5 + 1e-5
    keys = jax.random.split(jax.random.key(1), 200)
    walks = np.asarray(jax.vmap(lambda key: brain_motion(key, 601, 0.1, heart_um=0.0, breath_um=0.0))(keys))
    assert walks[:, 600, 1].std() == pytest.approx(0.5, rel=0.15)


def test_bad_arguments_are_named(unchecked):
    with pytest.raises(ParameterError, match="rise_half_s"):
        Indicator(0.1, 0.2, 1.0)
    with pytest.raises(ParameterError, match="frames"):
        activity(jax.random.key(0), 3, 0)
    tissue = cortex(jax.random.key(0), (4, 20, 20), (5.0, 2.0, 2.0), count=2)
    with pytest.raises(ParameterError, match="t = 10"):
        Scene(tissue, jnp.zeros((2, 10)), 0.1).volume(10)
    with pytest.raises(ShapeError, match="dff"):
        Scene(tissue, jnp.zeros((3, 10)), 0.1)
    with pytest.raises(ShapeError, match="shifts_um"):
        Scene(tissue, jnp.zeros((2, 10)), 0.1, shifts_um=jnp.zeros((9, 3)))
