"""The lenslet lattice of a raw camera frame: pitch, rotation and offset, measured from its Fourier peaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfjax.errors import CalibrationError, require_shape

HARMONICS = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2))
PEAK_TO_BACKGROUND = 8.0  # least ratio of a lattice peak to the median of the ring in which it is searched
NEWTON_STEPS = 50  # limit; about five are needed
STEP_TOLERANCE = 1e-10  # relative change of pitch and rotation at which the iteration stops
RANGE = 0.28  # fraction of the expected pitch; below sqrt(2) - 1, or the diagonal harmonic could be mistaken for the pitch


class Lattice(NamedTuple):
    """A square lattice of lenslet centres in raw pixels: centre(Y, X) = origin + pitch (Y e_y + X e_x).

    e_x = (sin r, cos r) and e_y = (cos r, -sin r) in (y, x): a positive rotation turns the rows of lenslets from the x axis
    towards larger y, clockwise on a screen whose y axis points down.

    Attributes:
        pitch_px: distance between lenslet centres.
        rotation_rad: r, between -pi/4 and pi/4.
        origin_y_px: y of the centre of the lenslet nearest to the middle of the frame; pixel centres are whole numbers.
        origin_x_px: x of that centre.
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

    def to_raw(self, lenslets: ArrayLike | Sequence[float]) -> NDArray[np.float64]:
        """Raw pixel positions (..., 2) of lattice coordinates (Y, X); lenslet centres are whole numbers."""
        return np.array([self.origin_y_px, self.origin_x_px]) + self.pitch_px * np.asarray(lenslets) @ self.axes

    def to_lattice(self, pixels: ArrayLike | Sequence[float]) -> NDArray[np.float64]:
        """Lattice coordinates (..., 2) of raw pixel positions (y, x); inverse of `to_raw`."""
        return (np.asarray(pixels) - np.array([self.origin_y_px, self.origin_x_px])) @ self.axes.T / self.pitch_px


def find_lattice(frame: ArrayLike, pitch_px: float) -> Lattice:
    """Measure the lattice in a white frame or in a light field.

    Newton's method maximises the power sum_h |F(g_h)|^2 of the windowed frame's Fourier transform at the low harmonics g_h of a
    square reciprocal lattice, over pitch and rotation. It starts at the best FFT sample near the expected pitch. The phases of
    the first two harmonics give the offset. F is evaluated exactly between FFT samples, so the error of the pitch is about
    pitch^2 / (100 field).

    Args:
        frame: raw frame (y, x), with or without its dark level.
        pitch_px: expected pitch in raw pixels, right to 28 %.

    Raises:
        CalibrationError: the frame is smaller than six lenslets, or shows no lattice near this pitch.
    """
    image = np.asarray(frame, np.float64)
    require_shape("frame", image.shape, ("y", "x"))
    if min(image.shape) < 6 * pitch_px:
        raise CalibrationError(f"frame has shape {image.shape}: expected six lenslets of {pitch_px:.2f} px or more per side")
    window = np.hanning(image.shape[0] + 2)[1:-1, None] * np.hanning(image.shape[1] + 2)[None, 1:-1]
    signal = window * (image - np.average(image, weights=window))
    vector = _maximise(signal, _coarse_peak(signal, pitch_px))
    pitch, rotation = 1 / math.hypot(*vector), math.atan2(vector[1], vector[0])
    phases = np.angle(_moments(signal, _harmonics(vector)[:2])[0, 0])
    axes = Lattice(pitch, rotation, 0, 0).axes
    origin = (np.array(image.shape) - 1) / 2 - pitch * phases / (2 * np.pi) @ axes
    return Lattice(pitch, rotation, float(origin[0]), float(origin[1]))


def _harmonics(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequencies (h, 2) in (y, x) of the harmonics (m, n): m (u, -v) + n (v, u), for (u, v) = (cos r, sin r) / pitch."""
    return _DERIVATIVES @ vector


# derivatives of the frequency of each harmonic (m, n) by (u, v)
_DERIVATIVES = np.array([[[m, n], [n, -m]] for m, n in HARMONICS], float)


def _moments(signal: NDArray[np.float64], frequencies: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Moments sum y^k x^l I(y, x) exp(-2 pi i g . (y, x)) about the middle of the frame, (k, l, h) for k, l = 0, 1, 2.

    The frame is real: one real matrix product computes the sums along y of all harmonics.
    """
    (y, x), powers = (np.arange(n) - (n - 1) / 2 for n in signal.shape), np.arange(3)[:, None, None]
    along_y, along_x = (t**powers * np.exp(-2j * np.pi * np.outer(g, t)) for t, g in zip((y, x), frequencies.T, strict=True))
    rows = np.stack([along_y.real, along_y.imag]).reshape(-1, len(y)) @ signal
    real, imag = rows.reshape(2, 3, len(frequencies), len(x))
    return np.einsum("khx,lhx->klh", real + 1j * imag, along_x)


def _power(signal: NDArray[np.float64], vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Power P = sum_h |F(g_h)|^2 at (u, v), with its gradient and its Hessian."""
    m = _moments(signal, _harmonics(vector))
    factor = -2j * np.pi
    first = factor * np.stack([m[1, 0], m[0, 1]], axis=-1)
    second = factor**2 * np.stack([m[2, 0], m[1, 1], m[1, 1], m[0, 2]], axis=-1).reshape(-1, 2, 2)
    gradient = 2 * (m[0, 0].conj()[:, None] * first).real
    curvature = 2 * (first.conj()[:, :, None] * first[:, None] + m[0, 0].conj()[:, None, None] * second).real
    return (
        float(np.sum(np.abs(m[0, 0]) ** 2)),
        np.einsum("hi,hia->a", gradient, _DERIVATIVES),
        np.einsum("hij,hia,hjb->ab", curvature, _DERIVATIVES, _DERIVATIVES),
    )


def _maximise(signal: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maximum of `_power` from a start inside its main lobe, by Newton steps that are halved until the power grows."""
    power, gradient, hessian = _power(signal, vector)
    for _ in range(NEWTON_STEPS):
        values, directions = np.linalg.eigh(hessian)
        step = directions @ ((directions.T @ gradient) / np.maximum(np.abs(values), 1e-12 * np.abs(values).max()))
        while np.linalg.norm(step) > STEP_TOLERANCE * np.linalg.norm(vector):
            new = _power(signal, vector + step)
            if new[0] > power:
                break
            step = step / 2
        else:
            return vector
        vector, (power, gradient, hessian) = vector + step, new
    return vector


def _coarse_peak(signal: NDArray[np.float64], pitch_px: float) -> NDArray[np.float64]:
    """(u, v) of the strongest pair of perpendicular FFT peaks within `RANGE` of the expected pitch."""
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
    return np.array([fx[at], fy[at]])
