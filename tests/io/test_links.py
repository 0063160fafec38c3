"""Values that lie in other files: refused by name, and read where the user says so."""

import os

import h5py
import numpy as np
import pytest
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from lfjax import io
from lfjax.errors import FileError
from lfjax.tomography.stack_names import find_stack

FRAMES = np.random.default_rng(0).integers(1, 4000, (3, 6, 8)).astype(np.uint16)


@pytest.fixture
def linked(tmp_path):
    """A file of frames in another folder, and one whose datasets lead there."""
    (tmp_path / "there").mkdir()
    FRAMES.tofile(tmp_path / "there/raw.bin")
    with h5py.File(tmp_path / "there/a.h5", "w") as file:
        file["frames"] = FRAMES
        file["volume"] = FRAMES
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["link"] = h5py.ExternalLink("there/a.h5", "frames")
        file["volume"] = h5py.ExternalLink("there/a.h5", "volume")
        file.create_dataset("external", FRAMES.shape, FRAMES.dtype, external=[("there/raw.bin", 0, FRAMES.nbytes)])
        for name, source in (("virtual", "there/a.h5"), ("gone", "there/none.h5")):
            layout = h5py.VirtualLayout(FRAMES.shape, FRAMES.dtype)
            layout[...] = h5py.VirtualSource(source, "frames", FRAMES.shape)
            file.create_virtual_dataset(name, layout)
    return tmp_path / "b.h5"


@pytest.mark.parametrize(("name", "said"), [("link", "a link into"), ("external", "stored in"), ("virtual", "is virtual")])
def test_hdf5_reads_other_files_only_where_links_are_followed(linked, name, said, monkeypatch):
    monkeypatch.chdir(linked.parent)  # to which HDF5 takes external storage as relative
    with pytest.raises(FileError, match=f"b.h5: .*{name}.*{said}.*--follow-links"):
        io.open_movie(linked, dataset=name)
    with pytest.raises(FileError, match=f"b.h5: .*{name}.*{said}.*--follow-links"):
        io.read_frame(linked, dataset=name, page=1)
    with io.open_movie(linked, dataset=name, follow_links=True) as movie:
        np.testing.assert_array_equal(movie[:], FRAMES)
    np.testing.assert_array_equal(io.read_frame(linked, dataset=name, page=1, follow_links=True), FRAMES[1])


def test_volumes_follow_links_too_and_missing_sources_are_no_zeros(linked):
    with pytest.raises(FileError, match="a link into the file 'there/a.h5'.*--follow-links"):
        io.read_volume(linked)
    np.testing.assert_array_equal(io.read_volume(linked, follow_links=True).array, FRAMES)
    with pytest.raises(FileError, match="'gone' is virtual, 'there/none.h5', which is missing"):
        io.open_movie(linked, dataset="gone", follow_links=True)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("part", ["chunk", "folder", "metadata"])
def test_zarr_stores_hold_their_own_files(tmp_path, version, part):
    store, other = tmp_path / "a.zarr", tmp_path / "b.zarr"
    for path in (store, other):
        zarr.create_array(path, data=FRAMES, chunks=(1, 6, 8), zarr_format=version)
    chunk = "0.0.0" if version == 2 else "c/0/0/0"
    name = {"chunk": chunk, "folder": "c/0", "metadata": ".zarray" if version == 2 else "zarr.json"}[part]
    if part == "folder" and version == 2:
        pytest.skip("chunks of version 2 lie in the folder of their array")
    (store / name).rename(tmp_path / "moved")
    (store / name).symlink_to(other / name)
    with pytest.raises(FileError, match=f"a.zarr: '{name}.*' is a link that leads out of the store.*--follow-links"):
        io.open_movie(store)
    np.testing.assert_array_equal(io.open_movie(store, follow_links=True)[:], FRAMES)
    (store / name).unlink()
    (tmp_path / "moved").rename(store / "kept")
    (store / name).symlink_to("kept" if part != "chunk" or version == 2 else "../../../kept")  # within the store
    if part == "folder":
        (store / name).unlink()
        (store / name).symlink_to("../kept")
    np.testing.assert_array_equal(io.open_movie(store)[:], FRAMES)


def test_a_chunk_of_zarr_is_a_file(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=FRAMES, chunks=(1, 6, 8))
    (tmp_path / "a.zarr/c/1/0/0").unlink()
    os.mkfifo(tmp_path / "a.zarr/c/1/0/0")
    with pytest.raises(FileError, match="'c/1/0/0' is not a regular file"):
        io.open_movie(tmp_path / "a.zarr")


def test_a_truncated_blosc_chunk_is_not_read_beyond_its_end(tmp_path):
    for version, options in ((2, {"compressors": Blosc()}), (3, {"compressors": BloscCodec()})):
        path = tmp_path / f"{version}.zarr"
        zarr.create_array(path, data=FRAMES, chunks=(1, 6, 8), zarr_format=version, **options)
        np.testing.assert_array_equal(io.open_movie(path)[:], FRAMES)
        chunk = path / ("1.0.0" if version == 2 else "c/1/0/0")
        chunk.write_bytes(chunk.read_bytes()[:-1])
        with pytest.raises(FileError, match=rf"{version}.zarr: frame 1 cannot be read \(a chunk of \d+ bytes that says"):
            io.open_movie(path)[:]


def test_a_particle_file_names_images_anywhere_and_nothing_else(tmp_path):
    (tmp_path / "job").mkdir()
    for name in ("a.mrcs", "job/b.mrcs", "secret", "secret.txt"):
        (tmp_path / name).write_bytes(b"password")
    star = tmp_path / "job/p.star"
    for name in ("b.mrcs", "../a.mrcs", str(tmp_path / "a.mrcs"), "job/b.mrcs"):  # as RELION's projects do
        assert find_stack(star, name).read_bytes()
    for name in ("../secret", str(tmp_path / "secret.txt"), "/etc/passwd", "../secret.gz"):
        with pytest.raises(FileError, match="p.star: stack .* expected an MRC file") as caught:
            find_stack(star, name)
        assert "password" not in str(caught.value)
    with pytest.raises(FileError) as caught:
        io.mrc.Stack(tmp_path / "a.mrcs")
    assert "password" not in str(caught.value)
