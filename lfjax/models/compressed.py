"""The compressed data term: views are squeezed into a few channels once, and all layers work on these."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.models.convolution import (
    compose_kernels,
    convolve,
    impulse_kernels,
    random_kernel,
    transpose_kernel,
    wiener_kernel,
)
from lfjax.models.convolutional import view_channels
from lfjax.models.frozen import Frozen
from lfjax.optics.lightfield import views


class Compressed(eqx.Module):
    """g_k(x; c) = W2_k x - W1_k c,  c <- W0_k c,  c^1 = C y: x <- ReLU(W1 c + x - W2 x - lambda).

    W1 stands for H^T behind the compression C, W2 = W2b W2a for H^T H, through the same bottleneck of V channels. C is wide
    (15 x 15 lenslets), the others 3 x 3; the D s^2 channels of the last estimate are shuffled into s x s voxels a lenslet.

    Attributes:
        compress: (15, 15, N^2, V): C.
        code: (K, 3, 3, V, V): W0.
        synthesis: (K, 3, 3, V, D s^2): W1.
        squeeze: (K, 3, 3, D s^2, V): W2a.
        expand: (K, 3, 3, V, D s^2): W2b.
        step_size: 1.
        cell_voxels: voxels (y, x) of a lenslet.
        cell_pixels: pixels (y, x) of it.

    Source: Verinaz-Jadan, Song, Howe, Foust, Dragotti, IEEE Trans. Comput. Imaging (2023), with V = 51 and K = 6.
    """

    compress: Float[Array, "k k p v"]
    code: Float[Array, "K l l v v"]
    synthesis: Float[Array, "K l l v c"]
    squeeze: Float[Array, "K l l c v"]
    expand: Float[Array, "K l l v c"]
    step_size: Frozen
    cell_voxels: tuple[int, int] = eqx.field(static=True)
    cell_pixels: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        key: Array,
        layers: int,
        depths: int,
        cell_voxels: tuple[int, int],
        cell_pixels: tuple[int, int],
        *,
        width: int = 51,
        compress: int = 15,
        kernel: int = 3,
        op: LinearOperator | None = None,
        damping: float = 0.02,
    ) -> None:
        """Build it.

        With `op`, training starts at physics: with G, H's best linear inverse (`wiener_kernel`), C takes the V strongest
        left directions of G, W1 the rest of it, and W2 = W2b W2a is G H, to rank V and 3 x 3: each layer is a step of ISTA
        preconditioned by (H^T H + mu)^-1. Without, kernels are random, which from few labels may well end with every ReLU dark.

        Args:
            key: random key.
            layers: K.
            depths: D.
            cell_voxels: `LightField.cell_voxels`.
            cell_pixels: `LightField.cell_pixels`.
            width: V.
            compress: side of C, lenslets, odd.
            kernel: side of the others, odd.
            op: H, whose kernels to start from, cut to `compress` lenslets.
            damping: mu / |H|^2, the level of noise for which G is best. K layers undo most of it, so more than a linear
                inverse by itself would need.

        Raises:
            ParameterError: an even side, a `damping` that is not positive, or `width` beyond what H's kernels span.
        """
        for name, side in (("compress", compress), ("kernel", kernel)):
            require(side % 2 == 1, name, side, "an odd number of lenslets")
        require(damping > 0, "damping", damping, "a positive number")
        channels, pixels = depths * math.prod(cell_voxels), math.prod(cell_pixels)
        keys = jax.random.split(key, 4)
        small = (layers, kernel, kernel)
        middle = kernel // 2
        same = jnp.zeros((*small, width, width)).at[:, middle, middle].set(jnp.eye(width))
        self.code = same + random_kernel(keys[1], (*small, width, width), 0.02)
        if op is None:
            self.compress = random_kernel(keys[0], (compress, compress, pixels, width))
            self.synthesis = random_kernel(keys[2], (*small, width, channels), 0.1)
            self.squeeze = random_kernel(keys[3], (*small, channels, width), 0.3)
            self.expand = transpose_kernel(self.squeeze) + 0.0
        else:
            require(width <= channels, "width", width, f"at most {channels}, the channels of the volume, where op is given")
            field = min(n // p for n, p in zip(op.out_shape, cell_pixels, strict=True))
            reach = min(compress // 2, (field - 1) // 2)
            seen = impulse_kernels(op, cell_voxels, cell_pixels, reach)
            inverse = wiener_kernel(seen, damping, reach)
            left, size, right = _strongest(inverse.reshape(-1, channels), width)
            rim = compress // 2 - reach
            basis = left.reshape(2 * reach + 1, 2 * reach + 1, pixels, width)
            self.compress = jnp.pad(basis, [(rim, rim), (rim, rim), (0, 0), (0, 0)])
            noise = random_kernel(keys[2], (*small, width, channels), 0.02)
            self.synthesis = noise.at[:, middle, middle].add(size[:, None] * right)
            normal = compose_kernels(seen, inverse, kernel)
            left, size, right = _strongest(normal.transpose(2, 0, 1, 3).reshape(channels, -1), width)
            spread = (jnp.sqrt(size)[:, None] * right).reshape(width, kernel, kernel, channels).transpose(1, 2, 0, 3)
            self.expand = jnp.sqrt(size[0]) * random_kernel(keys[3], (*small, width, channels), 0.02) + spread
            noise = random_kernel(keys[0], (*small, channels, width), 0.02)
            self.squeeze = noise.at[:, middle, middle].add(left * jnp.sqrt(size))
        self.step_size = Frozen(jnp.ones(()))
        self.cell_voxels, self.cell_pixels = cell_voxels, cell_pixels

    @property
    def channels(self) -> int:
        """D s^2."""
        return self.synthesis.shape[-1]

    @property
    def out_shape(self) -> tuple[int, int]:
        """Any whole number of lenslets."""
        return (0, 0)

    def start(self, y: Float[Array, "y x"]) -> tuple[Array, None, Array]:
        code = convolve(view_channels(y, self.cell_pixels), self.compress)
        return jnp.zeros((*code.shape[:2], self.channels), y.dtype), None, code

    def layers(self) -> Any:
        return self.code, self.synthesis, self.squeeze, self.expand

    def gradient(self, layer: Any, x: Float[Array, "Y X c"], known: None, code: Float[Array, "Y X v"]) -> tuple[Array, Array]:
        recode, synthesis, squeeze, expand = layer
        slope = convolve(convolve(x, squeeze), expand) - convolve(code, synthesis)
        return slope, convolve(code, recode)

    def spread(self, per_channel: Float[Array, " c"]) -> Float[Array, " c"]:
        return per_channel

    def volume(self, x: Float[Array, "Y X c"]) -> Float[Array, "z y x"]:
        return views.from_channels(x.transpose(2, 0, 1), self.cell_voxels)


def _strongest(matrix: Float[Array, "m n"], rank: int) -> tuple[Array, Array, Array]:
    """U, S, V^T of the nearest matrix of this rank."""
    left, size, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank], size[:rank], right[:rank]
