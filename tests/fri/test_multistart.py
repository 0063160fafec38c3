import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError
from lfjax.fri.kernels import bspline, espline
from lfjax.fri.multistart import Effort, recover_noisy
from lfjax.fri.normal import point_normal
from lfjax.fri.planar import Sampling
from lfjax.fri.poses import Pose, PoseSearch
from lfjax.fri.unknown_view import aligned_error, project, structure_bound, view_samples
from lfjax.rotation import random_rotations
from lfjax.solvers.levenberg_marquardt import descend

POINTS = 2.2 * np.array([[1.0, 1.0, 1.0], [1.0, -0.9, -1.1], [-1.1, 0.8, -1.0], [-0.9, -1.0, 1.2]]) / np.sqrt(3)


@pytest.fixture
def sampling():
    return Sampling(espline(0.55 * np.arange(-3, 4)), 13)


def noisy_views(sampling, amplitudes, views, decibel):
    points, rotations = jnp.asarray(POINTS), random_rotations(jax.random.key(3), views)
    shifts = jax.random.uniform(jax.random.key(1), (views, 2), minval=-0.4, maxval=0.4)
    clean = view_samples(sampling, points, amplitudes, rotations, shifts)
    sigma = jnp.linalg.norm(clean) / jnp.sqrt(clean.size) * 10 ** (-decibel / 20)
    noisy = clean + sigma * jax.random.normal(jax.random.key(4), clean.shape)
    return clean, noisy, structure_bound(sampling, points, amplitudes, rotations, shifts, sigma)


def error(points):
    return min(float(aligned_error(points[jnp.asarray(o)], jnp.asarray(POINTS))) for o in itertools.permutations(range(4)))


def solve(sampling, views):
    return jax.jit(lambda y: recover_noisy(sampling, y, 4, key=jax.random.key(0)))(views)


@pytest.mark.parametrize("amplitudes", [[0.6, 0.9, 1.2, 1.5], [1.0, 1.0, 1.0, 1.0]])
def test_noisy_views_give_the_structure_to_within_a_few_bounds(sampling, amplitudes):
    clean, noisy, bound = noisy_views(sampling, jnp.asarray(amplitudes), 8, 25.0)
    found = solve(sampling, noisy)
    assert error(found.points) <= 3 * float(bound)
    noise = jnp.linalg.norm(noisy - clean, axis=(1, 2)) / jnp.linalg.norm(noisy, axis=(1, 2))
    assert np.all(np.asarray(found.residual) <= 1.2 * np.asarray(noise))
    assert bool(found.determined) and np.all(found.used)


def test_a_view_of_something_else_is_dropped(sampling):
    _, noisy, bound = noisy_views(sampling, jnp.asarray([0.6, 0.9, 1.2, 1.5]), 7, 25.0)
    other = sampling.plane(jnp.asarray([[2.5, 2.5], [-2.5, 2.0], [0.0, -2.8]]), jnp.asarray([1.5, 1.5, 1.2]))
    found = solve(sampling, noisy.at[4].set(other))
    np.testing.assert_array_equal(found.used, [True] * 4 + [False] + [True] * 2)
    assert error(found.points) <= 4 * float(bound)


def test_normal_equations_are_those_of_the_jacobian(sampling):
    points, heights = jnp.asarray(POINTS[:, :2]), jnp.asarray([0.5, 1.0, 0.8, 1.2])
    samples = jax.random.normal(jax.random.key(0), (13, 13))

    def residual(flat):
        return (sampling.plane(flat[:8].reshape(2, 4).T, flat[8:]) - samples).ravel()

    flat = jnp.concatenate([points.T.ravel(), heights])
    jacobian = jax.jacfwd(residual)(flat)
    by_gram = point_normal(sampling, samples, points, heights, jnp.eye(12))
    np.testing.assert_allclose(by_gram.cost, jnp.sum(residual(flat) ** 2), rtol=1e-12)
    np.testing.assert_allclose(by_gram.gradient, jacobian.T @ residual(flat), atol=1e-12)
    np.testing.assert_allclose(by_gram.matrix, jacobian.T @ jacobian, atol=1e-12)

    small = Sampling(bspline(3), 3)  # fewer samples than 3 K: by the Jacobian
    direct = point_normal(small, samples[:3, :3], points, heights, jnp.eye(12))

    def misfit(flat):
        return (small.plane(flat[:8].reshape(2, 4).T, flat[8:]) - samples[:3, :3]).ravel()

    jacobian = jax.jacfwd(misfit)(flat)
    np.testing.assert_allclose(direct.gradient, jacobian.T @ misfit(flat), atol=1e-12)
    np.testing.assert_allclose(direct.matrix, jacobian.T @ jacobian, atol=1e-12)


def test_descend_reaches_the_least_squares_solution(sampling):
    truth, heights = jnp.asarray(POINTS[:, :2]), jnp.asarray([0.5, 1.0, 0.8, 1.2])
    samples = sampling.plane(truth, heights)

    def linearise(flat):
        return point_normal(sampling, samples, flat[:8].reshape(2, 4).T, flat[8:], jnp.eye(12))

    start = jnp.concatenate([truth.T.ravel(), heights]) + 0.1 * jax.random.normal(jax.random.key(2), (12,))
    found, cost = descend(linearise, jnp.add, start, steps=20)
    np.testing.assert_allclose(found[:8].reshape(2, 4).T, truth, atol=1e-6)
    assert float(cost) <= 1e-12


def test_poses_of_a_known_structure_are_found(sampling):
    heights = jnp.asarray([0.6, 0.9, 1.2, 1.5])
    clean, _, _ = noisy_views(sampling, heights, 6, 40.0)
    orientations = random_rotations(jax.random.key(8), 2000)
    poses, misfits = PoseSearch(sampling, clean)(jnp.asarray(POINTS), heights, orientations, keep=8)
    again = view_samples(sampling, jnp.asarray(POINTS), heights, *poses)
    np.testing.assert_allclose(again, clean, atol=0.01)
    assert np.all(np.abs(misfits) <= 1e-3)


def test_derivatives_of_a_view_by_its_pose():
    pose, points = Pose(random_rotations(jax.random.key(0), 1)[0], jnp.asarray([0.1, -0.2])), jnp.asarray(POINTS)
    slopes = jax.jacfwd(lambda step: pose.move(step).view(points).T.ravel())(jnp.zeros(5))
    np.testing.assert_allclose(pose.by_pose(points), slopes, atol=1e-12)
    by_points = jax.jacfwd(lambda x: pose.view(x.reshape(4, 3)).T.ravel())(points.ravel())
    np.testing.assert_allclose(pose.by_points(jnp.eye(12).reshape(4, 3, 12)), by_points, atol=1e-12)
    np.testing.assert_allclose(pose.view(points), project(points, pose.rotation[None], pose.shift[None])[0])


def test_wrong_calls_are_refused(sampling):
    with pytest.raises(ParameterError, match="views"):
        recover_noisy(sampling, jnp.zeros((2, 13, 13)), 4, key=jax.random.key(0))
    with pytest.raises(ParameterError, match="count"):
        recover_noisy(sampling, jnp.zeros((3, 13, 13)), 3, key=jax.random.key(0))
    with pytest.raises(ParameterError, match="kept"):
        recover_noisy(sampling, jnp.zeros((3, 13, 13)), 4, key=jax.random.key(0), effort=Effort(starts=2, kept=3))


def test_views_that_are_not_numbers_are_flagged(sampling):
    _, noisy, _ = noisy_views(sampling, jnp.ones(4), 8, 25.0)
    assert not bool(solve(sampling, noisy.at[2].set(jnp.nan)).determined)
