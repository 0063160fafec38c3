"""Samples of images in a band: transforms, contrast and noise as the likelihood takes them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import rotation
from lfjax.errors import ParameterError, ShapeError
from lfjax.tomography import random_particles
from lfjax.tomography.aberrations import Aberrations
from lfjax.tomography.bands import band_of, resized, samples, shell_powers
from lfjax.tomography.ctf import PHASE_FLIPPED, PREMULTIPLIED, Ctf
from lfjax.tomography.particles import Particles
from tests.tomography.molecule import molecule, slice_of

BAND = band_of(5)


def dft(image, frequencies, shift):
    """Transform about the displaced centre, written out."""
    n = image.shape[0]
    x = np.arange(n) - n // 2
    kx, ky = frequencies
    wave_x = np.exp(-2j * np.pi / n * kx[:, None] * (x - shift[0]))
    wave_y = np.exp(-2j * np.pi / n * ky[:, None] * (x - shift[1]))
    return np.einsum("yx,mx,my->m", image.astype(float), wave_x, wave_y)


@pytest.mark.parametrize("size", [16, 17])
def test_samples_are_the_transform_about_the_displaced_centre(size):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3, size, size)).astype(np.float32)
    shifts = rng.uniform(-2, 2, (3, 2))
    found = samples(BAND, images, Particles(np.broadcast_to(np.eye(3), (3, 3, 3)), shifts=shifts))
    wanted = [dft(image, BAND.plane.frequencies, shift) for image, shift in zip(images, shifts, strict=True)]
    np.testing.assert_allclose(found.values, wanted, atol=1e-4)
    np.testing.assert_array_equal(found.contrast, 1)
    assert found.magnified is None


def test_every_image_has_the_frequencies_of_the_band():
    for limit in (2, 5, 11, 16, 25, 40):
        band = band_of(limit)
        inside = [(kx, ky) for kx in range(limit + 1) for ky in range(-limit, limit + 1) if kx**2 + ky**2 <= limit**2]
        assert sorted(map(tuple, band.plane.frequencies.T)) == sorted(inside)
        for size in {*range(2 * limit + 1, 2 * limit + 30), 98, 107, 161, 256}:
            if size > 2 * limit:
                np.testing.assert_array_equal(band.plane_of(size).frequencies, band.plane.frequencies, err_msg=str(size))


@pytest.fixture(scope="module")
def filtered():
    """Images of a molecule with CTF and odd aberrations: as recorded, with the CTF's sign, and with the CTF multiplied in."""
    size, pixel, count = 32, 4.0, 4
    optics = Ctf(
        jnp.asarray([9000.0, 12000.0, 15000.0, 20000.0]), jnp.asarray([8500.0, 11800.0, 14000.0, 19000.0]), 0.4,
        aberrations=Aberrations(beam_tilt_rad=[3e-3, -2e-3], odd=[2.0, -1.0]),
    )  # fmt: skip
    turns = rotation.random_rotations(jax.random.key(2), count)
    shifts = np.array([[0.0, 0.0], [1.5, -0.5], [-2.0, 1.0], [0.3, 0.2]])
    recorded = Particles(turns, shifts=shifts, ctf=optics, pixel_angstrom=pixel)
    body = molecule(size)
    k = np.fft.fftfreq(size) / pixel
    kx, ky = np.meshgrid(k, k)
    plain = np.fft.fft2(np.asarray(body.project(turns, size, shifts=shifts)))
    noise = np.fft.fft2(np.random.default_rng(1).standard_normal(plain.shape) * 5)
    low = np.hypot(kx, ky) < 0.45 / pixel  # without the Nyquist frequency, which has two CTFs
    even = Ctf(*(leaf for leaf in (optics.defocus_u_angstrom, optics.defocus_v_angstrom)), 0.4)
    real, images = [], []
    for i in range(count):
        view = jax.tree.map(lambda a, i=i: a[i], recorded.ctf)
        own = jax.tree.map(lambda a, i=i: a[i], even.each(count))
        real.append(np.asarray(own(kx, ky)))
        images.append((plain[i] * np.asarray(view(kx, ky)) + noise[i]) * low)
    factors = {0: np.ones_like(real), PHASE_FLIPPED: np.sign(real), PREMULTIPLIED: np.asarray(real)}
    return body, recorded, {a: np.fft.ifft2(f * images).real.astype(np.float32) for a, f in factors.items()}


def applied(particles, number):
    done = jnp.full(len(particles), number)
    return eqx.tree_at(lambda p: p.ctf.applied, particles, done, is_leaf=lambda leaf: leaf is None)


@pytest.mark.parametrize("number", [PHASE_FLIPPED, PREMULTIPLIED])
def test_processed_images_have_the_samples_of_recorded_ones(filtered, number):
    _, recorded, images = filtered
    wanted = samples(BAND, images[0], applied(recorded, 0))
    found = samples(BAND, images[number], applied(recorded, number))
    np.testing.assert_allclose(found.contrast, wanted.contrast, rtol=1e-5)
    np.testing.assert_allclose(found.values, wanted.values, atol=2e-4 * float(jnp.abs(wanted.values).max()))


def test_samples_of_a_molecule_are_its_slice_times_the_contrast(filtered):
    body, recorded, images = filtered
    found = samples(BAND, images[0] - noise_of(filtered), recorded)
    for i in range(len(recorded)):
        wanted = np.asarray(found.contrast[i]) * slice_of(body, recorded.rotations[i], BAND.plane.frequencies, 32)
        faint = np.asarray(found.contrast[i]) < 0.02  # a zero of the CTF, where c is held above |CTF|
        np.testing.assert_allclose(np.asarray(found.values[i])[~faint], wanted[~faint], atol=2e-3 * np.abs(wanted).max())


