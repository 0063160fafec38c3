"""Rectification of simulated and real frames."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile

from lfjax.errors import CalibrationError, CalibrationWarning, ShapeError
from lfjax.metrics import correlation
from lfjax.optics import PRESETS, PSF, Lattice, Microscope, Rectifier
from lfjax.optics.camera.rectify import lenslet_pixels, pupil_mask, white_tile
from lfjax.simulate import raw_frames

SCOPE = Microscope(60, 1.2, 1.35, 0.593, 100, 2500, 9, camera_pixel_um=100 / 8.7)


def disc_psf() -> PSF:
    """A PSF that fills the pupil behind its own lenslet: H(uniform) is a disc in each lenslet."""
    tile = jnp.asarray(pupil_mask(SCOPE), jnp.float32)
    return PSF(jnp.pad(tile, 9)[None, None, None] / tile.sum(), SCOPE, (0.0,))


@pytest.fixture(scope="module")
def made():
    smooth = np.cos(np.linspace(0, 9, 12 * 9))[:, None] * np.sin(np.linspace(0, 7, 12 * 9))[None, :] + 2
    light_field = jnp.asarray(smooth, jnp.float32) * jnp.tile(white_tile(disc_psf()), (12, 12))
    frames = raw_frames(jax.random.key(0), light_field, white_tile(disc_psf()), pitch_px=8.7, rotation_rad=0.006, photons=2e4)
    return light_field, frames


def test_the_light_field_comes_back(made):
    light_field, frames = made
    rectifier = Rectifier.calibrate(SCOPE, frames.light_field, white=frames.white, dark=frames.dark)
    image = rectifier.flatten(rectifier(frames.light_field), disc_psf())
    assert rectifier.lattice.pitch_px == pytest.approx(8.7, abs=0.01)
    assert rectifier.field == (12, 12)
    assert float(correlation(image, light_field, rectifier.mask)) > 0.97
    assert not np.any(np.asarray(image)[~np.asarray(rectifier.mask)])


def test_vignetting_is_taken_out(made):
    _, frames = made
    white_as_frame = np.asarray(frames.white)
    rectifier = Rectifier.calibrate(SCOPE, white_as_frame, white=frames.white, dark=frames.dark)
    flat = rectifier.flatten(rectifier(white_as_frame), disc_psf())
    expected = jnp.tile(white_tile(disc_psf()), rectifier.field)
    assert float(correlation(flat, expected)) > 0.97
    values = np.asarray(flat)[np.asarray(rectifier.mask)]
    assert values.std() / values.mean() < 0.02


def test_the_frame_itself_gives_the_lattice_where_no_white_frame_is(made):
    _, frames = made
    rectifier = Rectifier.calibrate(SCOPE, frames.light_field, dark=frames.dark)
    assert rectifier.lattice.pitch_px == pytest.approx(8.7, abs=0.03)
    assert rectifier.white is None and float(rectifier.gain(disc_psf()).max()) == 1.0


def test_a_lying_pitch_is_warned_of_with_both_values(made):
    _, frames = made
    liar = Microscope.from_dict(SCOPE.to_dict() | {"camera_pixel_um": SCOPE.camera_pixel_um / 1.02})
    with pytest.warns(CalibrationWarning, match=r"8\.70.* px, the parameters say 8\.87"):
        rectifier = Rectifier.calibrate(liar, frames.light_field, white=frames.white, dark=frames.dark)
    assert rectifier.lattice.pitch_px == pytest.approx(8.7, abs=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Rectifier.calibrate(SCOPE, frames.light_field, white=frames.white, dark=frames.dark)


def test_a_white_frame_of_another_size_is_named(made):
    _, frames = made
    with pytest.raises(ShapeError, match="white has shape"):
        Rectifier.calibrate(SCOPE, frames.light_field, white=np.asarray(frames.white)[:-1], dark=frames.dark)


def test_noise_holds_no_lattice():
    noise = np.random.default_rng(0).normal(size=(120, 120))
    with pytest.raises(CalibrationError, match="no lenslet lattice"):
        Rectifier.calibrate(SCOPE, noise)


def test_one_rectifier_serves_a_movie(made):
    _, frames = made
    rectifier = Rectifier.calibrate(SCOPE, frames.light_field, white=frames.white, dark=frames.dark)
    movie = jnp.stack([jnp.asarray(frames.light_field, jnp.float32), jnp.asarray(frames.dark, jnp.float32)])
    batch = jax.jit(jax.vmap(rectifier))(movie)
    np.testing.assert_allclose(batch[0], rectifier(movie[0]), rtol=1e-4, atol=1e-2)


def test_saturated_pixels_are_seen(made):
    _, frames = made
    raw = np.array(frames.light_field)
    raw[40, 50] = 65535
    rectifier = Rectifier.calibrate(SCOPE, raw, white=frames.white, dark=frames.dark)
    touched = np.asarray(rectifier.saturated(raw, 65535))
    assert 1 <= touched.sum() <= 40


def test_the_real_white_frame(shared):
    light_field, white, dark = (tifffile.imread(shared / f"data/guv/{n}.tif") for n in ("light_field", "white", "dark"))
    rectifier = Rectifier.calibrate(PRESETS["60x1.2w"], light_field, white=white, dark=dark)
    assert rectifier.lattice.pitch_px == pytest.approx(15.385, abs=0.02)
    assert abs(rectifier.lattice.rotation_rad) == pytest.approx(0.0018, abs=3e-4)
    assert rectifier.field == (28, 28)
    assert 0.5 < float(rectifier.mask.mean()) < 0.6


@pytest.mark.parametrize("rotation", [0.0, 0.05, -0.2])
def test_the_block_of_lenslets_fills_the_frame_and_stays_inside(rotation):
    lattice, shape = Lattice(15.0, rotation, 98.0, 131.0), (200, 260)
    positions, (rows, columns) = lenslet_pixels(lattice, shape, 8)
    assert positions.shape == (rows * 8, columns * 8, 2)
    assert positions.min() > -0.5 and np.all(positions < np.array(shape) - 0.5)
    upright = rows * columns * 15**2 / (shape[0] * shape[1])
    assert upright > (0.85 if rotation == 0 else 0.4)


def test_a_frame_without_one_whole_lenslet_is_refused():
    with pytest.raises(CalibrationError, match="no whole lenslet"):
        lenslet_pixels(Lattice(15.0, 0.0, 5.0, 5.0), (12, 12), 8)
