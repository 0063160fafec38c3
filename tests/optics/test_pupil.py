"""Pupil aberrations and the array's alignment: Zernike algebra, the Debye limit, symmetry, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.gradients import PARAMETERS, gradients_and_differences
from benchmarks.reference import relative_error
from lfjax.errors import ParameterError
from lfjax.optics import PSF, LightField, Microscope, cached_psf, compute_psf, preset, read_psf, write_psf
from lfjax.optics.psf.images import Sampling, psf_images, support_lenslets
from lfjax.optics.psf.lenslets import Alignment, lenslet_transmission
from lfjax.optics.psf.pupil import Pupil, noll, zernike

SMALL = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5, name="small")
SAMPLING = Sampling.of(SMALL, 25.0, 7, 3)  # one for all sources: one program for all images


def image_of(z_um, *, offset=(0.0, 0.0), waves=None, alignment=None, **mismatch):
    """Image of one source; `waves` are aberrations by Noll's index up to 11."""
    pupil = None if waves is None else Pupil.of({11: 0.0} | waves, **mismatch)
    offsets = jnp.asarray(np.array([offset], np.float32))
    return psf_images(SMALL, z_um, offsets, sampling=SAMPLING, pupil=pupil, alignment=alignment)[0]


def test_noll_order():
    wanted = [(0, 0), (1, 1), (1, -1), (2, 0), (2, -2), (2, 2), (3, -1), (3, 1), (3, -3), (3, 3), (4, 0), (4, 2), (4, -2)]
    assert [noll(j) for j in range(1, 14)] == wanted
    assert [noll(j) for j in (14, 15, 16, 22)] == [(4, 4), (4, -4), (5, 1), (6, 0)]


def test_zernikes_are_orthonormal_on_the_disc():
    nodes, weights = np.polynomial.legendre.leggauss(12)
    rho, wr = (nodes + 1) / 2, weights / 2 * (nodes + 1)  # int_0^1 f 2 rho d rho
    theta = np.arange(32) * 2 * np.pi / 32
    y, x = rho[:, None] * np.sin(theta), rho[:, None] * np.cos(theta)
    with jax.enable_x64(True):
        values = jax.jit(lambda y, x: jnp.stack([zernike(j, y, x) for j in range(1, 23)]))(y, x)
    products = np.einsum("art,brt,r->ab", values, values, wr) / 32
    np.testing.assert_allclose(products, np.eye(22), atol=1e-12)


