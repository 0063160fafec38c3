import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError
from lfjax.fri.kernels import bspline, espline, gaussian
from lfjax.fri.matching import affine_misfit, match_views, recover_alike
from lfjax.fri.planar import Features, Sampling, count_points, esprit, recover_points
from lfjax.fri.theory import minimum_projections, mirror, two_view_family
from lfjax.fri.unknown_view import aligned_error, factorise, project, recover, structure_bound, view_samples
from lfjax.rotation import random_rotations


@pytest.fixture
def spline():
    """An E-spline on 13 x 13 samples, and its features."""
    sampling = Sampling(espline(0.55 * np.arange(-3, 4)), 13)
    return sampling, Features.exponential(sampling, 3, 0.55)


@functools.partial(jax.jit, static_argnames=("count", "views"))
def problem(key, count, views=3, radius=2.8):
    a, b, c, d, e = jax.random.split(key, 5)
    direction = jax.random.normal(a, (count, 3))
    distance = radius * jax.random.uniform(e, (count, 1)) ** (1 / 3)
    points = distance * direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
    amplitudes = jax.random.permutation(b, jnp.linspace(0.5, 1.5, count))
    shifts = jax.random.uniform(d, (views, 2), minval=-0.5, maxval=0.5)
    return points, amplitudes, random_rotations(c, views), shifts


def errors(sampling, features, count, number, batched=False):
    def one(key):
        points, amplitudes, rotations, shifts = problem(key, count)
        samples = view_samples(sampling, points, amplitudes, rotations, shifts)
        found = recover(sampling, samples, count, features, view_steps=0, steps=0)
        mine, true = jnp.argsort(found.amplitudes), jnp.argsort(amplitudes)
        flagged = (found.residual.max() > 1e-8) | ~found.determined
        return aligned_error(found.points[mine], points[true]), flagged

    over = jax.vmap(one) if batched else functools.partial(jax.lax.map, one)
    return map(np.asarray, jax.jit(lambda key: over(jax.random.split(key, number)))(jax.random.key(0)))


def distances(points):
    """Distances between all points, sorted: which is which does not matter."""
    return jnp.sort(jnp.sqrt(jnp.sum((points[:, None] - points[None]) ** 2, axis=-1)).ravel())


@pytest.mark.parametrize("count", [4, 6, 8])
@pytest.mark.parametrize("kernel", ["E-spline", "B-spline"])
def test_three_views_give_the_structure_exactly(count, kernel, spline):
    if kernel == "E-spline":
        sampling, features = spline
    else:
        sampling = Sampling(bspline(6), 13)
        features = Features.polynomial(sampling, 3)
    error, flagged = errors(sampling, features, count, 60, batched=(kernel, count) == ("E-spline", 4))
    assert np.median(error) <= 1e-12
    assert np.all((error <= 1e-8) | flagged)
    assert flagged.mean() <= 0.05


def test_poses_and_shifts_are_returned(spline):
    sampling, features = spline
    points, amplitudes, rotations, shifts = problem(jax.random.key(1), 5, views=4)
    samples = view_samples(sampling, points, amplitudes, rotations, shifts)
    found = recover(sampling, samples, 5, features, view_steps=0, steps=0)
    again = view_samples(sampling, found.points, found.amplitudes, found.rotations, found.shifts)
    np.testing.assert_allclose(again, samples, atol=1e-9)
    turns = np.asarray(found.rotations)
    np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), np.broadcast_to(np.eye(3), (4, 3, 3)), atol=1e-9)


def test_a_kernel_that_reproduces_nearly_is_finished_by_refinement():
    sampling = Sampling(gaussian(1.0), 25)
    features = Features.exponential(sampling, 3, 0.45)
    points, amplitudes = np.array([[-2.0, 1.0], [0.5, -1.5], [2.2, 1.9], [-0.4, 0.6]]), np.array([1.0, 0.6, 1.4, 0.8])
    samples = sampling.plane(points, amplitudes)
    rough, fine = (recover_points(sampling, samples, 4, features, refine=steps) for steps in (0, 30))
    rough, fine = (np.asarray(found.points)[np.argsort(found.amplitudes)] for found in (rough, fine))
    true = points[np.argsort(amplitudes)]
    assert 1e-9 < np.abs(rough - true).max() < 0.1
    assert np.abs(fine - true).max() <= 1e-10


def test_noise_is_averaged_down_to_the_cramer_rao_bound(spline):
    sampling, features = spline
    points, amplitudes, rotations, shifts = problem(jax.random.key(8), 4, views=6)
    samples = view_samples(sampling, points, amplitudes, rotations, shifts)
    sigma = 1e-5 * float(np.abs(samples).max())

    def one(key):
        noisy = samples + sigma * jax.random.normal(key, samples.shape)
        found = recover(sampling, noisy, 4, features, view_steps=0, steps=12)
        return aligned_error(found.points[jnp.argsort(found.amplitudes)], points[jnp.argsort(amplitudes)])

    error = np.asarray(jax.jit(lambda key: jax.lax.map(one, jax.random.split(key, 12)))(jax.random.key(0)))
    bound = structure_bound(sampling, points, amplitudes, rotations, shifts, sigma)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(float(bound), rel=0.3)


