"""Saturated, hot and dead pixels of a camera, and the local brightness of a white frame."""

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile

from lfjax.errors import ParameterError, ShapeError
from lfjax.optics import find_saturation, hot_pixels, local_maximum
from lfjax.optics.camera.pixels import Repair, check_frame, least_share


def shot_noise(seed=0, shape=(200, 300), mean=300.0):
    return np.random.default_rng(seed).poisson(mean, shape)


@pytest.mark.parametrize(
    ("frame", "level"),
    [
        (np.minimum(8 * shot_noise(mean=500), 4095).astype(np.uint16), 4095),
        (np.minimum(shot_noise(mean=4060), 4095).astype(np.int32), 4095),
        (np.minimum(shot_noise(mean=4060), 4095) - 100.0, 3995),  # a level was subtracted
        (np.minimum(shot_noise(mean=4060), 4095) - 99.3, 3995.7),
        ((16 * np.minimum(shot_noise(mean=4060), 4095)).astype(np.uint16), 65520),  # twelve bits in the upper part of sixteen
        (np.minimum(shot_noise(mean=250), 255).astype(np.uint8), 255),
        (np.where(np.eye(200, 300, dtype=bool), 65535, shot_noise()).astype(np.uint16), 65535),
        (shot_noise().astype(np.uint16), None),
        (shot_noise(mean=2.0).astype(np.uint8), None),
        (np.where(np.eye(200, 300) > 0, 255, np.minimum(shot_noise(mean=100), 250)).astype(np.uint16), None),  # spots, no tail
        (np.full((30, 40), 100, np.uint16), None),
        (np.full((30, 40), 4095, np.uint16), 4095),  # every pixel at the top of twelve bits
        (np.where(np.eye(200, 300) > 0, 100, 1023).astype(np.float32), 1023),
        (np.zeros((30, 40), np.uint8), None),
        (np.random.default_rng(0).normal(size=(50, 60)), None),
    ],
)
def test_the_level_of_clipping_is_found_from_the_values(frame, level):
    assert find_saturation(frame) == (None if level is None else pytest.approx(level, abs=1e-3))


def test_real_frames_are_clipped_or_not(real):
    levels = {name: find_saturation(frame) for name, (frame, _, _) in real.items()}
    assert levels.pop("saturated_12bit_in_uint16") == 4095
    assert set(levels.values()) == {None}


@pytest.fixture(scope="module")
def real(shared):
    """Real and simulated frames, raw pixels per lenslet, and width of the narrowest spot, None for white and dark frames."""
    cases, guv = shared / "data/cases/lightfield", shared / "data/guv"
    frames = {
        "white_one_hot_pixel_600": (17.2, None),
        "sea_crop300_white": (17.2, None),
        "sea_crop300_raw": (17.2, 1.6),
        "worm_N15_rectified": (15.0, 1.0),
        "saturated_12bit_in_uint16": (17.2, 1.6),
    }
    found = {name: (tifffile.imread(cases / f"{name}.tif"), *how) for name, how in frames.items()}
    for name, spot in (("white", None), ("dark", None), ("light_field", 2.3)):
        found[f"guv_{name}"] = (tifffile.imread(guv / f"{name}.tif"), 15.4, spot)
    for name, key, spot in (("white", "frame", None), ("dark", "frame", None), ("raw8", "frames", 0.75)):
        with h5py.File(shared / f"data/cases/movies/{name}.h5") as file:
            frame = file[key][...]
        found[f"movie_{name}"] = (frame if frame.ndim == 2 else frame[0], 8.7, spot)
    return found


def test_nothing_of_a_real_frame_is_taken_for_a_hot_pixel_but_the_one_that_is(real):
    found = {name: np.argwhere(hot_pixels(frame, pitch, spot_px=spot)) for name, (frame, pitch, spot) in real.items()}
    assert found.pop("white_one_hot_pixel_600").tolist() == np.argwhere(real["white_one_hot_pixel_600"][0] == 145).tolist()
    assert {name: len(places) for name, places in found.items()} == dict.fromkeys(found, 0)


@pytest.mark.parametrize(
    "name", ["white_one_hot_pixel_600", "sea_crop300_white", "guv_white", "guv_dark", "movie_white", "movie_dark", "movie_raw8"]
)
def test_hot_pixels_are_found_in_frames_of_every_kind(real, name):
    frame, pitch, spot = real[name]
    rng, hot = np.random.default_rng(0), frame.copy()
    places = tuple(rng.integers(0, n, 100) for n in frame.shape)  # borders and pairs among them
    hot[places] = np.iinfo(frame.dtype).max
    found = hot_pixels(hot, pitch, spot_px=spot)
    assert np.mean(found[places]) > 0.95
    others = found.copy()
    others[places] = False
    assert others.sum() == (name == "white_one_hot_pixel_600")


