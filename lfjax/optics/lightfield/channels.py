"""Coordinates of the channels of a lenslet: the channels themselves, their mirror parities, or a few orthonormal components.

The channels of a light field are the N x N pixels behind a lenslet; those of a volume are the s x s voxels under it at
every depth. Sums and differences of mirrored channels have a parity in y and in x, which halves the work of `spectral`.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

Odd = tuple[tuple[bool, ...], tuple[bool, ...]]
"""For each coordinate, whether it is odd in y, and whether it is odd in x."""


class ChannelBasis(eqx.Module):
    """Orthonormal coordinates of planes x rows x columns channels.

    Attributes:
        components: (r, c), the components kept, one per row, in the full coordinates; None: all are kept.
        grid: (planes, rows, columns) of the channels.
        odd: parities of the coordinates; None: the coordinates are the channels themselves.
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
        """These coordinates reduced to some of their components."""
        return ChannelBasis(components, self.grid, odd)

    @property
    def size(self) -> int:
        """Number of coordinates."""
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


def parities(n: int) -> Bool[np.ndarray, " n"]:
    """Parity of each entry of `to_parity`: False for sums and the middle, True for differences."""
    return np.arange(n) >= n - n // 2