def test_undetermined_structures_are_flagged():
    points, _, rotations, shifts = map(np.asarray, problem(jax.random.key(2), 6))
    assert bool(factorise(project(points, rotations, shifts)).determined)
    flat = points * [1.0, 1.0, 0.0] @ rotations[0]
    assert not bool(factorise(project(flat, rotations, shifts)).determined)
    same = np.stack([rotations[0]] * 3)
    assert not bool(factorise(project(points, same, shifts)).determined)


@pytest.mark.parametrize("count", [4, 5, 8])
def test_points_that_look_alike_are_matched_by_common_lines(count):
    def one(key):
        points, _, rotations, shifts = problem(key, count)
        views = project(points, rotations, shifts)
        mixed = jax.vmap(jax.random.permutation)(jax.random.split(key, 3), views)
        matched, misfit = match_views(mixed)
        return jnp.abs(distances(factorise(matched).points) - distances(points)).max(), misfit

    solve = jax.jit(lambda key: jax.lax.map(one, jax.random.split(key, 20)))
    error, misfit = map(np.asarray, solve(jax.random.key(5)))
    assert np.all((error <= 1e-8) | (misfit > 1e-7))
    assert (error <= 1e-8).mean() >= 0.9


def test_wrong_matches_have_a_large_misfit():
    points, _, rotations, shifts = problem(jax.random.key(3), 6)
    views = np.array(project(points, rotations, shifts))
    assert float(affine_misfit(views)) <= 1e-12
    views[1] = views[1][[1, 0, 2, 3, 4, 5]]
    assert float(affine_misfit(views)) >= 1e-3


def test_two_projections_leave_a_shear_free():
    points, _, rotations, _ = problem(jax.random.key(4), 7, views=2)
    nothing = np.zeros((2, 2))
    for shear in (-0.5, 0.3, 0.8):
        other, turned = two_view_family(points, rotations, shear)
        np.testing.assert_allclose(project(other, turned, nothing), project(points, rotations, nothing), atol=1e-10)
        gram = np.asarray(turned) @ np.asarray(turned).swapaxes(1, 2)
        np.testing.assert_allclose(gram, np.broadcast_to(np.eye(3), (2, 3, 3)), atol=1e-10)
        assert float(aligned_error(other, points)) >= 0.05  # another structure
    third = random_rotations(jax.random.key(9), 1)
    seen = project(points, np.concatenate([rotations, third]), np.zeros((3, 2)))
    assert float(aligned_error(factorise(seen).points, points)) <= 1e-10  # a third view decides


def test_three_points_and_handedness_stay_open():
    points, _, rotations, shifts = problem(jax.random.key(5), 5)
    other, turned = mirror(points, rotations)
    np.testing.assert_allclose(project(other, turned, shifts), project(points, rotations, shifts), atol=1e-12)
    assert np.linalg.det(np.asarray(turned)[0]) == pytest.approx(1.0)
    with pytest.raises(ParameterError, match="points"):
        factorise(np.zeros((3, 3, 2)))
    with pytest.raises(ParameterError, match="views"):
        factorise(np.zeros((2, 5, 2)))


def test_minimum_projections_counts():
    assert minimum_projections(4)[:3] == (3, 2, 5)
    assert minimum_projections(6).samples == 5
    assert minimum_projections(8)[:3] == (3, 3, 7)
    assert minimum_projections(6, kind="polytope")[:3] == (3, 4, 9)
    assert minimum_projections(3, kind="plane")[:3] == (3, 3, 7)
    with pytest.raises(ParameterError, match="points"):
        minimum_projections(3)
    with pytest.raises(ParameterError, match="kind"):
        minimum_projections(5, kind="ball")
    with pytest.raises(ParameterError, match="count"):
        esprit(np.zeros((5, 5), complex), 7)


def test_points_that_look_alike_come_from_samples(spline):
    sampling, features = spline

    def one(key):
        points, _, rotations, shifts = problem(key, 5, views=4)
        samples = view_samples(sampling, points, jnp.ones(5), rotations, shifts)
        found = recover_alike(sampling, samples, 5, features, view_steps=0, steps=6)
        return jnp.abs(distances(found.points) - distances(points)).max(), found.residual.max()

    solve = jax.jit(lambda key: jax.lax.map(one, jax.random.split(key, 10)))
    error, residual = map(np.asarray, solve(jax.random.key(1)))
    assert np.median(error) <= 1e-10
    assert np.all((error <= 1e-8) | (residual > 1e-8))


def test_points_of_a_view_are_counted(spline):
    sampling, features = spline
    for count in (1, 4, 7):
        points = np.random.default_rng(count).uniform(-2.5, 2.5, (count, 2))
        assert int(count_points(features(sampling.plane(points, np.linspace(0.5, 1.5, count))))) == count
