"""Spectra of volumes at frequencies off the grid: convolution with a short kernel on an oversampled grid.

    V^(k) = sum_x V(x) exp(-2 pi i k.x / G)  ~  sum_g F(g) phi(g_x - k_x) phi(g_y - k_y) phi(g_z - k_z)

with k in cells of a grid of G samples per side, and F the spectrum of V / phi^ (deapodisation). V is real, so only the half
k_x >= 0 is stored; the array has margins, so that the taps of a sample are always one block of it. There are two kernels:
Kaiser-Bessel, whose error falls about tenfold with each tap, and the tent of trilinear interpolation.

Sources: Jackson et al., IEEE Trans. Med. Imaging 10, 473 (1991); Beatty et al., ibid. 24, 799 (2005).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Complex, Float, Int
from numpy.typing import NDArray

from lfjax.errors import require

Tangent = Array | jax.custom_derivatives.SymbolicZero


@dataclass(frozen=True)
class Kernel:
    """The kernel phi as one polynomial per tap.

    A sample at k has the taps i, ..., i + width - 1 with i = floor(k - width / 2 + 1), and weighs tap j by p_j(u - 1/2), where
    u is the fraction that floor cuts off.

    Attributes:
        coefficients: coefficients of the p_j, (width, degree + 1) as nested tuples, lowest power first.
    """

    coefficients: tuple[tuple[float, ...], ...]

    @property
    def width(self) -> int:
        """Taps along each axis."""
        return len(self.coefficients)

    def taps(self, u: Float[Array, "..."]) -> list[Float[Array, "..."]]:
        """Weight of each tap."""
        return [_horner(row, u - 0.5) for row in self.coefficients]

    def slopes(self, u: Float[Array, "..."]) -> list[Float[Array, "..."]]:
        """Derivative of each weight with respect to k."""
        return [_horner([p * c for p, c in enumerate(row)][1:], u - 0.5) for row in self.coefficients]

    def deapodisation(self, n: int, grid: int) -> NDArray[np.float64]:
        """1 / phi^ at the n samples about the centre, with the least mean error for all positions of samples.

        phi^ (x) is the transform of phi; its periodic images phi^ (x + m G) are the aliases of a sample; least squares divides
        by sum_m phi^ (x + m G)^2 / phi^ (x).
        """
        x = np.arange(n) - n // 2
        transform = self._transform((x[:, None] + grid * np.arange(-3, 4)) / grid)
        return transform[:, 3] / (transform**2).sum(1)

    def apodisation(self, n: int, grid: int) -> NDArray[np.float64]:
        """phi^ at the n samples about the centre."""
        return self._transform((np.arange(n) - n // 2) / grid)

    def _transform(self, cycles: NDArray[np.float64]) -> NDArray[np.float64]:
        """Integral of phi(t) exp(2 pi i t f), by Gauss-Legendre on each piece of phi."""
        nodes, weights = np.polynomial.legendre.leggauss(24)
        total = np.zeros_like(cycles)
        for j, row in enumerate(self.coefficients):
            u = (nodes + 1) / 2
            distance = u + self.width / 2 - 1 - j  # from the tap to the sample
            value = np.polynomial.polynomial.polyval(u - 0.5, row) * weights / 2
            total += (value * np.cos(2 * np.pi * cycles[..., None] * distance)).sum(-1)
        return total


def _horner(coefficients: Sequence[float], u: Array) -> Array:
    value = jnp.full_like(u, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = value * u + c
    return value


def kaiser_bessel(width: int, oversampling: float = 2.0) -> Kernel:
    """Kaiser-Bessel kernel I0(beta sqrt(1 - (2 t / width)^2)) / I0(beta), fitted by polynomials well below its own error.

    Relative error about 5e-3, 4e-4, 3e-5, 3e-6 for 3, 4, 5, 6 taps at twofold oversampling (a ribosome).

    Args:
        width: taps along each axis, 2 to 8.
        oversampling: ratio G / n of grid and volume.

    Raises:
        ParameterError: width or oversampling is out of range.
    """
    require(isinstance(width, int) and 2 <= width <= 8, "width", width, "a whole number from 2 to 8")
    require(oversampling > 1, "oversampling", oversampling, "more than 1")
    # 5 % above the beta of Beatty et al.: theirs is best for a volume that fills its cube, this one for a ball
    beta = 1.05 * np.pi * np.sqrt((width / oversampling * (oversampling - 0.5)) ** 2 - 0.8)
    degree = width + 3
    nodes = 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    rows = []
    for j in range(width):
        distance = nodes + 0.5 + width / 2 - 1 - j
        value = np.i0(beta * np.sqrt(np.clip(1 - (2 * distance / width) ** 2, 0, None))) / np.i0(beta)
        rows.append(tuple(map(float, np.polynomial.polynomial.polyfit(nodes, value, degree))))
    return Kernel(tuple(rows))


def trilinear() -> Kernel:
    """The tent 1 - |t| on two taps."""
    return Kernel(((0.5, -1.0), (0.5, 1.0)))


def spectrum(volume: Float[Array, "z y x"], kernel: Kernel, grid: int) -> Complex[Array, "gz gy gx"]:
    """Spectrum F with its margins, (G + W - 1, G + W - 1, G / 2 + 1 + 2 W): element (0, 0, W) is frequency 0.

    Args:
        volume: real samples; the origin is at n // 2 of each axis.
        kernel: kernel of width W; this function applies its deapodisation.
        grid: G, even and at least as large as the volume.
    """
    width = kernel.width
    scale = [jnp.asarray(kernel.deapodisation(n, grid), volume.dtype) for n in volume.shape]
    volume = volume * scale[0][:, None, None] * scale[1][:, None] * scale[2]
    rows = jnp.fft.rfft(_cornered(volume, 2, grid), axis=2)
    left, right = rows[..., width:0:-1], rows[..., -2 : -2 - width : -1]
    rows = jnp.concatenate([left.conj(), rows, right.conj()], axis=2)
    for axis in (1, 0):
        rows = jnp.fft.fft(_cornered(rows, axis, grid), axis=axis)
        rows = jnp.concatenate([rows, lax.slice_in_dim(rows, 0, width - 1, axis=axis)], axis=axis)
    return rows


def _cornered(x: Array, axis: int, grid: int) -> Array:
    """Zero-padded along an axis to `grid`, its centre at index 0."""
    half = x.shape[axis] // 2
    zeros = jnp.zeros((*x.shape[:axis], grid - x.shape[axis], *x.shape[axis + 1 :]), x.dtype)
    parts = [lax.slice_in_dim(x, half, x.shape[axis], axis=axis), zeros, lax.slice_in_dim(x, 0, half, axis=axis)]
    return jnp.concatenate(parts, axis=axis)


def interpolate(
    grid_values: Complex[Array, "gz gy gx"], k: Float[Array, "3 ..."], kernel: Kernel, grid: int
) -> Complex[Array, "..."]:
    """V^ at frequencies k = (x, y, z) in cells; differentiable in the spectrum and in k.

    The value is read tap by tap (the fastest gather), its derivative with respect to the spectrum block by block (whose
    transpose, a scatter of blocks, is the fastest way back).
    """
    k, flip = _to_stored_half(k, grid)
    value = _read(kernel, grid, grid_values, k)
    return jnp.where(flip, value.conj(), value)


class Taps(NamedTuple):
    """Where m samples go: first cells, weights of the taps along each axis, and values, for `add_taps`."""

    corners: Int[Array, "m 4"]
    wx: Float[Array, "m w"]
    wy: Float[Array, "m w"]
    wz: Float[Array, "m w"]
    values: Float[Array, "m c"]


def taps_of(k: Float[Array, "3 ..."], values: Float[Array, "... c"], kernel: Kernel, grid: int) -> Taps:
    """Taps of samples at k.

    The last axis of the values holds the real and the imaginary part, and after them further values that are even in k.
    """
    k, flip = _to_stored_half(k, grid)
    base, u = _split(kernel, grid, k)
    weights = (jnp.stack(kernel.taps(v.ravel()), axis=-1) for v in u)
    values = values.at[..., 1].multiply(jnp.where(flip, -1, 1)).reshape(-1, values.shape[-1])
    return Taps(_corners(base), *(fence(v) for v in (*weights, values)))


def add_taps(target: Float[Array, "gz gy gx c"], taps: Taps) -> Float[Array, "gz gy gx c"]:
    """`target` with the samples added."""
    _, wx, wy, wz, values = taps
    blocks = (wx[:, :, None] * values[:, None])[:, None, None] * (wz[:, :, None] * wy[:, None])[..., None, None]
    numbers = lax.ScatterDimensionNumbers((1, 2, 3, 4), (), (0, 1, 2, 3))
    return lax.scatter_add(target, taps.corners, blocks.astype(target.dtype), numbers, mode="promise_in_bounds")


def spread(
    target: Float[Array, "gz gy gx c"], k: Float[Array, "3 ..."], values: Float[Array, "... c"], kernel: Kernel, grid: int
) -> Float[Array, "gz gy gx c"]:
    """The transpose of `interpolate`, added to `target`; `taps_of` says what the values are."""
    return add_taps(target, taps_of(k, values, kernel, grid))


def fold(total: Float[Array, "gz gy gx c"], kernel: Kernel, grid: int) -> Float[Array, "gz gy gx c"]:
    """The spread sums with their margins added to the cells of which they are periodic or mirror images.

    Samples were not spread at -k too, so that columns within a kernel of frequency 0 and of Nyquist lack the taps of mirror
    images. The margins stay as they are, without a meaning, so that the whole can be done in place; sums of folded sums are
    folded. `inside` cuts the margins off.
    """
    width, half = kernel.width, grid // 2
    for axis in (0, 1):
        tail = lax.slice_in_dim(total, grid, total.shape[axis], axis=axis)
        total = total.at[(slice(None),) * axis + (slice(0, width - 1),)].add(tail)
    sign = jnp.where(jnp.arange(total.shape[-1]) == 1, -1, 1).astype(total.dtype)
    # stored column j is frequency j - width: its mirror image is column 2 width - j, of grid - frequency about Nyquist
    for start, target in ((0, width), (half + width, half)):
        mirror = total[:grid, :grid, start : start + width + 1][::-1, ::-1, ::-1]
        mirror = sign * jnp.roll(mirror, (1, 1), (0, 1))
        total = total.at[:grid, :grid, target : target + width + 1].add(mirror)
    return total


def unfold(total: Float[Array, "gz gy gx c"], kernel: Kernel, grid: int) -> Float[Array, "gz gy gx c"]:
    """Spread sums whose `fold` is `total` inside: empty margins, and half of the columns that are their own mirror images."""
    width, half = kernel.width, grid // 2
    row = np.arange(total.shape[1]) < grid
    column = np.arange(total.shape[2]) - width
    part = np.where((column == 0) | (column == half), 0.5, (column > 0) & (column < half))
    return total * jnp.asarray(row[:, None, None] * row[:, None] * part, total.dtype)[..., None]


def inside(total: Float[Array, "gz gy gx c"], first: Int[ArrayLike, ""], count: int, kernel: Kernel, grid: int) -> Array:
    """Columns `first` to `first + count - 1`, frequencies along x, of folded sums, (G, G, count, c) as `rfftn` orders them."""
    return lax.dynamic_slice(total, (0, 0, first + kernel.width, 0), (grid, grid, count, total.shape[-1]))


def grid_shape(kernel: Kernel, grid: int) -> tuple[int, int, int]:
    """Shape of the result of `spectrum`."""
    side = grid + kernel.width - 1
    return side, side, grid // 2 + 1 + 2 * kernel.width


def _to_stored_half(k: Array, grid: int) -> tuple[Array, Array]:
    """k in [0, G/2] x [0, G) x [0, G), and a mask of the samples whose value is the conjugate of the stored one."""
    k = k - grid * lax.stop_gradient(jnp.round(k / grid))
    flip = k[0] < 0
    k = jnp.where(flip, -k, k)
    return k, flip


def _split(kernel: Kernel, grid: int, k: Array) -> tuple[tuple[Array, Array, Array], Array]:
    """Index of the first tap along (x, y, z) in the stored array, and the fractions."""
    start = k - (kernel.width / 2 - 1)
    first = jnp.floor(start)
    index = first.astype(jnp.int32)
    y, z = ((index[a] + grid) % grid for a in (1, 2))
    return (index[0] + kernel.width, y, z), start - first


def fence(x: Float[Array, "m ..."]) -> Float[Array, "m ..."]:
    """The same array, written to memory: XLA would fuse its computation into its user and repeat it for each of the taps.

    No backend fuses across a loop of two steps, in the transpose either (`lax.optimization_barrier` is gone before the CPU
    fuses).
    """
    padded = x if x.shape[0] % 2 == 0 else jnp.concatenate([x, x[-1:]])
    halves = lax.map(lax.optimization_barrier, padded.reshape(2, -1, *x.shape[1:]))
    return halves.reshape(padded.shape)[: x.shape[0]]


def _corners(base: tuple[Array, Array, Array]) -> Array:
    x, y, z = (v.ravel() for v in base)
    return jnp.stack([z, y, x, jnp.zeros_like(x)], axis=-1)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _read(kernel: Kernel, grid: int, values: Array, k: Array) -> Array:
    base, u = _split(kernel, grid, k)
    return _sum_taps(kernel, values, base, u, slopes=False)[0]


def _read_jvp(
    kernel: Kernel, grid: int, primals: tuple[Array, Array], tangents: tuple[Tangent, Tangent]
) -> tuple[Array, Array]:
    (values, k), (d_values, d_k) = primals, tangents
    base, u = _split(kernel, grid, k)
    moving = not isinstance(d_k, jax.custom_derivatives.SymbolicZero)
    value, *slopes = _sum_taps(kernel, values, base, u, slopes=moving)
    tangent = jnp.zeros_like(value)
    if moving:
        tangent = sum((d * slope for d, slope in zip(d_k, slopes, strict=True)), tangent)
    if not isinstance(d_values, jax.custom_derivatives.SymbolicZero):
        tangent = tangent + _blocks(kernel, d_values, base, u)
    return value, tangent


_read.defjvp(_read_jvp, symbolic_zeros=True)


def _sum_taps(kernel: Kernel, values: Array, base: tuple[Array, Array, Array], u: Array, slopes: bool) -> list[Array]:
    """Sum over all taps, with `slopes` also its derivatives along x, y and z; a loop over planes of unrolled taps."""
    rows, columns = values.shape[1:]
    flat = values.ravel()
    x, y, z = base
    start = (z * rows + y) * columns + x
    wx, wy = kernel.taps(u[0]), kernel.taps(u[1])
    wz = jnp.stack(kernel.taps(u[2]))
    if slopes:
        sx, sy, sz = kernel.slopes(u[0]), kernel.slopes(u[1]), jnp.stack(kernel.slopes(u[2]))

    def add_plane(total: list[Array], dz: Array) -> tuple[list[Array], None]:
        corner = start + dz * (rows * columns)

        def read(dy: int, dx: int) -> Array:
            return flat.at[corner + (dy * columns + dx)].get(mode="promise_in_bounds")

        def plane(ax: list[Array], ay: list[Array]) -> Array:
            lines = (b * sum(a * read(dy, dx) for dx, a in enumerate(ax)) for dy, b in enumerate(ay))
            return reduce(operator.add, lines)

        value = plane(wx, wy)
        terms = [wz[dz] * value]
        if slopes:
            terms += [wz[dz] * plane(sx, wy), wz[dz] * plane(wx, sy), sz[dz] * value]
        return [t + term for t, term in zip(total, terms, strict=True)], None

    zero = jnp.zeros(x.shape, jnp.result_type(values, u))
    total, _ = lax.scan(add_plane, [zero] * (4 if slopes else 1), jnp.arange(kernel.width))
    return total


def _blocks(kernel: Kernel, values: Array, base: tuple[Array, Array, Array], u: Array) -> Array:
    """The same sum as a gather of whole blocks."""
    wx, wy, wz = (jnp.stack(kernel.taps(v.ravel()), axis=-1) for v in u)
    pairs = jnp.stack([values.real, values.imag], axis=-1)
    numbers = lax.GatherDimensionNumbers((1, 2, 3, 4), (), (0, 1, 2, 3))
    size = (kernel.width,) * 3 + (2,)
    wx, wy, wz = (fence(v) for v in (wx, wy, wz))
    blocks = lax.gather(pairs, _corners(base), numbers, size, mode="promise_in_bounds")
    total = (blocks * (wz[:, :, None] * wy[:, None])[..., None, None]).sum((1, 2))
    total = (total * wx[:, :, None]).sum(1)
    total = fence(total)
    return lax.complex(total[:, 0], total[:, 1]).reshape(u.shape[1:])
