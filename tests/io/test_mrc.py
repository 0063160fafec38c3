import bz2
import gzip
import warnings

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

from lfjax.errors import DataWarning, FileError
from lfjax.io import Stack, read_map, write_map, write_stack


@pytest.fixture(autouse=True)
def loud():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def write(path, values, mode, *, order="<", flags=None, extended=b"", group=0, sections=None, tail=b""):
    """An MRC file, byte by byte."""
    header = np.zeros(1, HEADER_DTYPE.newbyteorder(order))
    depth, rows, columns = values.shape
    for name, value in {"nx": columns, "ny": rows, "nz": depth, "mode": mode, "ispg": group, "nsymbt": len(extended)}.items():
        header[name] = value
    for axis, (name, count) in enumerate(zip(("mx", "my", "mz"), (columns, rows, sections or depth), strict=True)):
        header[name] = count
        header["cella"]["xyz"[axis]] = 2.5 * count
        header[f"map{'crs'[axis]}"] = axis + 1
    header["map"] = b"MAP "
    header["machst"] = [0x44, 0x44, 0, 0] if order == "<" else [0x11, 0x11, 0, 0]
    raw = bytearray(header.tobytes())
    if flags is not None:
        raw[152:160] = np.array([1146047817, flags], f"{order}i4").tobytes()
    path.write_bytes(bytes(raw) + extended + values.tobytes() + tail)
    return path


def numbers(kind, shape=(3, 4, 5)):
    return np.random.default_rng(0).integers(0, 100, shape).astype(kind)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("mode", "kind"), [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
def test_every_mode_and_byte_order_is_read(tmp_path, mode, kind, order):
    values = numbers(f"{order}{kind}")
    path = write(tmp_path / "a.mrc", values, mode, order=order, extended=b"x" * 128)
    stack = Stack(path)
    assert stack.pixel_angstrom == 2.5
    assert stack[:].dtype == np.float32
    np.testing.assert_array_equal(stack[[2, 0]], values[[2, 0]])
    found = read_map(path)
    assert found.array.dtype.isnative
    np.testing.assert_array_equal(found.array, values)
    assert found.voxel_angstrom == (2.5, 2.5, 2.5)
    np.testing.assert_array_equal(mrcfile.read(path), values)


def test_bytes_are_unsigned_where_imod_says_so(tmp_path):
    values = np.array([[[0, 127, 128, 255]]], np.uint8)
    for flags, wanted in ((0, values), (2, values), (1, values.view(np.int8)), (None, values.view(np.int8))):
        found = Stack(write(tmp_path / f"{flags}.mrcs", values, 0, flags=flags))[:]
        np.testing.assert_array_equal(found, wanted.astype(np.float32))


def changed(path, **fields):
    """The file with other values in its header."""
    raw = bytearray(path.read_bytes())
    for name, value in fields.items():
        kind, at = HEADER_DTYPE.fields[name][:2]
        raw[at : at + 4] = np.array([value], kind).tobytes()
    path.write_bytes(raw)
    return path


def test_bytes_are_unsigned_where_the_range_of_the_header_says_so(tmp_path):
    """IMOD's flags, where they are there, decide."""
    values = np.array([[[0, 127, 128, 255]]], np.uint8)
    path = changed(write(tmp_path / "a.mrcs", values, 0), dmin=0, dmax=255)
    with pytest.warns(DataWarning, match=r"a.mrcs: mode 0, .*from 0 to 255 .*unsigned"):
        np.testing.assert_array_equal(Stack(path)[:], values)
    for flags, low, high in ((1, 0, 255), (None, -128, 127), (None, 0, 100), (None, 0, -1)):
        path = changed(write(tmp_path / "b.mrcs", values, 0, flags=flags), dmin=low, dmax=high)
        np.testing.assert_array_equal(Stack(path)[:], values.view(np.int8))


@pytest.mark.parametrize("axes", [(2, 1, 3), (3, 2, 1), (1, 3, 2)])
def test_stacks_with_other_axes_are_refused(tmp_path, axes):
    path = changed(write(tmp_path / "a.mrcs", numbers("f4"), 2), **dict(zip(("mapc", "mapr", "maps"), axes, strict=True)))
    with pytest.raises(FileError, match=r"a.mrcs: axes \[\d, \d, \d\] in MAPC, MAPR, MAPS; expected images"):
        Stack(path)
    unset = changed(write(tmp_path / "b.mrcs", numbers("f4"), 2), mapc=0, mapr=0, maps=0)
    assert Stack(unset).shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"data_\n\nloop_\n_rlnImageName #1\n" * 60, "a.mrc: a text file; expected an MRC file"),
        (b"hello", "a.mrc: a text file"),
        (gzip.compress(b"data_\n" * 400, mtime=0), "a.mrc, decompressed: a text file"),
        (b"\xfd7zXZ\0" + bytes(3000), "a.mrc: compressed by xz; expected an MRC file, plain or compressed by gzip or bzip2"),
        (b"\x28\xb5\x2f\xfd" + bytes(3000), "a.mrc: compressed by zstd"),
        (b"II*\0" + bytes(3000), "a.mrc: a TIFF file"),
    ],
)
def test_files_of_other_formats_are_named(tmp_path, content, words):
    (tmp_path / "a.mrc").write_bytes(content)
    for read in (Stack, read_map):
        with pytest.raises(FileError, match=words):
            read(tmp_path / "a.mrc")


