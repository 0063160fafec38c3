"""The lenslet lattice of a raw camera frame: pitch, rotation and offset, found from its Fourier peaks."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike, NDArray

from lfjax.errors import CalibrationError, require_shape

HARMONICS = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2))
PEAK_TO_BACKGROUND = 8.0  # a lattice peak stands this many times above the median of the ring it is searched in
RANGE = 0.28  # of the expected pitch; below sqrt(2) - 1, or the diagonal harmonic would be taken for the pitch


class Lattice(NamedTuple):
    """A square lattice of lenslet centres in raw pixels: centre(Y, X) = origin + pitch (Y e_y + X e_x).

    e_x = (sin r, cos r) and e_y = (cos r, -sin r) in (y, x): a positive rotation turns the rows of lenslets from the x axis
    towards larger y, that is clockwise on a screen whose y axis points down.

    Attributes:
        pitch_px: distance between lenslet centres.
        rotation_rad: r, between -pi/4 and pi/4.
        origin_y_px: centre of the lenslet nearest to the middle of the frame; pixel centres are whole numbers.
        origin_x_px: the same in x.
    """

    pitch_px: float
    rotation_rad: float
    origin_y_px: float
    origin_x_px: float

    @property
    def axes(self) -> NDArray[np.float64]:
        """Rows e_y and e_x, each as (y, x)."""
        c, s = math.cos(self.rotation_rad), math.sin(self.rotation_rad)
        return np.array([[c, -s], [s, c]])

    def to_raw(self, lenslets: ArrayLike) -> NDArray[np.float64]:
        """Raw pixel positions (..., 2) of lattice coordinates (Y, X), whole numbers being lenslet centres."""
        return np.array([self.origin_y_px, self.origin_x_px]) + self.pitch_px * np.asarray(lenslets) @ self.axes

    def to_lattice(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Lattice coordinates (..., 2) of raw pixel positions (y, x); inverse of `to_raw`."""
        return (np.asarray(pixels) - np.array([self.origin_y_px, self.origin_x_px])) @ self.axes.T / self.pitch_px


def find_lattice(frame: ArrayLike, pitch_px: float) -> Lattice:
    """Find the lattice in a white frame, or in a light field itself.

    Maximises the power sum_h |F(G_h)|^2 of the windowed frame's Fourier transform at the low harmonics G_h of a square
    reciprocal lattice, over pitch and rotation, from the best FFT sample near the expected pitch; the phases of the first
    two harmonics give the offset. F is evaluated exactly between FFT samples, so the pitch is good to about
    pitch^2 / (100 field).

    Args:
        frame: raw frame (y, x), dark subtracted or not.
        pitch_px: expected pitch in raw pixels; 28 % off is still found.

    Raises:
        CalibrationError: the frame is smaller than six lenslets, or shows no lattice near this pitch.
    """
    image = np.asarray(frame, np.float64)
    require_shape("frame", image.shape, ("y", "x"))
    if min(image.shape) < 6 * pitch_px:
        raise CalibrationError(f"frame has shape {image.shape}: expected six lenslets of {pitch_px:.2f} px or more a side")
    window = np.hanning(image.shape[0] + 2)[1:-1, None] * np.hanning(image.shape[1] + 2)[None, 1:-1]
    signal = window * (image - np.average(image, weights=window))
    y, x = (np.arange(n) - (n - 1) / 2 for n in image.shape)

    def transform(g: NDArray[np.float64]) -> complex:
        """F(g) = sum I(x) exp(-2 pi i g x), about the middle of the frame."""
        return np.exp(-2j * np.pi * g[0] * y) @ signal @ np.exp(-2j * np.pi * g[1] * x)

    def reciprocal(pitch: float, rotation: float) -> NDArray[np.float64]:
        return Lattice(pitch, rotation, 0, 0).axes / pitch

    def missed_power(parameters: NDArray[np.float64]) -> float:
        g = reciprocal(*parameters)
        return -sum(abs(transform(m * g[0] + n * g[1])) ** 2 for m, n in HARMONICS)

    start = _coarse_peak(signal, pitch_px)
    step = start[0] ** 2 / max(image.shape) / 4  # a quarter of an FFT sample
    simplex = np.array([start, (start[0] + step, start[1]), (start[0], start[1] + step / start[0])])
    best = scipy.optimize.minimize(
        missed_power, start, method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-7, "fatol": 0.0, "maxiter": 200},
    ).x  # fmt: skip
    pitch, rotation = float(best[0]), float(best[1])
    phases = [np.angle(transform(g)) for g in reciprocal(pitch, rotation)]
    middle = (np.array(image.shape) - 1) / 2
    origin = middle - pitch * (np.array(phases) / (2 * np.pi)) @ Lattice(pitch, rotation, 0, 0).axes
    return Lattice(pitch, rotation, float(origin[0]), float(origin[1]))


def _coarse_peak(signal: NDArray[np.float64], pitch_px: float) -> tuple[float, float]:
    """Pitch and rotation of the strongest pair of perpendicular FFT peaks within `RANGE` of the expected pitch."""
    side = 2 ** math.ceil(math.log2(2 * max(signal.shape)))
    power = np.abs(np.fft.fft2(signal, (side, side)))
    f = np.fft.fftfreq(side)
    fy, fx = np.meshgrid(f, f, indexing="ij")
    ring = (np.hypot(fy, fx) > (1 - RANGE) / pitch_px) & (np.hypot(fy, fx) < (1 + RANGE) / pitch_px)
    pairs = power * power[:, np.r_[0, side - 1 : 0 : -1]].T  # |F(fy, fx)| |F(fx, -fy)|: g and g turned by 90 degrees
    pairs = np.where(ring & (np.abs(fy) <= fx), pairs, 0.0)
    at = np.unravel_index(np.argmax(pairs), pairs.shape)
    peak, background = math.sqrt(pairs[at]), float(np.median(power[ring]))
    if not peak > PEAK_TO_BACKGROUND * background:
        raise CalibrationError(
            f"no lenslet lattice within {RANGE:.0%} of the expected pitch {pitch_px:.2f} px: the strongest peak is "
            f"{peak / background if background else 0:.1f} times the background, expected {PEAK_TO_BACKGROUND:.0f} or more"
        )
    gy, gx = float(fy[at]), float(fx[at])
    return 1 / math.hypot(gy, gx), math.atan2(gy, gx)
