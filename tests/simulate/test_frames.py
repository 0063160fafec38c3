"""Raw frames: the lattice is found again, light is preserved, dark frames and vignetting are as asked."""

import equinox as eqx
import jax
import numpy as np
import pytest

from lfjax.errors import ParameterError, ShapeError
from lfjax.noise import Camera
from lfjax.optics.camera.lattice import find_lattice
from lfjax.optics.camera.resample import Resample
from lfjax.simulate.frames import place_lattice, raw_frames, vignette

N, FIELD = 11, (14, 17)


def disc(n=N):
    x = np.arange(n) - (n - 1) / 2
    r = np.hypot(x[:, None], x)
    return (1 / (1 + np.exp(4 * (r - 0.42 * n)))).astype(np.float32)


def smooth_light_field():
    """Lenslets whose brightness varies smoothly from one to the next."""
    y, x = np.meshgrid(*(np.arange(n * N) / N for n in FIELD), indexing="ij")
    return (np.tile(disc(), FIELD) * (1 + np.sin(0.8 * y) * np.cos(0.5 * x))).astype(np.float32)


def make(**options):
    options = {"pitch_px": 10.37, "rotation_rad": 0.011} | options
    return raw_frames(jax.random.key(0), smooth_light_field(), disc(), **options)


@pytest.mark.parametrize(("pitch", "rotation"), [(10.37, 0.011), (11.0, 0.0), (12.6, -0.02)])
def test_the_simulated_lattice_is_found(pitch, rotation):
    frames = make(pitch_px=pitch, rotation_rad=rotation)
    found = find_lattice(frames.white, pitch * 1.03)
    assert abs(found.pitch_px - pitch) < 0.01
    assert abs(found.rotation_rad - rotation) < 2e-4
    cells = frames.lattice.to_lattice(found.to_raw(np.zeros(2)))
    np.testing.assert_allclose(cells, np.round(cells), atol=0.02)


def test_frames_are_uint16_and_dark_has_the_offset():
    camera = Camera(read_noise_e=2.0, offset_dn=150.0)
    frames = make(camera=camera)
    assert {f.dtype for f in frames[:3]} == {np.dtype(np.uint16)}
    assert len({f.shape for f in frames[:3]}) == 1
    dark = np.asarray(frames.dark, np.float64)
    assert abs(dark.mean() - 150) < 5 * 4.1 / np.sqrt(dark.size)
    assert abs(dark.std() / np.hypot(4.0, 12**-0.5) - 1) < 0.05


def test_back_on_the_rectified_grid_the_light_field_returns():
    """Pixel i of lenslet Y lies at lattice coordinate Y - 1/2 + (i + 1/2) / N; a mirrored or shifted frame fails."""
    camera = Camera()
    light_field = smooth_light_field()
    frames = make(camera=camera, photons=20000.0, vignetting=0.0)
    pixels = [(np.arange(n * N) + 0.5) / N - 0.5 - (n - 1) // 2 for n in FIELD]
    positions = frames.lattice.to_raw(np.stack(np.meshgrid(*pixels, indexing="ij"), axis=-1))
    resample = eqx.filter_jit(Resample(frames.dark.shape, positions))
    back = np.asarray(resample(camera.photons(frames.light_field))) * (10.37 / N) ** 2
    truth = light_field * (20000 / light_field.max())
    assert np.corrcoef(back.ravel(), truth.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(back.sum(), truth.sum(), rtol=0.01)


def test_corners_of_the_white_frame_are_vignetted():
    camera = Camera()
    size = 3 * N
    with_loss, without = (np.asarray(camera.photons(make(camera=camera, vignetting=v).white)) for v in (0.4, 0.0))
    h, w = with_loss.shape
    corner = with_loss[:size, :size].sum() / without[:size, :size].sum()
    middle = (slice(h // 2 - size // 2, h // 2 + size // 2), slice(w // 2 - size // 2, w // 2 + size // 2))
    centre = with_loss[middle].sum() / without[middle].sum()
    assert corner < 0.75 < 0.97 < centre < 1.01
    assert with_loss[:size, :size].max() < 0.85 * with_loss[middle].max()


def test_vignette_closed_form():
    v = np.asarray(vignette((31, 41), 0.3))
    np.testing.assert_allclose([v[15, 20], v[0, 0], v[0, -1], v[-1, -1]], [1, 0.7, 0.7, 0.7], rtol=1e-5)
    np.testing.assert_allclose(vignette((5, 6), 0.0), 1)


@pytest.mark.parametrize("field", [(6, 9), (7, 8), (12, 12)])
@pytest.mark.parametrize("rotation", [0.0, 0.03, -0.2])
def test_the_frame_just_holds_all_lenslets(field, rotation):
    border = 3
    lattice, shape = place_lattice(field, 9.3, rotation, border)
    corners = np.array([(y, x) for y in (-0.5, field[0] - 0.5) for x in (-0.5, field[1] - 0.5)])
    raw = lattice.to_raw(corners - (np.array(field) - 1) // 2)
    free = np.concatenate([raw.min(0) + 0.5, np.array(shape) - 0.5 - raw.max(0)])
    assert (free >= border - 1e-9).all() and (free <= border + 0.5 + 1e-9).all()


def test_a_dark_light_field_makes_a_dark_frame():
    frames = raw_frames(jax.random.key(1), np.zeros((6 * N, 6 * N), np.float32), disc(), pitch_px=10.0)
    assert abs(float(np.asarray(frames.light_field).mean()) - 100) < 0.5


def test_wrong_arguments_are_refused():
    with pytest.raises(ShapeError, match="multiples"):
        raw_frames(jax.random.key(0), np.ones((3 * N + 1, 3 * N), np.float32), disc(), pitch_px=10.0)
    with pytest.raises(ShapeError, match="white_tile"):
        raw_frames(jax.random.key(0), np.ones((3 * N, 3 * N), np.float32), disc()[:, 1:], pitch_px=10.0)
    wrong = [{"pitch_px": 0.0}, {"rotation_rad": 2.0}, {"photons": 0.0}, {"white_photons": -1.0}, {"vignetting": 1.0},
             {"border_px": -1}]  # fmt: skip
    for options in wrong:
        with pytest.raises(ParameterError, match=next(iter(options))):
            make(**options)
