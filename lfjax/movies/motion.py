"""Rigid motion of movies: how far a frame or a volume has moved against a reference, and moving it back.

A shift s is that of the tissue, image(r) = reference(r - s), in the order of the axes: `shift_image(image, -s)` undoes it.
"""

from __future__ import annotations

from typing import TypedDict, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from lfjax.errors import ShapeError, require, require_shape
from lfjax.fourier import translate_mirrored
from lfjax.movies.phase_correlation import SHARPEN, common_shift, filled
from lfjax.optics.lightfield.views import from_views, to_views

Cell = int | tuple[int, int]
"""Pixels per lenslet: N, or (N_y, N_x) of a cell (`Microscope.cell_pixels`, `LightField.cell_pixels`)."""


class Options(TypedDict, total=False):
    """Options of `estimate_shift`."""

    weight: ArrayLike | None
    max_shift: float | None
    sharpen: float
    upsample: int


def estimate_shift(
    image: ArrayLike,
    reference: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    max_shift: float | None = None,
    sharpen: float = SHARPEN,
    upsample: int = 10,
) -> Float[Array, " d"]:
    """The shift s of image(r) = reference(r - s), to a fraction of a pixel, by `common_shift` of the two.

    Brightness, bleaching and a constant background have no influence, and firing cells have little.

    Args:
        image: (y, x) or (z, y, x).
        reference: the same shape, with little noise: `make_reference`.
        weight: the same shape, weight of each pixel of the reference: a mask, best with soft edges.
        max_shift: largest shift along each axis, in pixels; by default half of the axis, a third of which is found reliably.
        sharpen: 0 for the plain correlation, more for a sharper peak, see `common_shift`.
        upsample: points per pixel of the search between pixels, see `common_shift`.

    Returns:
        (d,), in pixels, in the order of the axes.

    Raises:
        ShapeError: the image has other than 2 or 3 axes, or the shapes differ.
        ParameterError: `max_shift`, `sharpen` or `upsample` is out of range.
    """
    image, reference = jnp.asarray(image), jnp.asarray(reference)
    if image.ndim not in (2, 3):
        raise ShapeError(f"image has shape {image.shape}: expected (y, x) or (z, y, x)")
    require_shape("reference", reference.shape, image.shape)
    return _estimate_shift(image, reference, _optional(weight), max_shift, sharpen, upsample)


@eqx.filter_jit
def _estimate_shift(
    image: Array, reference: Array, weight: Array | None, max_shift: float | None, sharpen: float, upsample: int
) -> Float[Array, " d"]:
    return common_shift(image[None], reference[None], weight, max_shift=max_shift, sharpen=sharpen, upsample=upsample)


def shift_image(image: ArrayLike, shift: ArrayLike) -> Float[Array, "*r"]:
    """image(r - s): the image moved by s, to a fraction of a pixel; the mirror image enters over the edges.

    A phase ramp on the spectrum of the image and its mirror image (`fourier.translate_mirrored`). Linear interpolation would
    blur, and remove up to half of the noise's variance per axis, most at half a pixel: single frames at few photons look better
    for it, but neurons would flicker with the motion. A phase ramp leaves signal and noise unchanged. Its price is small
    negative values beside dark pixels; clip them before taking logarithms.

    Args:
        image: any number of axes d.
        shift: s, (d,), in pixels, in the order of the axes.

    Raises:
        ShapeError: `shift` has other than one number per axis.
    """
    image, shift = jnp.asarray(image, jnp.result_type(float)), jnp.asarray(shift, jnp.result_type(float))
    require_shape("shift", shift.shape, (image.ndim,))
    return _shift_image(image, shift)


_shift_image = jax.jit(translate_mirrored)


def light_field_shift(
    frame: ArrayLike,
    reference: ArrayLike,
    cell_pixels: Cell,
    *,
    weight: ArrayLike | None = None,
    max_shift: float | None = None,
    sharpen: float = SHARPEN,
    upsample: int = 10,
) -> Float[Array, "2"]:
    """Lateral shift of the tissue that a rectified light field shows, in lenslets.

    Tissue that moves by a whole lenslet moves its frame by N pixels; tissue that moves by less changes the frame. But every
    view is an image of the tissue at one pixel per lenslet, and all views move alike: their correlations with the reference's
    views (`estimate_shift`) are added before the peak is sought. Views sample too coarsely, each depth of each view at another
    phase of the lenslet grid. The sum averages this out, except for tissue in the native focal plane alone.

    Args:
        frame: (y, x), rectified, N pixels per lenslet.
        reference: the same shape.
        cell_pixels: N, or (N_y, N_x) of a cell.
        weight: (Y, X), weight of each lenslet; or (y, x), that of each pixel: the mask of the rectifier. Untrusted pixels, and
            views that hold no others, have no influence.
        max_shift: largest shift along each axis, in lenslets.
        sharpen: see `estimate_shift`.
        upsample: see `estimate_shift`.

    Returns:
        (y, x), in lenslets (cells).

    Raises:
        ShapeError: the shapes differ, or a side is not a whole number of lenslets.
        ParameterError: as `estimate_shift`.
    """
    frame, reference = jnp.asarray(frame), jnp.asarray(reference)
    require_shape("frame", frame.shape, ("y", "x"))
    require_shape("reference", reference.shape, frame.shape)
    return _light_field_shift(frame, reference, cell_pixels, _optional(weight), max_shift, sharpen, upsample)


