"""Checks that readers and writers of all formats share."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lfjax.errors import FileError, LfjaxError, one_line, require

VoxelUm = tuple[float, float, float]


class Volume(NamedTuple):
    """A volume (z, y, x) and its voxel size (z, y, x) in micrometres, None if the file does not state it."""

    array: np.ndarray
    voxel_um: VoxelUm | None


def check_array(path: str | Path, array: ArrayLike, axes: str) -> np.ndarray:
    """Check that an array is real, finite, not empty, and has one dimension per letter of `axes`; return it.

    Raises:
        FileError: it is not; the message names the file.
    """
    found = np.asarray(array)
    wanted = f"a real array ({', '.join(axes)})"
    if found.dtype.kind not in "uif":
        raise FileError(f"{path}: values of type {found.dtype}; expected {wanted} of integers or floats")
    if found.ndim != len(axes) or found.size == 0:
        raise FileError(f"{path}: array of shape {found.shape}; expected {wanted}, not empty")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        wrong = np.argwhere(~np.isfinite(found))
        first = ", ".join(map(str, wrong[0].tolist()))
        raise FileError(
            f"{path}: {len(wrong)} of {found.size} values are NaN or infinite, the first at [{first}]; expected finite values"
        )
    return found


def check_volume(path: str | Path, volume: ArrayLike, voxel_um: VoxelUm) -> tuple[np.ndarray, VoxelUm]:
    """Check a volume and its voxel size before they are written; return the volume as 32-bit floats, the size as floats.

    Raises:
        FileError: the volume is not a finite array (z, y, x).
        ParameterError: the voxel size is not three positive numbers.
    """
    size = tuple(float(v) for v in np.ravel(voxel_um))
    require(len(size) == 3 and all(math.isfinite(v) and v > 0 for v in size), "voxel_um", voxel_um, "3 positive numbers")
    with np.errstate(over="ignore"):  # overflow becomes infinity, which the second check reports
        single = check_array(path, volume, "zyx").astype(np.float32)
    return check_array(path, single, "zyx"), size  # type: ignore[return-value]


def grey(path: str | Path, pixels: np.ndarray, samples: Literal["first", "last", "none"] = "last") -> np.ndarray:
    """Grey values of images that are stored as colours: red, green and blue must be equal, and opacity one value.

    Args:
        path: for the message.
        pixels: (..., y, x, s) if `samples` is "last", (..., s, y, x) if it is "first"; s: 1 grey, 2 grey and opacity, 3 red,
            green, blue, 4 these and opacity.
        samples: where the samples of a pixel are; "none": the images are grey already.

    Returns:
        (..., y, x).

    Raises:
        FileError: the images have colours.
    """
    if samples == "none":
        return pixels
    last = np.moveaxis(pixels, -3, -1) if samples == "first" else pixels
    count = last.shape[-1]
    light, opacity = (last[..., :-1], last[..., -1]) if count in (2, 4) else (last, None)
    if count > 4 or (light != light[..., :1]).any() or (opacity is not None and (opacity != opacity.flat[0]).any()):
        raise FileError(f"{path}: colour image, {count} samples per pixel that differ; expected grey values")
    return light[..., 0]


def choose_page(path: str | Path, count: int, page: int | None) -> int:
    """Number of the page to read of a stack of `count`.

    Raises:
        FileError: there are several and none is chosen, or there is no such page.
    """
    if page is None and count != 1:
        raise FileError(f"{path}: a stack of {count} pages; choose one with page= (--page), 0 to {count - 1}")
    if page is not None and not 0 <= page < count:
        raise FileError(f"{path}: page={page}; expected 0 to {count - 1}")
    return page or 0


@contextmanager
def reading(path: str | Path, kind: str, expected: str | None = None) -> Iterator[None]:
    """Turn any error of a reader into a `FileError` that names the file, in one line.

    Args:
        path: the file.
        kind: of the file, for messages, such as "TIFF".
        expected: what a missing file should have been; None: "a TIFF file".
    """
    if not os.path.isfile(path):
        found = "a folder" if os.path.isdir(path) else "not a regular file" if os.path.lexists(path) else "no such file"
        raise FileError(f"{path}: {found}; expected {expected or f'a {kind} file'}")
    try:
        yield
    except FileError:
        raise
    except LfjaxError as error:  # a part of the file that does not fit another, or is out of range
        if str(path) in str(error):
            raise
        raise FileError(f"{path}: {error}") from error
    except Exception as error:  # readers of damaged files raise errors of any kind: struct.error, KeyError, MemoryError
        raise FileError(f"{path}: cannot be read ({reason(error)}); expected a complete {kind} file") from error


def reason(error: Exception) -> str:
    """What an error of another library says, short and in one line, for a message that names the file."""
    plain = re.sub(r"<(?:class ')?(?:\w+\.)*(\w+)(?:'| object at 0x[0-9a-f]+)>", r"\1", str(error))
    return one_line(plain, 200) or type(error).__name__
