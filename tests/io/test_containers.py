"""The same frames from every container, bit for bit; what cannot be read as a movie without a choice asks for it."""

import json

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from benchmarks.containers import CONTAINERS, MOVIE, OTHER, TWO, hdf5, ome_zarr, pages, several_ome, singles, tiff, zarr_array
from lfjax import io
from lfjax.errors import FileError, ParameterError
from lfjax.io.chunks import ome_attributes


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_frames(tmp_path, name):
    write, choice, frame_s = CONTAINERS[name]
    path = write(tmp_path)
    with io.open_movie(path, **choice) as movie:
        assert isinstance(movie, io.Movie) and movie.shape == MOVIE.shape and len(movie) == 7
        assert movie.dtype == np.uint16 and movie.dtype.isnative and not movie.missing and not movie.dropped
        assert movie.frame_s == (None if frame_s is None else pytest.approx(frame_s)) and movie.times_s is None
        assert all(file.exists() for file in movie.files)
        for which in (slice(None), slice(2, 5), slice(1, None, 3), slice(None, None, -2), slice(-3, 100), slice(5, 2), 4, -1):
            block = movie[which]
            assert block.dtype == np.uint16 and block.dtype.isnative
            np.testing.assert_array_equal(block, MOVIE[which])
        np.testing.assert_array_equal(movie[[5, 0, 5]], MOVIE[[5, 0, 5]])
        np.testing.assert_array_equal(np.asarray(movie, np.float32), MOVIE)
        np.testing.assert_array_equal(list(movie), MOVIE)  # ends with an IndexError of frame 7
        for wrong in (7, -8):
            with pytest.raises(IndexError, match="of a movie of 7 frames"):
                movie[wrong]


@pytest.mark.parametrize("name", ["contiguous", "deflate", "ImageJ", "HDF5", "Zarr 3"])
def test_one_frame_is_a_movie_of_one(tmp_path, name):
    frame = MOVIE[0]
    path = {
        "contiguous": tiff(array=frame),
        "deflate": tiff(array=frame, compression="zlib"),
        "ImageJ": tiff(array=frame, imagej=True),
        "HDF5": hdf5("frame", array=frame),
        "Zarr 3": lambda folder: zarr.create_array(folder / "a.zarr", data=frame) and folder / "a.zarr",
    }[name](tmp_path)
    movie = io.open_movie(path)
    assert movie.shape == (1, 48, 32)
    np.testing.assert_array_equal(movie[:], MOVIE[:1])


def test_only_what_is_asked_is_decoded(tmp_path, monkeypatch):
    movie, decoded = io.open_movie(tiff(compression="zlib")(tmp_path)), []
    usual = tifffile.TiffFile.asarray
    monkeypatch.setattr(tifffile.TiffFile, "asarray", lambda self, key, **k: decoded.extend(key) or usual(self, key=key, **k))
    movie[1:6:2]
    assert decoded == [1, 3, 5]


@pytest.mark.parametrize(
    ("write", "choice", "message"),
    [
        (tiff(array=TWO, imagej=True, metadata={"axes": "TCYX"}), {}, r"2 channels, axes t \(7\).*channel= \(--channel\)"),
        (tiff(array=TWO, imagej=True, metadata={"axes": "TCYX"}), {"channel": 2}, "channel=2; expected 0 to 1"),
        (tiff(), {"channel": 1}, "channel=1, but there is one channel"),
        (tiff(imagej=True, metadata={"axes": "ZYX"}), {}, "7 planes along z.*a volume.*axes='tyx'"),
        (tiff("a.ome.tif", TWO, metadata={"axes": "TZYX"}), {}, "2 planes along z.*a volume"),
        (tiff(array=TWO), {}, "name them with axes="),
        (tiff(), {"dataset": "x"}, "dataset='x': this format has no dataset"),
        (hdf5(), {"series": 0}, "series=0: this format has no series"),
        (hdf5(), {"dataset": "none"}, r"holds 'frames' \(7, 48, 32\); expected a dataset 'none'"),
        (hdf5(array=TWO), {}, "name its axes with axes="),
        (hdf5("volume", attributes={"axes": "zyx"}), {}, "7 planes along z"),
        (hdf5(attributes={"MATLAB_class": "uint16"}), {}, "written by MATLAB, which reverses axes.*'txy'"),
        (hdf5(attributes={"frame_s": -1.0}), {}, "attribute frame_s is .*expected a positive number"),
        (hdf5(array=MOVIE.astype(np.complex64)), {"dataset": "frames"}, "complex64; expected integers or floats"),
        (tiff(array=np.stack([MOVIE, OTHER, MOVIE], -1), photometric="rgb"), {}, "colour image, 3 samples"),
    ],
)  # fmt: skip
def test_what_needs_a_choice_says_so(tmp_path, write, choice, message):
    path = write(tmp_path)
    with pytest.raises(FileError, match=message) as caught:
        io.open_movie(path, **choice)[:]
    assert str(path.name) in str(caught.value)


