import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError
from lfjax.fri.kernels import bspline, dirichlet, espline
from lfjax.fri.matching import match_views
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.polytope import (
    complex_moments,
    hull,
    polytope_view,
    polytope_views,
    projected_vertices,
    recover_polytope,
    volume,
)
from lfjax.fri.simplex import EFFORT, Simplex, recover_tetrahedron
from lfjax.fri.unknown_view import aligned_error, factorise, project
from lfjax.rotation import random_rotations

TURN = np.arange(3) * 2 * np.pi / 3
RING = np.stack([np.cos(TURN), np.sin(TURN)], axis=-1)
SHAPES = {
    "pyramid": np.array([[1, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0], [0, 0, 1.5]], float),
    "prism": np.concatenate([np.column_stack([RING, np.full(3, z)]) for z in (-0.8, 0.8)]),
    "octahedron": np.concatenate([np.eye(3), -np.eye(3)]),
    "cube": np.array(list(itertools.product((-1.0, 1.0), repeat=3))),
}


def distances(points):
    return np.sort(np.linalg.norm(points[:, None] - points[None], axis=-1).ravel())


def cuboid_samples(sampling, half):
    """Samples of a box about the origin, in closed form: integrals of the kernel."""
    total = sampling.kernel.integral()
    x, y = (np.asarray(total(h - sampling.positions)) - np.asarray(total(-h - sampling.positions)) for h in half[:2])
    return 2 * half[2] * np.outer(y, x)


@pytest.mark.parametrize("make", [lambda: bspline(0), lambda: bspline(3), lambda: espline([-0.5, 0.0, 0.5])])
def test_samples_of_a_box_are_the_closed_form(make):
    kernel = make()
    half = np.array([1.3, 0.8, 1.1])
    sampling, vertices = Sampling(kernel, 9), half * SHAPES["cube"]
    triangles = hull(vertices)
    assert triangles.shape == (12, 3)
    assert float(volume(jnp.asarray(vertices), triangles)) == pytest.approx(8 * np.prod(half))
    made = polytope_view(sampling, jnp.asarray(vertices), triangles, 0.7)
    np.testing.assert_allclose(made, 0.7 * cuboid_samples(sampling, half), atol=1e-13)


def test_samples_of_a_tetrahedron_are_those_of_the_points_that_fill_it():
    vertices = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)) * 1.4)
    sampling, triangles = Sampling(bspline(4), 15, spacing=0.8), hull(vertices)
    fill = Simplex(nodes=20)
    points, masses = map(np.asarray, eqx.filter_jit(fill.cloud)((vertices, volume(vertices, triangles))))
    np.testing.assert_allclose(polytope_view(sampling, vertices, triangles), sampling.plane(points[:, :2], masses), atol=1e-7)


def test_samples_are_differentiable_in_the_vertices():
    vertices, along = np.random.default_rng(3).normal(size=(2, 4, 3))
    sampling, triangles = Sampling(bspline(3), 9), hull(vertices)

    @jax.jit
    def view(vertices, along):
        return jax.jvp(lambda v: polytope_view(sampling, v, triangles), (vertices,), (along,))

    step = 1e-5
    plus, minus = (np.asarray(view(vertices + s * along, along)[0]) for s in (step, -step))
    np.testing.assert_allclose(view(vertices, along)[1], (plus - minus) / (2 * step), atol=1e-8)


def test_moments_of_a_view_give_all_projected_vertices():
    vertices = 4.0 * jnp.asarray(SHAPES["pyramid"] @ np.asarray(random_rotations(jax.random.key(1), 1)[0]).T)
    sampling = Sampling(bspline(6), 18)
    features = Features.polynomial(sampling, 3)
    samples = polytope_view(sampling, vertices, hull(vertices))
    mass = float(complex_moments(features, samples)[0].real)
    assert mass == pytest.approx(float(volume(vertices, hull(vertices))))
    found = np.asarray(projected_vertices(sampling, samples, 5, features))
    gaps = np.linalg.norm(found[:, None] - np.asarray(vertices)[None, :, :2], axis=-1)
    assert gaps.min(axis=1).max() <= 1e-8
    with pytest.raises(ParameterError, match="features"):
        projected_vertices(sampling, samples, 6, features)


