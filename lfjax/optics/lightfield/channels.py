"""Coordinates of the channels at a lenslet: as they are, by mirror parity, or a few orthonormal components of them.

The channels of a light field are the N x N pixels behind a lenslet, those of a volume the s x s voxels under it at every
depth. Sums and differences of mirrored channels have a parity in y and in x, which halves what `spectral` computes.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Odd = tuple[tuple[bool, ...], tuple[bool, ...]]
"""Of each coordinate, whether it is odd in y, and whether it is odd in x."""


class ChannelBasis(eqx.Module):
    """Orthonormal coordinates of planes x rows x columns channels.

    Attributes:
        components: rows are the components kept, in the coordinates without them; None keeps all.
        grid: (planes, rows, columns) of the channels.
        odd: parities of the coordinates; None if they are the channels themselves.
    """

    components: Float[Array, "r c"] | None
    grid: tuple[int, int, int] = eqx.field(static=True)
    odd: Odd | None = eqx.field(static=True)

    @classmethod
    def plain(cls, planes: int, rows: int, columns: int) -> ChannelBasis:
        """The channels themselves."""
        return cls(None, (planes, rows, columns), None)

    @classmethod
    def parity(cls, planes: int, rows: int, columns: int) -> ChannelBasis:
        """Sums and differences of each channel and its mirror images."""
        y, x = np.broadcast_arrays(parities(rows)[:, None], parities(columns)[None, :])
        odd = tuple(tuple(bool(p) for p in np.tile(axis.ravel(), planes)) for axis in (y, x))
        return cls(None, (planes, rows, columns), odd)  # type: ignore[arg-type]

    def keep(self, components: Float[Array, "r c"], odd: Odd | None) -> ChannelBasis:
        """These coordinates reduced to components of them."""
        return ChannelBasis(components, self.grid, odd)

    @property
    def size(self) -> int:
        """Coordinates."""
        return math.prod(self.grid) if self.components is None else self.components.shape[0]

    def coordinates(self, x: Float[Array, "t c y x"]) -> Float[Array, "t r y x"]:
        """Channels to coordinates."""
        if self.odd is not None:
            t, c, *field = x.shape
            x = to_parity(to_parity(x.reshape(t, *self.grid, *field), 2), 3).reshape(t, c, *field)
        if self.components is not None:
            x = jnp.einsum("rc,tcyx->tryx", self.components, x, precision=jax.lax.Precision.HIGHEST)
        return x

    def channels(self, x: Float[Array, "t r y x"]) -> Float[Array, "t c y x"]:
        """Coordinates to channels, the transpose of `coordinates`."""
        if self.components is not None:
            x = jnp.einsum("rc,tryx->tcyx", self.components, x, precision=jax.lax.Precision.HIGHEST)
        if self.odd is not None:
            t, c, *field = x.shape
            x = from_parity(from_parity(x.reshape(t, *self.grid, *field), 2), 3).reshape(t, c, *field)
        return x


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


def parities(n: int) -> np.ndarray:
    """Parity of each place of `to_parity`: False for sums and the middle, True for differences."""
    return np.arange(n) >= n - n // 2
