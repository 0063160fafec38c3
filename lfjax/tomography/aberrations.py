"""Aberrations of an electron microscope beyond defocus, astigmatism and spherical aberration, as RELION 3.1 to 5 write them.

    odd phase      phi(k) = sum_j o_j Z_j(k) - 2 pi Cs lambda^2 |k|^2 (k . tilt)
    even phase     gamma(k) = sum_j e_j Z_j(k), which is subtracted from chi of the CTF
    magnification  k -> M k

The odd phase is antisymmetric; it makes the transfer function complex, CTF exp(i phi). The Zernike polynomials

    Z_j(k) = R_n^|m|(|k|) cos m theta,  m >= 0;     R_n^|m|(|k|) sin |m| theta,  m < 0;     theta = atan2(ky, kx)

are functions of the frequency in 1 / angstrom, without a radius of an aperture or a norm: R_1^1 = |k|, R_2^0 = 2 |k|^2 - 1,
R_3^1 = 3 |k|^3 - 2 |k|. The lists rlnOddZernike and rlnEvenZernike hold coefficients in radians, by ascending degree n, and
in each degree by ascending m:

    odd   (m, n) = (-1, 1), (1, 1); (-3, 3) trefoil, (-1, 3) coma y, (1, 3) coma x, (3, 3) trefoil; (-5, 5) ...
    even  (m, n) = (0, 0); (-2, 2) astigmatism, (0, 2) defocus, (2, 2) astigmatism; (-4, 4) tetrafoil, ..., (4, 4) tetrafoil

A list may end anywhere. All phases and the CTF are functions of M k, the frequency of the object, as in RELION. (Zivanov,
Nakane & Scheres, IUCrJ 7, 253 (2020).)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import require_shape

Values = ArrayLike | Sequence[float] | Sequence[Sequence[float]]
Frequencies = Float[ArrayLike, "..."]


class Aberrations(eqx.Module):
    """Aberrations of one image; None where there is none of a kind. Batch them by `jax.vmap`, as `Ctf`.

    >>> Aberrations(beam_tilt_rad=[1e-3, 0.0], odd=[0, 0, 120.0]).each(5).odd.shape
    (5, 3)

    Attributes:
        beam_tilt_rad: tilt (x, y) of the beam, a thousandth of rlnBeamTiltX and rlnBeamTiltY.
        odd: coefficients o_j in the order of rlnOddZernike; they add to the phase of the beam tilt.
        even: coefficients e_j in the order of rlnEvenZernike.
        magnification: M, which takes a frequency (x, y) of the image to that of the object: rlnMagMat00, 01; 10, 11.
    """

    beam_tilt_rad: Float[Array, "... 2"] | None
    odd: Float[Array, "... o"] | None
    even: Float[Array, "... e"] | None
    magnification: Float[Array, "... 2 2"] | None

    def __init__(
        self,
        *,
        beam_tilt_rad: Values | None = None,
        odd: Values | None = None,
        even: Values | None = None,
        magnification: Values | None = None,
    ) -> None:
        """Raises `ShapeError` if a tilt is not (x, y), a magnification not 2 x 2, or a list of coefficients a number."""

        def leaf(name: str, value: Values | None, core: tuple[int | str, ...]) -> Array | None:
            if value is None:
                return None
            array = jnp.asarray(value, float)
            require_shape(name, array.shape[-len(core) :], core)
            return array if array.size else None

        self.beam_tilt_rad = leaf("beam_tilt_rad", beam_tilt_rad, (2,))
        self.odd, self.even = leaf("odd", odd, ("o",)), leaf("even", even, ("e",))
        self.magnification = leaf("magnification", magnification, (2, 2))

    def each(self, count: int) -> Aberrations:
        """The same for each of `count` images, where the arrays have no axis of images; else as they are.

        Raises:
            ShapeError: the arrays count other than `count` images.
        """

        def broadcast(name: str, axes: int) -> Array | None:
            leaf: Array | None = getattr(self, name)
            if leaf is None:
                return None
            core = leaf.shape[leaf.ndim - axes :]
            require_shape(f"aberrations.{name}", leaf.shape, (count, *core) if leaf.ndim > axes else core)
            return jnp.broadcast_to(leaf, (count, *core))

        axes = {"beam_tilt_rad": 1, "odd": 1, "even": 1, "magnification": 2}
        return Aberrations(**{name: broadcast(name, number) for name, number in axes.items()})

    def odd_phase(self, kx: Frequencies, ky: Frequencies, cs_mm: ArrayLike, wave_angstrom: ArrayLike) -> Array | None:
        """phi in radians at frequencies of the object in 1 / angstrom; None: no odd aberration."""
        kx, ky = jnp.asarray(kx), jnp.asarray(ky)
        phase = None if self.odd is None else _zernike_sum(self.odd, kx, ky, 1)
        if self.beam_tilt_rad is None:
            return phase
        tilt_x, tilt_y = self.beam_tilt_rad[..., 0], self.beam_tilt_rad[..., 1]
        strength = 2 * jnp.pi * 1e7 * jnp.asarray(cs_mm) * jnp.asarray(wave_angstrom) ** 2
        return (0.0 if phase is None else phase) - strength * (kx**2 + ky**2) * (kx * tilt_x + ky * tilt_y)

    def even_phase(self, kx: Frequencies, ky: Frequencies) -> Array | None:
        """gamma in radians at frequencies of the object in 1 / angstrom; None: no even aberration."""
        return None if self.even is None else _zernike_sum(self.even, jnp.asarray(kx), jnp.asarray(ky), 0)

    def magnified(self, kx: Frequencies, ky: Frequencies) -> tuple[Array, Array]:
        """M k, in the unit of k."""
        kx, ky, m = jnp.asarray(kx), jnp.asarray(ky), self.magnification
        if m is None:
            return kx, ky
        return m[..., 0, 0] * kx + m[..., 0, 1] * ky, m[..., 1, 0] * kx + m[..., 1, 1] * ky


def zernike_orders(count: int, *, odd: bool) -> list[tuple[int, int]]:
    """(m, n) of the first `count` odd or even Zernike polynomials, in the order of RELION's lists.

    >>> zernike_orders(5, odd=True)
    [(-1, 1), (1, 1), (-3, 3), (-1, 3), (1, 3)]
    """
    degrees = range(int(odd), 2 * count + 1, 2)
    return [(m, n) for n in degrees for m in range(-n, n + 1, 2)][:count]


def _zernike_sum(coefficients: Array, kx: Array, ky: Array, parity: int) -> Array:
    """sum_j c_j Z_j(k), of odd (`parity` 1) or even degree (0), as polynomials of kx and ky: smooth at the origin."""
    orders = zernike_orders(coefficients.shape[-1], odd=bool(parity))
    s2, turn_x, turn_y = kx**2 + ky**2, kx**2 - ky**2, 2 * kx * ky
    cosine, sine = (kx, ky) if parity else (jnp.ones_like(s2), jnp.zeros_like(s2))
    total = jnp.zeros_like(s2)
    for m in range(parity, orders[-1][1] + 1, 2):  # cosine and sine: |k|^m cos m theta, |k|^m sin m theta
        for wave, signed in ((cosine, m), (sine, -m))[: 2 if m else 1]:
            radial = _radial_sum([(n, coefficients[..., j]) for j, (order, n) in enumerate(orders) if order == signed], m, s2)
            total = total + wave * radial
        cosine, sine = cosine * turn_x - sine * turn_y, cosine * turn_y + sine * turn_x
    return total


def _radial_sum(members: list[tuple[int, Array]], m: int, s2: Array) -> Array | float:
    """sum c R_n^m(s) / s^m of the members (n, c), by Horner's rule in s^2."""
    total: Array | float = 0.0
    for power in range(max([n - m for n, _ in members], default=0) // 2, -1, -1):
        total = total * s2 + sum(c * _radial_coefficient(n, m, power) for n, c in members if n - m >= 2 * power)
    return total


def _radial_coefficient(n: int, m: int, power: int) -> int:
    """The whole number before s^(m + 2 power) in R_n^m(s)."""
    k, f = (n - m) // 2 - power, math.factorial
    return (-1) ** k * f(n - k) // (f(k) * f((n + m) // 2 - k) * f((n - m) // 2 - k))