@pytest.mark.parametrize(
    ("mode", "flags", "words"), [(101, None, "4-bit"), (0, 16, "4-bit"), (4, None, "complex"), (3, 0, "complex")]
)
def test_other_modes_are_refused_by_name(tmp_path, mode, flags, words):
    path = write(tmp_path / "a.mrcs", numbers("u1", (3, 4, 80)), mode, flags=flags)
    for read in (Stack, read_map):
        with pytest.raises(FileError, match=f"a.mrcs: mode {mode}, .*{words}.*expected mode 0, 1, 2, 6, 12"):
            read(path)


def test_an_unknown_mode_is_no_mrc_file(tmp_path):
    with pytest.raises(FileError, match="mode 7 in the header"):
        Stack(write(tmp_path / "a.mrcs", numbers("f4"), 7))


@pytest.mark.parametrize("packed", [None, gzip.compress, bz2.compress])
def test_trailing_bytes_are_counted_and_left(tmp_path, packed):
    values = numbers("f4")
    path = write(tmp_path / "a.mrcs", values, 2, tail=b"\0" * 37)
    if packed:
        path.write_bytes(packed(path.read_bytes()))
    for read in (lambda p: Stack(p)[:], lambda p: read_map(p).array):
        with pytest.warns(DataWarning, match=r"a.mrcs: 37 bytes beyond"):
            np.testing.assert_array_equal(read(path), values)


@pytest.mark.parametrize("packed", [None, gzip.compress, bz2.compress])
def test_a_file_shorter_than_its_header_says_is_refused(tmp_path, packed):
    path = write(tmp_path / "a.mrcs", numbers("f4"), 2)
    cut = path.read_bytes()[:-1]
    path.write_bytes(packed(cut) if packed else cut)
    for read in (Stack, read_map):
        with pytest.raises(FileError, match=r"a.mrcs: 239 bytes of values; expected 240 for 5 x 4 x 3 of float32") as told:
            read(path)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(("suffix", "packed"), [("gz", gzip.compress), ("bz2", bz2.compress)])
