"""Which process a file belongs to, and whether that process still runs."""

from __future__ import annotations

import os
import platform
import re


def this_host() -> str:
    """Name of this machine, with letters, digits, dots and hyphens only."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())[:60] or "localhost"


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs; a process of another user counts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it exists, and belongs to somebody else
        return True
    return True
