"""Displacement and normalisation of particle images. Compose operators with `@`, batch them by `jax.vmap`."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import require, require_shape
from lfjax.fourier import translate
from lfjax.linop import LinearOperator, Shape
from lfjax.tomography.background import background_levels, outside_disc


class Shift(LinearOperator):
    """Periodic displacement of an image (y, x) by (x, y) pixels and fractions: exp(-2 pi i k.t / n) on its spectrum.

    It is exact for images band-limited below Nyquist; `Shift(-t)` is then the inverse and the transpose of `Shift(t)`.

    Attributes:
        displacement: t = (x, y); +1 in x moves the image one column to the right.
        shape: (y, x).
    """

    displacement: Float[Array, "2"]
    shape: tuple[int, int] = eqx.field(static=True)

    def __init__(self, displacement: Float[ArrayLike, "2"], shape: tuple[int, int]) -> None:
        """Raises `ShapeError` unless the displacement is two numbers."""
        self.displacement, self.shape = jnp.asarray(displacement, float), shape
        require_shape("displacement", self.displacement.shape, (2,))
        require(len(shape) == 2 and min(shape) >= 1, "shape", shape, "(y, x)")

    @property
    def in_shape(self) -> Shape:
        """(y, x)."""
        return self.shape

    @property
    def out_shape(self) -> Shape:
        """(y, x)."""
        return self.shape

    def matvec(self, image: Array) -> Array:
        """The displaced image."""
        return _displace(image, self.displacement)


@jax.jit
def _displace(image: Array, displacement: Array) -> Array:
    return translate(image, displacement[::-1])


def normalise(images: Float[ArrayLike, "n y x"], *, radius: float = 1.0) -> Float[ArrayLike, "n y x"]:
    """Images whose background, beyond a disc about the centre, has mean 0 and standard deviation 1, as RELION expects.

    NumPy arrays stay on the host, so that batches of any size stream through without a program for each.

    Args:
        images: (n, y, x), square.
        radius: radius of the disc as a fraction of half the box.

    Returns:
        (n, y, x), a NumPy array where `images` is one; an image with a constant background only loses its mean.

    Raises:
        ShapeError: the images are not square.
        ParameterError: no pixel lies beyond the disc.
    """
    if isinstance(images, np.ndarray):
        levels = background_levels(images, radius)
        mean, deviation = (level[:, None, None].astype(np.result_type(images, np.float32)) for level in levels)
        return (images - mean) / np.where(deviation > 0, deviation, 1)
    return _normalise(images, outside_disc(jnp.shape(images), radius))


@jax.jit
def _normalise(images: ArrayLike, background: ArrayLike) -> Array:
    mean, deviation = (f(images, axis=(1, 2), keepdims=True, where=background) for f in (jnp.mean, jnp.std))
    return (jnp.asarray(images) - mean) / jnp.where(deviation > 0, deviation, 1)
