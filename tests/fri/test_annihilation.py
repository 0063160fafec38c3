import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError
from lfjax.fri.annihilation import cadzow, generic, matrix_pencil, model_order, prony, recover_line, weights
from lfjax.fri.kernels import bspline, dirichlet, espline
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.refine import cramer_rao
from lfjax.fri.search import alternating_projection

ANGLES, AMPLITUDES = np.array([-2.0, 0.3, 1.1]), np.array([2.0, 1.0, 0.5])


def features(number=12):
    return jnp.asarray((AMPLITUDES * np.exp(1j * ANGLES) ** np.arange(number)[:, None]).sum(1))


def noisy(sigma, seed=0):
    noise = np.random.default_rng(seed).normal(size=(2, 12)) * sigma / np.sqrt(2)
    return jnp.asarray(np.asarray(features()) + noise[0] + 1j * noise[1])


@pytest.mark.parametrize("method", [prony, matrix_pencil])
@pytest.mark.parametrize("number", [6, 7, 12])
def test_nodes_and_weights_are_exact(method, number):
    nodes = method(features(number), 3)
    order = np.argsort(np.angle(nodes))
    np.testing.assert_allclose(np.asarray(nodes)[order], np.exp(1j * ANGLES), atol=1e-11)
    np.testing.assert_allclose(np.asarray(weights(features(number), nodes))[order], AMPLITUDES, atol=1e-10)


def test_cadzow_removes_noise_and_keeps_exact_features():
    exact = np.asarray(features())
    np.testing.assert_allclose(cadzow(features(), 3), exact, atol=1e-12)
    before = np.mean([np.linalg.norm(np.asarray(noisy(0.1, k)) - exact) for k in range(20)])
    after = np.mean([np.linalg.norm(np.asarray(cadzow(noisy(0.1, k), 3)) - exact) for k in range(20)])
    assert after <= 0.8 * before


def test_the_number_of_nodes_is_found():
    assert int(model_order(features())) == 3
    assert [int(model_order(noisy(0.02, k))) for k in range(10)].count(3) >= 9
    assert [int(model_order(noisy(0.05, k), 0.05)) for k in range(10)].count(3) >= 9


def test_generic_fri_takes_nonuniform_samples():
    places = np.sort(np.random.default_rng(0).uniform(0, 11, 30))
    matrix = np.sinc(places[:, None] - np.arange(12))
    nodes, made = generic(matrix, matrix @ np.asarray(features()), 3, key=jax.random.key(0))
    np.testing.assert_allclose(np.sort(np.angle(nodes)), ANGLES, atol=1e-8)
    np.testing.assert_allclose(made, features(), atol=1e-7)


@pytest.mark.parametrize("method", ["prony", "pencil", "cadzow", "likelihood"])
def test_points_on_a_line_are_exact(method):
    points, amplitudes = jnp.asarray([-2.3, 0.4, 1.9]), jnp.asarray([1.0, -0.7, 1.2])
    for kernel, made in (
        (espline(0.7 * np.arange(-3, 4)), lambda s: Features.exponential(s, 3, 0.7)),
        (bspline(6), lambda s: Features.polynomial(s, 3)),
    ):
        sampling = Sampling(kernel, 13)
        found = recover_line(sampling, sampling.line(points, amplitudes), 3, made(sampling), method=method)
        np.testing.assert_allclose(found.points, points, atol=1e-8)
        np.testing.assert_allclose(found.amplitudes, amplitudes, atol=1e-7)
        assert float(found.residual) <= 1e-9


def test_maximum_likelihood_reaches_the_cramer_rao_bound():
    sampling = Sampling(dirichlet(21), 21)
    made = Features.exponential(sampling, 10, 2 * np.pi / 21)
    points, sigma = jnp.asarray([-1.3, 1.8]), 0.03

    def error(key):
        samples = sampling.line(points, jnp.ones(2)) + sigma * jax.random.normal(key, (21,))
        return recover_line(sampling, samples, 2, made, method="likelihood").points - points

    errors = np.asarray(jax.jit(lambda key: jax.vmap(error)(jax.random.split(key, 400)))(jax.random.key(0)))
    bound = np.sqrt(np.diag(cramer_rao(lambda p: sampling.line(*p), (points, jnp.ones(2)), sigma))[:2])
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2, axis=0)), bound, rtol=0.12)


def test_alternating_projection_finds_atoms_on_the_grid():
    rng = np.random.default_rng(0)
    dictionary = rng.normal(size=(60, 25))
    samples = np.array([1.0, -2.0, 0.5]) @ dictionary[[7, 31, 50]]
    assert sorted(np.asarray(alternating_projection(dictionary, samples, 3))) == [7, 31, 50]


def test_the_bound_of_a_mean_is_sigma_over_root_n():
    bound = cramer_rao(lambda m: m * jnp.ones(50), jnp.asarray(2.0), 0.3)
    assert float(bound[0, 0]) == pytest.approx(0.09 / 50)


def test_gradients_pass_through_the_solution():
    sampling = Sampling(dirichlet(21), 21)
    made = Features.exponential(sampling, 10, 2 * np.pi / 21)

    @jax.jit
    @jax.value_and_grad
    def place(amplitude):
        samples = sampling.line(jnp.asarray([-1.3, 1.8]), jnp.asarray([1.0, 1.0])) + amplitude * jnp.sin(jnp.arange(21.0))
        return recover_line(sampling, samples, 2, made).points[1]

    assert float(place(0.01)[1]) == pytest.approx(float(place(0.0101)[0] - place(0.0099)[0]) / 2e-4, rel=1e-3)


def test_bad_arguments_are_named():
    with pytest.raises(ParameterError, match="count"):
        prony(features(), 7)
    sampling = Sampling(bspline(3), 9)
    with pytest.raises(ParameterError, match="method"):
        recover_line(sampling, jnp.zeros(9), 1, Features.polynomial(sampling, 1), method="magic")
    with jax.enable_x64(False), pytest.raises(ParameterError, match="jax_enable_x64"):
        Features.polynomial(sampling, 1)
    with pytest.raises(ParameterError, match="size"):
        Features.polynomial(Sampling(bspline(6), 5), 3)
    with pytest.raises(ParameterError, match="step"):
        Features.exponential(Sampling(bspline(3), 13), 3, 1.0)
