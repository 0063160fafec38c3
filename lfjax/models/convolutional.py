"""The convolutional data term: short learned kernels on the lenslet grid in place of H and H^T."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.linop import FunctionOperator, LinearOperator
from lfjax.models.convolution import convolve, impulse_kernels, random_kernel, transpose_kernel, wiener_kernel
from lfjax.models.frozen import Frozen
from lfjax.optics.lightfield import views


class Convolutional(eqx.Module):
    """g(x; y) = B_k (A_k x - y), with multichannel convolutions A and B of k x k lenslets (convolutional LISTA).

    The kernels can start as those of H, cut to k x k lenslets: training then starts at ISTA with a shorter H.

    Attributes:
        forward: (K or 1, k, k, volume channels, views), A; 1 if all layers share it.
        backward: (K or 1, k, k, views, volume channels), B; None: tied, B = A^T.
        step_size: tau = 1 / |A|^2 of the initial kernels.
        depth: K.
        cell_voxels: voxels (y, x) per lenslet.
        cell_pixels: pixels (y, x) per lenslet.

    Source: Gregor & LeCun, ICML (2010); Sreter & Giryes, ICASSP (2018).
    """

    forward: Float[Array, "K k k i o"]
    backward: Float[Array, "K k k o i"] | None
    step_size: Frozen
    depth: int = eqx.field(static=True)
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
        reach: int = 2,
        op: LinearOperator | None = None,
        tied: bool = False,
        shared: bool = False,
        damping: float | None = None,
    ) -> None:
        """Build the data term.

        Args:
            key: random key of the kernels if `op` is not given.
            layers: K.
            depths: D.
            cell_voxels: `LightField.cell_voxels`.
            cell_pixels: `LightField.cell_pixels`.
            reach: kernels are 2 reach + 1 lenslets wide.
            op: H, whose kernels the layers start from; None: random kernels.
            tied: whether B = A^T throughout.
            shared: whether all layers share their kernels.
            damping: with `op`, B starts as the best linear inverse of H for this noise level (`wiener_kernel`) instead of
                H^T, with unit step size: a few layers then replace many iterations.

        Raises:
            ParameterError: `reach` is negative, or more than `op`'s field has room for.
        """
        require(reach >= 0, "reach", reach, "zero or more lenslets")
        channels, pixels, side = depths * math.prod(cell_voxels), math.prod(cell_pixels), 2 * reach + 1
        if op is None:
            one = random_kernel(key, (side, side, channels, pixels))
        else:
            room = min(n // p for n, p in zip(op.out_shape, cell_pixels, strict=True))
            require(side <= room, "reach", reach, f"at most {(room - 1) // 2}, for which op's field has room")
            one = impulse_kernels(op, cell_voxels, cell_pixels, reach)
        self.step_size = Frozen(_step_size(one))
        copies = 1 if shared else layers
        self.forward = _repeat(one, copies)
        if damping is None:
            self.backward = None if tied else _repeat(transpose_kernel(one), copies)
        else:
            require(op is not None and not tied, "damping", damping, "None, unless op is given and B is not tied to A")
            self.backward = _repeat(wiener_kernel(one, damping, reach) / self.step_size.value, copies)
        self.depth, self.cell_voxels, self.cell_pixels = layers, cell_voxels, cell_pixels

    @property
    def channels(self) -> int:
        """D s^2, the number of voxels per lenslet."""
        return self.forward.shape[3]

    @property
    def out_shape(self) -> tuple[int, int]:
        """(0, 0): light fields of any whole number of lenslets."""
        return (0, 0)

    def start(self, y: Float[Array, "row col"]) -> tuple[Float[Array, "Y X c"], Float[Array, "Y X p"], None]:
        known = view_channels(y, self.cell_pixels)
        return jnp.zeros((*known.shape[:2], self.channels), y.dtype), known, None

    def layers(self) -> tuple[Float[Array, "K k k i o"], Float[Array, "K k k o i"]]:
        backward = transpose_kernel(self.forward) if self.backward is None else self.backward
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (self.depth, *a.shape[1:])), (self.forward, backward))

    def gradient(
        self, layer: tuple[Array, Array], x: Float[Array, "Y X c"], known: Float[Array, "Y X p"], code: None
    ) -> tuple[Float[Array, "Y X c"], None]:
        forward, backward = layer
        return convolve(convolve(x, forward) - known, backward), None

    def spread(self, per_channel: Float[Array, " c"]) -> Float[Array, " c"]:
        return per_channel

    def volume(self, x: Float[Array, "Y X c"]) -> Float[Array, "z y x"]:
        return views.from_channels(x.transpose(2, 0, 1), self.cell_voxels)


def view_channels(y: Float[Array, "row col"], cell_pixels: tuple[int, int]) -> Float[Array, "Y X p"]:
    """The N^2 pixels of each lenslet as channels, last."""
    seen = views.to_views(y, cell_pixels)
    return seen.reshape(-1, *seen.shape[2:]).transpose(1, 2, 0)


@eqx.filter_jit
def _step_size(kernel: Float[Array, "k k i o"]) -> Float[Array, ""]:
    """1 / |A|^2 of a convolution, from power iteration on a field three kernels wide."""
    side, _, channels, _ = kernel.shape
    forward = FunctionOperator(lambda x: convolve(x, kernel), (3 * side, 3 * side, channels))
    return 1 / (1.02 * forward.norm() ** 2)


@eqx.filter_jit
def _repeat(kernel: Float[Array, "k l i o"], layers: int) -> Float[Array, "K k l i o"]:
    """Copies of a kernel, one per layer."""
    return jnp.repeat(kernel[None], layers, axis=0)
