"""Sizes that a header claims, compared with the file and with the memory before anything is allocated.

A few bytes can claim any size: a deflate stream expands up to 1032 times, other codecs more, and what was never written takes
no space at all. lfjax reads at most

    min(free memory, max(128 MiB, 1032 x bytes in the file))

at once. The environment variable LFJAX_MAX_GIB states another limit, which then is the only one: a larger one opens a file of
one value that a strong codec has made smaller than that, a smaller one protects a shared machine.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from lfjax.errors import FileError
from lfjax.io.limits import free_memory

EXPANSION = 1032
"""Bytes that one byte of a deflate stream can stand for at most (RFC 1951)."""
SMALL = 2**27
"""Bytes that any file may claim."""
FOLLOW = "follow_links=True (--follow-links) to read other files"
"""Advice of messages that refuse what lies outside a file."""


def is_small(claimed: int) -> bool:
    """Whether a claim needs no look at file and memory."""
    return claimed <= SMALL and not os.environ.get("LFJAX_MAX_GIB")


def require_claim(path: str | Path, claimed: int, *, stored: float | None = None, what: str = "the header") -> None:
    """Refuse a file that claims more than it can hold or the memory takes.

    Args:
        path: of the file.
        claimed: bytes that reading it would take at once.
        stored: bytes in the file that they come from. None: all of it.
        what: the part of the file that claims them, for the message.

    Raises:
        FileError: the claim is too large; the message names the file.
    """
    if is_small(claimed):
        return
    stated, free = bool(os.environ.get("LFJAX_MAX_GIB")), free_memory()
    held = os.path.getsize(path) if stored is None else stored
    if claimed > free:
        source = "LFJAX_MAX_GIB" if stated else "the free memory; LFJAX_MAX_GIB states another limit"
        raise FileError(f"{path}: {what} claims {_gib(claimed)}; expected at most {_gib(free)} ({source})")
    if claimed > max(SMALL, EXPANSION * held) and not stated:
        told = f"{what} claims {_gib(claimed)}, of {held:.0f} bytes in the file"
        raise FileError(f"{path}: {told}; expected at most {EXPANSION} times as much; to trust it, set LFJAX_MAX_GIB")


def array_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of an array, without overflow."""
    return math.prod(int(n) for n in shape) * itemsize


def _gib(count: int) -> str:
    return f"{min(count, 2**1000) / 2**30:.3g} GiB"
