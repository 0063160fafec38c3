"""The light-field operator: volume -> rectified light field, as one multichannel convolution on the lenslet grid.

H is periodic: a source moved by one lenslet moves its image by N pixels. With the image written as N^2 views and the
volume as D s^2 channels on the lenslet grid, H is a stride-1 convolution D s^2 -> N^2 with K x K kernels, and in Fourier
space one small dense matrix per frequency (`spectral`). A large field is cut into tiles (`tiles`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from lfjax.errors import require
from lfjax.linop import LinearOperator, SelfAdjoint, floating
from lfjax.optics.lightfield import views
from lfjax.optics.lightfield.channels import ChannelBasis
from lfjax.optics.lightfield.compression import compress
from lfjax.optics.lightfield.spectral import (
    ChannelMatrices,
    Compression,
    FullMatrices,
    MirrorMatrices,
    Precision,
    channel_matrices,
)
from lfjax.optics.lightfield.tiles import Tiles, choose_tile
from lfjax.optics.psf.images import PSF

MIRROR_TOLERANCE = 1e-6  # relative: a PSF counts as mirror symmetric if float32 rounding explains the difference


class LightField(LinearOperator):
    """H: volume (z, y, x) -> rectified light field (y, x); both nonnegative, the image of each voxel sums to 1.

    y^(f) = H^(f) x^(f) for each frequency f of the lenslet grid, with zeros outside the volume ("same" size).

    The matrices H^(f) take most of the memory. They are kept for one tile of the field, and the field is covered by
    overlap-save. Frames are batched by `jax.vmap`: the matrices are then read once for all of them.

    Attributes:
        kernel: the matrices, `FullMatrices` or `MirrorMatrices`.
        tiles: the field, its margin, and the tile that one periodic convolution covers.
        psf_reach: K // 2, lenslets that the PSF reaches.
        depths: D, planes of the volume.
        cell_voxels: (s_y, s_x), voxels of a lenslet, or of a hexagonal or multi-focal cell (`Microscope.cell_voxels`).
        cell_pixels: (N_y, N_x), pixels of the same.
    """

    kernel: ChannelMatrices
    tiles: Tiles = eqx.field(static=True)
    psf_reach: int = eqx.field(static=True)
    depths: int = eqx.field(static=True)
    cell_voxels: tuple[int, int] = eqx.field(static=True)
    cell_pixels: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        psf: PSF,
        field: Sequence[int],
        *,
        margin: int = 0,
        memory_gib: float = 4.0,
        frames: int = 1,
        tile: Sequence[int] | None = None,
        precision: Precision = "float32",
        mirror: bool | None = None,
    ) -> None:
        """Build H from a PSF.

        Args:
            psf: images of all voxels of a lenslet at every depth.
            field: lenslets (Y, X) of the light field.
            margin: lenslets of volume added on each side, for light that comes from outside the field of view.
                Negative: the volume is smaller than the field; at -(K // 2) no image is cut off, and `gram` is fast.
            memory_gib: largest size of the matrices, if no `tile` is given. Each frame needs a few copies of its volume
                besides.
            frames: number of frames per batch; only the choice of the tile and of the layouts depends on it.
            tile: lenslets (Y, X) of light field that one periodic convolution covers; None: chosen by `choose_tile`.
            precision: "float32" is exact; "tf32" lets tensor cores round the factors to 10 bits, "bfloat16" to 8, which
                also halves the matrices. On processors without tensor cores "tf32" is float32.
            mirror: whether the PSF is mirror symmetric, which saves memory and time; None: found from its values. True
                drops the asymmetric part. Under `jax.jit` or `jax.grad` the values of the PSF are unknown, and None
                means False.

        Raises:
            ParameterError: `field`, `margin`, `frames`, `tile`, `precision` or `memory_gib` out of range, or too little
                memory for a tile of one lenslet.
        """
        field, margin = _lenslets("field", field), _whole("margin", margin)
        require(2 * margin + min(field) > 0, "margin", margin, f"more than {-min(field) / 2:g}, which leaves no volume")
        require(precision in get_args(Precision), "precision", precision, f"one of {', '.join(get_args(Precision))}")
        require(_whole("frames", frames) > 0, "frames", frames, "1 or more")
        cell, s = psf.microscope.cell_pixels, (psf.values.shape[1], psf.values.shape[2])
        self.depths, self.cell_voxels, self.cell_pixels = len(psf.z_um), s, cell
        mirror = mirror_symmetric(psf) if mirror is None else mirror
        kind: type[FullMatrices] | type[MirrorMatrices] = MirrorMatrices if mirror else FullMatrices
        dtype = jnp.dtype(jnp.bfloat16 if precision == "bfloat16" else psf.values.dtype)
        channels, reach = (math.prod(cell), self.depths * math.prod(s)), psf.lenslets // 2

        if tile is None:
            tile = choose_tile(
                field, margin, reach, kind, channels, itemsize=dtype.itemsize, memory_gib=memory_gib, frames=frames
            )
        tile = _lenslets("tile", tile)
        self.tiles = Tiles.of(field, (min(tile[0], field[0]), min(tile[1], field[1])), margin, reach)
        self.psf_reach = reach
        shape = self.tiles.grid(reach, kind)
        matrices = channel_matrices(jnp.asarray(psf.values), kind=kind, cell=cell, shape=shape, dtype=dtype)
        basis = ChannelBasis.parity if mirror else ChannelBasis.plain
        columns = 4 * math.prod(self.tiles.number) * frames
        bases = basis(self.depths, *s), basis(1, *cell)
        self.kernel = kind(matrices, *bases, shape, *self.tiles.windows, precision, columns)

    @property
    def field(self) -> tuple[int, int]:
        """Lenslets (Y, X) of the light field."""
        return self.tiles.field

    @property
    def margin(self) -> int:
        """Lenslets of volume around the light field on each side."""
        return self.tiles.margin

    @property
    def voxels_per_lenslet(self) -> int:
        """s, voxels across a lenslet, or across the cell of a multi-focal array."""
        return self.cell_voxels[1]

    @property
    def pixels_per_lenslet(self) -> int:
        """N, pixels across a lenslet, or across the cell of a multi-focal array."""
        return self.cell_pixels[1]

    @property
    def in_shape(self) -> tuple[int, int, int]:
        rows, columns = (s * (n + 2 * self.margin) for s, n in zip(self.cell_voxels, self.field, strict=True))
        return (self.depths, rows, columns)

    @property
    def out_shape(self) -> tuple[int, int]:
        return (self.cell_pixels[0] * self.field[0], self.cell_pixels[1] * self.field[1])

    @property
    def mirror(self) -> bool:
        """Whether the mirror symmetry of the PSF is used."""
        return isinstance(self.kernel, MirrorMatrices)

    @property
    def memory_gib(self) -> float:
        """Size of the matrices."""
        return self.kernel.matrices.nbytes / 2**30

    @property
    def compression(self) -> Compression | None:
        """Error, ranks, memory and speed of a compressed operator; None for an exact one."""
        return self.kernel.compression

    def compress(self, rtol: float = 1e-2, *, precision: Precision | None = None, measure: bool = True) -> LightField:
        """The same operator in low-rank form: fewer channels on both sides, smaller matrices (`low_rank`).

        Args:
            rtol: largest relative error of the matrices, hence of all images of all voxels, including the rounding of the
                matrices to `precision`. bfloat16 also rounds the volume, which is not included.
            precision: precision of the new matrices; "bfloat16" halves them once more. None: that of this operator.
            measure: whether to time H and H^T on one frame, before and after.

        Returns:
            A `LightField` whose `compression` holds the measured error, ranks, memory and speed.

        Raises:
            ParameterError: `rtol` or `precision` out of range, an operator that is already compressed or rounded, or one
                under `jax.jit`.
        """
        return compress(self, self.kernel, rtol, precision, measure)

    @property
    def gram(self) -> LinearOperator:
        """H^T H as one operator.

        If no image is cut off (`margin` at -(K // 2) or less, one tile), H^T H is itself a convolution of volume channels
        with volume channels, which never forms the N^2 pixels: it is cheaper than H and H^T as long as there are fewer
        than 2 N^2 voxels under a lenslet. Otherwise it is H, then H^T. Each access computes the matrices anew, (D s^2)^2
        numbers per frequency in place of N^2 D s^2: keep the result.
        """
        inputs, outputs = self.kernel.volume.size, self.kernel.image.size
        whole = self.margin <= -self.psf_reach and self.tiles.tile == self.field
        if whole and inputs <= 2 * outputs:
            return LightFieldGram(self.in_shape, _gram(self.kernel), self.cell_voxels)
        return super().gram

    def matvec(self, x: Shaped[Array, "z y x"]) -> Float[Array, "row col"]:
        patches = self.tiles.cut(views.to_channels(floating(x), self.cell_voxels))
        image = self.tiles.join(self.kernel.forward(patches))
        return views.from_views(image.reshape(*self.cell_pixels, *self.field))

    def rmatvec(self, y: Shaped[Array, "row col"]) -> Float[Array, "z y x"]:
        image = views.to_views(floating(y), self.cell_pixels).reshape(-1, *self.field)
        patches = self.kernel.adjoint(self.tiles.join_transposed(image))
        return views.from_channels(self.tiles.cut_transposed(patches), self.cell_voxels)


@jax.jit
def _gram(kernel: ChannelMatrices) -> ChannelMatrices:
    return kernel.gram()


class LightFieldGram(SelfAdjoint):
    """H^T H of a light field whose edges cut no image off: volume -> volume, its own transpose.

    Attributes:
        shape: (z, y, x) of the volume.
        kernel: H^^H H^ at every frequency.
        cell_voxels: (s_y, s_x), voxels of a lenslet or cell.
    """

    kernel: ChannelMatrices
    cell_voxels: tuple[int, int] = eqx.field(static=True)

    def matvec(self, x: Shaped[Array, "z y x"]) -> Float[Array, "z y x"]:
        channels = views.to_channels(floating(x), self.cell_voxels)
        return views.from_channels(self.kernel.forward(channels[None])[0], self.cell_voxels)


def mirror_symmetric(psf: PSF) -> bool:
    """Whether mirroring source and image together, in y or in x, leaves the PSF unchanged; False for traced values."""
    if isinstance(psf.values, jax.core.Tracer):
        return False
    for plane in np.asarray(psf.values):  # one depth at a time: no second PSF in memory
        limit = MIRROR_TOLERANCE * np.abs(plane).max()
        if any(np.abs(plane - np.flip(plane, axes)).max() > limit for axes in ((0, 2), (1, 3))):
            return False
    return True


def _lenslets(name: str, value: Sequence[int]) -> tuple[int, int]:
    expected = "two whole numbers of lenslets (Y, X), 1 or more"
    pair = isinstance(value, Sequence) and len(value) == 2
    require(pair, name, value, expected)
    require(all(_is_whole(n) and n >= 1 for n in value), name, value, expected)
    return (int(value[0]), int(value[1]))


def _whole(name: str, value: int) -> int:
    require(_is_whole(value), name, value, "a whole number")
    return int(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, float, np.integer)) and not isinstance(value, bool) and float(value).is_integer()
