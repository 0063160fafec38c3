"""Two-photon scanning illumination: a point, a line, many foci at once."""

from __future__ import annotations

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import require
from lfjax.illumination.base import Illumination
from lfjax.illumination.focus import gaussian_share, require_focus, squared_psf_widths

GAUSSIAN_PULSE = 0.664  # g_p = <I^2> / <I>^2 f t of Gaussian pulses, sqrt(2 ln 2 / pi) (Xu & Webb 1996)


class PointScan(Illumination):
    """Two-photon point raster: a focus (`squared_psf_widths`) that dwells on every pixel, line by line, plane by plane.

        rate = sigma_2 / 2 g_p / (f t) F^2 IPSF^2,  F_0 = P / (2 pi w_xy^2) / photon energy

    averaged over each voxel; the peak saturates at one excitation per pulse.

    Attributes:
        numerical_aperture: NA that the excitation fills.
        pixels: planes, lines per plane, pixels per line of the raster; None: those of the volume.
        pulse_rate_hz: f.
        pulse_s: t, full width at half maximum.

    Raises:
        ParameterError: a value is out of range.

    Source: Xu & Webb, J. Opt. Soc. Am. B 13, 481 (1996).
    """

    wavelength_um: float | Array = 0.92
    numerical_aperture: float | Array = 0.8
    pixels: tuple[int, int, int] | None = eqx.field(static=True, default=None)
    pulse_rate_hz: float | Array = 80e6
    pulse_s: float | Array = 120e-15

    def __check_init__(self) -> None:
        require_focus(self.numerical_aperture, self.wavelength_um, self.medium_index)

    @property
    def steps(self) -> tuple[int, int, int]:
        return self.shape if self.pixels is None else self.pixels

    @property
    def imaged(self) -> bool:
        return False

    @property
    def widths_um(self) -> tuple[Array, Array, Array]:
        """1/e radii (z, y, x) of the squared PSF."""
        lateral, axial = squared_psf_widths(self.numerical_aperture, self.wavelength_um, self.medium_index)
        return (axial, lateral, lateral)

    def shares(self) -> tuple[Array, Array, Array]:
        """Fraction of the focus that falls into each voxel, (plane, z), (line, y) and (pixel, x)."""
        z, y, x = (self._shares(axis) for axis in range(3))
        return (z, y, x)

    def _foci(self, axis: int) -> int:
        """Number of simultaneous foci along an axis."""
        return 1

    def _shares(self, axis: int) -> Float[Array, "p v"]:
        foci, places = self._foci(axis), self.steps[axis]
        positions = (np.arange(foci * places) + 0.5) * self.extent_um[axis] / (foci * places)
        share = gaussian_share(positions, self.shape[axis], self.voxel_um[axis], self.widths_um[axis])
        return share.reshape(foci, places, -1).sum(0)

    def _means(self) -> list[Array]:
        """Mean of IPSF^2 over each voxel, along z, y and x."""
        parts = zip(self.shares(), self.widths_um, self.voxel_um, strict=True)
        z, y, x = (share * (jnp.sqrt(jnp.pi) * width / voxel) for share, width, voxel in parts)
        return [z * self._peak()[None, :], y, x]

    def _peak(self) -> Float[Array, " z"]:
        """Rate at the centre of a focus, at each plane."""
        lateral = self.widths_um[1]
        watt = 1e-3 * self.power_mw / math.prod(self._foci(axis) for axis in range(3))
        return self._two_photon(self.arrival() * watt / (2 * jnp.pi * lateral**2))

    def _two_photon(self, watt_um2: Array) -> Array:
        flux = self._flux(watt_um2)
        gain = GAUSSIAN_PULSE / (self.pulse_rate_hz * self.pulse_s) / 2
        rate = (1e-34 * self.fluorophore.two_photon_gm * gain * flux) * flux  # in this order: flux^2 overflows float32
        return -self.pulse_rate_hz * jnp.expm1(-rate / self.pulse_rate_hz)

    def rate(self, step: ArrayLike) -> Float[Array, "z y x"]:
        place = jnp.unravel_index(jnp.asarray(step), self.steps)
        return _outer(*(means[i] for means, i in zip(self._means(), place, strict=True)))

    def dose(self) -> Float[Array, "z y x"]:
        return _outer(*(means.sum(0) for means in self._means())) * self.timing.dwell_s


class LineScan(PointScan):
    """Two-photon line along x, stepped through y and z, recorded by a camera.

    The power is spread over the line, so the rate at a point of it falls as 1 / length^2. The line is assumed to be
    temporally focused, which gives it the axial response of a point (Tal, Oron & Silberberg, Opt. Lett. 30, 1686 (2005)).
    """

    @property
    def steps(self) -> tuple[int, int, int]:
        planes, lines, _ = self.shape if self.pixels is None else self.pixels
        return (planes, lines, 1)

    @property
    def imaged(self) -> bool:
        return True

    def _means(self) -> list[Array]:
        z, y, _ = super()._means()
        return [z, y, jnp.ones((1, self.shape[2]), y.dtype)]

    def _peak(self) -> Float[Array, " z"]:
        across = jnp.sqrt(2 * jnp.pi) * self.widths_um[1]  # integral of exp(-y^2 / (2 w^2)), whose square is IPSF^2
        return self._two_photon(self.arrival() * 1e-3 * self.power_mw / (across * self.extent_um[2]))


class MultiFocal(PointScan):
    """A grid of two-photon foci that share the power and the raster, recorded by a camera.

    Attributes:
        foci: number of simultaneous foci along y and x, which divide the lines and the pixels.

    Raises:
        ParameterError: the foci do not divide the lines and pixels.
    """

    foci: tuple[int, int] = eqx.field(static=True, default=(4, 4))

    def __check_init__(self) -> None:
        pixels = self.shape if self.pixels is None else self.pixels
        fits = all(n >= 1 and size % n == 0 for n, size in zip(self.foci, pixels[1:], strict=True))
        require(fits, "foci", self.foci, f"whole numbers that divide the {pixels[1:]} lines and pixels")

    @property
    def steps(self) -> tuple[int, int, int]:
        planes, lines, points = self.shape if self.pixels is None else self.pixels
        return (planes, lines // self.foci[0], points // self.foci[1])

    @property
    def imaged(self) -> bool:
        return True

    def step_at(self, z: int, y: int, x: int) -> int:
        _, rows, columns = self.shape
        wide, high = -(-rows // self.foci[0]), -(-columns // self.foci[1])
        place = [z * self.steps[0] // self.shape[0], y % wide * self.steps[1] // wide, x % high * self.steps[2] // high]
        return int(np.ravel_multi_index(place, self.steps))

    def _foci(self, axis: int) -> int:
        return (1, *self.foci)[axis]


def _outer(z: Array, y: Array, x: Array) -> Float[Array, "z y x"]:
    return z[:, None, None] * y[:, None] * x
