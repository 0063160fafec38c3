"""Raw movies through the pipelines: what is checked first, bad frames, interrupted runs, what a result is made of."""

import dataclasses

import numpy as np
import pytest

from lfjax import activity, pipeline, simulate
from lfjax.errors import CalibrationError, FileError, ParameterError, ShapeError
from lfjax.optics import Microscope, Rectifier, compute_psf, read_calibration, write_calibration

SCOPE = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 7)
GRID = pipeline.Grid((-20.0, 0.0, 20.0), 2)


@pytest.fixture(scope="module")
def made():
    """A raw movie of six neurons in 120 frames."""
    psf = compute_psf(SCOPE, GRID.z_um, 2, tolerance=0.3)
    movie = simulate.raw_movie(
        3, SCOPE, frames=120, lenslets=14, z_um=GRID.z_um, count=4, photons=2000.0, bleach_s=np.inf, psf=psf
    )
    frames = np.asarray(movie.frames[:])
    return movie, frames


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LFJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def calibration(movie, **others):
    return pipeline.Calibration(movie.white, movie.dark, **others)


def neurons(frames, output, movie, **options):
    settings = {
        "calibration": calibration(movie),
        "grid": GRID,
        "frame_s": movie.frame_s,
        "tolerance": 0.3,
        "structure": movie.structure,
    }
    return pipeline.extract_neurons(frames, output, movie.microscope, **(settings | options))


@pytest.fixture(scope="module")
def whole(made, cache, tmp_path_factory):
    """Neurons of the movie, from an uninterrupted run."""
    return neurons(made[1], tmp_path_factory.mktemp("whole") / "n.h5", made[0])


def test_raw_frames_become_the_true_time_courses(made, whole):
    truth, found = made[0].truth, whole.neurons
    distance = np.linalg.norm(truth.centres_um[:, None] - found.centres_um, axis=-1)
    match = distance.argmin(1)
    near = np.flatnonzero((distance.min(1) < 8) & (np.ptp(truth.dff, axis=1) > 0.2))
    assert len(near) >= 2
    r = [np.corrcoef(truth.dff[i], found.dff[match[i]])[0, 1] for i in near]
    assert np.median(r) > 0.95
    assert not whole.path.with_name("n.courses.zarr").exists()
    assert whole.correlation > 0.9 and found.z_um == GRID.z_um and found.filled is None
    np.testing.assert_array_equal(activity.read_neurons(whole.path).dff, found.dff.astype(np.float32))


@pytest.mark.parametrize("how", ["skip", "interpolate"])
def test_bad_frames_change_little_and_time_runs_evenly(made, whole, tmp_path, how):
    movie, frames = made
    spoilt = frames.copy()
    spoilt[[40, 41, 90]] = 0
    with pytest.raises(FileError, match=r"3 of 120 frames are bad .*frame 40.*--bad-frames skip\|interpolate"):
        neurons(spoilt, tmp_path / "n.h5", movie)
    found = neurons(spoilt, tmp_path / "n.h5", movie, bad_frames=how)
    assert sorted(found.recording.survey.bad) == [40, 41, 90]
    assert found.neurons.dff.shape == whole.neurons.dff.shape
    good = np.setdiff1d(np.arange(120), [40, 41, 90])
    assert np.flatnonzero(activity.read_neurons(tmp_path / "n.h5").filled).tolist() == [40, 41, 90]
    for times in found.neurons.spikes:
        assert not set((times / movie.frame_s).astype(int)) & {40, 41, 90}
    error = (found.neurons.fluorescence - whole.neurons.fluorescence)[:, good]
    assert np.abs(error).max() < 0.02 * whole.neurons.fluorescence.max()


def test_frames_that_the_camera_lost_shift_those_that_follow(made, whole, tmp_path):
    movie, frames = made
    times = np.delete(np.arange(120), [50, 51]) * movie.frame_s

    class Gap:  # a movie whose file tells its times
        shape, dtype, frame_s, times_s, dropped = (118, *frames.shape[1:]), frames.dtype, movie.frame_s, times, {50: 2}

        def __len__(self):
            return 118

        def __getitem__(self, which):
            return np.delete(frames, [50, 51], axis=0)[which]

    found = neurons(Gap(), tmp_path / "n.h5", movie, bad_frames="skip")
    assert found.neurons.dff.shape == (len(whole.neurons), 120)
    np.testing.assert_array_equal(found.recording.moments, np.delete(np.arange(120), [50, 51]))