def test_wrong_axes_are_refused(tmp_path):
    for axes in ("tzyx", "tty", "abc", "tzc", "txx"):
        with pytest.raises(ParameterError, match="axes = .*3 different letters"):
            io.open_movie(hdf5()(tmp_path), axes=axes)


def test_several_series_ask_which(tmp_path):
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as file:
        file.write(MOVIE, photometric="minisblack", metadata={"axes": "TYX", "TimeIncrement": 1.0})
        file.write(OTHER[:3], photometric="minisblack", metadata={"axes": "TYX", "TimeIncrement": 0.5})
    with pytest.raises(
        FileError, match=r"2 images.*0: TYX \(7, 48, 32\) uint16; 1: TYX \(3, 48, 32\) uint16.*series= \(--series\)"
    ):
        io.open_movie(tmp_path / "two.ome.tif")
    second = io.open_movie(tmp_path / "two.ome.tif", series=1)
    np.testing.assert_array_equal(second[:], OTHER[:3])
    assert second.frame_s == 0.5
    with pytest.raises(FileError, match="series=2; expected 0 to 1"):
        io.open_movie(tmp_path / "two.ome.tif", series=2)
    images = zarr.create_group(tmp_path / "two.zarr")
    for name, array in (("0", MOVIE), ("1", OTHER)):
        images.create_group(name, attributes=ome_attributes(name, "tyx", (1.0, 1.0, 1.0))).create_array("0", data=array)
    with pytest.raises(FileError, match=r"2 images \(0: \(7, 48, 32\); 1: \(7, 48, 32\)\).*series="):
        io.open_movie(tmp_path / "two.zarr")
    np.testing.assert_array_equal(io.open_movie(tmp_path / "two.zarr", series=1)[:], OTHER)


def test_the_cases_of_users_are_read(shared):
    folder = shared / "data/cases/movies"
    for name, compressed in (("deflate", True), ("lzw", True), ("pages", False)):
        movie = io.open_movie(folder / f"{name}.tif")
        np.testing.assert_array_equal(movie[:], tifffile.imread(folder / f"{name}.tif"))
        assert (len(movie) in (2, 4, 12)) and bool(movie[0].any()) and (compressed or len(movie) == 2)
    np.testing.assert_array_equal(io.open_movie(folder / "deflate.tif")[:], io.open_movie(folder / "raw8.h5")[:4])
    with pytest.raises(FileError, match=r"twoseries2.tif: 2 images.*0: .*uint16; 1: .*float32.*series="):
        io.open_movie(folder / "twoseries2.tif")
    assert [len(io.open_movie(folder / "twoseries2.tif", series=k)) for k in (0, 1)] == [5, 7]
    for name in ("bomb_nostrips.tif", "frame_big.tif.hang.169.tif"):
        with pytest.raises(FileError, match="truncated"):
            io.open_movie(shared / "data/cases/broken" / name)


def test_times_give_the_rate_and_the_frames_that_were_dropped(tmp_path):
    times = 5.0 + 0.01 * np.array([0, 1, 2, 4, 5, 8, 9])
    plane = {"DeltaT": (1e3 * times).tolist(), "DeltaTUnit": 7 * ["ms"]}
    tifffile.imwrite(
        tmp_path / "a.ome.tif", MOVIE, photometric="minisblack", metadata={"axes": "TYX", "TimeIncrement": 0.05, "Plane": plane}
    )
    movie = io.open_movie(tmp_path / "a.ome.tif")
    np.testing.assert_allclose(movie.times_s, times)
    assert movie.frame_s == pytest.approx(0.01) and movie.dropped == {3: 1, 5: 2}  # the camera did not keep its 0.05 s


def test_late_times_are_no_dropped_frames():
    from lfjax.io.movie_source import dropped_frames

    rng = np.random.default_rng(0)
    times = 0.01 * np.arange(500) + rng.uniform(0, 0.003, 500)
    times[[100, 200]] += 0.006  # late, while the next frames are on time
    assert dropped_frames(times) == {}
    assert dropped_frames(np.delete(times, [300, 301, 400])) == {300: 2, 398: 1}


