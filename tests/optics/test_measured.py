import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.reference import relative_error
from lfjax.errors import FileError, ParameterError, ShapeError
from lfjax.optics import (
    Microscope,
    MultiView,
    SubPupils,
    compute_psf,
    hexagonal_centres,
    measured_psf,
    measured_views,
    read_psf,
    read_view_psfs,
    write_psf,
    write_view_psfs,
)

SCOPE = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5)
DESIGN = SubPupils.fourier(
    hexagonal_centres(1000, 1000), magnification=20, numerical_aperture=0.5, medium_index=1.33, wavelength_um=0.52,
    fourier_lens_um=60000, lenslet_um=1000, lenslet_focal_length_um=40000, camera_pixel_um=12,
)  # fmt: skip
DEPTHS = (-15.0, 0.0, 15.0)


def test_a_light_field_psf_comes_back_from_noisy_beads(tmp_path):
    truth = compute_psf(SCOPE, [0.0, 20.0], 2, oversampling=1)
    rng = np.random.default_rng(0)
    beads = rng.poisson(2e6 * np.asarray(truth.values) + 30.0)
    measured = measured_psf(beads, SCOPE, [0.0, 20.0])
    assert relative_error(measured.values, truth.values) <= 0.05
    np.testing.assert_allclose(measured.values.sum((-2, -1)), 1, rtol=1e-5)
    write_psf(tmp_path / "psf.h5", measured)
    np.testing.assert_array_equal(read_psf(tmp_path / "psf.h5").values, measured.values)


def test_views_come_back_from_a_focus_series_of_a_bead(tmp_path):
    side, wide = 31, 61
    truth = np.asarray(DESIGN.psfs(DEPTHS, side=wide))
    centres = 120 + 75 * hexagonal_centres(1.0, 1.0)
    frames = np.full((3, 240, 240), 20.0)
    for view, (y, x) in zip(truth, np.round(centres).astype(int), strict=True):
        frames[:, y - 30 : y + 31, x - 30 : x + 31] += 1e6 * view
    frames = np.random.default_rng(0).poisson(frames)
    psfs = measured_views(frames, np.round(centres), side)
    expected = truth[:, :, 15:-15, 15:-15]
    assert relative_error(psfs, expected / expected.sum((0, 2, 3), keepdims=True)) <= 0.05
    write_view_psfs(tmp_path / "views.h5", psfs, DEPTHS)
    back, depths = read_view_psfs(tmp_path / "views.h5")
    np.testing.assert_array_equal(back, psfs)
    assert depths == DEPTHS
    assert MultiView(back, (20, 20)).in_shape == (3, 20, 20)


def test_fractions_of_a_pixel_are_taken_out():
    y, x = np.mgrid[:60, :60]
    frame = 1e3 * np.exp(-((y - 30.3) ** 2 + (x - 29.6) ** 2) / 18)
    psf = np.asarray(measured_views(frame[None], [[30.3, 29.6]], 31, background=0.0))[0, 0]
    at = np.arange(31) - 15
    np.testing.assert_allclose([(psf.sum(1) * at).sum(), (psf.sum(0) * at).sum()], 0, atol=0.02)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ShapeError, match="images"):
        measured_psf(np.ones((1, 2, 2, 15, 15)), SCOPE, [0.0, 1.0])
    with pytest.raises(ParameterError, match="light"):
        measured_psf(np.ones((1, 2, 2, 15, 15)), SCOPE, [0.0])
    with pytest.raises(ParameterError, match="centres_px"):
        measured_views(np.ones((1, 40, 40)), [[5.0, 20.0]], 15)
    with pytest.raises(ShapeError, match="psfs"):
        write_view_psfs(tmp_path / "views.h5", jnp.ones((2, 3, 3)), (0.0,))
    (tmp_path / "broken.h5").write_bytes(b"nothing")
    with pytest.raises(FileError, match=r"broken\.h5"):
        read_view_psfs(tmp_path / "broken.h5")
