"""Seeded mutations of files: any byte, what stands in a header, what a text says, and what lies at a path."""

from __future__ import annotations

import gzip
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz import mutate_hdf5, mutate_tiff

Rng = np.random.Generator
Mutation = Callable[[Path, Rng], str]
INTEGERS = (0, 1, -1, 2, 3, 255, 4000, 30000, 65535, 2**24, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63 - 1, -(2**63), 10**23)
FLOATS = (np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-30, 1e30, 3e38)
WORDS = (
    "nan", "inf", "-inf", "-1", "0", "1e400", "1e-400", "1.5", "true", "[]", "[[1.0], [2.0]]", "{}", '""', '"abc"', "abc",
    "2026-03-04", "12:30:00", "99999999999999999999999", "1" * 5000, "'", '"', "<NA>", "0x10", "1,5", "\x00", "é", "\\n",
)  # fmt: skip
MAGIC = (
    b"\x89HDF\r\n\x1a\n", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0", b"\x93NUMPY\x01\0v\0", b"\x1f\x8b\x08\0",
    b"BZh9", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b"MAP ", b"data_", b"loop_\n", b"\xef\xbb\xbf", b"\xff\xfe", b"[" * 5000,
    b"<?xml version='1.0'?>", b"{", b"\x80\x04\x95", b"root:x:0:0\n",
)  # fmt: skip


def _place(data: bytes, rng: Rng, width: int = 1) -> int:
    """A byte, most often one of the head, where formats keep their sizes."""
    last = max(len(data) - width, 0)
    return int(rng.integers(min(last, (64, 1024, last)[rng.integers(3)]) + 1))


def _bytes(change: Callable[[bytearray, Rng], str]) -> Mutation:
    def mutate(path: Path, rng: Rng) -> str:
        data = bytearray(path.read_bytes())
        told = change(data, rng)
        path.write_bytes(bytes(data))
        return told

    return mutate


def bits(data: bytearray, rng: Rng) -> str:
    """One to eight bits turned."""
    places = [_place(data, rng) for _ in range(rng.integers(1, 9))] if data else []
    for place in places:
        data[place] ^= 1 << int(rng.integers(8))
    return f"bits of bytes {places}"


def noise(data: bytearray, rng: Rng) -> str:
    """A few random bytes."""
    place, count = _place(data, rng), int(rng.integers(1, 17))
    data[place : place + count] = rng.bytes(min(count, len(data) - place))
    return f"{count} random bytes at {place}"


