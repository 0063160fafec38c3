"""A 2-D U-Net from views to depths, without physics: the network that the unfolded models are compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from lfjax.models.convolutional import view_channels
from lfjax.optics.lightfield import views
from lfjax.solvers.units import rms


class ViewUNet(nnx.Module):
    """Light field (row, col) -> volume (z, y, x): views as channels, sub-voxel shuffling to voxels, then a U-Net to depths.

    The network computes on y / rms(y) and multiplies its result by rms(y): twice the light gives twice the volume.

    Args:
        depths: D.
        cell_voxels: voxels (y, x) per lenslet.
        cell_pixels: pixels (y, x) per lenslet.
        width: channels at full resolution; each level below has twice as many as the one above.
        levels: number of times the plane is halved.
        rngs: Flax's random keys.

    Source: after VCD-Net, Wang et al., Nature Methods 18, 551 (2021).
    """

    def __init__(
        self,
        depths: int,
        cell_voxels: tuple[int, int],
        cell_pixels: tuple[int, int],
        *,
        width: int = 32,
        levels: int = 3,
        rngs: nnx.Rngs,
    ) -> None:
        def conv(i: int, o: int) -> nnx.Conv:
            return nnx.Conv(i, o, kernel_size=(3, 3), kernel_init=lecun_normal, rngs=rngs)

        def block(i: int, o: int) -> nnx.List[nnx.Conv]:
            return nnx.List([conv(i, o), conv(o, o)])

        widths = [width * 2**level for level in range(levels + 1)]
        self.enlarge = conv(math.prod(cell_pixels), width * math.prod(cell_voxels))
        self.down = nnx.List([block(width if level == 0 else widths[level - 1], w) for level, w in enumerate(widths)])
        self.up = nnx.List([block(widths[level] + widths[level + 1], widths[level]) for level in range(levels)])
        self.last = conv(width, depths)
        self.cell_voxels, self.cell_pixels = cell_voxels, cell_pixels

    def __call__(self, y: Float[Array, "row col"]) -> Float[Array, "z y x"]:
        """The volume of one rectified light field of any whole number of lenslets."""
        unit = rms(y)
        h = self.enlarge(view_channels(y / unit, self.cell_pixels)[None])[0]
        h = jax.nn.relu(views.from_channels(h.transpose(2, 0, 1), self.cell_voxels).transpose(1, 2, 0))[None]
        skips = []
        for level, block in enumerate(self.down):
            if level > 0:
                skips.append(h)
                h = nnx.max_pool(h, (2, 2), (2, 2), padding="SAME")
            h = _apply(block, h)
        for level in reversed(range(len(self.up))):
            skip = skips[level]
            h = jax.image.resize(h, (*skip.shape[:3], h.shape[-1]), "linear")
            h = _apply(self.up[level], jnp.concatenate([skip, h], axis=-1))
        return unit * jax.nn.relu(self.last(h)[0]).transpose(2, 0, 1)


def lecun_normal(key: Array, shape: tuple[int, ...], dtype: DTypeLike | None = None) -> Float[Array, "k l i o"]:
    """The numbers of `nnx.initializers.lecun_normal()`, drawn flat as in `random_kernel`: Flax's default, compiled faster."""
    return nnx.initializers.lecun_normal()(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)


def _apply(block: Sequence[nnx.Conv], h: Float[Array, "b y x i"]) -> Float[Array, "b y x o"]:
    for conv in block:
        h = jax.nn.relu(conv(h))
    return h
