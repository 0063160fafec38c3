"""Cubes in EDF files: an image (columns, channels) per row of the map, in one file or in numbered files, as PyMca reads stacks.

Calibrations stand in the header as `MCA a`, `MCA b`, `MCA c` (PyMca) or `mca_calib = a b c`, in keV.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lfjax.errors import FileError, require
from lfjax.io.cube import Cube, EnergyAxis
from lfjax.io.cube_energy import polynomial_axis
from lfjax.io.cube_layout import Ask
from lfjax.io.cube_raw import real_number
from lfjax.io.edf import Image, read_headers
from lfjax.io.movie_files import find_files, natural

NUMBER = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)
CALIBRATIONS = ("mca_calib", "mca calib", "mca_calibration", "calib")


def open_edf(path: Path, ask: Ask) -> Cube:
    """Open an EDF file as a cube, with those that are numbered on from it, if there are any; see `lfjax.io.open_cube`."""
    return open_edf_files(series(path), ask)


def open_edf_files(paths: Sequence[Path], ask: Ask) -> Cube:
    """Open EDF files, one per row of the map, as one cube; see `lfjax.io.open_cube`.

    Raises:
        FileError: the files are not one series without gaps, or their images differ in shape, type or calibration.
    """
    require(len(paths) > 0, "path", paths, "one file or more")
    files = _one_series(sorted(paths, key=natural))
    ask.only(files[0])
    rows = _rows([list(read_headers(path)) for path in files])
    first = rows[0][0]
    for image in (image for row in rows for image in row):
        if image.shape != first.shape or image.dtype != first.dtype:
            told = f"{first.shape} {first.dtype}, as in {first.path.name}"
            raise FileError(f"{image.path}: image {image.shape} {image.dtype}; expected {told}")
        if _calibration(image) != _calibration(first):
            raise FileError(f"{image.path}: another calibration than {first.path.name}; expected one for all rows")
    columns = len(rows[0]) * (1 if len(first.shape) == 1 else first.shape[-2])
    channels = first.shape[-1]

    def load(numbers: range) -> np.ndarray:
        return np.stack([np.stack([image.read() for image in rows[k]]).reshape(columns, channels) for k in numbers])

    def load_part(numbers: range) -> np.ndarray:
        return np.array(first.read()[numbers.start : numbers.stop])

    whole = len(first.shape) == 3  # one image with Dim_3 is a cube
    return Cube(
        (first.shape[0] if whole else len(rows), columns, channels),
        first.dtype,
        load_part if whole else load,
        energy=ask.energy or _energy(first),
        files=tuple(files),
    )


def edf_folder(path: Path) -> list[Path]:
    """EDF files of a folder, or those that match a pattern, in natural order.

    Raises:
        FileError: there are none.
    """
    return find_files(path, (".edf",))


def series(path: Path) -> list[Path]:
    """A file and those in its folder that are numbered on from it by the last number of the name."""
    parts = NUMBER.fullmatch(path.name)
    if parts is None or not path.is_file():
        return [path]
    head, digits, tail = parts.groups()
    name = re.compile(f"{re.escape(head)}(\\d+){re.escape(tail)}")
    found = [(int(match[1]), one) for one in path.parent.iterdir() if (match := name.fullmatch(one.name)) and one.is_file()]
    return [one for number, one in sorted(found) if number >= int(digits)]


def _one_series(files: list[Path]) -> list[Path]:
    """Check that files differ by the last number of their names alone, and that none is missing or there twice."""
    if len(files) == 1:
        return files
    found: dict[tuple[Path, str, str], list[int]] = {}
    for path in files:
        parts = NUMBER.fullmatch(path.name)
        head, digits, tail = parts.groups() if parts else (path.name, "0", "")
        found.setdefault((path.parent, head, tail), []).append(int(digits))
    kinds = [f"{head}*{tail}" for _, head, tail in found]
    if len(kinds) > 1:
        each = ", ".join(kinds[:6])
        raise FileError(f"{files[0]}: {len(kinds)} series of files, {each}; expected one: say which by a pattern")
    numbers = next(iter(found.values()))
    gap = next((a for a, b in zip(numbers, numbers[1:], strict=False) if b != a + 1), None)
    if gap is not None:
        raise FileError(f"{files[0]}: no file after number {gap} in {kinds[0]}; expected numbers without gaps, one per row")
    return files


def _rows(files: list[list[Image]]) -> list[list[Image]]:
    """Images of each row: an image per row, or, where every file has as many images of one spectrum, a file per row."""
    counts = {len(images) for images in files}
    if len(files) == 1:
        return [[image] for image in files[0]] if len(files[0][0].shape) > 1 else [files[0]]
    lines = all(len(image.shape) == 1 or image.shape[0] == 1 for images in files for image in images)
    if len(counts) > 1 or (counts != {1} and not lines) or len(files[0][0].shape) > 2:
        told = f"{len(files)} files of {', '.join(map(str, sorted(counts)))} images"
        raise FileError(f"{files[0][0].path}: {told}; expected an image (columns, channels) per file, or one file of all rows")
    return files


def _calibration(image: Image) -> tuple[str, ...]:
    fields = image.fields
    listed = next((fields[name] for name in CALIBRATIONS if name in fields), None)
    if listed is not None:
        return tuple(re.split(r"[\s,]+", listed.strip("[]() ")))
    parts = ("mca a", "mca b", "mca c")
    return tuple(fields[name] for name in parts if name in fields) if parts[1] in fields and parts[0] in fields else ()


def _energy(image: Image) -> EnergyAxis | None:
    told = _calibration(image)
    numbers = [real_number(image.path, one, "MCA calibration") for one in told]
    return polynomial_axis(image.path, numbers, image.shape[-1], None, "MCA calibration") if numbers else None
