"""The light-field operator: volume -> rectified light field, as one multichannel convolution on the lenslet grid.

H is periodic: a source moved by one lenslet moves its image by N pixels. With the image written as N^2 views and the
volume as D s^2 channels on the lenslet grid, H is a stride-1 convolution D s^2 -> N^2 with K x K kernels, and in Fourier
space one small dense matrix a frequency (`spectral`). A field too large for the memory is cut into tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax import fourier
from lfjax.errors import ParameterError, require
from lfjax.linop import LinearOperator
from lfjax.optics import views
from lfjax.optics.psf import PSF
from lfjax.optics.spectral import (
    ChannelMatrices,
    FullMatrices,
    MirrorMatrices,
    Precision,
    fill,
    from_parity,
    to_parity,
)

MIRROR_TOLERANCE = 1e-6  # relative: a PSF is taken as mirror symmetric if float32 rounding explains the difference


class LightField(LinearOperator):
    """H: volume (z, y, x) -> rectified light field (y, x); both nonnegative, each voxel's image sums to 1.

    y^(f) = H^(f) x^(f) for each frequency f of the lenslet grid, with zeros outside the volume ("same" size).

    The matrices H^(f) are what takes memory. They are kept for one tile of the field, the largest that fits into
    `memory_gib`, and the field is covered by overlap-save. Frames are batched by `jax.vmap`: the matrices are then
    read once for all of them.

    Attributes:
        kernel: the matrices, of `FullMatrices` or `MirrorMatrices`.
        field: lenslets (Y, X) of the light field.
        margin: lenslets of volume around the light field on each side, so that light from outside the field of view
            has a place to come from.
        tile: lenslets (Y, X) of light field that one periodic convolution makes.
    """

    kernel: ChannelMatrices
    field: tuple[int, int] = eqx.field(static=True)
    margin: int = eqx.field(static=True)
    tile: tuple[int, int] = eqx.field(static=True)
    reach: int = eqx.field(static=True)
    depths: int = eqx.field(static=True)
    voxels_per_lenslet: int = eqx.field(static=True)
    pixels_per_lenslet: int = eqx.field(static=True)

    def __init__(
        self,
        psf: PSF,
        field: tuple[int, int],
        *,
        margin: int = 0,
        memory_gib: float = 4.0,
        precision: Precision = "float32",
        mirror: bool | None = None,
    ) -> None:
        """Build H from a PSF.

        Args:
            psf: images of all voxels of a lenslet at every depth.
            field: lenslets (Y, X) of the light fields that the operator makes.
            margin: lenslets of volume added on each side.
            memory_gib: largest size of the matrices; what a frame needs besides is a few copies of its volume.
            precision: "float32" is exact; "tf32" lets tensor cores round the factors to 10 bits, "bfloat16" to 8, which
                also halves the matrices. On processors without tensor cores "tf32" is float32.
            mirror: whether the PSF is mirror symmetric, which saves memory and time; looked up in the values if not
                given. Under `jax.jit` or `jax.grad` of the PSF the values cannot be looked at, and None means False.

        Raises:
            ParameterError: `field`, `margin`, `precision` or `memory_gib` out of range, or too little memory for a tile
                of one lenslet.
        """
        if not (len(field) == 2 and all(int(n) == n and n >= 1 for n in field)):
            raise ParameterError(f"field = {field!r}: expected two whole numbers of lenslets (Y, X)")
        require(margin >= 0 and int(margin) == margin, "margin", margin, "zero or more lenslets")
        require(precision in get_args(Precision), "precision", precision, f"one of {', '.join(get_args(Precision))}")
        self.field = (int(field[0]), int(field[1]))
        self.margin = int(margin)
        self.depths = len(psf.z_um)
        self.voxels_per_lenslet = psf.voxels_per_lenslet
        self.pixels_per_lenslet = psf.microscope.pixels_per_lenslet
        mirror = mirror_symmetric(psf) if mirror is None else mirror
        kind = MirrorMatrices if mirror else FullMatrices
        dtype = jnp.dtype(jnp.bfloat16 if precision == "bfloat16" else psf.values.dtype)
        outputs, inputs = self.pixels_per_lenslet**2, self.depths * self.voxels_per_lenslet**2

        size = partial(kind.size, outputs, inputs)
        self.tile = choose_tile(self.field, psf.lenslets // 2, self.margin, lambda t: size(t) * dtype.itemsize, memory_gib)
        # one tile needs no more volume around it than there is; several need all that reaches them
        self.reach = self.margin if self.tile == self.field else psf.lenslets // 2
        shape = grid_shape(self.field, self.tile, psf.lenslets // 2, self.margin)

        rows = outputs if mirror else 2 * outputs
        matrices = jnp.zeros((size(shape) // (rows * inputs), rows, inputs), dtype)
        plane = jax.jit(partial(_plane, kind=kind, n=self.pixels_per_lenslet, shape=shape))
        for d in range(self.depths):
            matrices = fill(matrices, plane(psf.values[d]), jnp.asarray(d * self.voxels_per_lenslet**2))
        if mirror:
            n, s = self.pixels_per_lenslet, self.voxels_per_lenslet
            self.kernel = MirrorMatrices(matrices, shape, precision, (n, n), (s, s))
        else:
            self.kernel = FullMatrices(matrices, shape, precision)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        s = self.voxels_per_lenslet
        rows, columns = (s * (n + 2 * self.margin) for n in self.field)
        return (self.depths, rows, columns)

    @property
    def out_shape(self) -> tuple[int, int]:
        return (self.pixels_per_lenslet * self.field[0], self.pixels_per_lenslet * self.field[1])

    @property
    def mirror(self) -> bool:
        """Whether the mirror symmetry of the PSF is used."""
        return isinstance(self.kernel, MirrorMatrices)

    @property
    def memory_gib(self) -> float:
        """Size of the matrices."""
        return self.kernel.matrices.nbytes / 2**30

    def matvec(self, x: Float[Array, "z y x"]) -> Float[Array, "y x"]:
        n = self.pixels_per_lenslet
        channels = self._to_parity(self._to_channels(x)).reshape(-1, *(m + 2 * self.margin for m in self.field))
        spectrum = fourier.rfft2(self._cut(channels), self.kernel.shape)
        extent = tuple(self.reach + m for m in self.tile)
        tiles = fourier.irfft2(self.kernel.forward(spectrum), self.kernel.shape, extent)  # type: ignore[arg-type]
        image = self._join(tiles[:, :, self.reach :, self.reach :])
        return views.from_views(self._from_parity(image.reshape(1, n, n, *self.field))[0])

    def rmatvec(self, y: Float[Array, "y x"]) -> Float[Array, "z y x"]:
        n, s = self.pixels_per_lenslet, self.voxels_per_lenslet
        image = self._to_parity(views.to_views(y, n)[None]).reshape(n * n, *self.field)
        tiles = jnp.pad(self._join_transposed(image), ((0, 0), (0, 0), (self.reach, 0), (self.reach, 0)))
        spectrum = self.kernel.adjoint(fourier.rfft2(tiles, self.kernel.shape))
        extent = tuple(2 * self.reach + m for m in self.tile)
        patches = fourier.irfft2(spectrum, self.kernel.shape, extent)  # type: ignore[arg-type]
        channels = self._cut_transposed(patches)
        return self._from_channels(self._from_parity(channels.reshape(self.depths, s, s, *channels.shape[1:])))

    def _tiles(self, axis: int) -> int:
        return -(-self.field[axis] // self.tile[axis])

    def _cut(self, channels: Float[Array, "c Y X"]) -> Float[Array, "t c y x"]:
        """The volume around each tile of the light field."""
        if self.tile == self.field:
            return channels[None]
        for axis in (1, 2):
            channels = _window(
                channels, axis, self.margin - self.reach, self._tiles(axis - 1) * self.tile[axis - 1] + 2 * self.reach
            )
        return jnp.stack([channels[:, y, x] for y, x in self._patches()])

    def _cut_transposed(self, patches: Float[Array, "t c y x"]) -> Float[Array, "c Y X"]:
        """Overlap-add, the transpose of `_cut`."""
        if self.tile == self.field:
            return patches[0]
        sides = [self._tiles(axis) * self.tile[axis] + 2 * self.reach for axis in (0, 1)]
        total = jnp.zeros((patches.shape[1], *sides), patches.dtype)
        for patch, (y, x) in zip(patches, self._patches(), strict=True):
            total = total.at[:, y, x].add(patch)
        for axis in (1, 2):
            total = _window(total, axis, self.reach - self.margin, self.field[axis - 1] + 2 * self.margin)
        return total

    def _patches(self) -> list[tuple[slice, slice]]:
        """Rows and columns of each tile's volume in the padded volume."""
        starts = [[t * self.tile[axis] for t in range(self._tiles(axis))] for axis in (0, 1)]
        y, x = (side + 2 * self.reach for side in self.tile)
        return [(slice(a, a + y), slice(b, b + x)) for a in starts[0] for b in starts[1]]

    def _join(self, tiles: Float[Array, "t c y x"]) -> Float[Array, "c Y X"]:
        """Tiles side by side, and what stands over the field cut off."""
        rows, columns = self._tiles(0), self._tiles(1)
        _, c, y, x = tiles.shape
        whole = tiles.reshape(rows, columns, c, y, x).transpose(2, 0, 3, 1, 4).reshape(c, rows * y, columns * x)
        return whole[:, : self.field[0], : self.field[1]]

    def _join_transposed(self, image: Float[Array, "c Y X"]) -> Float[Array, "t c y x"]:
        """The light field cut into tiles, the last ones filled up with zeros."""
        (rows, columns), (y, x) = (self._tiles(0), self._tiles(1)), self.tile
        for axis in (1, 2):
            image = _window(image, axis, 0, self._tiles(axis - 1) * self.tile[axis - 1])
        return image.reshape(-1, rows, y, columns, x).transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1, y, x)

    def _to_parity(self, x: Float[Array, "d a b Y X"]) -> Float[Array, "d a b Y X"]:
        return to_parity(to_parity(x, 1), 2) if self.mirror else x

    def _from_parity(self, x: Float[Array, "d a b Y X"]) -> Float[Array, "d a b Y X"]:
        return from_parity(from_parity(x, 1), 2) if self.mirror else x

    def _to_channels(self, x: Float[Array, "z y x"]) -> Float[Array, "z a b Y X"]:
        """Volume to its D s^2 sub-lenslet channels."""
        s = self.voxels_per_lenslet
        d, rows, columns = x.shape
        return x.reshape(d, rows // s, s, columns // s, s).transpose(0, 2, 4, 1, 3)

    def _from_channels(self, c: Float[Array, "z a b Y X"]) -> Float[Array, "z y x"]:
        """Inverse of `_to_channels`."""
        d, s, _, rows, columns = c.shape
        return c.transpose(0, 3, 1, 4, 2).reshape(d, rows * s, columns * s)


def mirror_symmetric(psf: PSF) -> bool:
    """Whether mirroring source and image together, in y or in x, leaves the PSF as it is; False for traced values."""
    if isinstance(psf.values, jax.core.Tracer):
        return False
    for plane in psf.values:  # a depth at a time: no second PSF in memory
        plane = np.asarray(plane)
        limit = MIRROR_TOLERANCE * np.abs(plane).max()
        if any(np.abs(plane - np.flip(plane, axes)).max() > limit for axes in ((0, 2), (1, 3))):
            return False
    return True


def choose_tile(
    field: tuple[int, int], reach: int, margin: int, nbytes: Callable[[tuple[int, int]], int], memory_gib: float
) -> tuple[int, int]:
    """The largest tile, the field cut into equal parts along its longer side, whose matrices fit into the memory.

    Args:
        field: lenslets (Y, X).
        reach: K // 2, lenslets that the PSF reaches.
        margin: of the operator.
        nbytes: bytes of the matrices on a periodic grid (T, T').
        memory_gib: the limit.

    Raises:
        ParameterError: not even a tile of one lenslet fits.
    """
    require(memory_gib > 0, "memory_gib", memory_gib, "more than zero")
    parts, tile = [1, 1], field
    while True:
        need = nbytes(grid_shape(field, tile, reach, margin)) / 2**30
        if need <= memory_gib:
            return tile
        if tile == (1, 1):
            raise ParameterError(f"memory_gib = {memory_gib:g}: expected {need:.3g} or more for this PSF")
        longer = 0 if tile[0] >= tile[1] else 1
        parts[longer] += 1
        tile = tuple(math.ceil(n / p) for n, p in zip(field, parts, strict=True))  # type: ignore[assignment]


def grid_shape(field: tuple[int, int], tile: tuple[int, int], reach: int, margin: int) -> tuple[int, int]:
    """The periodic grid of one tile: what wraps around must fall into the padding."""
    around = margin + max(margin, reach) if tile == field else 2 * reach
    return (fourier.good_size(tile[0] + around), fourier.good_size(tile[1] + around))


def _window(x: Array, axis: int, start: int, length: int) -> Array:
    """Samples start .. start + length of one axis, zeros where there are none."""
    before, after = max(-start, 0), max(start + length - x.shape[axis], 0)
    pad = [(before, after) if a == axis else (0, 0) for a in range(x.ndim)]
    return jax.lax.slice_in_dim(jnp.pad(x, pad), start + before, start + before + length, axis=axis)


def _plane(
    plane: Float[Array, "a b y x"], *, kind: type[FullMatrices] | type[MirrorMatrices], n: int, shape: tuple[int, int]
) -> Float[Array, "f o i"]:
    """Matrices of one depth, from its images through kernels (v, u, a, b, K, K)."""
    s, k = plane.shape[0], plane.shape[-1] // n
    return kind.plane(plane.reshape(s, s, k, n, k, n).transpose(3, 5, 0, 1, 2, 4), shape)
