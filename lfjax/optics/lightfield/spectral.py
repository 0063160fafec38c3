"""Convolutions of many channels with many channels, as one small real matrix product a frequency.

y_o = sum_i h_oi * x_i over a (T, T') periodic grid is y^(f) = H^(f) x^(f). Two ways to keep H^ as real numbers, since
XLA runs real products at full speed on every backend and complex ones not on CPU:

- `FullMatrices`, any kernel: the stack [Re H^; Im H^] over the half spectrum, with FFTs.
- `MirrorMatrices`, kernels that do not change when scene and image are mirrored together, in y or in x: a quarter of
  the numbers and half of the arithmetic, with cosine and sine transforms, which are products too.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from lfjax import fourier
from lfjax.optics.lightfield.channels import ChannelBasis, parities, to_parity

Precision = Literal["float32", "tf32", "bfloat16"]
"""float32: exact products. tf32: what the accelerator's tensor cores do by default. bfloat16: half the memory."""

Window = tuple[tuple[int, int], tuple[int, int]]
"""Where an image lies on the periodic grid: (first, number) in y and in x."""

MANY_COLUMNS = 64  # from here on products like their columns last (2-core CPU, measured)
FFT_COST = 25  # a flop of an FFT takes the time of about this many flops of a matrix product (2-core CPU, measured)


@dataclasses.dataclass(frozen=True, eq=False)
class Compression:
    """What `LightField.compress` did. All of them compare equal, so that a time measured anew compiles nothing anew.

    Attributes:
        rtol: error allowed.
        error: measured: |H~ - H| / |H| over all images of all voxels, rounding of the matrices included. In float32 it is
            also the relative error of the image of white noise; that of a smooth volume is smaller.
        channels: pixels and voxels of a lenslet before, (O, I).
        ranks: components kept of each.
        memory_gib: of the matrices, before and after.
        seconds: of H and H^T on one frame, before and after, the medians of five measured; None if they were not.
    """

    rtol: float
    error: float
    channels: tuple[int, int]
    ranks: tuple[int, int]
    memory_gib: tuple[float, float]
    seconds: tuple[float, float] | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compression)

    def __hash__(self) -> int:
        return hash(Compression)


Matrices = TypeVar("Matrices", bound="ChannelMatrices")


class ChannelMatrices(eqx.Module):
    """H^ for every frequency that is kept, between the coordinates of two sets of channels.

    Attributes:
        matrices: real numbers, frequency first.
        volume: coordinates of the channels that H takes.
        image: coordinates of those that it gives.
        shape: (T, T'), the periodic grid.
        volume_window: where H's argument lies on the grid.
        image_window: the part of its result that is wanted.
        precision: see `Precision`.
        columns: how many are expected in a product, on which only the order of its axes depends.
        compression: None if the matrices are exact.
    """

    rows: ClassVar[int]  # of the matrices for each output

    matrices: Float[Array, "ky kx o i"]
    volume: ChannelBasis
    image: ChannelBasis
    shape: tuple[int, int] = eqx.field(static=True)
    volume_window: Window = eqx.field(static=True)
    image_window: Window = eqx.field(static=True)
    precision: Precision = eqx.field(static=True)
    columns: int = eqx.field(static=True, default=4)
    compression: Compression | None = eqx.field(static=True, default=None)

    def replace(self: Matrices, **changes: Any) -> Matrices:
        """A copy with some attributes changed."""
        return dataclasses.replace(self, **changes)

    @abc.abstractmethod
    def gram(self) -> ChannelMatrices:
        """The matrices of H^T H from volume to volume; it is that only if the image window loses nothing of H x."""

    @abc.abstractmethod
    def forward(self, x: Float[Array, "t i y x"]) -> Float[Array, "t o y x"]:
        """H x of t frames at once."""

    @abc.abstractmethod
    def adjoint(self, y: Float[Array, "t o y x"]) -> Float[Array, "t i y x"]:
        """H^T y of t frames at once."""

    def product(self, subscripts: str, columns: Array) -> Array:
        """Matrices times columns, a frequency at a time, at the precision asked for."""
        level = jax.lax.Precision.HIGHEST if self.precision == "float32" else jax.lax.Precision.DEFAULT
        narrow = columns.astype(self.matrices.dtype) if self.precision == "bfloat16" else columns
        return jnp.einsum(subscripts, self.matrices, narrow, precision=level, preferred_element_type=columns.dtype)


