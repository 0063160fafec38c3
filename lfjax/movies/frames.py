"""The type of a movie: an array, a file, or frames computed as they are read; and the trust of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from lfjax.errors import require, require_shape


@runtime_checkable
class Frames(Protocol):
    """A movie (t, y, x), read by number or slice: an array, `io.open_movie`, `Prepared`, or a class of yours.

    Attributes:
        shape: (t, y, x).
        dtype: of the numbers.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any, /) -> Any: ...


def check_weights(weights: ArrayLike, shape: Sequence[int]) -> Float[np.ndarray, "row col"]:
    """Weights of the pixels of a frame as an array, after checking that they are weights.

    Args:
        weights: (row, col), trust of each pixel: a mask, or numbers of 0 or more.
        shape: (row, col) of a frame.

    Raises:
        ShapeError: `weights` is not of this shape.
        ParameterError: a weight is negative or not finite, or all are zero.
    """
    trust = np.asarray(weights, np.float32)
    require_shape("weights", trust.shape, tuple(shape))
    least, most = float(trust.min()), float(trust.max())
    require(least >= 0 and most < np.inf, "weights", f"{least:g} to {most:g}", "finite numbers of zero or more")
    require(most > 0, "weights", "zeros", "a trusted pixel: one of a weight above 0")
    return trust
