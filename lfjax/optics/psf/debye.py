"""Field of a point source on the native image plane: the scalar Debye diffraction integral."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from lfjax.optics.microscope import Microscope


def bessel_j0(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Bessel function J0, differentiable, with an absolute error of 1e-7 (float64) or 2e-6 (float32).

    A rational approximation below 8, Hankel's asymptotic form above; JAX has no J0 that is stable at large arguments.

    Source: Hart et al., Computer Approximations (1968).
    """
    x = jnp.abs(x)
    y = jnp.minimum(x, 8.0) ** 2
    top = jnp.polyval(
        jnp.array([-184.9052456, 77392.33017, -11214424.18, 651619640.7, -13362590354.0, 57568490574.0], x.dtype), y
    )
    bottom = jnp.polyval(jnp.array([1.0, 267.8532712, 59272.64853, 9494680.718, 1029532985.0, 57568490411.0], x.dtype), y)
    far = jnp.maximum(x, 8.0)
    z = 8.0 / far
    w = z**2
    p = jnp.polyval(jnp.array([0.2093887211e-6, -0.2073370639e-5, 0.2734510407e-4, -0.1098628627e-2, 1.0], x.dtype), w)
    q = jnp.polyval(
        jnp.array([-0.934945152e-7, 0.7621095161e-6, -0.6911147651e-5, 0.1430488765e-3, -0.1562499995e-1], x.dtype), w
    )
    angle = far - math.pi / 4
    asymptotic = jnp.sqrt(2.0 / (math.pi * far)) * (jnp.cos(angle) * p - z * jnp.sin(angle) * q)
    return jnp.where(x < 8.0, top / bottom, asymptotic)


def quadrature_nodes(microscope: Microscope, radius_um: float, z_um: float) -> int:
    """Number of Gauss-Legendre nodes that resolve the integrand out to a radius and depth, from its total phase."""
    alpha = math.asin(float(microscope.numerical_aperture) / float(microscope.medium_index))
    k = 2 * math.pi * float(microscope.medium_index) / float(microscope.wavelength_um)
    phase = k * radius_um * math.sin(alpha) + k * abs(z_um) * (1 - math.cos(alpha))
    return 64 + 32 * math.ceil(phase / 32)


def debye_field(
    radius_um: Float[Array, " r"], z_um: Float[Array, ""] | float, microscope: Microscope, *, nodes: int
) -> Complex[Array, " r"]:
    """Field of a point source at depth z, at distances r from its image, in object-space micrometres.

    U(r, z) = int_0^alpha sqrt(cos t) (1 + cos t) exp(-i k z (1 - cos t)) J0(k r sin t) sin t dt,   k = 2 pi n / lambda

    which is the usual form with u = 4 k z sin^2(alpha/2), v = k r sin(alpha). Differentiable in r, z and every
    parameter of the microscope.

    Args:
        radius_um: distances |x / M - p| from the geometric image, scaled back to the sample.
        z_um: depth of the source; 0 is the native focal plane, with the sign of Prevedel et al. 2014.
        microscope: NA, medium index and wavelength are used.
        nodes: number of Gauss-Legendre nodes, see `quadrature_nodes`.

    Returns:
        The complex field, in arbitrary units common to all depths.

    Source: Broxton et al., Opt. Express 21, 25418 (2013), eq. 4; Gu, Advanced Optical Imaging Theory (2000).
    """
    abscissae, weights = np.polynomial.legendre.leggauss(nodes)
    alpha = microscope.half_angle
    t = alpha * (jnp.asarray(abscissae) + 1) / 2
    k = 2 * jnp.pi * microscope.medium_index / microscope.wavelength_um
    apodisation = jnp.sqrt(jnp.cos(t)) * (1 + jnp.cos(t)) * jnp.sin(t) * jnp.asarray(weights) * alpha / 2
    pupil = apodisation * jnp.exp(-1j * k * z_um * 2 * jnp.sin(t / 2) ** 2)
    return jax.lax.map(lambda r: bessel_j0(k * r * jnp.sin(t)) @ pupil, jnp.asarray(radius_um, t.dtype), batch_size=256)


def interpolate_profile(
    profile: Complex[Array, " r"], spacing: Array | float, radius: Float[Array, "*any"]
) -> Complex[Array, "*any"]:
    """Cubic (four-point Lagrange) interpolation of a profile that is even in r.

    Args:
        profile: samples at radii 0, h, 2h, ...
        spacing: h.
        radius: radii to interpolate at, in the unit of `spacing`.
    """
    position = radius / spacing
    base = jnp.floor(position).astype(jnp.int32)
    f = position - base
    weights = (
        -f * (f - 1) * (f - 2) / 6,
        (f + 1) * (f - 1) * (f - 2) / 2,
        -(f + 1) * f * (f - 2) / 2,
        (f + 1) * f * (f - 1) / 6,
    )
    taps = [profile.at[jnp.abs(base + tap)].get(mode="clip") for tap in (-1, 0, 1, 2)]
    return weights[0] * taps[0] + weights[1] * taps[1] + weights[2] * taps[2] + weights[3] * taps[3]
