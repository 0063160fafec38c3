"""Movies are read a piece at a time; results in chunks are whole, or go on where they were interrupted."""

import os
import random
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from lfjax import io
from lfjax.errors import FileError
from lfjax.io.chunks import Chunks, ome_attributes, stream

MOVIE = np.random.default_rng(0).integers(0, 4000, (7, 12, 10)).astype(np.uint16)


@pytest.mark.parametrize("suffix", [".h5", ".tif"])
def test_what_is_written_is_read(tmp_path, suffix):
    io.write_movie(tmp_path / f"movie{suffix}", MOVIE)
    movie = io.open_movie(tmp_path / f"movie{suffix}")
    assert movie.shape == MOVIE.shape and movie.dtype == MOVIE.dtype and len(movie) == 7
    np.testing.assert_array_equal(movie[2:5], MOVIE[2:5])


def test_compressed_tiff_and_zarr_are_read_too(tmp_path):
    tifffile.imwrite(tmp_path / "small.tif", MOVIE, compression="zlib", photometric="minisblack")
    np.testing.assert_array_equal(io.open_movie(tmp_path / "small.tif")[1:3], MOVIE[1:3])
    group = zarr.create_group(tmp_path / "ome.zarr")
    group.create_array("0", data=MOVIE[:, None, None])
    group.attrs.update(ome_attributes("movie", "tczyx", (0.01, 1.0, 1.0, 1.0, 1.0)))
    movie = io.open_movie(tmp_path / "ome.zarr")
    assert movie.shape == MOVIE.shape
    np.testing.assert_array_equal(movie[1:3], MOVIE[1:3])
    np.testing.assert_array_equal(movie[4], MOVIE[4])
    zarr.create_array(tmp_path / "plain.zarr", data=MOVIE)
    np.testing.assert_array_equal(io.open_movie(tmp_path / "plain.zarr")[:], MOVIE)


def test_what_is_no_movie_is_refused_by_name(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        io.open_movie(tmp_path / "none.h5")
    (tmp_path / "x.avi").write_bytes(b"")
    with pytest.raises(FileError, match="suffix '.avi'"):
        io.open_movie(tmp_path / "x.avi")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"], file["b"] = MOVIE, MOVIE[:, :5]
    with pytest.raises(FileError, match=r"holds 'a' \(7, 12, 10\), 'b' \(7, 5, 10\); choose a dataset with dataset="):
        io.open_movie(tmp_path / "other.h5")
    with pytest.raises(FileError, match="suffix"):
        io.write_movie(tmp_path / "x.png", MOVIE)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(FileError, match="empty.zarr"):
        io.open_movie(tmp_path / "empty.zarr")


@pytest.mark.parametrize("suffix", [".h5", ".tif"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_broken_movies_are_refused(tmp_path, suffix, share):
    io.write_movie(tmp_path / f"movie{suffix}", MOVIE)
    data = (tmp_path / f"movie{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(share * len(data))])
    with pytest.raises(FileError, match="cut"):
        io.open_movie(tmp_path / f"cut{suffix}")[:]


def double(block):
    return {"0": 2.0 * block, "sum": block.sum((1, 2))}


def chunks(path, **settings):
    return Chunks(path, 7, 3, {"0": (12, 10), "sum": ()}, settings)


def test_a_stream_gives_what_one_call_gives(tmp_path):
    seen = []

    def watched(block):
        seen.append(block.shape)
        return double(block)

    result = chunks(tmp_path / "out.zarr")
    stream(MOVIE, result, watched)
    assert not (tmp_path / "out.zarr").exists()
    result.finish(ome_attributes("doubled", "tyx", (0.01, 1.0, 1.0)))
    assert seen == 3 * [(3, 12, 10)]
    np.testing.assert_array_equal(io.open_movie(tmp_path / "out.zarr")[:], 2.0 * MOVIE)
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "out.zarr")["sum"][:], MOVIE.sum((1, 2)))
    assert os.listdir(tmp_path) == ["out.zarr"]
    with pytest.raises(FileError, match="exists already"):
        chunks(tmp_path / "out.zarr")


def test_it_goes_on_with_what_is_missing_and_refuses_other_settings(tmp_path):
    first = chunks(tmp_path / "out.zarr", sparsity=1)
    first.write(1, double(MOVIE[3:6]))
    assert first.missing() == [0, 2]
    with pytest.raises(FileError, match="2 of 3 chunks are missing"):
        first.finish()
    with pytest.raises(FileError, match="sparsity = 1 there and 2 here"):
        chunks(tmp_path / "out.zarr", sparsity=2)
    again, count = chunks(tmp_path / "out.zarr", sparsity=1), []
    stream(MOVIE, again, lambda block: count.append(1) or double(block))
    assert len(count) == 2
    np.testing.assert_array_equal(zarr.open_group(again.finish())["0"][:], 2.0 * MOVIE)


def test_a_chunk_of_zeros_is_there(tmp_path):
    result = Chunks(tmp_path / "out.zarr", 4, 2, {"0": (3,)}, {})
    stream(np.zeros((4, 3)), result, lambda block: {"0": block})
    assert result.missing() == []


def test_what_is_not_finite_is_named(tmp_path):
    frames = MOVIE.astype(np.float32)
    frames[4, 2, 2] = np.nan
    with pytest.raises(FileError, match="frame 4 holds NaN or infinity; expected finite numbers"):
        stream(frames, chunks(tmp_path / "in.zarr"), double)
    with pytest.raises(FileError, match="the result of frame 2 holds NaN or infinity"):
        spoilt = chunks(tmp_path / "out.zarr")
        stream(MOVIE, spoilt, lambda block: {"0": np.where(block == MOVIE[2], np.nan, block), "sum": block[:, 0, 0]})


def test_axes_and_origin_are_in_the_file(tmp_path):
    result = Chunks(tmp_path / "out.zarr", 2, 2, {"0": (3, 4, 5)}, {}, axes={"0": "tzyx"})
    result.write(0, {"0": np.ones((2, 3, 4, 5))})
    result.finish(ome_attributes("v", "tzyx", (0.01, 2.0, 1.0, 1.0), origin=(0.0, -4.0, 0.0, 0.0)))
    group = zarr.open_group(tmp_path / "out.zarr")
    assert group["0"].metadata.dimension_names == ("t", "z", "y", "x")
    moves = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert moves[0] == {"type": "scale", "scale": [0.01, 2.0, 1.0, 1.0]}
    assert moves[1] == {"type": "translation", "translation": [0.0, -4.0, 0.0, 0.0]}


PROGRAM = """
import sys, time
import numpy as np
from lfjax.io.chunks import Chunks, stream
movie = np.arange(60 * 40 * 40, dtype=np.float32).reshape(60, 40, 40)
result = Chunks(sys.argv[1], 60, 4, {"0": (40, 40)}, {})
print("go", flush=True)
stream(movie, result, lambda block: time.sleep(0.02) or {"0": np.sqrt(block)})
result.finish()
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_end(tmp_path):
    wanted = np.sqrt(np.arange(60 * 40 * 40, dtype=np.float32)).reshape(60, 40, 40)
    draw = random.Random(0)
    for attempt in range(3):
        out = tmp_path / f"out{attempt}.zarr"
        for _ in range(2):
            process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(out)], stdout=subprocess.PIPE)
            process.stdout.readline()
            time.sleep(draw.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            process.wait()
            if out.exists():
                break
        if not out.exists():
            subprocess.run([sys.executable, "-c", PROGRAM, str(out)], check=True)
        np.testing.assert_array_equal(zarr.open_group(out)["0"][:], wanted)