def test_an_interrupted_run_resumes_and_knows_its_recording(made, whole, tmp_path, monkeypatch):
    movie, frames = made
    output = tmp_path / "n.h5"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lfjax.activity.write_neurons", killed)
        with pytest.raises(KeyboardInterrupt):
            neurons(frames, output, movie)
    assert (tmp_path / "n.courses.zarr").exists() and not output.exists()
    other = np.roll(frames, 1, axis=0)
    with pytest.raises(FileError, match=r"other settings \(inputs|other settings .*movie"):
        neurons(other, output, movie)
    with pytest.raises(FileError, match="other settings"):
        neurons(frames, output, movie, indicator=simulate.INDICATORS["gcamp6f"])
    resumed = neurons(frames, output, movie)
    for name in ("fluorescence", "dff", "noise", "footprints"):
        np.testing.assert_array_equal(getattr(resumed.neurons, name), getattr(whole.neurons, name))
    assert not (tmp_path / "n.courses.zarr").exists()
    with pytest.raises(FileError, match="exists already"):
        neurons(frames, output, movie)


def test_a_calibration_made_before_gives_the_same(made, whole, tmp_path):
    movie, frames = made
    rectifier = Rectifier.calibrate(movie.microscope, frames.mean(0), white=movie.white, dark=movie.dark)
    write_calibration(tmp_path / "c.toml", rectifier)
    before = pipeline.Calibration(rectifier=read_calibration(tmp_path / "c.toml"))
    made_again = pipeline.extract_neurons(
        frames, tmp_path / "n.h5", calibration=before, grid=GRID, frame_s=0.01, tolerance=0.3, structure=movie.structure
    )
    np.testing.assert_allclose(made_again.neurons.fluorescence, whole.neurons.fluorescence, rtol=1e-3, atol=1e-3)
    with pytest.raises(ParameterError, match="dark = 'given': expected nothing beside a calibration"):
        dataclasses.replace(before, dark=100.0).prepare(None, frames[0])
    with pytest.raises(ParameterError, match="microscope: none is given"):
        pipeline.Calibration().prepare(None, frames[0])


def test_what_cannot_be_is_refused_before_the_frames_are_fitted(made, cache, tmp_path):
    movie, frames = made
    with pytest.raises(ParameterError, match=r"frame_s = None: expected seconds per frame \(`--rate-hz`\)"):
        neurons(frames, tmp_path / "n.h5", movie, frame_s=None)
    with pytest.raises(ParameterError, match="structure: .* expected extents within"):
        neurons(frames, tmp_path / "n.h5", movie, structure_um=(20.0, 9.0, 9.0))
    with pytest.raises(ShapeError, match="structure has shape"):
        neurons(frames, tmp_path / "n.h5", movie, structure=movie.structure[:, :-3])
    with pytest.raises(ParameterError, match="voxels = 9: expected 1 to 7"):
        neurons(frames, tmp_path / "n.h5", movie, grid=pipeline.Grid((0.0,), 9))
    with pytest.raises(ParameterError, match="ascending"):
        pipeline.Grid((0.0, -1.0)).of(SCOPE)
    with pytest.raises(CalibrationError, match="the camera saturates: shorten the exposure"):
        neurons(np.minimum(400 * frames.astype(np.uint32), 65535).astype(np.uint16), tmp_path / "n.h5", movie)
    with pytest.raises(ParameterError, match="20 times the same frame"):
        neurons(np.stack([frames[0]] * 20), tmp_path / "n.h5", movie)
    assert not list(tmp_path.iterdir())


def test_masks_of_ones_own_take_the_place_of_structure(made, whole, tmp_path):
    movie, frames = made
    labels = np.zeros(movie.structure.shape, np.uint16)
    for number, mask in enumerate(whole.neurons.footprints > 0, 1):
        labels[mask] = number
    found = neurons(frames, tmp_path / "n.h5", movie, structure=None, masks=labels)
    assert len(found.neurons) == len(whole.neurons) and found.structure is None
    pairs = zip(found.neurons.dff, whole.neurons.dff, strict=True)
    assert np.median([np.corrcoef(a, b)[0, 1] for a, b in pairs]) > 0.95


def test_a_check_tells_what_would_spoil_the_result(made, cache):
    movie, frames = made
    good = pipeline.check_recording(
        frames, movie.microscope, calibration=calibration(movie), grid=GRID, frame_s=0.01, structure=movie.structure
    )
    told = {finding.name: finding for finding in good}
    assert not [f for f in good if f.level == "problem"], good
    assert {
        "frames",
        "rate",
        "bad frames",
        "saturation",
        "lenslets",
        "trusted pixels",
        "depths",
        "structure",
        "neurons",
    } <= set(told)
    assert "120 frames" in told["frames"].text and "somata" in told["structure"].text
    spoilt = frames.copy()
    spoilt[7] = 0
    wrong = dataclasses.replace(movie.microscope, camera_pixel_um=1.1 * movie.microscope.camera_pixel_um)
    bad = pipeline.check_recording(spoilt, wrong, calibration=calibration(movie), grid=GRID)
    problems = {f.name: f.text for f in bad if f.level == "problem"}
    assert set(problems) == {"rate", "bad frames", "calibration"}
    assert "frame 7" in problems["bad frames"] and "camera_pixel_um" in problems["calibration"]


