"""Images of large boxes as a search sees them, the reach of their signal, and maps filtered by a curve that is given."""

import jax
import numpy as np
import pytest

from lfjax import tomography
from lfjax.errors import ParameterError, ShapeError
from lfjax.tomography import low_frequencies as module, random_particles, signal_support
from lfjax.tomography.bands import band_of, samples

N, SMALL = 60, 36


@pytest.fixture(scope="module")
def particles():
    return random_particles(jax.random.key(0), 6, pixel_angstrom=2.0, shift_px=2.0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(6, N, N)).astype(np.float32)


def test_a_search_sees_the_same_samples_in_the_smaller_box(images, particles):
    """Frequencies, CTF and displacements are those of the large images; values are (m / n)^2 of theirs, the pixels' ratio."""
    band = band_of(12)
    low = tomography.cropped_images(images, particles, SMALL)
    assert low.images.shape == (6, SMALL, SMALL) and low.ratio == pytest.approx(N / SMALL)
    large, small = (samples(band, *pair) for pair in ((images, particles), (low.images, low.particles)))
    scale = np.abs(np.asarray(large.values)).max()
    np.testing.assert_allclose(np.asarray(small.values) * low.ratio**2, large.values, atol=3e-3 * scale)
    np.testing.assert_allclose(small.contrast, large.contrast, atol=1e-4)
    back = low.enlarged(low.particles, particles)
    np.testing.assert_allclose(back.shifts, particles.shifts, rtol=1e-5)
    assert np.array_equal(back.pixel_angstrom, particles.pixel_angstrom)


def test_many_images_go_to_a_file_and_small_boxes_stay_as_they_are(images, particles, tmp_path, monkeypatch):
    noise = np.ones((1, N // 2 + 1))
    held = tomography.cropped_images(images, particles, SMALL, noise=noise, folder=tmp_path)
    assert held.noise.shape == (1, SMALL // 2 + 1)
    monkeypatch.setattr(module, "IN_MEMORY", 1)
    monkeypatch.setattr(module, "READ", 4 * N**2)
    mapped = tomography.cropped_images(images, particles, SMALL, folder=tmp_path)
    assert isinstance(mapped.images, np.memmap) and not list(tmp_path.iterdir())
    np.testing.assert_allclose(mapped.images, held.images, atol=1e-5)
    assert tomography.cropped_images(images, particles, N).images is images
    assert tomography.search_pixels(256, 0.42) < 100 and tomography.search_pixels(64, 0.42) == 64
    with pytest.raises(ParameterError, match="pixels"):
        tomography.cropped_images(images, particles, N + 2)
    with pytest.raises(ParameterError, match="radius"):
        tomography.search_pixels(64, 0.5)


def disc_images(count, radius, noise):
    """Discs of one square density per pixel in white noise."""
    x = np.arange(64) - 32
    inside = np.hypot(x, x[:, None]) <= radius
    return (inside + noise * np.random.default_rng(0).normal(size=(count, 64, 64))).astype(np.float32)


def test_the_share_of_the_signal_beyond_a_ball_is_that_of_the_areas():
    found = signal_support(disc_images(400, 20, 2.0), 12.0)
    edge = 12 + module_edge()
    assert found.beyond == pytest.approx(1 - (edge / 20) ** 2, abs=0.05) and found.sure == found.beyond
    assert found.radius_px == pytest.approx(20, abs=1.5)
    assert signal_support(disc_images(400, 20, 2.0), 22.0).sure == 0
    nothing = signal_support(disc_images(400, 0, 2.0)[:, ::-1] - disc_images(400, 0, 0.0), 12.0)
    assert np.isnan(nothing.beyond) and nothing.sure == 0
    with pytest.raises(ParameterError, match="radius_px"):
        signal_support(disc_images(4, 20, 1.0), 0.0)


def module_edge():
    from lfjax.tomography.supports import EDGE

    return round(EDGE * 64) + 0.5  # rings are whole pixels


def test_a_map_is_filtered_by_the_curve_that_is_given():
    x = np.arange(16) - 8
    ball = np.exp(-(x**2 + x[:, None] ** 2 + x[:, None, None] ** 2) / 8)
    few = random_particles(jax.random.key(1), 60, pixel_angstrom=2.0, defocus_angstrom=None)
    images = tomography.simulate_stack(jax.random.key(2), ball, few, snr=1.0)
    images = np.concatenate(list(images))
    own = tomography.reconstruct([(images, few)], 16)
    same = tomography.reconstruct([(images, few)], 16, curve=own.curve)
    np.testing.assert_array_equal(same.volume, own.volume)
    low = tomography.reconstruct([(images, few)], 16, curve=np.where(np.arange(9) < 3, 0.999, 0.0))
    np.testing.assert_array_equal(low.curve, own.curve)  # the curve of the half-maps stays what it is
    high = np.fft.fftn(np.asarray(low.volume))[4:-4, 4:-4, 4:-4], np.fft.fftn(np.asarray(own.unfiltered))[4:-4, 4:-4, 4:-4]
    assert np.linalg.norm(high[0]) <= 0.6 * np.linalg.norm(high[1])
    with pytest.raises(ShapeError, match="curve"):
        tomography.reconstruct([(images, few)], 16, curve=np.ones(4))


def test_a_resampled_map_keeps_its_place_and_values():
    x, fine = (np.arange(20) - 10) * 3.0, (np.arange(36) - 18) * 2.0
    blob = [np.exp(-((a - 4) ** 2 + (a[:, None] + 6) ** 2 + (a[:, None, None] - 2) ** 2) / 200) for a in (x, fine)]
    found = tomography.resample_map(blob[0], 3.0, 36, 2.0)
    inside = (np.abs(fine) < 24)[:, None, None] & (np.abs(fine) < 24)[:, None] & (np.abs(fine) < 24)
    np.testing.assert_allclose(found[inside], blob[1][inside], atol=0.03)
    assert tomography.resample_map(blob[0], 3.0, 20, 3.0) is blob[0]
