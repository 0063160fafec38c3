"""The compressed data term: one wide kernel squeezes the views into a few channels, and all layers work on these."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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

Kernels = tuple[Float[Array, "k k p v"], Float[Array, "K l l v c"], Float[Array, "K l l c v"], Float[Array, "K l l v c"]]
Layer = tuple[Float[Array, "l l v v"], Float[Array, "l l v c"], Float[Array, "l l c v"], Float[Array, "l l v c"]]


class Compressed(eqx.Module):
    """g_k(x; c) = W2_k x - W1_k c,  c <- W0_k c,  c^1 = C y: x <- ReLU(W1 c + x - W2 x - lambda).

    W1 stands for H^T behind the compression C, W2 = W2b W2a for H^T H, through the same bottleneck of V channels. C is wide
    (15 x 15 lenslets), the others 3 x 3; the D s^2 channels of the last estimate are shuffled into s x s voxels per lenslet.

    Attributes:
        compress: (15, 15, N^2, V), C.
        code: (K, 3, 3, V, V), W0.
        synthesis: (K, 3, 3, V, D s^2), W1.
        squeeze: (K, 3, 3, D s^2, V), W2a.
        expand: (K, 3, 3, V, D s^2), W2b.
        step_size: 1.
        cell_voxels: voxels (y, x) per lenslet.
        cell_pixels: pixels (y, x) per lenslet.

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
        """Build the data term.

        With `op`, training starts at physics. Let G be the best linear inverse of H (`wiener_kernel`): C takes its V strongest
        left singular directions, W1 the remaining factor, and W2 = W2b W2a is G H to rank V and 3 x 3 lenslets. Each layer is
        then a step of ISTA preconditioned by (H^T H + mu)^-1. Without `op` all kernels are random; trained on few labels, such
        a network may well end with every ReLU inactive.

        Args:
            key: random key.
            layers: K.
            depths: D.
            cell_voxels: `LightField.cell_voxels`.
            cell_pixels: `LightField.cell_pixels`.
            width: V.
            compress: side of C in lenslets, odd.
            kernel: side of the other kernels in lenslets, odd.
            op: H, whose kernels, cut to `compress` lenslets, are the start; None: random kernels.
            damping: mu / |H|^2, the noise level for which G is optimal. The K layers undo most of it, so it should be larger
                than for a linear inverse used alone.

        Raises:
            ParameterError: an even side, a `damping` that is not positive, or `width` beyond the rank of H's kernels.
        """
        for name, side in (("compress", compress), ("kernel", kernel)):
            require(side % 2 == 1, name, side, "an odd number of lenslets")
        require(damping > 0, "damping", damping, "a positive number")
        channels, pixels = depths * math.prod(cell_voxels), math.prod(cell_pixels)
        first, second, third, fourth = jax.random.split(key, 4)
        small = (layers, kernel, kernel)
        self.code = _near_identity(second, (*small, width, width))
        if op is None:
            kernels = _random_start((first, third, fourth), (compress, compress, pixels, width), (*small, channels, width))
        else:
            require(width <= channels, "width", width, f"at most {channels}, the channels of the volume, where op is given")
            noise = _noise((third, first, fourth), (*small, channels, width))
            kernels = _physics_start(op, noise, compress, cell_voxels, cell_pixels, damping)
        self.compress, self.synthesis, self.squeeze, self.expand = kernels
        self.step_size = Frozen(jnp.ones(()))
        self.cell_voxels, self.cell_pixels = cell_voxels, cell_pixels

    @property
    def channels(self) -> int:
        """D s^2, the number of voxels per lenslet."""
        return self.synthesis.shape[-1]

    @property
    def out_shape(self) -> tuple[int, int]:
        """(0, 0): light fields of any whole number of lenslets."""
        return (0, 0)

    def start(self, y: Float[Array, "row col"]) -> tuple[Float[Array, "Y X c"], None, Float[Array, "Y X v"]]:
        code = convolve(view_channels(y, self.cell_pixels), self.compress)
        return jnp.zeros((*code.shape[:2], self.channels), y.dtype), None, code

    def layers(self) -> tuple[Array, Array, Array, Array]:
        return self.code, self.synthesis, self.squeeze, self.expand

    def gradient(
        self, layer: Layer, x: Float[Array, "Y X c"], known: None, code: Float[Array, "Y X v"]
    ) -> tuple[Float[Array, "Y X c"], Float[Array, "Y X v"]]:
        recode, synthesis, squeeze, expand = layer
        gradient = convolve(convolve(x, squeeze), expand) - convolve(code, synthesis)
        return gradient, convolve(code, recode)

    def spread(self, per_channel: Float[Array, " c"]) -> Float[Array, " c"]:
        return per_channel

    def volume(self, x: Float[Array, "Y X c"]) -> Float[Array, "z y x"]:
        return views.from_channels(x.transpose(2, 0, 1), self.cell_voxels)


