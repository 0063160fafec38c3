"""How far from the centre of their boxes the images hold signal: whether a ball holds the particle.

Noise has one variance over an image; the particle adds to it. With v(r) the mean over images of the squared pixels at distance
r from the centre, beyond those of the corners of the same image, the signal within r is the sum of v over the disc. (A particle
of a ball of radius a projects into a disc of radius a, whatever its pose.) Where rings between the particle and its neighbours
are darker than the corners, v is what lies beyond those.

Signal beyond a ball is the rest of a larger particle, or neighbours. The signal of a particle falls to nothing at its rim; that
of neighbours stays or rises from there on. So the particle ends at the first ring at which v has fallen to half its mean inside
the ball or less, and from which on it does not fall any more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from lfjax.errors import require, require_shape

SURE = 5.0  # standard errors by which a signal counts as one
REST = 0.005  # share of the signal that may lie beyond the radius told
FALLEN = 0.5  # of the signal per pixel inside the ball: beyond the rim of a particle there is less
LEVEL = 1.5  # factor between two rings' signals per pixel below which they count as equal
TOLD = 3.0  # standard errors by which a ring has more signal than another
WIDTH = 0.05  # box lengths: width of the rings that are compared
EDGE = 0.03  # box lengths by which the middle of the soft edge of a ball lies beyond it


class Support(NamedTuple):
    """Where the signal of images lies.

    Attributes:
        beyond: share of the signal beyond the ball; NaN: there is no signal above the noise.
        error: its standard error.
        radius_px: radius of the disc with all but half a percent of the signal, as far as the noise tells.
        particle_px: radius from which on the signal does not fall, the rim of the particle; NaN: the images do not tell it.
        ball_px: radius of the ball.
        edge_px: radius up to which signal counts as that of the ball: its soft edge and the displacements belong to it.
    """

    beyond: float
    error: float
    radius_px: float
    particle_px: float = float("nan")
    ball_px: float = float("nan")
    edge_px: float = float("nan")

    @property
    def sure(self) -> float:
        """Share of the signal beyond the ball that is no chance: 0 where it is less than five standard errors."""
        return self.beyond if self.beyond > SURE * self.error else 0.0

    @property
    def neighbours(self) -> bool | None:
        """Whether the signal beyond the ball is that of neighbours; False: of the particle; None: the images do not tell."""
        return True if self.particle_px <= self.ball_px else False if self.particle_px > self.edge_px else None


def signal_support(images: Float[NDArray[np.floating], "n y x"], radius_px: float, *, shift_px: float = 0.0) -> Support:
    """Share of the signal of images that lies beyond a ball about their centre.

    Args:
        images: (n, y, x), backgrounds of mean 0 and of one deviation.
        radius_px: radius of the ball, pixels.
        shift_px: standard deviation of the displacements of the particles; the ball counts as larger by it.

    Raises:
        ShapeError: the images are not square.
        ParameterError: the radius is not positive.
    """
    count, n = images.shape[0], images.shape[-1]
    require_shape("images", images.shape, (count, n, n))
    require(radius_px > 0, "radius_px", radius_px, "more than 0")
    x = np.arange(n) - n // 2
    distance = np.hypot(x, x[:, None])
    ring = np.minimum(np.rint(distance).astype(int), n // 2)
    pixels = np.bincount(ring.ravel(), minlength=n // 2 + 1)
    ring = ring.ravel()
    squares = (image.astype(np.float64).ravel() ** 2 for image in images)
    rows = [np.bincount(ring, square, n // 2 + 1) for square in squares]  # the last ring: the corners
    sums = np.stack(rows).astype(np.float64)
    edge = int(round(radius_px + EDGE * n + shift_px))
    signal = sums[:, :-1] - _floor(sums, pixels, edge)[:, None] * pixels[:-1]
    total = signal.sum(1)
    mean, error = total.mean(), total.std() / np.sqrt(count)
    if not mean > SURE * error:
        return Support(float("nan"), float("nan"), float("nan"))
    outer = signal.sum(1, keepdims=True) - np.cumsum(signal, axis=1)  # beyond each ring
    share = outer.mean(0) / mean
    errors = (outer - share * total[:, None]).std(0) / np.sqrt(count) / mean
    few = share <= np.maximum(REST, 2 * errors)
    beyond_all = np.flatnonzero(~few)
    last = int(beyond_all[-1]) + 1 if len(beyond_all) else 0
    if edge >= len(share) - 1:
        return Support(0.0, 0.0, float(last))
    rim = _rim(signal, pixels[:-1], edge)
    return Support(float(share[edge]), float(errors[edge]), float(last), rim, float(radius_px), float(edge))


def _floor(
    sums: Float[NDArray[np.float64], "n r"], pixels: Int[NDArray[np.int64], " r"], edge: int
) -> Float[NDArray[np.float64], " n"]:
    """Mean square of the noise in each image: that of its corners, or of rings beyond the ball that surely hold less.

    Where neighbours reach into the corners, the gap between them and the particle is the darkest place.
    """
    corners = sums[:, -1] / pixels[-1]
    rings = _densities(sums[:, :-1], pixels[:-1], max(2, edge // 4))[:, edge:]
    less = corners[:, None] - rings
    sure = less.mean(0) > SURE * less.std(0) / np.sqrt(len(less))
    return rings[:, np.argmax(less.mean(0) * sure)] if sure.any() else corners


def _densities(
    sums: Float[NDArray[np.float64], "n r"], pixels: Int[NDArray[np.int64], " r"], width: int
) -> Float[NDArray[np.float64], "n q"]:
    """Mean over the rings from q to q + width, of each image."""
    total, area = (np.concatenate([np.zeros((len(a), 1)), np.cumsum(a, axis=1)], 1) for a in (sums, pixels[None]))
    return (total[:, width:] - total[:, :-width]) / (area[:, width:] - area[:, :-width])


def _rim(signal: Float[NDArray[np.float64], "n r"], pixels: Int[NDArray[np.int64], " r"], edge: int) -> float:
    """First ring at which the signal per pixel is far below that inside the ball, and from which on it does not fall.

    Args:
        signal: (n, r), of each image and ring.
        pixels: (r,), of each ring.
        edge: ring of the ball's edge.
    """
    width = max(2, round(WIDTH * 2 * len(pixels)))
    near, broad = (_densities(signal, pixels, rings) for rings in (width, max(width, edge // 2)))
    inside = signal[:, :edge].sum(1) / pixels[:edge].sum()

    def more(one: NDArray[np.float64], other: NDArray[np.float64], factor: float) -> bool:
        surplus = one - other
        sure = surplus.mean() > TOLD * surplus.std() / np.sqrt(len(surplus))
        return bool(sure and one.mean() > factor * other.mean())

    for r in range(broad.shape[1] - width):
        here = near[:, r]
        if more(inside, here, 1 / FALLEN) and not all(more(here, far, LEVEL) for far in broad[:, r + width :].T):
            return float(r)
    return float("nan")
