"""A small molecule without symmetry, a sum of Gaussians, and its images: projections and transforms in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from lfjax import rotation
from lfjax.tomography.gaussians import Gaussians
from lfjax.tomography.particles import Particles


def molecule(size, *, atoms=20, seed=1, radius=0.26):
    """Atoms at random in a ball of `radius` box lengths, about their centre."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal((atoms, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    place = direction * (radius * size * rng.random(atoms) ** (1 / 3))[:, None]
    place -= place.mean(0)
    width = np.full(atoms, max(size / 24, 0.9))
    return Gaussians(jnp.asarray(place), jnp.asarray(width), jnp.asarray(rng.uniform(0.5, 1.5, atoms)))


def transform(body, frequencies, size):
    """V^(k) of a molecule in NumPy, of frequencies (..., 3) in cycles per box of `size` voxels, about its centre."""
    place, width, mass = (np.asarray(a, float) for a in (body.positions, body.widths, body.amplitudes))
    k = 2 * np.pi / size * np.asarray(frequencies, float)
    fall = np.exp(-((k**2).sum(-1)[..., None]) * width**2 / 2) * mass * (np.sqrt(2 * np.pi) * width) ** 3
    return (fall * np.exp(-1j * k @ place.T)).sum(-1)


def slice_of(body, turn, frequencies, size):
    """Samples (m,) of the image of a molecule: V^(R^T (kx, ky, 0)), of frequencies (2, m)."""
    flat = np.concatenate([frequencies, np.zeros((1, frequencies.shape[1]))])
    return transform(body, flat.T @ np.asarray(turn, float), size)


def stack(body, count, size, *, snr=None, shift_px=0.0, seed=0):
    """Images with white noise of variance var(signal) / snr, the particles at their true poses, and the noise's deviation."""
    keys = jax.random.split(jax.random.key(seed), 3)
    turns = rotation.random_rotations(keys[0], count)
    shifts = shift_px * jax.random.normal(keys[1], (count, 2))
    images = np.asarray(body.project(turns, size, shifts=shifts), np.float32)
    deviation = 0.0 if snr is None else float(np.sqrt(images.var(axis=(1, 2)).mean() / snr))
    noise = np.asarray(jax.random.normal(keys[2], images.shape), np.float32)
    return images + np.float32(deviation) * noise, Particles(turns, shifts=shifts), deviation


def hidden(particles):
    """The particles without what a search has to find."""
    blank = np.broadcast_to(np.eye(3), (len(particles), 3, 3))
    return Particles(blank, ctf=particles.ctf, pixel_angstrom=particles.pixel_angstrom, group=particles.group)