def test_zernikes_in_closed_form():
    rho, theta = 0.7, 0.4
    closed = {
        2: 2 * rho * np.cos(theta),
        3: 2 * rho * np.sin(theta),
        4: np.sqrt(3) * (2 * rho**2 - 1),
        5: np.sqrt(6) * rho**2 * np.sin(2 * theta),
        8: np.sqrt(8) * (3 * rho**3 - 2 * rho) * np.cos(theta),
        11: np.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1),
    }
    values = jax.jit(lambda y, x: {j: zernike(j, y, x) for j in closed})(rho * np.sin(theta), rho * np.cos(theta))
    for j, wanted in closed.items():
        assert float(values[j]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("z", [-25.0, 0.0, 10.0])
@pytest.mark.parametrize("name", ["20x0.5", "25x1.0w"])
def test_without_aberrations_it_is_the_debye_psf(name, z):
    scope = preset(name)
    sampling = Sampling.of(scope, 25.0, 9, 3)
    offsets = jnp.asarray([[0.0, 0.0], [0.3, -0.1]])
    debye = psf_images(scope, z, offsets, sampling=sampling)
    fourier = psf_images(scope, z, offsets, sampling=sampling, pupil=Pupil())
    for mine, wanted in zip(fourier, debye, strict=True):
        assert relative_error(mine, wanted) <= 1e-3


def test_a_tilt_of_the_pupil_moves_the_image():
    # Z_2 = 2 x: c waves of it are a phase 4 pi c s_x n / NA, hence a shift of 2 c lambda / NA
    shift_um = 0.3 * float(SMALL.object_pitch_um)
    waves = -shift_um * 0.5 / (2 * 0.52)
    assert relative_error(image_of(10.0, waves={2: waves}), image_of(10.0, offset=(0.0, 0.3), waves={})) <= 1e-3


def test_a_matched_index_does_nothing_and_a_mismatch_moves_the_focus():
    plain = image_of(20.0, waves={})
    same, other = (image_of(20.0, waves={}, sample_index=index, depth_um=50.0) for index in (1.33, 1.40))
    assert relative_error(same, plain) <= 1e-5
    assert relative_error(other, plain) >= 0.1
    # to first order in s^2 all of it is a defocus: z n / n_s of the depth of the source, d (1 - n / n_s) of the focus
    moved = image_of(20.0 * 1.33 / 1.40 - 50 * (1 - 1.33 / 1.40), waves={})
    assert relative_error(other, moved) <= 0.3 * relative_error(other, plain)


@pytest.mark.parametrize("z", [0.0, 4.0])
def test_a_mismatch_is_the_path_difference_of_a_source_at_its_depth(z):
    pupil, s = Pupil(sample_index=1.40, depth_um=30.0), jnp.linspace(0, 0.37, 9)
    got = jax.jit(lambda s, z: pupil.phase(s, 0 * s, SMALL) - pupil.defocus(s**2, SMALL, z))(s, z)
    inside, outside = (n * np.sqrt(1 - (1.33 * s / n) ** 2) for n in (1.40, 1.33))
    wanted = 2 * np.pi / 0.52 * ((30.0 + z) * inside - 30.0 * outside)
    np.testing.assert_allclose(got - got[0], wanted - wanted[0], atol=2e-3)


def test_the_support_holds_aberrated_light():
    plain = support_lenslets(SMALL, [30.0])
    assert support_lenslets(SMALL, [30.0], Pupil()) == plain
    assert support_lenslets(SMALL, [0.0], None, Alignment(native_plane_um=30.0 * 20**2 / 1.33)) == plain
    pupil = Pupil(sample_index=1.45, depth_um=400.0)
    k = support_lenslets(SMALL, [0.0], pupil)
    assert k > support_lenslets(SMALL, [0.0])
    n, wide = 5, 2 * k + 1
    image = psf_images(SMALL, 0.0, jnp.zeros((1, 2)), sampling=Sampling.of(SMALL, 0.0, wide, 3), pupil=pupil)[0]
    cut = (wide - k) // 2 * n
    assert float(image[cut:-cut, cut:-cut].sum()) >= 0.98
    assert compute_psf(SMALL, [0.0], 2, oversampling=1, pupil=pupil).lenslets == k


def test_files_keep_pupil_and_alignment(tmp_path):
    pupil, alignment = Pupil.of({5: 0.1}, sample_index=1.38, depth_um=20.0), Alignment(2510.0, (3.0, -2.0), 0.0, 50.0)
    values = np.random.default_rng(0).random((1, 2, 2, 15, 15), np.float32)
    psf = PSF(jnp.asarray(values), SMALL, (15.0,), pupil=pupil, alignment=alignment)
    write_psf(tmp_path / "psf.h5", psf)
    back = read_psf(tmp_path / "psf.h5")
    assert back.pupil.to_dict() == pupil.to_dict()
    assert back.alignment.to_dict() == alignment.to_dict()


def test_aberrated_psfs_have_no_mirror_symmetry_and_the_operator_sees_it():
    coma, spherical = (
        compute_psf(SMALL, [15.0], 3, oversampling=3, lenslets=7, pupil=Pupil.of(waves))
        for waves in ({7: 0.15, 5: 0.05, 11: 0.0}, {11: 0.1})
    )
    np.testing.assert_allclose(np.asarray(coma.values).sum((3, 4)), 1, rtol=1e-5)
    assert not LightField(coma, (4, 4)).mirror
    assert LightField(spherical, (4, 4)).mirror


def test_the_cache_tells_pupils_apart(tmp_path):
    options = {"oversampling": 1, "lenslets": 3, "cache": tmp_path}
    plain, coma = (cached_psf(SMALL, [15.0], 2, pupil=p, **options) for p in (None, Pupil.of({8: 0.2})))
    again = cached_psf(SMALL, [15.0], 2, pupil=Pupil.of({8: 0.2}), **options)
    assert relative_error(coma.values, plain.values) > 0.05
    np.testing.assert_array_equal(coma.values, again.values)
    shifted = cached_psf(SMALL, [15.0], 2, alignment=Alignment(offset_um=(10.0, 0.0)), **options)
    assert relative_error(shifted.values, plain.values) > 0.05


def test_a_straight_array_is_the_plain_one():
    for samples, side in ((15, 105), (12, 98)):
        plain, aligned = (lenslet_transmission(SMALL, (samples, samples), side, a) for a in (None, Alignment()))
        np.testing.assert_allclose(aligned, plain, atol=2e-3)


def test_an_array_moved_by_a_lenslet_changes_nothing():
    plain, moved, half = (image_of(20.0, alignment=Alignment(offset_um=(0.0, x))) for x in (0.0, 125.0, 62.5))
    assert relative_error(moved, plain) <= 2e-3
    assert relative_error(half, plain) >= 0.1


@pytest.fixture(scope="module")
def gradients():
    return gradients_and_differences(SMALL)


@pytest.mark.parametrize("name", PARAMETERS)
def test_gradients_of_the_psf_equal_central_differences(name, gradients):
    gradient, difference = gradients[name]
    assert gradient == pytest.approx(difference, rel=1e-3)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named():
    with pytest.raises(ParameterError, match="sample_index"):
        Pupil(sample_index=0.5)
    with pytest.raises(ParameterError, match="pupil.sample_index"):
        compute_psf(preset("60x1.2w"), [0.0], 2, pupil=Pupil(sample_index=1.1))
    with pytest.raises(ParameterError, match="coefficients"):
        Pupil.of({0: 0.1})
    with pytest.raises(ParameterError, match="rotation_rad"):
        compute_psf(SMALL, [0.0], 2, alignment=Alignment(rotation_rad=0.1))
