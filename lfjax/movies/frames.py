"""The type of a movie: an array, a file, or frames computed as they are read."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


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
