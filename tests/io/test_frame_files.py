"""One camera frame from files as cameras and programs write them: more light is more, and colours are refused."""

import struct
import zlib

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile

from lfjax import io
from lfjax.errors import FileError

FRAME = np.random.default_rng(0).integers(0, 4000, (20, 31)).astype(np.uint16)
SMALL = (FRAME >> 4).astype(np.uint8)
STACK = np.stack([FRAME, FRAME + 1, FRAME + 2])


def write_png(path, array):
    path.write_bytes(imagecodecs.png_encode(array))


def write_h5(path, array, name="frame"):
    with h5py.File(path, "w") as file:
        file[name] = array


@pytest.mark.parametrize("frame", [FRAME, SMALL])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_min_is_white_is_turned_round(tmp_path, frame, compression, photometric):
    top = np.iinfo(frame.dtype).max
    stored = top - frame if photometric == "miniswhite" else frame
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, compression=compression)
    back = io.read_frame(tmp_path / "a.tif")
    assert back.dtype == frame.dtype
    np.testing.assert_array_equal(back, frame)


def test_min_is_white_of_twelve_bits(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", 4095 - FRAME, photometric="miniswhite", bitspersample=12)
    np.testing.assert_array_equal(io.read_frame(tmp_path / "a.tif"), FRAME)
    tifffile.imwrite(tmp_path / "b.tif", -FRAME.astype(np.float32), photometric="miniswhite")
    with pytest.raises(FileError, match="MINISWHITE with values of type float32"):
        io.read_frame(tmp_path / "b.tif")


@pytest.mark.parametrize("frame", [FRAME, SMALL])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_written_as_colours_is_grey(tmp_path, frame, samples, suffix):
    pixels = frame if samples == 1 else np.repeat(frame[..., None], samples, axis=-1)
    if samples in (2, 4):
        pixels[..., -1] = np.iinfo(frame.dtype).max  # opaque
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        write_png(path, pixels)
    else:
        photometric = "rgb" if samples > 2 else "minisblack"
        tifffile.imwrite(path, pixels, photometric=photometric, planarconfig="contig" if samples > 1 else None)
    back = io.read_frame(path)
    assert back.dtype == frame.dtype
    np.testing.assert_array_equal(back, frame)
    if samples > 1:
        pixels[3, 4, 0] += 1
        if suffix == ".png":
            write_png(path, pixels)
        else:
            tifffile.imwrite(path, pixels, photometric=photometric, planarconfig="contig")
        if samples > 2:
            with pytest.raises(FileError, match=f"a{suffix}: colour image, {samples} samples per pixel that differ"):
                io.read_frame(path)


def test_palettes_are_colours_except_those_of_imagej(tmp_path):
    table = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", SMALL, photometric="palette", colormap=table)
    with pytest.raises(FileError, match="a palette of colours"):
        io.read_frame(tmp_path / "a.tif")
    tifffile.imwrite(
        tmp_path / "b.tif", SMALL, photometric="palette", colormap=table, description="ImageJ=1.53t\n", metadata=None
    )
    np.testing.assert_array_equal(io.read_frame(tmp_path / "b.tif"), SMALL)


STACKS = {
    "a.tif": lambda path: tifffile.imwrite(path, STACK, photometric="minisblack", compression="zlib"),
    "imagej.tif": lambda path: tifffile.imwrite(path, STACK, imagej=True),
    "a.h5": lambda path: write_h5(path, STACK, "frames"),
    "a.npy": lambda path: np.save(path, STACK),
}


@pytest.mark.parametrize("name", STACKS)
def test_a_page_of_a_stack(tmp_path, name):
    STACKS[name](tmp_path / name)
    np.testing.assert_array_equal(io.read_frame(tmp_path / name, page=1), STACK[1])
    with pytest.raises(FileError, match=rf"{name}: a stack of 3 pages; choose one with page= \(--page\), 0 to 2"):
        io.read_frame(tmp_path / name)
    for page in (3, -1):
        with pytest.raises(FileError, match=f"page={page}; expected 0 to 2"):
            io.read_frame(tmp_path / name, page=page)


def test_datasets_of_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["white"], file["dark"], file["group/movie"] = FRAME, FRAME + 1, STACK
    np.testing.assert_array_equal(io.read_frame(tmp_path / "a.h5", dataset="dark"), FRAME + 1)
    np.testing.assert_array_equal(io.read_frame(tmp_path / "a.h5", dataset="group/movie", page=2), STACK[2])
    with pytest.raises(FileError, match=r"holds 'dark' \(20, 31\), 'group/movie' \(3, 20, 31\), 'white' .*dataset="):
        io.read_frame(tmp_path / "a.h5")
    write_h5(tmp_path / "b.h5", FRAME, "camera")  # the only one
    np.testing.assert_array_equal(io.read_frame(tmp_path / "b.h5"), FRAME)
    with h5py.File(tmp_path / "c.h5", "w") as file:  # as MATLAB stores (y, x)
        file.create_dataset("frame", data=FRAME.T).attrs["MATLAB_class"] = "uint16"
    np.testing.assert_array_equal(io.read_frame(tmp_path / "c.h5"), FRAME)
    tifffile.imwrite(tmp_path / "a.tif", FRAME, photometric="minisblack")
    with pytest.raises(FileError, match="only HDF5 files have datasets"):
        io.read_frame(tmp_path / "a.tif", dataset="white")


def test_npy_is_read_without_pickles_and_in_native_order(tmp_path):
    np.save(tmp_path / "a.npy", FRAME.astype(">u2"))
    back = io.read_frame(tmp_path / "a.npy")
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, FRAME)
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "c.npy", FRAME.astype(np.complex64))
    np.save(tmp_path / "d.npy", np.zeros((2, 3, 4, 5)))
    for name, message in (("b", "cannot be read"), ("c", "complex64"), ("d", r"shape \(2, 3, 4, 5\)")):
        for read in (io.read_frame, io.open_movie):
            with pytest.raises(FileError, match=f"{name}.npy: .*{message}"):
                read(tmp_path / f"{name}.npy")


def test_broken_png_and_npy_are_refused(tmp_path):
    write_png(tmp_path / "a.png", FRAME)
    np.save(tmp_path / "a.npy", FRAME)
    for name in ("a.png", "a.npy"):
        whole = (tmp_path / name).read_bytes()
        for length in (0, 5, 40, len(whole) // 2, len(whole) - 20):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(FileError, match=name):
                io.read_frame(tmp_path / name)
    header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + b"\x10\0\0\0\0"
    data = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data + bytes(50))
    with pytest.raises(FileError, match="cannot hold 60000 x 60000 pixels"):
        io.read_frame(tmp_path / "bomb.png")


def test_real_white_frames_are_read(shared):
    for path in sorted((shared / "data/cases/lightfield").glob("*.tif")):
        np.testing.assert_array_equal(io.read_frame(path), tifffile.imread(path))


@pytest.mark.parametrize("pages", [1, 2, 150])
def test_a_list_of_pages_that_leads_back_into_itself_is_refused(tmp_path, pages):
    path = tmp_path / "f.tif"
    with tifffile.TiffWriter(path) as file:
        for number in range(pages):
            file.write(np.full((4, 5), number, np.uint16), contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages[pages - 1].offset
    data = bytearray(path.read_bytes())
    (tags,) = struct.unpack_from("<H", data, last)
    struct.pack_into("<I", data, last + 2 + 12 * tags, first)
    path.write_bytes(data)
    with pytest.raises(FileError, match=rf"f\.tif: the list of pages is a circle at byte {first}; expected one that ends"):
        io.read_frame(path)
