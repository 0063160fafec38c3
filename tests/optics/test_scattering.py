"""Scattering: closed forms, a Monte-Carlo of rays, a Monte-Carlo of waves, and the way back by gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.phase_screens import PhaseScreens
from benchmarks.reference import relative_error
from lfjax.errors import ParameterError, ShapeError
from lfjax.optics import LightField, compute_psf, preset
from lfjax.optics.scattering import Scattering, fit_scattering, scattering_transfer

SCOPE = preset("20x0.5")


def test_the_transfer_function_at_its_limits():
    d, free_path, g = 60.0, 40.0, 0.95
    assert scattering_transfer(jnp.zeros(()), d, free_path, g) == 1.0
    ballistic = np.exp(-d / free_path)
    u = 1e4
    assert scattering_transfer(jnp.asarray(u), d, free_path, g) == pytest.approx(ballistic, rel=1e-3)
    assert scattering_transfer(jnp.asarray(3.0), 0.0, free_path, g) == 1.0


def test_its_curvature_is_the_variance_of_the_blur():
    with jax.enable_x64(True):
        d, free_path, g = 60.0, 40.0, 0.95
        bend = jax.grad(jax.grad(lambda q: scattering_transfer(q, d, free_path, g)))(1e-4)
    assert -bend == pytest.approx((1 - g) * d**3 / (3 * free_path), rel=1e-4)


def test_a_monte_carlo_of_rays_has_the_same_transfer_function():
    d, free_path, g, photons = 50.0, 25.0, 0.96, 200_000
    rng = np.random.default_rng(0)
    counts = rng.poisson(d / free_path, photons)
    owner = np.repeat(np.arange(photons), counts)
    push = rng.normal(0, np.sqrt(1 - g), len(owner)) * rng.uniform(0, d, len(owner))
    place = np.bincount(owner, push, photons)
    for q in (0.05, 0.2, 0.6, 2.0):
        assert np.cos(q * place).mean() == pytest.approx(float(scattering_transfer(jnp.asarray(q), d, free_path, g)), abs=0.01)


def test_light_is_kept_and_blurred_more_with_depth():
    scattering = Scattering((3, 61, 61), 2.0, (0.0, 20.0, 40.0), mean_free_path_um=50.0, anisotropy=0.95)
    points = jnp.zeros((3, 61, 61)).at[:, 30, 30].set(1.0)
    out = np.asarray(scattering(points))
    np.testing.assert_allclose(out[0], points[0], atol=1e-6)
    np.testing.assert_allclose(out.sum((1, 2)), 1, atol=0.01)
    y = (np.arange(61) - 30) * 2.0
    widths = (out * y[:, None] ** 2).sum((1, 2))
    assert widths[1] == pytest.approx(0.05 * 20.0**3 / 150, rel=0.05)
    assert widths[0] < widths[1] < widths[2]
    np.testing.assert_allclose(scattering.ballistic, np.exp(-np.array([0, 20, 40]) / 50), rtol=1e-6)


def test_light_that_leaves_does_not_come_back():
    options = {"mean_free_path_um": 60.0, "anisotropy": 0.93}
    small, large = (Scattering((1, n, n), 1.5, [150.0], **options) for n in (21, 141))
    plane = jnp.pad(jnp.ones((1, 21, 21)), ((0, 0), (60, 60), (60, 60)))
    assert relative_error(small(jnp.ones((1, 21, 21))), large(plane)[:, 60:81, 60:81]) <= 0.01


def test_a_fit_that_nothing_determines_is_refused(tissue):
    op, volume, _, frame = tissue
    with pytest.raises(ParameterError, match="thickness_um"):
        fit_scattering(frame, volume, op, SCOPE.voxel_um(3), (0.0, 0.0, 0.0, 0.0))
    with pytest.raises(ParameterError, match="light_field"):
        fit_scattering(0 * frame, volume, op, SCOPE.voxel_um(3), (10.0, 20.0, 30.0, 40.0))


def test_without_tissue_the_wave_simulation_is_the_psf():
    psf = compute_psf(SCOPE, [20.0], 5, oversampling=3, lenslets=9)
    waves = PhaseScreens(SCOPE, 9, side=1152, mean_free_path_um=30.0, anisotropy=0.98)
    image = waves.focus(waves.cone, 20.0)
    assert relative_error(image / image.sum(), psf.values[0, 2, 2]) <= 2e-3


def test_phase_screens_blur_a_light_field_as_the_operator_does():
    free_path, g, d = 30.0, 0.98, 30.0
    psf = compute_psf(SCOPE, [0.0], 5, oversampling=3, lenslets=9)
    waves = PhaseScreens(SCOPE, 9, side=960, mean_free_path_um=free_path, anisotropy=g)
    wanted = waves.mean_image(d, 0.0, layers_per_free_path=6, realisations=8)
    op = LightField(psf, (9, 9))
    point = jnp.zeros(op.in_shape).at[0, 22, 22].set(1.0)
    scattering = Scattering(op.in_shape, SCOPE.voxel_um(5), [d], mean_free_path_um=free_path, anisotropy=g)
    assert relative_error(op(scattering(point)), wanted) <= 0.15
    assert relative_error(op(point), wanted) >= 0.3


@pytest.fixture(scope="module")
def tissue():
    """A light field of spots at four depths, under 10 to 100 um of tissue, at 30 dB."""
    depths = (-30.0, -10.0, 10.0, 30.0)
    psf = compute_psf(SCOPE, depths, 3, oversampling=1)
    op, thickness = LightField(psf, (15, 15)), (100.0, 70.0, 40.0, 10.0)
    spots = jax.random.uniform(jax.random.key(0), op.in_shape)
    volume = jnp.where(spots > 0.99, spots, 0.0)
    truth = Scattering(op.in_shape, SCOPE.voxel_um(3), thickness, mean_free_path_um=60.0, anisotropy=0.93)
    clean = 3.0 * op(truth(volume))
    noise = jax.random.normal(jax.random.key(1), clean.shape)
    return op, volume, thickness, clean + noise * jnp.linalg.norm(clean) / jnp.linalg.norm(noise) * 10 ** (-30 / 20)


@pytest.mark.parametrize("start", [(80.0, 0.9), (30.0, 0.8), (150.0, 0.98)])
def test_mean_free_path_and_anisotropy_are_found(tissue, start):
    op, volume, thickness, frame = tissue
    fit = fit_scattering(frame, volume, op, SCOPE.voxel_um(3), thickness, start=start)
    assert fit.mean_free_path_um == pytest.approx(60.0, rel=0.1)
    assert 1 - fit.anisotropy == pytest.approx(0.07, rel=0.1)
    assert fit.brightness == pytest.approx(3.0, rel=0.02)
    assert abs(fit.mean_free_path_um - 60.0) <= 5 * fit.errors[0]
    assert fit.residual <= 0.04


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(tissue):
    op, volume, thickness, frame = tissue
    with pytest.raises(ParameterError, match="anisotropy"):
        Scattering((1, 4, 4), 1.0, [3.0], mean_free_path_um=50.0, anisotropy=1.0)
    with pytest.raises(ParameterError, match="mean_free_path_um"):
        Scattering((1, 4, 4), 1.0, [3.0], mean_free_path_um=0.0, anisotropy=0.9)
    with pytest.raises(ParameterError, match="thickness_um"):
        Scattering((1, 4, 4), 1.0, [-3.0], mean_free_path_um=50.0, anisotropy=0.9)
    with pytest.raises(ShapeError, match="thickness_um"):
        Scattering((2, 4, 4), 1.0, [3.0], mean_free_path_um=50.0, anisotropy=0.9)
    with pytest.raises(ShapeError, match="volume"):
        fit_scattering(frame, volume[:2], op, 1.0, thickness)
    with pytest.raises(ParameterError, match="steps = 1"):
        fit_scattering(frame, volume, op, SCOPE.voxel_um(3), thickness, steps=1)
