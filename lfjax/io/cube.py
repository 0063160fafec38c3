"""Spectral cubes (rows, columns, channels) of X-ray counts: what containers give, with counts checked as they come.

A scan of a painting has a spectrum per point: 512 x 512 points of 2048 channels are 1 GiB and more, so rows are read
as they are asked for.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lfjax.errors import FileError, LfjaxError, require
from lfjax.io.arrays import reason
from lfjax.io.claims import array_bytes, is_small, require_claim

BLOCK_BYTES = 2**26  # of counts that `Cube.blocks` reads at a time


class EnergyAxis(NamedTuple):
    """Energy of channel n in eV: offset_ev + gain_ev n, n from 0."""

    offset_ev: float
    gain_ev: float

    def energies_ev(self, channels: int) -> np.ndarray:
        """Energies (channels,) in eV of the first channels."""
        return self.offset_ev + self.gain_ev * np.arange(channels)


def _nothing() -> None: ...


@dataclass(frozen=True, eq=False)
class Cube:
    """Counts (rows, columns, channels) in files, of which only the requested rows are read.

    Attributes:
        shape: (rows, columns, channels).
        dtype: type of the counts, in native byte order.
        load: range of row numbers -> (n, columns, channels), as the file has them; users call `read`, which checks them.
        energy: energy of the channels, as the file tells it. None: unknown.
        live_s: (rows, columns), live or dwell time of each point in seconds. None: unknown.
        pixel_um: distance between points (y, x) in micrometres. None: unknown.
        files: files that hold the counts.
        close: closes the files; leaving a `with` block calls it.
        stored: bytes that the counts come from. None: those of the files; infinite: unknown.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    load: Callable[[range], np.ndarray] = field(repr=False)
    energy: EnergyAxis | None = None
    live_s: np.ndarray | None = field(default=None, repr=False)
    pixel_um: tuple[float, float] | None = None
    files: tuple[Path, ...] = field(default=(), repr=False)
    close: Callable[[], None] = field(default=_nothing, repr=False)
    stored: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype).newbyteorder("="))
        object.__setattr__(self, "close", weakref.finalize(self, self.close))

    def __enter__(self) -> Cube:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: range) -> np.ndarray:
        """Counts (n, columns, channels) of rows that follow one another, finite and 0 or more, in native byte order.

        Raises:
            ParameterError: `rows` are not rows of the cube, one after the other.
            FileError: they cannot be read, or a count is NaN, infinite or negative: the message names its row, column and
                channel.
        """
        inside = rows.step == 1 and 0 <= rows.start <= rows.stop <= self.shape[0]
        require(inside, "rows", rows, f"a range of step 1 within {self.shape[0]} rows")
        where = self.files[0] if self.files else Path("cube")
        claimed = array_bytes((len(rows), *self.shape[1:]), self.dtype.itemsize)
        if not is_small(claimed):
            held = sum(os.path.getsize(path) for path in self.files) if self.stored is None else self.stored
            require_claim(where, claimed, stored=held, what=f"{len(rows)} rows of shape {self.shape[1:]}")
        if not rows:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        try:
            block = np.asarray(self.load(rows), self.dtype)
        except LfjaxError:
            raise
        except Exception as error:  # readers of damaged files raise errors of any kind
            told = f"rows {rows.start} to {rows.stop - 1} cannot be read ({reason(error)})"
            raise FileError(f"{where}: {told}; expected a whole file") from error
        return check_counts(where, block, rows.start)

    def blocks(self, rows: int | None = None) -> Iterator[tuple[range, np.ndarray]]:
        """Rows and their counts, piece by piece, from the first to the last.

        Args:
            rows: number of rows per piece. None: as many as 64 MiB hold, at least one.

        Raises:
            ParameterError: `rows` is less than 1.
            FileError: see `read`.
        """
        require(rows is None or rows >= 1, "rows", rows, "1 or more")
        step = rows or max(1, BLOCK_BYTES // max(1, array_bytes(self.shape[1:], self.dtype.itemsize)))
        for start in range(0, self.shape[0], step):
            part = range(start, min(start + step, self.shape[0]))
            yield part, self.read(part)


def check_counts(path: str | Path, block: np.ndarray, row: int = 0) -> np.ndarray:
    """Refuse counts that are NaN, infinite or negative; return the block.

    >>> check_counts("a.h5", np.array([[[1.0, 2.0], [0.0, -3.0]]]), row=7)
    Traceback (most recent call last):
    lfjax.errors.FileError: a.h5: row 7, column 1, channel 1: -3.0; expected counts, finite and 0 or more

    Args:
        path: of the file, for the message.
        block: (n, columns, channels).
        row: number of its first row.

    Raises:
        FileError: the first wrong count, by its place; the others are counted.
    """
    if block.dtype.kind not in "uif":
        raise FileError(f"{path}: counts of type {block.dtype}; expected integers or floats")
    if block.dtype.kind == "u" or not block.size or (block.min() >= 0 and block.max() < math.inf):  # NaN compares as false
        return block
    wrong = ~((block >= 0) & (block < math.inf))
    y, x, channel = (int(k) for k in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    several = int(wrong.sum()) - 1
    more = f" ({several} more like it)" if several else ""
    told = f"row {row + y}, column {x}, channel {channel}: {block[y, x, channel]}"
    raise FileError(f"{path}: {told}; expected counts, finite and 0 or more{more}")
