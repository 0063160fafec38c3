"""The pulse of a line beside SciPy's integrals, widths, and the axis on which all lines are alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from lfjax.errors import ParameterError
from lfjax.xrf import Detector
from lfjax.xrf.detector import FWHM


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


DETECTOR = Detector(400, 20.0, -50.0, noise_ev=90.0, fano=0.115)


def test_width_of_manganese():
    # 140 eV is what a detector with 74 eV of noise has at Mn K alpha: sqrt(74^2 + 2.355^2 0.115 3.66 5895)
    detector = Detector(2, 1.0, noise_ev=74.0, fano=0.115)
    assert float(detector.fwhm_ev(5895.0)) == pytest.approx(np.hypot(74, np.sqrt(8 * np.log(2) * 0.115 * 3.66 * 5895)))


def test_a_pulse_is_the_integral_of_a_gaussian():
    pulse = np.asarray(DETECTOR.pulses(jnp.array([3690.0])))[:, 0]
    sigma = float(DETECTOR.fwhm_ev(3690.0)) / FWHM
    edges = -50 + 20 * (np.arange(401) - 0.5)
    np.testing.assert_allclose(pulse, np.diff(stats.norm.cdf(edges, 3690, sigma)), atol=1e-14)


def test_a_tail_is_the_convolution_with_an_exponential():
    detector = Detector(400, 20.0, -50.0, noise_ev=90.0, tail=0.3, tail_ev=250.0)
    pulse = np.asarray(detector.pulses(jnp.array([3690.0])))[:, 0]
    sigma = float(detector.fwhm_ev(3690.0)) / FWHM
    for channel in (150, 180, 187, 195):
        low, high = (-50 + 20 * (channel + side) for side in (-0.5, 0.5))
        tail, _ = integrate.quad(
            lambda s, low=low, high=high: np.exp(-s / 250) / 250 * np.diff(stats.norm.cdf([low, high], 3690 - s, sigma))[0],
            0,
            5000,
        )
        plain = np.diff(stats.norm.cdf([low, high], 3690, sigma))[0]
        assert pulse[channel] == pytest.approx(0.7 * plain + 0.3 * tail, rel=1e-6, abs=1e-12)
    assert pulse.sum() == pytest.approx(1, abs=1e-6)


def test_every_line_is_as_wide_as_every_other_on_the_warped_axis():
    energy = np.linspace(500.0, 20_000.0, 40)
    slope = jax.vmap(jax.grad(DETECTOR.warped))(jnp.asarray(energy))
    np.testing.assert_allclose(slope * DETECTOR.fwhm_ev(energy), 1, rtol=1e-12)
    np.testing.assert_allclose(DETECTOR.unwarped(DETECTOR.warped(energy)), energy, rtol=1e-12)
    flat = Detector(2, 1.0, noise_ev=100.0, fano=0.0)
    np.testing.assert_allclose(flat.warped(energy), energy / 100)


def test_gradients_in_all_numbers():
    def counts(values):
        gain, offset, noise, fano, tail, tail_ev = values
        detector = Detector(64, gain, offset, noise_ev=noise, fano=fano, tail=tail, tail_ev=tail_ev)
        return detector.pulses(jnp.array([6400.0, 7058.0]))[:, 0]

    at = jnp.array([120.0, -30.0, 80.0, 0.12, 0.02, 300.0])
    exact = jax.jacfwd(counts)(at)
    for i, step in enumerate([1e-3, 1e-2, 1e-2, 1e-5, 1e-5, 1e-1]):
        shift = step * jnp.eye(6)[i]
        np.testing.assert_allclose(exact[:, i], (counts(at + shift) - counts(at - shift)) / (2 * step), atol=1e-6)


BAD = [
    {"gain_ev": 0.0}, {"gain_ev": np.nan}, {"channels": 1}, {"noise_ev": -1.0}, {"tail_ev": 0.0}, {"offset_ev": -np.inf},
    {"offset_ev": np.nan}, {"tail": np.inf}, {"tail": -0.1}, {"tail": 1.5}, {"fano": np.inf},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_numbers_out_of_range(bad):
    with pytest.raises(ParameterError, match=next(iter(bad))):
        Detector(**({"channels": 8, "gain_ev": 10.0} | bad))
