"""Rigid motion of movies: how far a frame or a volume has moved against a reference, and moving it back.

A shift s is that of the tissue, image(r) = reference(r - s), in the order of the axes: `shift_image(image, -s)` undoes it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import ShapeError, require, require_shape
from lfjax.fourier import translate_mirrored
from lfjax.movies.phase_correlation import SHARPEN, common_shift
from lfjax.optics.lightfield.views import from_views, to_views


def estimate_shift(
    image: Float[Array, "*r"],
    reference: Float[Array, "*r"],
    *,
    weight: Float[Array, "*r"] | None = None,
    max_shift: float | None = None,
    sharpen: float = SHARPEN,
    upsample: int = 10,
) -> Float[Array, " d"]:
    """The shift s of image(r) = reference(r - s), between pixels too: `phase_correlation.common_shift` of the two.

    Brightness, bleaching and a constant background do not matter, and cells that fire matter little.

    Args:
        image: (y, x) or (z, y, x).
        reference: of the same shape, best of little noise: `make_reference`.
        weight: of the same shape, how much each place of the reference counts: a mask, best with soft edges.
        max_shift: pixels, largest along each axis; half of it if not given, of which a third is found reliably.
        sharpen: 0 for the plain correlation, more for a sharper peak, see `common_shift`.
        upsample: points a pixel of the search between pixels, see there.

    Returns:
        (d,), in pixels, in the order of the axes.

    Raises:
        ShapeError: not 2 or 3 axes, or shapes that differ.
        ParameterError: `max_shift`, `sharpen` or `upsample` outside their meaning.
    """
    image, reference = jnp.asarray(image), jnp.asarray(reference)
    if image.ndim not in (2, 3):
        raise ShapeError(f"image has shape {image.shape}: expected (y, x) or (z, y, x)")
    require_shape("reference", reference.shape, image.shape)
    return common_shift(image[None], reference[None], weight, max_shift=max_shift, sharpen=sharpen, upsample=upsample)


def shift_image(image: Float[Array, "*r"], shift: Float[Array, " d"]) -> Float[Array, "*r"]:
    """image(r - s): the image moved by s, also by parts of pixels; what comes in over an edge is the mirror image.

    A phase ramp on the spectrum of the image and its mirror image (`fourier.translate_mirrored`). Linear interpolation would
    blur, and take up to half of the noise's variance an axis, most at half a pixel: at few photons single frames look better
    so, but neurons would flicker with the motion. A phase ramp leaves signal and noise as they are. The price is small
    negative values beside dark pixels; clip them for what takes logarithms.

    Args:
        image: any number of axes d.
        shift: s, (d,), in pixels, in the order of the axes.

    Raises:
        ShapeError: not one shift an axis.
    """
    image, shift = jnp.asarray(image, jnp.result_type(float)), jnp.asarray(shift, jnp.result_type(float))
    require_shape("shift", shift.shape, (image.ndim,))
    return translate_mirrored(image, shift)


def light_field_shift(
    frame: Float[Array, "y x"],
    reference: Float[Array, "y x"],
    cell_pixels: int | tuple[int, int],
    *,
    weight: Float[Array, "Y X"] | None = None,
    max_shift: float | None = None,
    sharpen: float = SHARPEN,
    upsample: int = 10,
) -> Float[Array, "2"]:
    """Lateral shift of the tissue seen by a rectified light field, in lenslets.

    The frame of tissue moved by a whole lenslet is moved by N pixels; by less, light goes to other pixels and lenslets. But
    every view is an image of the tissue at one pixel a lenslet, and all move by the same: their correlations with the
    reference's views, see `estimate_shift`, are added before the peak is sought. Views sample too coarsely, each depth of
    each view at another phase of the lenslet grid, which averages out in the sum; tissue in the native focal plane alone
    would not.

    Args:
        frame: rectified, of N pixels a lenslet.
        reference: of the same shape.
        cell_pixels: N, or (N_y, N_x) of a cell (`Microscope.cell_pixels`, `LightField.cell_pixels`).
        weight: how much each lenslet of the reference counts.
        max_shift: lenslets.
        sharpen: see `estimate_shift`.
        upsample: see `estimate_shift`.

    Returns:
        (y, x), in lenslets (cells).

    Raises:
        ShapeError: shapes that differ, or no whole number of lenslets.
        ParameterError: as `estimate_shift`.
    """
    frame, reference = jnp.asarray(frame), jnp.asarray(reference)
    require_shape("frame", frame.shape, ("y", "x"))
    require_shape("reference", reference.shape, frame.shape)
    views, fixed = (v.reshape(-1, *v.shape[2:]) for v in (to_views(frame, cell_pixels), to_views(reference, cell_pixels)))
    return common_shift(views, fixed, weight, max_shift=max_shift, sharpen=sharpen, upsample=upsample)


def shift_light_field(
    frame: Float[Array, "y x"], shift: Float[Array, "2"], cell_pixels: int | tuple[int, int]
) -> Float[Array, "y x"]:
    """A rectified light field whose views are moved by (y, x) lenslets, each by `shift_image`.

    Args:
        frame: rectified, of N pixels a lenslet.
        shift: (y, x), in lenslets.
        cell_pixels: N, or (N_y, N_x) of a cell.

    Raises:
        ShapeError: no whole number of lenslets, or not two shifts.
    """
    over_views = jax.vmap(jax.vmap(shift_image, (0, None)), (0, None))
    return from_views(over_views(to_views(jnp.asarray(frame), cell_pixels), jnp.asarray(shift)))


def register(
    block: Float[Array, " t *r"],
    reference: Float[Array, "*r"],
    *,
    cell_pixels: int | tuple[int, int] | None = None,
    **options: Any,
) -> tuple[Float[Array, " t *r"], Float[Array, "t d"]]:
    """A block of a movie moved onto a reference.

    Args:
        block: frames (t, y, x) or volumes (t, z, y, x); all are worked on at once.
        reference: one frame or volume, see `make_reference`.
        cell_pixels: pixels of a lenslet, if the frames are rectified light fields: `light_field_shift`.
        **options: weight, max_shift, sharpen, upsample of `estimate_shift`.

    Returns:
        The block, and its shifts in pixels, or in lenslets if they are light fields.

    Raises:
        ShapeError, ParameterError: as `estimate_shift` and `light_field_shift`.
    """
    block, reference = jnp.asarray(block), jnp.asarray(reference)
    require_shape("block", block.shape, ("t", *reference.shape))

    def one(frame: Array) -> tuple[Array, Array]:
        if cell_pixels is None:
            shift = estimate_shift(frame, reference, **options)
            return shift_image(frame, -shift), shift
        shift = light_field_shift(frame, reference, cell_pixels, **options)
        return shift_light_field(frame, -shift, cell_pixels), shift

    return jax.vmap(one)(block)


def make_reference(frames: Float[Array, " t *r"], *, rounds: int = 2, **options: Any) -> Float[Array, "*r"]:
    """A sharp reference from the first frames: their mean, then `rounds` times the mean of them registered to the last one.

    Args:
        frames: frames (t, y, x) or volumes (t, z, y, x), enough for a mean of little noise.
        rounds: 0 for the mean as it is.
        **options: of `register`; `cell_pixels` if they are light fields.

    Raises:
        ShapeError, ParameterError: as `register`.
    """
    require(rounds >= 0, "rounds", rounds, "zero or more")
    reference = jnp.mean(jnp.asarray(frames, jnp.result_type(float)), axis=0)
    for _ in range(rounds):
        reference = register(frames, reference, **options)[0].mean(0)
    return reference