@pytest.mark.parametrize("name", ["prism", "cube"])
def test_vertices_that_affine_maps_interchange_are_matched(name):
    points = SHAPES[name] @ (np.eye(3) + 0.3 * np.random.default_rng(0).uniform(-1, 1, (3, 3)))
    views = np.asarray(project(points, random_rotations(jax.random.key(2), 3), np.zeros((3, 2))))
    mixed = np.stack([np.random.default_rng(i).permutation(view) for i, view in enumerate(views)])
    matched, misfit = match_views(mixed)
    assert float(misfit) <= 1e-12
    np.testing.assert_allclose(distances(np.asarray(factorise(matched).points)), distances(points), atol=1e-9)


@pytest.mark.parametrize(("name", "radius", "size"), [("pyramid", 6.0, 20), ("prism", 8.0, 26)])
def test_polytopes_are_exact_from_three_views(name, radius, size):
    vertices = SHAPES[name] - SHAPES[name].mean(0)
    vertices = jnp.asarray(vertices * 0.95 * radius / np.linalg.norm(vertices, axis=1).max())
    count = len(vertices)
    sampling, triangles = Sampling(bspline(2 * count - 4), size), hull(vertices)
    rotations = random_rotations(jax.random.key(5), 3)
    shifts = jnp.asarray([[0.2, -0.1], [0.0, 0.3], [-0.2, 0.1]])
    views = polytope_views(sampling, vertices, triangles, 0.5, rotations, shifts)
    found = recover_polytope(sampling, views, count, Features.polynomial(sampling, count - 2))
    assert found.determined
    assert found.triangles.shape == (2 * count - 4, 3)
    assert float(found.density) == pytest.approx(0.5, abs=1e-9)
    assert float(found.residual.max()) <= 1e-10
    np.testing.assert_allclose(distances(np.asarray(found.vertices)), distances(np.asarray(vertices)), atol=1e-9)
    again = polytope_views(sampling, found.vertices, found.triangles, found.density, found.rotations, found.shifts)
    np.testing.assert_allclose(again, views, atol=1e-10)


def test_a_tetrahedron_is_found_in_noise_from_no_start():
    vertices = jnp.asarray([[2.5, 2.0, 2.2], [2.1, -2.3, -2.4], [-2.4, 2.2, -1.9], [-2.0, -2.6, 2.3]])
    sampling, triangles = Sampling(bspline(3), 15), hull(vertices)
    rotations, shifts = random_rotations(jax.random.key(0), 8), jnp.zeros((8, 2))
    views = polytope_views(sampling, vertices, triangles, 1.0, rotations, shifts)
    sigma = np.sqrt(np.mean(np.square(views))) * 10 ** (-40 / 20)
    noisy = jnp.asarray(views + sigma * np.random.default_rng(1).normal(size=views.shape))
    found = recover_tetrahedron(sampling, noisy, key=jax.random.key(2), effort=EFFORT._replace(starts=8))
    orders = (np.asarray(found.vertices)[list(o)] for o in itertools.permutations(range(4)))
    error = min(float(aligned_error(ordered, vertices)) for ordered in orders)
    assert error <= 0.02 * 4
    assert float(found.density) == pytest.approx(1.0, abs=0.05)


def test_wrong_polytopes_are_refused():
    with pytest.raises(ParameterError, match="vertices"):
        hull(np.zeros((5, 3)))
    with pytest.raises(ParameterError, match="vertices"):
        hull(np.full((5, 3), np.nan))
    with pytest.raises(ParameterError, match="kernel"):
        polytope_view(Sampling(dirichlet(9), 9), jnp.asarray(SHAPES["cube"]), hull(SHAPES["cube"]))
    sampling = Sampling(bspline(4), 13)
    features = Features.polynomial(sampling, 2)
    with pytest.raises(ParameterError, match="views"):
        recover_polytope(sampling, jnp.zeros((2, 13, 13)), 4, features)
    with pytest.raises(ParameterError, match="NaN"):
        recover_polytope(sampling, jnp.asarray(np.full((3, 13, 13), np.nan)), 4, features)
    with pytest.raises(ParameterError, match="polynomial"):
        complex_moments(Features.exponential(sampling, 2, 0.5), jnp.zeros((13, 13)))
