"""The wave-optics PSF against an independent code and closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special

from benchmarks.reference import psf_errors
from lfjax.errors import ParameterError
from lfjax.optics import PRESETS, PSF, Microscope, compute_psf
from lfjax.optics.psf.debye import bessel_j0, debye_field, quadrature_nodes
from lfjax.optics.psf.images import Sampling, convergence_error, psf_images, sub_lenslet_offsets

SMALL = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5)


def test_every_position_and_depth_agrees_with_the_reference(reference, reference_psf):
    assert psf_errors(reference_psf, reference["filters"]).max() <= 0.02


def test_bessel():
    x, bessel = np.linspace(-200, 200, 4001), jax.jit(bessel_j0)
    np.testing.assert_allclose(bessel(x.astype(np.float32)), scipy.special.j0(x), atol=1e-5)
    with jax.enable_x64(True):
        np.testing.assert_allclose(bessel(x), scipy.special.j0(x), atol=1e-7)


@jax.jit
def debye(r, z):
    """Debye field at one radius."""
    return debye_field(r[None], z, SMALL, nodes=quadrature_nodes(SMALL, 3.0, 25.0))[0]


@pytest.mark.parametrize(("r", "z"), [(0.0, 0.0), (0.7, 0.0), (0.0, 12.0), (3.0, -25.0)])
def test_debye_field_against_adaptive_quadrature(r, z):
    k, alpha = 2 * np.pi * 1.33 / 0.52, np.arcsin(0.5 / 1.33)

    def integrand(t, part):
        phase = np.exp(-1j * k * z * (1 - np.cos(t)))
        value = np.sqrt(np.cos(t)) * (1 + np.cos(t)) * phase * scipy.special.j0(k * r * np.sin(t)) * np.sin(t)
        return getattr(value, part)

    wanted = complex(*(scipy.integrate.quad(integrand, 0, alpha, args=(p,), limit=500)[0] for p in ("real", "imag")))
    got, scale = complex(debye(r, z)), abs(complex(debye(0.0, 0.0)))
    assert abs(got - wanted) <= 2e-5 * scale


def test_mirrored_voxels_equal_computed_ones():
    psf = compute_psf(SMALL, (20.0,), 4, oversampling=3)
    offsets = sub_lenslet_offsets(4)
    sampling = Sampling.of(SMALL, 20.0, psf.lenslets, 3)
    places = [(3, 0), (2, 3), (1, 0)]
    direct = psf_images(SMALL, 20.0, jnp.asarray([(offsets[a], offsets[b]) for a, b in places]), sampling=sampling)
    values = np.asarray(psf.values)
    for image, (a, b) in zip(np.asarray(direct), places, strict=True):
        np.testing.assert_allclose(values[0, a, b], image, atol=2e-5 * image.max())


def test_light_is_kept():
    values = np.asarray(compute_psf(SMALL, (-20.0, 0.0), 3, oversampling=3).values)
    np.testing.assert_allclose(values.sum((3, 4)), 1, rtol=1e-5)
    assert values.min() >= 0


def test_the_tolerance_is_kept():
    psf = compute_psf(SMALL, (0.0, 30.0), 3, tolerance=0.03)
    assert psf.convergence_error <= 0.03
    assert psf.oversampling > 1
    assert psf.convergence_error == pytest.approx(
        convergence_error(SMALL, (0.0, 30.0), 3, psf.lenslets, psf.oversampling), rel=1e-4
    )


@pytest.fixture(scope="module")
def derivatives():
    """Gradient of the squared norm of an image in two parameters of the microscope, and central differences."""
    names, at, steps = ("lenslet_focal_length_um", "numerical_aperture"), np.array([2500, 0.5]), np.diag([1.0, 1e-4])
    sampling = Sampling.of(SMALL, 20.0, 5, 2)

    def peak(values):
        scope = dataclasses.replace(SMALL, **dict(zip(names, values, strict=True)))
        return jnp.sum(psf_images(scope, 20.0, jnp.zeros((1, 2)), sampling=sampling) ** 2)

    with jax.enable_x64(True):
        gradient = np.asarray(jax.jit(jax.grad(peak))(at))
        values = np.asarray(jax.jit(lambda v: jax.lax.map(peak, v))(np.concatenate([at + steps, at - steps])))
    finite = (values[:2] - values[2:]) / (2 * steps.diagonal())
    return {name: (g, f) for name, g, f in zip(names, gradient, finite, strict=True)}


@pytest.mark.parametrize("name", ["lenslet_focal_length_um", "numerical_aperture"])
def test_differentiable_in_the_microscope(name, derivatives):
    gradient, finite = derivatives[name]
    assert gradient == pytest.approx(finite, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"z_um": ()}, "z_um"),
        ({"z_um": (np.nan,)}, "z_um"),
        ({"voxels_per_lenslet": 6}, "1 to N = 5"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"lenslets": 4}, "odd"),
        ({"lenslets": -1}, "odd"),
        ({"oversampling": 2.5}, "whole number"),
        ({"voxels_per_lenslet": 2.5}, "1 to N = 5"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(ParameterError, match=says):
        compute_psf(SMALL, **{"z_um": (0.0,), "voxels_per_lenslet": 3} | arguments)


def test_psf_of_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="odd number of 5-pixel lenslets"):
        PSF(jnp.ones((1, 2, 2, 10, 10)), SMALL, (0.0,))


def test_presets_have_the_support_that_geometry_asks():
    for scope in PRESETS.values():
        assert scope.blur_radius_lenslets(0) == 0
        tangent = np.tan(np.arcsin(scope.numerical_aperture / scope.medium_index))
        lenslet_um = scope.lenslet_pitch_um / scope.magnification
        assert scope.blur_radius_lenslets(10) == pytest.approx(10 * tangent / lenslet_um, rel=1e-5)
