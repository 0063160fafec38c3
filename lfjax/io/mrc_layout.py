"""Where the values of an MRC file lie and what they mean, by its header: mode, byte order, extended header, compression.

Modes are 0 (bytes), 1 (16-bit integers), 2 (floats), 6 (unsigned 16-bit integers) and 12 (half floats) of MRC2014. Bytes are
signed, except where IMOD's stamp and flags say that they are not, or, without that stamp, where the header's least value is 0
or more and its greatest exceeds 127, which no signed byte does. Other modes, complex values and pairs of 4-bit values among
them, are refused by name. (Cheng et al., J. Struct. Biol. 192, 146 (2015); IMOD, "The MRC format".)
"""

from __future__ import annotations

import bz2
import gzip
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from lfjax.errors import DataWarning, FileError
from lfjax.io.claims import array_bytes, require_claim

HEADER_BYTES = 1024
TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
UNREADABLE = {3: "complex 16-bit integers", 4: "complex values", 101: "two 4-bit values per byte"}
IMOD_STAMP, STAMP_BYTE, FLAGS_BYTE = 1146047817, 152, 156
SIGNED_BYTES, PACKED_BYTES = 1, 16  # bits of IMOD's flags
OTHER_FORMATS = {
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PK\x03\x04": "a zip archive",
    b"II*\0": "a TIFF file",
    b"MM\0*": "a TIFF file",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG file",
    b"\x93NUMPY": "a NumPy file",
}
TEXT_BYTES = frozenset(b"\t\n\r") | frozenset(range(32, 127))
VOLUMES = range(401, 631)  # space groups of stacks of volumes


class Layout(NamedTuple):
    """Header of an MRC file.

    Attributes:
        path: path of the file.
        shape: (sections, rows, columns).
        volumes: number of volumes that the sections belong to, for a stack of volumes; 0: it is none.
        dtype: type of the values, in the byte order of the file.
        start: byte at which the values start.
        compressed: whether the file is compressed by gzip or bzip2.
        single: whether the header says that the file is one image.
        voxel_angstrom: voxel size (z, y, x); 0 where the file has none.
        first: start indices (z, y, x).
        origin_angstrom: origin (z, y, x).
        axes: MAPC, MAPR, MAPS, the axis of columns, rows and sections: 1 is x, 2 y, 3 z.
    """

    path: Path
    shape: tuple[int, int, int]
    volumes: int
    dtype: np.dtype
    start: int
    compressed: bool
    single: bool
    voxel_angstrom: tuple[float, float, float]
    first: tuple[int, int, int]
    origin_angstrom: tuple[float, float, float]
    axes: tuple[int, int, int]


def read_layout(path: str | Path) -> Layout:
    """Read the header of a file, and compare the length of a file that is not compressed with it.

    Raises:
        FileError: the file is no MRC file, its mode cannot be read, or it is shorter than its header says.
        OSError: the file cannot be opened or decompressed.
    """
    path = Path(path)
    with path.open("rb") as file:
        raw = file.read(HEADER_BYTES)
    compressed = raw[208:212] != b"MAP " and raw[:2] in (b"\x1f\x8b", b"BZ")
    if compressed:
        with _stream(path) as file:
            raw = file.read(HEADER_BYTES)
    _refuse_other_formats(path, raw, compressed)
    if len(raw) < HEADER_BYTES:
        raise FileError(f"{path}: {len(raw)} bytes; expected an MRC file, whose header takes {HEADER_BYTES}")
    header = _ordered(path, raw)
    mode, (nx, ny, nz) = int(header["mode"]), (int(header[n]) for n in ("nx", "ny", "nz"))
    if min(nx, ny, nz) < 1:
        raise FileError(f"{path}: {nx} x {ny} x {nz} values (columns, rows, sections); expected 1 or more of each")
    extended, group, sections = int(header["nsymbt"]), int(header["ispg"]), int(header["mz"])
    volumes = 0
    if group in VOLUMES:
        if sections < 1 or nz % sections:
            raise FileError(f"{path}: {nz} sections in volumes of {sections}; expected a multiple, for ISPG {group}")
        volumes = nz // sections
    dtype = _type(path, mode, header, raw)
    found = Layout(
        path,
        (nz, ny, nx),
        volumes,
        dtype,
        HEADER_BYTES + extended,
        compressed,
        group == 0 and nz == 1,
        _zyx(float(header["cella"][a] / n) if (n := int(header[f"m{a}"])) else 0.0 for a in "zyx"),
        cast(tuple[int, int, int], tuple(int(header[f"n{a}start"]) for a in "zyx")),
        _zyx(float(header["origin"][a]) for a in "zyx"),
        (int(header["mapc"]), int(header["mapr"]), int(header["maps"])),
    )
    if extended < 0 or (not compressed and extended > path.stat().st_size - HEADER_BYTES):
        raise FileError(f"{path}: extended header of {extended} bytes in a file of {path.stat().st_size}")
    if not compressed:
        _check_length(found, path.stat().st_size - found.start)
    return found


