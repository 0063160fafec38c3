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
from lfjax.activity import spike_search
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
    activity.remove_courses(tmp_path / "run.zarr")
    assert list(tmp_path.iterdir()) == []
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


def test_untrusted_pixels_have_no_influence(op, footprints, recording):
    """Rectified frames hold zeros outside the mask, and 1 / photons would trust them most."""
    frames, truth, _ = recording
    frames = frames[:400].astype(np.float32)
    mask = np.random.default_rng(1).random(op.out_shape) < 0.7
    masked, wild = np.where(mask, frames, 0), np.where(mask, frames, 1e4)

    def courses(given, weights):
        images = activity.direct_images(op, footprints, given[::8].mean(0), weights=weights)
        return np.asarray(images.time_courses(given))[:4]

    right = courses(masked, mask.astype(np.float32))
    for trace, true in zip(right, truth[:, :400], strict=True):
        assert np.corrcoef(trace, true)[0, 1] > 0.8
    np.testing.assert_allclose(courses(wild, mask.astype(np.float32)), right, rtol=1e-3, atol=1e-3 * right.max())
    np.testing.assert_allclose(courses(masked, 7.0 * mask), right, rtol=1e-3, atol=1e-3 * right.max())
    assert courses(masked, None).mean() < 0.5 * right.mean()
    weights = activity.photon_weights(np.where(mask, 5.0, np.nan).astype(np.float32), weights=mask)
    np.testing.assert_allclose(weights, np.where(mask, 0.2, 0), rtol=1e-6)
    slow, same = (movies.SlowBackground.fit(f, FRAME_S, weights=mask, bin_s=0.5) for f in (masked, wild))
    np.testing.assert_allclose(same.at(0, 400)[:, mask], slow.at(0, 400)[:, mask], rtol=1e-4)
    for wrong in (-mask.astype(np.float32), 0 * mask, np.full(mask.shape, np.nan)):
        with pytest.raises(ParameterError, match="weights"):
            activity.direct_images(op, footprints, frames[0], weights=wrong)
    with pytest.raises(ShapeError, match="weights has shape"):
        activity.direct_images(op, footprints, frames[0], weights=mask[1:])