def truncation(data: bytearray, rng: Rng) -> str:
    """The end is missing."""
    kept = int(rng.choice([0, 1, len(data) // 2, max(len(data) - 1, 0), _place(data, rng)]))
    del data[kept:]
    return f"truncated to {kept} bytes"


def cut(data: bytearray, rng: Rng) -> str:
    """A part is missing, or doubled."""
    place, count = _place(data, rng), int(rng.integers(1, 65))
    part = data[place : place + count]
    if rng.random() < 0.5:
        del data[place : place + count]
        return f"{count} bytes missing at {place}"
    data[place:place] = part
    return f"{count} bytes doubled at {place}"


def integer(data: bytearray, rng: Rng) -> str:
    """A header field of 2, 4 or 8 bytes becomes huge, negative or zero."""
    width, order, value = int(rng.choice([2, 4, 8])), str(rng.choice(["little", "big"])), INTEGERS[rng.integers(len(INTEGERS))]
    place = _place(data, rng, width) // 2 * 2
    data[place : place + width] = (value % 256**width).to_bytes(width, order)  # type: ignore[arg-type]
    return f"{value} as {width} bytes, {order}, at {place}"


def real(data: bytearray, rng: Rng) -> str:
    """A number of 4 or 8 bytes becomes NaN, infinite, negative, tiny or huge."""
    width, order, value = int(rng.choice([4, 8])), str(rng.choice(["<", ">"])), FLOATS[rng.integers(len(FLOATS))]
    place = _place(data, rng, width) // 4 * 4
    data[place : place + width] = np.array(value, f"{order}f{width}").tobytes()
    return f"{value} as {order}f{width} at {place}"


def magic(data: bytearray, rng: Rng) -> str:
    """The first bytes of another format."""
    other = MAGIC[rng.integers(len(MAGIC))]
    if rng.random() < 0.5:
        data[: len(other)] = other
    else:
        data[:0] = other
    return f"starts with {other[:12]!r}"


def blank(data: bytearray, rng: Rng) -> str:
    """A region of zeros, or garbage at the end."""
    if rng.random() < 0.5:
        data += rng.bytes(int(rng.integers(1, 5000)))
        return "garbage at the end"
    place, count = _place(data, rng), int(rng.integers(1, 513))
    count = min(count, len(data) - place)
    data[place : place + count] = bytes(count)
    return f"{count} zeros at {place}"


def word(data: bytearray, rng: Rng) -> str:
    """A number or word of a text becomes another kind of thing."""
    found = list(re.finditer(rb"[^\s,\[\]{}()=:<>]+", bytes(data)))
    if not found:
        return bits(data, rng)
    some, new = found[rng.integers(len(found))], WORDS[rng.integers(len(WORDS))]
    data[some.start() : some.end()] = new.encode()
    return f"{some.group()[:30]!r} becomes {new[:30]!r}"


def line(data: bytearray, rng: Rng) -> str:
    """A line is missing, doubled, moved, or not UTF-8."""
    lines = bytes(data).split(b"\n")
    at, kind = int(rng.integers(len(lines))), int(rng.integers(4))
    taken = lines.pop(at)
    if kind == 1:
        lines[at:at] = [taken, taken]
    elif kind == 2:
        lines.insert(int(rng.integers(len(lines) + 1)), taken)
    elif kind == 3:
        lines.insert(at, taken[: len(taken) // 2] + b"\xff\xfe" + taken[len(taken) // 2 :])
    data[:] = b"\n".join(lines)
    return f"line {at + 1} {('missing', 'doubled', 'moved', 'not UTF-8')[kind]}"


def inside(change: Callable[[bytearray, Rng], str]) -> Mutation:
    """A mutation of what a gzip file holds."""

    def mutate(path: Path, rng: Rng) -> str:
        data = bytearray(gzip.decompress(path.read_bytes()))
        told = change(data, rng)
        path.write_bytes(gzip.compress(bytes(data), mtime=0))
        return f"inside: {told}"

    return mutate


def empty(path: Path, rng: Rng) -> str:
    path.write_bytes(b"")
    return "empty"


def gone(path: Path, rng: Rng) -> str:
    path.unlink()
    return "missing"


def folder(path: Path, rng: Rng) -> str:
    path.unlink()
    path.mkdir()
    return "a folder"


def forbidden(path: Path, rng: Rng) -> str:
    path.chmod(0)
    return "no permission"


def loop(path: Path, rng: Rng) -> str:
    path.unlink()
    path.symlink_to(path.name)
    return "a link to itself"


def dangling(path: Path, rng: Rng) -> str:
    path.unlink()
    path.symlink_to("nowhere")
    return "a link to nothing"


def pipe(path: Path, rng: Rng) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a pipe"


def device(path: Path, rng: Rng) -> str:
    path.unlink()
    path.symlink_to("/dev/zero")
    return "a link to /dev/zero"


def elsewhere(path: Path, rng: Rng) -> str:
    path.unlink()
    path.symlink_to("/etc/passwd")
    return "a link to a text of the system"


def swapped(path: Path, rng: Rng) -> str:
    """The content of another file of the set, or of the interpreter's own text."""
    others = [p for p in sorted(path.parent.rglob("*")) if p.is_file() and p != path]
    shutil.copyfile(others[rng.integers(len(others))] if others else Path(__file__), path)
    return "the content of another file"


BYTES = tuple(_bytes(change) for change in (bits, bits, noise, truncation, cut, integer, integer, real, magic, blank))
PATHS: tuple[Mutation, ...] = (empty, gone, folder, forbidden, loop, dangling, pipe, device, elsewhere, swapped)
TEXT = tuple(_bytes(change) for change in (word, word, word, line, bits, noise, truncation, magic))
GZIP = tuple(inside(change) for change in (integer, real, bits, truncation))
SUFFIXES: dict[str, tuple[Mutation, ...]] = {
    **dict.fromkeys((".h5",), (*mutate_hdf5.MUTATIONS, *mutate_hdf5.MUTATIONS, *BYTES)),
    **dict.fromkeys((".tif",), (*mutate_tiff.MUTATIONS * 3, *BYTES)),
    **dict.fromkeys((".toml", ".star", ".csg", ".pdb", ".cif", ".json", ".zarray", ".zgroup", ".zattrs"), TEXT),
    **dict.fromkeys((".rpl", ".hdr", ".mca", ".spe"), TEXT),
    **dict.fromkeys((".npy", ".cs"), (*(_bytes(change) for change in (word, word)), *BYTES)),
    ".gz": (*GZIP, *BYTES),
}


def mutate(root: Path, rng: Rng) -> str:
    """Change one file of a folder of good files; what was done.

    Args:
        root: the folder.
        rng: draws the file and the mutation.
    """
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    kind = path.suffix if path.suffix else path.name
    kinds = PATHS if rng.random() < 0.06 else SUFFIXES.get(kind, BYTES)
    told = kinds[rng.integers(len(kinds))](path, rng)
    return f"{path.relative_to(root)}: {told}"
