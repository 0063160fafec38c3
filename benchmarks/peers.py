"""Other implementations of a light-field operator: pyolaf (extra `peers`) and dense FFT convolutions in SciPy."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from lfjax.optics import PSF, Microscope

Image = NDArray[np.float32]


class PlainFFT:
    """The direct implementation: `scipy.signal.fftconvolve` with every PSF."""

    def __init__(self, psf: PSF, field: tuple[int, int]) -> None:
        self.psf = np.asarray(psf.values)
        self.s, self.n = psf.voxels_per_lenslet, psf.microscope.pixels_per_lenslet
        self.field, self.reach = field, psf.lenslets // 2 * self.n

    def forward(self, volume: Image) -> Image:
        """H: for every voxel of a lenslet, its values at the first pixels of the lenslets are convolved with its PSF."""
        rows, columns = (side * self.n for side in self.field)
        image = np.zeros((rows, columns), np.float32)
        for d, a, b in np.ndindex(self.psf.shape[:3]):
            sparse = np.zeros_like(image)
            sparse[:: self.n, :: self.n] = volume[d, a :: self.s, b :: self.s]
            full = scipy.signal.fftconvolve(sparse, self.psf[d, a, b])
            image += full[self.reach : self.reach + rows, self.reach : self.reach + columns]
        return image

    def adjoint(self, image: Image) -> Image:
        """H^T: correlate with every PSF."""
        rows, columns = image.shape
        volume = np.empty((len(self.psf), *(side * self.s for side in self.field)), np.float32)
        for d, a, b in np.ndindex(self.psf.shape[:3]):
            full = scipy.signal.fftconvolve(image, self.psf[d, a, b, ::-1, ::-1])
            first = self.psf.shape[-1] - 1 - self.reach
            volume[d, a :: self.s, b :: self.s] = full[first : first + rows : self.n, first : first + columns : self.n]
        return volume


class TunedFFT:
    """`PlainFFT` as a careful user would tune it: stored spectra of the PSFs, sums before the inverse FFT, all cores."""

    def __init__(self, psf: PSF, field: tuple[int, int]) -> None:
        self.s, self.n = psf.voxels_per_lenslet, psf.microscope.pixels_per_lenslet
        values = np.asarray(psf.values)
        self.depths, self.reach = len(values), psf.lenslets // 2 * self.n
        self.shape = (field[0] * self.n, field[1] * self.n)
        self.padded = tuple(scipy.fft.next_fast_len(side + values.shape[-1] - 1, real=True) for side in self.shape)
        self.spectra = np.empty((*values.shape[:3], self.padded[0], self.padded[1] // 2 + 1), np.complex64)
        for index in np.ndindex(values.shape[:3]):
            self.spectra[index] = scipy.fft.rfft2(values[index], self.padded, workers=-1)

    def forward(self, volume: Image) -> Image:
        """H: for every voxel of a lenslet, its values at the first pixels of the lenslets are convolved with its PSF."""
        total = np.zeros(self.spectra.shape[-2:], np.complex64)
        for d, a, b in np.ndindex(self.spectra.shape[:3]):
            sparse = np.zeros(self.shape, np.float32)
            sparse[:: self.n, :: self.n] = volume[d, a :: self.s, b :: self.s]
            total += scipy.fft.rfft2(sparse, self.padded, workers=-1) * self.spectra[d, a, b]
        image = scipy.fft.irfft2(total, self.padded, workers=-1)
        return image[self.reach : self.reach + self.shape[0], self.reach : self.reach + self.shape[1]]

    def adjoint(self, image: Image) -> Image:
        """H^T: the same with conjugate spectra."""
        placed = np.zeros(self.padded, np.float32)
        placed[self.reach : self.reach + self.shape[0], self.reach : self.reach + self.shape[1]] = image
        spectrum = scipy.fft.rfft2(placed, workers=-1)
        volume = np.empty((self.depths, *(side // self.n * self.s for side in self.shape)), np.float32)
        for d, a, b in np.ndindex(self.spectra.shape[:3]):
            back = scipy.fft.irfft2(spectrum * self.spectra[d, a, b].conj(), self.padded, workers=-1)
            volume[d, a :: self.s, b :: self.s] = back[: self.shape[0] : self.n, : self.shape[1] : self.n]
        return volume


class Pyolaf:
    """pyolaf 0.2.1 at the same sizes; its optical model differs (see the docs), so only times are compared."""

    def __init__(self, scope: Microscope, z_um: list[float], s: int, field: tuple[int, int]) -> None:
        from pyolaf.geometry import LFM_computeGeometryParameters, LFM_setCameraParams
        from pyolaf.lf import LFM_computeLFMatrixOperators

        n = scope.pixels_per_lenslet
        camera = {
            "gridType": "reg",
            "focus": "single",
            "plenoptic": 1,
            "uLensMask": 1,
            "ftl": 180000,
            "tube2mla": 0,
            "mla2sensor": 0,
            "M": scope.magnification,
            "NA": scope.numerical_aperture,
            "n": scope.medium_index,
            "WaveLength": scope.wavelength_um,
            "fm": scope.lenslet_focal_length_um,
            "lensPitch": scope.lenslet_pitch_um,
            "pixelPitch": scope.lenslet_pitch_um / n,
        }
        self.pixels = np.array([field[0] * n, field[1] * n])
        with tempfile.TemporaryDirectory() as folder, _quiet():
            path = Path(folder) / "camera.yaml"
            path.write_text(json.dumps({k: float(v) if isinstance(v, float) else v for k, v in camera.items()}))
            parameters = LFM_setCameraParams(str(path), n)
            step = float(z_um[1] - z_um[0]) if len(z_um) > 1 else 1.0
            depths = [float(z_um[0]), float(z_um[-1])]
            self.centres, self.resolution, *_ = LFM_computeGeometryParameters(
                parameters, np.zeros(0), depths, step, s, False, imgSize=self.pixels
            )
            start = time.perf_counter()
            self.H, self.Ht = LFM_computeLFMatrixOperators(parameters, self.resolution, self.centres)
            self.seconds = time.perf_counter() - start
        sides = np.ceil(self.pixels * self.resolution["texScaleFactor"]).astype(int)
        self.voxels = sides + 1 - sides % 2

    def forward(self, volume: Image) -> Image:
        """H by `LFM_forwardProject`, of a volume (z, y, x)."""
        from pyolaf.project import LFM_forwardProject

        with _quiet():
            return LFM_forwardProject(
                self.H, volume.transpose(1, 2, 0), self.centres, self.resolution, self.pixels, "quarter", step=8
            )

    def backward(self, image: Image) -> Image:
        """H^T by `LFM_backwardProject`."""
        from pyolaf.project import LFM_backwardProject

        with _quiet():
            return LFM_backwardProject(self.Ht, image, self.centres, self.resolution, self.voxels, "quarter", step=8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def have_pyolaf() -> bool:
    """Whether the extra `peers` is installed."""
    try:
        import pyolaf.project  # noqa: F401
    except ImportError:
        return False
    return True