@eqx.filter_jit
def _light_field_shift(
    frame: Array,
    reference: Array,
    cell_pixels: Cell,
    weight: Array | None,
    max_shift: float | None,
    sharpen: float,
    upsample: int,
) -> Float[Array, "2"]:
    real = jnp.result_type(float)
    views, fixed = (to_views(a.astype(real), cell_pixels) for a in (frame, reference))
    views, fixed = (v.reshape(-1, *v.shape[2:]) for v in (views, fixed))
    if weight is not None and weight.shape == frame.shape != views.shape[1:]:
        weight = to_views(weight.astype(real), cell_pixels).reshape(views.shape)
    return common_shift(views, fixed, weight, max_shift=max_shift, sharpen=sharpen, upsample=upsample)


def shift_light_field(
    frame: ArrayLike, shift: ArrayLike, cell_pixels: Cell, *, weight: ArrayLike | None = None
) -> Float[Array, "y x"]:
    """A rectified light field with every view moved by (y, x) lenslets, by `shift_image`.

    Args:
        frame: (y, x), rectified, N pixels per lenslet.
        shift: (y, x), in lenslets.
        cell_pixels: N, or (N_y, N_x) of a cell.
        weight: (y, x), trust of each pixel. Untrusted ones take the mean of their view around them before it moves, so that
            zeros of the mask spread into no trusted pixel. None: all pixels are trusted.

    Raises:
        ShapeError: a side is not a whole number of lenslets, `shift` has other than two numbers, or `weight` is not a frame.
    """
    frame, shift = jnp.asarray(frame, jnp.result_type(float)), jnp.asarray(shift, jnp.result_type(float))
    require_shape("shift", shift.shape, (2,))
    trust = None if weight is None else jnp.asarray(weight, frame.dtype)
    if trust is not None:
        require_shape("weight", trust.shape, frame.shape)
    return _shift_light_field(frame, shift, cell_pixels, trust)


@eqx.filter_jit
def _shift_light_field(
    frame: Float[Array, "y x"], shift: Float[Array, "2"], cell_pixels: Cell, weight: Float[Array, "y x"] | None
) -> Float[Array, "y x"]:
    views = to_views(frame, cell_pixels)
    if weight is not None:
        flat, trust = (v.reshape(-1, *v.shape[2:]) for v in (views, to_views(weight, cell_pixels)))
        views = filled(flat, trust).reshape(views.shape)
    return from_views(translate_mirrored(views, shift))


def register(
    block: ArrayLike, reference: ArrayLike, *, cell_pixels: Cell | None = None, **options: Unpack[Options]
) -> tuple[Float[Array, " t *r"], Float[Array, "t d"]]:
    """A block of a movie moved onto a reference.

    Args:
        block: frames (t, y, x) or volumes (t, z, y, x), processed all at once.
        reference: one frame or volume, see `make_reference`.
        cell_pixels: pixels per lenslet, where the frames are rectified light fields: `light_field_shift`.
        **options: weight, max_shift, sharpen, upsample of `estimate_shift`, or of `light_field_shift`.

    Returns:
        The block, and its shifts in pixels, or in lenslets where the frames are light fields.

    Raises:
        ShapeError, ParameterError: as `estimate_shift` and `light_field_shift`.
    """
    block, reference = jnp.asarray(block), jnp.asarray(reference)
    require_shape("block", block.shape, ("t", *reference.shape))
    return _register(block, reference, cell_pixels, options)


@eqx.filter_jit
def _register(block: Array, reference: Array, cell_pixels: Cell | None, options: Options) -> tuple[Array, Array]:
    def one(frame: Array) -> tuple[Array, Array]:
        if cell_pixels is None:
            shift = estimate_shift(frame, reference, **options)
            return shift_image(frame, -shift), shift
        shift = light_field_shift(frame, reference, cell_pixels, **options)
        trust = _optional(options.get("weight"))
        trust = trust if trust is not None and trust.shape == frame.shape else None
        return shift_light_field(frame, -shift, cell_pixels, weight=trust), shift

    return jax.vmap(one)(block)


def make_reference(
    frames: ArrayLike, *, rounds: int = 2, cell_pixels: Cell | None = None, **options: Unpack[Options]
) -> Float[Array, "*r"]:
    """A sharp reference from the first frames: their mean, then `rounds` times the mean of the frames registered to it.

    Args:
        frames: frames (t, y, x) or volumes (t, z, y, x), enough for a mean of little noise.
        rounds: 0 for the plain mean.
        cell_pixels: see `register`.
        **options: see `register`.

    Raises:
        ShapeError, ParameterError: as `register`.
    """
    require(rounds >= 0, "rounds", rounds, "zero or more")
    return _make_reference(jnp.asarray(frames, jnp.result_type(float)), rounds, cell_pixels, options)


@eqx.filter_jit
def _make_reference(frames: Array, rounds: int, cell_pixels: Cell | None, options: Options) -> Float[Array, "*r"]:
    def sharpen(_: Array, reference: Array) -> Array:
        return register(frames, reference, cell_pixels=cell_pixels, **options)[0].mean(0)

    return jax.lax.fori_loop(0, rounds, sharpen, jnp.mean(frames, axis=0))


def _optional(x: ArrayLike | None) -> Array | None:
    return None if x is None else jnp.asarray(x)
