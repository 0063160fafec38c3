"""Chunks that the disk damages are noticed and computed again; what is whole is not."""

import random
import warnings

import numpy as np
import pytest
import zarr

from benchmarks import torture
from benchmarks.reliability_runs import damage_stores
from lfjax.errors import FileError, StorageWarning
from lfjax.io.chunks import Chunks, stream

FRAMES = np.random.default_rng(0).random((7, 4, 3)).astype(np.float32)


def new(path, **options):
    return Chunks(path, 7, 3, {"0": (4, 3)}, {"name": "toy"}, **options)


def finished(path, **options):
    chunks = new(path, **options)
    stream(FRAMES, chunks, lambda block: {"0": block})
    return chunks.finish()


def test_any_damage_of_a_store_is_noticed_and_mended(tmp_path):
    assert damage_stores(tmp_path, 24) == (0, 0)


def test_whole_chunks_are_not_computed_again(tmp_path):
    first = new(tmp_path / "a.zarr")
    first.write(0, {"0": FRAMES[:3]})
    first.write(2, {"0": FRAMES[6:]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert new(tmp_path / "a.zarr").missing() == [1]
    shard = tmp_path / ".a.zarr.partial" / "0" / "c" / "2" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.warns(StorageWarning, match=r"1 of 3 chunks are damaged \(frames 6 to 6\) and are computed again"):
        assert new(tmp_path / "a.zarr").missing() == [1, 2]


def test_settings_that_are_damaged_are_no_other_settings(tmp_path):
    new(tmp_path / "a.zarr").write(0, {"0": FRAMES[:3]})
    note = tmp_path / ".a.zarr.partial" / "zarr.json"
    note.write_text(note.read_text().replace("toy", "tov"))
    with pytest.warns(StorageWarning, match="does not fit its checksum: the run of .*a.zarr begins anew"):
        assert new(tmp_path / "a.zarr").missing() == [0, 1, 2]


def test_a_finished_folder_that_is_used_again_is_checked(tmp_path):
    path = finished(tmp_path / "a.zarr", reuse=True)
    assert new(path, reuse=True).finished
    torture.damage(path / "0" / "c" / "1" / "0" / "0", random.Random(0))
    with pytest.warns(StorageWarning, match="1 of 3 chunks are damaged"):
        again = finished(path, reuse=True)
    np.testing.assert_array_equal(zarr.open_group(again, mode="r")["0"][:], FRAMES)
    (path / "zarr.json").write_text("{}")
    with pytest.raises(FileError, match="zarr.json cannot be read; remove .*a.zarr to begin anew"):
        new(path, reuse=True)


def test_remains_of_killed_writes_are_not_in_the_result(tmp_path):
    chunks = new(tmp_path / "a.zarr")
    (tmp_path / ".a.zarr.partial" / "0" / "c.123.partial").write_text("half")
    stream(FRAMES, chunks, lambda block: {"0": block})
    assert not list(chunks.finish().rglob("*.partial"))
