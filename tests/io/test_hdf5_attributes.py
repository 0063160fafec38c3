"""Attributes of HDF5 files: what h5py reads, and damaged texts refused before HDF5 looks at them."""

import re
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

import lfjax
from lfjax.errors import FileError
from lfjax.io import read_volume
from lfjax.io.hdf5_attributes import Attributes

VALUES = {
    "text": "a text", "long": 20000 * "x", "umlaut": "üü", "empty": "", "texts": ["y", "x", ""], "fixed": np.bytes_("abc"),
    "number": 3, "row": [1.5, 2.5], "flag": True, "nothing": h5py.Empty("f"), "no text": h5py.Empty(h5py.string_dtype()),
}  # fmt: skip


def written(folder, libver="earliest", userblock=0, track_order=False, values=VALUES):
    path = folder / "a.h5"
    with h5py.File(path, "w", libver=libver, userblock_size=userblock, track_order=track_order) as file:
        group = file.create_group("a/b", track_order=track_order)
        for node in (file, group, file.create_dataset("d", data=[1])):
            for name, value in values.items():
                node.attrs[name] = value
    return path


@pytest.mark.parametrize("track_order", [False, True])
@pytest.mark.parametrize("userblock", [0, 512])
@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
@pytest.mark.parametrize("count", [7, 11])  # in the header; where the format is new: in a heap of their own
def test_values_are_those_of_h5py(tmp_path, libver, userblock, track_order, count):
    values = dict(list(VALUES.items())[:count])
    path = written(tmp_path, libver, userblock, track_order, values)
    with h5py.File(path) as file:
        for node in (file, file["a/b"], file["d"]):
            found = Attributes(path, node)
            assert set(found) == set(values) and len(found) == count and "x" not in found and found.get("x", 5) == 5
            for name in values:
                np.testing.assert_array_equal(np.asarray(found[name], object), np.asarray(node.attrs[name], object))


def test_attributes_of_other_kinds_are_refused_by_name(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["link"] = file.ref
        rows = np.empty(1, object)
        rows[0] = np.arange(3, dtype=np.int32)
        file.attrs.create("rows", rows, dtype=h5py.vlen_dtype(np.int32))
        file.attrs["pair"] = np.zeros(1, [("a", "i4"), ("b", "f8")])
        for name in ("link", "rows", "pair"):
            with pytest.raises(FileError, match=rf"a\.h5: attribute {name} holds .*; expected numbers or texts"):
                Attributes(tmp_path / "a.h5", file)[name]


def heap_of(data):
    """Where the heap of texts is, and its first object."""
    start = data.index(b"GCOL")
    return start, start + 16


DAMAGE = {
    "object of size zero": lambda data, heap, first: data.__setitem__(slice(first, first + 16), bytes(16)),
    "object larger than its heap": lambda data, heap, first: struct.pack_into("<Q", data, first + 8, 2**40),
    "object of a size that overflows": lambda data, heap, first: struct.pack_into("<Q", data, first + 8, 2**64 - 8),
    "object of another size": lambda data, heap, first: struct.pack_into("<Q", data, first + 8, 5),
    "no such object": lambda data, heap, first: struct.pack_into("<H", data, first, 77),
    "heap of no size": lambda data, heap, first: struct.pack_into("<Q", data, heap + 8, 0),
    "heap larger than the file": lambda data, heap, first: struct.pack_into("<Q", data, heap + 8, 2**60),
    "no heap": lambda data, heap, first: data.__setitem__(slice(heap, heap + 4), b"GAOL"),
    "length": lambda data, heap, first: struct.pack_into("<I", data, data.index(struct.pack("<IQI", 6, heap, 1)), 2**32 - 1),
    "address": lambda data, heap, first: struct.pack_into("<Q", data, data.index(struct.pack("<IQI", 6, heap, 1)) + 4, 2**63),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_text_is_refused_with_its_name(tmp_path, kind):
    path = written(tmp_path, values={"text": "a text"})
    data = bytearray(path.read_bytes())
    DAMAGE[kind](data, *heap_of(data))
    path.write_bytes(data)
    refused = 0
    with h5py.File(path) as file:
        for node in (file, file["a/b"], file["d"]):
            try:
                assert Attributes(path, node)["text"] == "a text"
            except FileError as error:
                refused += 1
                assert re.match(rf"{re.escape(str(path))}: attribute text is damaged \(.*\); expected a text", str(error))
    assert refused


def test_a_header_that_is_a_circle_is_refused(tmp_path):
    path = written(tmp_path, values={f"text {k}": "some" for k in range(20)})  # a header of several blocks
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        start = h5py.h5o.get_info(file["d"].id).addr + 16
        found = Attributes(path, file["d"])
        assert found["text 19"] == "some"  # HDF5 has read the header
        at = next(at for at in range(start, start + 400, 8) if data[at : at + 4] == b"\x10\0\x10\0")
        struct.pack_into("<QQ", data, at + 8, start, at + 24 - start)
        path.write_bytes(data)
        with pytest.raises(FileError, match="its header is a circle"):
            found["text 19"]


def test_the_readers_refuse_it(tmp_path):
    path = tmp_path / "v.h5"
    lfjax.io.write_volume(path, np.ones((2, 3, 4), np.float32), (1.0, 1.0, 1.0))
    data = bytearray(path.read_bytes())
    data[slice(heap_of(data)[1], heap_of(data)[1] + 16)] = bytes(16)
    path.write_bytes(data)
    with pytest.raises(FileError, match=r"v\.h5: attribute axes is damaged \(object 0 of the heap at \d+ claims 0 bytes\)"):
        read_volume(path)


def test_no_reader_takes_values_of_attributes_from_h5py():
    folder = Path(lfjax.__file__).parent
    taken = re.compile(r"\.attrs(\[[^]]*\](?! *=[^=])|\.(get|items|values)\b)|dict\([^()]*\.attrs\)|\.dims\b")
    zarr = {"movie_zarr.py"}
    found = {
        f"{path.relative_to(folder)}: {match.group()}"
        for path in folder.rglob("*.py")
        if path.name not in {"hdf5_attributes.py", *zarr}
        for match in taken.finditer(path.read_text())
    }
    assert not found
