"""Convolutions of many channels with many channels, as one small real matrix product a frequency.

y_o = sum_i h_oi * x_i over a (T, T') periodic grid is y^(f) = H^(f) x^(f). Two ways to keep H^ as real numbers, since XLA
runs real products at full speed on every backend and complex ones not on CPU:

- `FullMatrices`, any kernel: the stack [Re H^; Im H^] over the half spectrum.
- `MirrorMatrices`, kernels that do not change when scene and image are mirrored together, in y or in x: a quarter of
  the numbers and half of the arithmetic.
"""

from __future__ import annotations

import abc
import math
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from lfjax import fourier

Precision = Literal["float32", "tf32", "bfloat16"]
"""float32: exact products. tf32: what the accelerator's tensor cores do by default. bfloat16: half the memory."""


class ChannelMatrices(eqx.Module):
    """H^ for every frequency that is kept; both products take and give half spectra (tile, channel, ky, kx).

    Attributes:
        matrices: real numbers, frequency first.
        shape: (T, T'), the periodic grid.
        precision: see `Precision`.
    """

    matrices: Float[Array, "f o i"]
    shape: tuple[int, int] = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)

    @abc.abstractmethod
    def forward(self, spectrum: Complex[Array, "t i ky kx"]) -> Complex[Array, "t o ky kx"]:
        """H^(f) x^(f) for every f."""

    @abc.abstractmethod
    def adjoint(self, spectrum: Complex[Array, "t o ky kx"]) -> Complex[Array, "t i ky kx"]:
        """The conjugate transpose: H^(f)^H y^(f) for every f."""

    def product(self, columns: Float[Array, "f i c"]) -> Float[Array, "f o c"]:
        """Matrix times columns, a frequency at a time."""
        return self._einsum("foi,fic->foc", columns)

    def transposed_product(self, columns: Float[Array, "f o c"]) -> Float[Array, "f c i"]:
        """Transposed matrix times columns; in this order of axes the matrix is read in the order it is stored."""
        return self._einsum("foi,foc->fci", columns)

    def _einsum(self, subscripts: str, columns: Array) -> Array:
        level = jax.lax.Precision.HIGHEST if self.precision == "float32" else jax.lax.Precision.DEFAULT
        narrow = columns.astype(self.matrices.dtype) if self.precision == "bfloat16" else columns
        return jnp.einsum(subscripts, self.matrices, narrow, precision=level, preferred_element_type=columns.dtype)


