"""Convolutions of many channels with many channels, as one small real matrix product per frequency.

y_o = sum_i h_oi * x_i over a (T, T') periodic grid is y^(f) = H^(f) x^(f). The matrices H^ are kept as real numbers,
because XLA runs real products at full speed on every backend, but complex products slowly on CPUs. There are two forms:

- `FullMatrices`, for any kernel: the stack [Re H^; Im H^] over the half spectrum, with FFTs.
- `MirrorMatrices`, for kernels that do not change when scene and image are mirrored together, in y or in x: a quarter of
  the numbers and half of the arithmetic, with cosine and sine transforms, which are products too.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
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
"""float32: exact products. tf32: the default of the accelerator's tensor cores. bfloat16: half the memory."""

Window = tuple[tuple[int, int], tuple[int, int]]
"""Position of an image on the periodic grid: (first, number) in y and in x."""

MANY_COLUMNS = 64  # from this number on, products are faster with their columns last (2-core CPU, measured)
FFT_COST = 25  # one flop of an FFT takes as long as about this many flops of a matrix product (2-core CPU, measured)


@dataclasses.dataclass(frozen=True)
class Compression:
    """Error, ranks, memory and speed of an operator that `LightField.compress` made.

    It is a static part of the operator, so JAX compiles a function again for an operator whose compression differs.
    `seconds` does not count in comparisons: two timings of the same operator differ, and must not compile anything again.

    Attributes:
        rtol: largest error allowed.
        error: measured error |H~ - H| / |H| over all images of all voxels, rounding of the matrices included. In float32
            it is also the relative error of the image of white noise; that of a smooth volume is smaller.
        channels: (O, I), pixels and voxels of a lenslet before the compression.
        ranks: components kept of each.
        memory_gib: size of the matrices, before and after.
        seconds: time of H and H^T on one frame, before and after, each the median of five runs; None: not measured.
    """

    rtol: float
    error: float
    channels: tuple[int, int]
    ranks: tuple[int, int]
    memory_gib: tuple[float, float]
    seconds: tuple[float, float] | None = dataclasses.field(compare=False)


Matrices = TypeVar("Matrices", bound="ChannelMatrices")


class ChannelMatrices(eqx.Module):
    """H^ at every frequency that is kept, between the coordinates of two sets of channels.

    Attributes:
        matrices: real numbers, frequency first.
        volume: coordinates of the channels that H takes.
        image: coordinates of the channels that H returns.
        shape: (T, T'), the periodic grid.
        volume_window: position of the argument of H on the grid.
        image_window: part of the grid that H returns.
        precision: see `Precision`.
        columns: number of columns expected in a product; only the order of its axes depends on it.
        compression: None: the matrices are exact.
    """

    rows: ClassVar[int]  # rows of the matrices per output channel

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
        """The matrices of H^T H from volume to volume, exact if the image window cuts nothing off H x."""

    @abc.abstractmethod
    def forward(self, x: Float[Array, "t i y x"]) -> Float[Array, "t o row col"]:
        """H x of t frames at once."""

    @abc.abstractmethod
    def adjoint(self, y: Float[Array, "t o row col"]) -> Float[Array, "t i y x"]:
        """H^T y of t frames at once."""

    def product(self, subscripts: str, columns: Array) -> Array:
        """Matrices times columns, one frequency at a time, at the precision of this kernel."""
        level = jax.lax.Precision.HIGHEST if self.precision == "float32" else jax.lax.Precision.DEFAULT
        narrow = columns.astype(self.matrices.dtype) if self.precision == "bfloat16" else columns
        return jnp.einsum(subscripts, self.matrices, narrow, precision=level, preferred_element_type=columns.dtype)


