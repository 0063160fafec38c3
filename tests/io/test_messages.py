"""Errors of readers: one line, with file and frame; and a file that is mended is read again."""

import os

import h5py
import numpy as np
import pytest

from lfjax import io
from lfjax.errors import LONGEST, FileError, LfjaxError, one_line
from lfjax.io.arrays import reading

FRAMES = np.random.default_rng(0).integers(1, 4000, (6, 8, 8)).astype(np.uint16)
STAR = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300.0\n2 200.0\n"


def test_messages_are_one_line_that_a_terminal_can_show():
    assert str(LfjaxError("a\n  b\r\n\n c\x1b[31m\0")) == "a b c\\x1b[31m\\x00"
    assert one_line("µm, Å") == "µm, Å"
    long = str(FileError("a" * 5000 + "b"))
    assert len(long) <= LONGEST + 5 and long.endswith("b") and " ... " in long


def test_an_error_of_any_library_names_the_file(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    for error, said in (
        (ValueError("x\ny <class 'int'> <ast.Name object at 0x7f>"), "x y int Name"),
        (MemoryError(), "MemoryError"),
    ):
        with pytest.raises(FileError) as caught, reading(tmp_path / "a", "TIFF"):
            raise error
        assert str(caught.value) == f"{tmp_path / 'a'}: cannot be read ({said}); expected a complete TIFF file"
    with pytest.raises(FileError, match="a: voxel = 3"), reading(tmp_path / "a", "TIFF"):
        raise LfjaxError("voxel = 3")


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "nothing"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, kind):
    for suffix in (".h5", ".tif", ".npy", ".png", ".star", ".mrc"):
        path = tmp_path / f"a{suffix}"
        make = {"folder": path.mkdir, "pipe": lambda p=path: os.mkfifo(p), "loop": lambda p=path: p.symlink_to(p.name)}
        make.get(kind, lambda: None)()
        read = {".star": io.read_star, ".mrc": io.read_map}.get(suffix, io.read_frame)
        with pytest.raises(FileError, match=rf"a\{suffix}: (a folder|not a regular file|no such file)"):
            read(path)


def test_a_frame_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        frames = file.create_dataset("frames", data=FRAMES, chunks=(1, 8, 8), compression="gzip", fletcher32=True)
        place = frames.id.get_chunk_info(3).byte_offset
    with open(path, "r+b") as file:
        file.seek(place + 20)
        file.write(b"\xff" * 8)
    for pick in (slice(None), 3, [2, 3]):
        with pytest.raises(FileError, match=r"m\.h5: frame 3 cannot be read \(.*\); expected a whole file"):
            io.open_movie(path)[pick]
    np.save(tmp_path / "a.npy", FRAMES)
    movie = io.open_movie([path])
    np.testing.assert_array_equal(movie[4:], FRAMES[4:])


def test_the_file_of_several_is_named(tmp_path):
    for k in range(3):
        io.write_movie(tmp_path / f"m{k}.h5", FRAMES)
    movie = io.open_movie(tmp_path / "m*.h5")
    with h5py.File(tmp_path / "m1.h5", "a") as file:
        del file["frames"]
        file.create_dataset("frames", (6, 8, 8), np.uint16, chunks=(1, 8, 8), compression="gzip")
        file["frames"].id.write_direct_chunk((2, 0, 0), b"broken")
    with pytest.raises(FileError, match=r"m1\.h5: frame 2 cannot be read"):
        movie[:]


def test_a_star_file_that_is_mended_is_read_again(tmp_path):
    path = tmp_path / "a.star"
    for broken in (STAR.replace("2 200.0", "2 200.0 3"), STAR.replace("data_", "dat_"), STAR.replace("2 200.0", "2 '200.0")):
        path.write_text(broken)
        with pytest.raises(FileError):
            io.read_star(path)
        path.write_text(STAR)
        assert io.read_star(path)["optics"]["rlnVoltage"].tolist() == [300.0, 200.0]
    times = path.stat()
    path.write_text(STAR.replace("300", "100"))  # of the same size and time
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert io.read_star(path)["optics"]["rlnVoltage"].tolist() == [100.0, 200.0]
