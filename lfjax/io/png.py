"""Grey images in PNG, 8 or 16 bits: read only."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np

from lfjax.errors import FileError
from lfjax.io.arrays import check_array, choose_page, grey, reading
from lfjax.io.claims import EXPANSION, require_claim


def read_frame(path: str | Path, *, page: int | None = None) -> np.ndarray:
    """Read a PNG image (y, x), whose red, green and blue are equal if it has them; see `lfjax.io.read_frame`."""
    with reading(path, "PNG"):
        choose_page(path, 1, page)
        data = Path(path).read_bytes()
        if data[:8] != b"\x89PNG\r\n\x1a\n":
            raise FileError(f"{path}: does not begin as a PNG file; expected a PNG image")
        width, height, bits = struct.unpack(">IIB", data[16:25])  # of the header chunk, which comes first
        claimed = width * height * bits // 8
        if claimed > EXPANSION * len(data):
            raise FileError(f"{path}: {len(data)} bytes cannot hold {height} x {width} pixels; expected a complete PNG file")
        require_claim(path, claimed, what=f"the header of {height} x {width} pixels")
        pixels = imagecodecs.png_decode(data)
        return check_array(path, grey(path, pixels, "last" if pixels.ndim == 3 else "none"), "yx")
