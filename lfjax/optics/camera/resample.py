"""Cubic resampling of an image at given positions, as a linear operator."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike, NDArray

from lfjax.errors import require_shape
from lfjax.linop import LinearOperator


def cubic_weights(f: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Weights of the samples at -1, 0, 1, 2 for a point at f between samples 0 and 1 (Keys 1981, a = -1/2)."""
    return (
        ((-f / 2 + 1) * f - 0.5) * f,
        (1.5 * f - 2.5) * f * f + 1,
        ((-1.5 * f + 2) * f + 0.5) * f,
        (f / 2 - 0.5) * f * f,
    )


class Resample(LinearOperator):
    """Cubic convolution: y_p = sum over the 4 x 4 pixels around position p of w(p) x, third-order accurate.

    A position outside the image takes the value of the nearest pixel. The weights of a position sum to 1.

    Attributes:
        rows: (4, *positions) row indices of the taps; likewise `columns`.
        row_weights: (4, *positions) weights; likewise `column_weights`.
        shape: (y, x) of the image.
    """

    rows: Int[Array, "4 ..."]
    columns: Int[Array, "4 ..."]
    row_weights: Float[Array, "4 ..."]
    column_weights: Float[Array, "4 ..."]
    shape: tuple[int, int] = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int], positions: ArrayLike) -> None:
        """Build the operator.

        Args:
            shape: (y, x) of the image to be resampled.
            positions: (..., 2), positions (y, x) in pixels; pixel centres are whole numbers.

        Raises:
            ShapeError: `positions` does not end in 2.
        """
        positions = np.asarray(positions, np.float64)
        require_shape("last axis of positions", positions.shape[-1:], (2,))
        self.shape = (int(shape[0]), int(shape[1]))
        taps, weights = [], []
        for axis, length in enumerate(self.shape):
            clipped = np.clip(positions[..., axis], 0, length - 1)
            base = np.floor(clipped).astype(np.int32)
            taps.append(jnp.asarray(np.stack([np.clip(base + k, 0, length - 1) for k in (-1, 0, 1, 2)])))
            weights.append(jnp.asarray(np.stack(cubic_weights(clipped - base)).astype(jnp.result_type(float))))
        self.rows, self.columns = taps
        self.row_weights, self.column_weights = weights

    @property
    def in_shape(self) -> tuple[int, int]:
        return self.shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.rows.shape[1:]

    def matvec(self, x: Float[Array, "y x"]) -> Float[Array, "..."]:
        total = jnp.zeros(self.out_shape, x.dtype)
        for i in range(4):
            for j in range(4):
                taken = x.at[self.rows[i], self.columns[j]].get(mode="promise_in_bounds")
                total = total + self.row_weights[i] * self.column_weights[j] * taken
        return total