def noise_of(filtered):
    body, recorded, images = filtered
    size = images[0].shape[-1]
    return images[0] - np.asarray(recorded.projector(size, kernel=7)(body.volume(size)))


def test_noise_whitens_the_images_of_each_group():
    rng = np.random.default_rng(3)
    images = rng.standard_normal((4, 16, 16)).astype(np.float32)
    some = random_particles(jax.random.key(0), 4, pixel_angstrom=4.0)
    some = eqx.tree_at(lambda p: p.group, some, jnp.asarray([1, 0, 0, 1]))
    noise = rng.uniform(0.5, 3, (2, 9)).astype(np.float32)
    plain, white = samples(BAND, images, some), samples(BAND, images, some, noise)
    gain = 1 / np.sqrt(noise[np.asarray(some.group)][:, BAND.shell])
    np.testing.assert_allclose(white.values, plain.values * gain, rtol=1e-5)
    np.testing.assert_allclose(white.contrast, plain.contrast * gain, rtol=1e-5)
    short = samples(BAND, images, some, noise[:, :4])  # the last shell told serves those beyond
    gain = 1 / np.sqrt(noise[np.asarray(some.group)][:, np.minimum(BAND.shell, 3)])
    np.testing.assert_allclose(short.values, plain.values * gain, rtol=1e-5)


def test_magnification_is_kept_for_slices():
    bent = Aberrations(magnification=[[1.02, 0.01], [0.0, 0.98]])
    some = random_particles(jax.random.key(0), 2, pixel_angstrom=4.0, aberrations=bent)
    found = samples(BAND, np.zeros((2, 16, 16), np.float32), some)
    np.testing.assert_allclose(found.magnified.ctf.aberrations.magnification[1], [[1.02, 0.01], [0.0, 0.98]], rtol=1e-6)
    assert found.view(slice(0, 1)).values.shape == (1, len(BAND.shell))


@pytest.mark.parametrize("old, new", [(24, 16), (16, 24), (15, 24), (24, 15), (15, 17), (24, 24)])
def test_a_map_in_another_box_keeps_its_transform(old, new):
    volume = np.random.default_rng(4).standard_normal((old,) * 3)
    found = np.asarray(resized(volume, new), float)

    def low(a):
        n = a.shape[0]
        values = np.fft.fftn(np.roll(a, (-(n // 2),) * 3, (0, 1, 2)))
        most = (min(old, new) - 1) // 2
        k = np.r_[: most + 1, -most:0]
        return values[np.ix_(k, k, k)]

    np.testing.assert_allclose(low(found), low(volume), atol=2e-3)
    assert abs(found.sum() - volume.sum()) < 1e-3
    if new > old:
        left = np.abs(np.fft.fftn(found)) ** 2
        assert left.sum() == pytest.approx((np.abs(low(volume)) ** 2).sum(), rel=1e-4)  # and has nothing more


def test_means_are_those_of_the_whole_plane():
    size = 16
    image = np.random.default_rng(5).standard_normal((size, size)).astype(np.float32)
    found = samples(BAND, image[None], Particles(np.eye(3)[None])).values[0]
    k = np.round(np.fft.fftfreq(size) * size)
    length = np.hypot(k, k[:, None])
    inside = length <= BAND.limit
    power = np.abs(np.fft.fft2(image)) ** 2
    means = np.asarray(BAND.means(jnp.abs(found) ** 2))
    for shell in range(BAND.limit + 1):
        assert means[shell] == pytest.approx(power[inside & (np.rint(length) == shell)].mean(), rel=1e-4)
    assert not means[BAND.limit + 1 :].any() and len(means) == BAND.shells
    assert 2 * BAND.count.sum() == inside.sum()


def test_powers_of_the_shells_of_a_map():
    n = BAND.size
    volume = np.random.default_rng(6).standard_normal((n, n, n)).astype(np.float32)
    k = np.fft.fftfreq(n) * n
    length = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + np.arange(n // 2 + 1) ** 2)
    power, shell = np.abs(np.fft.rfftn(volume)) ** 2, np.floor(length + 0.5)
    wanted = [power[shell == r].mean() for r in range(BAND.shells)]
    np.testing.assert_allclose(shell_powers(jnp.asarray(volume)), wanted, rtol=1e-4)


def test_what_cannot_be_sampled_is_refused():
    some = random_particles(jax.random.key(0), 2, pixel_angstrom=4.0)
    with pytest.raises(ParameterError, match="limit = 1: expected 2 or more"):
        band_of(1)
    with pytest.raises(ParameterError, match="up to 5 cycles per box.*less than 5"):
        samples(BAND, np.zeros((2, 10, 10)), some)
    with pytest.raises(ShapeError, match="images"):
        samples(BAND, np.zeros((3, 16, 16)), some)
    with pytest.raises(ParameterError, match="noise"):
        samples(BAND, np.zeros((2, 16, 16)), eqx.tree_at(lambda p: p.group, some, jnp.asarray([0, 1])), np.ones((1, 9)))
    with pytest.raises(ParameterError, match="noise"):
        samples(BAND, np.zeros((2, 16, 16)), some, np.zeros((1, 9)))
