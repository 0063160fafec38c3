"""Evidence for a lattice that the sample cannot bend: the holes between the pupils, which are dark behind every lenslet.

A point out of focus lights a train of spots whose period differs from the pitch, so the bright parts of a light field bend a
lattice that is fitted to them. The corners between the images of the pupil are dark whatever the sample, if anything near them
is bright. The sample is therefore flattened, only its dark parts are kept, and each neighbourhood counts alike.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from lfjax.optics.camera.lattice import Lattice
from lfjax.optics.camera.lattice_fit import amplitudes

HOLES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((0.5, 0.5),),
    "hexagonal": ((1 / 3, 0.0), (-1 / 3, 0.0), (1 / 6, 0.5), (-1 / 6, 0.5)),
}
"""Points (Y, X) of a cell farthest from all lenslets."""

HOLE_SIZE = 0.1  # standard deviation of the Gaussian that stands for a hole, in pitches
OFFSETS = 24  # places per side of a cell at which the holes are sought
TILE = 5.0  # least side of a tile, in pitches
MOST_TILES = 6  # per side
VOTE = 0.6  # least response of a tile that shows holes
LIMIT = 2.0  # largest darkness, in standard deviations of its neighbourhood


def darkness(image: NDArray[np.float32], pitch_px: float) -> NDArray[np.float32]:
    """How much darker each pixel is than its neighbourhood: about 2 in the holes between pupils, about 0 on average.

    d = min(log I - <log I>, 0), bounded, band-passed about the size of a hole, over its local standard deviation.

    Args:
        image: frame (y, x), finite.
        pitch_px: pitch right to some 20 %: <> averages over a Gaussian of this standard deviation.
    """
    sample = image.ravel()[:: max(1, image.size // 100_000)]
    low, high = np.quantile(sample, [0.002, 0.99])
    shape = image.shape
    padded = np.pad(image, [(0, scipy.fft.next_fast_len(n, real=True) - n) for n in shape], "symmetric")
    light = np.maximum(padded - np.float32(low), 0)
    floor = 0.1 * float(np.mean(np.minimum(sample - low, high - low).clip(0)))
    log = np.log(light + np.float32(floor + 1e-30))
    dark = np.clip(log - _blurred(log, pitch_px), -2, 0)
    holes = _blurred(dark, 0.6 * pitch_px, HOLE_SIZE * pitch_px)
    spread = _blurred(holes * holes, 2 * pitch_px)
    return np.minimum(holes / np.sqrt(np.maximum(spread, 0) + 1e-4), LIMIT)[: shape[0], : shape[1]].clip(-LIMIT)


def _blurred(image: NDArray[np.float32], wide: float, narrow: float | None = None) -> NDArray[np.float32]:
    """Image blurred by a Gaussian of standard deviation `wide`; with `narrow`: that, less the image blurred by `narrow`."""
    f = [np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])]
    rows, columns = (np.exp(-2 * (math.pi * wide * g) ** 2).astype(np.float32) for g in f)
    spectrum = scipy.fft.rfft2(image, workers=-1)
    if narrow is None:
        spectrum *= rows * columns
    else:
        fine_rows, fine_columns = (np.exp(-2 * (math.pi * narrow * g) ** 2).astype(np.float32) for g in f)
        spectrum *= rows * columns - fine_rows * fine_columns
    return scipy.fft.irfft2(spectrum, image.shape, workers=-1)


def hole_response(dark: NDArray[np.float32], lattice: Lattice, tiles: int = 1) -> NDArray[np.float64]:
    """Mean darkness (tile, tile, Y, X) at the holes, for the lattice moved by Y / OFFSETS and X / OFFSETS of its cell.

        R(o) = sum_h G_h conj(S_h) T_h exp(2 pi i h . o),  T_h: Fourier coefficient of `dark` on harmonic h of the lattice

    G is the spectrum of a Gaussian hole and S that of the places of the holes. A lattice of round pupils has about 1.7 at the
    right offset, noise about 0.

    Args:
        dark: `darkness` of a frame.
        lattice: pitches, rotation and origin from which the offsets count.
        tiles: parts per side into which the frame is cut; each has its own response.
    """
    order, steps = _harmonics(lattice)
    high, wide = lattice.cell_px
    frequencies = order / (high, wide) @ lattice.axes
    radius = np.linalg.norm(order / (high, wide), axis=1) * lattice.pitch_px
    gauss = np.exp(-2 * (math.pi * HOLE_SIZE * radius) ** 2)
    holes = np.exp(2j * np.pi * order @ np.array(HOLES[lattice.kind]).T).mean(axis=1)
    waves = np.exp(2j * np.pi * order @ steps.T)
    edges = [np.linspace(0, n, tiles + 1).astype(int) for n in dark.shape]
    out = np.empty((tiles, tiles, OFFSETS, OFFSETS))
    for i in range(tiles):
        for j in range(tiles):
            (top, bottom), (left, right) = (e[k : k + 2] for e, k in zip(edges, (i, j), strict=True))
            part = dark[top:bottom, left:right]
            middle = np.array([(top + bottom - 1) / 2, (left + right - 1) / 2])
            shift = np.exp(-2j * np.pi * (frequencies @ (middle - (lattice.origin_y_px, lattice.origin_x_px))))
            coefficients = amplitudes(part, frequencies) * shift / part.size
            out[i, j] = 2 * ((coefficients * gauss * holes) @ waves).real.reshape(OFFSETS, OFFSETS)
    return out


def _harmonics(lattice: Lattice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Harmonics (h, 2) as (n along Y, m along X) of one half plane, within 3.2 / pitch, and the offsets (OFFSETS^2, 2)."""
    high, wide = lattice.cell_px
    reach = [math.floor(3.2 * side / lattice.pitch_px) for side in (high, wide)]
    n, m = (g.ravel() for g in np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"))
    keep = ((n > 0) | ((n == 0) & (m > 0))) & (np.hypot(n / high, m / wide) * lattice.pitch_px <= 3.2)
    if lattice.kind == "hexagonal":
        keep &= (n + m) % 2 == 0  # a centred cell has no others
    steps = np.arange(OFFSETS) / OFFSETS
    return np.stack([n, m], axis=1)[keep].astype(float), np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)


