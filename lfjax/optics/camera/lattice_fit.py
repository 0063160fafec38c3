"""Newton's method on the Fourier power of a frame at the harmonics of a lattice, evaluated exactly between FFT samples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lfjax.errors import CalibrationError
from lfjax.optics.camera.lattice_cells import KINDS, Lattice

HARMONICS: dict[str, tuple[tuple[int, int], ...]] = {
    "square": ((0, 1), (1, 0), (1, 1), (-1, 1), (0, 2), (2, 0)),
    "hexagonal": ((1, 1), (-1, 1), (0, 2), (2, 0), (1, 3), (-1, 3)),
}
"""Harmonics (m, n) = m a + n b of the cell that are fitted, lowest first; a and b are the reciprocal vectors of x and y."""

# Errors of the pitch, pitch^2 / (100 field) each, within which both pitches count as equal. Real arrays are a little distorted:
# the vesicle's pitches differ by 4.3 errors, and its volume predicts withheld pixels better with one pitch than with two.
ISOTROPIC = 8.0
SHEAR = 0.25  # largest displacement, in pitches at the edge of the frame, by axes that are not perpendicular
NEWTON_STEPS = 50  # limit; about five are needed
STEP_TOLERANCE = 1e-7  # relative change of the parameters below which a step is not halved further
SMALL_GAIN = 1e-6  # relative gain of power expected of the last step


def windowed(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Image less its mean, times a Hann window."""
    rows, columns = (np.hanning(n + 2)[1:-1].astype(np.float32) for n in image.shape)
    mean = float(rows @ image @ columns) / (float(rows.sum()) * float(columns.sum()))
    out = image - np.float32(mean)
    out *= rows[:, None]
    out *= columns
    return out


def fit_cells(
    signal: NDArray[np.float32], start: Lattice, rotation_rad: float | None = None, *, equal: bool | None = None
) -> Lattice:
    """Pitch, or both pitches, and rotation at which the harmonics of the lattice have the greatest power.

    Args:
        signal: windowed frame of mean zero, in which lenslets are bright.
        start: pitches and rotation to start from; its origin is not used.
        rotation_rad: rotation to be kept; None: it is fitted.
        equal: the pitches have the ratio that belongs to the kind of lattice; False: both are fitted; None: both are fitted,
            and taken to have this ratio if they do so within the error.

    Returns:
        The lattice, its origin on the bright lenslet nearest to the middle of the frame.

    Raises:
        CalibrationError: the axes are not perpendicular.
    """
    if not equal:
        free = _fitted(signal, start, rotation_rad)
        high, wide = free.cell_px[0] / KINDS[start.kind], free.pitch_px
        error = wide**2 / (100 * min(signal.shape))
        if equal is False or abs(high - wide) > ISOTROPIC * error:
            return _centred(signal, free)
        start = free._replace(pitch_px=2 * high * wide / (high + wide), pitch_y_px=None)
    return _centred(signal, _fitted(signal, start, rotation_rad, equal=True))


def _fitted(signal: NDArray[np.float32], start: Lattice, rotation_rad: float | None, equal: bool = False) -> Lattice:
    """Maximum over the parameters that are free, without the origin."""
    order = np.array(HARMONICS[start.kind], float)
    start = start if rotation_rad is None else start._replace(rotation_rad=rotation_rad)
    high, wide = start.cell_px
    ratio = KINDS[start.kind]
    e_y, e_x = start.axes
    m, n = order[:, 0, None], order[:, 1, None]
    if rotation_rad is not None:
        design = np.stack([m * e_x, n * e_y], axis=-1)
        found = np.array([1 / wide, 1 / high])
        if equal:
            design = (m * e_x + n * e_y / ratio)[..., None]
            found = found[:1]
        found = maximise_power(signal, design, found)
        return start._replace(pitch_px=float(1 / found[0]), pitch_y_px=None if equal else float(1 / found[1]))
    if equal:  # a = (v, u), b = (u, -v) / ratio in (y, x), (u, v) = (cos r, sin r) / pitch
        n = n / ratio
        design = np.stack([np.hstack([n, m]), np.hstack([m, -n])], axis=1)
        u, v = maximise_power(signal, design, np.array([math.cos(start.rotation_rad), math.sin(start.rotation_rad)]) / wide)
        return start._replace(pitch_px=float(1 / math.hypot(u, v)), rotation_rad=math.atan2(v, u), pitch_y_px=None)
    zero = np.zeros_like(m)
    design = np.stack([np.hstack([m, zero, n, zero]), np.hstack([zero, m, zero, n])], axis=1)
    vectors = maximise_power(signal, design, np.concatenate([e_x / wide, e_y / high])).reshape(2, 2)
    of_x, of_y = math.atan2(vectors[0, 0], vectors[0, 1]), math.atan2(-vectors[1, 1], vectors[1, 0])
    shear = math.remainder(of_y - of_x, 2 * math.pi)
    if abs(shear) * min(signal.shape) / 2 > SHEAR * start.pitch_px:
        raise CalibrationError(
            f"the axes of the lattice found are {90 + math.degrees(shear):.2f} degrees apart: expected 90; "
            f"pitches {1 / np.linalg.norm(vectors[0]):.2f} and {1 / np.linalg.norm(vectors[1]):.2f} px"
        )
    wide, high = (float(1 / length) for length in np.linalg.norm(vectors, axis=1))
    return start._replace(pitch_px=wide, pitch_y_px=high, rotation_rad=of_x + shear / 2)


