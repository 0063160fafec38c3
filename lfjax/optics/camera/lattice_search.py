"""Which lattice a frame shows: peaks of its spectrum, and the coarsest reciprocal lattice that explains them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from lfjax.optics.camera.lattice_cells import Lattice

PEAKS = 48  # strongest peaks of the spectrum that are looked at
STARTS = 20  # strongest peaks of which every pair is tried as a basis
PEAK_TO_BACKGROUND = 8.0  # least amplitude of a peak over the median of its ring
RANGE = 3.3  # largest ratio of found and expected pitch
EXPLAINED = 0.88  # share of the best explanation's power that suffices for a lattice with fewer harmonics
LEAST_BINS = 4.5  # least frequency of a peak, in periods per frame: below are vignetting and the sample
RINGS = 48


class Spectrum(NamedTuple):
    """Peaks of a frame's spectrum, strongest first: frequencies (k, 2) in (y, x) per pixel, powers above the background (k,).

    `contrast` is the amplitude of the strongest value of the searched band over its background, `bin` the sampling step.
    """

    frequencies: NDArray[np.float64]
    powers: NDArray[np.float64]
    contrast: float
    bin: float


class Basis(NamedTuple):
    """A reciprocal lattice: reduced vectors (2, 2), shortest first, and the share of the peaks' power on its points."""

    vectors: NDArray[np.float64]
    share: float

    @property
    def angle(self) -> float:
        """Angle between the vectors, between pi/3 and pi/2."""
        a, b = self.vectors
        return math.acos(min(abs(float(a @ b)) / float(np.linalg.norm(a) * np.linalg.norm(b)), 1.0))

    @property
    def ratio(self) -> float:
        """Length of the second vector over that of the first, 1 or more."""
        a, b = np.linalg.norm(self.vectors, axis=1)
        return float(b / a)

    @property
    def kind(self) -> str | None:
        """ "square" (its two pitches may differ by a third), "hexagonal", or None: neither."""
        if self.angle > math.radians(80) and self.ratio < 4 / 3:
            return "square"
        return "hexagonal" if self.angle < math.radians(68) and self.ratio < 1.15 else None

    @property
    def pitch_px(self) -> float:
        """Distance of the lenslets: sqrt(|cell|), for a hexagonal lattice sqrt(2 |cell| / sqrt 3)."""
        cell = 1 / abs(float(np.linalg.det(self.vectors)))
        return math.sqrt(cell * (2 / math.sqrt(3) if self.kind == "hexagonal" else 1))

    def start(self) -> Lattice:
        """The lattice of this reciprocal basis, without an origin: e_x is the axis nearest to x."""
        y, x = self.vectors[0]
        if self.kind == "hexagonal":
            turn = math.radians(60)
            rotation = math.remainder(math.atan2(-x, y), turn)  # e_y lies along a shortest vector
            if abs(rotation) > turn / 4:
                rotation += turn if rotation > 0 else 2 * turn
            return Lattice(self.pitch_px, rotation, 0.0, 0.0, kind="hexagonal")
        angles = np.arctan2(self.vectors[:, 0], self.vectors[:, 1])  # of e_x, up to half a turn
        across = int(np.argmin([abs(math.remainder(angle, math.pi)) for angle in angles]))
        wide, high = (float(1 / np.linalg.norm(self.vectors[i])) for i in (across, 1 - across))
        return Lattice(wide, math.remainder(float(angles[across]), math.pi), 0.0, 0.0, high)

    def describe(self) -> str:
        """For error messages."""
        name = self.kind or f"oblique ({math.degrees(self.angle):.0f} degrees, ratio {self.ratio:.2f})"
        return f"{name} {self.pitch_px:.2f} px ({self.share:.0%} of the peaks' power)"


