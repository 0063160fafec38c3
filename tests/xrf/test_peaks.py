"""Peaks at unknown energies: exact without noise, at the bound with it, their number found, gradients through the maximum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError, ShapeError
from lfjax.xrf import Detector, fit_peaks, peaks, peaks_bound, splines


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


DETECTOR = Detector(100, 15.0, 5700.0, noise_ev=90.0, tail=0.02, tail_ev=250.0)
ENERGIES, COUNTS = np.array([6346.0, 6454.0]), np.array([2500.0, 7500.0])  # 0.8 of a width apart
BACKGROUND = 4 + 0.03 * np.arange(100)


def expected(energies, counts, background=BACKGROUND):
    return np.asarray(DETECTOR.pulses(jnp.asarray(energies))) @ counts + background


@pytest.mark.parametrize(("apart", "counts"), [(0.6, (5000, 5000)), (0.8, (1700, 8300)), (1.0, (5000, 500))])
def test_two_peaks_without_noise_are_exact(apart, counts):
    width = float(DETECTOR.fwhm_ev(6400.0))
    truth = 6400 + apart * width * np.array([-0.5, 0.5])
    found = fit_peaks(expected(truth, counts), DETECTOR, 2)
    np.testing.assert_allclose(found.energies_ev, truth, atol=1e-6 * width)
    np.testing.assert_allclose(found.counts, counts, rtol=1e-5)
    np.testing.assert_allclose(found.background, BACKGROUND, rtol=1e-4)


def test_four_peaks_without_noise_or_background_are_exact():
    truth, counts = np.array([6000.0, 6150.0, 6460.0, 6640.0]), np.array([900.0, 300.0, 1500.0, 400.0])
    found = fit_peaks(expected(truth, counts, 0), DETECTOR, 4)
    np.testing.assert_allclose(found.energies_ev, truth, atol=1e-6 * 130)
    np.testing.assert_allclose(found.counts, counts, rtol=1e-5)


def test_bound_is_the_inverse_of_numeric_information():
    # slopes by central differences, nuisance a constant and a ramp
    columns = np.stack([np.ones(100), np.arange(100.0)], axis=1)

    def mu(values):
        return expected(values[:2], values[2:4], columns @ values[4:])

    at = np.concatenate([ENERGIES, COUNTS, [4, 0.03]])
    steps = np.array([1e-2, 1e-2, 1.0, 1.0, 1e-2, 1e-4])
    slopes = [(mu(at + step) - mu(at - step)) / (2 * step.sum()) for step in np.diag(steps)]
    information = np.array([[np.sum(a * b / mu(at)) for a in slopes] for b in slopes])
    bound = peaks_bound(DETECTOR, ENERGIES, COUNTS, BACKGROUND, columns=columns)
    inverse = np.linalg.inv(information)[:4, :4]
    scale = np.sqrt(np.diag(inverse))
    np.testing.assert_allclose(bound.covariance / scale / scale[:, None], inverse / scale / scale[:, None], atol=1e-3)
    np.testing.assert_allclose(np.concatenate([bound.errors_ev, bound.errors_counts]), scale, rtol=1e-3)
    alone = peaks_bound(Detector(2000, 1.0, 5400.0, noise_ev=90.0), ENERGIES[:1], COUNTS[:1], columns=np.zeros((2000, 0)))
    sigma = float(DETECTOR.fwhm_ev(ENERGIES[0])) / 2.3548
    assert float(alone.errors_ev[0]) == pytest.approx(sigma / COUNTS[0] ** 0.5, rel=1e-2)  # a Gaussian of many channels
    assert float(alone.errors_counts[0]) == pytest.approx(COUNTS[0] ** 0.5, rel=1e-2)


def test_errors_are_those_of_the_bound_over_many_spectra():
    noisy = np.random.default_rng(0).poisson(expected(ENERGIES, COUNTS), (150, 100)).astype(float)
    found = jax.jit(jax.vmap(lambda y: fit_peaks(y, DETECTOR, 2)))(noisy)
    bound = peaks_bound(DETECTOR, ENERGIES, COUNTS, BACKGROUND)
    for values, truth, errors in (
        (found.energies_ev, ENERGIES, bound.errors_ev),
        (found.counts, COUNTS, bound.errors_counts),
    ):
        deviation = (np.asarray(values) - truth) / np.asarray(errors)
        assert np.all(np.abs(deviation) < 5)
        assert np.all(np.sqrt(np.mean(deviation**2, axis=0)) < 1.2)


def test_gradients_pass_through_the_maximum():
    noisy = np.random.default_rng(1).poisson(expected(ENERGIES, COUNTS)).astype(float)

    @jax.jit
    def found(counts, noise_ev, gain_ev):
        detector = Detector(100, gain_ev, 5700.0, noise_ev=noise_ev, tail=0.02, tail_ev=250.0)
        fit = fit_peaks(counts, detector, 2)
        return jnp.concatenate([fit.energies_ev, fit.counts])

    at = (noisy, 90.0, 15.0)
    direction = np.zeros(100)
    direction[40:44] = 1.0
    slopes = jax.jacrev(found, argnums=(0, 1, 2))(*at)
    for i, step in enumerate((0.5 * direction, 0.02, 1e-4)):
        up, down = (found(*at[:i], at[i] + sign * step, *at[i + 1 :]) for sign in (1, -1))
        exact = slopes[0] @ step if i == 0 else slopes[i] * step
        np.testing.assert_allclose(exact, (up - down) / 2, rtol=2e-3, atol=1e-3 * np.abs(exact).max())


def test_the_number_of_peaks_is_found():
    for seed in range(3):
        found = peaks(np.random.default_rng(seed).poisson(expected(ENERGIES, COUNTS)), DETECTOR)
        assert len(found.energies_ev) == 2
        np.testing.assert_array_less(np.abs(found.energies_ev - ENERGIES), 5 * found.errors_ev)
        np.testing.assert_array_less(np.abs(found.counts - COUNTS), 5 * found.errors_counts)
        assert np.all(found.gains > 50)


@pytest.mark.parametrize("level", [0.05, 5.0, 2000.0])
def test_nothing_is_found_in_background(level):
    smooth = level * 100 / 4 * splines(DETECTOR) @ np.array([0.3, 2.0, 0.7, 1.0])  # one that the model holds: see `peaks`
    for seed in range(3):
        assert len(peaks(np.random.default_rng(seed).poisson(smooth), DETECTOR).energies_ev) == 0


def test_a_dense_spectrum_is_found_whole():
    detector = Detector(512, 20.0, 0.0, noise_ev=90.0)
    rng = np.random.default_rng(5)
    places = float(detector.warped(1200.0)) + np.cumsum(rng.uniform(0.9, 4.0, 24))
    energies = np.asarray(detector.unwarped(places[places < float(detector.warped(9800.0))]))
    counts = 10 ** rng.uniform(3, 4.7, len(energies))
    channel = np.arange(512)
    background = 10 + 100 * np.exp(-(((channel - 250) / 150) ** 2))
    y = rng.poisson(np.asarray(detector.pulses(energies)) @ counts + background)
    found = peaks(y, detector, lowest_ev=800.0)
    assert len(energies) >= 20
    assert len(found.energies_ev) == len(energies)
    np.testing.assert_array_less(np.abs(found.energies_ev - energies), 5 * found.errors_ev)
    np.testing.assert_array_less(np.abs(found.counts - counts), 5 * found.errors_counts)
    assert not found.background[detector.energies_ev < 790].any()


def test_wrong_arguments(unchecked):
    y = np.ones(100)
    with pytest.raises(ParameterError, match="count = 12"):
        fit_peaks(y, DETECTOR, 12)
    with pytest.raises(ShapeError, match="background"):
        fit_peaks(y, DETECTOR, 1, background=np.ones((50, 2)))
    with pytest.raises(ShapeError, match="counts"):
        peaks(np.ones(50), DETECTOR)
    with pytest.raises(ParameterError, match="lowest_ev and highest_ev"):
        peaks(y, DETECTOR, lowest_ev=6000.0, highest_ev=6050.0)
    with pytest.raises(ParameterError, match="largest = 0"):
        peaks(y, DETECTOR, largest=0)
    with jax.enable_x64(False), pytest.raises(ParameterError, match="jax_enable_x64"):
        fit_peaks(y, DETECTOR, 1)
