"""Quality of neurons against closed forms."""

import math

import numpy as np
import pytest

from lfjax import activity
from lfjax.activity import Neurons
from lfjax.errors import ParameterError, ShapeError

VOXEL_UM = (2.0, 1.0, 1.0)
SHAPE = (30, 60, 60)
CENTRE_UM = np.array([30.0, 30.0, 29.0])


def distances_um():
    z, y, x = (((np.arange(n) + 0.5) * v - c) ** 2 for n, v, c in zip(SHAPE, VOXEL_UM, CENTRE_UM, strict=True))
    return np.sqrt(z[:, None, None] + y[:, None] + x)


@pytest.mark.parametrize("radius_um", [8.0, 12.0, 16.0])
def test_confinement_of_a_gaussian_and_of_uniform_light(radius_um):
    sigma = 5.0
    u = radius_um / sigma
    wanted = math.erf(u / math.sqrt(2)) - math.sqrt(2 / math.pi) * u * math.exp(-(u**2) / 2)
    blob = np.exp(-(distances_um() ** 2) / (2 * sigma**2))
    assert activity.confinement(blob, CENTRE_UM, VOXEL_UM, radius_um) == pytest.approx(wanted, rel=0.03)
    ball = 4 / 3 * math.pi * radius_um**3 / np.prod([n * v for n, v in zip(SHAPE, VOXEL_UM, strict=True)])
    assert activity.confinement(np.ones(SHAPE), CENTRE_UM, VOXEL_UM, radius_um) == pytest.approx(ball, rel=0.05)


def test_confinement_of_one_voxel_depends_only_on_its_middle():
    volume = np.zeros(SHAPE)
    volume[3, 4, 5] = 2.0
    assert activity.confinement(volume, (7.0, 4.5, 5.5), VOXEL_UM, 1e-6) == 1
    assert activity.confinement(volume, (7.0, 4.5, 6.5), VOXEL_UM, 0.99) == 0
    assert activity.confinement(volume, (9.0, 4.5, 5.5), VOXEL_UM, 2.0) == 1


def test_dark_and_negative_volumes_are_refused():
    for bad in (np.zeros((2, 3, 4)), -np.ones((2, 3, 4))):
        with pytest.raises(ParameterError, match="volume"):
            activity.confinement(bad, (1, 1, 1), VOXEL_UM, 2.0)
    with pytest.raises(ShapeError, match="centre_um"):
        activity.confinement(np.ones((2, 3, 4)), (1, 1), VOXEL_UM, 2.0)
    with pytest.raises(ParameterError, match="radius_um"):
        activity.confinement(np.ones((2, 3, 4)), (1, 1, 1), VOXEL_UM, 0.0)


def test_noise_is_found_below_transients_and_drift():
    rng = np.random.default_rng(0)
    sigma = np.array([0.02, 0.1, 0.5])
    traces = sigma[:, None] * rng.normal(size=(3, 20_000)) + np.linspace(0, 5, 20_000)
    traces[:, ::500] += 3
    np.testing.assert_allclose(activity.frame_noise(traces), sigma, rtol=0.03)


def test_peak_snr():
    noise = np.random.default_rng(1).normal(size=(1, 100_000))
    assert activity.peak_snr_db(noise)[0] == pytest.approx(20 * math.log10(2.5758), abs=0.2)
    flat = np.stack([np.full(100, 2.0), np.full(100, -1.0), np.zeros(100), np.full(100, 1.0)])
    np.testing.assert_allclose(activity.peak_snr_db(flat, [0.02, 1.0, 0.0, 0.0]), [40, -np.inf, -np.inf, np.inf])
    with pytest.raises(ShapeError, match="noise"):
        activity.peak_snr_db(flat, [1.0])


def test_quality_of_neurons():
    footprints = np.zeros((2, 4, 5, 6))
    footprints[0, 1, 1, 1] = footprints[0, 1, 1, 5] = 0.5
    neurons = Neurons(
        centres_um=np.array([[3.0, 1.5, 1.5], [1.0, 1.0, 1.0]]),
        footprints=footprints,
        fluorescence=np.ones((2, 50)),
        dff=np.full((2, 50), 0.5),
        spikes=[np.array([0.1, 0.2, 0.2]), np.zeros(0)],
        frame_s=0.02,
        voxel_um=VOXEL_UM,
        noise=np.array([0.05, 0.5]),
    )
    found = activity.quality(neurons, radius_um=2.0)
    np.testing.assert_allclose(found.peak_dff, [0.5, 0.5])
    np.testing.assert_allclose(found.snr_db, [20, 0], atol=1e-9)
    np.testing.assert_allclose(found.spikes_hz, [3, 0])
    np.testing.assert_array_equal(found.confinement, [0.5, np.nan])


