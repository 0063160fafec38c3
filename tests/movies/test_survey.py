"""A survey finds what is wrong with a recording, and bad frames are refused, left out or interpolated as asked."""

import h5py
import numpy as np
import pytest

from lfjax import io, movies
from lfjax.errors import FileError, ParameterError

T, SIDE = 60, 30
LIGHT = 100 + 900 * np.random.default_rng(1).random((SIDE, SIDE)) ** 3


def recording(seed=0, light=LIGHT, t=T):
    return np.random.default_rng(seed).poisson(light, (t, SIDE, SIDE)).astype(np.uint16)


def test_a_good_recording_has_no_bad_frames():
    frames = recording()
    found = movies.survey(frames, saturation=4095.0, size=7)
    assert found.bad == {} and found.dropped == {} and found.saturated == 0 and found.saturation == 4095
    np.testing.assert_allclose(found.mean, frames.mean(0), rtol=1e-6)
    assert found.mean.dtype == np.float32 and found.peak.dtype == np.uint16
    np.testing.assert_array_equal(found.peak, frames.max(0))


@pytest.mark.parametrize("size", [1, 13, 64])
def test_bad_frames_are_named_and_left_out_of_the_sums(size):
    frames = recording().astype(np.float32)
    frames[3, 2, 5], frames[4, 0, 0] = np.nan, np.inf
    frames[10:13] = 0
    frames[20] = 100 + np.random.default_rng(2).normal(0, 2, (SIDE, SIDE))  # the shutter is closed: offset and read noise
    frames[20, 0, 0] = 5000
    found = movies.survey(frames, saturation=1e9, size=size)
    assert list(found.bad) == [3, 4, 10, 11, 12, 20]
    assert "1 values are NaN" in found.bad[3] and "one value everywhere, 0" in found.bad[11] and "black" in found.bad[20]
    good = np.delete(frames, list(found.bad), axis=0)
    np.testing.assert_allclose(found.mean, good.mean(0), rtol=1e-6)
    np.testing.assert_array_equal(found.peak, good.max(0))


def test_repeated_frames_count_only_where_noise_would_change_them():
    frames = recording()
    frames[7] = frames[6]
    frames[30:32] = frames[29]
    found = movies.survey(frames, saturation=4095.0)
    assert found.bad == dict.fromkeys((7, 30, 31), "the same as the frame before")
    np.testing.assert_allclose(found.mean, np.delete(frames, [7, 30, 31], axis=0).mean(0), rtol=1e-6)
    assert not movies.survey(np.repeat(frames[:1], 9, axis=0), saturation=4095.0).bad  # identical frames: no camera
    still = np.repeat(np.rint(LIGHT).astype(np.uint16)[None], 40, axis=0)
    still[20:, 4:8, 4:8] += 50  # a simulation without noise, in which little happens
    assert not movies.survey(still, saturation=4095.0).bad


def test_bleaching_bursts_and_single_frames_are_not_black():
    course = np.exp(-np.arange(300) / 150)  # to 14 %
    course[[50, 51, 200]] *= 4
    rng = np.random.default_rng(0)
    frames = (100 + rng.poisson(course[:, None, None] * LIGHT)).astype(np.uint16)
    assert not movies.survey(frames, saturation=65535.0).bad
    frames[100:180] = rng.normal(100, 2, (80, SIDE, SIDE)).astype(np.uint16)  # the light is off for a long time
    assert list(movies.survey(frames, saturation=65535.0).bad) == list(range(100, 180))
    assert not movies.survey(frames[:1], saturation=65535.0).bad


def test_the_saturated_share_is_that_of_the_good_frames():
    frames = np.minimum(recording(light=8 * LIGHT), 4095)
    share = float((frames == 4095).mean())
    assert 0.01 < share < 0.5
    assert movies.survey(frames, saturation=4095.0).saturated == pytest.approx(share)
    assert movies.survey(frames, saturation=4000.0).saturated == pytest.approx(float((frames >= 4000).mean()))


@pytest.mark.parametrize("hot", [False, True])
def test_the_level_of_saturation_is_found(hot):
    frames = np.minimum(recording(light=8 * LIGHT), 4095)
    if hot:
        frames[:, 3, 3] = 60000  # above the level: a second pass counts
    found = movies.survey(frames)
    if found.saturation is not None:
        assert found.saturated == pytest.approx(float((frames >= found.saturation).mean()))
    assert hot or found.saturation == 4095


