"""Cubes of Lispix: a plain array (.raw) and its list of parameters, the "ripple" (.rpl): a key and a value per line.

Keys: width (columns), height (rows), depth (channels), offset (bytes), data-length (bytes per value), data-type, byte-order,
record-by; and, from some writers, ev-per-chan, or depth-scale, depth-origin (the energy of channel 0) and depth-units, and
width-scale, height-scale with their units. (NIST, "The raw file format", Lispix documentation, 2009.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lfjax.errors import FileError
from lfjax.io.cube import Cube, EnergyAxis
from lfjax.io.cube_energy import polynomial_axis
from lfjax.io.cube_layout import Ask
from lfjax.io.cube_raw import Order, beside, map_counts, one_of, pixel_size, real_number, three_sizes, whole_number
from lfjax.io.texts import read_text

KINDS = {"signed": "i", "unsigned": "u", "float": "f"}
ORDERS = {"big-endian": ">", "little-endian": "<", "dont-care": "="}
RECORDS: dict[str, Order] = {"image": "eyx", "vector": "yxe"}


def open_ripple(path: Path, ask: Ask) -> Cube:
    """Open a .rpl, or the .raw beside it, as a cube; see `lfjax.io.open_cube`."""
    ask.only(path)
    header = path if path.suffix.lower() == ".rpl" else beside(path, (".rpl",), "its list of parameters")
    values = beside(header, (".raw",), "the file of values")
    fields = _fields(header)
    shape = three_sizes(header, fields, ("height", "width", "depth"))
    dtype = _type(header, fields)
    return Cube(
        shape,
        dtype,
        map_counts(values, shape, dtype, whole_number(header, fields, "offset", 0, 0), _order(header, fields, shape), header),
        energy=ask.energy or _energy(header, fields, shape[2]),
        pixel_um=_pixel_um(header, fields),
        files=(values, header),
    )


def _fields(path: Path) -> dict[str, str]:
    text = read_text(path, "ripple (.rpl)", encoding="latin-1")
    if text.lstrip().startswith("("):
        raise FileError(f"{path}: a list of Lispix before 2004; expected a key and a value per line")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.partition(";")[0].split(maxsplit=1)  # what follows ; is a remark
        if len(parts) == 2 and parts[0].lower() != "key":
            name, value = parts[0].lower(), parts[1].strip()
            if fields.setdefault(name, value) != value:
                raise FileError(f"{path}: {name} is {fields[name]} and {value}; expected it once")
    return fields


def _type(path: Path, fields: dict[str, str]) -> np.dtype:
    kind = KINDS[one_of(path, fields, "data-type", tuple(KINDS))]
    length = int(one_of(path, fields, "data-length", ("4", "8") if kind == "f" else ("1", "2", "4", "8")))
    order = ORDERS[one_of(path, fields, "byte-order", tuple(ORDERS) if length == 1 else tuple(ORDERS)[:2])]
    return np.dtype(f"{order}{kind}{length}")


def _order(path: Path, fields: dict[str, str], shape: tuple[int, ...]) -> Order:
    either = shape[2] == 1 or shape[0] * shape[1] == 1  # both orders are the same
    word = one_of(path, fields, "record-by", (*RECORDS, "dont-care") if either else tuple(RECORDS))
    return RECORDS.get(word, "yxe")


def _energy(path: Path, fields: dict[str, str], channels: int) -> EnergyAxis | None:
    if "depth-scale" in fields and fields.get("depth-units", "").lower() not in ("", "undefined"):
        line = [real_number(path, fields.get(f"depth-{name}", "0"), f"depth-{name}") for name in ("origin", "scale")]
        return polynomial_axis(path, line, channels, fields["depth-units"], "depth-scale")
    if "ev-per-chan" in fields:
        gain = real_number(path, fields["ev-per-chan"], "ev-per-chan")
        return polynomial_axis(path, [0.0, gain], channels, "eV", "ev-per-chan") if gain else None
    return None


def _pixel_um(path: Path, fields: dict[str, str]) -> tuple[float, float] | None:
    names = ("height", "width")
    units = {fields.get(f"{name}-units", "") for name in names}
    if len(units) > 1 or any(f"{name}-scale" not in fields for name in names):
        return None
    return pixel_size([real_number(path, fields[f"{name}-scale"], f"{name}-scale") for name in names], units.pop())