def test_compressed_stacks_and_maps_are_read(tmp_path, suffix, packed):
    images = np.random.default_rng(1).normal(size=(6, 8, 8)).astype(np.float32)
    write_stack(tmp_path / "a.mrcs", images, 1.5)
    path = tmp_path / f"a.mrcs.{suffix}"
    path.write_bytes(packed((tmp_path / "a.mrcs").read_bytes()))
    stack = Stack(path)
    assert (stack.shape, stack.pixel_angstrom) == ((6, 8, 8), 1.5)
    np.testing.assert_array_equal(stack[[5, 1]], images[[5, 1]])
    np.testing.assert_array_equal(read_map(path, voxel_angstrom=1.5).array, images)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FileError, match=r"a.mrcs.\w+: ") as told:
        Stack(path)
    assert "\n" not in str(told.value)


def test_plain_stacks_stay_on_disk(tmp_path):
    write_stack(tmp_path / "a.mrcs", np.zeros((4, 8, 8)), 1.0)
    stack = Stack(tmp_path / "a.mrcs")
    with (tmp_path / "a.mrcs").open("r+b") as file:
        file.seek(1024 + 4 * 64 * 3)
        file.write(np.full(64, 5, np.float32).tobytes())
    assert stack[3].min() == 5


def test_volume_stacks_are_named(tmp_path):
    path = write(tmp_path / "v.mrcs", numbers("f4", (6, 4, 5)), 2, group=401, sections=3)
    with pytest.raises(FileError, match="v.mrcs: 2 volumes of 3 sections; expected images"):
        Stack(path)
    with pytest.raises(FileError, match="v.mrcs: a stack of 2 volumes; expected one volume"):
        read_map(path)
    with pytest.raises(FileError, match="6 sections in volumes of 4"):
        Stack(write(tmp_path / "w.mrcs", numbers("f4", (6, 4, 5)), 2, group=401, sections=4))
    one = write(tmp_path / "one.mrc", numbers("f4"), 2, group=401, sections=3)
    np.testing.assert_array_equal(read_map(one).array, numbers("f4"))


def test_a_single_image_is_a_stack_of_one_and_no_map(tmp_path):
    path = write(tmp_path / "a.mrc", numbers("f4", (1, 4, 5)), 2)
    assert Stack(path).shape == (1, 4, 5)
    with pytest.raises(FileError, match="one image; expected one volume"):
        read_map(path)


def test_pixels_that_are_nan_are_named_by_image(tmp_path):
    values = numbers("f4", (5, 4, 4))
    values[3, 1, 2], values[4, 0, 0] = np.nan, np.inf
    stack = Stack(write(tmp_path / "a.mrcs", values, 2))
    np.testing.assert_array_equal(stack[:3], values[:3])
    for index, number in (([0, 3, 4], 4), (4, 5), (slice(2, 4), 4), (np.arange(5) == 4, 5)):
        with pytest.raises(FileError, match=rf"{number}@.*a.mrcs: NaN or infinite pixels in image {number};"):
            stack[index]


@pytest.mark.parametrize(("field", "value", "words"), [("nx", 0, "0 x 4 x 3"), ("nsymbt", 10**6, "extended header of 1000000")])
def test_headers_out_of_range_are_refused(tmp_path, field, value, words):
    path = write(tmp_path / "a.mrcs", numbers("f4"), 2)
    raw = bytearray(path.read_bytes())
    at = HEADER_DTYPE.fields[field][1]
    raw[at : at + 4] = np.array([value], "<i4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(FileError, match=words):
        Stack(path)


def test_a_wrong_machine_stamp_is_seen_through(tmp_path):
    values = numbers(">i2")
    path = write(tmp_path / "a.mrcs", values, 1, order=">")
    raw = bytearray(path.read_bytes())
    raw[212:216] = bytes([0x44, 0x44, 0, 0])
    path.write_bytes(raw)
    np.testing.assert_array_equal(Stack(path)[:], values)


def test_maps_written_here_have_no_warning(tmp_path):
    write_map(tmp_path / "a.mrc", np.ones((4, 4, 4)), 2.0, origin_angstrom=(1.0, 2.0, 3.0))
    found = read_map(tmp_path / "a.mrc")
    assert found.origin_angstrom == (1.0, 2.0, 3.0)
