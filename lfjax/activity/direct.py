"""Time courses straight from light-field frames, without volumes in between.

    y_t = sum_i c_i(t) H s_i + noise,  c >= 0

H is applied to each footprint s_i once. After that a frame costs one product with the n images and a small solve.

    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((3, 8, 8))
    >>> basis = Images.of(images)
    >>> basis.time_courses(2 * images).round(3).tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from lfjax.errors import require_shape
from lfjax.linop import LinearOperator
from lfjax.movies.frames import check_weights
from lfjax.solvers import nonnegative_least_squares

FLOOR = 0.05  # least photons of a pixel, as a fraction of the mean over trusted pixels


def image_footprints(op: LinearOperator, footprints: ArrayLike, *, batch: int = 1) -> Float[Array, "n row col"]:
    """The image H s_i of every footprint.

    Args:
        op: H, volume to light field.
        footprints: s, (n, z, y, x), from structure or function.
        batch: footprints at once.

    Raises:
        ShapeError: the footprints are not volumes of `op`.
    """
    require_shape("footprints", np.shape(footprints), ("n", *op.in_shape))
    return _image_footprints(op, jnp.asarray(footprints), batch)


@eqx.filter_jit
def _image_footprints(op: LinearOperator, footprints: Array, batch: int) -> Float[Array, "n row col"]:
    return jax.lax.map(op.matvec, footprints, batch_size=batch)


class Images(eqx.Module):
    """The images B of all components, prepared to find their time courses in any frame.

    Attributes:
        images: (n, y, x), B.
        weights: (y, x), W; trust / expected photons for photon noise (`photon_weights`), 0 for untrusted pixels.
        gram: (n, n), B^T W B.
    """

    images: Float[Array, "n y x"]
    weights: Float[Array, "y x"]
    gram: Float[Array, "n n"]

    @classmethod
    def of(cls, images: ArrayLike, weights: ArrayLike | None = None) -> Images:
        """Images with their Gram matrix.

        Args:
            images: (n, y, x).
            weights: (y, x); None: 1.

        Raises:
            ShapeError: the weights are not a frame.
        """
        require_shape("images", np.shape(images), ("n", "y", "x"))
        if weights is not None:
            require_shape("weights", np.shape(weights), np.shape(images)[1:])
        return _with_gram(jnp.asarray(images, jnp.result_type(float)), None if weights is None else jnp.asarray(weights))

    def project(self, frames: ArrayLike) -> Float[Array, "n t"]:
        """B^T W y for every frame of (t, y, x): all that time courses need of it."""
        require_shape("frames", np.shape(frames), ("t", *self.weights.shape))
        block = jnp.asarray(frames).astype(self.images.dtype)
        weighted = (self.images * self.weights).reshape(len(self.images), -1)
        return weighted @ block.reshape(len(block), -1).T

    def time_courses(self, frames: ArrayLike, *, tolerance: float = 1e-5) -> Float[Array, "n t"]:
        """min over c >= 0 of sum_p W_p (y_p - sum_i c_i B_ip)^2, frame by frame; see `nonnegative_least_squares`."""
        require_shape("frames", np.shape(frames), ("t", *self.weights.shape))
        return _time_courses(self, jnp.asarray(frames), tolerance)


@eqx.filter_jit
def _with_gram(images: Array, weights: Array | None) -> Images:
    weights = jnp.ones(images.shape[1:], images.dtype) if weights is None else weights.astype(images.dtype)
    flat = images.reshape(len(images), -1)
    return Images(images, weights, (flat * weights.ravel()) @ flat.T)


@eqx.filter_jit
def _time_courses(images: Images, frames: Array, tolerance: float) -> Float[Array, "n t"]:
    return nonnegative_least_squares(images.gram, images.project(frames), tolerance=tolerance)


def photon_weights(mean: ArrayLike, *, floor: float = FLOOR, weights: ArrayLike | None = None) -> Float[Array, "y x"]:
    """Weights for photon noise: trust / expected photons, w_p / max(m_p, floor m), with m the mean of m_p over trusted pixels.

    Untrusted pixels have w_p = 0. Rectified frames hold zeros there, which are no measurement of darkness: with 1 / photons
    alone they would count most of all.

    Args:
        mean: m_p, (y, x), mean of many frames.
        floor: least number of photons, as a fraction of the mean over trusted pixels: dark pixels have read noise too.
        weights: w_p, (y, x), trust of each pixel, 0 or more: a mask; None: 1.

    Raises:
        ShapeError: `weights` is not a frame like `mean`.
        ParameterError: a weight is negative or not finite, or no pixel is trusted.
    """
    trust = np.ones(np.shape(mean), np.float32) if weights is None else check_weights(weights, np.shape(mean))
    return weigh_photons(jnp.asarray(mean), floor, trust)


@jax.jit
def weigh_photons(mean: Float[Array, "y x"], floor: Array, trust: Float[Array, "y x"]) -> Float[Array, "y x"]:
    """`photon_weights` without its checks, to be used in a traced function."""
    least = floor * jnp.sum(trust * jnp.where(trust > 0, mean, 0)) / jnp.sum(trust)
    return jnp.where(trust > 0, trust / jnp.maximum(mean, jnp.maximum(least, jnp.finfo(mean.dtype).tiny)), 0)
