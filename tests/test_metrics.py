"""Metrics against scikit-image, NumPy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.metrics

from lfjax import metrics
from lfjax.errors import ParameterError, ShapeError

RNG = np.random.default_rng(0)


def pair(shape, level=0.0):
    truth = np.cumsum(RNG.random(shape), axis=-1) / shape[-1] + level
    return (truth + 0.05 * RNG.normal(size=shape)).astype(np.float32), truth.astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 33), (9, 20, 21)])
@pytest.mark.parametrize("level", [0.0, 30.0])
def test_ssim_and_psnr_equal_scikit_image(shape, level):
    x, truth = (v.astype(np.float64) for v in pair(shape, level))
    span = float(np.ptp(truth))
    expected = skimage.metrics.structural_similarity(x, truth, data_range=span)
    np.testing.assert_allclose(metrics.ssim(x, truth), expected, atol=1e-5)
    expected = skimage.metrics.structural_similarity(x, truth, data_range=2.0, win_size=5)
    np.testing.assert_allclose(metrics.ssim(x, truth, 2.0, window=5), expected, atol=1e-5)
    expected = skimage.metrics.peak_signal_noise_ratio(truth, x, data_range=span)
    np.testing.assert_allclose(metrics.psnr(x, truth), expected, rtol=1e-5)


def test_ssim_of_equal_images_is_one_and_can_be_differentiated():
    x, truth = pair((16, 16))
    np.testing.assert_allclose(metrics.ssim(truth, truth), 1, atol=1e-6)
    gradient = np.asarray(jax.grad(metrics.ssim)(jnp.asarray(x), truth))
    step = 0.05 * gradient / np.linalg.norm(gradient)
    assert float(metrics.ssim(x + step, truth)) > float(metrics.ssim(x - step, truth))


def test_psnr_closed_form():
    truth = np.zeros((4, 4), np.float32)
    np.testing.assert_allclose(metrics.psnr(truth + 0.1, truth, 1.0), 20, rtol=1e-5)


def test_correlation_inside_a_mask_is_numpys():
    a, b = pair((30, 20))
    mask = RNG.random((30, 20)) < 0.4
    np.testing.assert_allclose(metrics.correlation(a, b), np.corrcoef(a.ravel(), b.ravel())[0, 1], atol=1e-5)
    np.testing.assert_allclose(metrics.correlation(a, b, mask), np.corrcoef(a[mask], b[mask])[0, 1], atol=1e-5)
    outside = np.where(mask, a, 1e6)  # pixels outside must not count
    np.testing.assert_allclose(metrics.correlation(outside, b, mask), metrics.correlation(a, b, mask), atol=1e-6)
    np.testing.assert_allclose(metrics.correlation(a, 3 - 2 * a), -1, atol=1e-5)
    for scale in np.float32([1e-30, 1e30]):
        np.testing.assert_allclose(metrics.correlation(scale * a, scale * b), metrics.correlation(a, b), atol=1e-6)


def test_correlation_with_a_constant_is_undefined():
    assert np.isnan(metrics.correlation(np.ones((3, 3)), np.eye(3)))


def test_match_scale_is_the_least_squares_factor():
    x, truth = pair((10, 10))
    np.testing.assert_allclose(metrics.match_scale(x, 2.5 * x), 2.5, rtol=1e-5)
    factor = np.linalg.lstsq(x.reshape(-1, 1), truth.ravel())[0][0]
    np.testing.assert_allclose(metrics.match_scale(x, truth), factor, rtol=1e-5)
    assert float(metrics.match_scale(np.zeros(4), np.ones(4))) == 0


@pytest.mark.parametrize("s", [2, 3, 5])
def test_lattice_energy_is_that_of_the_fft_bins(s):
    rows, columns = 6, 7
    plane = RNG.random((rows * s, columns * s)).astype(np.float32)
    harmonics = np.abs(np.fft.fft2(plane))[::rows, ::columns] ** 2
    np.testing.assert_allclose(metrics.lattice_energy(plane, s), harmonics.sum() - harmonics[0, 0], rtol=1e-4)


def test_lattice_energy_of_a_printed_grid():
    """1 + a cos(2 pi y / s) has energy 2 (a n / 2)^2, n its number of voxels; other periods and constants have none."""
    s, lenslets, amplitude = 4, 8, 0.3
    y = np.arange(s * lenslets)[:, None] + np.zeros(s * lenslets)
    grid = 1 + amplitude * np.cos(2 * np.pi * y / s)
    np.testing.assert_allclose(metrics.lattice_energy(grid, s), 2 * (amplitude * grid.size / 2) ** 2, rtol=1e-4)
    other = 1 + amplitude * np.cos(2 * np.pi * 3 * y / (s * lenslets))
    assert float(metrics.lattice_energy(other, s)) < 1e-6 * float(metrics.lattice_energy(grid, s))
    assert float(metrics.lattice_energy(np.ones_like(grid), s)) == 0


def test_wrong_shapes_and_windows_are_refused():
    for function in (metrics.psnr, metrics.ssim, metrics.correlation, metrics.match_scale):
        with pytest.raises(ShapeError):
            function(np.ones((8, 8)), np.ones((8, 9)))
    with pytest.raises(ShapeError, match="window"):
        metrics.ssim(np.ones((6, 9)), np.ones((6, 9)))
    with pytest.raises(ParameterError, match="window"):
        metrics.ssim(np.ones((9, 9)), np.ones((9, 9)), window=4)
    with pytest.raises(ShapeError, match="mask"):
        metrics.correlation(np.ones((8, 8)), np.ones((8, 8)), np.ones(8))
    with pytest.raises(ShapeError, match="multiples"):
        metrics.lattice_energy(np.ones((8, 9)), 4)
