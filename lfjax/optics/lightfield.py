"""The light-field operator: volume -> rectified light field, as one multichannel convolution on the lenslet grid.

H is periodic: a source moved by one lenslet moves its image by N pixels. With the image written as N^2 views and the
volume as D s^2 channels on the lenslet grid, H is a stride-1 convolution D s^2 -> N^2 with K x K kernels, and in Fourier
space one small dense matrix a frequency.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax import fourier
from lfjax.errors import ParameterError, require
from lfjax.linop import LinearOperator
from lfjax.optics import views
from lfjax.optics.psf import PSF


class LightField(LinearOperator):
    """H: volume (z, y, x) -> rectified light field (y, x); both nonnegative, each voxel's image sums to 1.

    y^(f) = H^(f) x^(f) for each frequency f of the lenslet grid, with zeros outside the volume ("same" size).

    The complex matrix of a frequency is stored as the real stack G = [Re H^; Im H^] (2 N^2, D s^2): a product with the
    two columns [Re x, Im x] is then one real matrix product forward, and G^T [[Re y, Im y], [Im y, -Re y]] one backward:
    XLA runs real products at full speed on every backend, complex ones not on CPU.

    Attributes:
        matrices: G for every frequency of the half spectrum, (f, 2 N^2, D s^2).
        field: lenslets (Y, X) of the light field.
        margin: lenslets of volume around the light field on each side, so that light from outside the field of view
            has a place to come from.
    """

    matrices: Float[Array, "f o i"]
    field: tuple[int, int] = eqx.field(static=True)
    margin: int = eqx.field(static=True)
    depths: int = eqx.field(static=True)
    voxels_per_lenslet: int = eqx.field(static=True)
    pixels_per_lenslet: int = eqx.field(static=True)
    padded: tuple[int, int] = eqx.field(static=True)

    def __init__(self, psf: PSF, field: tuple[int, int], *, margin: int = 0) -> None:
        """Build H from a PSF.

        Args:
            psf: images of all voxels of a lenslet at every depth.
            field: lenslets (Y, X) of the light fields that the operator makes.
            margin: lenslets of volume added on each side.

        Raises:
            ParameterError: `field` or `margin` is no whole number in range.
        """
        if not (len(field) == 2 and all(int(n) == n and n >= 1 for n in field)):
            raise ParameterError(f"field = {field!r}: expected two whole numbers of lenslets (Y, X)")
        require(margin >= 0 and int(margin) == margin, "margin", margin, "zero or more lenslets")
        self.field = (int(field[0]), int(field[1]))
        self.margin = int(margin)
        self.depths = len(psf.z_um)
        self.voxels_per_lenslet = psf.voxels_per_lenslet
        self.pixels_per_lenslet = psf.microscope.pixels_per_lenslet
        reach = max(self.margin, psf.lenslets // 2)  # what wraps around must fall into the padding
        self.padded = tuple(fourier.good_size(n + self.margin + reach) for n in self.field)  # type: ignore[assignment]
        planes = [self._matrices_of_plane(plane) for plane in psf.values]
        self.matrices = jnp.concatenate(planes, axis=-1)

    def _matrices_of_plane(self, plane: Float[Array, "a b y x"]) -> Float[Array, "f o i"]:
        """G of one depth: kernels (v u a b K K) to frequency matrices, shifted so that the margin falls away."""
        s, n = self.voxels_per_lenslet, self.pixels_per_lenslet
        k = plane.shape[-1] // n
        kernels = plane.reshape(s * s, k, n, k, n).transpose(2, 4, 0, 1, 3).reshape(n * n, s * s, k, k)
        corner = fourier.centre_to_corner(kernels, self.padded)
        corner = jnp.roll(corner, (-self.margin, -self.margin), axis=(-2, -1))
        spectrum = jnp.moveaxis(jnp.fft.rfft2(corner).reshape(n * n, s * s, -1), -1, 0)
        return jnp.concatenate([spectrum.real, spectrum.imag], axis=1)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        s = self.voxels_per_lenslet
        rows, columns = (s * (n + 2 * self.margin) for n in self.field)
        return (self.depths, rows, columns)

    @property
    def out_shape(self) -> tuple[int, int]:
        return (self.pixels_per_lenslet * self.field[0], self.pixels_per_lenslet * self.field[1])

    def matvec(self, x: Float[Array, "z y x"]) -> Float[Array, "y x"]:
        outputs = self.pixels_per_lenslet**2
        spectrum = fourier.rfft2(self._to_channels(x), self.padded).reshape(x.shape[0] * self.voxels_per_lenslet**2, -1)
        columns = jnp.stack([spectrum.real, spectrum.imag], axis=-1)
        product = jnp.einsum("foi,ifc->foc", self.matrices, columns)
        real = product[:, :outputs, 0] - product[:, outputs:, 1]
        imag = product[:, :outputs, 1] + product[:, outputs:, 0]
        image = self._from_spectrum(jax.lax.complex(real, imag), self.field)
        return views.from_views(image.reshape(self.pixels_per_lenslet, self.pixels_per_lenslet, *self.field))

    def rmatvec(self, y: Float[Array, "y x"]) -> Float[Array, "z y x"]:
        image = views.to_views(y, self.pixels_per_lenslet).reshape(-1, *self.field)
        spectrum = fourier.rfft2(image, self.padded).reshape(image.shape[0], -1)
        columns = jnp.stack(
            [jnp.concatenate([spectrum.real, spectrum.imag]), jnp.concatenate([spectrum.imag, -spectrum.real])], axis=-1
        )
        product = jnp.einsum("foi,ofc->fic", self.matrices, columns)
        extent = (self.field[0] + 2 * self.margin, self.field[1] + 2 * self.margin)
        return self._from_channels(self._from_spectrum(jax.lax.complex(product[..., 0], product[..., 1]), extent))

    def _from_spectrum(self, spectrum: Array, crop: tuple[int, int]) -> Array:
        """(f, channel) spectra to (channel, Y, X) images on the lenslet grid."""
        half = (self.padded[0], self.padded[1] // 2 + 1)
        return fourier.irfft2(spectrum.T.reshape(-1, *half), self.padded, crop)

    def _to_channels(self, x: Float[Array, "z y x"]) -> Float[Array, "c Y X"]:
        """Volume to its D s^2 sub-lenslet channels."""
        s = self.voxels_per_lenslet
        d, rows, columns = x.shape
        return x.reshape(d, rows // s, s, columns // s, s).transpose(0, 2, 4, 1, 3).reshape(-1, rows // s, columns // s)

    def _from_channels(self, c: Float[Array, "c Y X"]) -> Float[Array, "z y x"]:
        """Inverse of `_to_channels`."""
        s = self.voxels_per_lenslet
        _, rows, columns = c.shape
        return c.reshape(-1, s, s, rows, columns).transpose(0, 3, 1, 4, 2).reshape(-1, rows * s, columns * s)
