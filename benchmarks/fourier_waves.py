"""A Fourier light-field microscope as one wave, to compare `SubPupils.psfs` with.

Debye integral on the native image plane -> Fourier lens -> all lenslets at once on one grid -> Fresnel to the camera. It
shares only the Debye field (by quadrature, tested on its own) with the package: no pupil function, no view and no
shift-invariance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lfjax.optics import Microscope, SubPupils, hexagonal_centres
from lfjax.optics.psf.debye import debye_field, interpolate_profile, quadrature_nodes

SIDE, STEP_UM = 1024, 4.0  # samples of the Fourier plane
DEEPEST_UM, WIDEST_UM = 40.0, 10.0  # largest depth of a source, and largest distance from the axis
RADII_PER_WAVE = 32  # samples of the radial profile per lambda / NA: cubic interpolation is then right to 4e-5


@dataclass(frozen=True)
class FourierWaves:
    """The design: seven round lenslets of 1 mm behind a 20x/0.5 objective."""

    scope: Microscope = Microscope(20, 0.5, 1.33, 0.52, 1000, 40000, 11)
    fourier_lens_um: float = 60000.0
    camera_pixel_um: float = 12.0

    @property
    def centres_um(self) -> NDArray[np.float64]:
        """Lenslets, on whole samples of the grid."""
        return STEP_UM * np.round(hexagonal_centres(1000, 1000) / STEP_UM)

    @property
    def views(self) -> SubPupils:
        """The same design for lfjax."""
        scope = self.scope
        return SubPupils.fourier(
            self.centres_um, magnification=20, numerical_aperture=0.5, medium_index=1.33, wavelength_um=0.52,
            fourier_lens_um=self.fourier_lens_um, lenslet_um=float(scope.lenslet_pitch_um),
            lenslet_focal_length_um=float(scope.lenslet_focal_length_um), camera_pixel_um=self.camera_pixel_um,
        )  # fmt: skip

    def images(self, z_um: float, source_um: tuple[float, float], side: int) -> NDArray[np.float64]:
        """Views (v, side, side) of a point at (z, y, x), upright, as fractions of the light that passes the objective."""
        scope, wavelength = self.scope, float(self.scope.wavelength_um)
        native_um = wavelength * self.fourier_lens_um / (SIDE * STEP_UM)
        x_um = (np.arange(SIDE) - SIDE // 2) * native_um / 20
        reach_um = math.sqrt(2) * float(x_um[-1]) * 1.05 + WIDEST_UM
        radii = math.ceil(reach_um / (wavelength / 0.5) * RADII_PER_WAVE)
        nodes = quadrature_nodes(scope, reach_um, DEEPEST_UM)
        native = _native(scope, z_um, np.asarray(source_um), x_um, reach_um / (radii - 1), radii=radii, nodes=nodes)

        at_lenslets = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(native)))
        place = (np.arange(SIDE) - SIDE // 2) * STEP_UM
        array = np.zeros((SIDE, SIDE), complex)
        for centre in self.centres_um:
            r2 = (place[:, None] - centre[0]) ** 2 + (place[None, :] - centre[1]) ** 2
            lens = np.exp(-1j * np.pi / (wavelength * float(scope.lenslet_focal_length_um)) * r2)
            array += np.where(r2 <= (float(scope.lenslet_pitch_um) / 2) ** 2, lens, 0)
        f = np.fft.fftfreq(SIDE, STEP_UM)
        travel = np.exp(-1j * np.pi * wavelength * float(scope.lenslet_focal_length_um) * (f[:, None] ** 2 + f[None, :] ** 2))
        camera = np.abs(np.fft.ifft2(np.fft.fft2(at_lenslets * array) * travel)) ** 2 / (np.abs(at_lenslets) ** 2).sum()

        bins = round(self.camera_pixel_um / STEP_UM)
        views = []
        for centre in self.centres_um:
            middle = np.round(centre / STEP_UM).astype(int) + SIDE // 2
            low = middle - (bins * side) // 2
            view = camera[low[0] : low[0] + bins * side, low[1] : low[1] + bins * side]
            views.append(view.reshape(side, bins, side, bins).sum((1, 3))[::-1, ::-1])
        return np.stack(views)


def _native(
    scope: Microscope, z_um: float, source_um: np.ndarray, x_um: np.ndarray, spacing_um: float, *, radii: int, nodes: int
) -> NDArray[np.complex128]:
    """Debye field of a point on the native image plane, at positions x_um in y and in x, in the sample."""
    profile = _profile(scope, z_um, spacing_um, radii=radii, nodes=nodes)
    radius_um = np.hypot(x_um[:, None] - source_um[0], x_um[None, :] - source_um[1])
    return np.asarray(_interpolated(profile, spacing_um, jnp.asarray(radius_um)), np.complex128)


_interpolated = jax.jit(interpolate_profile)


@partial(jax.jit, static_argnames=("radii", "nodes"))
def _profile(scope: Microscope, z_um: float, spacing_um: float, *, radii: int, nodes: int) -> jax.Array:
    return debye_field(jnp.arange(radii) * spacing_um, z_um, scope, nodes=nodes)
