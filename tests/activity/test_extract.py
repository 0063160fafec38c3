"""A small movie, from frames to spikes, against its ground truth."""

import dataclasses

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

from lfjax import activity, metrics, movies, simulate
from lfjax.activity.spike_times import spike_score
from lfjax.errors import FileError, ParameterError, ShapeError
from lfjax.optics import PSF, LightField, Microscope

FRAME_S = 0.01
VOXEL_UM = (30.0, 3.125, 3.125)
PLACES_UM = np.array([[15.0, 12.5, 12.5], [45.0, 9.4, 28.0], [15.0, 28.0, 25.0], [45.0, 28.1, 9.4]])


@pytest.fixture(scope="module")
def op():
    values = np.random.default_rng(0).random((2, 2, 2, 15, 15), np.float32) ** 6
    values /= values.sum((3, 4), keepdims=True)
    psf = PSF(jnp.asarray(values), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5), (0.0, 30.0))
    return eqx.filter_jit(LightField)(psf, (6, 6))


@pytest.fixture(scope="module")
def footprints(op):
    return activity.soma_footprints(PLACES_UM, op.in_shape, VOXEL_UM, diameter_um=9.0)


@pytest.fixture(scope="module")
def recording(op, footprints):
    """Frames, dF/F and spikes of four neurons, over neuropil that bleaches with them."""
    made = simulate.activity(jax.random.key(3), 4, 1200, FRAME_S, rate_hz=1.0, rate_spread=0.3, burst_spread=0.3)
    fade = np.exp(-np.arange(1200) * FRAME_S / 30)
    light = 2e5 * (1 + np.asarray(made.dff)) * fade
    volumes = np.einsum("nt,nzyx->tzyx", light, footprints) + 100 * fade[:, None, None, None]
    clean = activity.image_footprints(op, volumes.astype(np.float32))
    frames = np.random.default_rng(4).poisson(np.maximum(clean, 0)).astype(np.uint16)
    step = made.step_s
    times = [(np.repeat(np.arange(s.size), np.asarray(s).astype(int)) + 0.5) * step for s in np.asarray(made.spikes)]
    return frames, np.asarray(made.dff), times


def test_frames_become_spikes(op, footprints, recording, tmp_path):
    frames, truth, times = recording
    neuropil = np.full((1, *op.in_shape), 1.0, np.float32)
    neurons = activity.extract(
        frames, op, PLACES_UM, footprints, tmp_path / "run.zarr", frame_s=FRAME_S, voxel_um=VOXEL_UM, size=500,
        mean=movies.mean_frame(frames), neuropil=neuropil, amplitude=0.41,
    )  # fmt: skip
    assert not (tmp_path / "run.zarr").exists()
    for n in range(4):
        assert np.corrcoef(neurons.dff[n], truth[n])[0, 1] > 0.95
        np.testing.assert_allclose(np.polyfit(truth[n], neurons.dff[n], 1)[0], 1, rtol=0.2)
        assert spike_score(times[n], neurons.spikes[n])[0] > 0.85
    activity.write_neurons(tmp_path / "neurons.h5", neurons)
    again = activity.read_neurons(tmp_path / "neurons.h5")
    np.testing.assert_allclose(again.dff, neurons.dff, rtol=1e-5, atol=1e-6)
    assert [len(s) for s in again.spikes] == [len(s) for s in neurons.spikes]
    assert again.voxel_um == VOXEL_UM and again.frame_s == FRAME_S


def test_courses_do_not_depend_on_chunks(op, footprints, recording, tmp_path):
    frames = recording[0][:50]
    images = activity.direct_images(op, footprints, movies.mean_frame(frames))
    paths = [activity.stream_courses(frames, images, tmp_path / f"{size}.zarr", size=size) for size in (7, 50)]
    a, b = (np.asarray(zarr.open_group(path, mode="r")["courses"][:]) for path in paths)
    assert a.shape == (50, len(images.images))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * b.max())


