import numpy as np
import pytest
from scipy.signal import resample

from lfjax.errors import ParameterError
from lfjax.tomography import resample_images


def grid(n, pixel):
    """Coordinates (x, y) in angstroms of an image whose centre is pixel n // 2."""
    x = (np.arange(n) - n // 2) * pixel
    return x, x[:, None]


def gaussians(n, pixel):
    x, y = grid(n, pixel)
    terms = [(1.0, 3.0, -7.0, 9.0), (-0.6, -11.0, 5.0, 11.0), (0.8, 0.0, 14.0, 10.0)]
    return sum(a * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * s**2)) for a, u, v, s in terms)[None]


@pytest.mark.parametrize(("n", "pixel"), [(48, 3.0), (49, 3.0), (36, 4.0), (37, 4.1)])
@pytest.mark.parametrize(("size", "new"), [(40, 4.0), (41, 3.7), (64, 2.3), (33, 5.0), (80, 3.0), (21, 3.0)])
def test_gaussians_are_those_of_the_new_grid(n, pixel, size, new):
    """They vanish at the border and above Nyquist: exact on any grid, with zeros outside of the old box."""
    found = resample_images(gaussians(n, pixel), pixel, size, new)
    np.testing.assert_allclose(found, gaussians(size, new), atol=2e-5)


@pytest.mark.parametrize(
    ("n", "size", "new"), [(24, 16, 3.0), (24, 17, 48 / 17), (25, 20, 2.5), (24, 36, 4 / 3), (25, 15, 2.2)]
)
def test_sinusoids_of_the_box_keep_phase_and_amplitude(n, size, new):
    """Period of the box over whole numbers, below both Nyquist frequencies; the new grid stays within the box."""
    box = 2.0 * n

    def waves(count, pixel):
        x, y = grid(count, pixel)
        return np.stack([0.3 + np.cos(2 * np.pi * (p * x + q * y) / box + 0.4) for p, q in ((1, 0), (3, -5), (7, 7), (0, 6))])

    found = resample_images(waves(n, 2.0), 2.0, size, new)
    np.testing.assert_allclose(found, waves(size, new), atol=1e-10)


def test_frequencies_beyond_the_new_nyquist_leave():
    x, y = grid(32, 2.0)
    wave = np.cos(2 * np.pi * (9 * x + 2 * y) / 64)[None]  # 9 cycles per box; 16 new pixels hold 8
    assert np.abs(resample_images(wave, 2.0, 16, 4.0)).max() <= 1e-10


@pytest.mark.parametrize(("n", "size"), [(32, 20), (32, 48), (30, 15), (15, 30), (33, 21), (21, 33), (32, 31)])
def test_grids_of_one_extent_are_cropped_or_padded_in_fourier_space(n, size):
    """As scipy does it, Nyquist frequencies included; an odd and an even box differ in the place of the centre."""
    image = np.random.default_rng(0).normal(size=(2, n, n))
    found = resample_images(image, 1.0, size, n / size)
    start = n // 2 - size // 2 * n / size  # position of pixel 0 of the result
    k = np.fft.fftfreq(n)
    phase = np.exp(2j * np.pi * k * start)
    if n % 2 == 0:
        phase[n // 2] = np.cos(np.pi * start)
    moved = np.fft.ifft2(np.fft.fft2(image) * phase * phase[:, None]).real
    np.testing.assert_allclose(found, resample(resample(moved, size, axis=1), size, axis=2), atol=1e-12)


def test_nothing_changes_on_the_same_grid():
    images = np.random.default_rng(1).normal(size=(3, 9, 9)).astype(np.float32)
    assert resample_images(images, 1.37, 9, 1.37) is images


def test_another_box_at_the_same_pixel_size_is_cut_or_filled_with_zeros():
    images = np.random.default_rng(2).normal(size=(2, 12, 12)).astype(np.float32)
    found = resample_images(images, 1.5, 17, 1.5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 2:14, 2:14], images, atol=1e-5)
    assert np.abs(found).sum() == pytest.approx(np.abs(images).sum(), rel=1e-4)
    np.testing.assert_allclose(resample_images(images, 1.5, 7, 1.5), images[:, 3:10, 3:10], atol=1e-5)


def test_senseless_grids_are_refused():
    images = np.zeros((1, 8, 8), np.float32)
    for pixel, size, new, name in ((0.0, 8, 1.0, "pixel_angstrom"), (1.0, 8, np.nan, "new_pixel"), (1.0, 0, 1.0, "size")):
        with pytest.raises(ParameterError, match=name):
            resample_images(images, pixel, size, new)
