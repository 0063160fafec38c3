"""Energy axes of spectra, from what files say: a list of energies, or the coefficients of a polynomial, in eV or keV.

Where a file names no unit, the energy of the last channel tells it: X-ray spectra end between 1 and 200 keV, so up to 200 it is
keV, from 1000 it is eV; a file between the two is refused. Channel numbers (offset 0 or 1, gain 1, no unit) are no energies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lfjax.errors import FileError
from lfjax.io.cube import EnergyAxis

EV = {"ev": 1.0, "kev": 1e3, "electronvolt": 1.0, "electron volt": 1.0, "kiloelectronvolt": 1e3}
"""Unit of energy, in lower case -> eV."""
MOST_KEV, LEAST_EV = 200.0, 1000.0
STRAIGHT = 0.25  # of a channel: how far energies may lie off a straight line
LARGEST = 1e12


def polynomial_axis(
    path: str | Path, coefficients: Sequence[float] | np.ndarray, channels: int, unit: str | None, what: str
) -> EnergyAxis | None:
    """Axis of a calibration: offset, slope and, if there are more, coefficients of n^2, n^3, ..., n from 0.

    Args:
        path: of the file, for messages.
        coefficients: two or more.
        channels: number of channels.
        unit: of the energies; None or empty: not told, see above.
        what: which part of the file tells them, for messages.

    Returns:
        The axis. None: the calibration only numbers the channels.

    Raises:
        FileError: a coefficient is not finite, energies do not increase, the unit is none of energy, or the higher
            coefficients bend the axis by a quarter of a channel or more: lfjax has straight axes.
    """
    numbers = np.asarray(coefficients, np.float64).ravel()
    if len(numbers) < 2 or not (np.abs(numbers) < LARGEST).all():
        raise FileError(f"{path}: {what} is {_short(numbers)}; expected offset and slope, finite numbers")
    if numbers[2:].any():
        return listed_axis(path, np.polynomial.polynomial.polyval(np.arange(channels), numbers), unit, what)
    return _axis(path, float(numbers[0]), float(numbers[1]), channels, unit, what)


def listed_axis(path: str | Path, energies: Sequence[float] | np.ndarray, unit: str | None, what: str) -> EnergyAxis | None:
    """Axis of a list of energies, one per channel: the straight line of least squares.

    Args, result and errors are those of `polynomial_axis`; one energy alone has no gain: None.
    """
    listed = np.asarray(energies, np.float64).ravel()
    if not (np.abs(listed) < LARGEST).all():
        raise FileError(f"{path}: {what}: an energy is {listed[~(np.abs(listed) < LARGEST)][0]:g}; expected finite numbers")
    if len(listed) < 2:
        return None
    n = np.arange(len(listed)) - (len(listed) - 1) / 2
    gain = float(n @ (listed - listed.mean()) / (n @ n))
    axis = _axis(path, float(listed.mean() + gain * n[0]), gain, len(listed), unit, what)
    off = np.abs(listed - listed.mean() - gain * n)
    if off.max() >= STRAIGHT * gain:
        worst = int(off.argmax())
        told = f"channel {worst} is {off[worst] / gain:.3g} channels off a straight line (a quadratic or higher term)"
        raise FileError(f"{path}: {what}: {told}; expected energies offset + gain n, or say energy=EnergyAxis(...)")
    return axis


def points_axis(
    path: str | Path, points: Sequence[Sequence[float]], channels: int, unit: str | None, what: str
) -> EnergyAxis | None:
    """Axis through calibration points (channel, energy), by least squares; one point and the origin, if there is one.

    Args, result and errors are those of `polynomial_axis`; no points: None.
    """
    if not len(points):
        return None
    pairs = np.asarray(points if len(points) > 1 else [(0.0, 0.0), *points], np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not (np.abs(pairs) < LARGEST).all() or np.ptp(pairs[:, 0]) == 0:
        raise FileError(f"{path}: {what} is {_short(pairs.ravel())}; expected pairs of different channels and their energies")
    mean, energy = pairs.mean(0)
    n = pairs[:, 0] - mean
    gain = float(n @ (pairs[:, 1] - energy) / (n @ n))
    return _axis(path, float(energy - gain * mean), gain, channels, unit, what)


def _axis(path: str | Path, offset: float, gain: float, channels: int, unit: str | None, what: str) -> EnergyAxis | None:
    name = (unit or "").strip().lower()
    if not name and offset in (0.0, 1.0) and gain == 1.0:
        return None
    if not gain > 0:
        raise FileError(f"{path}: {what}: {gain:g} per channel; expected energies that increase")
    if name and name not in EV:
        raise FileError(f"{path}: {what}: energies in {unit!r}; expected eV or keV, or say energy=EnergyAxis(...)")
    last = offset + gain * (channels - 1)
    if not name and not (0 < last <= MOST_KEV or last >= LEAST_EV):
        told = f"energies end at {last:g}, without a unit"
        raise FileError(f"{path}: {what}: {told}; expected eV or keV, or say energy=EnergyAxis(...)")
    scale = EV[name] if name else EV["kev"] if last <= MOST_KEV else EV["ev"]
    return EnergyAxis(scale * offset, scale * gain)


def _short(numbers: np.ndarray) -> str:
    return f"[{', '.join(f'{number:g}' for number in numbers[:6])}{', ...' * (len(numbers) > 6)}]"
