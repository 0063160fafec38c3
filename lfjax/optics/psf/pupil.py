"""The pupil of the objective: Zernike aberrations, index mismatch, and the native field by FFT.

Without aberrations the field depends on the radius alone, and is the Debye integral of `debye`. With a phase in the
pupil it is a two-dimensional Fourier integral over directions s = (sin t cos phi, sin t sin phi):

    U(x) = int_(|s| <= NA / n) sqrt(cos t) (1 + cos t) / cos t  exp(i Phi(s) - i k z (1 - cos t) + i k s x) d^2 s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float

from lfjax import fourier
from lfjax.errors import require
from lfjax.io.toml import is_finite, require_keys, require_table
from lfjax.optics.microscope import Microscope


@runtime_checkable
class Objective(Protocol):
    """The parameters of a microscope on which its pupil depends."""

    @property
    def numerical_aperture(self) -> float | Array: ...
    @property
    def medium_index(self) -> float | Array: ...
    @property
    def wavelength_um(self) -> float | Array: ...


class Pupil(eqx.Module):
    """Phase Phi of the objective's pupil.

    Phi = 2 pi sum_j c_j Z_j + k0 d (n_s cos t_s - n cos t),   n_s sin t_s = n sin t

    In a sample of another index the depth z of a source is counted in the sample: -k z (1 - cos t) becomes
    -k0 n_s z (1 - cos t_s).

    Attributes:
        zernike_waves: c_1, c_2, ...: rms waves of the Zernike polynomials in Noll's order (1 piston, 2 and 3 tilts, 4
            defocus, 5 and 6 astigmatism, 7 and 8 coma, 11 spherical). Differentiable.
        sample_index: n_s, refractive index of the sample; None: `medium_index`.
        depth_um: d, depth below the surface of that sample at which the objective would focus without the mismatch.

    Source: Noll, J. Opt. Soc. Am. 66, 207 (1976); Booth, Neil, Wilson, J. Microsc. 192, 90 (1998) for the mismatch.
    """

    zernike_waves: Float[Array, " j"]
    sample_index: float | Array | None
    depth_um: float | Array

    def __init__(
        self,
        zernike_waves: Sequence[float | Array] | ArrayLike = (),
        *,
        sample_index: float | Array | None = None,
        depth_um: float | Array = 0.0,
    ) -> None:
        """Make a pupil; see the attributes.

        Raises:
            ParameterError: an index below 1.
        """
        waves = jnp.asarray(zernike_waves, jnp.result_type(float))
        self.zernike_waves = waves if waves.ndim == 1 else waves.reshape(-1)
        if isinstance(sample_index, (int, float)):
            require(1 <= sample_index < math.inf, "sample_index", sample_index, "1 or more, or None")
        self.sample_index, self.depth_um = sample_index, depth_um

    @classmethod
    def of(cls, coefficients: Mapping[int, float | Array], **mismatch: float | Array | None) -> Pupil:
        """A pupil from Noll indices and rms waves: `Pupil.of({7: 0.1})` is coma.

        Args:
            coefficients: rms waves by Noll index.
            mismatch: `sample_index` and `depth_um`.

        Raises:
            ParameterError: an index below 1.
        """
        require(all(j >= 1 for j in coefficients), "coefficients", coefficients, "Noll indices of 1 or more")
        waves = [coefficients.get(j, 0.0) for j in range(1, max(coefficients, default=0) + 1)]
        return cls(waves, **mismatch)  # type: ignore[arg-type]

    @property
    def round(self) -> bool:
        """Whether all aberrations are rotationally symmetric; False for traced coefficients."""
        if isinstance(self.zernike_waves, jax.core.Tracer):
            return False
        return all(noll(j)[1] == 0 or c == 0 for j, c in enumerate(np.asarray(self.zernike_waves), start=1))

    def to_dict(self) -> dict[str, Any]:
        """All parameters as plain numbers."""
        index = None if self.sample_index is None else float(self.sample_index)
        waves = [float(w) for w in np.asarray(self.zernike_waves)]
        return {"zernike_waves": waves, "sample_index": index, "depth_um": float(self.depth_um)}

    @classmethod
    def from_dict(cls, parameters: dict[str, Any]) -> Pupil:
        """The pupil that `to_dict` describes.

        Raises:
            ParameterError: a parameter is missing or unknown, or is not a finite number.
        """
        names = ("zernike_waves", "sample_index", "depth_um")
        require_table("pupil", parameters)
        require_keys("pupil", parameters, names, names)
        waves, index, depth = (parameters[name] for name in names)
        several = isinstance(waves, list | tuple) and all(map(is_finite, waves))
        require(several, "pupil.zernike_waves", waves, "a list of finite numbers")
        require(index is None or is_finite(index), "pupil.sample_index", index, "a finite number, or none")
        require(is_finite(depth), "pupil.depth_um", depth, "a finite number")
        return cls(parameters["zernike_waves"], sample_index=parameters["sample_index"], depth_um=parameters["depth_um"])

    def phase(self, sy: Array, sx: Array, microscope: Objective) -> Array:
        """Phi in radians at the directions (sy, sx), which are sines in the immersion."""
        n = microscope.medium_index
        edge = microscope.numerical_aperture / n
        y, x = sy / edge, sx / edge
        phase = jnp.zeros(jnp.broadcast_shapes(jnp.shape(y), jnp.shape(x)))
        for j, waves in enumerate(self.zernike_waves, start=1):
            phase = phase + 2 * jnp.pi * waves * zernike(j, y, x)
        if self.sample_index is not None:
            s2 = sy**2 + sx**2
            inside = jnp.sqrt(jnp.maximum(self.sample_index**2 - n**2 * s2, 1e-6))
            outside = n * jnp.sqrt(jnp.maximum(1 - s2, 1e-6))
            phase = phase + 2 * jnp.pi / microscope.wavelength_um * self.depth_um * (inside - outside)
        return phase

    def defocus(self, s2: Array, microscope: Objective, z_um: Array | float) -> Array:
        """k z (1 - cos t) in radians at |s|^2, in the index of the sample.

        1 - cos t is computed as sin^2 t / (1 + cos t), which does not subtract nearly equal numbers.
        """
        n = microscope.medium_index
        inside = n if self.sample_index is None else self.sample_index
        sine2 = (n / inside) ** 2 * s2
        cosine = jnp.sqrt(jnp.maximum(1 - sine2, 1e-6))
        return 2 * jnp.pi / microscope.wavelength_um * inside * z_um * sine2 / (1 + cosine)

    def native_spectrum(
        self, microscope: Microscope, z_um: Array | float, side: int, step_um: tuple[Array | float, Array | float]
    ) -> Complex[Array, "ky kx"]:
        """Spectrum of U, up to a factor, on the FFT grid of side^2 samples.

        Args:
            microscope: NA, medium index and wavelength are used.
            z_um: depth of the source.
            side: samples per side.
            step_um: distances (y, x) between samples of U, in the sample.
        """
        n = microscope.medium_index
        y_spacing, x_spacing = (microscope.wavelength_um / n / (side * step) for step in step_um)  # of s
        order = jnp.fft.fftfreq(side, 1 / side)
        sy, sx = (order * y_spacing)[:, None], (order * x_spacing)[None, :]
        s2 = sy**2 + sx**2
        edge = microscope.numerical_aperture / n
        aperture = smooth_edge(edge - jnp.sqrt(s2 + 1e-20), x_spacing)
        amplitude = aperture * aplanatic(jnp.where(aperture > 0, s2, 0.0))
        phase = self.phase(sy, sx, microscope) - self.defocus(s2, microscope, z_um)
        return amplitude * jnp.exp(1j * jnp.where(aperture > 0, phase, 0))

    def blur_radius_lenslets(self, microscope: Microscope, z_um: float, native_plane_um: float = 0.0) -> float:
        """Distance of the farthest ray of a point at depth z, on the array, in lenslets.

        max |grad (Phi - defocus)| / k over the pupil. Without aberrations it is `Microscope.blur_radius_lenslets`.

        Args:
            microscope: the parameters.
            z_um: depth of the point.
            native_plane_um: D, distance of the array behind the native plane, a defocus of n D / M^2 in the sample.
        """
        return float(_blur_radius(self, microscope, z_um, native_plane_um))


@jax.jit
def _blur_radius(pupil: Pupil, microscope: Microscope, z_um: float | Array, native_plane_um: float | Array) -> Float[Array, ""]:
    """See `Pupil.blur_radius_lenslets`."""
    n = microscope.medium_index
    behind_um = native_plane_um * n / microscope.magnification**2
    k = 2 * math.pi * n / microscope.wavelength_um

    def path(s: Float[Array, "2"]) -> Array:
        s2 = s[0] ** 2 + s[1] ** 2
        phase = pupil.phase(s[0], s[1], microscope) - pupil.defocus(s2, microscope, z_um)
        return phase / k - behind_um * s2 / 2

    radius, angle = np.meshgrid(np.linspace(0, 1, 33), np.arange(48) * 2 * np.pi / 48)
    rays = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=-1).reshape(-1, 2)
    gradients = jax.vmap(jax.grad(path))(jnp.asarray(rays) * microscope.numerical_aperture / n)
    return jnp.max(jnp.hypot(gradients[:, 0], gradients[:, 1])) / microscope.object_pitch_um


def aplanatic(s2: Array) -> Array:
    """Amplitude of the scalar Debye field in the pupil at |s|^2 < 1: sqrt(cos t) (1 + cos t) / cos t."""
    cosine = jnp.sqrt(1 - s2)
    return (1 + cosine) / jnp.sqrt(cosine)


def smooth_edge(inside: Array, spacing: Array | float) -> Array:
    """Transmission of an aperture: 1 inside its edge, 0 outside, and a smooth step one sample wide between.

    A sample on the edge counts in proportion to its part inside, which makes apertures differentiable.

    Args:
        inside: signed distance from the edge, positive inside.
        spacing: distance between samples.
    """
    part = jnp.clip(inside / spacing + 0.5, 0, 1)
    return part**2 * (3 - 2 * part)


def native_field(
    spectrum: Complex[Array, "ky kx"], step_um: tuple[Array | float, Array | float], first_um: Float[Array, "2"], side: int
) -> Complex[Array, "y x"]:
    """U at side x side positions first + step (j, i), from its spectrum on a larger grid.

    Args:
        spectrum: see `Pupil.native_spectrum`.
        step_um: distances (y, x) between samples, in the sample.
        first_um: position (y, x) of the first sample.
        side: samples per side of the result.
    """
    f = jnp.fft.fftfreq(len(spectrum))
    y, x = (jnp.exp(2j * jnp.pi * f / step * first) for step, first in zip(step_um, first_um, strict=True))
    return jnp.fft.ifft2(spectrum * y[:, None] * x[None, :])[:side, :side]


def padded_side(side: int) -> int:
    """FFT length at which the light that wraps around into `side` samples is negligible: 6e-4 of the PSF at most."""
    return fourier.good_size(2 * side + 600)


def noll(j: int) -> tuple[int, int]:
    """(n, m) of Noll's index j; m > 0 stands for the cosine, m < 0 for the sine."""
    require(j >= 1, "j", j, "1 or more")
    n = math.ceil((math.sqrt(8 * j + 1) - 3) / 2)
    rest = j - n * (n + 1) // 2 - 1  # 0 .. n
    m = 2 * ((rest + 1) // 2) if n % 2 == 0 else 2 * (rest // 2) + 1
    return n, (m if j % 2 == 0 else -m) if m else 0


def zernike(j: int, y: Array, x: Array) -> Array:
    """Z_j at (y, x) in units of the pupil radius: orthonormal, the mean of Z_j^2 over the disc is 1.

    A polynomial in x and y, hence defined and differentiable in the middle and outside the disc too.
    """
    n, signed = noll(j)
    m = abs(signed)
    r2 = x**2 + y**2
    radial = jnp.zeros_like(r2)
    for k in range((n - m) // 2 + 1):
        weight = (-1) ** k * math.comb(n - k, k) * math.comb(n - 2 * k, (n - m) // 2 - k)
        radial = radial + weight * r2 ** ((n - m) // 2 - k)
    if m == 0:
        return math.sqrt(n + 1) * radial
    real, imag = x + 0.0 * y, y + 0.0 * x  # (x + i y)^m by repeated products
    for _ in range(m - 1):
        real, imag = real * x - imag * y, real * y + imag * x
    return math.sqrt(2 * (n + 1)) * radial * (real if signed > 0 else imag)
