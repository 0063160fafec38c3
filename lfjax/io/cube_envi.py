"""Cubes of ENVI: a plain array and its text header (.hdr), fields `name = value` a value in braces may take several lines.

The interleave tells the order: bsq (also written bsp) image by image, bip spectrum by spectrum, bil row by row of each channel.
(NV5 Geospatial, "ENVI header files".)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lfjax.errors import FileError
from lfjax.io.cube import Cube, EnergyAxis
from lfjax.io.cube_energy import listed_axis
from lfjax.io.cube_layout import Ask
from lfjax.io.cube_raw import Order, beside, map_counts, one_of, pixel_size, real_number, three_sizes, whole_number
from lfjax.io.texts import read_text

TYPES = {
    "1": "u1", "2": "i2", "3": "i4", "4": "f4", "5": "f8", "12": "u2", "13": "u4", "14": "i8", "15": "u8",
}  # fmt: skip
INTERLEAVES: dict[str, Order] = {"bsq": "eyx", "bsp": "eyx", "bil": "yex", "bip": "yxe"}
VALUES = ("", ".img", ".dat", ".raw", ".bsq", ".bsp", ".bil", ".bip")
"""Suffixes of the file of values beside a .hdr."""


def open_envi(path: Path, ask: Ask) -> Cube:
    """Open a .hdr, or the file of values beside it, as a cube; see `lfjax.io.open_cube`."""
    ask.only(path)
    header = path if path.suffix.lower() == ".hdr" else _header(path)
    values = beside(header, VALUES, "the file of values") if header == path else path
    fields = _fields(header)
    shape = three_sizes(header, fields, ("lines", "samples", "bands"))
    kind = fields.get("data type", "missing")
    if kind not in TYPES:
        told = " (complex values)" if kind in ("6", "9") else ""
        raise FileError(f"{header}: data type is {kind}{told}; expected one of {', '.join(TYPES)}")
    big = one_of(header, {"byte order": "0", **fields}, "byte order", ("0", "1")) == "1"
    dtype = np.dtype(f"{'>' if big else '<'}{TYPES[kind]}")
    order = INTERLEAVES[one_of(header, fields, "interleave", tuple(INTERLEAVES))]
    offset = whole_number(header, fields, "header offset", 0, 0)
    return Cube(
        shape,
        dtype,
        map_counts(values, shape, dtype, offset, order, header),
        energy=ask.energy or _energy(header, fields, shape[2]),
        pixel_um=_pixel_um(header, fields),
        files=(values, header),
    )


def _header(path: Path) -> Path:
    whole = path.with_name(path.name + ".hdr")
    return whole if whole.is_file() else beside(path, (".hdr",), "its header")


def _fields(path: Path) -> dict[str, str]:
    text = read_text(path, "ENVI header (.hdr)", encoding="latin-1")
    first, _, rest = text.partition("\n")
    if first.strip() != "ENVI":
        raise FileError(f"{path}: its first line is not ENVI; expected an ENVI header")
    if rest.count("{") != rest.count("}"):
        raise FileError(f"{path}: {rest.count('{')} opening and {rest.count('}')} closing braces; expected a whole header")
    fields: dict[str, str] = {}
    lines = iter(rest.splitlines())
    for line in lines:
        name, equals, value = line.partition("=")
        parts = [value]
        while "{" in value and "}" not in parts[-1] and (following := next(lines, None)) is not None:
            parts.append(following)
        key, value = " ".join(name.lower().split()), " ".join(parts).strip()
        if equals and not key.startswith(";") and fields.setdefault(key, value) != value:
            raise FileError(f"{path}: {key} is there twice; expected it once")
    return fields


def _list(entry: str) -> list[str]:
    return [part.strip() for part in entry.strip("{} \t\r\n").split(",") if part.strip()]


def _energy(path: Path, fields: dict[str, str], channels: int) -> EnergyAxis | None:
    if "wavelength" not in fields:
        return None
    unit = fields.get("wavelength units", "").strip()
    energies = [real_number(path, one, "wavelength") for one in _list(fields["wavelength"])]
    if len(energies) != channels:
        raise FileError(f"{path}: {len(energies)} values of wavelength; expected one per band, {channels}")
    return listed_axis(path, energies, "" if unit.lower() in ("unknown", "index") else unit, "wavelength")


def _pixel_um(path: Path, fields: dict[str, str]) -> tuple[float, float] | None:
    """From `pixel size = {x, y, units=...}`."""
    parts = _list(fields.get("pixel size", ""))
    unit = next((part.partition("=")[2] for part in parts if part.lower().startswith("units")), "")
    sizes = [real_number(path, part, "pixel size") for part in parts if "=" not in part]
    return pixel_size(sizes[::-1], unit) if len(sizes) == 2 else None
