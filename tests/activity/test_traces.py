"""Time courses against SciPy and ground truth; dF/F of traces with a known answer."""

import dataclasses

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from lfjax import activity, simulate, solvers
from lfjax.errors import ParameterError, ShapeError
from lfjax.optics import PSF, LightField, Microscope

FRAME_S = 0.01
nnls = jax.jit(solvers.nonnegative_least_squares, static_argnames=("tolerance", "steps"))


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_nonnegative_least_squares_agrees_with_scipy(alike):
    rng = np.random.default_rng(0)
    matrix = rng.random((60, 12)) + alike * rng.random((60, 1)) * 5
    data = matrix @ np.maximum(rng.normal(size=(12, 20)), 0) + 0.3 * rng.normal(size=(60, 20))
    wanted = np.stack([scipy.optimize.nnls(matrix, y)[0] for y in data.T], axis=1)
    with jax.enable_x64(True):
        got = np.asarray(nnls(jnp.asarray(matrix.T @ matrix), jnp.asarray(matrix.T @ data), tolerance=1e-10, steps=20_000))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert (wanted == 0).any() and (got >= 0).all()


def test_a_positive_solution_needs_no_steps():
    matrix = np.random.default_rng(1).random((40, 5))
    truth = 1 + np.random.default_rng(2).random((5, 7))
    with jax.enable_x64(True):
        gram = matrix.T @ matrix
        got = np.asarray(nnls(jnp.asarray(gram), jnp.asarray(gram @ truth), steps=0))
    np.testing.assert_allclose(got, truth, rtol=1e-9)


@pytest.fixture(scope="module")
def op():
    values = np.random.default_rng(0).random((2, 2, 2, 15, 15), np.float32) ** 6
    values /= values.sum((3, 4), keepdims=True)
    psf = PSF(jnp.asarray(values), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5), (0.0, 30.0))
    return eqx.filter_jit(LightField)(psf, (6, 6))


@pytest.fixture(scope="module")
def footprints(op):
    spots = np.zeros((4, *op.in_shape), np.float32)
    for spot, (z, y, x) in zip(spots, ((0, 2, 3), (1, 3, 8), (0, 9, 4), (1, 8, 9)), strict=True):
        spot[z, y : y + 2, x : x + 2] = 1
    return spots


@pytest.fixture(scope="module")
def images(op, footprints):
    return np.asarray(activity.image_footprints(op, footprints))


def test_time_courses_come_back_from_frames_without_volumes(op, footprints, images):
    np.testing.assert_allclose(images[2], eqx.filter_jit(op.matvec)(footprints[2]), rtol=1e-5, atol=1e-6)
    truth = np.random.default_rng(1).random((4, 9)) * np.array([[1.0], [0.0], [2.0], [3.0]])
    frames = np.einsum("nt,nyx->tyx", truth, images)
    for weights in (None, activity.photon_weights(frames.mean(0))):
        got = activity.Images.of(images, weights).time_courses(frames)
        np.testing.assert_allclose(got, truth, atol=2e-3)


def test_photon_weights_are_better_in_photon_noise(images):
    rest = np.array([400.0, 100.0, 50.0, 800.0])[:, None] * np.ones((4, 400))
    clean = np.maximum(np.einsum("nt,nyx->tyx", rest, images), 0)
    frames = np.random.default_rng(2).poisson(clean).astype(np.float32)
    plain, weighted = (
        np.asarray(activity.Images.of(images, w).time_courses(frames)) for w in (None, activity.photon_weights(frames.mean(0)))
    )
    assert np.all(weighted.std(1) < plain.std(1))
    # the Cramer-Rao bound of Poisson frames: Fisher information B^T diag(1 / mean) B
    flat = images.reshape(4, -1)
    bound = np.sqrt(np.diag(np.linalg.inv((flat / np.maximum(clean[0].ravel(), 1e-9)) @ flat.T)))
    np.testing.assert_allclose(weighted.std(1), bound, rtol=0.15)


def test_frames_of_another_size_are_refused(op, footprints, images):
    with pytest.raises(ShapeError, match=r"frames has shape \(3, 29, 30\): expected \(t, 30, 30\)"):
        activity.Images.of(images).time_courses(np.zeros((3, 29, 30)))
    with pytest.raises(ShapeError, match="footprints has shape"):
        activity.image_footprints(op, footprints[:, :1])


def test_dff_of_a_bleaching_neuron_equals_the_truth():
    t = np.arange(4000) * FRAME_S
    truth = np.asarray(simulate.activity(jax.random.key(0), 5, len(t), FRAME_S, rate_hz=0.2).dff)
    light = 50 * np.exp(-t / 60) * (1 + truth) + 20 + np.random.default_rng(0).normal(size=truth.shape)
    got = activity.dff(light, FRAME_S, background=20.0)
    perfect = (light - 20) / (50 * np.exp(-t / 60)) - 1  # noisy, but with the true baseline
    for one, best, wanted in zip(got, perfect, truth, strict=True):
        active = wanted > 0.2
        if not active.any():
            assert np.abs(one).mean() < 0.05
            continue
        assert np.corrcoef(one, wanted)[0, 1] > np.corrcoef(best, wanted)[0, 1] - 0.01
        np.testing.assert_allclose(one[active].mean(), wanted[active].mean(), rtol=0.1)
    assert np.abs(np.median(got, axis=1)).max() < 0.05