def test_missing_files_of_a_sequence_are_dropped_frames(tmp_path):
    folder = singles(tmp_path)
    (folder / "frame7.tif").unlink()
    movie = io.open_movie(folder)
    assert len(movie) == 6 and movie.dropped == {2: 1}
    for k in (8, 9, 10, 11):
        (folder / f"frame{k}.tif").rename(folder / f"every{10 * k}.tif")
    assert not io.open_movie(f"{folder}/every*.tif").dropped  # 80, 90, 100, 110


def test_files_of_one_movie_have_one_shape_and_type(tmp_path):
    folder = singles(tmp_path)
    tifffile.imwrite(folder / "frame8.tif", MOVIE[0, :40], photometric="minisblack")
    with pytest.raises(FileError, match=r"frame8.tif: frames \(40, 32\) .*expected \(48, 32\) uint16, as in .*frame5.tif"):
        io.open_movie(folder)
    tifffile.imwrite(folder / "frame8.tif", MOVIE[0].astype(np.float32), photometric="minisblack")
    with pytest.raises(FileError, match="frame8.tif.*float32"):
        io.open_movie(folder)
    np.save(folder / "other.npy", MOVIE)
    with pytest.raises(FileError, match="several kinds, .npy, .tif; say which"):
        io.open_movie(folder)
    with pytest.raises(FileError, match="given twice"):
        io.open_movie([folder / "frame5.tif", folder / "frame5.tif"])
    with pytest.raises(FileError, match="no file matches this pattern"):
        io.open_movie(folder / "nothing*.tif")
    with pytest.raises(FileError, match="a folder without movies or frames"):
        (tmp_path / "empty").mkdir()
        io.open_movie(tmp_path / "empty")


def test_ome_tiff_of_several_files_counts_once_and_needs_all(tmp_path):
    first = several_ome(tmp_path)
    movie = io.open_movie(tmp_path)  # each of the three files leads to all frames
    assert movie.shape == MOVIE.shape and len(movie.files) == 3
    np.testing.assert_array_equal(movie[:], MOVIE)
    (tmp_path / "part1.ome.tif").unlink()
    with pytest.raises(FileError, match="planes are in 'part1.ome.tif', which is missing"):
        io.open_movie(first)
    text = first.read_bytes().replace(b"part1.ome.tif", b"../rt1.ome.tif"[:13])
    first.write_bytes(text)
    with pytest.raises(FileError, match="in another folder"):
        io.open_movie(first)


def test_planes_that_a_stopped_recording_lacks_are_missing_frames(tmp_path):
    path = tmp_path / "a.ome.tif"
    pages(tmp_path, name="a.ome.tif", ome=True, each=lambda k: {"metadata": {"axes": "YX"}})
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata
    image = '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="32" SizeY="48" SizeZ="1" '
    image += 'SizeC="1" SizeT="10"><TiffData IFD="0" PlaneCount="7"/></Pixels></Image></OME>'
    whole = xml[: xml.index("<Image")] + image
    with tifffile.TiffWriter(path, ome=False) as file:
        for k, frame in enumerate(MOVIE):
            about = whole if k == 0 else None
            file.write(frame, photometric="minisblack", metadata=None, description=about, contiguous=False)
    movie = io.open_movie(path)
    assert len(movie) == 10 and list(movie.missing) == [7, 8, 9]
    np.testing.assert_array_equal(movie[:7], MOVIE)
    with pytest.raises(FileError, match="page 8 is missing"):
        io.read_frame(path, page=8)


def test_micro_manager_tells_the_rate_by_its_elapsed_times(tmp_path):
    def tags(k):
        about = json.dumps({"FrameIndex": k, "ElapsedTime-ms": 130.0 + 12.5 * k + (k == 3) * 4, "Exposure-ms": 10.0})
        return {"metadata": None, "extratags": [(51123, 2, None, about, True)]}

    path = pages(tmp_path, each=tags)
    movie = io.open_movie(path)
    assert movie.frame_s == pytest.approx(0.0125)
    np.testing.assert_array_equal(movie[:], MOVIE)