def best_offset(response: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Largest value of a response (Y, X), and its place in cells, from -1/2 to 1/2, both between the samples."""
    y, x = np.unravel_index(int(np.argmax(response)), response.shape)
    near = response[np.ix_(np.arange(y - 1, y + 2) % OFFSETS, np.arange(x - 1, x + 2) % OFFSETS)]
    value, place = float(near[1, 1]), []
    for at, (a, b, c) in ((y, near[:, 1]), (x, near[1])):
        bend = float(a - 2 * b + c)
        step = 0.0 if bend >= 0 else 0.5 * float(a - c) / bend
        value -= 0.25 * float(a - c) * step
        place.append((int(at) + step) / OFFSETS)
    offset = np.array(place)
    return value, offset - np.round(offset)


class Votes(NamedTuple):
    """The evidence of the parts of a frame for a lattice.

    Attributes:
        response: mean darkness at the holes, at the best offset; about 1.7 for round pupils, 0 for noise.
        offset: this offset (Y, X), in cells.
        tiles: number of parts.
        voting: number of those in which holes are seen.
        scatter: root mean square distance of their holes from the lattice, in pitches.
    """

    response: float
    offset: NDArray[np.float64]
    tiles: int
    voting: int
    scatter: float


def hole_votes(dark: NDArray[np.float32], lattice: Lattice) -> Votes:
    """Ask each part of the frame where its holes are: a lattice is one for the whole frame, the sample is not.

    Simulated spots that bend the lattice by a sixth of a cell at the edge scatter by 0.05 pitches or more; where the lattice is
    right within a twelfth the holes scatter by 0.005 to 0.05 pitches.
    """
    tiles = int(np.clip(min(dark.shape) / (TILE * max(lattice.cell_px)), 2, MOST_TILES))
    responses = hole_response(dark, lattice, tiles)
    value, offset = best_offset(responses.mean(axis=(0, 1)))
    parts = [best_offset(r) for r in responses.reshape(-1, OFFSETS, OFFSETS)]
    far = np.array([distance_px(lattice, o - offset) / lattice.pitch_px for v, o in parts if v > VOTE])
    return Votes(value, offset, len(parts), len(far), math.sqrt(float(np.mean(far**2))) if len(far) else math.inf)


def distance_px(lattice: Lattice, offset: NDArray[np.float64]) -> float:
    """Distance of lattice coordinates (Y, X) from the nearest lenslet, in pixels."""
    shifts = ((0.0, 0.0), (0.5, 0.5))[: 1 + (lattice.kind == "hexagonal")]
    return min(float(np.hypot(*((offset - s - np.round(offset - s)) * lattice.cell_px))) for s in shifts)