def find_peaks(signal: NDArray[np.float32], pitch_px: float) -> Spectrum:
    """Local maxima of the spectrum of a windowed frame that stand above the median of their ring.

    Args:
        signal: windowed frame (y, x) of mean zero.
        pitch_px: expected pitch, right to a factor `RANGE`.
    """
    side = scipy.fft.next_fast_len(max(*signal.shape, min(1024, 2 * max(signal.shape))), real=True)
    amplitude = np.abs(scipy.fft.rfft2(signal, (side, side), workers=-1))
    f = np.fft.fftfreq(side).astype(np.float32)
    radius = np.hypot(f[:, None], f[: side // 2 + 1])  # fftfreq has -1/2 at the end, of the same radius
    lowest = max(1 / (RANGE * pitch_px), LEAST_BINS / min(signal.shape))
    ring = np.minimum((np.sqrt(radius * 2) * RINGS).astype(np.int32), RINGS - 1)
    step = max(1, amplitude.size // 200_000)
    sample, labels = amplitude.ravel()[::step], ring.ravel()[::step]
    order = np.lexsort((sample, labels))
    first, last = (np.searchsorted(labels[order], np.arange(RINGS), side) for side in ("left", "right"))
    middle = np.minimum((first + last) // 2, len(order) - 1)
    background = np.maximum(sample[order][middle], 1e-6 * float(amplitude.max(initial=0.0)) + 1e-30)
    ratio = amplitude / background[ring]
    ratio[(radius < lowest) | (radius > 0.49)] = 0.0
    contrast = float(ratio.max())
    at = np.flatnonzero(ratio.ravel() > PEAK_TO_BACKGROUND)
    at = at[np.argsort(-amplitude.ravel()[at])][:20_000]
    rows, columns = np.divmod(at, amplitude.shape[1])
    rows = np.where(rows > side // 2, rows - side, rows)
    points, powers = _strongest(rows, columns, amplitude, max(2.5, 2.5 * side / max(signal.shape)))
    noise = background[np.minimum((np.sqrt(np.hypot(*points.T) / side * 2) * RINGS).astype(int), RINGS - 1)]
    return Spectrum(points / side, np.maximum(powers - noise**2, 0), contrast, 1 / max(signal.shape))


def _strongest(
    rows: NDArray[np.intp], columns: NDArray[np.intp], amplitude: NDArray[np.float32], apart: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (k, 2), between the samples, and powers of the strongest of the sorted samples that lie `apart` bins apart."""
    side, width = amplitude.shape
    points: list[tuple[float, float]] = []
    powers: list[float] = []
    left = np.ones(len(rows), bool)
    while left.any() and len(points) < PEAKS:
        i = int(np.argmax(left))
        y, x = int(rows[i]), int(columns[i])
        left &= np.hypot(rows - y, columns - x) > apart
        if x < apart:  # the half plane repeats the column x = 0
            left &= np.hypot(rows + y, columns + x) > apart
        near = amplitude[np.ix_(np.arange(y - 1, y + 2) % side, np.abs(np.arange(x - 1, x + 2)) % width)].astype(float)
        if near[1, 1] < near.max():  # the flank of a peak that was excluded
            continue
        points.append((y + _vertex(near[:, 1]), x + _vertex(near[1])))
        powers.append(float(near[1, 1] ** 2))
    return np.array(points, float).reshape(-1, 2), np.array(powers, float)


def _vertex(three: NDArray[np.float64]) -> float:
    """Place of the maximum of the parabola through three values about a maximum, in steps from the middle one."""
    a, b, c = np.log(np.maximum(three, 1e-30))
    bend = a - 2 * b + c
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (a - c) / bend, -0.5, 0.5))


def find_bases(spectrum: Spectrum, pitch_px: float) -> list[Basis]:
    """Reciprocal lattices spanned by two peaks, best first.

    A lattice and all its superlattices (2 p, sqrt(2) p) explain the same peaks; p / 2 and p / sqrt(2) explain fewer. So the
    best is the one of the largest reciprocal cell among those that explain `EXPLAINED` of the most that any of them does.

    Args:
        spectrum: peaks.
        pitch_px: expected pitch, right to a factor `RANGE`.
    """
    points, weights = spectrum.frequencies, spectrum.powers
    found: list[Basis] = []
    low, high = 1 / (RANGE * pitch_px), RANGE / pitch_px * 2 / math.sqrt(3)
    starts = [p for p in points if np.linalg.norm(p) < high][:STARTS]
    for i, a in enumerate(starts):
        for b in starts[i + 1 :]:
            vectors = _reduced(a, b)
            lengths = np.linalg.norm(vectors, axis=1)
            if lengths[0] < low or abs(np.linalg.det(vectors)) < 0.5 * lengths[0] * lengths[1]:
                continue
            if any(np.abs(vectors - v).max() < spectrum.bin for v in (f.vectors for f in found)):
                continue
            coordinates = points @ np.linalg.inv(vectors)
            order = np.abs(np.round(coordinates)).max(axis=1)
            miss = np.linalg.norm((coordinates - np.round(coordinates)) @ vectors, axis=1)
            on = miss < np.minimum((0.5 + 0.25 * order) * spectrum.bin, 0.15 * lengths[0])
            found.append(Basis(vectors, float(weights[on].sum() / weights.sum())))
    if not found:
        return []
    enough = EXPLAINED * max(b.share for b in found)
    return sorted(found, key=lambda b: (b.share < enough, -abs(np.linalg.det(b.vectors)) if b.share >= enough else -b.share))


def _reduced(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shortest basis of the lattice of a and b (Lagrange and Gauss), shortest first, at an angle of at most 90 degrees."""
    for _ in range(64):
        if a @ a > b @ b:
            a, b = b, a
        if not a.any():
            break
        k = np.round((a @ b) / (a @ a))
        if k == 0:
            break
        b = b - k * a
    a = a if (a[1], a[0]) > (0, 0) else -a
    return np.stack([a, b if a @ b >= 0 else -b])
