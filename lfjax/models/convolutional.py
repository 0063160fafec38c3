"""The data term of convolutions: H and H^T replaced by short learned kernels on the lenslet grid."""

from __future__ import annotations

import math
from typing import Any

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
    """g(x; y) = B_k (A_k x - y), A and B multichannel convolutions of k x k lenslets (convolutional LISTA).

    Kernels may start as H's own, cut to k x k: training then starts at ISTA with a shorter H.

    Attributes:
        forward: (K or 1, k, k, volume channels, views): A; 1 if the layers share it.
        backward: (K or 1, k, k, views, volume channels): B; None ties it, B = A^T.
        step_size: tau = 1 / |A|^2 of the kernels that training starts from.
        depth: K.
        cell_voxels: voxels (y, x) of a lenslet.
        cell_pixels: pixels (y, x) of it.

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
        """Build it.

        Args:
            key: of random kernels, where `op` is not given.
            layers: K.
            depths: D.
            cell_voxels: `LightField.cell_voxels`.
            cell_pixels: `LightField.cell_pixels`.
            reach: kernels are 2 reach + 1 lenslets wide.
            op: H, whose kernels to start from.
            tied: whether B = A^T throughout.
            shared: whether all layers share their kernels.
            damping: with `op`, B starts as the best linear inverse of H for this level of noise (`wiener_kernel`) instead of
                H^T, and steps as 1: fewer layers then do what many iterations would.

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
        forward = FunctionOperator(lambda x: convolve(x, one), (3 * side, 3 * side, channels))
        self.step_size = Frozen(1 / (1.02 * forward.norm() ** 2))
        back = transpose_kernel(one)
        if damping is not None:
            require(op is not None and not tied, "damping", damping, "None, unless op is given and B is not tied to A")
            back = wiener_kernel(one, damping, reach) / self.step_size.value
        self.forward = jnp.broadcast_to(one, (1 if shared else layers, *one.shape)) + 0.0
        self.backward = None if tied else jnp.broadcast_to(back, (len(self.forward), *back.shape)) + 0.0
        self.depth, self.cell_voxels, self.cell_pixels = layers, cell_voxels, cell_pixels

    @property
    def channels(self) -> int:
        """D s^2."""
        return self.forward.shape[3]

    @property
    def out_shape(self) -> tuple[int, int]:
        """Any whole number of lenslets."""
        return (0, 0)

    def start(self, y: Float[Array, "y x"]) -> tuple[Array, Any, None]:
        known = view_channels(y, self.cell_pixels)
        return jnp.zeros((*known.shape[:2], self.channels), y.dtype), known, None

    def layers(self) -> Any:
        backward = transpose_kernel(self.forward) if self.backward is None else self.backward
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (self.depth, *a.shape[1:])), (self.forward, backward))

    def gradient(self, layer: Any, x: Float[Array, "Y X c"], known: Float[Array, "Y X p"], code: None) -> tuple[Array, None]:
        forward, backward = layer
        return convolve(convolve(x, forward) - known, backward), None

    def spread(self, per_channel: Float[Array, " c"]) -> Float[Array, " c"]:
        return per_channel

    def volume(self, x: Float[Array, "Y X c"]) -> Float[Array, "z y x"]:
        return views.from_channels(x.transpose(2, 0, 1), self.cell_voxels)


def view_channels(y: Float[Array, "y x"], cell_pixels: tuple[int, int]) -> Float[Array, "Y X p"]:
    """The N^2 pixels of each lenslet as channels, last."""
    seen = views.to_views(y, cell_pixels)
    return seen.reshape(-1, *seen.shape[2:]).transpose(1, 2, 0)