def test_the_baseline_ignores_activity_and_follows_bleaching():
    t = np.arange(3000) * FRAME_S
    fade = 100 * np.exp(-t / 30)
    burst = np.where((t % 5) < 1, 80.0, 0.0)
    got = activity.baseline((fade + burst)[None], FRAME_S, window_s=5)[0]
    np.testing.assert_allclose(got[300:-300], fade[300:-300], rtol=0.12)
    flat = activity.baseline(np.full((2, 10), 3.0), FRAME_S)
    np.testing.assert_allclose(flat, 3.0)
    assert activity.baseline(np.zeros((0, 10)), FRAME_S).shape == (0, 10)


def test_a_dark_trace_has_no_dff_and_bad_numbers_are_named():
    assert np.all(activity.dff(np.full((1, 50), 7.0), FRAME_S, background=7.0) == 0)
    np.testing.assert_allclose(activity.peak_dff([[0.0, 1.0] + 998 * [0.0]]), 0.0)
    with pytest.raises(ParameterError, match="window_s = 0"):
        activity.baseline(np.ones((1, 5)), FRAME_S, window_s=0)
    with pytest.raises(ShapeError, match="traces has shape"):
        activity.dff(np.ones(5), FRAME_S)


def test_dff_is_defined_only_where_there_is_a_baseline():
    rng = np.random.default_rng(3)
    t = np.arange(1000)
    pulses = np.where(t % 200 < 20, 1.0, 0.0)
    noise = rng.normal(size=(8, 1000))
    traces = np.stack([
        np.zeros(1000),
        np.full(1000, -3.0),
        -2 + noise[0],
        1e-9 + pulses,  # a source that is dark at rest
        np.maximum(noise[1], 0),  # what a fit with F >= 0 gives where there is no neuron
        0.2 + noise[2],
        1e-6 * (1 + pulses),  # small numbers, but a baseline
        50 + 40 * pulses + noise[3],
        3 + 20 * pulses + noise[4],
        np.exp(-t / 300) * (50 + 40 * pulses) + noise[5],
    ])  # fmt: skip
    defined = [False] * 6 + [True] * 4
    assert activity.has_baseline(traces, FRAME_S).tolist() == defined
    got = activity.dff(traces, FRAME_S)
    assert np.isfinite(got).all() and not got[:6].any() and np.abs(got).max() < 100
    np.testing.assert_allclose(got[6, t % 200 == 10], 1, rtol=1e-6)
    assert np.corrcoef(got[7], pulses)[0, 1] > 0.99
    assert activity.has_baseline(traces[7:8] - 50, FRAME_S, background=-50).tolist() == [True]
    assert activity.has_baseline(traces[7:8], FRAME_S, background=49.5).tolist() == [False]
    assert activity.has_baseline(np.ones((1, 1)), FRAME_S).tolist() == [True]


def test_neurons_carry_whether_their_dff_is_defined(tmp_path):
    fluorescence = np.stack([np.full(50, 9.0), np.zeros(50)])
    options = {"spikes": [np.zeros(0)] * 2, "frame_s": 0.01, "voxel_um": (1.0, 1.0, 1.0), "noise": np.ones(2)}
    neurons = activity.Neurons(np.zeros((2, 3)), np.ones((2, 1, 2, 2)) / 4, fluorescence, np.zeros((2, 50)), **options)
    assert neurons.valid.tolist() == [True, False] and neurons.neuropil is None
    stated = dataclasses.replace(neurons, valid=np.array([False, True]), neuropil=np.full((2, 50), 3.0))
    activity.write_neurons(tmp_path / "a.h5", stated)
    back = activity.read_neurons(tmp_path / "a.h5")
    assert back.valid.tolist() == [False, True]
    np.testing.assert_array_equal(back.neuropil, 3)
    activity.write_neurons(tmp_path / "b.h5", neurons)
    with h5py.File(tmp_path / "b.h5", "r+") as file:  # a file of the version before
        file.attrs["format"] = "lfjax neurons 1"
        del file["valid"]
    assert activity.read_neurons(tmp_path / "b.h5").valid.tolist() == [True, False]


@pytest.mark.usefixtures("unchecked")
def test_flags_and_neuropil_of_another_shape_are_refused():
    options = {"spikes": [np.zeros(0)] * 2, "frame_s": 0.01, "voxel_um": (1.0, 1.0, 1.0), "noise": np.ones(2)}
    neurons = activity.Neurons(np.zeros((2, 3)), np.ones((2, 1, 2, 2)), np.ones((2, 50)), np.zeros((2, 50)), **options)
    with pytest.raises(ShapeError, match="valid has shape"):
        dataclasses.replace(neurons, valid=np.ones(3, bool)).check()
    with pytest.raises(ShapeError, match="neuropil has shape"):
        dataclasses.replace(neurons, neuropil=np.ones((2, 49))).check()


def test_a_trace_without_dff_has_no_spikes():
    times, noise = activity.find_spikes(activity.dff(np.zeros((1, 400)), FRAME_S), FRAME_S)
    assert len(times[0]) == 0 and noise[0] == 0
