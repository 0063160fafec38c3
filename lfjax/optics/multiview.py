"""Light-field designs whose views are shift-invariant convolutions summed over depth."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float

from lfjax import fourier
from lfjax.errors import require, require_shape
from lfjax.linop import LinearOperator


class MultiView(LinearOperator):
    """y_v = sum_z h_(v,z) * x_z: volume (z, y, x) -> views (v, y, x), with zeros outside the volume.

    Attributes:
        spectrum: transforms of the PSFs on the padded grid.
        field: pixels (y, x) of a view.
        margin: voxels of volume around the views on each side.
        grid: padded size (y, x) of the transforms.
    """

    spectrum: Complex[Array, "v z ky kx"]
    field: tuple[int, int] = eqx.field(static=True)
    margin: int = eqx.field(static=True)
    grid: tuple[int, int] = eqx.field(static=True)

    def __init__(self, psfs: ArrayLike, field: tuple[int, int], *, margin: int = 0) -> None:
        """Build H from PSFs, which are not normalised.

        Args:
            psfs: (v, z, K, K'), image of a point at every depth in every view, sampled at the voxel pitch; its origin is
                sample K // 2.
            field: pixels (y, x) of a view.
            margin: voxels of volume added on each side; negative: the volume is smaller than the views.

        Raises:
            ShapeError: `psfs` does not have four dimensions.
            ParameterError: `field` is not two whole numbers, or `margin` is not whole or leaves no volume.
        """
        psfs = jnp.asarray(psfs)
        require_shape("psfs", psfs.shape, ("v", "z", "y", "x"))
        require(psfs.size > 0, "psfs", psfs.shape, "no axis of length 0")
        require(len(field) == 2 and all(int(n) == n and n >= 1 for n in field), "field", field, "two whole numbers (y, x)")
        require(int(margin) == margin and 2 * margin + min(field) > 0, "margin", margin, "a whole number that leaves a volume")
        self.field, self.margin = (int(field[0]), int(field[1])), int(margin)
        sides = [fourier.good_size(n + max(0, 2 * self.margin) + k - 1) for n, k in zip(field, psfs.shape[2:], strict=True)]
        self.grid = (sides[0], sides[1])
        self.spectrum = _spectrum(psfs, self.grid, self.margin)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        rows, columns = (n + 2 * self.margin for n in self.field)
        return (self.spectrum.shape[1], rows, columns)

    @property
    def out_shape(self) -> tuple[int, int, int]:
        return (self.spectrum.shape[0], *self.field)

    def matvec(self, x: Float[Array, "z y x"]) -> Float[Array, "v row col"]:
        views = jnp.einsum("vzij,zij->vij", self.spectrum, fourier.rfft2(x, self.grid))
        return fourier.irfft2(views, self.grid, self.field)


@partial(jax.jit, static_argnames=("grid", "margin"))
def _spectrum(psfs: Float[Array, "v z y x"], grid: tuple[int, int], margin: int) -> Complex[Array, "v z ky kx"]:
    """Transforms of the PSFs, moved by the margin."""
    kernels = jnp.roll(fourier.centre_to_corner(psfs, grid), (-margin, -margin), (-2, -1))
    return fourier.rfft2(kernels, grid)