def test_dead_pixels_are_found_and_gaps_between_lenslets_are_not(real):
    frame, pitch, _ = real["guv_white"]
    lit = np.argwhere(frame > 20000)[::1500]
    dead = frame.copy()
    dead[tuple(lit.T)] = 100
    found = hot_pixels(dead, pitch)
    assert found[tuple(lit.T)].all() and found.sum() == len(lit)


@pytest.mark.parametrize("width", [0.42, 0.8, 1.6])
def test_points_of_the_sample_are_no_hot_pixels(width):
    beads, rng = np.zeros((120, 120)), np.random.default_rng(2)
    y, x = np.mgrid[-7:8, -7:8]
    fine = (np.arange(11) - 5) / 11
    for row, column in ((20, 20), (21, 70), (60, 40), (80, 90), (100, 15)):  # few and far between
        (dy, dx), image = rng.uniform(-0.5, 0.5, 2), 0.0
        for sub_y in fine:
            for sub_x in fine:
                image = image + np.sinc((y - dy + sub_y) / width) ** 2 * np.sinc((x - dx + sub_x) / width) ** 2
        beads[row - 7 : row + 8, column - 7 : column + 8] += image / image.max()
    frame = rng.poisson(50 + 2e4 * beads).astype(float)
    assert not hot_pixels(frame, 12.0, spot_px=width).any()
    frame[90, 30], frame[90, 31], frame[0, 0] = 2e4, 1.9e4, 2e4
    assert np.argwhere(hot_pixels(frame, 12.0, spot_px=width)).tolist() == [[0, 0], [90, 30], [90, 31]]


@pytest.mark.parametrize("mean", [0.001, 0.01, 0.1, 1.0])
def test_single_photons_are_no_hot_pixels(mean):
    photons = 30 * np.random.default_rng(3).poisson(mean, (200, 200))
    assert not hot_pixels(photons, 12.0, spot_px=1.0).any()


def test_the_least_share_of_a_wide_spot_is_that_of_two_neighbours_in_it():
    assert least_share(100.0) == pytest.approx(1, abs=1e-3)
    assert least_share(0.1) == pytest.approx(0, abs=0.02)


def test_the_local_maximum_follows_vignetting_and_no_single_pixel():
    y, x = np.mgrid[:180, :240]
    fall = np.exp(-((y - 90) ** 2 + (x - 120) ** 2) / 3e4)
    lenslets = (np.hypot(y % 12 - 5.5, x % 12 - 5.5) < 5.5) * fall
    level = local_maximum(lenslets, 12.0)
    inside = np.s_[12:-12, 12:-12]
    np.testing.assert_allclose(level[inside], fall[inside], rtol=0.1)
    lenslets[50, 60], lenslets[90:102, 96:108] = 100.0, 0.0  # a hot pixel, a dark lenslet
    assert np.abs(local_maximum(lenslets, 12.0) - level).max() < 0.05
    assert local_maximum(lenslets, (24.0, 12.0)).shape == lenslets.shape


def test_repair_is_exact_on_a_plane_and_leaves_good_pixels():
    y, x = np.mgrid[:20, :30].astype(np.float32)
    plane, bad = jnp.asarray(3 * y + 2 * x), np.zeros((20, 30), bool)
    bad[5, 6] = bad[12, 20] = True
    hurt = plane.at[5, 6].set(1e4).at[12, 20].set(-7)
    np.testing.assert_allclose(Repair(bad)(hurt), plane, rtol=1e-6)
    np.testing.assert_allclose(Repair(bad).in_numpy(np.asarray(hurt)), plane, rtol=1e-6)
    bad[:] = False
    bad[0, 0] = bad[8:11, 8:11] = True  # a corner, and a cluster whose middle has no good neighbour
    values = np.asarray(Repair(bad)(jnp.where(jnp.asarray(bad), jnp.nan, jnp.asarray(7.0))))
    np.testing.assert_allclose(values, 7)
    assert Repair(np.zeros((20, 30), bool))(plane) is plane


@pytest.mark.parametrize(
    ("frame", "error", "says"),
    [
        (np.zeros((8, 9, 3)), ParameterError, r"white has shape \(8, 9, 3\): expected \(y, x\); this looks like colour"),
        (np.zeros((2, 8, 9)), ShapeError, "white has shape"),
        (np.zeros((8, 9), complex), ParameterError, "white of type = 'complex128'"),
        (np.array([["a"]]), ParameterError, "white of type"),
        (np.array([[1.0, np.nan]]), ParameterError, "white = '1 of 2 values NaN"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_camera_frame_is_named(frame, error, says):
    with pytest.raises(error, match=says):
        check_frame("white", frame)
