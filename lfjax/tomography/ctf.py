"""Contrast transfer function of an electron microscope, as RELION and CTFFIND write it, and as an operator on images.

    CTF(k) = a [sqrt(1 - w^2) sin chi + w cos chi] exp(-B s^2 / 4),    s = |k| in 1 / angstrom,
    chi = pi lambda df(theta) s^2 - pi / 2 Cs lambda^3 s^4 + phase shift,
    df = (dU + dV) / 2 + (dU - dV) / 2 cos 2 (theta - alpha),    theta = atan2(ky, kx)

Defocus is positive for underfocus. Particles are bright (dark ones are inverted), so the CTF starts at +w. (Rohou &
Grigorieff, J. Struct. Biol. 192, 216 (2015).) Beam tilt and higher aberrations multiply it by exp(i phi) and take gamma from
chi, and an anisotropic magnification evaluates it at M k; see `aberrations`.

Programs write images as they are, or with the CTF's sign or the CTF itself multiplied in, both without exp(i phi), as
RELION's `--phase_flip` and `--premultiply_ctf` do. `Ctf` knows which, so that three functions serve all:

| images | transfer function H | matched factor m | power |
|---|---|---|---|
| AS_RECORDED | CTF exp(i phi) | CTF exp(-i phi) | CTF^2 |
| PHASE_FLIPPED | abs(CTF) exp(i phi) | abs(CTF) exp(-i phi) | CTF^2 |
| PREMULTIPLIED | CTF^2 exp(i phi) | exp(-i phi) | CTF^2 |

m H = CTF^2, so m turns a recorded image into its part of the data term of every least-squares problem.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from lfjax.errors import require, require_shape
from lfjax.linop import LinearOperator, Shape
from lfjax.tomography.aberrations import Aberrations

AS_RECORDED, PHASE_FLIPPED, PREMULTIPLIED = 0, 1, 2
"""Numbers of `Ctf.applied`: a program has left an image as it is, or multiplied it by the sign of its CTF, or by its CTF."""


@jax.jit
def wavelength_angstrom(voltage_kv: ArrayLike) -> Float[Array, "..."]:
    """Relativistic wavelength of electrons, 0.0197 A at 300 kV: h / sqrt(2 m e V (1 + e V / (2 m c^2)))."""
    volts = 1e3 * jnp.asarray(voltage_kv, float)
    return 12.2643247 / jnp.sqrt(volts * (1 + volts * 0.978466e-6))


class Ctf(eqx.Module):
    """Optics of one image. All attributes are differentiable numbers; batch them by `jax.vmap`.

    Attributes:
        defocus_u_angstrom: the larger defocus, underfocus positive.
        defocus_v_angstrom: the smaller defocus.
        angle_rad: angle from x towards y of the axis of defocus_u.
        voltage_kv: acceleration voltage.
        cs_mm: spherical aberration.
        amplitude_contrast: w.
        phase_shift_rad: shift of a phase plate.
        b_factor_angstrom2: B of the envelope; 0: no envelope.
        scale: factor a of the whole function.
        exposure_per_angstrom2: electrons per square angstrom before the image, for the envelope of radiation damage
            exp(-d / (2 (0.245 s^-1.665 + 2.81))) of Grant & Grigorieff, eLife 4, e06980 (2015); None: none.
        aberrations: beam tilt, Zernike coefficients and magnification; None: none.
        applied: AS_RECORDED (0), PHASE_FLIPPED (1) or PREMULTIPLIED (2), see the module; None: as recorded.
    """

    defocus_u_angstrom: Float[Array, "..."]
    defocus_v_angstrom: Float[Array, "..."]
    angle_rad: Float[Array, "..."]
    voltage_kv: Float[Array, "..."]
    cs_mm: Float[Array, "..."]
    amplitude_contrast: Float[Array, "..."]
    phase_shift_rad: Float[Array, "..."]
    b_factor_angstrom2: Float[Array, "..."]
    scale: Float[Array, "..."]
    exposure_per_angstrom2: Float[Array, "..."] | None
    aberrations: Aberrations | None
    applied: Int[Array, "..."] | None

    def __init__(
        self,
        defocus_u_angstrom: ArrayLike,
        defocus_v_angstrom: ArrayLike | None = None,
        angle_rad: ArrayLike = 0.0,
        *,
        voltage_kv: ArrayLike = 300.0,
        cs_mm: ArrayLike = 2.7,
        amplitude_contrast: ArrayLike = 0.1,
        phase_shift_rad: ArrayLike = 0.0,
        b_factor_angstrom2: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        exposure_per_angstrom2: ArrayLike | None = None,
        aberrations: Aberrations | None = None,
        applied: Int[ArrayLike, "..."] | None = None,
    ) -> None:
        """None as `defocus_v_angstrom`: no astigmatism."""
        defocus_v_angstrom = defocus_u_angstrom if defocus_v_angstrom is None else defocus_v_angstrom
        self.defocus_u_angstrom = jnp.asarray(defocus_u_angstrom, float)
        self.defocus_v_angstrom = jnp.asarray(defocus_v_angstrom, float)
        self.angle_rad, self.voltage_kv = jnp.asarray(angle_rad, float), jnp.asarray(voltage_kv, float)
        self.cs_mm, self.amplitude_contrast = jnp.asarray(cs_mm, float), jnp.asarray(amplitude_contrast, float)
        self.phase_shift_rad = jnp.asarray(phase_shift_rad, float)
        self.b_factor_angstrom2, self.scale = jnp.asarray(b_factor_angstrom2, float), jnp.asarray(scale, float)
        self.exposure_per_angstrom2 = None if exposure_per_angstrom2 is None else jnp.asarray(exposure_per_angstrom2, float)
        self.aberrations, self.applied = aberrations, None if applied is None else jnp.asarray(applied, int)

    def each(self, count: int) -> Ctf:
        """The same optics for each of `count` images; an attribute that counts the images already stays.

        Raises:
            ShapeError: an attribute counts other than `count` images.
        """
        aberrations = None if self.aberrations is None else self.aberrations.each(count)

        def broadcast(leaf: Array) -> Array:
            require_shape("ctf", leaf.shape, (count,) if leaf.ndim else ())
            return jnp.broadcast_to(leaf, (count,))

        plain = eqx.tree_at(lambda c: c.aberrations, self, None, is_leaf=lambda leaf: leaf is None)
        filled = jax.tree.map(broadcast, plain)
        return eqx.tree_at(lambda c: c.aberrations, filled, aberrations, is_leaf=lambda leaf: leaf is None)

    def __call__(self, kx: Float[ArrayLike, "..."], ky: Float[ArrayLike, "..."]) -> Array:
        """Transfer function H of the images as recorded, at frequencies in 1 / angstrom; complex with odd aberrations."""
        return _transfer(self, kx, ky)

    def matched(self, kx: Float[ArrayLike, "..."], ky: Float[ArrayLike, "..."]) -> Array:
        """Factor m with m H = |CTF|^2: conj(CTF) for images as they are; a premultiplied image has had it."""
        return _matched(self, kx, ky)

    def power(self, kx: Float[ArrayLike, "..."], ky: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """|CTF|^2, whatever has been applied to the images."""
        return _power(self, kx, ky)

    def grid(self, shape: tuple[int, int], pixel_angstrom: ArrayLike) -> Array:
        """Transfer function at the frequencies of `rfft2` of an image (y, x); at a Nyquist frequency the mean of both signs."""
        ny, nx = shape
        kx, ky = np.fft.rfftfreq(nx), np.fft.fftfreq(ny)
        kx, ky = (np.append(k, -k[n // 2]) if n % 2 == 0 else k for k, n in ((kx, nx), (ky, ny)))
        values = self(jnp.asarray(kx)[None, :] / pixel_angstrom, jnp.asarray(ky)[:, None] / pixel_angstrom)
        if ny % 2 == 0:
            values = values[:-1].at[ny // 2].add(values[-1]).at[ny // 2].divide(2)
        if nx % 2 == 0:
            values = jnp.append(values[:, :-2], (values[:, -2:-1] + values[:, -1:]) / 2, axis=1)
        return values


def _contrast(ctf: Ctf, kx: ArrayLike, ky: ArrayLike) -> tuple[Array, Array | None]:
    """The real CTF and, where there are odd aberrations, the phase factor beside it."""
    kx, ky = jnp.asarray(kx), jnp.asarray(ky)
    wave = wavelength_angstrom(ctf.voltage_kv)
    odd = even = None
    if ctf.aberrations is not None:
        kx, ky = ctf.aberrations.magnified(kx, ky)
        odd, even = ctf.aberrations.odd_phase(kx, ky, ctf.cs_mm, wave), ctf.aberrations.even_phase(kx, ky)
    s2 = kx**2 + ky**2
    mean = (ctf.defocus_u_angstrom + ctf.defocus_v_angstrom) / 2
    half = (ctf.defocus_u_angstrom - ctf.defocus_v_angstrom) / 2
    # s^2 cos 2 (theta - alpha) without an angle, smooth at the origin
    double = (kx**2 - ky**2) * jnp.cos(2 * ctf.angle_rad) + 2 * kx * ky * jnp.sin(2 * ctf.angle_rad)
    chi = jnp.pi * wave * (mean * s2 + half * double) - jnp.pi / 2 * ctf.cs_mm * 1e7 * wave**3 * s2**2
    chi = chi + ctf.phase_shift_rad - (0 if even is None else even)
    w = ctf.amplitude_contrast
    envelope = ctf.scale * jnp.exp(-ctf.b_factor_angstrom2 / 4 * s2)
    if ctf.exposure_per_angstrom2 is not None:
        power = (s2 + 1e-12) ** (1.665 / 2)  # kept off 0, where its derivative has a pole
        envelope = envelope * jnp.exp(-ctf.exposure_per_angstrom2 / 2 * power / (0.245 + 2.81 * power))
    real = (jnp.sqrt(1 - w**2) * jnp.sin(chi) + w * jnp.cos(chi)) * envelope
    return real, None if odd is None else jax.lax.complex(jnp.cos(odd), jnp.sin(odd))


@jax.jit
def _transfer(ctf: Ctf, kx: ArrayLike, ky: ArrayLike) -> Array:
    real, phase = _contrast(ctf, kx, ky)
    if ctf.applied is not None:
        real = jnp.select([ctf.applied == PHASE_FLIPPED, ctf.applied == PREMULTIPLIED], [jnp.abs(real), real**2], real)
    return real if phase is None else real * phase


@jax.jit
def _matched(ctf: Ctf, kx: ArrayLike, ky: ArrayLike) -> Array:
    real, phase = _contrast(ctf, kx, ky)
    if ctf.applied is not None:
        flipped, done = ctf.applied == PHASE_FLIPPED, ctf.applied == PREMULTIPLIED
        real = jnp.select([flipped, done], [jnp.abs(real), jnp.ones_like(real)], real)
    return real if phase is None else real * phase.conj()


@jax.jit
def _power(ctf: Ctf, kx: ArrayLike, ky: ArrayLike) -> Array:
    return _contrast(ctf, kx, ky)[0] ** 2


class ApplyCtf(LinearOperator):
    """Periodic filter of images (y, x) by a CTF, for even and odd sizes; without odd aberrations it is its own transpose.

    At the Nyquist row and column of an even size, where a frequency and its negative are one, the filter takes the mean of both
    values.

    Attributes:
        ctf: the optics.
        shape: (y, x).
        pixel_angstrom: pixel size of the image.
    """

    ctf: Ctf
    shape: tuple[int, int] = eqx.field(static=True)
    pixel_angstrom: Float[Array, ""]

    def __init__(self, ctf: Ctf, shape: tuple[int, int], pixel_angstrom: ArrayLike) -> None:
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
        return _filter(self, x)


@jax.jit
def _filter(op: ApplyCtf, image: Array) -> Array:
    return jnp.fft.irfft2(jnp.fft.rfft2(image) * op.ctf.grid(op.shape, op.pixel_angstrom), op.shape)
