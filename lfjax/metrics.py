"""Quality of a reconstruction: error, structural similarity, correlation, and the imprint of the lenslet lattice."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from lfjax.errors import ShapeError, require, require_shape


def psnr(x: ArrayLike, truth: ArrayLike, data_range: float | None = None) -> Float[Array, ""]:
    """Peak signal-to-noise ratio, 10 log10(range^2 / mean (x - truth)^2), in dB.

    Args:
        x: any shape.
        truth: the same shape.
        data_range: the range; None: max(truth) - min(truth).

    Raises:
        ShapeError: the shapes differ.
    """
    return _psnr(*_pair(x, truth), data_range)


@jax.jit
def _psnr(x: Float[Array, "*n"], truth: Float[Array, "*n"], data_range: Array | float | None) -> Float[Array, ""]:
    span = jnp.ptp(truth) if data_range is None else data_range
    return 10 * jnp.log10(span**2 / jnp.mean((x - truth) ** 2))


def ssim(x: ArrayLike, truth: ArrayLike, data_range: float | None = None, *, window: int = 7) -> Float[Array, ""]:
    """Mean structural similarity over all uniform windows inside the images; 1 for equal images.

        SSIM = (2 m_x m_t + C1) (2 c_xt + C2) / ((m_x^2 + m_t^2 + C1) (v_x + v_t + C2))
        C1 = (0.01 range)^2,  C2 = (0.03 range)^2

    with the means, sample variances and covariance of a window (Wang et al., IEEE Trans. Image Process. 13, 600, 2004,
    eq. 13). It equals the default of scikit-image.

    Args:
        x: image (y, x) or volume (z, y, x).
        truth: the same shape.
        data_range: the range; None: max(truth) - min(truth).
        window: side of the window, an odd number of pixels.

    Raises:
        ShapeError: the shapes differ, or an axis is shorter than the window.
        ParameterError: the window is even or less than 3.
    """
    require(window >= 3 and window % 2 == 1, "window", window, "an odd whole number, 3 or more")
    image, reference = _pair(x, truth)
    if min(reference.shape, default=0) < window:
        raise ShapeError(f"truth has shape {reference.shape}: expected {window} (the window) or more along every axis")
    return _ssim(image, reference, data_range, window)


@partial(jax.jit, static_argnames="window")
def _ssim(x: Float[Array, "*n"], truth: Float[Array, "*n"], data_range: Array | float | None, window: int) -> Float[Array, ""]:
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


def correlation(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> Float[Array, ""]:
    """Pearson correlation sum (a - <a>)(b - <b>) / sqrt(sum (a - <a>)^2 sum (b - <b>)^2) inside a mask.

    Args:
        a: any shape.
        b: the same shape.
        mask: the same shape, True for valid elements; None: all of them.

    Returns:
        A number from -1 to 1; nan, since it is undefined, if a or b is constant or the mask is empty.

    Raises:
        ShapeError: the shapes differ.
    """
    first, second = _pair(a, b)
    require_shape("mask", first.shape if mask is None else np.shape(mask), first.shape)
    return _correlation(first, second, None if mask is None else jnp.asarray(mask))


@jax.jit
def _correlation(a: Float[Array, "*n"], b: Float[Array, "*n"], mask: Array | None) -> Float[Array, ""]:
    inside = jnp.ones(a.shape, bool) if mask is None else mask.astype(bool)
    da, db = (_unit_peak(jnp.where(inside, v - jnp.mean(v, where=inside), 0)) for v in (a, b))
    return jnp.sum(da * db) / (jnp.linalg.norm(da.ravel()) * jnp.linalg.norm(db.ravel()))


def _unit_peak(v: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """v / max |v|, whose squares neither overflow nor vanish; 0 where v is."""
    peak = jnp.max(jnp.abs(v))
    return v / jnp.where(peak > 0, peak, 1)


def match_scale(x: ArrayLike, truth: ArrayLike) -> Float[Array, ""]:
    """The factor c that minimises |c x - truth|^2, <x, truth> / <x, x>; 0 if x is zero.

    Args:
        x: any shape.
        truth: the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    return _match_scale(*_pair(x, truth))


