"""Fourier transforms, padding and translation.

The origin of a *centred* array is the sample of index n // 2; that of a *cornered* array, as the FFT takes it, is index 0.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float


def good_size(n: int) -> int:
    """Smallest length >= n with only small prime factors, for real FFTs: a length of 67 takes 2.6 times as long as 72."""
    size = int(n)
    while not _smooth(size, (2, 3, 5)):
        size += 1
    return size


def good_centred_size(n: int) -> int:
    """Smallest such length >= n for complex FFTs that leaves equally many samples on both sides of n."""
    size = int(n)
    while not _smooth(size, (2, 3, 5, 7, 11)):
        size += 2
    return size


def _smooth(n: int, primes: tuple[int, ...]) -> bool:
    """Whether n has no other prime factors. (`scipy.fft.next_fast_len` is the same, but takes half a second to import.)"""
    for prime in primes:
        while n % prime == 0:
            n //= prime
    return n == 1


def centre_to_corner(kernel: Array, shape: tuple[int, int]) -> Array:
    """Put a centred kernel (..., K, K') into a zero array (..., *shape) with its origin at index (0, 0).

    A circular convolution with the result, by `rfft2`, leaves objects in place.
    """
    rows, columns = kernel.shape[-2:]
    pad = [(0, 0)] * (kernel.ndim - 2) + [(0, shape[0] - rows), (0, shape[1] - columns)]
    return jnp.roll(jnp.pad(kernel, pad), (-(rows // 2), -(columns // 2)), axis=(-2, -1))


def rfft2(x: Float[Array, "... y x"], shape: tuple[int, int]) -> Complex[Array, "... ky kx"]:
    """Transform of real images over their last two axes, zero-padded at the end to `shape`."""
    return jnp.fft.rfft2(x, s=shape)


def irfft2(spectrum: Complex[Array, "... ky kx"], shape: tuple[int, int], crop: tuple[int, int]) -> Array:
    """Inverse of `rfft2` at the padded `shape`, cropped to `crop`."""
    return jnp.fft.irfft2(spectrum, s=shape)[..., : crop[0], : crop[1]]


def translate(x: Float[Array, "..."], shift: Float[Array, " d"]) -> Float[Array, "..."]:
    """x(r - s) over the last d axes, periodically, by exp(-2 pi i k.s) on the spectrum; exact below Nyquist.

    Args:
        x: real.
        shift: s, in samples, in the order of those axes.
    """
    shape, axes = x.shape[-len(shift) :], tuple(range(-len(shift), 0))
    spectrum = jnp.fft.rfftn(x, axes=axes)
    for axis, n in zip(axes, shape, strict=True):
        k = jnp.fft.rfftfreq(n) if axis == -1 else jnp.fft.fftfreq(n)
        spectrum = spectrum * jnp.exp(-2j * jnp.pi * k * shift[axis]).reshape(-1, *(-1 - axis) * (1,))
    return jnp.fft.irfftn(spectrum, shape, axes)


def translate_mirrored(x: Float[Array, "..."], shift: Float[Array, " d"]) -> Float[Array, "..."]:
    """`translate` of x continued by its mirror image, axis by axis: no step at the edges, so nothing wraps and little rings.

    Args:
        x: real.
        shift: s, in samples, of the last d axes; at most the length of the axis. The mirror image enters over the edges.
    """
    for axis in range(-len(shift), 0):
        line = jnp.moveaxis(x, axis, -1)
        both = jnp.concatenate([line, line[..., ::-1]], axis=-1)
        moved = translate(both, shift[axis][None])[..., : line.shape[-1]]
        x = jnp.moveaxis(moved, -1, axis)
    return x


def transfer_fresnel(
    n: int, spacing_um: tuple[Array | float, Array | float], wavelength_um: Array | float, distance_um: Array | float
) -> Complex[Array, "ky kx"]:
    """Fresnel transfer function exp(-i pi lambda d |f|^2) on an n x n grid, origin in the corner.

    Args:
        n: samples per side.
        spacing_um: distances (y, x) between samples.
        wavelength_um: wavelength in the medium of propagation.
        distance_um: distance of propagation.
    """
    y, x = (jnp.exp(-1j * jnp.pi * wavelength_um * distance_um * jnp.fft.fftfreq(n, d) ** 2) for d in spacing_um)
    return y[:, None] * x[None, :]
