"""Attributes of HDF5 files, in which a damaged text ends in an error.

HDF5 keeps a text of any length in a global heap, and beside it its length, the address of its heap and its number there. It
trusts these: an object of size zero in a heap keeps the library busy for ever, and a wrong length has it take up to 4 GB. So
these numbers are compared with the file first. (HDF5 File Format Specification, version 3: IV.A.1, object headers; IV.A.2.m,
attribute messages; III.E, global heaps.) Objects that keep many attributes in a heap of their own ("dense storage", which only
the newer format has) are left to the checksums of that format.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from lfjax.errors import FileError

ATTRIBUTE, CONTINUATION = 0x0C, 0x10  # types of messages of an object header
SHARED = 2  # flag of a message that is kept elsewhere
WIDTH = 8  # bytes of an address and of a size, in every file that a program of today writes


class Attributes(Mapping[str, Any]):
    """The attributes of a group or dataset, read when they are asked for.

    Args:
        path: of the file, for messages.
        node: a group, dataset or file.
    """

    def __init__(self, path: str | Path, node: h5py.Group | h5py.Dataset) -> None:
        self._path, self._node = path, node

    def __getitem__(self, name: str) -> Any:
        """The value of an attribute.

        Raises:
            KeyError: there is none of this name.
            FileError: it holds neither numbers nor texts, or a text that is not where the file says.
        """
        if name not in self._node.attrs:
            raise KeyError(name)
        attribute = self._node.attrs.get_id(name)
        kind = attribute.get_type()
        if kind.get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM, h5py.h5t.STRING):
            raise FileError(f"{self._path}: attribute {name} holds {attribute.dtype}; expected numbers or texts")
        if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
            self._require_texts(name, math.prod(attribute.shape or ()) if attribute.shape is not None else 0)
        return self._node.attrs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._node.attrs)

    def __len__(self) -> int:
        return len(self._node.attrs)

    def __contains__(self, name: object) -> bool:
        return name in self._node.attrs

    def _require_texts(self, name: str, count: int) -> None:
        file = self._node.file
        if file.id.get_create_plist().get_sizes() != (WIDTH, WIDTH):
            return
        with open(file.filename, "rb") as source:
            raw = _File(source, file.userblock_size)
            try:
                found = raw.attribute(h5py.h5o.get_info(self._node.id).addr, name.encode())
                for number in range(0 if found is None else count):
                    length, heap, index = struct.unpack_from("<IQI", found or b"", 16 * number)
                    if length and raw.object_sizes(heap).get(index) != length:
                        raise ValueError("a text is not of the length that the attribute states")
            except (ValueError, struct.error, OverflowError, OSError) as error:
                raise FileError(f"{self._path}: attribute {name} is damaged ({error}); expected a text") from error


@dataclass
class _File:
    """Bytes of an HDF5 file.

    Attributes:
        source: open.
        base: where address 0 is.
    """

    source: BinaryIO
    base: int

    def read(self, address: int, count: int) -> bytes:
        """Bytes of the file; ValueError where they end before."""
        size = self.source.seek(0, 2) - self.base
        if count < 0 or address + count > size:
            raise ValueError(f"{count} bytes at {address} of {size}")
        self.source.seek(self.base + address)
        return self.source.read(count)

    def attribute(self, address: int, name: bytes) -> bytes | None:
        """The raw value of an attribute of the object whose header is at an address; None: the header does not hold it."""
        for message in self._messages(address):
            version, _, named, typed, spaced = struct.unpack_from("<BBHHH", message)
            at, step = 8 + (version > 2), 8 if version == 1 else 1
            if message[at : at + named].split(b"\0")[0] == name:
                return message[at + sum(-(-size // step) * step for size in (named, typed, spaced)) :]
        return None

    def _messages(self, address: int) -> Iterator[bytes]:
        """Attribute messages of an object header, block by block."""
        blocks, seen, layout = [self._first_block(address)], set[int](), struct.Struct("<HHB3x")
        if self.read(address, 4) == b"OHDR":
            layout = struct.Struct("<BHBxx" if self.read(address + 5, 1)[0] & 4 else "<BHB")
        while blocks:
            start, count = blocks.pop()
            if start in seen:
                raise ValueError("its header is a circle")
            seen.add(start)
            block, at = self.read(start, count), 0
            while at + layout.size <= count:
                kind, size, flags = layout.unpack_from(block, at)
                body = block[at + layout.size : at + layout.size + size]
                at += layout.size + size
                if kind == ATTRIBUTE and not flags & SHARED:
                    yield body
                elif kind == CONTINUATION:
                    following, length = struct.unpack_from("<QQ", body)
                    new = layout.size < 8  # "OCHK" before the messages, a checksum behind
                    blocks.append((following + 4 * new, length - 8 * new))

    def _first_block(self, address: int) -> tuple[int, int]:
        """Where the messages of an object header begin, and their bytes."""
        head = self.read(address, 16)
        if head[:4] != b"OHDR":
            return address + 16, int(struct.unpack_from("<I", head, 8)[0])
        flags = head[5]
        at = address + 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16)
        width = 1 << (flags & 3)
        return at + width, int.from_bytes(self.read(at, width), "little")

    def object_sizes(self, address: int) -> dict[int, int]:
        """Number -> bytes of the objects of a global heap; ValueError where it is none that HDF5 can walk through."""
        mark, version, size = struct.unpack("<4sB3xQ", self.read(address, 16))
        if (mark, version) != (b"GCOL", 1) or size < 16:
            raise ValueError(f"no heap at {address}")
        heap, at, sizes = self.read(address, size), 16, dict[int, int]()
        while at + 16 <= size:
            index, length = struct.unpack_from("<H6xQ", heap, at)
            taken = 16 + -(-length // 8) * 8 if index else length  # 0 is free space, with its header
            if taken < 16 or at + taken > size:
                raise ValueError(f"object {index} of the heap at {address} claims {length} bytes")
            sizes[index] = length
            at += taken
        return sizes
