"""How good a reconstruction is: error, structural similarity, correlation, and the lenslet lattice printed onto it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from lfjax.errors import ShapeError, require, require_shape


def psnr(x: ArrayLike | Array, truth: ArrayLike | Array, data_range: float | None = None) -> Float[Array, ""]:
    """Peak signal-to-noise ratio, 10 log10(range^2 / mean (x - truth)^2), in dB.

    Args:
        x: any shape.
        truth: of the same shape.
        data_range: the range; max(truth) - min(truth) if not given.

    Raises:
        ShapeError: the shapes differ.
    """
    x, truth = _pair(x, truth)
    span = jnp.ptp(truth) if data_range is None else data_range
    return 10 * jnp.log10(span**2 / jnp.mean((x - truth) ** 2))


def ssim(
    x: ArrayLike | Array, truth: ArrayLike | Array, data_range: float | None = None, *, window: int = 7
) -> Float[Array, ""]:
    """Mean structural similarity over all uniform windows that lie wholly inside the images; 1 for equal images.

        SSIM = (2 m_x m_t + C1) (2 c_xt + C2) / ((m_x^2 + m_t^2 + C1) (v_x + v_t + C2))
        C1 = (0.01 range)^2,  C2 = (0.03 range)^2

    with the means, sample variances and covariance of a window (Wang et al., IEEE Trans. Image Process. 13, 600, 2004,
    eq. 13). It is the number that scikit-image gives with its defaults.

    Args:
        x: image (y, x) or volume (z, y, x).
        truth: of the same shape.
        data_range: the range; max(truth) - min(truth) if not given.
        window: side of the window, odd.

    Raises:
        ShapeError: the shapes differ, or an axis is shorter than the window.
        ParameterError: the window is even or smaller than 3.
    """
    require(window >= 3 and window % 2 == 1, "window", window, "an odd whole number, 3 or more")
    x, truth = _pair(x, truth)
    if min(truth.shape, default=0) < window:
        raise ShapeError(f"truth has shape {truth.shape}: expected {window} (the window) or more along every axis")
    span = jnp.ptp(truth) if data_range is None else data_range
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    sample = window**truth.ndim / (window**truth.ndim - 1)
    # Variances about a common level, since E[x^2] - E[x]^2 of a bright, flat image loses its digits in float32.
    level = jnp.mean(truth)
    a, b = x - level, truth - level
    mean_a, mean_b = _window_mean(a, window), _window_mean(b, window)
    var_a = sample * (_window_mean(a * a, window) - mean_a**2)
    var_b = sample * (_window_mean(b * b, window) - mean_b**2)
    cov = sample * (_window_mean(a * b, window) - mean_a * mean_b)
    mean_x, mean_t = mean_a + level, mean_b + level
    luminance = (2 * mean_x * mean_t + c1) / (mean_x**2 + mean_t**2 + c1)
    return jnp.mean(luminance * (2 * cov + c2) / (var_a + var_b + c2))


def correlation(a: ArrayLike | Array, b: ArrayLike | Array, mask: ArrayLike | Array | None = None) -> Float[Array, ""]:
    """Pearson correlation sum (a - <a>)(b - <b>) / sqrt(sum (a - <a>)^2 sum (b - <b>)^2) inside a mask.

    Args:
        a: any shape.
        b: of the same shape.
        mask: where it is true counts, of the same shape; everywhere if not given.

    Returns:
        A number from -1 to 1; nan where a or b is constant or the mask is empty, since there is none.

    Raises:
        ShapeError: the shapes differ.
    """
    a, b = _pair(a, b)
    inside = jnp.ones(a.shape, bool) if mask is None else jnp.asarray(mask).astype(bool)
    require_shape("mask", inside.shape, a.shape)
    da, db = (jnp.where(inside, v - jnp.mean(v, where=inside), 0) for v in (a, b))
    return jnp.sum(da * db) / (jnp.linalg.norm(da.ravel()) * jnp.linalg.norm(db.ravel()))


def match_scale(x: ArrayLike | Array, truth: ArrayLike | Array) -> Float[Array, ""]:
    """The factor c that minimises |c x - truth|^2, <x, truth> / <x, x>; 0 where x is zero.

    Args:
        x: any shape.
        truth: of the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    x, truth = _pair(x, truth)
    power = jnp.sum(x * x)
    return jnp.sum(x * truth) / jnp.where(power > 0, power, 1)


