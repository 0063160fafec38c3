"""What headers claim is compared with file and memory; the memory that a refusal takes is measured."""

import bz2
import gzip
import json
import struct
import tracemalloc

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile

from lfjax import activity, io, training
from lfjax.errors import FileError
from lfjax.io.claims import EXPANSION, SMALL, require_claim
from lfjax.io.hdf5 import numbers
from lfjax.io.mrc import Stack
from lfjax.io.mrc_layout import HEADER_DTYPE

MIB = 2**20


def refused(read, path, match):
    """The error of a reader, which allocates little before it."""
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=match) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * MIB
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_claim_is_held_against_file_memory_and_the_users_limit(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(1000))
    require_claim(path, SMALL)
    require_claim(path, 2 * SMALL, stored=2 * SMALL / EXPANSION)
    with pytest.raises(FileError, match=r"a.bin: the header claims 0.25 GiB, of 1000 bytes in the file; .* LFJAX_MAX_GIB"):
        require_claim(path, 2 * SMALL)
    with pytest.raises(FileError, match="free memory"):
        require_claim(path, 2**60, stored=2**60)
    monkeypatch.setenv("LFJAX_MAX_GIB", "0.01")
    with pytest.raises(FileError, match=r"claims 0.125 GiB; expected at most 0.01 GiB \(LFJAX_MAX_GIB\)"):
        require_claim(path, SMALL)
    monkeypatch.setenv("LFJAX_MAX_GIB", "0.3")  # of a user who trusts the file
    require_claim(path, 2 * SMALL)


@pytest.mark.parametrize("chunks", [None, (64, 64)])
def test_hdf5_that_was_never_written_is_refused(tmp_path, chunks):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, shape in (("frame", (30000, 30000)), ("volume", (3, 30000, 30000)), ("masks", (3, 30000, 30000))):
            grid = None if chunks is None else (1,) * (len(shape) - 2) + chunks
            file.create_dataset(name, shape, np.float32, chunks=grid)
            if chunks:
                file[name][(0,) * len(shape)] = 1
    assert path.stat().st_size < 100_000
    for read in (io.read_frame, io.read_volume, activity.read_masks):
        refused(read, path, "claims .* GiB")
    if chunks is None:
        refused(lambda p: io.open_movie(p, dataset="volume"), path, "was never written")
    else:
        with io.open_movie(path, dataset="volume") as movie:
            refused(lambda _: movie[:], path, "3 frames of shape .* claims")


def test_hdf5_that_is_not_written_whole_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("volume", (4, 8, 8), np.float32, chunks=(1, 8, 8))[1] = 1
        file.create_dataset("frames", (4, 8, 8), np.float32, chunks=(1, 4, 8))[1] = 1
    refused(io.read_volume, path, "/volume' of shape .* never written, or not all of it")
    refused(lambda p: io.read_frame(p, page=0), path, "/frames' of shape .* never written")
    np.testing.assert_array_equal(io.read_frame(path, page=1), np.ones((8, 8)))


def test_a_chunk_of_hdf5_that_is_huge_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (4, 9000, 9000), np.float32, chunks=(4, 9000, 9000), compression="gzip")
    refused(io.open_movie, path, "a chunk of dataset '/frames' claims 1.21 GiB")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_compressed_map_that_claims_too_much_is_refused(tmp_path, pack):
    header = np.zeros(1, HEADER_DTYPE)
    for name, value in {"nx": 8000, "ny": 8000, "nz": 8, "mode": 2, "mapc": 1, "mapr": 2, "maps": 3}.items():
        header[name] = value
    raw = bytearray(header.tobytes())
    raw[208:212], raw[212:214] = b"MAP ", b"\x44\x44"
    (tmp_path / "a.mrc").write_bytes(pack(bytes(raw) + bytes(4000)))
    for read in (io.read_map, Stack):
        refused(read, tmp_path / "a.mrc", "claims 1.91 GiB")
    raw[92:96] = (2**31 - 1).to_bytes(4, "little")  # the extended header
    (tmp_path / "b.mrc").write_bytes(pack(bytes(raw)))
    refused(io.read_map, tmp_path / "b.mrc", "claims")


def test_tiff_and_png_that_claim_too_much_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16), np.float32), compression="deflate", tile=(16, 16))
    for codes in ((256, 257, 322, 323), (322, 323)):  # the image, or its tiles alone
        data = bytearray((tmp_path / "a.tif").read_bytes())
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            for code in codes:
                tag = file.pages.first.tags[code]
                data[tag.offset + 2 : tag.offset + 12] = (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + b"\x50\xc3\0\0"
        (tmp_path / "b.tif").write_bytes(bytes(data))
        refused(io.read_frame, tmp_path / "b.tif", "claims .* GiB")
    data = bytearray(imagecodecs.png_encode(np.zeros((16, 16), np.uint8)))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    (tmp_path / "a.png").write_bytes(bytes(data))
    refused(io.read_frame, tmp_path / "a.png", "cannot hold 60000 x 60000 pixels")


def test_a_model_whose_recipe_asks_for_more_than_the_file_has_is_not_built(tmp_path):
    path, recipe = tmp_path / "m.h5", training.small_model().recipe.to_dict()
    recipe["model"] |= {"width": 4000}
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "lfjax model 1", "recipe": json.dumps(recipe)})
    refused(training.read_model, path, "expected a dataset '0000'")


@pytest.mark.parametrize("filters", [{"fletcher32": True}, {"compression": "gzip"}, {}])
def test_a_chunk_of_no_bytes_was_not_written(tmp_path, filters):
    path = tmp_path / "v.h5"
    values = np.random.default_rng(0).random((2, 6, 7))
    with h5py.File(path, "w") as file:
        file.create_dataset("view", data=values, chunks=(1, 6, 7), **filters)
    with h5py.File(path) as file:
        chunks = [file["view"].id.get_chunk_info(i) for i in range(2)]
        np.testing.assert_array_equal(numbers(path, file, "view"), values)
    data = bytearray(path.read_bytes())
    key = struct.pack("<IIQQQQ", chunks[1].size, 0, 1, 0, 0, 0)  # of the index of chunks: bytes, filters left out, place
    assert data.count(key) == 1
    struct.pack_into("<I", data, data.index(key), 0)
    path.write_bytes(data)
    with h5py.File(path) as file, pytest.raises(FileError, match=r"'/view' of shape \(2, 6, 7\) was never written, or not all"):
        numbers(path, file, "view")
    with io.open_movie(path, dataset="view") as movie:
        assert list(movie.missing) == [1]
        np.testing.assert_array_equal(movie[:1][0], values[0].astype(movie[:1].dtype))
