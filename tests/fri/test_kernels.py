import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline as ScipySpline

from lfjax.errors import ParameterError
from lfjax.fri.kernels import bspline, dirichlet, espline, exponentials, gaussian, measured, polynomials, sinc

N = np.arange(-20, 21)


@pytest.mark.parametrize("degree", [0, 1, 3, 6, 12])
def test_bsplines_are_those_of_scipy(degree):
    x = np.linspace(-degree / 2 - 0.4, degree / 2 + 0.45, 57)
    reference = ScipySpline.basis_element(np.arange(degree + 2) - (degree + 1) / 2, extrapolate=False)
    np.testing.assert_allclose(bspline(degree)(x), np.nan_to_num(reference(x)), atol=1e-14)
    frequencies = np.array([0.0, 0.7, 2.0])
    expected = np.sinc(frequencies / 2 / np.pi) ** (degree + 1)
    np.testing.assert_allclose(bspline(degree).fourier(frequencies), expected, atol=1e-14)


def test_bsplines_reproduce_polynomials_up_to_their_degree():
    assert polynomials(bspline(6), 6, N).error <= 1e-13
    assert polynomials(bspline(4), 5, N).error >= 1e-8


@pytest.mark.parametrize(("order", "step"), [(0, 0.5), (2, 0.9), (3, 0.55), (4, 0.6)])
def test_esplines_reproduce_their_exponentials(order, step):
    frequencies = step * np.arange(-order, order + 1)
    kernel = espline(frequencies)
    assert exponentials(kernel, frequencies, N).error <= 1e-12
    assert kernel.support == (-(2 * order + 1) / 2, (2 * order + 1) / 2)
    w = np.array([0.1, 0.2, 1.0])
    expected = np.prod([np.sinc((w - m) / 2 / np.pi) for m in frequencies], axis=0)
    found = kernel.fourier(w)
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-11)


def test_any_kernel_reproduces_nearly_and_says_how_nearly():
    frequencies = 0.5 * np.arange(-3, 4)
    errors = [exponentials(k, frequencies, N).error for k in (bspline(3), bspline(6), gaussian(1.0), gaussian(1.5))]
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] <= 1e-9
    # by Poisson's formula the error is the largest alias, phi^(w + 2 pi) / phi^(w)
    assert errors[2] == pytest.approx(np.exp(-((2 * np.pi - 1.5) ** 2 - 1.5**2) / 2), rel=0.05)


def test_dirichlet_and_sinc_and_gaussian_have_their_values():
    x = np.linspace(-30, 30, 241)
    order = np.arange(-10, 11)
    np.testing.assert_allclose(dirichlet(21)(x), np.exp(2j * np.pi / 21 * x[:, None] * order).sum(1).real / 21, atol=1e-13)
    assert exponentials(dirichlet(21), 2 * np.pi / 21 * order, np.arange(21) - 10).error <= 1e-12
    np.testing.assert_allclose(gaussian(1.3)(x), np.exp(-((x / 1.3) ** 2) / 2) / 1.3 / np.sqrt(2 * np.pi), atol=1e-15)
    inner = np.abs(x) < 1
    np.testing.assert_allclose(sinc(40)(x)[inner], np.sinc(x[inner]), atol=2e-3)


def test_a_measured_kernel_is_its_samples():
    places = np.arange(-40, 41) * 0.1
    kernel = measured(np.exp(-(places**2)), 0.1)
    fine = np.linspace(-3.9, 3.9, 301)
    np.testing.assert_allclose(kernel(fine), np.exp(-(fine**2)), atol=1e-5)
    assert float(kernel.moment(0)) == pytest.approx(np.sqrt(np.pi), rel=1e-6)


def test_kernels_pass_through_jit_vmap_and_grad():
    kernel = bspline(3)
    x = np.linspace(-1.9, 1.9, 9)
    np.testing.assert_allclose(jax.jit(jax.vmap(kernel))(x), kernel(x), rtol=1e-12)
    slope = jax.vmap(jax.grad(kernel))(x)
    np.testing.assert_allclose(slope, (kernel(x + 1e-6) - kernel(x - 1e-6)) / 2e-6, atol=1e-8)


def test_bad_arguments_are_named():
    with pytest.raises(ParameterError, match="degree"):
        bspline(-1)
    with pytest.raises(ParameterError, match="frequencies"):
        espline([0.1, 0.5])
    with pytest.raises(ParameterError, match="period"):
        dirichlet(20)
    with pytest.raises(ParameterError, match="samples"):
        measured([1.0, np.nan, 1.0, 0.0], 0.1)


@pytest.mark.parametrize("make", [lambda: bspline(3), lambda: espline([-0.5, 0.0, 0.5]), lambda: gaussian(0.8)])
def test_derivatives_integrals_and_moments_of_kernels(make):
    kernel = make()
    x = jnp.linspace(-3.1, 3.3, 41)
    np.testing.assert_allclose(kernel.derivative()(x), jax.vmap(jax.grad(kernel))(x), atol=1e-11)
    np.testing.assert_allclose(jax.vmap(jax.grad(kernel.integral()))(x), kernel(x), atol=1e-11)
    assert float(kernel.integral()(50.0)) == pytest.approx(float(kernel.moment(0)), abs=1e-13)
    assert float(kernel.integral()(-50.0)) == 0
    np.testing.assert_allclose(kernel.times_x()(x), x * kernel(x), atol=1e-13)
    assert float(kernel.times_x().integral()(50.0)) == pytest.approx(float(kernel.moment(1)), abs=1e-12)
