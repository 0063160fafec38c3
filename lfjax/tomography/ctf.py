"""Contrast transfer function of an electron microscope, as RELION and CTFFIND write it, and as an operator on images.

    CTF(k) = a [sqrt(1 - w^2) sin chi + w cos chi] exp(-B s^2 / 4),    s = |k| in 1 / angstrom,
    chi = pi lambda df(theta) s^2 - pi / 2 Cs lambda^3 s^4 + phase shift,
    df = (dU + dV) / 2 + (dU - dV) / 2 cos 2 (theta - alpha),    theta = atan2(ky, kx)

Defocus is positive for underfocus; dark particles are inverted to bright ones, so that the CTF starts at +w. (Rohou &
Grigorieff, J. Struct. Biol. 192, 216 (2015).)
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.linop import LinearOperator, Shape


def wavelength_angstrom(voltage_kv: float | Array) -> Float[Array, "..."]:
    """Relativistic wavelength of electrons: 0.0197 A at 300 kV."""
    volts = 1e3 * jnp.asarray(voltage_kv)
    return 12.2643247 / jnp.sqrt(volts * (1 + volts * 0.978466e-6))


class Ctf(eqx.Module):
    """Optics of one image; all are differentiable numbers, batch them by `jax.vmap`.

    Attributes:
        defocus_u_angstrom: the larger defocus, underfocus positive.
        defocus_v_angstrom: the smaller one.
        angle_rad: of the axis of defocus_u from x towards y.
        voltage_kv: of the microscope.
        cs_mm: spherical aberration.
        amplitude_contrast: w.
        phase_shift_rad: of a phase plate.
        b_factor_angstrom2: of the envelope; 0 for none.
        scale: a, of the whole function.
    """

    defocus_u_angstrom: Float[Array, ""]
    defocus_v_angstrom: Float[Array, ""]
    angle_rad: Float[Array, ""]
    voltage_kv: Float[Array, ""]
    cs_mm: Float[Array, ""]
    amplitude_contrast: Float[Array, ""]
    phase_shift_rad: Float[Array, ""]
    b_factor_angstrom2: Float[Array, ""]
    scale: Float[Array, ""]

    def __init__(
        self,
        defocus_u_angstrom: float | Array,
        defocus_v_angstrom: float | Array | None = None,
        angle_rad: float | Array = 0.0,
        *,
        voltage_kv: float | Array = 300.0,
        cs_mm: float | Array = 2.7,
        amplitude_contrast: float | Array = 0.1,
        phase_shift_rad: float | Array = 0.0,
        b_factor_angstrom2: float | Array = 0.0,
        scale: float | Array = 1.0,
    ) -> None:
        """Without `defocus_v_angstrom` there is no astigmatism."""
        defocus_v_angstrom = defocus_u_angstrom if defocus_v_angstrom is None else defocus_v_angstrom
        self.defocus_u_angstrom = jnp.asarray(defocus_u_angstrom, float)
        self.defocus_v_angstrom = jnp.asarray(defocus_v_angstrom, float)
        self.angle_rad, self.voltage_kv = jnp.asarray(angle_rad, float), jnp.asarray(voltage_kv, float)
        self.cs_mm, self.amplitude_contrast = jnp.asarray(cs_mm, float), jnp.asarray(amplitude_contrast, float)
        self.phase_shift_rad = jnp.asarray(phase_shift_rad, float)
        self.b_factor_angstrom2, self.scale = jnp.asarray(b_factor_angstrom2, float), jnp.asarray(scale, float)

    def __call__(self, kx: Float[Array, "..."], ky: Float[Array, "..."]) -> Float[Array, "..."]:
        """CTF at spatial frequencies in 1 / angstrom."""
        wave = wavelength_angstrom(self.voltage_kv)
        s2 = kx**2 + ky**2
        mean = (self.defocus_u_angstrom + self.defocus_v_angstrom) / 2
        half = (self.defocus_u_angstrom - self.defocus_v_angstrom) / 2
        # s^2 cos 2 (theta - alpha) without an angle, smooth at the origin
        double = (kx**2 - ky**2) * jnp.cos(2 * self.angle_rad) + 2 * kx * ky * jnp.sin(2 * self.angle_rad)
        chi = jnp.pi * wave * (mean * s2 + half * double) - jnp.pi / 2 * self.cs_mm * 1e7 * wave**3 * s2**2
        chi = chi + self.phase_shift_rad
        w = self.amplitude_contrast
        envelope = self.scale * jnp.exp(-self.b_factor_angstrom2 / 4 * s2)
        return (jnp.sqrt(1 - w**2) * jnp.sin(chi) + w * jnp.cos(chi)) * envelope

    def grid(self, shape: tuple[int, int], pixel_angstrom: float | Array) -> Float[Array, "y x"]:
        """CTF at the frequencies of `rfft2` of an image (y, x)."""
        ky, kx = (jnp.asarray(f(n)) / pixel_angstrom for f, n in zip((np.fft.fftfreq, np.fft.rfftfreq), shape, strict=True))
        return self(kx[None, :], ky[:, None])


class ApplyCtf(LinearOperator):
    """Images (y, x) filtered by a CTF: periodic, of even or odd size; its own transpose up to rounding.

    At the Nyquist row and column of an even size, where a frequency and its negative are one, the mean of both values counts.

    Attributes:
        ctf: the optics.
        shape: (y, x).
        pixel_angstrom: of the image.
    """

    ctf: Ctf
    shape: tuple[int, int] = eqx.field(static=True)
    pixel_angstrom: Float[Array, ""]

    def __init__(self, ctf: Ctf, shape: tuple[int, int], pixel_angstrom: float | Array) -> None:
        """Raises `ParameterError` unless both sides are two pixels or more."""
        require(len(shape) == 2 and min(shape) >= 2, "shape", shape, "(y, x), two pixels or more")
        self.ctf, self.shape, self.pixel_angstrom = ctf, shape, jnp.asarray(pixel_angstrom, float)

    @property
    def in_shape(self) -> Shape:
        """(y, x)."""
        return self.shape

    @property
    def out_shape(self) -> Shape:
        """(y, x)."""
        return self.shape

    def matvec(self, x: Array) -> Array:
        """The filtered image."""
        return jnp.fft.irfft2(jnp.fft.rfft2(x) * self.ctf.grid(self.shape, self.pixel_angstrom), self.shape)
