"""The same frames in every container that `lfjax.io.open_movie` reads, written as cameras and programs write them.

Each writer takes a folder, writes there, and returns what `open_movie` takes: a file, a folder, a pattern or a list.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import tifffile
import zarr

from benchmarks.common import Report
from lfjax import io
from lfjax.errors import LfjaxError
from lfjax.io.chunks import ome_attributes

MOVIE = np.random.default_rng(0).integers(0, 4000, (7, 48, 32)).astype(np.uint16)
OTHER = MOVIE[:, ::-1]
TWO = np.stack([MOVIE, OTHER], axis=1)  # t c y x

Writer = Callable[[Path], "Path | str | list[str]"]


class Container(NamedTuple):
    """How a movie is written, what must be chosen to read it, and the seconds per frame that the file tells."""

    write: Writer
    choice: dict[str, Any]
    frame_s: float | None


def tiff(name: str = "a.tif", array: np.ndarray = MOVIE, **options: Any) -> Writer:
    """A writer of one TIFF, by the options of tifffile."""

    def write(folder: Path) -> Path:
        tifffile.imwrite(folder / name, array, **{"photometric": "minisblack", **options})
        return folder / name

    return write


def pages(folder: Path, name: str = "pages.tif", each: Callable[[int], dict[str, Any]] = lambda k: {}, **options: Any) -> Path:
    """A TIFF of one page per frame, each with options of its own."""
    with tifffile.TiffWriter(folder / name, **options) as file:
        for k, frame in enumerate(MOVIE):
            file.write(frame, photometric="minisblack", contiguous=False, **each(k))
    return folder / name


def imagej_trick(folder: Path) -> Path:
    """One directory and all planes behind it, as ImageJ writes stacks of more than 4 GB."""
    with tifffile.TiffWriter(folder / "trick.tif", byteorder=">", ome=False) as file:
        about = f"ImageJ=1.53t\nimages={len(MOVIE)}\nframes={len(MOVIE)}\nfinterval=0.25\n"
        file.write(MOVIE[0].astype(">u2"), photometric="minisblack", metadata=None, description=about)
    with open(folder / "trick.tif", "ab") as file:
        with tifffile.TiffFile(folder / "trick.tif") as written:
            offset, end = written.pages[0].dataoffsets[0], written.filehandle.size
        assert end == offset + MOVIE[0].nbytes  # the values come last, so that the other planes follow them
        file.write(MOVIE[1:].astype(">u2").tobytes())
    return folder / "trick.tif"


def several_ome(folder: Path) -> Path:
    """An OME-TIFF of three files with the same metadata in each."""
    parts = np.array_split(np.arange(7), 3)
    planes = "".join(
        f'<TiffData FirstT="{t}" IFD="{k}" PlaneCount="1"><UUID FileName="part{i}.ome.tif">urn:uuid:{i}</UUID></TiffData>'
        for i, part in enumerate(parts)
        for k, t in enumerate(part)
    )
    for i, part in enumerate(parts):
        xml = f"""<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{i}">
        <Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="32" SizeY="48" SizeZ="1" SizeC="1"
        SizeT="7" TimeIncrement="20" TimeIncrementUnit="ms">{planes}</Pixels></Image></OME>"""
        with tifffile.TiffWriter(folder / f"part{i}.ome.tif", ome=False) as file:
            for k, t in enumerate(part):
                about = xml if k == 0 else None
                file.write(MOVIE[t], photometric="minisblack", metadata=None, description=about, contiguous=False)
    return folder / "part0.ome.tif"


def hdf5(name: str = "frames", array: np.ndarray = MOVIE, attributes: dict[str, Any] | None = None, **options: Any) -> Writer:
    """A writer of one dataset in HDF5."""

    def write(folder: Path) -> Path:
        with h5py.File(folder / "a.h5", "w") as file:
            file.create_dataset(name, data=array, **options).attrs.update(attributes or {})
        return folder / "a.h5"

    return write


def zarr_array(version: Literal[2, 3], **options: Any) -> Writer:
    """A writer of a bare Zarr array."""

    def write(folder: Path) -> Path:
        zarr.create_array(folder / "a.zarr", data=MOVIE, zarr_format=version, **{"chunks": (2, 30, 32), **options})
        return folder / "a.zarr"

    return write


def ome_zarr(version: str, layout: bool = False) -> Writer:
    """A writer of an OME-Zarr of two levels, with or without the layout of bioformats2raw."""

    def write(folder: Path) -> Path:
        group = zarr.create_group(folder / "ome.zarr", zarr_format=2 if version == "0.4" else 3)
        image = group.create_group("0") if layout else group
        image.create_array("0", data=MOVIE[:, None, None], chunks=(1, 1, 1, 48, 32))
        image.create_array("1", data=MOVIE[:, None, None, ::2, ::2])
        about = ome_attributes("movie", "tczyx", (0.02, 1.0, 1.0, 1.0, 1.0))["ome"]
        level = dict(about["multiscales"][0]["datasets"][0], path="1")
        about["multiscales"][0]["datasets"].append(level)
        about["version"] = about["multiscales"][0]["version"] = version
        outer = {"bioformats2raw.layout": 3}
        if version == "0.4":
            image.attrs.update({"multiscales": about["multiscales"]})
            group.attrs.update(outer if layout else {})
        else:
            image.attrs.update({"ome": about})
            if layout:
                group.attrs.update({"ome": {"version": "0.5", **outer}})
        return folder / "ome.zarr"

    return write


def _plain(path: Path, frame: np.ndarray) -> None:
    tifffile.imwrite(path, frame, photometric="minisblack")


def singles(folder: Path, write: Callable[[Path, np.ndarray], Any] = _plain, suffix: str = ".tif") -> Path:
    """A folder of one file per frame, numbered 5 to 11."""
    (folder / "run").mkdir()
    for k, frame in enumerate(MOVIE):
        write(folder / f"run/frame{k + 5}{suffix}", frame)  # frame10 comes after frame9
    return folder / "run"


def npys(folder: Path) -> Path:
    """A folder of NPY files."""
    return singles(folder, np.save, ".npy")


def pngs(folder: Path) -> Path:
    """A folder of PNG files of 16 bits."""
    import imagecodecs

    return singles(folder, lambda path, frame: path.write_bytes(imagecodecs.png_encode(frame)), ".png")


def pattern(folder: Path) -> str:
    """A pattern that matches one file per frame."""
    return f"{singles(folder)}/frame*.tif"


def listed(folder: Path) -> list[str]:
    """A list of one file per frame."""
    return sorted(str(path) for path in singles(folder).iterdir())


def halves(folder: Path) -> Path:
    """A folder of two HDF5 files, of which part10 comes after part9."""
    (folder / "halves").mkdir()
    io.write_movie(folder / "halves/part9.h5", MOVIE[:3])
    io.write_movie(folder / "halves/part10.h5", MOVIE[3:])
    return folder / "halves"


def inverted(folder: Path) -> Path:
    """A TIFF in which 0 is white."""
    tifffile.imwrite(folder / "inverted.tif", 65535 - MOVIE, photometric="miniswhite")
    return folder / "inverted.tif"


def colours(folder: Path) -> Path:
    """Grey values as colours, pixel by pixel."""
    tifffile.imwrite(folder / "rgb.tif", np.repeat(MOVIE[..., None], 3, axis=-1), photometric="rgb")
    return folder / "rgb.tif"


def separate(folder: Path) -> Path:
    """Grey values as colours, plane by plane."""
    tifffile.imwrite(folder / "rgb.tif", np.repeat(MOVIE[:, None], 3, axis=1), photometric="rgb", planarconfig="separate")
    return folder / "rgb.tif"


def writer(name: str, frame_s: float | None = None) -> Writer:
    """A writer of the file NAME by `io.write_movie`."""

    def write(folder: Path) -> Path:
        io.write_movie(folder / name, MOVIE, frame_s=frame_s)
        return folder / name

    return write


CONTAINERS: dict[str, Container] = {
    "written .h5": Container(writer("a.h5", 0.02), {}, 0.02),
    "written .tif": Container(writer("a.tif"), {}, None),
    "written ImageJ .tif": Container(writer("a.tif", 0.02), {}, 0.02),
    "contiguous": Container(tiff(), {}, None),
    "big-endian": Container(tiff(byteorder=">"), {}, None),
    "tiled": Container(tiff(tile=(16, 16)), {}, None),
    "strips": Container(tiff(rowsperstrip=5, metadata=None), {}, None),
    "deflate": Container(tiff(compression="zlib", predictor=True), {}, None),
    "LZW": Container(tiff(compression="lzw", metadata=None), {}, None),
    "Zstandard, tiled": Container(tiff(compression="zstd", tile=(16, 16)), {}, None),
    "BigTIFF": Container(tiff(bigtiff=True), {}, None),
    "BigTIFF, deflate, no metadata": Container(tiff(bigtiff=True, compression="zlib", metadata=None), {}, None),
    "page by page": Container(pages, {}, None),
    "pages of several compressions": Container(
        lambda folder: pages(folder, each=lambda k: {"compression": "zlib" if k > 3 else None}), {}, None,
    ),
    "a series per frame": Container(
        lambda folder: pages(folder, each=lambda k: {"compression": "zlib", "metadata": {}}), {}, None,
    ),
    "ImageJ": Container(tiff(imagej=True, metadata={"axes": "TYX", "finterval": 0.02}), {}, 0.02),
    "ImageJ, milliseconds": Container(tiff(imagej=True, metadata={"axes": "TYX", "finterval": 20.0, "tunit": "ms"}), {}, 0.02),
    "ImageJ, player": Container(tiff(imagej=True, metadata={"axes": "TYX", "fps": 50.0}), {}, 0.02),
    "ImageJ, two channels": Container(tiff(array=TWO, imagej=True, metadata={"axes": "TCYX"}), {"channel": 0}, None),
    "ImageJ, planes along z": Container(tiff(imagej=True, metadata={"axes": "ZYX"}), {"axes": "tyx"}, None),
    "ImageJ, more than 4 GB": Container(imagej_trick, {}, 0.25),
    "OME-TIFF": Container(
        tiff("a.ome.tif", metadata={"axes": "TYX", "TimeIncrement": 20.0, "TimeIncrementUnit": "ms"}), {}, 0.02,
    ),
    "OME-TIFF, compressed channels": Container(
        tiff("a.ome.tif", TWO[:, ::-1], compression="zlib", metadata={"axes": "TCYX"}), {"channel": 1}, None,
    ),
    "OME-TIFF, channels first": Container(
        tiff("a.ome.tif", np.swapaxes(TWO, 0, 1), metadata={"axes": "CTYX"}), {"channel": 0}, None,
    ),
    "OME-TIFF of several files": Container(several_ome, {}, 0.02),
    "MINISWHITE": Container(inverted, {}, None),
    "grey as colours": Container(colours, {}, None),
    "grey as planes of colours": Container(separate, {}, None),
    "HDF5": Container(hdf5(), {}, None),
    "HDF5, rate": Container(hdf5(attributes={"rate_hz": 50.0}), {}, 0.02),
    "HDF5, compressed": Container(hdf5(compression="gzip", chunks=(3, 20, 32)), {}, None),
    "HDF5, the only one": Container(hdf5("a/deep/one"), {}, None),
    "HDF5, other axes": Container(hdf5(array=MOVIE.transpose(1, 2, 0)), {"axes": "yxt"}, None),
    "HDF5, channels": Container(hdf5("d", array=TWO), {"axes": "tcyx", "channel": 0, "dataset": "d"}, None),
    "HDF5, big-endian": Container(hdf5(array=MOVIE.astype(">u2")), {}, None),
    "Zarr 2": Container(zarr_array(2), {}, None),
    "Zarr 3": Container(zarr_array(3), {}, None),
    "Zarr 3, shards": Container(zarr_array(3, chunks=(1, 24, 16), shards=(4, 48, 32)), {}, None),
    "Zarr, named axes": Container(lambda f: zarr_array(3, dimension_names=["time", "y", "x"])(f), {}, None),
    "OME-Zarr 0.4": Container(ome_zarr("0.4"), {}, 0.02),
    "OME-Zarr 0.5": Container(ome_zarr("0.5"), {}, 0.02),
    "OME-Zarr 0.4, bioformats2raw": Container(ome_zarr("0.4", layout=True), {}, 0.02),
    "OME-Zarr 0.5, bioformats2raw": Container(ome_zarr("0.5", layout=True), {}, 0.02),
    "folder": Container(singles, {}, None),
    "folder of NPY": Container(npys, {}, None),
    "folder of PNG": Container(pngs, {}, None),
    "pattern": Container(pattern, {}, None),
    "list": Container(listed, {}, None),
    "files of several frames": Container(halves, {}, None),
}  # fmt: skip


def different_frames(report: Report, folder: Path) -> int:
    """Write the same frames into every container, read them, and count the containers whose frames differ in a bit.

    Args:
        report: gets a row with the number of containers.
        folder: place for temporary files.

    Returns:
        The number of containers that differ; those that cannot be read count too, and their names are printed.
    """
    differ = 0
    for name, (write, choice, _) in CONTAINERS.items():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            try:
                with io.open_movie(write(Path(place)), **choice) as movie:
                    found = movie[:]
            except LfjaxError as error:
                found = np.zeros(0)
                print(f"{name}: {error}")
        if found.dtype != MOVIE.dtype or not np.array_equal(found, MOVIE):
            differ += 1
            print(f"{name}: other frames than those written")
    report.row("containers compared", len(CONTAINERS), "")
    return differ
