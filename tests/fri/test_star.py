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
    return Star(jnp.asarray([radius * np.sqrt(4 * np.pi)]), jnp.asarray(1.0))


def test_harmonics_are_orthonormal():
    model = StarModel(4, rings=8)
    basis = np.asarray(model.basis)
    gram = basis.T @ (np.asarray(model.weights)[:, None] * basis)
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
    truth = Star(jnp.asarray(2.2 * np.sqrt(4 * np.pi) * np.array(BUMPS)), jnp.asarray(0.8))

    @jax.jit
    def views(star, key):
        rotations = random_rotations(key, 8)
        return view_samples(sampling, *fine.cloud(star), rotations, 0.3 * jnp.ones((8, 2))), rotations

    @jax.jit
    def turn_directions(found, rotations):
        turn, mirrored, _ = align_poses(found, rotations, robust=False)
        return fine.directions @ turn, mirrored

    clean, rotations = views(truth, jax.random.key(0))
    sigma = np.sqrt(np.mean(np.square(clean))) * 10 ** (-35 / 20)
    noise = sigma * np.random.default_rng(1).normal(size=clean.shape)
    noisy = clean + noise
    effort = Effort(starts=4, rounds=3, kept=2, more=2, orientations=300, last=20)
    found = refine_fit(sampling, noisy, fine, fit(sampling, noisy, coarse, key=jax.random.key(2), effort=effort))
    assert np.all(found.used)
    volumes = [float(fine.volume(star)) for star in (found.parameters, truth)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.06)
    assert volumes[0] * float(found.parameters.density) == pytest.approx(volumes[1] * float(truth.density), rel=0.005)
    directions, mirrored = turn_directions(found.rotations, rotations)
    mirror = np.diag([1.0, 1.0, -1.0 if bool(mirrored) else 1.0])
    radius = np.asarray(fine.radius(found.parameters, np.asarray(directions) @ mirror))
    true, weights = np.asarray(fine.radius(truth)), np.asarray(fine.weights)
    assert np.sqrt(weights @ (radius - true) ** 2 / (weights @ true**2)) <= 0.03
    relative = np.linalg.norm(noise, axis=(1, 2)) / np.linalg.norm(noisy, axis=(1, 2))
    assert np.all(np.asarray(found.residual) <= 1.2 * relative)


@pytest.mark.usefixtures("unchecked")
def test_wrong_degrees_are_refused():
    for degree in (1, -2, 2.5):
        with pytest.raises(ParameterError, match="degree"):
            StarModel(degree)
    with pytest.raises(ParameterError, match="rings"):
        StarModel(6, rings=6)
