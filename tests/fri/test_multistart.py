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


@jax.jit
def noisy_views(sampling, amplitudes, decibel):
    """Eight views; one size, so that one program serves all tests."""
    rotations = random_rotations(jax.random.key(3), 8)
    shifts = jax.random.uniform(jax.random.key(1), (8, 2), minval=-0.4, maxval=0.4)
    clean = view_samples(sampling, POINTS, amplitudes, rotations, shifts)
    sigma = jnp.linalg.norm(clean) / jnp.sqrt(clean.size) * 10 ** (-decibel / 20)
    noisy = clean + sigma * jax.random.normal(jax.random.key(4), clean.shape)
    return clean, noisy, structure_bound(sampling, jnp.asarray(POINTS), amplitudes, rotations, shifts, sigma)


def error(points):
    return min(float(aligned_error(np.asarray(points)[list(o)], POINTS)) for o in itertools.permutations(range(4)))


def solve(sampling, views):
    return recover_noisy(sampling, views, 4, key=jax.random.key(0))


@pytest.mark.parametrize("amplitudes", [[0.6, 0.9, 1.2, 1.5], [1.0, 1.0, 1.0, 1.0]])
def test_noisy_views_give_the_structure_to_within_a_few_bounds(sampling, amplitudes):
    clean, noisy, bound = map(np.asarray, noisy_views(sampling, np.array(amplitudes), 25.0))
    found = solve(sampling, noisy)
    assert error(found.points) <= 3 * float(bound)
    noise = np.linalg.norm(noisy - clean, axis=(1, 2)) / np.linalg.norm(noisy, axis=(1, 2))
    assert np.all(np.asarray(found.residual) <= 1.2 * np.asarray(noise))
    assert bool(found.determined) and np.all(found.used)


def test_a_view_of_something_else_is_dropped(sampling):
    _, noisy, bound = noisy_views(sampling, np.array([0.6, 0.9, 1.2, 1.5]), 25.0)
    noisy = np.array(noisy)
    noisy[4] = sampling.plane(np.array([[2.5, 2.5], [-2.5, 2.0], [0.0, -2.8]]), np.array([1.5, 1.5, 1.2]))
    found = solve(sampling, noisy)
    np.testing.assert_array_equal(found.used, [True] * 4 + [False] + [True] * 3)
    assert error(found.points) <= 4 * float(bound)


@pytest.mark.parametrize("few", [False, True])  # fewer samples than 3 K: by the Jacobian
def test_normal_equations_are_those_of_the_jacobian(sampling, few):
    grid = Sampling(bspline(3), 3) if few else sampling
    points, heights = POINTS[:, :2], np.array([0.5, 1.0, 0.8, 1.2])
    samples = np.random.default_rng(0).normal(size=(grid.size, grid.size))
    flat = np.concatenate([points.T.ravel(), heights])

    @jax.jit
    def direct(flat):
        def residual(flat):
            return (grid.plane(flat[:8].reshape(2, 4).T, flat[8:]) - samples).ravel()

        return residual(flat), jax.jacfwd(residual)(flat)

    residual, jacobian = map(np.asarray, direct(flat))
    found = point_normal(grid, samples, points, heights, np.eye(12))
    np.testing.assert_allclose(found.cost, np.sum(residual**2), rtol=1e-12)
    np.testing.assert_allclose(found.gradient, jacobian.T @ residual, atol=1e-12)
    np.testing.assert_allclose(found.matrix, jacobian.T @ jacobian, atol=1e-12)


def test_descend_reaches_the_least_squares_solution(sampling):
    truth, heights = POINTS[:, :2], np.array([0.5, 1.0, 0.8, 1.2])

    @jax.jit
    def solve(start, samples):
        def linearise(flat):
            return point_normal(sampling, samples, flat[:8].reshape(2, 4).T, flat[8:], jnp.eye(12))

        return descend(linearise, jnp.add, start, steps=20)

    start = np.concatenate([truth.T.ravel(), heights]) + 0.1 * np.random.default_rng(2).normal(size=12)
    found, cost = solve(start, sampling.plane(truth, heights))
    np.testing.assert_allclose(np.asarray(found)[:8].reshape(2, 4).T, truth, atol=1e-6)
    assert float(cost) <= 1e-12


def test_poses_of_a_known_structure_are_found(sampling):
    heights = np.array([0.6, 0.9, 1.2, 1.5])
    clean, _, _ = noisy_views(sampling, heights, 40.0)

    @jax.jit
    def solve(views, key):
        poses, misfits = PoseSearch(sampling, views)(jnp.asarray(POINTS), heights, random_rotations(key, 2000), keep=8)
        return view_samples(sampling, POINTS, heights, *poses), misfits

    again, misfits = solve(clean, jax.random.key(8))
    np.testing.assert_allclose(again, clean, atol=0.01)
    assert np.all(np.abs(misfits) <= 1e-3)


def test_derivatives_of_a_view_by_its_pose():
    @jax.jit
    def solve(key):
        pose, points = Pose(random_rotations(key, 1)[0], jnp.asarray([0.1, -0.2])), jnp.asarray(POINTS)
        by_pose = jax.jacfwd(lambda step: pose.move(step).view(points).T.ravel())(jnp.zeros(5))
        by_points = jax.jacfwd(lambda x: pose.view(x.reshape(4, 3)).T.ravel())(points.ravel())
        derivatives = (pose.by_pose(points), pose.by_points(jnp.eye(12).reshape(4, 3, 12)))
        views = pose.view(points), project(points, pose.rotation[None], pose.shift[None])[0]
        return derivatives, (by_pose, by_points), views

    derivatives, expected, (view, projected) = solve(jax.random.key(0))
    for found, wanted in zip(derivatives, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    np.testing.assert_allclose(view, projected)


def test_wrong_calls_are_refused(sampling):
    with pytest.raises(ParameterError, match="views"):
        recover_noisy(sampling, np.zeros((2, 13, 13)), 4, key=jax.random.key(0))
    with pytest.raises(ParameterError, match="count"):
        recover_noisy(sampling, np.zeros((3, 13, 13)), 3, key=jax.random.key(0))
    with pytest.raises(ParameterError, match="kept"):
        recover_noisy(sampling, np.zeros((3, 13, 13)), 4, key=jax.random.key(0), effort=Effort(starts=2, kept=3))


def test_views_that_are_not_numbers_are_flagged(sampling):
    noisy = np.array(noisy_views(sampling, np.ones(4), 25.0)[1])
    noisy[2] = np.nan
    assert not bool(solve(sampling, noisy).determined)
