import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError
from lfjax.fri.kernels import espline
from lfjax.fri.multistart import Effort, fit, refine_fit
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.star import Star, StarModel, harmonics
from lfjax.fri.unknown_view import view_samples
from lfjax.rotation import align_poses, random_rotations

BUMPS = [1.0, 0.1, -0.12, 0.08, 0.15, -0.1, 0.1, -0.05, 0.08, 0.1, -0.06, 0.0, 0.09]


@pytest.fixture
def sampling():
    return Sampling(espline(0.55 * np.arange(-3, 4)), 13)


def ball(radius):
    return Star(jnp.zeros(1).at[0].set(radius * np.sqrt(4 * np.pi)), jnp.asarray(1.0))


def test_harmonics_are_orthonormal():
    model = StarModel(4, rings=8)
    gram = model.basis.T @ (model.weights[:, None] * model.basis)
    np.testing.assert_allclose(gram, np.eye(25 - 3), atol=1e-12)
    assert harmonics(0, np.eye(3)).shape == (3, 1)


@pytest.mark.parametrize(("rings", "radial", "error"), [(6, 4, 1e-3), (8, 6, 1e-6)])
def test_features_of_a_ball_are_the_closed_form(sampling, rings, radial, error):
    radius, model = 2.5, StarModel(0, rings, radial)
    assert float(model.volume(ball(radius))) == pytest.approx(4 / 3 * np.pi * radius**3)
    points, masses = model.cloud(ball(radius))
    features = Features.exponential(sampling, 3, 0.55)
    frequency = 0.55 * np.hypot(*np.meshgrid(np.arange(-3, 4), np.arange(-3, 4))) * radius
    frequency[3, 3] = 1.0
    wave = 4 * np.pi * radius**3 * (np.sin(frequency) - frequency * np.cos(frequency)) / frequency**3
    wave[3, 3] = 4 / 3 * np.pi * radius**3
    made = np.asarray(features(sampling.plane(points[:, :2], masses)))
    assert np.abs(made - wave).max() <= error * wave.max()


def test_a_smooth_body_is_found_from_views_at_unknown_angles(sampling):
    coarse, fine = StarModel(3), StarModel(3, 10, 6)
    truth = Star(2.2 * np.sqrt(4 * np.pi) * jnp.asarray(BUMPS), jnp.asarray(0.8))
    rotations, shifts = random_rotations(jax.random.key(0), 8), 0.3 * jnp.ones((8, 2))
    clean = view_samples(sampling, *fine.cloud(truth), rotations, shifts)
    sigma = jnp.sqrt(jnp.mean(clean**2)) * 10 ** (-35 / 20)
    noisy = clean + sigma * jax.random.normal(jax.random.key(1), clean.shape)
    effort = Effort(starts=8, rounds=3, kept=3, more=2, orientations=300, last=20)
    found = jax.jit(lambda y: fit(sampling, y, coarse, key=jax.random.key(2), effort=effort))(noisy)
    found = jax.jit(lambda y, start: refine_fit(sampling, y, fine, start))(noisy, found)
    assert np.all(found.used)
    volumes = [fine.volume(star) for star in (found.parameters, truth)]
    assert float(volumes[0]) == pytest.approx(float(volumes[1]), rel=0.06)
    assert float(volumes[0] * found.parameters.density) == pytest.approx(float(volumes[1] * truth.density), rel=0.005)
    turn, mirrored, _ = align_poses(found.rotations, rotations)
    mirror = np.diag([1.0, 1.0, -1.0 if bool(mirrored) else 1.0])
    seen = fine.radius(found.parameters, np.asarray(fine.directions @ turn) @ mirror)
    true = fine.radius(truth)
    assert float(jnp.sqrt(fine.weights @ (seen - true) ** 2 / (fine.weights @ true**2))) <= 0.03
    noise = jnp.linalg.norm(noisy - clean, axis=(1, 2)) / jnp.linalg.norm(noisy, axis=(1, 2))
    assert np.all(np.asarray(found.residual) <= 1.2 * np.asarray(noise))


def test_wrong_degrees_are_refused():
    for degree in (1, -2, 2.5):
        with pytest.raises(ParameterError, match="degree"):
            StarModel(degree)
    with pytest.raises(ParameterError, match="rings"):
        StarModel(6, rings=6)
