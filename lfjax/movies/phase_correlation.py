"""The shift that two stacks of images have in common, at the peak of their correlation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size, translate_mirrored

SHARPEN = 0.1  # more costs accuracy on undersampled tissue, less lets firing cells and a vignetted background pull
PASSES = 5  # the pull of the window fell to 0.4 a pass in the worst case tried, smooth volumes of few planes
TAPER = 0.15  # share of an axis, at both ends, over which the window falls to zero


def common_shift(
    images: Float[Array, " c *r"],
    references: Float[Array, " c *r"],
    weight: Float[Array, "*r"] | None = None,
    *,
    max_shift: float | None = None,
    sharpen: float = SHARPEN,
    upsample: int = 10,
) -> Float[Array, " d"]:
    """The s of image_c(r) = reference_c(r - s) for all c: where this correlation is largest,

        C(s) = sum_k sum_c I_c(k) R_c*(k) / (P_c + a |R_c(k)|^2) exp(2 pi i k.s),    P_c = mean |R_c|^2

    of windowed images without their means. a = 0 is the plain correlation, the likeliest shift in white noise. Phase
    correlation, a -> infinity, gives all frequencies one vote, those too that hold only noise, and what leaks through window
    and pixels. In between, only the few whose power is beyond P / a lose weight: the slow ones, of a background that is
    vignetted and does not move with the tissue. This denominator is the likeliest one for disturbances with a flat part and
    one like the image itself (Knapp & Carter, IEEE Trans. Acoust. Speech Signal Process. 24, 320 (1976)).

    The peak is found to a pixel by FFT, then by a small DFT around it (Guizar-Sicairos et al., Opt. Lett. 33, 156 (2008))
    and a parabola. A window that stays while the tissue moves pulls towards zero, so four further passes correlate the
    images moved back, under a window of what was seen of both.

    Args:
        images: c images of d axes each.
        references: of the same shape.
        weight: of the shape of one, how much each place of the references counts; all alike by default.
        max_shift: largest along each axis, in pixels; half of the axis if not given.
        sharpen: a.
        upsample: points a pixel of the small DFT.

    Returns:
        (d,), in pixels.

    Raises:
        ShapeError: shapes that differ.
        ParameterError: `max_shift`, `sharpen` or `upsample` outside their meaning.
    """
    shape = images.shape[1:]
    require_shape("references", references.shape, images.shape)
    require(sharpen >= 0, "sharpen", sharpen, "zero or more")
    require(isinstance(upsample, int) and upsample >= 1, "upsample", upsample, "a whole number, 1 or more")
    require(max_shift is None or max_shift > 0, "max_shift", max_shift, "more than zero")
    weight = jnp.ones(shape) if weight is None else jnp.asarray(weight)
    require_shape("weight", weight.shape, shape)
    limit = tuple(min((n - 1) / 2, np.inf if max_shift is None else float(max_shift)) for n in shape)
    images, references, weight = (x.astype(jnp.result_type(float)) for x in (images, references, weight))
    return _common_shift(images, references, weight, limit, float(sharpen), upsample)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _common_shift(
    images: Array, references: Array, weight: Array, limit: tuple[float, ...], sharpen: float, upsample: int
) -> Array:
    shape = images.shape[1:]
    start = jnp.zeros(len(shape))

    def refine(_: int, shift: Array, reach: tuple[float, ...] = tuple(min(far, 2) for far in limit)) -> Array:
        back = translate_mirrored(images, -shift)
        window = weight * _taper(shape, start) * _taper(shape, shift)
        spectrum = _cross_spectrum(_windowed(back, window), _windowed(references, window), sharpen)
        found = _peak(spectrum, [good_size(n) for n in shape], reach, upsample)
        return jnp.clip(shift + found, -jnp.asarray(limit), jnp.asarray(limit))

    return jax.lax.fori_loop(1, PASSES, refine, refine(0, start, limit))


def _cross_spectrum(images: Float[Array, " c *r"], references: Float[Array, " c *r"], sharpen: float) -> Complex[Array, "*k"]:
    """sum_c I R* / (P + a |R|^2), on the half space of rfftn."""
    axes = tuple(range(1, images.ndim))
    moved, fixed = (jnp.fft.rfftn(x, [good_size(n) for n in x.shape[1:]], axes) for x in (images, references))
    power = jnp.abs(fixed) ** 2
    floor = jnp.mean(power, axes, keepdims=True) + sharpen * power
    return jnp.sum(moved * jnp.conj(fixed) / jnp.where(floor > 0, floor, 1), axis=0)


def _peak(spectrum: Complex[Array, "*k"], sizes: Sequence[int], limit: Sequence[float], upsample: int) -> Float[Array, " d"]:
    """Where sum_k S(k) exp(2 pi i k.s) is largest, |s| <= limit: on the grid, then on a fine one, then between."""
    axes = range(len(sizes))
    coarse = jnp.fft.irfftn(spectrum, sizes)
    lags = [np.fft.fftfreq(n, 1 / n) for n in sizes]
    coarse = _prefer_near(coarse, lags, 1e-6)
    for axis, lag in enumerate(lags):
        coarse = jnp.where(_along(np.abs(lag) <= limit[axis], axis, len(sizes)), coarse, -jnp.inf)
    place, size = jnp.stack(jnp.unravel_index(jnp.argmax(coarse), coarse.shape)), jnp.asarray(sizes)
    centre = (place + size // 2) % size - size // 2

    reach = upsample  # a pixel on both sides
    steps = jnp.arange(-reach, reach + 1) / upsample
    values = spectrum * _counts(sizes[-1])
    for axis, n in enumerate(sizes):
        k = jnp.asarray(np.fft.fftfreq(n) if axis != axes[-1] else np.fft.rfftfreq(n), steps.dtype)
        wave = jnp.exp(2j * jnp.pi * (centre[axis] + steps)[:, None] * k)
        values = jnp.moveaxis(jnp.tensordot(wave, values, (1, axis), precision="highest"), 0, axis)
    values = _prefer_near(values.real, [steps] * len(sizes), 1e-4)
    best = jnp.clip(jnp.stack(jnp.unravel_index(jnp.argmax(values), values.shape)), 1, 2 * reach - 1)
    around = [[values[tuple(best.at[axis].add(move))] for move in (-1, 0, 1)] for axis in axes]
    return centre + steps[best] + jnp.stack([_vertex(*three) for three in around]) / upsample


def _prefer_near(values: Array, places: Sequence[Array | np.ndarray], share: float) -> Array:
    """Values less a little at far places, so that what has not moved, or has no structure along an axis, is found at 0."""
    scale = share * jnp.maximum(jnp.max(jnp.abs(values)), 1e-20)
    for axis, at in enumerate(places):
        values = values - scale * _along(at**2, axis, values.ndim)
    return values


def _along(x: Array | np.ndarray, axis: int, ndim: int) -> Array:
    return jnp.asarray(x).reshape(-1, *(ndim - 1 - axis) * (1,))


def _vertex(low: Array, middle: Array, high: Array) -> Array:
    """Place of the top of a parabola through values at -1, 0, 1; 0 where it has none."""
    bend = low - 2 * middle + high
    return jnp.where(bend < 0, jnp.clip((low - high) / jnp.where(bend < 0, 2 * bend, 1), -1, 1), 0)


def _counts(n: int) -> np.ndarray:
    """How often each frequency that rfft keeps occurs among all n: once or twice."""
    counts = np.full(n // 2 + 1, 2, np.float32)
    counts[0] = 1
    if n % 2 == 0:
        counts[-1] = 1
    return counts


def _windowed(images: Float[Array, " c *r"], window: Float[Array, "*r"]) -> Float[Array, " c *r"]:
    """Images without their means, under the window."""
    axes = tuple(range(1, images.ndim))
    total = jnp.sum(window)
    mean = jnp.sum(images * window, axes, keepdims=True) / jnp.where(total > 0, total, 1)
    return (images - mean) * window


def _taper(shape: Sequence[int], shift: Float[Array, " d"]) -> Float[Array, "*r"]:
    """A window of cosine edges at r + s: what was seen of an image moved back by s."""
    window = jnp.ones(())
    for axis, n in enumerate(shape):
        at = (jnp.arange(n) + 0.5 + shift[axis]) / n
        edge = jnp.clip(jnp.minimum(at, 1 - at) / TAPER, 0, 1)
        window = window[..., None] * jnp.sin(jnp.pi / 2 * edge) ** 2
    return window
