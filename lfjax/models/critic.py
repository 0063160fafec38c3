"""The critic of the adversarial loss: does a patch of a volume look like two-photon microscopy?"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lfjax.models.convolution import strided_patches

WINDOW = (3, 4, 4)


class PatchCritic(nnx.Module):
    """Volume (z, y, x) -> one number: three strided 3-D convolutions, LeakyReLU, one normalisation, the mean over patches.

    Each position of the last layer scores one patch of the volume; the critic returns the mean score. The normalisation is over
    one volume (group norm with one group), so the critic keeps no state between steps and batches go through `jax.vmap`.
    The critic divides the volume by its root mean square first: it sees shapes, not brightness.

    A strided convolution is computed as a matrix product on strided windows, which is ten times faster than XLA's convolution
    on CPUs.

    Args:
        width: channels of the first layer; each following layer has twice as many as the one before.
        rngs: Flax's random keys.

    Source: Isola et al., CVPR (2017), in three dimensions.
    """

    def __init__(self, width: int = 16, *, rngs: nnx.Rngs) -> None:
        window = math.prod(WINDOW)
        self.first = nnx.Linear(window, width, rngs=rngs)
        self.second = nnx.Linear(window * width, 2 * width, rngs=rngs)
        self.norm = nnx.GroupNorm(2 * width, num_groups=1, rngs=rngs)
        self.third = nnx.Linear(window * 2 * width, 4 * width, rngs=rngs)
        self.score = nnx.Linear(4 * width, 1, rngs=rngs)

    def __call__(self, volume: Float[Array, "z y x"]) -> Float[Array, ""]:
        """The score: training drives that of real volumes towards 1 (least squares) or upwards (Wasserstein)."""
        unit = jnp.sqrt(jnp.mean(volume**2) + 1e-12)
        h = (volume / unit)[..., None]
        h = jax.nn.leaky_relu(self.first(strided_patches(h, WINDOW, (1, 2, 2))), 0.2)
        h = jax.nn.leaky_relu(self.norm(self.second(strided_patches(h, WINDOW, (2, 2, 2)))[None])[0], 0.2)
        h = jax.nn.leaky_relu(self.third(strided_patches(h, WINDOW, (2, 2, 2))), 0.2)
        return jnp.mean(self.score(h))
