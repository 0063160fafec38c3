"""Mutations of TIFF files by their tags and descriptions."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

Rng = np.random.Generator
VALUES = (0, 1, 2, 3, 7, 8, 32, 33, 64, 255, 5, 8, 34925, 50000, 32773, 4000, 65535, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
SIZES = (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339)


def tag(path: Path, rng: Rng) -> str:
    """A tag of a page has another number, type, count or value."""
    data = bytearray(path.read_bytes())
    order = "<" if data[:2] == b"II" else ">"
    offset, entries = struct.unpack_from(f"{order}I", data, 4)[0], []
    while 0 < offset < len(data) - 2 and len(entries) < 500:
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        entries += [offset + 2 + 12 * i for i in range(count)]
        (offset,) = struct.unpack_from(f"{order}I", data, offset + 2 + 12 * count)
    likely = [at for at in entries if struct.unpack_from(f"{order}H", data, at)[0] in SIZES]
    chosen = likely if likely and rng.random() < 0.8 else entries
    at, part = chosen[rng.integers(len(chosen))], int(rng.choice([0, 2, 4, 8, 8, 8, 8]))
    value = VALUES[rng.integers(len(VALUES))]
    code = struct.unpack_from(f"{order}H", data, at)[0]
    width = "H" if part < 4 else "I"
    struct.pack_into(f"{order}{width}", data, at + part, value & (0xFFFF if width == "H" else 0xFFFFFFFF))
    path.write_bytes(bytes(data))
    return f"tag {code}: {('number', '', 'type', '', 'count', '', '', '', 'value')[part]} is {value}"


def description(path: Path, rng: Rng) -> str:
    """A word of the description (OME-XML, ImageJ) is another of the same length, so that all offsets hold."""
    data = bytearray(path.read_bytes())
    start = max(data.find(b"<?xml"), data.find(b"<OME"), data.find(b"ImageJ="), data.find(b'{"shape'))
    if start < 0:
        return tag(path, rng)
    end = data.find(b"\0", start)
    spots = [i for i in range(start, end if end > 0 else len(data)) if chr(data[i]).isalnum()]
    places = [spots[rng.integers(len(spots))] for _ in range(rng.integers(1, 4))]
    for place in places:
        data[place] = (b"0", b"9", b"-", b"Z", b"/", b"\n")[rng.integers(6)][0]
    path.write_bytes(bytes(data))
    return f"description: bytes {[p - start for p in places]}"


MUTATIONS = (tag, tag, description)