def test_a_volume_without_voxel_sizes_has_those_of_the_psf(made, cache):
    movie, frames = made
    rectifier = calibration(movie).prepare(movie.microscope, frames[0])
    shape, voxel_um = pipeline.recording.volume_grid(rectifier, GRID)
    made_volume = pipeline.reconstruct(
        frames[0], movie.microscope, calibration=calibration(movie), grid=GRID, iterations=1, tolerance=0.3
    )
    assert made_volume.volume.shape == shape
    np.testing.assert_allclose(made_volume.voxel_um, voxel_um, rtol=1e-6)


def test_a_frame_without_numbers_or_contrast_is_refused(made, cache):
    movie, frames = made
    spoilt, options = frames[0].astype(float), {"grid": GRID, "iterations": 1, "tolerance": 0.3}
    for known in (calibration(movie), pipeline.Calibration(rectifier=calibration(movie).prepare(movie.microscope, frames[0]))):
        for value in (np.nan, np.inf, 1e300):  # beyond 32 bits
            spoilt[3, 4] = value
            with pytest.raises(ParameterError, match=r"frame = '1 of \d+ values NaN or infinite, the first at \[3, 4\]'"):
                pipeline.reconstruct(spoilt, movie.microscope, calibration=known, **options)
        with pytest.raises(CalibrationError, match="frame: all of its pixels have 4095 counts"):
            pipeline.reconstruct(np.full(spoilt.shape, 4095), movie.microscope, calibration=known, **options)
    for name in ("sparsity", "total_variation"):
        with pytest.raises(ParameterError, match=f"{name} = nan"):
            pipeline.reconstruct(frames[0], movie.microscope, calibration=known, **{name: np.nan})


@pytest.mark.parametrize("solver", ["richardson_lucy", "admm"])
def test_a_frame_in_any_unit_gives_the_same_volume(made, cache, solver):
    movie, frames = made
    white, frame = (np.float32(image) - np.float32(movie.dark) for image in (movie.white, frames[0]))
    known = pipeline.Calibration(rectifier=pipeline.Calibration(white).prepare(movie.microscope, frame))
    wanted, *found = (
        pipeline.reconstruct(scale * frame, calibration=known, grid=GRID, iterations=5, tolerance=0.3, solver=solver)
        for scale in np.float32([1, 1e-30, 1e30])
    )
    for scale, result in zip(np.float32([1e-30, 1e30]), found, strict=True):
        assert np.linalg.norm(np.float64(result.volume) / scale - wanted.volume) <= 1e-4 * np.linalg.norm(wanted.volume)
        assert result.correlation == pytest.approx(wanted.correlation, abs=1e-5)


def test_rectified_frames_are_noticed(made, cache):
    movie, frames = made
    rectifier = calibration(movie).prepare(movie.microscope, frames[0])
    flat = np.asarray(rectifier(frames.mean(0)))
    found = pipeline.Calibration().prepare(dataclasses.replace(movie.microscope, camera_pixel_um=None), np.maximum(flat, 0))
    assert found.lattice.pitch_px == 7 and found.lattice.rotation_rad == 0 and found.field == rectifier.field
    with pytest.raises(ParameterError, match="rectified = True: expected no pitch_px"):
        pipeline.Calibration(rectified=True, pitch_px=7.0).prepare(movie.microscope, flat)


def test_movies_of_volumes_skip_bad_frames(made, cache, tmp_path):
    movie, frames = made
    few = frames[:6].copy()
    few[2] = 0
    options = {"calibration": calibration(movie), "grid": GRID, "frame_s": 0.01, "iterations": 1, "tolerance": 0.3}
    with pytest.raises(FileError, match="1 of 6 frames are bad"):
        pipeline.reconstruct_movie(few, tmp_path / "v.zarr", movie.microscope, **options)
    found = pipeline.reconstruct_movie(few, tmp_path / "v.zarr", movie.microscope, bad_frames="skip", **options)
    assert found.shape[0] == 5 and set(found.bad) == {2} and 0.4 < found.trusted < 1
