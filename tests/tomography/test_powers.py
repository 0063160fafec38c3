"""Powers of signal and noise from images of unknown pose, whatever has been done to the images."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.tomography import random_particles
from lfjax.tomography.bands import band_of, resized, shell_powers
from lfjax.tomography.ctf import PREMULTIPLIED
from lfjax.tomography.image_batches import ImageBatches
from lfjax.tomography.powers import LEAST, measured_powers
from tests.tomography.molecule import molecule

SIZE, COUNT, PIXEL, RADIUS = 24, 512, 4.0, 0.34
BAND = band_of(7)
BODY = molecule(SIZE, radius=0.2)
INSIDE = slice(1, BAND.limit + 1)


def spectra(images):
    return np.fft.fft2(images)


@pytest.fixture(scope="module")
def recorded():
    """Images with CTF at SNR 1 and the powers of their noise and of the molecule."""
    particles = random_particles(jax.random.key(0), COUNT, pixel_angstrom=PIXEL, defocus_angstrom=(3000.0, 9000.0))
    clean = np.asarray(particles.projector(SIZE, kernel=5)(BODY.volume(SIZE)), float)
    deviation = np.sqrt(clean.var(axis=(1, 2)).mean())
    noise = deviation * np.random.default_rng(1).standard_normal(clean.shape)
    truth = np.asarray(shell_powers(resized(BODY.volume(SIZE), BAND.size)))
    return particles, clean, noise, (deviation * SIZE) ** 2, truth


def check(powers, truth, noise):
    np.testing.assert_allclose(powers.noise, noise, rtol=0.08)
    found = powers.signal[INSIDE]
    np.testing.assert_allclose(found[:4], truth[INSIDE][:4], rtol=0.25)
    assert np.abs(found - truth[INSIDE]).max() < 0.25 * truth[1]
    assert (powers.images[INSIDE] > 0.9 * noise).all()
    assert (np.diff(powers.information) >= 0).all() and powers.information[-1] > 10


def test_recorded_images(recorded):
    particles, clean, noise, power, truth = recorded
    powers = measured_powers(ImageBatches(clean + noise, particles), BAND, RADIUS)
    check(powers, truth, power)
    assert powers.mass == 0  # the CTF takes it
    signal = powers.contrast[: BAND.limit + 1] * powers.signal[: BAND.limit + 1] / powers.noise
    samples = np.bincount(BAND.shell, BAND.count)
    np.testing.assert_allclose(powers.information, np.cumsum(signal * samples), rtol=1e-6)


def test_premultiplied_images_have_the_powers_of_recorded_ones(recorded):
    particles, clean, noise, power, truth = recorded
    ctf = np.stack([np.asarray(jax.tree.map(lambda a, i=i: a[i], particles.ctf)(*grid())) for i in range(COUNT)])
    images = np.fft.ifft2(spectra(clean + noise) * ctf).real.astype(np.float32)
    done = jnp.full(COUNT, PREMULTIPLIED)
    told = eqx.tree_at(lambda p: p.ctf.applied, particles, done, is_leaf=lambda leaf: leaf is None)
    powers = measured_powers(ImageBatches(images, told), BAND, RADIUS)
    check(powers, truth, power)


def test_coloured_noise_told_is_taken_out(recorded):
    particles, clean, noise, power, truth = recorded
    kx, ky = grid()
    shell = np.rint(np.hypot(kx, ky) * SIZE * PIXEL).astype(int)
    relative = 4.0 / (1 + np.arange(SIZE) / 3)  # of any mean
    images = np.fft.ifft2(spectra(clean) + spectra(noise) * np.sqrt(relative[shell])).real.astype(np.float32)
    powers = measured_powers(ImageBatches(images, particles, noise=relative[None]), BAND, RADIUS)
    np.testing.assert_allclose(powers.noise, power, rtol=0.1)
    assert powers.information[-1] > 5


def grid():
    k = np.fft.fftfreq(SIZE) / PIXEL
    return np.meshgrid(k, k)


def test_the_mass_shows_without_a_ctf(recorded):
    particles, _, noise, power, truth = recorded
    plain = eqx.tree_at(lambda p: p.ctf, particles, None, is_leaf=lambda leaf: leaf is None)
    clean = np.asarray(BODY.project(particles.rotations, SIZE))
    powers = measured_powers(ImageBatches(clean + 0.3 * noise, plain), BAND, RADIUS)
    assert powers.mass == pytest.approx(float(BODY.volume(SIZE).sum()), rel=0.05)
    np.testing.assert_allclose(powers.contrast[: BAND.limit + 1], 1, rtol=1e-6)
    np.testing.assert_allclose(powers.signal[1:5], truth[1:5], rtol=0.2)


def test_noise_alone_has_least_signal(recorded):
    particles, _, noise, power, _ = recorded
    powers = measured_powers(ImageBatches(noise, particles), BAND, RADIUS)
    np.testing.assert_allclose(powers.noise, power, rtol=0.02)
    assert (powers.signal >= 0.99 * LEAST * power).all() and (powers.signal[1:] < 0.3 * power).all()
    assert powers.information[-1] < 10


def test_shells_beyond_have_the_powers_of_the_last(recorded):
    particles, clean, noise, _, _ = recorded
    signal = measured_powers(ImageBatches(clean + noise, particles), BAND, RADIUS).signal
    np.testing.assert_allclose(signal[BAND.limit + 1 :], signal[BAND.limit - 2 : BAND.limit + 1].mean())


def test_a_map_that_leaves_the_noise_explains_all_and_one_that_leaves_the_images_nothing(recorded):
    particles, clean, noise, _, _ = recorded
    powers = measured_powers(ImageBatches(clean + noise, particles), BAND, RADIUS)
    assert powers.explained(np.full(BAND.shells, powers.noise), 3, 6) == pytest.approx(1)
    assert powers.explained(powers.images, 3, 6) == pytest.approx(0)
    half = (powers.images + powers.noise) / 2
    assert powers.explained(half, 3, 99) == pytest.approx(0.5)
    assert np.isnan(powers._replace(images=np.zeros(BAND.shells)).explained(half, 3, 6))
