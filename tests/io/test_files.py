"""Frames and volumes through files: what is written comes back, what is broken is named."""

from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
import tifffile

from lfjax import io
from lfjax.errors import FileError, ParameterError

VOXEL_UM = (3.5, 0.62, 0.41)
NAMES = ["a.tif", "a.tiff", "a.ome.tif", "a.h5", "a.hdf5"]


@pytest.fixture
def volume():
    return np.random.default_rng(0).normal(size=(4, 30, 20)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(4, 30, 20), (1, 30, 20), (3, 5, 4), (4, 1, 6)])
def test_volume_round_trip(tmp_path, name, shape):
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    io.write_volume(tmp_path / "new" / name, volume, VOXEL_UM)
    array, voxel_um = io.read_volume(tmp_path / "new" / name)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, volume)
    np.testing.assert_allclose(voxel_um, VOXEL_UM, rtol=1e-5)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("shape", [(7, 9), (7, 3), (1, 9), (1, 1)])
def test_frame_round_trip_keeps_the_type(tmp_path, name, dtype, shape):
    frame = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    io.write_frame(tmp_path / name, frame)
    back = io.read_frame(tmp_path / name)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, frame)


def test_imagej_tiff_tells_its_scale_to_others(tmp_path, volume):
    io.write_volume(tmp_path / "a.tif", volume, VOXEL_UM)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.is_imagej and file.series[0].axes == "ZYX"
        assert file.imagej_metadata["unit"] == "micron"
        assert file.imagej_metadata["spacing"] == VOXEL_UM[0]
        (nx, mx), (ny, my) = (file.pages[0].tags[f"{axis}Resolution"].value for axis in "XY")
    np.testing.assert_allclose((my / ny, mx / nx), VOXEL_UM[1:], rtol=1e-5)


def test_ome_tiff_tells_its_scale_to_others(tmp_path, volume):
    io.write_volume(tmp_path / "a.ome.tif", volume, VOXEL_UM)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_ome
        pixels = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels")
        nx, mx = file.pages[0].tags["XResolution"].value
    for axis, size in zip("ZYX", VOXEL_UM, strict=True):
        assert float(pixels.get(f"PhysicalSize{axis}")) == size
        assert pixels.get(f"PhysicalSize{axis}Unit") == "µm"
        assert int(pixels.get(f"Size{axis}")) == volume.shape["ZYX".index(axis)]
    np.testing.assert_allclose(1e4 * mx / nx, VOXEL_UM[2], rtol=1e-5)


def test_hdf5_layout(tmp_path, volume):
    io.write_volume(tmp_path / "a.h5", volume, VOXEL_UM)
    with h5py.File(tmp_path / "a.h5") as file:
        assert tuple(file["volume"].attrs["voxel_um"]) == VOXEL_UM
        assert (file["volume"].attrs["axes"], file["volume"].attrs["unit"]) == ("zyx", "um")


@pytest.mark.parametrize("unit, um", [("nm", 1e-3), ("mm", 1e3), ("\\u00B5m", 1.0)])
def test_other_units_of_imagej(tmp_path, volume, unit, um):
    metadata = {"axes": "ZYX", "spacing": 3.0, "unit": unit}
    tifffile.imwrite(tmp_path / "a.tif", volume, imagej=True, resolution=(2.0, 4.0), metadata=metadata)
    np.testing.assert_allclose(io.read_volume(tmp_path / "a.tif").voxel_um, (3 * um, um / 4, um / 2))


def test_unknown_voxel_size_is_none(tmp_path, volume):
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.ome.tif", volume, photometric="minisblack", metadata={"axes": "ZYX"})
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["volume"] = volume
    for name in ("a.tif", "b.ome.tif", "c.h5"):
        array, voxel_um = io.read_volume(tmp_path / name)
        assert voxel_um is None
        np.testing.assert_array_equal(array, volume)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.h5"])
def test_no_truncated_file_is_read(tmp_path, volume, name):
    io.write_volume(tmp_path / name, volume, VOXEL_UM)
    whole = (tmp_path / name).read_bytes()
    for length in (0, 3, 8, *range(100, len(whole), 211), len(whole) - 32):  # the last bytes may be padding
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(FileError, match=name):
            io.read_volume(tmp_path / name)


def test_truncated_multi_page_tiff(tmp_path, volume):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in volume:
            file.write(plane, contiguous=False, photometric="minisblack")
    with pytest.raises(FileError, match="different kinds|truncated"):
        whole = (tmp_path / "a.tif").read_bytes()
        (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
        io.read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".h5"])
