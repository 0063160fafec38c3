import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.fri.kernels import espline
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.turntables import axis_of, axis_vector, turntable
from lfjax.fri.unknown_view import recover, view_samples
from lfjax.rotation import from_vector, random_rotations

BEADS = jnp.asarray([[2.0, 0.4, 0.7], [-1.2, 1.5, 1.1], [0.3, -1.8, -1.6], [-0.9, 0.2, 1.9], [1.0, 1.9, -0.8]])
AMPLITUDES = jnp.asarray([0.6, 0.8, 1.0, 1.2, 1.4])


@pytest.fixture
def spline():
    sampling = Sampling(espline(0.55 * np.arange(-3, 4)), 15)
    return sampling, Features.exponential(sampling, 3, 0.55)


def scan(sampling, direction, tilt, offset, angles, sense=1.0):
    axis = axis_vector(jnp.asarray(direction), jnp.asarray(tilt))
    turns = from_vector(sense * angles[:, None] * axis)
    shift = offset * jnp.asarray([np.cos(direction), -np.sin(direction)])
    return view_samples(sampling, BEADS, AMPLITUDES, turns, jnp.broadcast_to(shift, (len(angles), 2)))


@pytest.mark.parametrize(("direction", "tilt", "sense"), [(0.05, 0.0, 1.0), (-0.4, 0.2, 1.0), (0.3, -0.15, -1.0)])
def test_axis_and_angles_come_from_beads(spline, direction, tilt, sense):
    sampling, features = spline
    angles = jnp.asarray([0.0, 0.4, 1.0, 1.5, 2.3, 2.9])
    views = scan(sampling, direction, tilt, 0.35, angles, sense)
    structure = recover(sampling, views, 5, features, view_steps=4, steps=8)
    found = turntable(sampling, views, structure)
    assert bool(found.determined)
    assert float(found.residual.max()) <= 1e-9
    np.testing.assert_allclose(jnp.unwrap(found.angles), angles, atol=1e-8)  # forward, whichever way it turned
    assert float(found.direction) == pytest.approx(direction, abs=1e-8)
    assert float(found.tilt) == pytest.approx(sense * tilt, abs=1e-8)  # the mirror image turns backward and leans the other way
    assert float(found.offset) == pytest.approx(0.35, abs=1e-8)
    np.testing.assert_allclose(found.wobble, 0, atol=1e-7)


def test_in_noise_all_views_share_one_axis(spline):
    sampling, features = spline
    angles = jnp.linspace(0, np.pi, 12)
    clean = scan(sampling, 0.1, 0.05, -0.2, angles)
    noisy = clean + 1e-3 * jnp.abs(clean).max() * jax.random.normal(jax.random.key(0), clean.shape)
    found = turntable(sampling, noisy, recover(sampling, noisy, 5, features))
    np.testing.assert_allclose(jnp.unwrap(found.angles), angles, atol=3e-3)
    assert float(found.direction) == pytest.approx(0.1, abs=2e-3)
    assert float(found.offset) == pytest.approx(-0.2, abs=2e-3)


def test_a_table_that_wobbles_is_seen(spline):
    sampling, features = spline
    angles = jnp.asarray([0.0, 0.7, 1.2, 2.0, 2.6])
    turns = from_vector(angles[:, None] * axis_vector(jnp.asarray(0.0), jnp.asarray(0.0)))
    views = view_samples(sampling, BEADS, AMPLITUDES, turns, jnp.zeros((5, 2)).at[3, 1].set(0.3))
    found = turntable(sampling, views, recover(sampling, views, 5, features, view_steps=4, steps=8))
    assert int(jnp.argmax(jnp.linalg.norm(found.wobble, axis=1))) == 3
    assert float(found.residual.max()) >= 1e-3


def test_the_axis_of_rotations_is_theirs():
    first, axis = random_rotations(jax.random.key(1), 1)[0], jnp.asarray([0.6, 0.0, 0.8])
    angles = jnp.asarray([0.0, 0.5, 1.1, -0.7])
    found, turned = axis_of(from_vector(angles[:, None] * axis) @ first)
    sign = jnp.sign(found @ axis)
    np.testing.assert_allclose(sign * found, axis, atol=1e-12)
    np.testing.assert_allclose(sign * turned, angles, atol=1e-12)
