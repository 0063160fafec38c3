"""Files that are either whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Write a file under a temporary name beside `path` and move it there if all went well.

    The folder of `path` is made if it is missing. The temporary name ends as `path` does, for writers that go by the
    suffix. If the block raises, the temporary file is removed and what stood at `path` before stays.

    Args:
        path: where the file shall be.

    Yields:
        The temporary path to write to.

    Raises:
        OSError: the folder cannot be made or the file not be moved.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # not tempfile.mkstemp: its files are private to the user (0600), and would stay so after the move
    temporary = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
