"""Shifts of images that poses in another map explain: an offset of the map moves all of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import require_shape


class MapOffset(NamedTuple):
    """How found shifts differ from the true ones, in their unit.

    Attributes:
        offset: t (x, y, z), displacement of the found map in the frame of the true one.
        residual: (n, 2), difference of the shifts that remains.
        rms: root of the mean squared length of the residuals.
    """

    offset: Float[Array, "3"]
    residual: Float[Array, "n 2"]
    rms: Float[Array, ""]


@jax.jit
def fit_map_offset(
    found: Float[ArrayLike, "n 2"], truth: Float[ArrayLike, "n 2"], rotations: Float[ArrayLike, "n 3 3"]
) -> MapOffset:
    """Difference of shifts, up to an offset of the map, which projections at unknown shifts do not determine.

    The projection at R of a map displaced by t is displaced by (R t)_xy, so that its particles have shifts smaller by this:

        found_i - truth_i = -(R_i t)_xy + residual_i

    with t by least squares. The mirror image and a turn of the map change t alone.

    Args:
        found: (n, 2), estimated shifts (x, y).
        truth: (n, 2), true ones, in the same unit.
        rotations: (n, 3, 3), true poses, object to image.

    Raises:
        ShapeError: the lengths differ.
    """
    found, truth, rotations = jnp.asarray(found), jnp.asarray(truth), jnp.asarray(rotations)
    require_shape("found", found.shape, ("n", 2))
    require_shape("truth", truth.shape, found.shape)
    require_shape("rotations", rotations.shape, (len(found), 3, 3))
    rows, difference = rotations[:, :2], found - truth
    normal = jnp.einsum("nij,nik->jk", rows, rows, precision="highest")
    # views from one direction say nothing about the depth of the map: the shortest t counts
    offset = -jnp.linalg.pinv(normal, hermitian=True) @ jnp.einsum("nij,ni->j", rows, difference, precision="highest")
    residual = difference + jnp.einsum("nij,j->ni", rows, offset, precision="highest")
    return MapOffset(offset, residual, jnp.sqrt(jnp.mean(jnp.sum(residual**2, axis=1))))