def test_the_container_tells_missing_chunks_and_dropped_frames(tmp_path):
    frames = recording(t=6)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("frames", frames.shape, "uint16", chunks=(1, SIDE, SIDE))
        data[:4], data[5] = frames[:4], frames[5]
    found = movies.survey(io.open_movie(tmp_path / "a.h5"), saturation=4095.0)
    assert found.bad == {4: "1 of 1 chunks are missing"}
    np.testing.assert_allclose(found.mean, frames[[0, 1, 2, 3, 5]].mean(0), rtol=1e-6)
    with pytest.raises(FileError, match="all 3 frames are bad .frame 0: one value everywhere, 7;"):
        movies.survey(np.full((3, 5, 5), 7), saturation=10.0)


def test_progress_is_shown_in_blocks():
    steps = []

    def track(items, what):
        steps.append((len(items), items.each, items.unit, what))
        return items

    movies.survey(recording(), saturation=4095.0, size=25, track=track)
    assert steps == [(3, 25, "frames", "survey of the movie")]


BAD = {0: "black", 4: "NaN", 5: "NaN", 9: "one value"}
LINE = (10 * np.arange(10)[:, None, None] + np.zeros((1, 2, 3))).astype(np.uint16)  # 10 t: linear in time


def test_error_names_the_frames_and_the_way_out():
    with pytest.raises(FileError, match="4 of 10 frames are bad.*frame 0: black; frame 4: NaN.*--bad-frames skip|interpolate"):
        movies.good_frames(LINE, BAD, "error")
    with pytest.raises(FileError, match="0 of 10 frames are bad and 2 were lost .frame 3: 2 frames lost before it"):
        movies.good_frames(LINE, {}, "error", dropped={3: 2})
    whole = movies.good_frames(LINE, {}, "error")
    assert isinstance(whole, movies.Frames) and list(whole.numbers) == list(range(10))
    np.testing.assert_array_equal(whole[:], LINE)
    with pytest.raises(ParameterError, match="how = 'ignore'"):
        movies.good_frames(LINE, BAD, "ignore")
    with pytest.raises(ParameterError, match="frame numbers 0 to 9"):
        movies.good_frames(LINE, {10: "black"}, "skip")
    with pytest.raises(FileError, match="all 10 frames are bad"):
        movies.good_frames(LINE, dict.fromkeys(range(10), "black"), "skip")


def views():
    spoilt = LINE.astype(np.float32)
    spoilt[list(BAD)] = np.nan
    skip = movies.good_frames(spoilt, BAD, "skip")
    return spoilt, skip, movies.good_frames(spoilt, BAD, "interpolate")


def test_skip_leaves_bad_frames_out():
    _, skip, _ = views()
    assert list(skip.numbers) == [1, 2, 3, 6, 7, 8] and skip.shape == (6, 2, 3)
    np.testing.assert_array_equal(skip[:], LINE[[1, 2, 3, 6, 7, 8]])


def test_interpolation_is_exact_for_what_is_linear_in_time():
    _, _, filled = views()
    wanted = LINE.astype(np.float32)
    wanted[0], wanted[9] = LINE[1], LINE[8]  # at the ends the nearest is repeated
    assert list(filled.numbers) == list(range(10)) and filled.dtype == np.float32
    np.testing.assert_allclose(filled[:], wanted, rtol=1e-6)
    whole = movies.good_frames(np.where(np.isin(np.arange(10), [4, 5])[:, None, None], 0, LINE), {4: "", 5: ""}, "interpolate")
    np.testing.assert_array_equal(whole[:], LINE)  # integers stay integers
    assert whole[4].dtype == LINE.dtype


def test_lost_frames_are_filled_in_so_that_time_runs_evenly():
    kept = [0, 1, 2, 5, 6, 8, 9]
    filled = movies.good_frames(LINE[kept], {3: "bad"}, "interpolate", dropped={3: 2, 5: 1})
    assert list(filled.numbers) == [0, 1, 2, -1, -1, 3, 4, -1, 5, 6]
    np.testing.assert_array_equal(filled[:], LINE)
    assert len(movies.good_frames(LINE[kept], {}, "skip", dropped={3: 2, 5: 1})) == 7
    with pytest.raises(FileError, match="500 frames were lost of a movie of 10"):
        movies.good_frames(LINE, {}, "interpolate", dropped={3: 500})


@pytest.mark.parametrize("kind", [1, 2])
def test_views_are_sliced_as_numpy_slices(kind):
    view = views()[kind]
    whole = view[:]
    for which in (slice(2, 5), slice(None, None, -1), slice(-3, 100), slice(4, 2), slice(1, None, 3), 0, -1):
        np.testing.assert_array_equal(view[which], whole[which])
    np.testing.assert_array_equal(list(view), whole)
    with pytest.raises(IndexError):
        view[len(view)]