@eqx.filter_jit
def _near_identity(key: Array, shape: tuple[int, ...]) -> Float[Array, "K l l v v"]:
    """Kernels that pass their input on, plus a little noise."""
    middle, width = shape[1] // 2, shape[-1]
    return random_kernel(key, shape, 0.02).at[:, middle, middle].add(jnp.eye(width))


@eqx.filter_jit
def _random_start(keys: tuple[Array, Array, Array], compress: tuple[int, ...], squeeze: tuple[int, ...]) -> Kernels:
    """C, W1, W2a and W2b at random, with W2b = W2a^T."""
    expand = (*squeeze[:3], squeeze[4], squeeze[3])
    drawn = random_kernel(keys[2], squeeze, 0.3)
    return random_kernel(keys[0], compress), random_kernel(keys[1], expand, 0.1), drawn, transpose_kernel(drawn)


@eqx.filter_jit
def _noise(keys: tuple[Array, Array, Array], squeeze: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Noise in the shapes of W1, W2a and W2b: it breaks the symmetry between entries that physics leaves at zero."""
    expand = (*squeeze[:3], squeeze[4], squeeze[3])
    shapes = (expand, squeeze, expand)
    synthesis, middle, last = (random_kernel(key, shape, 0.02) for key, shape in zip(keys, shapes, strict=True))
    return synthesis, middle, last


def _physics_start(
    op: LinearOperator,
    noise: tuple[Array, Array, Array],
    compress: int,
    cell_voxels: tuple[int, int],
    cell_pixels: tuple[int, int],
    damping: float,
) -> Kernels:
    """C, W1, W2a and W2b from the best linear inverse of H and from its product with H, both to rank V."""
    synthesis, squeeze, expand = (np.array(a) for a in noise)
    _, kernel, _, width, channels = synthesis.shape
    middle, pixels = kernel // 2, math.prod(cell_pixels)
    field = min(n // p for n, p in zip(op.out_shape, cell_pixels, strict=True))
    reach = min(compress // 2, (field - 1) // 2)
    forward = impulse_kernels(op, cell_voxels, cell_pixels, reach)
    inverse = wiener_kernel(forward, damping, reach)
    left, size, right = _strongest(np.asarray(inverse).reshape(-1, channels), width)
    rim = compress // 2 - reach
    basis = left.reshape(2 * reach + 1, 2 * reach + 1, pixels, width)
    synthesis[:, middle, middle] += size[:, None] * right
    normal = np.asarray(compose_kernels(forward, inverse, kernel))
    left, size, right = _strongest(normal.transpose(2, 0, 1, 3).reshape(channels, -1), width)
    squeeze[:, middle, middle] += left * np.sqrt(size)
    expand *= np.sqrt(size[0])
    expand += (np.sqrt(size)[:, None] * right).reshape(width, kernel, kernel, channels).transpose(1, 2, 0, 3)
    wide = np.pad(basis, [(rim, rim), (rim, rim), (0, 0), (0, 0)])
    return jnp.asarray(wide), jnp.asarray(synthesis), jnp.asarray(squeeze), jnp.asarray(expand)


def _strongest(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U, S, V^T of the nearest matrix of this rank."""
    left, size, right = np.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank], size[:rank], right[:rank]
