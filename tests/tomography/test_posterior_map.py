"""The map of known posteriors: closed forms of the Wiener filter, of noise and prior, and of scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import rotation
from lfjax.tomography import fourier_shells, passes
from lfjax.tomography.bands import band_of, resized, shell_powers
from lfjax.tomography.image_batches import ImageBatches
from lfjax.tomography.particles import Particles
from lfjax.tomography.passes import Poses, grid_pass, near_pass
from lfjax.tomography.posterior_map import Estimate, first_map, in_band, next_estimate, rescaled, resolved
from lfjax.tomography.powers import measured_powers
from lfjax.tomography.search import Expected, nothing_expected, slices, spread_grid
from tests.tomography.molecule import molecule, stack

SIZE, COUNT = 24, 384
BAND = band_of(7)
BODY = molecule(SIZE)
ONE = np.eye(3)[None]
POINT = np.zeros((1, 2), np.float32)
INSIDE = slice(1, BAND.limit + 1)


@pytest.fixture(autouse=True)
def balls_of_one_pose(monkeypatch):
    """All points of a ball of no radius are the same: 8 are as good as 96."""
    monkeypatch.setattr(passes, "POINTS", passes.MODES)


@pytest.fixture(scope="module")
def truth():
    """The molecule in the box of the band."""
    return resized(BODY.volume(SIZE), BAND.size)


@pytest.fixture(scope="module")
def seen():
    """Images at SNR 1, their poses as known, and the noise power of their transforms."""
    images, particles, deviation = stack(BODY, COUNT, SIZE, snr=1.0)
    return ImageBatches(images, Particles(particles.rotations)), known(particles), (deviation * SIZE) ** 2


def known(particles):
    """Poses of which nothing is in doubt."""
    poses = Poses.unknown(len(particles))
    poses.rotations[:] = np.asarray(particles.rotations, np.float32)[:, None]
    return poses


def at_poses(images, estimate, poses, update="map"):
    """A pass in balls of no radius: the poses stay."""
    return near_pass(
        images, BAND, estimate, poses, jax.random.key(0), width_rad=0.0, modes=1, shifts=POINT, shift_px=1.0, radius=0.42,
        group=ONE, update=update,
    )[0]  # fmt: skip


def estimate_of(volume, noise, prior=None):
    power = shell_powers(volume) if prior is None else jnp.asarray(prior, jnp.float32)
    return Estimate(volume, power, jnp.broadcast_to(jnp.asarray(noise, jnp.float32), (BAND.shells,)), 0 * power)


def gains(found, volume):
    """Factor of each shell that takes a map to another, by least squares, and their correlation."""
    shell = fourier_shells.shells(BAND.size)
    a, b = (np.fft.rfftn(np.asarray(v, float)) for v in (found, volume))
    cross = np.asarray(fourier_shells.shell_means(jnp.asarray((a * b.conj()).real), shell, BAND.shells))
    return cross / np.asarray(shell_powers(volume)), np.asarray(fourier_shells.fsc(found, volume))


@pytest.mark.parametrize("ratio", [1.0, 100.0])
def test_the_map_is_a_wiener_filter(truth, ratio):
    count, contrast2, noise = 4608, 0.5, 7.0
    turns = jnp.asarray(rotation.grid(2), jnp.float32)
    found = slices(BAND, truth, turns)
    m = jnp.zeros(len(BAND.shell))
    weight = jnp.full(found.shape, contrast2, jnp.float32)
    expected = Expected(contrast2 * found, weight, m, m, m, jnp.asarray(0.0))
    before = estimate_of(truth, noise, np.full(BAND.shells, noise / ratio))
    total = spread_grid(BAND, turns, expected)
    estimate = next_estimate(BAND, total, expected, before, jnp.float32(0.42), jnp.asarray(ONE, jnp.float32))
    k = np.arange(2, BAND.limit)
    density = contrast2 * count / (2 * k)  # of samples about frequency k: a plane through 0 meets a sphere in a circle
    gain, _ = gains(estimate.volume, truth)
    np.testing.assert_allclose(gain[k], density / (density + ratio), rtol=0.06)
    np.testing.assert_allclose(np.asarray(estimate.variance)[k], noise / (density + ratio), rtol=0.08)
    np.testing.assert_allclose(estimate.prior, shell_powers(estimate.volume) + estimate.variance, rtol=1e-5)
    np.testing.assert_array_equal(estimate.noise, before.noise)  # there were no images
    assert not np.asarray(shell_powers(estimate.volume))[BAND.limit + 2 :].max() > 1e-2 * np.asarray(shell_powers(truth)).max()


def test_known_poses_and_many_images_give_the_map_of_the_band(truth, seen):
    images, poses, noise = seen
    found = at_poses(images, estimate_of(truth, noise), poses)
    gain, curve = gains(found.volume, truth)
    assert curve[1 : BAND.limit].min() > 0.98
    np.testing.assert_allclose(gain[1:6], 1, atol=0.06)
    assert resolved(found, BAND.limit) > 0.3


def test_residuals_tell_the_noise(truth, seen):
    images, poses, noise = seen
    found = at_poses(images, estimate_of(truth, 3 * noise), poses)  # a wrong noise does not matter at known poses
    samples = COUNT * np.bincount(BAND.shell, BAND.count, BAND.shells)[INSIDE]
    error = np.asarray(found.noise)[INSIDE] / noise - 1
    assert (np.abs(error) < 4 / np.sqrt(samples) + 0.01).all()


@pytest.mark.parametrize("count", [24, 96])
def test_noise_and_prior_settle_at_the_truth(truth, count):
    images, particles, deviation = stack(BODY, count, SIZE, snr=1.0, seed=5)
    noise, batches, poses = (deviation * SIZE) ** 2, ImageBatches(images, Particles(particles.rotations)), known(particles)
    powers = measured_powers(batches, BAND, 0.42)
    found = first_map(jax.random.key(1), BAND, powers, 0.42)
    for _ in range(12):
        found = at_poses(batches, found, poses)
    ratio = np.asarray(found.noise)[INSIDE] / noise
    samples = count * np.bincount(BAND.shell, BAND.count, BAND.shells)[INSIDE]
    assert (np.abs(ratio - 1) < 4 / np.sqrt(samples) + 0.05).all() and abs(ratio.mean() - 1) < 0.05
    prior = np.asarray(found.prior)[INSIDE] / np.asarray(shell_powers(truth))[INSIDE]
    assert 0.3 < prior.min() and prior.max() < 1.3 and np.abs(prior[:3] - 1).max() < 0.2


@pytest.mark.parametrize("factors", [np.full(BAND.shells, 3.0), np.linspace(0.5, 2, BAND.shells)])
def test_a_map_on_another_scale_is_rescaled(truth, seen, factors):
    images, poses, noise = seen
    wrong = fourier_shells.scale_shells(truth, jnp.asarray(factors, jnp.float32))
    found = at_poses(images, estimate_of(wrong, noise), poses, update="scale")
    gain, _ = gains(found.volume, truth)
    np.testing.assert_allclose(gain[1:6], 1, atol=0.05)
    samples = COUNT * np.bincount(BAND.shell, BAND.count, BAND.shells)[INSIDE]
    assert (np.abs(np.asarray(found.noise)[INSIDE] / noise - 1) < 4 / np.sqrt(samples) + 0.01).all()
    power = np.asarray(shell_powers(found.volume))[INSIDE]
    np.testing.assert_allclose(np.asarray(found.prior)[INSIDE], power, rtol=0.1)


def test_shells_that_explain_nothing_go():
    m = jnp.ones(len(BAND.shell))
    expected = Expected(jnp.zeros((), complex), jnp.zeros(()), 10 * m, -m, 2 * m, jnp.asarray(5.0))
    volume = jax.random.normal(jax.random.key(0), (BAND.size,) * 3)
    found = rescaled(BAND, expected, estimate_of(volume, 1.0))
    assert float(jnp.abs(found.volume).max()) == 0
    np.testing.assert_allclose(np.asarray(found.noise)[: BAND.limit + 1], 2, rtol=1e-6)


def test_noise_stays_below_the_power_of_the_images(seen):
    images, _, noise = seen
    powers = measured_powers(images, BAND, 0.42)
    estimate, poses = first_map(jax.random.key(3), BAND, powers, 0.42), Poses.unknown(COUNT)
    grid = rotation.grid(1).astype(np.float32)
    for turn in range(4):
        estimate, poses = grid_pass(
            images, BAND, estimate, poses, jax.random.key(turn), grid=grid, shifts=POINT, shift_px=1.0, radius=0.42, group=ONE,
            centred=False,
        )  # fmt: skip
        share = np.asarray(estimate.noise)[INSIDE] / powers.images[INSIDE]
        assert turn == 0 or share.max() <= 1.02  # the first residuals are those of a map that knows nothing
        assert np.asarray(estimate.noise)[INSIDE].min() > 0.9 * noise


def test_images_without_noise_leave_the_noise_of_interpolation(truth):
    images, particles, _ = stack(BODY, 64, SIZE)
    batches, found = ImageBatches(images, Particles(particles.rotations)), estimate_of(truth, 1.0)
    power = measured_powers(batches, BAND, 0.42).images
    for _ in range(3):
        found = at_poses(batches, found, known(particles))
    share = np.asarray(found.noise)[: BAND.limit + 1] / power[: BAND.limit + 1]
    assert share.min() >= 0.99e-5 and share[1:6].max() < 0.02 and np.isfinite(np.asarray(found.volume)).all()


def test_no_image_changes_no_noise(truth):
    before, nothing = estimate_of(truth, 2.0), nothing_expected(BAND, 1)
    turns = jnp.eye(3)[None]
    after = next_estimate(BAND, spread_grid(BAND, turns, nothing), nothing, before, jnp.float32(0.4), jnp.eye(3)[None])
    np.testing.assert_array_equal(after.noise, before.noise)
    np.testing.assert_allclose(after.prior, before.prior, rtol=1e-4)  # the images told nothing: the prior stays
    assert float(jnp.abs(after.volume).max()) < 1e-6 and abs(resolved(after, BAND.limit)) < 1e-4


def test_an_estimate_of_another_band_keeps_its_map_and_powers(truth, seen):
    images, _, noise = seen
    powers = measured_powers(images, BAND, 0.42)
    before = estimate_of(truth, 1.1 * noise)
    wide = in_band(before, band_of(11), powers)
    assert wide.volume.shape == (band_of(11).size,) * 3
    shells = np.arange(BAND.shells)
    for name in ("prior", "noise"):
        np.testing.assert_allclose(getattr(wide, name)[shells], getattr(before, name)[shells])
    np.testing.assert_allclose(np.asarray(wide.noise)[BAND.shells :], powers.images[BAND.limit], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(wide.prior)[BAND.shells :], powers.signal[BAND.limit], rtol=1e-6)
    back = in_band(wide, BAND, powers)
    np.testing.assert_allclose(back.volume, resized(resized(truth, band_of(11).size), BAND.size), atol=1e-4)
    assert in_band(before, BAND, powers) is before


def test_a_first_map_has_the_mass_and_the_powers_of_the_images(seen):
    images, _, _ = seen
    powers = measured_powers(images, BAND, 0.42)
    found, other = (first_map(jax.random.key(i), BAND, powers, 0.42) for i in range(2))
    assert np.asarray(found.volume).sum() == pytest.approx(powers.mass, rel=0.5)
    np.testing.assert_allclose(found.noise, powers.images[np.minimum(np.arange(BAND.shells), BAND.limit)], rtol=1e-5)
    details = [np.asarray(each.volume - (found.volume + other.volume) / 2).ravel() for each in (found, other)]
    assert min(np.linalg.norm(detail) for detail in details) > 0.05 * np.linalg.norm(np.asarray(found.volume))
