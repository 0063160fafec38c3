import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError
from lfjax.fri.consensus import Effort, recover_noisy
from lfjax.fri.kernels import espline
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.unknown_view import aligned_error, random_rotations, structure_bound, view_samples


def test_noisy_views_give_the_structure_to_within_a_few_bounds():
    sampling = Sampling(espline(0.55 * np.arange(-3, 4)), 13)
    features = Features.exponential(sampling, 3, 0.55)
    points = 1.9 * jnp.asarray([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]) / np.sqrt(3)
    amplitudes, shifts = jnp.asarray([0.6, 0.9, 1.2, 1.5]), jnp.zeros((5, 2))
    rotations = random_rotations(jax.random.key(3), 5)
    clean = view_samples(sampling, points, amplitudes, rotations, shifts)
    sigma = jnp.linalg.norm(clean) / jnp.sqrt(clean.size) * 10 ** (-40 / 20)
    noisy = clean + sigma * jax.random.normal(jax.random.key(4), clean.shape)
    effort = Effort(triples=6, structures=2, rounds=1, steps=20)
    found = jax.jit(lambda y: recover_noisy(sampling, y, 4, features, key=jax.random.key(0), effort=effort))(noisy)
    error = aligned_error(found.points[jnp.argsort(found.amplitudes)], points)
    assert float(error) <= 3 * float(structure_bound(sampling, points, amplitudes, rotations, shifts, sigma))
    noise = jnp.linalg.norm(noisy - clean, axis=(1, 2)) / jnp.linalg.norm(noisy, axis=(1, 2))
    assert np.all(np.asarray(found.residual) <= 1.2 * np.asarray(noise))


def test_two_views_are_refused():
    sampling = Sampling(espline(0.55 * np.arange(-3, 4)), 13)
    with pytest.raises(ParameterError, match="views"):
        recover_noisy(sampling, jnp.zeros((2, 13, 13)), 4, Features.exponential(sampling, 3, 0.55), key=jax.random.key(0))