def _centred(signal: NDArray[np.float32], lattice: Lattice) -> Lattice:
    """The lattice with the bright lenslet nearest to the middle as its origin, from the phases of its first harmonics."""
    order = np.array(HARMONICS[lattice.kind][:2], float)[:, ::-1]  # (n, m), as (Y, X)
    phases = np.angle(amplitudes(signal, order / lattice.cell_px @ lattice.axes))
    middle = (np.array(signal.shape) - 1) / 2
    y, x = middle - np.linalg.solve(order, phases / (2 * np.pi)) * lattice.cell_px @ lattice.axes
    return lattice._replace(origin_y_px=float(y), origin_x_px=float(x)).moved(middle)


def maximise_power(signal: NDArray[np.float32], design: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Parameters t that maximise P(t) = sum_h |F(D_h t)|^2, by Newton steps that are halved until the power grows.

    Args:
        signal: windowed frame (y, x) of mean zero; F is its Fourier transform about the middle of the frame.
        design: D, (h, 2, k): the frequency (y, x) of harmonic h, per pixel, is D_h t.
        start: t (k,), inside the main lobe of the maximum.
    """
    parameters = np.asarray(start, np.float64)
    power, gradient, hessian = _power(signal, design, parameters)
    for _ in range(NEWTON_STEPS):
        values, directions = np.linalg.eigh(hessian)
        step = directions @ ((directions.T @ gradient) / np.maximum(np.abs(values), 1e-12 * np.abs(values).max()))
        if (
            0.5 * float(gradient @ step) < SMALL_GAIN * power
        ):  # too small to be seen in float32, and the error of a step squared
            return parameters + step
        while np.linalg.norm(step) > STEP_TOLERANCE * np.linalg.norm(parameters):
            new = _power(signal, design, parameters + step)
            if new[0] > power:
                break
            step = step / 2
        else:
            return parameters
        parameters, (power, gradient, hessian) = parameters + step, new
    return parameters


def amplitudes(signal: NDArray[np.float32], frequencies: NDArray[np.float64]) -> NDArray[np.complex128]:
    """F (h,) at the frequencies (h, 2), per pixel, about the middle of the frame."""
    return moments(signal, frequencies, 1)[0, 0]


def moments(signal: NDArray[np.float32], frequencies: NDArray[np.float64], orders: int) -> NDArray[np.complex128]:
    """Moments sum y^k x^l I(y, x) exp(-2 pi i g . (y, x)) about the middle of the frame, (k, l, h) for k, l < `orders`.

    y and x run from -1 to 1 in the powers, so that float32 suffices. The frame is real: one real matrix product computes the
    sums along y of all harmonics.
    """
    (y, x), powers = (np.arange(n) - (n - 1) / 2 for n in signal.shape), np.arange(orders)[:, None, None]
    along_y, along_x = (
        (2 * t / len(t)) ** powers * np.exp(-2j * np.pi * np.outer(g, t)) for t, g in zip((y, x), frequencies.T, strict=True)
    )
    rows = np.stack([along_y.real, along_y.imag]).reshape(-1, len(y)).astype(np.float32) @ signal
    real, imag = rows.astype(np.float64).reshape(2, orders, len(frequencies), len(x))
    return np.einsum("khx,lhx->klh", real + 1j * imag, along_x)


def _power(
    signal: NDArray[np.float32], design: NDArray[np.float64], parameters: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Power, its gradient (k,) and its Hessian (k, k)."""
    m = moments(signal, design @ parameters, 3)
    fy, fx = (-1j * np.pi * n for n in signal.shape)  # -2 pi i, times half a side: the unit of the moments
    first = np.stack([fy * m[1, 0], fx * m[0, 1]], axis=-1)
    second = np.stack([fy * fy * m[2, 0], fy * fx * m[1, 1], fy * fx * m[1, 1], fx * fx * m[0, 2]], axis=-1).reshape(-1, 2, 2)
    gradient = 2 * (m[0, 0].conj()[:, None] * first).real
    curvature = 2 * (first.conj()[:, :, None] * first[:, None] + m[0, 0].conj()[:, None, None] * second).real
    return (
        float(np.sum(np.abs(m[0, 0]) ** 2)),
        np.einsum("hi,hia->a", gradient, design),
        np.einsum("hij,hia,hjb->ab", curvature, design, design),
    )
