"""Convolutions on the lenslet grid, channels last: the building blocks of the learned models' layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from lfjax.linop import LinearOperator
from lfjax.optics.lightfield import views

AXES = ("NHWC", "HWIO", "NHWC")
Carry = TypeVar("Carry")


def convolve(x: Float[Array, "Y X i"], kernel: Float[Array, "k l i o"]) -> Float[Array, "Y X o"]:
    """out[p] = sum_q kernel[q] x[p + q - k // 2], zeros outside.

    The product has the precision of the kernel and the result that of x: a network with bfloat16 kernels adds up in float32.
    On CPUs the convolution is one matrix product per row of the kernel, because XLA's gradient of a convolution with respect to
    its kernel is about 20 times slower there than the convolution itself.
    """
    out = jax.lax.platform_dependent(x.astype(kernel.dtype), kernel, cpu=_by_rows, default=_by_library)
    return out.astype(x.dtype)


def _by_library(x: Float[Array, "Y X i"], kernel: Float[Array, "k l i o"]) -> Float[Array, "Y X o"]:
    return jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=AXES)[0]


def _by_rows(x: Float[Array, "Y X i"], kernel: Float[Array, "k l i o"]) -> Float[Array, "Y X o"]:
    rows, columns, _ = x.shape
    k, size, i, o = kernel.shape
    x = jnp.pad(x, [((n - 1) // 2, n // 2) for n in (k, size)] + [(0, 0)])
    beside = jnp.concatenate([x[:, j : j + columns] for j in range(size)], axis=-1)
    return sum(beside[j : j + rows] @ kernel[j].reshape(size * i, o) for j in range(k))  # type: ignore[return-value]


def strided_patches(x: Float[Array, "... i"], window: tuple[int, ...], stride: tuple[int, ...]) -> Float[Array, "... o"]:
    """Windows of an image or volume (..., channels) at steps of `stride`, flattened into channels for a strided convolution.

    The input is padded with zeros so that ceil(n / stride) windows fit along each axis.
    """
    axes = x.ndim - 1
    for axis, (side, width, step) in enumerate(zip(x.shape[:-1], window, stride, strict=True)):
        count = -(-side // step)
        missing = max((count - 1) * step + width - side, 0)
        x = jnp.pad(x, [(missing // 2, missing - missing // 2) if a == axis else (0, 0) for a in range(x.ndim)])
        cuts = [jax.lax.slice_in_dim(x, a, a + (count - 1) * step + 1, step, axis) for a in range(width)]
        x = jnp.stack(cuts, axis=axes + axis)
    return x.reshape(*x.shape[:axes], -1)


def transpose_kernel(kernel: Float[Array, "... k l i o"]) -> Float[Array, "... k l o i"]:
    """The kernel of the adjoint, for odd k and l."""
    return jnp.flip(kernel, (-4, -3)).swapaxes(-1, -2)


def random_kernel(key: Array, shape: tuple[int, ...], gain: float = 1.0) -> Float[Array, "... k l i o"]:
    """Normal random numbers of variance gain^2 / (k l i): with gain 1 they preserve the variance of white noise.

    Drawn flat: the numbers are the same, and XLA compiles a draw of many axes ten times more slowly than one of a single axis.
    """
    drawn = jax.random.normal(key, (math.prod(shape),)).reshape(shape)
    return gain / math.sqrt(math.prod(shape[-4:-1])) * drawn


@eqx.filter_jit
def impulse_kernels(
    op: LinearOperator, cell_voxels: tuple[int, int], cell_pixels: tuple[int, int], reach: int
) -> Float[Array, "k k i o"]:
    """The kernels of an operator that is a convolution on the lenslet grid, up to `reach` lenslets from their centre.

    They are measured by applying the operator to one impulse per channel, so any composition of operators can be used.

    Args:
        op: H, volume (z, y, x) -> light field (row, col); its field must be at least 2 reach + 1 lenslets wide.
        cell_voxels: voxels (y, x) per lenslet.
        cell_pixels: pixels (y, x) per lenslet.
        reach: lenslets.

    Returns:
        Kernels for `convolve`, volume channels to views.
    """
    depths, rows, columns = op.in_shape
    grid = (rows // cell_voxels[0], columns // cell_voxels[1])
    channels = depths * math.prod(cell_voxels)
    field = (op.out_shape[0] // cell_pixels[0], op.out_shape[1] // cell_pixels[1])

    def image(channel: Array) -> Float[Array, "o k k"]:
        impulse = jnp.zeros((channels, *grid)).at[channel, grid[0] // 2, grid[1] // 2].set(1)
        seen = views.to_views(op.matvec(views.from_channels(impulse, cell_voxels)), cell_pixels).reshape(-1, *field)
        y, x = (n // 2 - reach for n in field)
        return jax.lax.dynamic_slice(seen, (0, y, x), (seen.shape[0], 2 * reach + 1, 2 * reach + 1))

    images = jax.lax.map(image, jnp.arange(channels))
    return jnp.flip(images, (2, 3)).transpose(2, 3, 0, 1)


def wiener_kernel(kernel: Float[Array, "k k i o"], damping: float, reach: int) -> Float[Array, "r r o i"]:
    """G = H^H (H H^H + damping |H|^2)^-1 of a convolution H, cut to 2 reach + 1 lenslets: the best linear inverse.

    The inverse is optimal in mean square for a white volume and white noise of `damping` |H|^2 times the variance of the
    volume. It is solved frequency by frequency, in NumPy, on a grid so large that wrapping is negligible.
    """
    side = 4 * reach + kernel.shape[0]
    middle = kernel.shape[0] // 2
    padded = np.zeros((side, side, *kernel.shape[2:]))
    padded[: kernel.shape[0], : kernel.shape[0]] = kernel
    spectrum = np.fft.ifft2(np.roll(padded, (-middle, -middle), (0, 1)), axes=(0, 1)) * side**2
    adjoint = spectrum.conj().swapaxes(-1, -2)
    gram = adjoint @ spectrum
    noise = damping * np.linalg.eigvalsh(gram)[..., -1].max()
    inverse = np.linalg.solve(gram + noise * np.eye(gram.shape[-1]), adjoint)
    found = np.fft.fft2(inverse, axes=(0, 1)).real / side**2
    found = np.roll(found, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    return jnp.asarray(found, kernel.dtype)


@eqx.filter_jit
def compose_kernels(first: Float[Array, "k k i m"], second: Float[Array, "l l m o"], side: int) -> Float[Array, "s s i o"]:
    """The middle `side` x `side` of the kernel of `second` after `first`."""
    reach = side // 2
    size = first.shape[0] + second.shape[0] - 1 + 2 * reach
    impulses = jnp.zeros((first.shape[2], size, size, first.shape[2]))
    impulses = impulses.at[jnp.arange(len(impulses)), size // 2, size // 2, jnp.arange(len(impulses))].set(1)
    images = jax.lax.map(lambda x: convolve(convolve(x, first), second), impulses)
    cut = slice(size // 2 - reach, size // 2 + reach + 1)
    return jnp.flip(images[:, cut, cut], (1, 2)).transpose(1, 2, 0, 3)


def scan_layers(body: Callable[[Carry, PyTree], Carry], carry: Carry, layers: PyTree, *, checkpoint: bool) -> Carry:
    """carry <- body(carry, layer) over the leading axis of `layers`.

    With `checkpoint` the K layers run in about sqrt(K) groups. The gradient keeps only the carries between groups and, for one
    group at a time, those between layers: memory grows as sqrt(K), at the cost of one more forward pass.
    """

    def step(carry: Carry, layer: PyTree) -> tuple[Carry, None]:
        return body(carry, layer), None

    if not checkpoint:
        return jax.lax.scan(step, carry, layers)[0]
    length = len(jax.tree.leaves(layers)[0])
    inner = math.isqrt(length)
    outer = length // inner
    grouped = jax.tree.map(lambda a: a[: inner * outer].reshape(outer, inner, *a.shape[1:]), layers)
    rest = jax.tree.map(lambda a: a[inner * outer :], layers)
    one = jax.checkpoint(step)

    @jax.checkpoint
    def group(carry: Carry, some: PyTree) -> tuple[Carry, None]:
        return jax.lax.scan(one, carry, some)

    carry, _ = jax.lax.scan(group, carry, grouped)
    return jax.lax.scan(one, carry, rest)[0]
