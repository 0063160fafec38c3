"""Movies in several files: a list, a folder, or a pattern, in natural order."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lfjax.errors import FileError
from lfjax.io.movie_source import Source, read_frames


def natural(path: Path) -> list[str | int]:
    """Key that sorts numbers in names by their value.

    >>> [p.name for p in sorted([Path("frame10.tif"), Path("frame2.tif")], key=natural)]
    ['frame2.tif', 'frame10.tif']
    """
    parts = re.split(r"(\d+)", str(path).lower())
    return [int(part) if k % 2 else part for k, part in enumerate(parts)]


def find_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of a folder, or those that match a pattern, in natural order; hidden files do not count.

    Args:
        path: a folder, or a pattern with *, ?, [...] or **.
        suffixes: of the files that count in a folder.

    Raises:
        FileError: no file, or files of several kinds in a folder.
    """
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".")]
        kinds = sorted({p.suffix.lower() for p in found})
        if len(kinds) > 1:
            raise FileError(
                f"{path}: files of several kinds, {', '.join(kinds)}; say which, {path / ('*' + kinds[0])!s} for example"
            )
        if not found:
            raise FileError(f"{path}: a folder without movies or frames; expected files {', '.join(suffixes)}")
        return sorted(found, key=natural)
    found = [Path(p) for p in glob.glob(str(path), recursive=True)]
    if not found:
        raise FileError(f"{path}: no file matches this pattern")
    return sorted(found, key=natural)


def open_files(paths: Sequence[Path], opener: Callable[[Path], Source]) -> Source:
    """Open files as one movie, one after the other in natural order; one file at a time is open.

    Files that an OME-TIFF before them holds already are not counted twice.

    Args:
        paths: the files, each of one frame or several.
        opener: opens one.

    Raises:
        FileError: a file is there twice, or its frames have another shape or type than those of the first.
    """
    parts: list[tuple[Path, Source]] = []
    given: set[Path] = set()
    covered: set[Path] = set()
    for path in sorted(paths, key=natural):
        resolved = Path(os.path.realpath(path))  # `Path.resolve` raises for a link to itself
        if resolved in given:
            raise FileError(f"{path}: given twice; expected different files")
        given.add(resolved)
        if resolved in covered:
            continue
        source = opener(path)
        source.close()
        if len(source.files) > 1:
            covered |= {Path(os.path.realpath(p)) for p in source.files}
        parts.append((path, source))
        first = parts[0][1]
        if source.shape[1:] != first.shape[1:] or source.dtype.newbyteorder("=") != first.dtype.newbyteorder("="):
            wanted = f"{first.shape[1:]} {first.dtype}, as in {parts[0][0]}"
            raise FileError(f"{path}: frames {source.shape[1:]} {source.dtype}; expected {wanted}")
    return _joined(parts, opener)


def _joined(parts: list[tuple[Path, Source]], opener: Callable[[Path], Source]) -> Source:
    starts = np.cumsum([0, *(source.shape[0] for _, source in parts)])
    current: list[tuple[int, Source]] = []

    def opened(k: int) -> Source:
        if not current or current[0][0] != k:
            close()
            current.append((k, opener(parts[k][0])))
        return current[0][1]

    def close() -> None:
        while current:
            current.pop()[1].close()

    def read(numbers: range) -> np.ndarray:
        wanted = np.asarray(numbers)
        part = np.searchsorted(starts, wanted, "right") - 1
        blocks = []
        for here in np.split(wanted, np.flatnonzero(np.diff(part)) + 1):
            k = int(np.searchsorted(starts, here[0], "right")) - 1
            first, last = int(here[0] - starts[k]), int(here[-1] - starts[k])
            blocks.append(read_frames(parts[k][0], opened(k).read, range(first, last + 1, numbers.step)))
        return np.concatenate(blocks)

    intervals = {source.frame_s for _, source in parts}
    return Source(
        shape=(int(starts[-1]), *parts[0][1].shape[1:]),
        dtype=parts[0][1].dtype.newbyteorder("="),
        read=read,
        frame_s=intervals.pop() if len(intervals) == 1 else None,
        times_s=parts[0][1].times_s if len(parts) == 1 else None,
        files=tuple(p for _, source in parts for p in source.files),
        missing={int(a) + t: text for a, (_, source) in zip(starts, parts, strict=False) for t, text in source.missing.items()},
        dropped=_dropped(parts),
        close=close,
        stored=math.inf if any(source.stored == math.inf for _, source in parts) else None,
    )


def _dropped(parts: list[tuple[Path, Source]]) -> dict[int, int]:
    """Frames whose files are not there: gaps in the numbers of files of one frame, which otherwise go by equal steps."""
    names = [re.split(r"(\d+)", path.name) for path, _ in parts]
    if len(parts) < 3 or any(source.shape[0] > 1 for _, source in parts) or len({len(name) for name in names}) > 1:
        return {}
    differ = [k for k in range(len(names[0])) if len({name[k] for name in names}) > 1]
    if len(differ) != 1 or differ[0] % 2 == 0:
        return {}
    steps = np.diff([int(name[differ[0]]) for name in names])
    step = int(np.median(steps))
    gaps = steps > step
    if step < 1 or (steps < step).any() or (steps % step).any():
        return {}
    return {int(k) + 1: int(steps[k]) // step - 1 for k in np.flatnonzero(gaps)}