def lattice_energy(plane: ArrayLike | Array, voxels_per_lenslet: int) -> Float[Array, ""]:
    """Energy of a plane at the harmonics of the lenslet lattice: how strongly the grid of lenslets is printed onto it.

        E = sum over (a, b) in {0..s-1}^2 without (0, 0) of |F(a Y, b X)|^2

    where F is the discrete Fourier transform of the plane, of Y x X lenslets. These F are the transform of t, the s x s
    sum of all lenslets, so E = s^2 sum (t - <t>)^2 by Parseval, and no transform is needed.

    Args:
        plane: one depth (y, x), of whole lenslets.
        voxels_per_lenslet: s.

    Returns:
        The energy, in squared units of the plane times squared voxels.

    Raises:
        ShapeError: the plane does not hold whole lenslets.
    """
    plane, s = _floating(plane), voxels_per_lenslet
    require_shape("plane", plane.shape, ("y", "x"))
    if plane.shape[0] % s or plane.shape[1] % s:
        raise ShapeError(f"plane has shape {plane.shape}: expected multiples of voxels_per_lenslet = {s}")
    tile = plane.reshape(plane.shape[0] // s, s, plane.shape[1] // s, s).sum((0, 2))
    return s**2 * jnp.sum((tile - jnp.mean(tile)) ** 2)


def f1_score(found: ArrayLike | Array, truth: ArrayLike | Array, radius: float) -> float:
    """2 TP / (2 TP + FP + FN) of points, matched one to one so that the sum of distances is least (Hungarian method).

    Args:
        found: (m, 3), positions.
        truth: (n, 3), in the same units.
        radius: largest distance of a match.

    Returns:
        From 0 to 1; 1 where there is nothing to find and nothing was found.

    Raises:
        ShapeError: not lists of points of one dimension.
    """
    a, b = np.asarray(found, float), np.asarray(truth, float)
    require_shape("found", a.shape, ("m", "d"))
    require_shape("truth", b.shape, ("n", a.shape[1]))
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    cost = np.where(distance <= radius, distance, 1e6 * radius)  # first as many matches as possible, then near ones
    hits = int(np.sum(distance[linear_sum_assignment(cost)] <= radius))
    return 2 * hits / (len(a) + len(b))


def temporal_snr(trace: ArrayLike | Array, truth: ArrayLike | Array) -> Float[Array, ""]:
    """10 log10(|a t + b - mean|^2 / |trace - a t - b|^2) in dB, a t + b the best affine fit of the true trace t.

    With r the correlation of the two it is 10 log10(r^2 / (1 - r^2)): scale and offset do not matter.

    Args:
        trace: (t,), extracted.
        truth: (t,).

    Raises:
        ShapeError: the shapes differ.
    """
    r = correlation(trace, truth)
    return 10 * jnp.log10(r**2 / (1 - r**2))


def _window_mean(x: Float[Array, "..."], window: int) -> Float[Array, "..."]:
    """Mean of every window wholly inside, axis by axis."""
    for axis in range(x.ndim):
        sides = tuple(window if i == axis else 1 for i in range(x.ndim))
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, sides, (1,) * x.ndim, "VALID") / window
    return x


def _floating(x: ArrayLike | Array) -> Array:
    return jnp.asarray(x).astype(jnp.result_type(float))


def _pair(x: ArrayLike | Array, truth: ArrayLike | Array) -> tuple[Array, Array]:
    """Both as floating-point arrays of one shape."""
    a, b = _floating(x), _floating(truth)
    require_shape("first array", a.shape, b.shape)
    return a, b