class FullMatrices(ChannelMatrices):
    """G = [Re H^; Im H^] (2 O, I) at every frequency of the half spectrum, for kernels without symmetry.

    G [Re x, Im x] holds the four real products that H^ x needs; G^T [[Re y, Im y], [Im y, -Re y]] is [Re, Im] of the
    conjugate transpose of H^ times y.
    """

    rows = 2

    @staticmethod
    def grid(length: int) -> int:
        """Samples per side, at least `length`, that suit the transform."""
        return fourier.good_size(length)

    @staticmethod
    def frequencies(shape: tuple[int, int]) -> tuple[int, int]:
        """Frequencies kept on a grid."""
        return (shape[0], shape[1] // 2 + 1)

    @staticmethod
    def transform_cost(window: Window, shape: tuple[int, int]) -> float:
        """Flops of the transform of one channel, weighted by `FFT_COST`."""
        return FFT_COST * 2.5 * math.prod(shape) * math.log2(math.prod(shape) + 1)

    @staticmethod
    def plane(kernels: Float[Array, "v u a b K K"], shape: tuple[int, int]) -> Float[Array, "ky kx o i"]:
        """G of one depth from centred kernels."""
        v, u, a, b, *_ = kernels.shape
        spectrum = fourier.rfft2(fourier.centre_to_corner(kernels, shape), shape)
        spectrum = spectrum.reshape(v * u, a * b, *spectrum.shape[-2:]).transpose(2, 3, 0, 1)
        return jnp.concatenate([spectrum.real, spectrum.imag], axis=2)

    def forward(self, x: Float[Array, "t i y x"]) -> Float[Array, "t o row col"]:
        spectrum = self._transform(self.volume.coordinates(x), self.volume_window)
        product = self.product("kloi,qtikl->kloqt", jnp.stack([spectrum.real, spectrum.imag]))
        upper, lower = jnp.split(product, 2, axis=2)
        out = jax.lax.complex(upper[:, :, :, 0] - lower[:, :, :, 1], upper[:, :, :, 1] + lower[:, :, :, 0])
        return self.image.channels(self._back(out.transpose(3, 2, 0, 1), self.image_window))

    def adjoint(self, y: Float[Array, "t o row col"]) -> Float[Array, "t i y x"]:
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
    if its output and input have the same parity, and odd otherwise. Along one axis, with C and S the cosine and sine
    transforms, even kernels give C_y = e C_x, S_y = e S_x and odd ones C_y = -s S_x, S_y = s C_x. So one real matrix
    R(k), made of e, s and -s, acts on both columns (C, S) of even channels and (S, -C) of odd channels, and likewise
    along the other axis: four columns per frequency, and no complex numbers.
    """

    rows = 1

    @staticmethod
    def grid(length: int) -> int:
        """Samples per side: the transforms are matrix products, which suit any length."""
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
        """R of one depth from centred kernels; the asymmetric part of the kernels is dropped."""
        v, u, a, b, *_ = kernels.shape
        for axis in range(4):
            kernels = to_parity(kernels, axis)
        corner = fourier.centre_to_corner(kernels, shape)
        spectrum = fourier.rfft2(corner, shape)[..., : shape[0] // 2 + 1, :]
        spectrum = spectrum.reshape(v * u, a * b, *spectrum.shape[-2:]).transpose(2, 3, 0, 1)
        return (spectrum * _phase(v, u)[:, None] * _phase(a, b).conj()).real

    def forward(self, x: Float[Array, "t i y x"]) -> Float[Array, "t o row col"]:
        columns = self._transform(self.volume.coordinates(x), self.volume, self.volume_window)
        product = self.product("kloi,kqlrti->kloqrt", columns)
        return self.image.channels(self._back(product, "kloqrt", self.image, self.image_window))

    def adjoint(self, y: Float[Array, "t o row col"]) -> Float[Array, "t i y x"]:
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
        """Coordinates from their columns, the transpose of `_transform`; `order` names the axes of `product`, as "kloqrt"."""
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
    """(C, S) -> (S, -C) for the coordinates that are odd, in y and in x; `back` gives the inverse."""
    assert basis.odd is not None, "mirror matrices are in parity coordinates"

    def along(values: Sequence[float], place: int) -> np.ndarray:
        return np.reshape(values, [-1 if a == place else 1 for a in range(x.ndim)])

    for odd, pair in zip(basis.odd, pairs, strict=True):
        signs = jnp.asarray(along([-1, 1] if back else [1, -1], pair), x.dtype)
        x = jnp.where(along(odd, axis), jnp.flip(x, pair) * signs, x)
    return x


def _phase(rows: int, columns: int) -> Array:
    """i^p of each channel, where p is the sum of its parities in y and x."""
    p = [parities(n).astype(int) for n in (rows, columns)]
    return jnp.asarray(np.array([1, 1j, -1])[p[0][:, None] + p[1][None, :]].ravel(), jnp.result_type(complex))


@partial(jax.jit, static_argnames=("kind", "cell", "shape", "dtype"))
def channel_matrices(
    values: Float[Array, "z a b y x"],
    *,
    kind: type[FullMatrices] | type[MirrorMatrices],
    cell: tuple[int, int],
    shape: tuple[int, int],
    dtype: np.dtype,
) -> Float[Array, "ky kx o i"]:
    """Matrices of all depths of a PSF, `PSF.values`; one depth at a time, each written in place.

    Args:
        values: images of the voxels (a, b) of a cell at each depth.
        kind: form of the matrices.
        cell: (N_y, N_x), pixels of a cell.
        shape: the periodic grid.
        dtype: type of the matrices.
    """
    (depths, a, b, _, width), (rows, columns) = values.shape, cell
    k = width // columns
    outputs, inputs = kind.rows * math.prod(cell), a * b

    def add(d: Array, matrices: Array) -> Array:
        kernels = values[d].reshape(a, b, k, rows, k, columns).transpose(3, 5, 0, 1, 2, 4)
        plane = kind.plane(kernels, shape).astype(dtype)
        return jax.lax.dynamic_update_slice(matrices, plane, (0, 0, 0, d * inputs))

    empty = jnp.zeros((*kind.frequencies(shape), outputs, depths * inputs), dtype)
    return jax.lax.fori_loop(0, depths, add, empty)
