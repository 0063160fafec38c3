"""How much memory a piece of work may take: asked before it begins, so that a number that is too large ends in one line.

A limit of 0.5 GiB:

>>> import os
>>> os.environ["LFJAX_MAX_GIB"] = "0.5"
>>> require_memory("z_um", (4500,), 2**38)
Traceback (most recent call last):
lfjax.errors.ParameterError: z_um = (4500,): expected less than 256 GiB of work, for which 0.5 GiB are free (LFJAX_MAX_GIB)
>>> del os.environ["LFJAX_MAX_GIB"]
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from lfjax.errors import require


def free_memory() -> int:
    """Bytes that a piece of work may take: $LFJAX_MAX_GIB, or else the free memory of the machine and of its container.

    Raises:
        ParameterError: LFJAX_MAX_GIB is no positive number.
    """
    stated = os.environ.get("LFJAX_MAX_GIB")
    if stated:
        try:
            limit = float(stated)
        except ValueError:
            limit = math.nan
        require(0 < limit < math.inf, "LFJAX_MAX_GIB", stated, "a positive number of GiB")
        return int(limit * 2**30)
    return min(_machine(), _container())


def require_memory(argument: str, got: Any, needed: int) -> None:
    """Raise `ParameterError` where an argument asks for more memory than `free_memory`.

    Args:
        argument: name of the argument, for the message.
        got: its value.
        needed: bytes that the work takes at once.
    """
    free = free_memory()
    if needed > free:
        size = f"{min(needed, 2**1000) / 2**30:.3g}"
        source = " (LFJAX_MAX_GIB)" if os.environ.get("LFJAX_MAX_GIB") else ""
        require(False, argument, got, f"less than {size} GiB of work, for which {free / 2**30:.3g} GiB are free{source}")


def _machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):  # no such question on this system
            return 2**63 - 1


def _container() -> int:
    """What the control group of this process leaves, where it has a limit (version 2 of the kernel's groups)."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = ((folder / f"memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current"))
        return max(int(limit) - int(used), 0)
    except (OSError, ValueError):  # no such file, or "max"
        return 2**63 - 1
