"""What of a Zarr store is read: its own files, none by a link that leads out of it, and no chunk shorter than it says."""

from __future__ import annotations

import copy
import os
import stat
import struct
from functools import cached_property
from pathlib import Path
from typing import Any

import zarr
from numcodecs.blosc import Blosc
from zarr.codecs import BloscCodec, ShardingCodec

from lfjax.errors import FileError
from lfjax.io.claims import FOLLOW

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
DEPTH = 4  # of groups in groups whose metadata is looked at: plate, well, field, level


class Inside:
    """Which files of a store are there, and whether they lie in it: a link may lead anywhere.

    Attributes:
        path: folder of the store.
        follow_links: whether links may lead out of it.
        stored: bytes of the chunks seen so far.
    """

    def __init__(self, path: Path, follow_links: bool) -> None:
        """Look at the metadata of a store.

        Raises:
            FileError: a file of it is not a regular one, or lies elsewhere by a link.
        """
        self.path, self.root, self.follow_links, self.stored = path, os.path.realpath(path), follow_links, 0
        self._folders: set[str] = set()
        if path.is_dir():
            self._metadata(path, DEPTH)
            self.holds(path / "OME/METADATA.ome.xml")
            self.stored = 0

    def holds(self, file: Path) -> bool:
        """Whether there is such a file; an empty one counts as missing.

        Raises:
            FileError: it is a pipe or a device, or lies elsewhere by a link, and links are not followed.
        """
        folder = str(file.parent)
        if folder not in self._folders:
            self._check(folder)
            self._folders.add(folder)
        try:
            found = os.lstat(file)
            if stat.S_ISLNK(found.st_mode):
                self._check(str(file))
                found = os.stat(file)
        except OSError:
            return False
        if not stat.S_ISREG(found.st_mode):
            raise FileError(f"{self.path}: {os.path.relpath(file, self.path)!r} is not a regular file; expected a Zarr store")
        self.stored += found.st_size
        return found.st_size > 0

    def _metadata(self, folder: Path, depth: int) -> None:
        """Check the metadata of a group and of what is in it; folders of an array hold only chunks."""
        there = [name for name in METADATA if self.holds(folder / name)]
        if depth and not (".zarray" in there or (folder / "c").is_dir()):
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        self._metadata(Path(entry.path), depth - 1)

    def _check(self, place: str) -> None:
        real = os.path.realpath(place)
        if not self.follow_links and os.path.commonpath([real, self.root]) != self.root:
            told = f"{os.path.relpath(place, self.path)!r} is a link that leads out of the store"
            raise FileError(f"{self.path}: {told}; expected the store's own files, or {FOLLOW}")


class CheckedBlosc(Blosc):  # type: ignore[misc] # numcodecs has no types
    """Blosc that compares the sizes in the header of a chunk with the chunk: the library itself reads beyond a truncated one.

    The header (Blosc 1) has, from byte 4 on, the sizes of the values and of the chunk, each as 4 bytes.
    """

    def decode(self, buf: Any, out: Any = None) -> Any:
        raw = memoryview(buf).cast("B")
        told = struct.unpack_from("<I", raw, 12)[0] if len(raw) >= 16 else 0
        if told > len(raw) or len(raw) < 16:
            raise ValueError(f"a chunk of {len(raw)} bytes that says it has {told}")
        return super().decode(buf, out)


class CheckedBloscCodec(BloscCodec):
    """The codec of Zarr 3 with `CheckedBlosc`."""

    @cached_property
    def _blosc_codec(self) -> CheckedBlosc:
        return _as_checked(super()._blosc_codec)


def _as_checked(codec: Blosc) -> CheckedBlosc:
    settings = codec.get_config()
    del settings["id"]
    return CheckedBlosc(**settings)


def checked(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The same array with `CheckedBlosc` wherever it is decoded by Blosc."""
    about: Any = copy.copy(array.metadata)
    if about.zarr_format == 2:
        if isinstance(about.compressor, Blosc):
            object.__setattr__(about, "compressor", _as_checked(about.compressor))
    else:
        object.__setattr__(about, "codecs", tuple(map(_checked_codec, about.codecs)))
    return zarr.Array(zarr.AsyncArray(about, array.store_path))


def _checked_codec(codec: Any) -> Any:
    if isinstance(codec, ShardingCodec):
        codec = copy.copy(codec)
        object.__setattr__(codec, "codecs", tuple(map(_checked_codec, codec.codecs)))
    elif isinstance(codec, BloscCodec):
        settings: Any = codec.to_dict()["configuration"]
        codec = CheckedBloscCodec(**settings)
    return codec
