"""Time courses straight from light-field frames, without volumes in between.

    y_t = sum_i c_i(t) H s_i + noise,  c >= 0

Each footprint s_i goes through H once; after that a frame costs one product with the n images and a small solve.

    >>> import jax, jax.numpy as jnp
    >>> images = jax.random.uniform(jax.random.key(0), (3, 8, 8))
    >>> seen = Images.of(images)
    >>> seen.time_courses(2 * images).round(3).tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import require_shape
from lfjax.linop import LinearOperator
from lfjax.solvers import nonnegative_least_squares


def image_footprints(op: LinearOperator, footprints: Float[Array, "n z y x"], *, batch: int = 1) -> Float[Array, "n y x"]:
    """H s_i of every footprint.

    Args:
        op: H, volume to light field.
        footprints: s, from structure or function.
        batch: footprints at once.

    Raises:
        ShapeError: the footprints are no volumes of `op`.
    """
    require_shape("footprints", footprints.shape, ("n", *op.in_shape))
    return jax.lax.map(op.matvec, jnp.asarray(footprints), batch_size=batch)


class Images(eqx.Module):
    """What is needed of the images B of all components to find their time courses in any frame.

    Attributes:
        images: (n, y, x), B.
        weights: (y, x), W; photon noise asks for 1 / expected photons.
        gram: (n, n), B^T W B.
    """

    images: Float[Array, "n y x"]
    weights: Float[Array, "y x"]
    gram: Float[Array, "n n"]

    @classmethod
    def of(cls, images: Float[Array, "n y x"], weights: Float[Array, "y x"] | None = None) -> Images:
        """From the images, and weights; 1 if not given.

        Raises:
            ShapeError: the weights are no frame.
        """
        images = jnp.asarray(images)
        weights = jnp.ones(images.shape[1:], images.dtype) if weights is None else jnp.asarray(weights, images.dtype)
        require_shape("weights", weights.shape, images.shape[1:])
        flat = images.reshape(len(images), -1)
        return cls(images, weights, (flat * weights.ravel()) @ flat.T)

    def project(self, frames: Float[Array, "t y x"]) -> Float[Array, "n t"]:
        """B^T W y of every frame, which is all that time courses need of it."""
        require_shape("frames", frames.shape, ("t", *self.weights.shape))
        frames = jnp.asarray(frames).astype(self.images.dtype)
        weighted = (self.images * self.weights).reshape(len(self.images), -1)
        return weighted @ frames.reshape(len(frames), -1).T

    def time_courses(self, frames: Float[Array, "t y x"], *, tolerance: float = 1e-5) -> Float[Array, "n t"]:
        """min over c >= 0 of sum_p W_p (y_p - sum_i c_i B_ip)^2, frame by frame; see `nonnegative_least_squares`."""
        return nonnegative_least_squares(self.gram, self.project(frames), tolerance=tolerance)


def photon_weights(mean: Float[Array, "y x"], *, floor: float = 0.05) -> Float[Array, "y x"]:
    """1 / photons expected, for photon noise.

    Args:
        mean: of many frames.
        floor: of the photons, in means over the frame: dark pixels have read noise too.
    """
    mean = jnp.asarray(mean)
    return 1 / jnp.maximum(mean, floor * jnp.mean(mean))