class FullMatrices(ChannelMatrices):
    """G = [Re H^; Im H^] (2 O, I) at every frequency of the half spectrum, for kernels without symmetry.

    G [Re x, Im x] holds the four products of real parts that H^ x needs; G^T [[Re y, Im y], [Im y, -Re y]] is
    [Re, Im] of the conjugate transpose of H^ times y.
    """

    rows = 2

    @staticmethod
    def grid(length: int) -> int:
        """Samples a side, at least `length`, that suit the transform."""
        return fourier.good_size(length)

    @staticmethod
    def frequencies(shape: tuple[int, int]) -> tuple[int, int]:
        """Frequencies kept on a grid."""
        return (shape[0], shape[1] // 2 + 1)

    @staticmethod
    def transform_cost(window: Window, shape: tuple[int, int]) -> float:
        """Flops of the transform of one channel, weighted by how slow they are."""
        return FFT_COST * 2.5 * math.prod(shape) * math.log2(math.prod(shape) + 1)

    @staticmethod
    def plane(kernels: Float[Array, "v u a b K K"], shape: tuple[int, int]) -> Float[Array, "ky kx o i"]:
        """G of one depth from centred kernels."""
        v, u, a, b, *_ = kernels.shape
        spectrum = fourier.rfft2(fourier.centre_to_corner(kernels, shape), shape)
        spectrum = spectrum.reshape(v * u, a * b, *spectrum.shape[-2:]).transpose(2, 3, 0, 1)
        return jnp.concatenate([spectrum.real, spectrum.imag], axis=2)

    def forward(self, x: Float[Array, "t i y x"]) -> Float[Array, "t o y x"]:
        spectrum = self._transform(self.volume.coordinates(x), self.volume_window)
        product = self.product("kloi,qtikl->kloqt", jnp.stack([spectrum.real, spectrum.imag]))
        upper, lower = jnp.split(product, 2, axis=2)
        out = jax.lax.complex(upper[:, :, :, 0] - lower[:, :, :, 1], upper[:, :, :, 1] + lower[:, :, :, 0])
        return self.image.channels(self._back(out.transpose(3, 2, 0, 1), self.image_window))

    def adjoint(self, y: Float[Array, "t o y x"]) -> Float[Array, "t i y x"]:
        s = self._transform(self.image.coordinates(y), self.image_window)
        columns = jnp.stack([jnp.concatenate([s.real, s.imag], axis=1), jnp.concatenate([s.imag, -s.real], axis=1)])
        product = self.product("kloi,qtokl->klqti", columns)
        out = jax.lax.complex(product[:, :, 0], product[:, :, 1])
        return self.volume.channels(self._back(out.transpose(2, 3, 0, 1), self.volume_window))

    def gram(self) -> FullMatrices:
        real, imag = jnp.split(self.matrices, 2, axis=2)

        def inner(a: Array, b: Array) -> Array:
            return jnp.einsum("kloi,kloj->klij", a, b, precision=jax.lax.Precision.HIGHEST)

        matrices = jnp.concatenate([inner(real, real) + inner(imag, imag), inner(real, imag) - inner(imag, real)], axis=2)
        return self.replace(matrices=matrices, image=self.volume, image_window=self.volume_window)

    def _transform(self, x: Float[Array, "t c y x"], window: Window) -> Complex[Array, "t c ky kx"]:
        before = [(first, 0) for first, _ in window]
        return fourier.rfft2(jnp.pad(x, [(0, 0), (0, 0), *before]), self.shape)

    def _back(self, spectrum: Complex[Array, "t c ky kx"], window: Window) -> Float[Array, "t c y x"]:
        (y, rows), (x, columns) = window
        return fourier.irfft2(spectrum, self.shape, (y + rows, x + columns))[:, :, y:, x:]


class MirrorMatrices(ChannelMatrices):
    """Real matrices at the frequencies ky, kx >= 0, for kernels with h(-v, -ky; -a) = h(v, ky; a), and so in x.

    Take sums and differences of each channel and its mirror image (`channels.to_parity`). A kernel is then even in ky
    if its output and input have the same parity, odd if not, and along one axis, with C and S the cosine and sine
    transforms, even kernels give C_y = e C_x, S_y = e S_x and odd ones C_y = -s S_x, S_y = s C_x. So one real matrix
    R(k), made of e, s and -s, acts on both columns (C, S) of even channels with (S, -C) of odd ones, and the same along
    the other axis: four columns a frequency, and no complex number anywhere.
    """

    rows = 1

    @staticmethod
    def grid(length: int) -> int:
        """Samples a side: the transforms are products, which like every length."""
        return length

    @staticmethod
    def frequencies(shape: tuple[int, int]) -> tuple[int, int]:
        """Frequencies kept on a grid."""
        return (shape[0] // 2 + 1, shape[1] // 2 + 1)

    @staticmethod
    def transform_cost(window: Window, shape: tuple[int, int]) -> float:
        """Flops of the transforms of one channel."""
        (_, rows), (_, columns) = window
        ky, kx = (2 * (n // 2 + 1) for n in shape)
        return 2.0 * kx * rows * (columns + ky)

    @staticmethod
    def plane(kernels: Float[Array, "v u a b K K"], shape: tuple[int, int]) -> Float[Array, "ky kx o i"]:
        """R of one depth from centred kernels; a part of them without the symmetry is dropped."""
        v, u, a, b, *_ = kernels.shape
        for axis in range(4):
            kernels = to_parity(kernels, axis)
        corner = fourier.centre_to_corner(kernels, shape)
        spectrum = fourier.rfft2(corner, shape)[..., : shape[0] // 2 + 1, :]
        spectrum = spectrum.reshape(v * u, a * b, *spectrum.shape[-2:]).transpose(2, 3, 0, 1)
        return (spectrum * _phase(v, u)[:, None] * _phase(a, b).conj()).real

    def forward(self, x: Float[Array, "t i y x"]) -> Float[Array, "t o y x"]:
        columns = self._transform(self.volume.coordinates(x), self.volume, self.volume_window)
        product = self.product("kloi,kqlrti->kloqrt", columns)
        return self.image.channels(self._back(product, "kloqrt", self.image, self.image_window))

    def adjoint(self, y: Float[Array, "t o y x"]) -> Float[Array, "t i y x"]:
        columns = self._transform(self.image.coordinates(y), self.image, self.image_window)
        order = "kliqrt" if self.columns >= MANY_COLUMNS else "klqrti"
        product = self.product(f"kloi,kqlrto->{order}", columns)
        return self.volume.channels(self._back(product, order, self.volume, self.volume_window))

    def gram(self) -> MirrorMatrices:
        matrices = jnp.einsum("kloi,kloj->klij", self.matrices, self.matrices, precision=jax.lax.Precision.HIGHEST)
        return self.replace(matrices=matrices, image=self.volume, image_window=self.volume_window)

    def _transform(self, x: Float[Array, "t c y x"], basis: ChannelBasis, window: Window) -> Float[Array, "k q l r t c"]:
        """Columns of the coordinates at every frequency: (k, q) in y, (l, r) in x."""
        y_waves, x_waves = (self._waves(window, axis, x.dtype) for axis in (0, 1))
        rows = jnp.einsum("lrx,tcyx->lrtcy", x_waves, x, precision=jax.lax.Precision.HIGHEST)
        both = jnp.einsum("kqy,lrtcy->kqlrtc", y_waves, rows, precision=jax.lax.Precision.HIGHEST)
        return _twist(both, basis, 5, (1, 3))

    def _back(self, product: Array, order: str, basis: ChannelBasis, window: Window) -> Float[Array, "t c y x"]:
        """Coordinates from their columns, whose axes are in this order, "kloqrt" or so: the transpose of `_transform`."""
        channel = order.index(next(a for a in order if a in "oi"))
        product = _twist(product, basis, channel, (order.index("q"), order.index("r")), back=True)
        y_waves, x_waves = (self._waves(window, axis, product.dtype) for axis in (0, 1))
        kept = order.translate(str.maketrans("", "", "klq"))
        rows = jnp.einsum(f"{order},kqy->l{kept}y", product, y_waves, precision=jax.lax.Precision.HIGHEST)
        both = kept.replace("r", "")
        out = jnp.einsum(f"l{kept}y,lrx->{both}yx", rows, x_waves, precision=jax.lax.Precision.HIGHEST)
        return out if both[0] == "t" else out.swapaxes(0, 1)

    def _waves(self, window: Window, axis: int, dtype: np.dtype) -> Float[Array, "k q y"]:
        return jnp.asarray(waves(*window[axis], self.shape[axis]), dtype)


def waves(first: int, number: int, period: int) -> Float[np.ndarray, "k 2 y"]:
    """Orthonormal cosines and sines of a periodic grid, sampled at first, first + 1, ...: k = 0 .. period // 2.

    The sines of k = 0 and k = period / 2 are zero rows.
    """
    k = np.arange(period // 2 + 1)
    angle = 2 * np.pi / period * (np.outer(k, first + np.arange(number)) % period)
    weight = np.where((k == 0) | (2 * k == period), 1.0, 2.0)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.sqrt(weight / period)[:, None, None]


def _twist(x: Array, basis: ChannelBasis, axis: int, pairs: tuple[int, int], *, back: bool = False) -> Array:
    """(C, S) -> (S, -C) of the coordinates that are odd, in y and in x; `back` is the inverse."""
    assert basis.odd is not None, "mirror matrices are in parity coordinates"

    def along(values: Any, place: int) -> np.ndarray:
        return np.reshape(values, [-1 if a == place else 1 for a in range(x.ndim)])

    for odd, pair in zip(basis.odd, pairs, strict=True):
        signs = jnp.asarray(along([-1, 1] if back else [1, -1], pair), x.dtype)
        x = jnp.where(along(odd, axis), jnp.flip(x, pair) * signs, x)
    return x


def _phase(rows: int, columns: int) -> Array:
    """i^p of each channel, p its parities in y and x added up."""
    p = [parities(n).astype(int) for n in (rows, columns)]
    return jnp.asarray(np.array([1, 1j, -1])[p[0][:, None] + p[1][None, :]].ravel(), jnp.result_type(complex))


@partial(jax.jit, donate_argnums=0)
def fill(matrices: Float[Array, "ky kx o i"], plane: Float[Array, "ky kx o p"], start: Array) -> Float[Array, "ky kx o i"]:
    """Write the columns of one depth into the matrices, in place."""
    return jax.lax.dynamic_update_slice(matrices, plane.astype(matrices.dtype), (0, 0, 0, start))
