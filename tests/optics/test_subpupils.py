import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import j1

from benchmarks.fourier_waves import FourierWaves
from benchmarks.reference import relative_error
from lfjax.errors import ParameterError, ShapeError
from lfjax.optics import MultiView, Pupil, SubPupils, hexagonal_centres, square_centres

DESIGN = FourierWaves()
DEPTHS = (-30.0, 0.0, 20.0)


@pytest.fixture(scope="module")
def psfs():
    return np.asarray(DESIGN.views.psfs(DEPTHS, side=41))


@pytest.mark.parametrize("depth", range(3))
def test_views_are_those_of_one_wave_through_the_whole_array(depth, psfs):
    waves = DESIGN.images(DEPTHS[depth], (0.0, 0.0), 41)
    for view, wave in zip(psfs[:, depth], waves, strict=True):
        assert relative_error(view, wave) <= 0.05


def test_views_do_not_depend_on_where_the_point_is():
    pixel = float(DESIGN.views.pixel_um)
    middle = DESIGN.images(10.0, (0.0, 0.0), 41)
    moved = DESIGN.images(10.0, (3 * pixel, -5 * pixel), 41)
    assert relative_error(np.roll(moved, (-3, 5), (1, 2))[:, 6:-6, 6:-6], middle[:, 6:-6, 6:-6]) <= 0.02


def low_aperture(**options):
    angles = [(0.0, 0.0), (0.3, 0.0), (0.3, 1.3)]
    return SubPupils.cameras(angles, view_aperture=0.05, wavelength_um=0.5, pixel_um=1.0, **options)


def test_a_view_in_focus_is_an_airy_disc_with_its_share_of_the_light():
    system = low_aperture(numerical_aperture=0.35)
    psf = np.asarray(system.psfs([0.0], side=31))[0, 0]
    fine = (np.arange(31 * 9) - 31 * 9 // 2) / 9
    v = 2 * np.pi / 0.5 * 0.05 * np.hypot(fine[:, None], fine[None, :]) + 1e-9
    airy = ((2 * j1(v) / v) ** 2).reshape(31, 9, 31, 9).sum((1, 3))
    assert relative_error(psf / psf.sum(), airy / airy.sum()) <= 0.01
    inside = airy.sum() / 81 * np.pi * (0.05 / 0.5) ** 2  # the rest is in rings beyond the 31 pixels
    assert psf.sum() == pytest.approx((0.05 / 0.35) ** 2 * inside, rel=0.01)


def test_depth_moves_views_by_the_tangent():
    system = low_aperture()
    psfs = np.asarray(system.psfs([-40.0, 25.0], side=61))
    x = np.arange(61) - 30
    for view, azimuth, tilt in zip(psfs, (0.0, 0.0, 1.3), (0.0, 0.3, 0.3), strict=True):
        for image, z in zip(view, (-40.0, 25.0), strict=True):
            peak = np.array([(image.sum(1 - axis) * x).sum() / image.sum() for axis in (0, 1)])
            wanted = z * np.tan(tilt) * np.array([np.sin(azimuth), np.cos(azimuth)])
            np.testing.assert_allclose(peak, wanted, atol=0.35)


def test_lenslets_that_tile_the_pupil_share_all_of_its_light():
    centres = square_centres(300, 1040)
    system = SubPupils.fourier(
        centres, magnification=20, numerical_aperture=0.3, medium_index=1.33, wavelength_um=0.52, fourier_lens_um=60000,
        lenslet_um=300, lenslet_focal_length_um=20000, camera_pixel_um=12, aperture="square",
    )  # fmt: skip
    psfs = system.psfs([0.0], side=61)
    assert np.sum(psfs) == pytest.approx(1.0, abs=0.04)
    assert float(system.pixel_um) == pytest.approx(12 * 60000 / (20 * 20000))


def test_the_operator_sees_parallax():
    system = low_aperture()
    op = MultiView(system.psfs([-20.0, 20.0]), (40, 40))
    point = np.zeros(op.in_shape, np.float32)
    point[0, 20, 20] = 1
    views = np.asarray(op(point))
    assert views[0].argmax() == 20 * 40 + 20
    assert views[1].argmax() == 20 * 40 + 20 - round(20 * np.tan(0.3))


def test_support_holds_the_light_and_aberrations_move_it():
    system = low_aperture()
    narrow, wide = (np.asarray(system.psfs([30.0], side=side)) for side in (None, 101))
    assert narrow.sum() >= 0.95 * wide.sum()
    tilted = system.psfs([0.0], pupil=Pupil.of({3: 0.5}), side=31)
    assert relative_error(tilted, system.psfs([0.0], side=31)) > 0.1


def test_gradients_reach_directions_and_apertures():
    @jax.jit  # aperture and direction are then traced, and the grid is that of the gradient
    def peak(where):
        system = SubPupils(where[None, :2], where[2], 0.5, 1.33, 0.52, 1.0)
        return system.psfs([15.0], side=31, oversampling=3)[0, 0, 15, 18]

    with jax.enable_x64(True):
        where = np.array([0.0, 0.25, 0.1])  # direction y, x, and aperture
        gradient = jax.jit(jax.grad(peak))(where)
        for i in (1, 2):
            step = 1e-4 * np.eye(3)[i]
            finite = (float(peak(where + step)) - float(peak(where - step))) / 2e-4
            assert float(gradient[i]) == pytest.approx(finite, rel=2e-2)


def test_lattices_fill_a_disc():
    assert len(hexagonal_centres(1.0, 1.0)) == 7
    assert len(hexagonal_centres(1.0, 2.0)) == 19
    assert len(square_centres(1.0, 1.0)) == 5
    assert len(square_centres(1.0, 1.0, even=True)) == 4
    gaps = np.linalg.norm(hexagonal_centres(1.0, 3.0)[:, None] - hexagonal_centres(1.0, 3.0)[None], axis=-1)
    assert gaps[gaps > 0].min() == pytest.approx(1.0)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named():
    with pytest.raises(ShapeError, match="directions"):
        SubPupils(jnp.zeros(2), 0.1, 0.5, 1.33, 0.52, 1.0)
    with pytest.raises(ParameterError, match="directions"):
        SubPupils(jnp.asarray([[0.0, 0.7]]), 0.1, 0.5, 1.33, 0.52, 1.0)
    with pytest.raises(ParameterError, match="aperture"):
        SubPupils(jnp.zeros((1, 2)), 0.1, 0.5, 1.33, 0.52, 1.0, "star")
    with pytest.raises(ParameterError, match="side"):
        low_aperture().psfs([0.0], side=10)
