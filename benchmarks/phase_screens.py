"""Wave-optics Monte Carlo in NumPy: a point source under random phase screens, imaged by a light-field microscope.

The field of the source passes screens of Gaussian random phase between it and the surface (multi-slice, exact free-space
steps). A layer of thickness D with variance D / l and correlation exp(-(k r)^2 (1 - g) / 2) scatters with mean
free path l and anisotropy g. Behind the surface the medium is homogeneous: the objective refocuses the field on the
native plane, and the lenslets image it. The code is independent of `lfjax.optics.scattering`.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from lfjax.optics import Microscope

SAMPLES_PER_PIXEL = 3


class PhaseScreens:
    """Light-field images of a point in the middle of a lenslet, under tissue."""

    def __init__(self, scope: Microscope, lenslets: int, *, side: int, mean_free_path_um: float, anisotropy: float) -> None:
        self.scope, self.lenslets, self.side = scope, lenslets, side
        self.free_path, self.anisotropy = mean_free_path_um, anisotropy
        n = scope.pixels_per_lenslet
        self.step = float(scope.object_pitch_um) / (n * SAMPLES_PER_PIXEL)
        self.k = 2 * np.pi * scope.medium_index / scope.wavelength_um
        f = 2 * np.pi * np.fft.fftfreq(side, self.step)
        self.q2 = (f[:, None] ** 2 + f[None, :] ** 2).astype(np.float32)
        self.cosine = np.sqrt(np.maximum(1 - self.q2 / self.k**2, 0))
        # the source emits into a wider cone than the aperture, since light scatters into it; a soft edge avoids ringing
        sine = np.sqrt(self.q2) / self.k
        self.cone = (1 / (1 + np.exp((sine - 0.85) / 0.02))).astype(np.complex64)
        aperture = sine <= scope.numerical_aperture / scope.medium_index
        cosine = np.where(aperture, self.cosine, 1)
        self.pupil = np.where(aperture, np.sqrt(cosine) * (1 + cosine) / cosine, 0)

    def image(self, thickness_um: float, z_um: float, screens: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """The image of one realisation of the tissue."""
        field = self.cone.copy()  # spectrum of a point
        layer = thickness_um / screens
        half = self._step(layer / 2)
        for _ in range(screens):
            wave = scipy.fft.ifft2(field * half, workers=-1)
            wave *= np.exp(1j * self._screen(layer, rng))
            field = scipy.fft.fft2(wave, workers=-1) * half
        return self.focus(field * self._step(-thickness_um), z_um)

    def focus(self, spectrum: NDArray[np.complex64], z_um: float) -> NDArray[np.float64]:
        """Image in pixels, behind objective and lenslets, of a spectrum on the plane of the source."""
        defocus = np.exp(-1j * self.k * z_um * (1 - self.cosine))
        native = scipy.fft.fftshift(scipy.fft.ifft2(spectrum * self.pupil * defocus, workers=-1))
        x = (np.arange(self.side) - self.side // 2) * self.step  # upright, in the sample
        pitch = float(self.scope.object_pitch_um)
        local = (x - pitch * np.round(x / pitch)) * self.scope.magnification
        lens = np.exp(-1j * np.pi / self.scope.wavelength_um * local**2 / self.scope.lenslet_focal_length_um)
        f = np.fft.fftfreq(self.side, self.step * self.scope.magnification)
        fresnel = np.exp(-1j * np.pi * self.scope.wavelength_um * self.scope.lenslet_focal_length_um * f**2)
        spectrum = scipy.fft.fft2(native * lens[:, None] * lens[None, :], workers=-1)
        intensity = np.abs(scipy.fft.ifft2(spectrum * fresnel[:, None] * fresnel[None, :], workers=-1)) ** 2
        pixels = self.lenslets * self.scope.pixels_per_lenslet
        first = self.side // 2 - (pixels * SAMPLES_PER_PIXEL) // 2
        inner = intensity[first : first + pixels * SAMPLES_PER_PIXEL, first : first + pixels * SAMPLES_PER_PIXEL]
        return inner.reshape(pixels, SAMPLES_PER_PIXEL, pixels, SAMPLES_PER_PIXEL).sum((1, 3))

    def mean_image(
        self, thickness_um: float, z_um: float, *, layers_per_free_path: int, realisations: int, seed: int = 0
    ) -> NDArray[np.float64]:
        """Mean over realisations and over the eight symmetries of the square; its sum is 1 without tissue."""
        rng = np.random.default_rng(seed)
        screens = max(1, int(np.ceil(thickness_um / self.free_path * layers_per_free_path)))
        total = sum(self.image(thickness_um, z_um, screens, rng) for _ in range(realisations)) / realisations
        total = sum(np.rot90(image, r) for image in (total, total.T) for r in range(4)) / 8
        return total / self.focus(self.cone, z_um).sum()

    def _step(self, distance_um: float) -> NDArray[np.complex64]:
        return np.exp(1j * self.k * distance_um * (self.cosine - 1)).astype(np.complex64)

    def _screen(self, layer_um: float, rng: np.random.Generator) -> NDArray[np.float32]:
        """Gaussian phase of variance layer / l and correlation exp(-(k r)^2 (1 - g) / 2)."""
        width2 = self.k**2 * (1 - self.anisotropy)
        density = np.exp(-self.q2 / (2 * width2))  # spectral density of the phase, not yet normalised
        white = scipy.fft.rfft2(rng.standard_normal((self.side, self.side), dtype=np.float32), workers=-1)
        root = np.sqrt(density / density.mean() * layer_um / self.free_path)
        return scipy.fft.irfft2(white * root[:, : self.side // 2 + 1], (self.side, self.side), workers=-1)
