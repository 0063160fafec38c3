"""Images that a program has phase-flipped or multiplied by their CTF mean the same as those of the camera."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import rotation
from lfjax.tomography import Particles, add_noise, random_particles, reconstruct, refine_poses
from lfjax.tomography.ctf import PHASE_FLIPPED, PREMULTIPLIED


def phantom(n):
    x = np.arange(n) - n // 2
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    balls = [((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 6 for a, b, c in ((5, 0, 1), (-3, 4, 0), (0, -5, -4), (-2, -2, 6))]
    return jnp.asarray(sum(np.exp(-ball) for ball in balls), jnp.float32)


@pytest.fixture(scope="module")
def recorded():
    particles = random_particles(jax.random.key(0), 60, pixel_angstrom=3.0, shift_px=0.5, defocus_angstrom=(9000.0, 16000.0))
    return particles, np.asarray(add_noise(jax.random.key(1), particles.projector(32)(phantom(32)), 3.0))


def processed(particles, images, applied):
    """The images after the program, with an independent CTF on the grid of `numpy.fft`, and the particles that say so."""
    k = np.fft.fftfreq(32) / 3.0
    factor = np.asarray(jax.vmap(lambda ctf: ctf(k[None, :], k[:, None]))(particles.ctf))
    factor = np.sign(factor) if applied == PHASE_FLIPPED else factor
    done = np.fft.ifft2(np.fft.fft2(images) * factor).real.astype(np.float32)
    flag = jnp.full(len(particles), applied)
    return eqx.tree_at(lambda p: p.ctf.applied, particles, flag, is_leaf=lambda leaf: leaf is None), done


@pytest.mark.parametrize("applied", [PHASE_FLIPPED, PREMULTIPLIED])
def test_maps_and_refined_poses_are_the_same(recorded, applied):
    particles, images = recorded
    other, done = processed(particles, images, applied)
    maps = [np.asarray(reconstruct([pair], 32).unfiltered) for pair in ((images, particles), (done, other))]
    assert np.linalg.norm(maps[0] - maps[1]) <= 2e-3 * np.linalg.norm(maps[0])
    turn = rotation.from_vector(0.05 * jax.random.normal(jax.random.key(2), (60, 3)))
    found = []
    for pair, seen in ((particles, images), (other, done)):
        start = Particles(turn @ pair.rotations, shifts=pair.shifts, ctf=pair.ctf, pixel_angstrom=3.0)
        found.append(refine_poses(phantom(32), seen, start, cutoffs=(0.6,)).particles)
    apart = np.rad2deg(np.asarray(rotation.distance(found[0].rotations, found[1].rotations)))
    error = np.rad2deg(np.asarray(rotation.distance(found[0].rotations, particles.rotations)))
    assert np.median(error) <= 1.5 and np.percentile(apart, 90) <= 0.1 * np.median(error)


def test_images_are_simulated_as_the_flag_says(recorded):
    particles, _ = recorded
    clean = np.asarray(particles.projector(32, kernel=6)(phantom(32)))
    for applied in (PHASE_FLIPPED, PREMULTIPLIED):
        other, done = processed(particles, clean, applied)
        made = np.asarray(other.projector(32, kernel=6)(phantom(32)))
        assert np.linalg.norm(made - done) <= 2e-3 * np.linalg.norm(done)
