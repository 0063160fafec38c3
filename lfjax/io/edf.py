"""Images in the ESRF data format (EDF): per image a text header in braces, its length a multiple of 512, and a plain array.

A header has a field `name = value ;` per line; Dim_1 is the axis that varies fastest. (ESRF, "SaxsPackage
keywords", and the files that its beamlines write.)
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lfjax.errors import FileError
from lfjax.io.claims import array_bytes

TYPES = {
    "signedbyte": "i1", "unsignedbyte": "u1", "signedshort": "i2", "unsignedshort": "u2", "signedinteger": "i4",
    "unsignedinteger": "u4", "signedlong": "i4", "unsignedlong": "u4", "signed8": "i1", "unsigned8": "u1", "signed16": "i2",
    "unsigned16": "u2", "signed32": "i4", "unsigned32": "u4", "signed64": "i8", "unsigned64": "u8", "floatvalue": "f4",
    "float": "f4", "real": "f4", "floatieee32": "f4", "doublevalue": "f8", "double": "f8", "floatieee64": "f8",
}  # fmt: skip
"""Name of a type, in lower case -> NumPy's; a Long has 32 bits, as on the machines that the format comes from."""
ORDERS = {"lowbytefirst": "<", "highbytefirst": ">"}
HEADER_BYTES = 2**20  # longest header that is read
END = re.compile(rb"\}[ \t\r]*\n")


class Image(NamedTuple):
    """An array in an EDF file.

    Attributes:
        path: of the file.
        fields: of the header, names in lower case.
        shape: slowest axis first.
        dtype: of the values, with their byte order.
        start: bytes before the values.
    """

    path: Path
    fields: dict[str, str]
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int

    def read(self) -> np.ndarray:
        """The values, mapped from the file."""
        return np.memmap(self.path, self.dtype, "r", self.start, self.shape)


def read_headers(path: Path) -> Iterator[Image]:
    """The images of a file, one after the other; their values are not read.

    Raises:
        FileError: it is no EDF file, or shorter than its headers say, or its values are compressed or of unknown type.
    """
    size, at, number = os.path.getsize(path), 0, 0
    with open(path, "rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(HEADER_BYTES)
            blank = len(head) - len(head.lstrip(b"\0\r\n\t "))
            if number and blank == len(head):
                return
            end = END.search(head)
            if head[blank : blank + 1] != b"{" or end is None:
                raise FileError(f"{path}: no header at byte {at}; expected an EDF file: a text in braces before each image")
            image = _image(path, number, _fields(head[blank + 1 : end.start()]), at + end.end())
            at, number = image.start + array_bytes(image.shape, image.dtype.itemsize), number + 1
            stated = image.fields.get("size", image.fields.get("edf_binarysize", ""))
            if stated.isdecimal() and image.start + int(stated) > at:
                at = image.start + int(stated)  # what fills up a block
            if at > size:
                raise FileError(f"{path}: truncated, image {number - 1} needs {at} bytes; the file has {size}")
            yield image
    if not number:
        raise FileError(f"{path}: empty; expected an EDF file")


def _fields(text: bytes) -> dict[str, str]:
    parts = (part.partition("=") for part in text.decode("latin-1").split(";")[:-1])
    return {name.strip().lower(): value.strip() for name, equals, value in parts if equals}


def _image(path: Path, number: int, fields: dict[str, str], start: int) -> Image:
    where = f"{path}: image {number}"
    dims: list[int] = []
    while (entry := fields.get(f"dim_{len(dims) + 1}")) is not None:
        if not entry.isdecimal() or not 0 < int(entry[:18]) < 2**40:
            raise FileError(f"{where}: Dim_{len(dims) + 1} is {entry}; expected a whole number from 1")
        dims.append(int(entry))
    kind, order = fields.get("datatype", "missing"), fields.get("byteorder", "missing")
    if not dims:
        raise FileError(f"{where}: Dim_1 is missing; expected the sizes of the image")
    if kind.lower() not in TYPES:
        raise FileError(f"{where}: DataType is {kind}; expected one of {', '.join(TYPES)}")
    dtype = np.dtype(ORDERS.get(order.lower(), "=") + TYPES[kind.lower()])
    if dtype.itemsize > 1 and order.lower() not in ORDERS:
        raise FileError(f"{where}: ByteOrder is {order}; expected LowByteFirst or HighByteFirst")
    if fields.get("compression", "none").lower() not in ("none", "nocompression", "no"):
        raise FileError(f"{where}: Compression is {fields['compression']}; expected plain values")
    stated = fields.get("size", fields.get("edf_binarysize"))
    needed = math.prod(dims) * dtype.itemsize
    if stated is not None and (not stated.isdecimal() or int(stated[:18]) < needed):
        raise FileError(f"{where}: Size is {stated}; expected {needed} bytes for {tuple(dims)} of {dtype.name}")
    return Image(path, fields, tuple(dims[::-1]), dtype, start)