@pytest.mark.parametrize("read", [io.read_frame, io.read_volume])
def test_missing_and_garbage(tmp_path, suffix, read):
    with pytest.raises(FileError, match=f"none{suffix}: no such file"):
        read(tmp_path / f"none{suffix}")
    (tmp_path / f"noise{suffix}").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(FileError, match=f"noise{suffix}: cannot be read"):
        read(tmp_path / f"noise{suffix}")


@pytest.mark.parametrize(
    "array, message",
    [
        (np.full((3, 4), np.nan, np.float32), "12 of 12 values are NaN"),
        (np.array([[1.0, np.inf]]), "1 of 2 values"),
        (np.zeros((3, 4), np.complex64), "complex64"),
        (np.zeros((3, 4), bool), "bool"),
    ],
)
def test_files_of_others_that_are_no_frame(tmp_path, array, message):
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frame"] = array
    for name in ("a.tif", "a.h5"):
        with pytest.raises(FileError, match=f"{name}: .*{message}.*expected"):
            io.read_frame(tmp_path / name)


def test_colour_time_and_mixed_tiffs_are_refused(tmp_path, volume):
    tifffile.imwrite(tmp_path / "rgb.tif", np.arange(90, dtype=np.uint8).reshape(5, 6, 3), photometric="rgb")
    for read in (io.read_frame, io.read_volume):
        with pytest.raises(FileError, match="rgb.tif: colour"):
            read(tmp_path / "rgb.tif")
    tifffile.imwrite(tmp_path / "time.tif", volume, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(FileError, match="time.tif: axes TYX"):
        io.read_volume(tmp_path / "time.tif")
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(np.zeros((5, 6), np.uint8), photometric="minisblack")
        file.write(np.zeros((7, 8), np.uint8), photometric="minisblack")
    with pytest.raises(FileError, match="mixed.tif: 2 images"):
        io.read_frame(tmp_path / "mixed.tif")


def test_hdf5_without_the_dataset_or_with_other_axes(tmp_path, volume):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["other"] = volume
        file["frame"] = "text"
    with pytest.raises(FileError, match=r"holds 'other' \(4, 30, 20\); expected a dataset 'volume'"):
        io.read_volume(tmp_path / "a.h5")
    with pytest.raises(FileError, match="expected integers or floats"):
        io.read_frame(tmp_path / "a.h5")
    io.write_volume(tmp_path / "b.h5", volume, VOXEL_UM)
    for attribute, value in (("axes", "xyz"), ("unit", "nm"), ("voxel_um", (1.0, -1.0, 1.0))):
        io.write_volume(tmp_path / "b.h5", volume, VOXEL_UM)
        with h5py.File(tmp_path / "b.h5", "a") as file:
            file["volume"].attrs[attribute] = value
        with pytest.raises(FileError, match=f"attribute {attribute}"):
            io.read_volume(tmp_path / "b.h5")


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.h5"])
def test_bad_arrays_are_not_written(tmp_path, name, unchecked):
    for bad in (np.zeros((3, 4)), np.zeros((0, 3, 4)), np.full((1, 2, 2), np.nan), np.full((1, 2, 2), 1e300)):
        with pytest.raises(FileError, match=name):
            io.write_volume(tmp_path / name, bad, VOXEL_UM)
    with pytest.raises(FileError, match="bool"):
        io.write_frame(tmp_path / name, np.zeros((2, 2), bool))
    for voxel_um in ((1.0, 1.0), (1.0, 0.0, 1.0), (1.0, np.nan, 1.0)):
        with pytest.raises(ParameterError, match="voxel_um"):
            io.write_volume(tmp_path / name, np.zeros((1, 2, 2)), voxel_um)
    assert not list(tmp_path.iterdir())


def test_volume_too_big_for_imagej_is_refused(tmp_path):
    huge = np.broadcast_to(np.float32(0), (2**10, 2**10, 2**10))
    with pytest.raises(FileError, match="ome.tif"):
        io.write_volume(tmp_path / "a.tif", huge, VOXEL_UM)


def test_unknown_suffix_lists_the_known(tmp_path):
    for call in (io.read_frame, io.read_volume, lambda p: io.write_frame(p, np.zeros((2, 2)))):
        with pytest.raises(FileError, match=r"'.jpg'.*\.tif.*\.hdf5"):
            call(tmp_path / "a.jpg")
