"""What is done to particle images one by one: displaced, normalised. Compose with `@`, batch by `jax.vmap`."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require, require_shape
from lfjax.fourier import translate
from lfjax.linop import LinearOperator, Shape


class Shift(LinearOperator):
    """An image (y, x) displaced by (x, y) pixels, also by parts of them, periodically: exp(-2 pi i k.t / n) on its spectrum.

    Exact for what is band-limited below Nyquist; `Shift(-t)` is then the inverse and the transpose of `Shift(t)`.

    Attributes:
        displacement: t = (x, y); +1 in x moves the picture one column to the right.
        shape: (y, x).
    """

    displacement: Float[Array, "2"]
    shape: tuple[int, int] = eqx.field(static=True)

    def __init__(self, displacement: Float[Array, "2"], shape: tuple[int, int]) -> None:
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
        return translate(image, self.displacement[::-1])


def normalise(images: Float[Array, "n y x"], *, radius: float = 1.0) -> Float[Array, "n y x"]:
    """Images whose background, beyond a disc about the centre, has mean 0 and standard deviation 1, as RELION wants them.

    Args:
        images: (n, y, x), square.
        radius: of the disc, as a fraction of half the box.
    """
    n = images.shape[-1]
    require_shape("images", images.shape, ("n", n, n))
    x = np.arange(n) - n // 2
    outside = np.hypot(x, x[:, None]) > radius * n / 2
    require(bool(outside.any()), "radius", radius, "less than sqrt(2), so that there is a background")
    background = jnp.asarray(images)[:, outside]
    mean, deviation = jnp.mean(background, axis=1), jnp.std(background, axis=1)
    return (images - mean[:, None, None]) / jnp.where(deviation > 0, deviation, 1)[:, None, None]
