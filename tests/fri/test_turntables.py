import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.fri.kernels import espline
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.turntables import axis_of, axis_vector, turntable
from lfjax.fri.unknown_view import recover, view_samples
from lfjax.rotation import from_vector, random_rotations

BEADS = np.array([[2.0, 0.4, 0.7], [-1.2, 1.5, 1.1], [0.3, -1.8, -1.6], [-0.9, 0.2, 1.9], [1.0, 1.9, -0.8]])
AMPLITUDES = np.array([0.6, 0.8, 1.0, 1.2, 1.4])
ANGLES = np.array([0.0, 0.4, 0.7, 1.0, 1.2, 1.5, 1.8, 2.0, 2.3, 2.5, 2.6, 2.9])


@pytest.fixture
def spline():
    sampling = Sampling(espline(0.55 * np.arange(-3, 4)), 15)
    return sampling, Features.exponential(sampling, 3, 0.55)


@jax.jit
def scan(sampling, direction, tilt, offset, angles, wobble):
    rotations = from_vector(angles[:, None] * axis_vector(direction, tilt))
    shift = offset * jnp.stack([jnp.cos(direction), -jnp.sin(direction)])
    return view_samples(sampling, BEADS, AMPLITUDES, rotations, shift + wobble)


def recovered(spline, views):
    """The turntable of twelve views; one size, so that one program serves all tests."""
    sampling, features = spline
    return turntable(sampling, views, recover(sampling, views, 5, features, view_steps=8, steps=12))


@pytest.mark.parametrize(("direction", "tilt", "sense"), [(0.05, 0.0, 1.0), (-0.4, 0.2, 1.0), (0.3, -0.15, -1.0)])
def test_axis_and_angles_come_from_beads(spline, direction, tilt, sense):
    found = recovered(spline, scan(spline[0], direction, tilt, 0.35, sense * ANGLES, np.zeros((12, 2))))
    assert bool(found.determined)
    assert float(found.residual.max()) <= 1e-9
    np.testing.assert_allclose(np.unwrap(found.angles), ANGLES, atol=1e-8)  # forward, in whichever sense it rotated
    assert float(found.direction) == pytest.approx(direction, abs=1e-8)
    assert float(found.tilt) == pytest.approx(sense * tilt, abs=1e-8)  # the mirror image rotates backward and tilts oppositely
    assert float(found.offset) == pytest.approx(0.35, abs=1e-8)
    np.testing.assert_allclose(found.wobble, 0, atol=1e-7)


def test_in_noise_all_views_share_one_axis(spline):
    angles = np.linspace(0, np.pi, 12)
    clean = np.asarray(scan(spline[0], 0.1, 0.05, -0.2, angles, np.zeros((12, 2))))
    noisy = clean + 1e-3 * np.abs(clean).max() * np.random.default_rng(0).normal(size=clean.shape)
    found = recovered(spline, noisy)
    np.testing.assert_allclose(np.unwrap(found.angles), angles, atol=3e-3)
    assert float(found.direction) == pytest.approx(0.1, abs=2e-3)
    assert float(found.offset) == pytest.approx(-0.2, abs=2e-3)


def test_a_wobbling_table_is_detected(spline):
    wobble = np.zeros((12, 2))
    wobble[3, 1] = 0.3
    found = recovered(spline, scan(spline[0], 0.0, 0.0, 0.0, ANGLES, wobble))
    assert np.argmax(np.linalg.norm(found.wobble, axis=1)) == 3
    assert float(found.residual.max()) >= 1e-3


def test_the_axis_of_rotations_is_theirs():
    axis, angles = np.array([0.6, 0.0, 0.8]), np.array([0.0, 0.5, 1.1, -0.7])

    @jax.jit
    def solve(turns, key):
        return axis_of(from_vector(turns) @ random_rotations(key, 1)[0])

    found, turned = map(np.asarray, solve(angles[:, None] * axis, jax.random.key(1)))
    sign = np.sign(found @ axis)
    np.testing.assert_allclose(sign * found, axis, atol=1e-12)
    np.testing.assert_allclose(sign * turned, angles, atol=1e-12)