@jax.jit
def _match_scale(x: Float[Array, "*n"], truth: Float[Array, "*n"]) -> Float[Array, ""]:
    power = jnp.sum(x * x)
    return jnp.sum(x * truth) / jnp.where(power > 0, power, 1)


def lattice_energy(plane: ArrayLike, voxels_per_lenslet: int) -> Float[Array, ""]:
    """Energy of a plane at the harmonics of the lenslet lattice: the strength of the imprint of the lenslets.

        E = sum over (a, b) in {0..s-1}^2 without (0, 0) of |F(a Y, b X)|^2

    where F is the discrete Fourier transform of the plane, of Y x X lenslets. These F are the transform of t, the s x s
    sum of all lenslets, so E = s^2 sum (t - <t>)^2 by Parseval, without a transform.

    Args:
        plane: one depth, (y, x), a whole number of lenslets.
        voxels_per_lenslet: s.

    Returns:
        The energy, in squared units of the plane times squared voxels.

    Raises:
        ShapeError: the plane is not a whole number of lenslets.
    """
    values, s = _floating(plane), voxels_per_lenslet
    require_shape("plane", values.shape, ("y", "x"))
    if values.shape[0] % s or values.shape[1] % s:
        raise ShapeError(f"plane has shape {values.shape}: expected multiples of voxels_per_lenslet = {s}")
    return _lattice_energy(values, s)


@partial(jax.jit, static_argnames="s")
def _lattice_energy(plane: Float[Array, "y x"], s: int) -> Float[Array, ""]:
    tile = plane.reshape(plane.shape[0] // s, s, plane.shape[1] // s, s).sum((0, 2))
    return s**2 * jnp.sum((tile - jnp.mean(tile)) ** 2)


def f1_score(found: ArrayLike, truth: ArrayLike, radius: float) -> float:
    """2 TP / (2 TP + FP + FN) of points, matched one to one with the least sum of distances (Hungarian method).

    Args:
        found: (m, d), positions.
        truth: (n, d), in the same units.
        radius: largest distance of a match.

    Returns:
        From 0 to 1; 1 if there is nothing to find and nothing was found.

    Raises:
        ShapeError: the arrays are not lists of points of equal dimension.
    """
    a, b = np.asarray(found, float), np.asarray(truth, float)
    require_shape("found", a.shape, ("m", "d"))
    require_shape("truth", b.shape, ("n", a.shape[1]))
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    cost = np.where(distance <= radius, distance, 1e6 * radius)  # as many matches as possible, then the nearest
    from scipy.optimize import linear_sum_assignment  # takes longer to load than most commands need for the rest

    hits = int(np.sum(distance[linear_sum_assignment(cost)] <= radius))
    return 2 * hits / (len(a) + len(b))


def temporal_snr(trace: ArrayLike, truth: ArrayLike) -> Float[Array, ""]:
    """10 log10(|a t + b - mean|^2 / |trace - a t - b|^2) in dB, a t + b the best affine fit of the true trace t to `trace`.

    With r the correlation of the two, this is 10 log10(r^2 / (1 - r^2)), independent of scale and offset.

    Args:
        trace: (t,), extracted.
        truth: (t,).

    Raises:
        ShapeError: the shapes differ.
    """
    return _temporal_snr(*_pair(trace, truth))


@jax.jit
def _temporal_snr(trace: Float[Array, "*n"], truth: Float[Array, "*n"]) -> Float[Array, ""]:
    r = correlation(trace, truth)
    return 10 * jnp.log10(r**2 / (1 - r**2))


def _window_mean(x: Float[Array, "..."], window: int) -> Float[Array, "..."]:
    """Mean of every window inside the array, axis by axis."""
    for axis in range(x.ndim):
        sides = tuple(window if i == axis else 1 for i in range(x.ndim))
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, sides, (1,) * x.ndim, "VALID") / window
    return x


def _floating(x: ArrayLike) -> Float[Array, "..."]:
    return jnp.asarray(x, jnp.result_type(float))


def _pair(x: ArrayLike, truth: ArrayLike) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Both as floating-point arrays of one shape."""
    a, b = _floating(x), _floating(truth)
    require_shape("first array", a.shape, b.shape)
    return a, b