def mixed(n=8, t=4000, noise=0.0):
    """Independent activities, and traces in which each adds to its neighbours."""
    rng = np.random.default_rng(2)
    truth = rng.exponential(size=(n, t))
    places = 10.0 * np.arange(n)[:, None] * [0.0, 0.6, 0.8]
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    leaks = np.select([apart == 0, apart == 1, apart == 2], [1.0, 0.2, -0.05], 0.0)
    return leaks @ truth + 0.3 + noise * rng.normal(size=(n, t)), truth, places, leaks


def test_crosstalk_equals_the_mixing_matrix():
    traces, truth, _, leaks = mixed()
    found = activity.crosstalk_matrix(traces, truth)
    assert np.isnan(np.diag(found)).all()
    off = ~np.eye(len(leaks), dtype=bool)
    np.testing.assert_allclose(found[off], leaks[off], atol=1e-9)


def test_crosstalk_against_distance():
    traces, truth, places, _ = mixed()
    found = activity.crosstalk(traces, places, truth, bin_um=4.0)  # distances of 10, 20, ...
    np.testing.assert_allclose(found.distances_um, [10, 22, 30, 42, 50, 62, 70])
    np.testing.assert_array_equal(found.pairs, [14, 12, 10, 8, 6, 4, 2])
    np.testing.assert_allclose(found.mean, [0.2, -0.05, 0, 0, 0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(found.rms, np.abs(found.mean), atol=1e-9)


def test_noise_averages_out_of_the_mean_but_not_of_the_root_mean_square():
    traces, truth, places, _ = mixed(30, 4000, noise=0.5)
    found = activity.crosstalk(traces, places, truth, bin_um=4.0)
    far = found.distances_um > 25
    error = 0.5 / math.sqrt(4000)  # of a coefficient, the activities having variance 1
    assert abs(np.average(found.mean[far], weights=found.pairs[far])) < 4 * error / math.sqrt(found.pairs[far].sum())
    assert math.sqrt(np.average(found.rms[far] ** 2, weights=found.pairs[far])) == pytest.approx(error, rel=0.1)


def test_crosstalk_without_truth_is_each_trace_regressed_on_the_others():
    traces, _, _, _ = mixed(5, 300, noise=0.1)
    found = activity.crosstalk_matrix(traces)
    for i in range(5):
        others = np.delete(np.arange(5), i)
        matrix = np.column_stack([traces[others].T, np.ones(300)])
        wanted = np.linalg.lstsq(matrix, traces[i], rcond=None)[0][:-1]
        np.testing.assert_allclose(found[i, others], wanted, atol=1e-9)


def test_crosstalk_of_silent_neurons_is_nan():
    traces, truth, places, leaks = mixed()
    truth[3] = 0.1
    found = activity.crosstalk_matrix(traces, truth)
    assert np.isnan(found[:, 3]).all() and np.isfinite(np.delete(found[3], 3)).all()
    traces[3] = 0.0
    assert np.isnan(activity.crosstalk_matrix(traces)[3]).all()
    assert activity.crosstalk(traces, places).pairs.sum() == 7 * 6


def test_wrong_crosstalk_arguments_are_named():
    traces, truth, places, _ = mixed(4, 100)
    with pytest.raises(ParameterError, match="5 frames of 4 neurons"):
        activity.crosstalk_matrix(traces[:, :5])
    with pytest.raises(ParameterError, match="truth.*rank 3 of 4"):
        activity.crosstalk_matrix(traces, truth[[0, 1, 2, 2]])
    with pytest.raises(ShapeError, match="truth"):
        activity.crosstalk_matrix(traces, truth[:3])
    with pytest.raises(ShapeError, match="centres_um"):
        activity.crosstalk(traces, places[:3])
    with pytest.raises(ParameterError, match="bin_um"):
        activity.crosstalk(traces, places, bin_um=0.0)
