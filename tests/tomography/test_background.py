import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import DataWarning, FileError, ParameterError
from lfjax.io import Stack, read_map
from lfjax.tomography import (
    Ctf,
    Particles,
    background_levels,
    check_background,
    noise_spectra,
    normalise,
    random_particles,
    read_particles,
    reconstruct,
)
from lfjax.tomography.ctf import AS_RECORDED, PREMULTIPLIED


def noise(seed, count, size, power=1.0):
    """Periodic Gaussian noise of a given power at the frequencies of `rfft2`."""
    white = np.random.default_rng(seed).normal(size=(count, size, size))
    return np.fft.irfft2(np.fft.rfft2(white) * np.sqrt(power), (size, size)).astype(np.float32)


def frequency(size):
    """Cycles per pixel, at the frequencies of `rfft2`."""
    return np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))


def checked(images, where="a.star"):
    check_background(*background_levels(images), images.std(axis=(1, 2)), where)


def warnings_of(images):
    """Number of warnings of the check, which raises where the images are refused."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DataWarning)
        checked(images)
    return len(told)


def test_levels_are_those_beyond_the_disc():
    images = 5 + 3 * noise(0, 6, 24)
    x = np.arange(24) - 12
    outside = np.hypot(x, x[:, None]) > 0.8 * 12
    images[:, ~outside] += 100
    means, deviations = background_levels(images, 0.8)
    np.testing.assert_allclose(means, images[:, outside].mean(1), rtol=1e-5)
    np.testing.assert_allclose(deviations, images[:, outside].std(1), rtol=1e-4)
    with pytest.raises(ParameterError, match="radius"):
        background_levels(images, 2.0)


@pytest.mark.parametrize("name", ["good", "dark", "premultiplied", "phaseflipped", "mixedpix", "symT", "symI"])
def test_normalised_stacks_pass(name, shared):
    assert warnings_of(Stack(shared / f"data/cases/cryo/{name}.mrcs")[:]) == 0


@pytest.mark.parametrize("defocus", [None, (8000.0, 20000.0)])
def test_stacks_without_noise_pass(defocus, shared):
    truth = read_map(shared / "data/cases/cryo/truth_32px_4A.mrc").array
    particles = random_particles(jax.random.key(0), 40, pixel_angstrom=4.0, defocus_angstrom=defocus, shift_px=2.0)
    assert warnings_of(np.asarray(particles.projector(32)(truth))) == 0


def test_an_offset_is_refused_by_image_and_value(shared):
    with pytest.raises(FileError, match=r"dc.star: background mean .* in image \d+, 100 of 100 images .*--normalise"):
        checked(Stack(shared / "data/cases/cryo/dc10sigma.mrcs")[:], "dc.star")


def test_scales_that_differ_are_refused():
    images = noise(0, 40, 24)
    images[::4] *= 4
    with pytest.raises(FileError, match=r"deviations from .* in image \d+ to .* in image \d+; .*--normalise"):
        checked(images)
    assert warnings_of(normalise(images)) == 0


def test_a_few_odd_images_bring_a_warning_that_names_one():
    images = noise(0, 40, 24)
    images[7] += 3
    with pytest.warns(DataWarning, match="image 8, 1 of 40"):
        checked(images)
    with pytest.warns(DataWarning, match="image 101,"):
        check_background(9.0 * (np.arange(41) == 0), np.ones(41), np.ones(41), "a.star", numbers=np.arange(100, 141))


def test_the_case_with_an_offset_gives_the_right_map_once_normalised(shared):
    file = read_particles(shared / "data/cases/cryo/07_unnormalised_dc_10_sigma.star")
    truth = read_map(shared / "data/cases/cryo/truth_32px_4A.mrc").array
    images = normalise(file.images())
    assert isinstance(images, np.ndarray)
    checked(images)
    found = reconstruct([(images, file.particles)], 32)
    assert np.corrcoef(np.ravel(found.volume), np.ravel(truth))[0, 1] >= 0.99


def test_normalising_on_the_host_is_that_on_the_device():
    images = 3 + 5 * noise(1, 4, 21)
    on_host, on_device = normalise(images, radius=0.9), normalise(jnp.asarray(images), radius=0.9)
    assert isinstance(on_host, np.ndarray)
    assert on_host.dtype == np.float32
    np.testing.assert_allclose(on_host, on_device, atol=1e-5)
    np.testing.assert_array_equal(normalise(np.full((1, 8, 8), 7, np.float32)), 0)


def in_groups(*counts, ctf=None):
    group = np.repeat(np.arange(len(counts)), counts)
    return Particles(np.broadcast_to(np.eye(3), (len(group), 3, 3)), group=group, pixel_angstrom=3.0, ctf=ctf)


def test_white_noise_of_two_groups_and_a_bright_particle():
    images = np.concatenate([noise(0, 60, 48), 2 * noise(1, 60, 48)])
    x = np.arange(48) - 24
    images += 50 * np.exp(-(x**2 + x[:, None] ** 2) / (2 * 4.0**2)).astype(np.float32)
    found = noise_spectra(images, in_groups(60, 60), 48)
    assert found.shape == (2, 25)
    np.testing.assert_allclose(found.mean(axis=0), 1)
    np.testing.assert_allclose(found[:, 1:], np.broadcast_to([[0.4], [1.6]], (2, 24)), rtol=0.12)
    np.testing.assert_allclose(found[:, 5:].mean(axis=1), [0.4, 1.6], rtol=0.02)


def test_coloured_noise_is_told_from_white(size=48):
    colour = 1 / (0.05 + frequency(size)) / 4
    images = np.concatenate([noise(0, 150, size), noise(1, 150, size, colour)])
    found = noise_spectra(lambda index: images[index], in_groups(150, 150), size)
    known = 1 / (0.05 + np.arange(size // 2 + 1) / size) / 4
    np.testing.assert_allclose((found[1] / found[0])[3:], known[3:], rtol=0.15)


def test_a_single_group_is_one_and_reads_nothing():
    def never(index):
        raise AssertionError

    np.testing.assert_array_equal(noise_spectra(never, in_groups(5), 16), np.ones((1, 9)))


def test_at_most_200_images_of_a_group_are_read():
    images, read = np.concatenate([noise(0, 300, 8), noise(1, 10, 8)]), []

    def some(index):
        read.append(len(index))
        return images[index]

    noise_spectra(some, in_groups(300, 10), 8)
    assert read == [200, 10]


@pytest.mark.parametrize("defocus", [9000.0, 15000.0])
def test_the_ctf_of_premultiplied_images_is_not_counted_twice(defocus, size=64):
    """One noise before the CTF in both groups: their relative powers are 1, although that of the images is |CTF|^2."""
    rng = np.random.default_rng(0)
    applied = np.repeat([AS_RECORDED, PREMULTIPLIED], 120)
    ctf = Ctf(defocus + rng.uniform(0, 4000, 240), applied=applied)
    particles = in_groups(120, 120, ctf=ctf)
    images = noise(1, 240, size)
    power = np.asarray(jax.vmap(lambda c: c.power(*grid(size, 3.0)))(particles.ctf))
    images[120:] = np.fft.irfft2(np.fft.rfft2(images[120:]) * np.sqrt(power[120:]), (size, size))
    found = noise_spectra(images, particles, size)
    np.testing.assert_allclose(found[:, 2:], 1, atol=0.12)
    np.testing.assert_allclose(found[:, 5:].mean(axis=1), 1, atol=0.02)


def grid(size, pixel):
    return np.fft.rfftfreq(size)[None] / pixel, np.fft.fftfreq(size)[:, None] / pixel


def test_shells_beyond_the_own_nyquist_frequency_hardly_count():
    images = np.concatenate([noise(0, 40, 32), noise(1, 40, 32, frequency(32) < 0.25)])
    found = noise_spectra(images, in_groups(40, 40), 32, shells=np.array([17, 9]))
    assert (found[1, 9:] == 1e4).all()
    np.testing.assert_allclose(found[0, 9:], 1)
    np.testing.assert_allclose(found[:, :9].mean(axis=0), 1)


def test_zeros_around_a_smaller_box_are_not_background():
    images = noise(0, 160, 48)
    small = images[80:, 8:40, 8:40].copy()
    images[80:] = 0
    images[80:, 8:40, 8:40] = small
    found = noise_spectra(images, in_groups(80, 80), 48)
    np.testing.assert_allclose(found[:, 4:].mean(axis=1), 1, atol=0.05)


def test_silent_groups_have_a_floor_and_missing_groups_do_not_count():
    particles = Particles(np.broadcast_to(np.eye(3), (20, 3, 3)), group=np.repeat([0, 2], 10))
    images = np.concatenate([1e-6 * noise(0, 10, 16), noise(1, 10, 16)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = noise_spectra(images, particles, 16)
    assert found.min() == 1e-3
    np.testing.assert_allclose(found[2], 2, rtol=1e-4)
    assert np.isfinite(found).all()