def _refuse_other_formats(path: Path, raw: bytes, compressed: bool) -> None:
    if raw[208:212] == b"MAP ":
        return
    inside = ", decompressed" if compressed else ""
    for start, kind in OTHER_FORMATS.items():
        if raw.startswith(start):
            raise FileError(f"{path}{inside}: {kind}; expected an MRC file, plain or compressed by gzip or bzip2")
    if raw and all(byte in TEXT_BYTES for byte in raw):
        # without quoting it: a particle file may name any file, and messages are shown to others
        raise FileError(f"{path}{inside}: a text file; expected an MRC file")


def read_values(layout: Layout) -> NDArray[np.generic]:
    """Values (sections, rows, columns): mapped from a plain file when they are used, decompressed at once otherwise.

    Raises:
        FileError: a compressed file is shorter than its header says.
        OSError: the file cannot be opened or decompressed.
    """
    if not layout.compressed:  # as long as the header says, by `read_layout`
        return np.memmap(layout.path, layout.dtype, "r", layout.start, layout.shape)
    needed = array_bytes(layout.shape, layout.dtype.itemsize)
    require_claim(layout.path, needed + layout.start, what=f"the header of shape {layout.shape}")
    with _stream(layout.path) as file:
        head = len(file.read(layout.start))
        content = file.read(needed)
        rest = sum(len(block) for block in iter(lambda: file.read(1 << 20), b""))
    _check_length(layout, head - layout.start + len(content) + rest)
    return np.frombuffer(content, layout.dtype).reshape(layout.shape)


def _stream(path: Path) -> gzip.GzipFile | bz2.BZ2File:
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path) if gzipped else bz2.BZ2File(path)


def _ordered(path: Path, raw: bytes) -> np.void:
    """The header in the byte order of its machine stamp, or in the other where only that gives a known mode."""
    orders = "><" if raw[212] == 0x11 else "<>"
    for order in orders:
        header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
        if int(header["mode"]) in TYPES or int(header["mode"]) in UNREADABLE:
            return header
    mode = int(np.frombuffer(raw, HEADER_DTYPE.newbyteorder(orders[0]))[0]["mode"])
    raise FileError(f"{path}: mode {mode} in the header; expected an MRC file of mode {', '.join(map(str, TYPES))}")


def _type(path: Path, mode: int, header: np.void, raw: bytes) -> np.dtype:
    order = header.dtype["mode"].str[0]  # always > or < of a type that is not a byte
    stamp, flags = (int(np.frombuffer(raw, f"{order}i4", 1, at)[0]) for at in (STAMP_BYTE, FLAGS_BYTE))
    packed = mode == 0 and stamp == IMOD_STAMP and bool(flags & PACKED_BYTES)
    if mode in UNREADABLE or packed:
        kind = UNREADABLE[101 if packed else mode]
        raise FileError(
            f"{path}: mode {mode}, {kind}; expected mode {', '.join(map(str, TYPES))}, as `newstack -mode` makes it"
        )
    unsigned = mode == 0 and stamp == IMOD_STAMP and not flags & SIGNED_BYTES
    low, high = float(header["dmin"]), float(header["dmax"])
    if mode == 0 and stamp != IMOD_STAMP and low >= 0 and 127 < high <= 255:
        told = f"mode 0, whose bytes are signed, with values from {low:g} to {high:g} by the header; lfjax reads unsigned bytes"
        warnings.warn(f"{path}: {told}", DataWarning, stacklevel=4)
        unsigned = True
    return np.dtype(f"{order}{'u1' if unsigned else TYPES[mode]}")


def _check_length(layout: Layout, present: int) -> None:
    needed = array_bytes(layout.shape, layout.dtype.itemsize)
    if present < needed:
        size = " x ".join(str(n) for n in layout.shape[::-1])
        raise FileError(
            f"{layout.path}: {max(present, 0)} bytes of values; expected {needed} for {size} of {layout.dtype.name}"
        )
    if present > needed:
        told = f"{present - needed} bytes beyond the values that the header announces; lfjax leaves them"
        warnings.warn(f"{layout.path}: {told}", DataWarning, stacklevel=4)


def _zyx(values: Iterable[float]) -> tuple[float, float, float]:
    return cast(tuple[float, float, float], tuple(values))
