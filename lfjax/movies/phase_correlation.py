"""The shift that two stacks of images have in common, at the peak of their correlation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size, translate_mirrored

SHARPEN = 0.1  # more costs accuracy on undersampled tissue; less lets firing cells and a vignetted background bias the peak
PASSES = 5  # the bias of the window fell to 0.4 per pass in the worst case tried, smooth volumes of few planes
TAPER = 0.15  # fraction of an axis, at both ends, over which the window falls to zero


def common_shift(
    images: ArrayLike,
    references: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    max_shift: float | None = None,
    sharpen: float = SHARPEN,
    upsample: int = 10,
) -> Float[Array, " d"]:
    """The shift s for which image_c(r) = reference_c(r - s) for all c, at the maximum of the correlation

        C(s) = sum_k sum_c I_c(k) R_c*(k) / (P_c + a |R_c(k)|^2) exp(2 pi i k.s),    P_c = mean |R_c|^2

    of windowed images without their means. a = 0 gives the plain correlation, the maximum-likelihood estimate in white noise.
    Phase correlation, a -> infinity, weighs all frequencies alike, also those that hold only noise, and light that leaks
    through window and pixels. In between, only the few frequencies whose power exceeds P / a lose weight: the low ones of a
    vignetted background that does not move with the tissue. This denominator is the maximum-likelihood one for disturbances
    with a flat part and a part like the image itself (Knapp & Carter, IEEE Trans. Acoust. Speech Signal Process. 24, 320
    (1976)).

    An FFT finds the peak to a pixel; a small DFT around it (Guizar-Sicairos et al., Opt. Lett. 33, 156 (2008)) and a parabola
    refine it. A window that stays while the tissue moves biases the peak towards zero. Four further passes therefore correlate
    the images moved back, under a window of the area that both images show.

    Args:
        images: (c, *r), c images of d axes each.
        references: (c, *r).
        weight: (*r), weight of each pixel of all images, or (c, *r), of each image its own: a mask of trusted pixels. 1 by
            default. Pixels of weight 0 have no influence, whatever they hold. With weights of its own an image counts by their
            mean.
        max_shift: largest shift along each axis, in pixels; by default half of the axis.
        sharpen: a.
        upsample: points per pixel of the small DFT.

    Returns:
        (d,), in pixels.

    Raises:
        ShapeError: the shapes differ.
        ParameterError: `max_shift`, `sharpen` or `upsample` is out of range.
    """
    images, references = jnp.asarray(images), jnp.asarray(references)
    weight = None if weight is None else jnp.asarray(weight)
    shape = images.shape[1:]
    require_shape("references", references.shape, images.shape)
    require(sharpen >= 0, "sharpen", sharpen, "zero or more")
    require(isinstance(upsample, int) and upsample >= 1, "upsample", upsample, "a whole number, 1 or more")
    require(max_shift is None or max_shift > 0, "max_shift", max_shift, "more than zero")
    if weight is not None:
        require_shape("weight", weight.shape, images.shape if weight.ndim == images.ndim else shape)
    limit = np.array([min((n - 1) / 2, np.inf if max_shift is None else float(max_shift)) for n in shape])
    return _common_shift(images, references, weight, limit, sharpen, upsample)


@partial(jax.jit, static_argnames="upsample")
def _common_shift(
    images: Array, references: Array, weight: Array | None, limit: Array, sharpen: Array | float, upsample: int
) -> Array:
    real = jnp.result_type(float)
    images, references, limit = (jnp.asarray(x, real) for x in (images, references, limit))
    shape = images.shape[1:]
    own = weight is not None and weight.ndim == images.ndim
    trust = jnp.ones((1, *shape), real) if weight is None else weight.astype(real).reshape(-1, *shape)
    share = jnp.mean(trust, tuple(range(1, images.ndim)))
    share = (share / jnp.maximum(jnp.max(share), 1e-20)).reshape(-1, *(1,) * len(shape))
    if own:
        images, references = (filled(x, trust) for x in (images, references))
    still = trust * _taper(shape, jnp.zeros(len(shape), real))

    def refine(number: Array, shift: Array) -> Array:
        reach = jnp.where(number == 0, limit, jnp.minimum(limit, 2))
        back = translate_mirrored(images, -shift)
        window = still * _taper(shape, shift)
        if own:  # the trusted pixels of the image have moved back with it
            window = window * jnp.clip(translate_mirrored(trust, -shift), 0, 1)
        spectrum = _cross_spectrum(_windowed(back, window), _windowed(references, window), sharpen, share)
        return jnp.clip(shift + _peak(spectrum, [good_size(n) for n in shape], reach, upsample), -limit, limit)

    return jax.lax.fori_loop(0, PASSES, refine, jnp.zeros(len(shape), real))


def _cross_spectrum(
    images: Float[Array, " c *r"], references: Float[Array, " c *r"], sharpen: Array | float, share: Float[Array, "..."]
) -> Complex[Array, "*k"]:
    """sum_c share_c I R* / (P + a |R|^2), on the half space of rfftn."""
    axes = tuple(range(1, images.ndim))
    moved, fixed = (jnp.fft.rfftn(x, [good_size(n) for n in x.shape[1:]], axes) for x in (images, references))
    power = jnp.abs(fixed) ** 2
    floor = jnp.mean(power, axes, keepdims=True) + sharpen * power
    return jnp.sum(share * moved * jnp.conj(fixed) / jnp.where(floor > 0, floor, 1), axis=0)


def _peak(spectrum: Complex[Array, "*k"], sizes: Sequence[int], limit: Float[Array, " d"], upsample: int) -> Float[Array, " d"]:
    """Maximum of sum_k S(k) exp(2 pi i k.s), |s| <= limit: on the pixel grid, then on a fine one, then between its points."""
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
    fine = _prefer_near(values.real, [steps] * len(sizes), 1e-4)
    best = jnp.clip(jnp.stack(jnp.unravel_index(jnp.argmax(fine), fine.shape)), 1, 2 * reach - 1)
    around = [[fine[tuple(best.at[axis].add(move))] for move in (-1, 0, 1)] for axis in axes]
    return centre + steps[best] + jnp.stack([_vertex(*three) for three in around]) / upsample


def _prefer_near(values: Float[Array, "*r"], places: Sequence[Array | np.ndarray], share: float) -> Float[Array, "*r"]:
    """Values lowered slightly with distance, so that a still image, or an axis without structure, gives the shift 0."""
    scale = share * jnp.maximum(jnp.max(jnp.abs(values)), 1e-20)
    for axis, at in enumerate(places):
        values = values - scale * _along(at**2, axis, values.ndim)
    return values


def _along(x: Array | np.ndarray, axis: int, ndim: int) -> Array:
    return jnp.asarray(x).reshape(-1, *(ndim - 1 - axis) * (1,))


def _vertex(low: Array, middle: Array, high: Array) -> Array:
    """Position of the maximum of a parabola through values at -1, 0, 1; 0 if it has none."""
    bend = low - 2 * middle + high
    return jnp.where(bend < 0, jnp.clip((low - high) / jnp.where(bend < 0, 2 * bend, 1), -1, 1), 0)


def _counts(n: int) -> Float[np.ndarray, " k"]:
    """How often each frequency that rfft keeps occurs among all n: once or twice."""
    counts = np.full(n // 2 + 1, 2, np.float32)
    counts[0] = 1
    if n % 2 == 0:
        counts[-1] = 1
    return counts


def filled(images: Float[Array, " c *r"], trust: Float[Array, " d *r"]) -> Float[Array, " c *r"]:
    """Images whose untrusted pixels hold the mean of the trusted ones around them, or that of the image where there are none.

    Moving an image by a fraction of a pixel spreads every value over its neighbours, zeros of a mask too.
    """
    axes = tuple(range(1, images.ndim))
    weight = jnp.broadcast_to(trust, images.shape)
    light = jnp.where(weight > 0, weight * images, 0)
    total = jnp.sum(weight, axes, keepdims=True)
    whole = jnp.sum(light, axes, keepdims=True) / jnp.where(total > 0, total, 1)
    near, around = light, weight
    for axis in axes:  # boxes of 5 samples
        window = tuple(5 if a == axis else 1 for a in range(images.ndim))
        near, around = (jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1,) * images.ndim, "SAME") for x in (near, around))
    mean = jnp.where(around > 1e-6, near / jnp.where(around > 1e-6, around, 1), whole)
    return jnp.where(weight > 0, images, mean)


def _windowed(images: Float[Array, " c *r"], window: Float[Array, " d *r"]) -> Float[Array, " c *r"]:
    """Images without their means, under the window: one for all, or one for each."""
    axes = tuple(range(1, images.ndim))
    total = jnp.sum(window, axes, keepdims=True)
    mean = jnp.sum(images * window, axes, keepdims=True) / jnp.where(total > 0, total, 1)
    return (images - mean) * window


def _taper(shape: Sequence[int], shift: Float[Array, " d"]) -> Float[Array, "*r"]:
    """A window of cosine edges at r + s: the area that an image moved back by s still shows."""
    window = jnp.ones(())
    for axis, n in enumerate(shape):
        at = (jnp.arange(n) + 0.5 + shift[axis]) / n
        edge = jnp.clip(jnp.minimum(at, 1 - at) / TAPER, 0, 1)
        window = window[..., None] * jnp.sin(jnp.pi / 2 * edge) ** 2
    return window