def test_the_background_leaves_out_activity(recording):
    frames, truth, _ = recording
    slow = movies.SlowBackground.fit(frames, FRAME_S, bin_s=0.5)
    left = slow.remove(frames[:1200], 0).mean((1, 2))
    assert abs(np.median(left)) < 0.15 * frames.mean()
    assert np.corrcoef(left, truth.mean(0))[0, 1] > 0.8
    with pytest.raises(ParameterError, match="rank = 0"):
        movies.SlowBackground.fit(frames, FRAME_S, rank=0)


def test_neurons_are_found_by_their_activity(op, recording):
    frames = recording[0]
    found = activity.discover(frames, FRAME_S, op, VOXEL_UM, diameter_um=9.0, count=16, iterations=30, threshold=0.2)
    assert metrics.f1_score(found, PLACES_UM, 9.0) >= 0.8


def test_footprints_come_from_function(op, footprints, recording):
    frames, truth, _ = recording
    wrong = np.stack([np.roll(f, (1, 1), (1, 2)) for f in footprints])
    around = activity.soma_footprints(PLACES_UM, op.in_shape, VOXEL_UM, diameter_um=20.0)
    support = around > 0.2 * around.max((1, 2, 3), keepdims=True)
    fade = np.exp(-np.arange(1200) * FRAME_S / 30)
    courses = np.concatenate([2e5 * (1 + truth) * fade, fade[None]])
    whole = np.concatenate([wrong, np.full((1, *op.in_shape), 100, np.float32)])
    free = np.concatenate([support, np.zeros((1, *op.in_shape), bool)])
    found = activity.refine_footprints(op, whole, activity.movie_statistics(frames, courses, size=500), free, steps=60)
    assert np.all(found[:4][~support] == 0) and found.min() >= 0
    np.testing.assert_array_equal(found[4], whole[4])

    def alike(a, b):
        return np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)

    for right, start, end in zip(footprints, wrong, found[:4], strict=True):
        assert alike(end, right) > 0.97 > alike(start, right)


def test_flare_frames_are_the_bright_ones():
    frames = np.full((200, 4, 4), 10.0, np.float32)
    frames[100:105, 1, 1] += 50
    frames[30:35, 2, 2] += 80
    slow = movies.SlowBackground.fit(frames, FRAME_S, rank=1)
    flares = activity.flare_frames(frames, FRAME_S, slow, count=2)
    assert flares.shape == (2, 4, 4)
    assert {tuple(np.unravel_index(f.argmax(), (4, 4))) for f in flares} == {(1, 1), (2, 2)}


def test_other_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["dff"] = np.zeros((2, 3))
    with pytest.raises(FileError, match="expected 'lfjax neurons 1'"):
        activity.read_neurons(tmp_path / "other.h5")
    empty = activity.Neurons(
        np.zeros((0, 3)), np.zeros((0, 2, 3, 3)), np.zeros((0, 5)), np.zeros((0, 5)), [], 0.01, (1.0, 1.0, 1.0), np.zeros(0)
    )
    activity.write_neurons(tmp_path / "none.h5", empty)
    assert len(activity.read_neurons(tmp_path / "none.h5")) == 0
    with pytest.raises(ShapeError, match="spikes has shape"):
        dataclasses.replace(empty, spikes=[np.zeros(1)]).check()


def test_noise_has_no_spikes():
    noise = np.random.default_rng(0).normal(size=(2, 800))
    made = simulate.activity(jax.random.key(5), 2, 800, FRAME_S, rate_hz=2.0)
    loud, _ = activity.find_spikes(np.asarray(made.dff) + noise, FRAME_S, amplitude=0.41)
    assert [len(s) for s in loud] == [0, 0]
    quiet, sigma = activity.find_spikes(np.asarray(made.dff) + 0.05 * noise, FRAME_S, amplitude=0.41)
    np.testing.assert_allclose(sigma, 0.05, rtol=0.3)
    assert all(len(s) > 0 for s in quiet)
