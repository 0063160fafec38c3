"""How far from the centre of their boxes the images hold signal: whether a ball holds the particle.

Noise has one variance over an image; the particle adds to it. With v(r) the mean over images of the squared pixels at distance
r from the centre, beyond those of the corners of the same image, the signal within r is the sum of v over the disc. (A particle
of a ball of radius a projects into a disc of radius a, whatever its pose.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from lfjax.errors import require, require_shape

SURE = 5.0  # standard errors by which a signal counts as one
REST = 0.005  # share of the signal that may lie beyond the radius told
EDGE = 0.03  # box lengths by which the middle of the soft edge of a ball lies beyond it


class Support(NamedTuple):
    """Where the signal of images lies.

    Attributes:
        beyond: share of the signal beyond the ball; NaN: there is no signal above the noise.
        error: its standard error.
        radius_px: radius of the disc with all but half a percent of the signal, as far as the noise tells.
    """

    beyond: float
    error: float
    radius_px: float

    @property
    def sure(self) -> float:
        """Share of the signal beyond the ball that is no chance: 0 where it is less than five standard errors."""
        return self.beyond if self.beyond > SURE * self.error else 0.0


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
    sums = np.stack([np.bincount(ring, square, n // 2 + 1) for square in squares])  # the last ring: the corners
    signal = sums[:, :-1] - sums[:, -1:] / pixels[-1] * pixels[:-1]
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
    edge = int(round(radius_px + EDGE * n + shift_px))
    if edge >= len(share) - 1:
        return Support(0.0, 0.0, float(last))
    return Support(float(share[edge]), float(errors[edge]), float(last))
