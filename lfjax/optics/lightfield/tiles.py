"""Tiles of a field of view: overlap-save, its transpose, and the choice of the tile."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import ParameterError, require
from lfjax.optics.lightfield.spectral import Window

HALF_SPEED_COLUMNS = 24  # columns at which a product with the matrices of a frequency runs at half of its full speed
FLOPS_PER_VALUE = 1300  # flop-equivalent cost of moving one channel value through all steps (measured)


@runtime_checkable
class Kind(Protocol):
    """The properties of `FullMatrices` or `MirrorMatrices` on which the choice of a tile depends."""

    rows: int

    @staticmethod
    def grid(length: int) -> int: ...
    @staticmethod
    def frequencies(shape: tuple[int, int]) -> tuple[int, int]: ...
    @staticmethod
    def transform_cost(window: Window, shape: tuple[int, int]) -> float: ...


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Tiles of light field, each with the volume that reaches it; lengths in lenslets.

    Attributes:
        field: (Y, X), size of the light field.
        tile: (Y, X), size of the light field of one tile.
        margin: width of the volume around the field; negative if the volume is smaller than the field.
        reach: width of the volume around each tile; the margin if there is only one tile.
    """

    field: tuple[int, int]
    tile: tuple[int, int]
    margin: int
    reach: int

    @classmethod
    def of(cls, field: tuple[int, int], tile: tuple[int, int], margin: int, psf_reach: int) -> Tiles:
        """Tiles of a field: a single tile needs only the margin around it, several need the whole reach of the PSF."""
        return cls(field, tile, margin, margin if tile == field else psf_reach)

    @property
    def number(self) -> tuple[int, int]:
        """Number of tiles in y and in x."""
        return (-(-self.field[0] // self.tile[0]), -(-self.field[1] // self.tile[1]))

    @property
    def windows(self) -> tuple[Window, Window]:
        """Positions of the volume of a tile and of its light field on the periodic grid."""
        volume, image = max(-self.reach, 0), max(self.reach, 0)
        y, x = self.tile
        return (
            ((volume, y + 2 * self.reach), (volume, x + 2 * self.reach)),
            ((image, y), (image, x)),
        )

    def grid(self, psf_reach: int, kind: Kind) -> tuple[int, int]:
        """Size of the periodic grid: large enough that wrapped values fall outside both windows."""
        around = 2 * self.reach if self.reach >= psf_reach else max(self.reach + psf_reach, 0)
        y, x = (kind.grid(max(side + around, 2 * psf_reach + 1)) for side in self.tile)  # a kernel has to fit as well
        return (y, x)

    def cut(self, channels: Float[Array, "c Y X"]) -> Float[Array, "t c y x"]:
        """The volume around each tile of the light field."""
        if self.tile == self.field:
            return channels[None]
        for axis in (1, 2):
            length = self.number[axis - 1] * self.tile[axis - 1] + 2 * self.reach
            channels = _window(channels, axis, self.margin - self.reach, length)
        return jnp.stack([channels[:, y, x] for y, x in self._patches()])

    def cut_transposed(self, patches: Float[Array, "t c y x"]) -> Float[Array, "c Y X"]:
        """Overlap-add, the transpose of `cut`."""
        if self.tile == self.field:
            return patches[0]
        sides = [number * tile + 2 * self.reach for number, tile in zip(self.number, self.tile, strict=True)]
        total = jnp.zeros((patches.shape[1], *sides), patches.dtype)
        for patch, (y, x) in zip(patches, self._patches(), strict=True):
            total = total.at[:, y, x].add(patch)
        for axis in (1, 2):
            total = _window(total, axis, self.reach - self.margin, self.field[axis - 1] + 2 * self.margin)
        return total

    def _patches(self) -> list[tuple[slice, slice]]:
        """Rows and columns of each tile's volume in the padded volume."""
        starts = [[t * self.tile[axis] for t in range(self.number[axis])] for axis in (0, 1)]
        y, x = (side + 2 * self.reach for side in self.tile)
        return [(slice(a, a + y), slice(b, b + x)) for a in starts[0] for b in starts[1]]

    def join(self, tiles: Float[Array, "t c y x"]) -> Float[Array, "c Y X"]:
        """Tiles side by side, cropped to the field."""
        (rows, columns), (_, c, y, x) = self.number, tiles.shape
        whole = tiles.reshape(rows, columns, c, y, x).transpose(2, 0, 3, 1, 4).reshape(c, rows * y, columns * x)
        return whole[:, : self.field[0], : self.field[1]]

    def join_transposed(self, image: Float[Array, "c Y X"]) -> Float[Array, "t c y x"]:
        """The light field cut into tiles, the last ones padded with zeros."""
        (rows, columns), (y, x) = self.number, self.tile
        for axis in (1, 2):
            image = _window(image, axis, 0, self.number[axis - 1] * self.tile[axis - 1])
        return image.reshape(-1, rows, y, columns, x).transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1, y, x)


def choose_tile(
    field: tuple[int, int],
    margin: int,
    psf_reach: int,
    kind: Kind,
    channels: tuple[int, int],
    *,
    itemsize: int,
    memory_gib: float,
    frames: int,
) -> tuple[int, int]:
    """The tile, an equal part of the field cut along its longer side, with the lowest estimated time in the given memory.

    Few large tiles need fewer operations. Many small tiles have smaller matrices, which every frame of a batch and every
    tile uses again: the time of a single frame is that of reading them.

    Args:
        field: lenslets (Y, X).
        margin: margin of the operator, in lenslets.
        psf_reach: K // 2, lenslets that the PSF reaches.
        kind: form of the matrices.
        channels: (O, I), channels of the image and of the volume.
        itemsize: bytes per number of the matrices.
        memory_gib: largest size of the matrices.
        frames: number of frames per batch.

    Raises:
        ParameterError: not even a tile of one lenslet fits.
    """
    require(memory_gib > 0, "memory_gib", memory_gib, "more than zero")
    outputs, inputs = channels
    parts, tile = [1, 1], field
    best: tuple[float, tuple[int, int]] | None = None
    while True:
        tiles = Tiles.of(field, tile, margin, psf_reach)
        shape, (volume, image) = tiles.grid(psf_reach, kind), tiles.windows
        numbers = math.prod(kind.frequencies(shape)) * kind.rows * outputs * inputs
        need = numbers * itemsize / 2**30
        if need <= memory_gib:
            images = math.prod(tiles.number) * frames
            columns = 4 / kind.rows * images
            product = 2 * numbers * (columns + HALF_SPEED_COLUMNS)
            transforms = inputs * kind.transform_cost(volume, shape) + outputs * kind.transform_cost(image, shape)
            cost = product + images * (transforms + FLOPS_PER_VALUE * (inputs + outputs) * math.prod(shape))
            best = min(best or (cost, tile), (cost, tile))
        if tile == (1, 1):
            break
        longer = 0 if tile[0] >= tile[1] else 1
        parts[longer] += 1
        tile = tuple(math.ceil(n / p) for n, p in zip(field, parts, strict=True))  # type: ignore[assignment]
    if best is None:
        raise ParameterError(f"memory_gib = {memory_gib:g}: expected {need:.3g} or more for this PSF")
    return best[1]


def _window(x: Array, axis: int, start: int, length: int) -> Array:
    """Samples start .. start + length of one axis, padded with zeros outside it."""

    before, after = max(-start, 0), max(start + length - x.shape[axis], 0)
    pad = [(before, after) if a == axis else (0, 0) for a in range(x.ndim)]
    return jax.lax.slice_in_dim(jnp.pad(x, pad), start + before, start + before + length, axis=axis)