def test_without_a_unit_the_scale_of_ome_zarr_is_no_rate_and_its_ome_xml_counts(tmp_path):
    path = ome_zarr("0.5", layout=True)(tmp_path)
    image = zarr.open_group(path / "0")
    about = image.attrs["ome"]
    del about["multiscales"][0]["axes"][0]["unit"]
    image.attrs["ome"] = about
    assert io.open_movie(path).frame_s is None
    zarr.open_group(path).create_group("OME")
    pixels = '<Pixels TimeIncrement="4" TimeIncrementUnit="ms"/>'
    (path / "OME/METADATA.ome.xml").write_text(f'<OME xmlns="x"><Image>{pixels}</Image></OME>')
    assert io.open_movie(path).frame_s == pytest.approx(0.004)


@pytest.mark.parametrize("version", [2, 3])
def test_missing_chunks_of_zarr_are_found(tmp_path, version):
    path = zarr_array(version, chunks=(2, 24, 32))(tmp_path)
    assert not io.open_movie(path).missing
    (path / ("1.0.0" if version == 2 else "c/1/0/0")).unlink()
    assert io.open_movie(path).missing == {2: "1 of 2 chunks are missing", 3: "1 of 2 chunks are missing"}
    for k in (0, 2, 3):  # a border that no frame has is empty by design
        (path / (f"{k}.0.0" if version == 2 else f"c/{k}/0/0")).unlink()
    assert not io.open_movie(path).missing
    for k in range(4):
        (path / (f"{k}.1.0" if version == 2 else f"c/{k}/1/0")).unlink()
    with pytest.raises(FileError, match="none of its 8 chunks is there"):
        io.open_movie(path)


def test_chunks_of_hdf5_that_were_never_written_are_missing(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        frames = file.create_dataset("frames", MOVIE.shape, "uint16", chunks=(1, 24, 32))
        frames[:5] = MOVIE[:5]
        frames[6, :24] = MOVIE[6, :24]
    movie = io.open_movie(tmp_path / "a.h5")
    assert movie.missing == {5: "2 of 2 chunks are missing", 6: "1 of 2 chunks are missing"}
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("frames", MOVIE.shape, "uint16")
    with pytest.raises(FileError, match="was never written"):
        io.open_movie(tmp_path / "b.h5")


def test_values_outside_an_hdf5_file_are_refused(tmp_path):
    hdf5()(tmp_path)
    MOVIE.tofile(tmp_path / "raw.bin")
    layout = h5py.VirtualLayout(MOVIE.shape, "uint16")
    layout[:] = h5py.VirtualSource(tmp_path / "a.h5", "frames", MOVIE.shape)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["link"] = h5py.ExternalLink("a.h5", "frames")
        file["soft"] = h5py.SoftLink("/link")
        file["group"] = h5py.ExternalLink("a.h5", "/")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", MOVIE.shape, "uint16", external=[(str(tmp_path / "raw.bin"), 0, MOVIE.nbytes)])
        file["loop"] = h5py.SoftLink("/loop")
    for name, message in (
        ("link", "into the file 'a.h5'"), ("soft", "into the file 'a.h5'"), ("group/frames", "into the file 'a.h5'"),
        ("virtual", "is virtual"), ("external", "stored in another file"), ("loop", "expected a dataset 'loop'"),
    ):  # fmt: skip
        for read in (io.open_movie, io.read_frame):
            with pytest.raises(FileError, match=message):
                read(tmp_path / "b.h5", dataset=name)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["within"] = h5py.SoftLink("frames")
    np.testing.assert_array_equal(io.open_movie(tmp_path / "a.h5", dataset="within")[2], MOVIE[2])


@pytest.mark.parametrize("name", ["deflate", "tiled", "page by page", "OME-TIFF", "ImageJ", "BigTIFF", "written .h5"])
def test_no_truncated_movie_is_read(tmp_path, name):
    path = CONTAINERS[name][0](tmp_path)
    data = path.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(FileError, match=path.name):
            io.open_movie(path)[:]


def test_movies_are_written_with_their_rate_in_any_type(tmp_path):
    for dtype in (np.uint8, np.int32, np.float32, np.float64):
        frames = MOVIE.astype(dtype)
        io.write_movie(tmp_path / "a.tif", frames, frame_s=0.003)
        movie = io.open_movie(tmp_path / "a.tif")
        assert movie.dtype == dtype and movie.frame_s == pytest.approx(0.003)
        np.testing.assert_array_equal(movie[:], frames)
    with pytest.raises(ParameterError, match="frame_s"):
        io.write_movie(tmp_path / "b.tif", MOVIE, frame_s=0.0)