class FullMatrices(ChannelMatrices):
    """G = [Re H^; Im H^] (2 O, I) at every frequency of the half spectrum, for kernels without symmetry.

    G [Re x, Im x] holds the four products of real parts that H^ x needs; G^T [[Re y, Im y], [Im y, -Re y]] is
    [Re, Im] of the conjugate transpose of H^ times y.
    """

    @staticmethod
    def size(outputs: int, inputs: int, shape: tuple[int, int]) -> int:
        """Real numbers kept."""
        return shape[0] * (shape[1] // 2 + 1) * 2 * outputs * inputs

    @staticmethod
    def plane(kernels: Float[Array, "v u a b K K"], shape: tuple[int, int]) -> Float[Array, "f o i"]:
        """G of one depth from centred kernels."""
        v, u, a, b, *_ = kernels.shape
        spectrum = fourier.rfft2(fourier.centre_to_corner(kernels, shape), shape)
        spectrum = jnp.moveaxis(spectrum.reshape(v * u, a * b, -1), -1, 0)
        return jnp.concatenate([spectrum.real, spectrum.imag], axis=1)

    def forward(self, spectrum: Complex[Array, "t i ky kx"]) -> Complex[Array, "t o ky kx"]:
        t, i, ky, kx = spectrum.shape
        flat = spectrum.transpose(2, 3, 1, 0).reshape(ky * kx, i, t)
        product = self.product(jnp.concatenate([flat.real, flat.imag], axis=-1))
        o = product.shape[1] // 2
        real, imag = product[:, :o, :t] - product[:, o:, t:], product[:, :o, t:] + product[:, o:, :t]
        return jax.lax.complex(real, imag).reshape(ky, kx, o, t).transpose(3, 2, 0, 1)

    def adjoint(self, spectrum: Complex[Array, "t o ky kx"]) -> Complex[Array, "t i ky kx"]:
        t, o, ky, kx = spectrum.shape
        flat = spectrum.transpose(2, 3, 1, 0).reshape(ky * kx, o, t)
        columns = jnp.concatenate(
            [jnp.concatenate([flat.real, flat.imag], axis=1), jnp.concatenate([flat.imag, -flat.real], axis=1)], axis=-1
        )
        product = self.transposed_product(columns)
        out = jax.lax.complex(product[:, :t], product[:, t:])
        return out.reshape(ky, kx, t, -1).transpose(2, 3, 0, 1)


class MirrorMatrices(ChannelMatrices):
    """Real matrices at the frequencies ky, kx >= 0, for kernels with h(-v, -ky; -a) = h(v, ky; a), and so in x.

    Take sums and differences of each channel and its mirror image (`to_parity`), and let p be 1 for a difference. In
    this basis a kernel is even or odd in ky as p_o and p_i agree or not, so that

        R(f) = i^(p_o) H^(f) (-i)^(p_i)  is real, with p the parities in y and x added up,
        R(-ky, kx) = (-1)^(p_o) R(ky, kx) (-1)^(p_i), with the parity in y.

    One real product with four columns, Re and Im at (ky, kx) and at (-ky, kx), does both frequencies.
    """

    outputs: tuple[int, int] = eqx.field(static=True)
    inputs: tuple[int, int] = eqx.field(static=True)

    @staticmethod
    def size(outputs: int, inputs: int, shape: tuple[int, int]) -> int:
        """Real numbers kept."""
        return math.prod(n // 2 + 1 for n in shape) * outputs * inputs

    @staticmethod
    def plane(kernels: Float[Array, "v u a b K K"], shape: tuple[int, int]) -> Float[Array, "f o i"]:
        """R of one depth from centred kernels; a part of them without the symmetry is dropped."""
        v, u, a, b, *_ = kernels.shape
        for axis in range(4):
            kernels = to_parity(kernels, axis)
        corner = fourier.centre_to_corner(kernels, shape)
        spectrum = fourier.rfft2(corner, shape)[..., : shape[0] // 2 + 1, :].reshape(v * u, a * b, -1)
        real = (spectrum * _phase(v, u)[:, None, None] * _phase(a, b).conj()[:, None]).real
        return jnp.moveaxis(real, -1, 0)

    def forward(self, spectrum: Complex[Array, "t i ky kx"]) -> Complex[Array, "t o ky kx"]:
        columns = self._fold(spectrum, *self.inputs)
        return self._unfold(self.product(columns).swapaxes(1, 2), *self.outputs)

    def adjoint(self, spectrum: Complex[Array, "t o ky kx"]) -> Complex[Array, "t i ky kx"]:
        columns = self._fold(spectrum, *self.outputs)
        return self._unfold(self.transposed_product(columns), *self.inputs)

    def _fold(self, spectrum: Complex[Array, "t c ky kx"], rows: int, columns: int) -> Float[Array, "f c q"]:
        """Re and Im at (ky, kx) and (-ky, kx) side by side, (frequency, channel, 4 t)."""
        t, c, ky, kx = spectrum.shape
        half, planes = ky // 2 + 1, c // (rows * columns)
        turned = spectrum * jnp.tile(_phase(rows, columns), planes)[:, None, None]
        sign = jnp.tile(_sign(rows, columns), planes)[:, None, None]
        back = sign * jnp.roll(jnp.flip(turned, 2), 1, axis=2)[:, :, :half]
        parts = jnp.stack([turned[:, :, :half].real, turned[:, :, :half].imag, back.real, back.imag])
        return parts.transpose(3, 4, 2, 0, 1).reshape(half * kx, c, 4 * t)

    def _unfold(self, product: Float[Array, "f q c"], rows: int, columns: int) -> Complex[Array, "t c ky kx"]:
        """Inverse of `_fold`."""
        half, kx = self.shape[0] // 2 + 1, self.shape[1] // 2 + 1
        c = product.shape[-1]
        planes = c // (rows * columns)
        real, imag, real_back, imag_back = product.reshape(half, kx, 4, -1, c).transpose(2, 3, 4, 0, 1)
        sign = jnp.tile(_sign(rows, columns), planes)[:, None, None]
        back = sign * jax.lax.complex(real_back, imag_back)[:, :, 1 : self.shape[0] - half + 1]
        full = jnp.concatenate([jax.lax.complex(real, imag), jnp.flip(back, 2)], axis=2)
        return full * jnp.tile(_phase(rows, columns).conj(), planes)[:, None, None]


def to_parity(x: Array, axis: int) -> Array:
    """Sums (x_j + x_(n-1-j)) / sqrt 2, the middle if n is odd, then differences: an orthogonal map of one axis."""
    n = x.shape[axis]
    low, middle, high = jnp.split(x, [n // 2, n - n // 2], axis)
    high = jnp.flip(high, axis)
    return jnp.concatenate([(low + high) * math.sqrt(0.5), middle, (low - high) * math.sqrt(0.5)], axis)


def from_parity(x: Array, axis: int) -> Array:
    """Inverse of `to_parity`."""
    n = x.shape[axis]
    even, middle, odd = jnp.split(x, [n // 2, n - n // 2], axis)
    return jnp.concatenate([(even + odd) * math.sqrt(0.5), middle, jnp.flip(even - odd, axis) * math.sqrt(0.5)], axis)


def _odd(n: int) -> np.ndarray:
    """Parity of each place of `to_parity`: 0 for sums and the middle, 1 for differences."""
    return (np.arange(n) >= n - n // 2).astype(int)


def _phase(rows: int, columns: int) -> Array:
    """i^p of each channel, p the parities in y and x added up."""
    p = _odd(rows)[:, None] + _odd(columns)[None, :]
    return jnp.asarray(np.array([1, 1j, -1])[p].ravel(), jnp.result_type(complex))


def _sign(rows: int, columns: int) -> Array:
    """(-1)^p of each channel, p its parity in y."""
    return jnp.asarray(np.repeat(1.0 - 2.0 * _odd(rows), columns), jnp.result_type(float))


@partial(jax.jit, donate_argnums=0)
def fill(matrices: Float[Array, "f o i"], plane: Float[Array, "f o p"], start: Array) -> Float[Array, "f o i"]:
    """Write the columns of one depth into the matrices, in place."""
    return jax.lax.dynamic_update_slice(matrices, plane.astype(matrices.dtype), (0, 0, start))