def test_an_interrupted_run_resumes_with_its_own_recording_only(op, footprints, recording, tmp_path):
    """Killed while frames stream, and after that while spikes are sought."""
    frames = recording[0][:400]
    mean, path = movies.mean_frame(frames), tmp_path / "run.zarr"

    class KilledError(Exception):
        pass

    def kill(phase, step):
        def track(items, description):
            for number, item in enumerate(items):
                if description.startswith(phase) and number == step:
                    raise KilledError
                yield item

        return track

    def run(given=frames, folder=path, track=None, **settings):
        return activity.extract(
            given, op, PLACES_UM, footprints, folder, frame_s=FRAME_S, voxel_um=VOXEL_UM, mean=mean, size=100,
            settings=settings, track=track, amplitude=0.41,
        )  # fmt: skip

    whole = run(folder=tmp_path / "whole.zarr")
    for phase, step in (("movie", 2), ("spikes", 0), ("spikes", 3)):
        with pytest.raises(KilledError):
            run(track=kill(phase, step))
        with pytest.raises(FileError, match="other settings .*movie = "):
            run(frames[::-1])
        with pytest.raises(FileError, match="microscope = None there and 'other' here"):
            run(microscope="other")
    resumed = run()
    for name in ("fluorescence", "dff", "noise", "valid"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    assert all(np.array_equal(a, b) for a, b in zip(resumed.spikes, whole.spikes, strict=True))
    activity.remove_courses(path)
    activity.remove_courses(path)
    assert [p.name for p in tmp_path.iterdir()] == ["whole.zarr"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileError, match="left alone"):
        activity.remove_courses(tmp_path / "mine")


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
    options = {"diameter_um": 9.0, "count": 16, "iterations": 30, "threshold": 0.2}
    found = activity.discover(frames, FRAME_S, op, VOXEL_UM, **options)
    assert metrics.f1_score(found.centres_um, PLACES_UM, 9.0) >= 0.8
    assert found.false_discovery <= 0.05 and not found.reason and np.all(found.p_values < 0.05)
    mask = np.random.default_rng(1).random(op.out_shape) < 0.7
    masked = activity.discover(np.where(mask, frames, 0), FRAME_S, op, VOXEL_UM, weights=mask.astype(np.float32), **options)
    assert metrics.f1_score(masked.centres_um, PLACES_UM, 9.0) >= 0.8


def test_tissue_that_does_not_fire_has_no_neurons(op, recording):
    still = recording[0][::10].mean(0)
    rng, options = np.random.default_rng(9), {"diameter_um": 9.0, "count": 16, "iterations": 30, "threshold": 0.2}
    falses = []
    for photons in (1.0, 30.0, 300.0):
        bleaching = photons / still.mean() * still * np.exp(-np.arange(1200) / 3000)[:, None, None]
        found = activity.discover(rng.poisson(bleaching).astype(np.uint16), FRAME_S, op, VOXEL_UM, **options)
        falses.append(len(found.centres_um))
        assert found.candidates > 2 and (falses[-1] or "beyond noise" in found.reason)
    assert sum(falses) <= 1
    same = activity.discover(np.repeat(still[None].astype(np.float32), 1200, 0), FRAME_S, op, VOXEL_UM, **options)
    assert same.centres_um.shape == (0, 3) and same.false_discovery == 0 and same.reason
    with pytest.raises(ParameterError, match="frames = 8: expected 72 or more at 100 Hz"):
        activity.discover(recording[0][:8], FRAME_S, op, VOXEL_UM)


def test_the_rate_of_false_discoveries_is_as_stated():
    """Traces alone: noise of a known covariance, 12 neurons of 10 spikes each among 120 candidates, and a flicker of all."""
    n, t, real, pulse = 120, 800, 12, spike_search.JGCAMP8F_PULSE
    false = found = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        images = np.concatenate([np.exp(-0.5 * ((np.arange(360) / 3 - np.arange(n)[:, None]) / 0.6) ** 2), np.ones((1, 360))])
        light = images @ (rng.normal(size=(360, t)) + 0.3 * rng.normal(size=t))
        for i in range(real):
            for at in rng.uniform(0, (t - 50) * FRAME_S, 10):
                light += 2.5 * (images @ images[10 * i])[:, None] * np.asarray(pulse(np.arange(t) * FRAME_S - at, FRAME_S))
        seen = activity.Projections(light.astype(np.float32), images @ images.T)
        places = np.stack([np.arange(n) * 20.0, np.zeros(n), np.zeros(n)], axis=1)
        got = activity.significant(seen, places, FRAME_S, pulse=pulse, places=n, false_discovery=0.05, shared_um=10.0)
        assert got.false_discovery <= 0.05
        false, found = false + int(np.sum(got.chosen % 10 > 0) + np.sum(got.chosen >= 10 * real)), found + len(got.chosen)
    assert found - false > 0.8 * 4 * real and false <= 0.05 * found + 2


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


def test_long_traces_are_searched_in_pieces(monkeypatch):
    """The same spikes as in one piece, and no limit on their number."""
    made = simulate.activity(jax.random.key(6), 1, 3000, FRAME_S, rate_hz=4.0, rate_spread=0.0)
    trace = np.asarray(made.dff) + np.random.default_rng(0).normal(0, 0.02, (1, 3000))
    whole = activity.find_spikes(trace, FRAME_S, amplitude=0.41)[0][0]
    monkeypatch.setattr(spike_search, "PIECE", 1100)
    monkeypatch.setattr(spike_search, "MOST_EVENTS", 16)
    parts = activity.find_spikes(trace, FRAME_S, amplitude=0.41)[0][0]
    assert len(whole) > 60 and spike_score(whole, parts, 0.005)[0] > 0.97
