"""Frames and volumes in TIFF: ImageJ hyperstacks and OME-TIFF, with voxel sizes that ImageJ and napari read."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import ArrayLike

from lfjax.errors import FileError
from lfjax.io.arrays import Volume, VoxelUm, check_array, check_volume, reading
from lfjax.io.atomic import writing

IMAGEJ_LIMIT_BYTES = 2**32 - 2**25  # ImageJ hyperstacks have 32-bit offsets
MICROMETRES = {
    "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4,
    "inch": 25400.0,
}  # fmt: skip


def read_frame(path: str | Path) -> np.ndarray:
    """Read one grey image (y, x) in its own type; see `lfjax.io.read_frame`."""
    with reading(path, "TIFF"), tifffile.TiffFile(path) as file:
        return check_array(path, _pixels(path, file), "yx")


def read_volume(path: str | Path) -> Volume:
    """Read a stack of grey images (z, y, x) and its voxel size; see `lfjax.io.read_volume`."""
    with reading(path, "TIFF"), tifffile.TiffFile(path) as file:
        array, axes = _pixels(path, file), file.series[0].axes
        if array.ndim == 2:  # tifffile drops axes of length 1
            array, axes = array[None], "Z" + axes
        if array.ndim == 3 and axes[0] in "TC":
            raise FileError(f"{path}: axes {axes} (time or channels); expected ZYX")
        array = check_array(path, array, "zyx")
        return Volume(array, _ome_voxel_um(file) if file.is_ome else _imagej_voxel_um(file))


def write_volume(path: str | Path, volume: ArrayLike, voxel_um: VoxelUm) -> None:
    """Write OME-TIFF if the name ends in .ome.tif(f), else an ImageJ hyperstack; see `lfjax.io.write_volume`."""
    ome = Path(path).name.lower().endswith((".ome.tif", ".ome.tiff"))
    if not ome and 4 * math.prod(np.shape(volume)) > IMAGEJ_LIMIT_BYTES:
        raise FileError(f"{path}: shape {np.shape(volume)} exceeds the 4 GiB of an ImageJ TIFF; use .ome.tif or .h5")
    array, (dz, dy, dx) = check_volume(path, volume, voxel_um)
    with writing(path) as temporary:
        if ome:
            sizes = {"PhysicalSizeZ": dz, "PhysicalSizeY": dy, "PhysicalSizeX": dx}
            units = {f"{name}Unit": "µm" for name in sizes}
            tifffile.imwrite(
                temporary, array, ome=True, photometric="minisblack", metadata={"axes": "ZYX", **sizes, **units},
                resolution=(1e4 / dx, 1e4 / dy), resolutionunit="CENTIMETER",
            )  # fmt: skip
        else:
            tifffile.imwrite(
                temporary, array, imagej=True, photometric="minisblack", resolution=(1 / dx, 1 / dy),
                metadata={"axes": "ZYX", "spacing": dz, "unit": "micron"},
            )  # fmt: skip


def write_frame(path: str | Path, frame: ArrayLike) -> None:
    """Write a frame (y, x) in its own type; see `lfjax.io.write_frame`."""
    array = check_array(path, frame, "yx")
    with writing(path) as temporary:
        # ome=False: by the name alone tifffile would write OME metadata, but a frame has no scale
        tifffile.imwrite(temporary, array, photometric="minisblack", metadata=None, ome=False)


def _pixels(path: str | Path, file: tifffile.TiffFile) -> np.ndarray:
    """Pixels of the only series of a file, which must be complete and grey."""
    if len(file.series) != 1:
        raise FileError(f"{path}: {len(file.series)} images of different kinds; expected one image or stack")
    series = file.series[0]
    if "S" in series.axes:
        raise FileError(f"{path}: colour image of shape {series.shape} ({series.axes}); expected grey values")
    if series.dtype is None or series.dtype.kind not in "uif":
        raise FileError(f"{path}: values of type {series.dtype}; expected integers or floats")
    if not _is_complete(file, series):  # tifffile reads missing planes of a truncated file as zeros
        raise FileError(f"{path}: truncated, the header states {series.shape} values; expected a complete TIFF file")
    return series.asarray()


def _is_complete(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> bool:
    """Whether the file holds all planes, the list of pages to its end, and the description.

    tifffile only logs what is missing, and continues with fewer planes or without the description.
    """
    size = file.filehandle.size
    first, last = file.pages[0], file.pages[len(file.pages) - 1]
    if _directory(file, last)[1] != 0 or (270 in _directory(file, first)[0] and 270 not in getattr(first, "tags", ())):
        return False
    if file.is_imagej and (file.imagej_metadata or {}).get("images", 1) * math.prod(first.shape) != series.size:
        return False
    if series.dataoffset is not None and series.dataoffset + series.nbytes > size:
        return False
    pages = list(series.pages)
    return all(page is not None for page in pages) and all(
        offset + count <= size
        for page in pages
        if page is not None
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    )


def _directory(file: tifffile.TiffFile, page: tifffile.TiffPage | tifffile.TiffFrame) -> tuple[list[int], int]:
    """Tag codes of a page, and the offset of the next page, 0 for the last (TIFF 6.0, section 2)."""
    layout, handle = file.tiff, file.filehandle
    handle.seek(page.offset)
    (count,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    entries = handle.read(count * layout.tagsize)
    (following,) = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
    codes = [struct.unpack_from(layout.byteorder + "H", entries, i * layout.tagsize)[0] for i in range(count)]
    return codes, following


def _imagej_voxel_um(file: tifffile.TiffFile) -> VoxelUm | None:
    """Voxel size from ImageJ's description and the resolution tags. None: one of them is missing."""
    about, tags = file.imagej_metadata or {}, file.pages.first.tags
    unit = MICROMETRES.get(str(about.get("unit", "")).lower())
    if unit is None or "XResolution" not in tags or "YResolution" not in tags:
        return None
    (nx, mx), (ny, my) = tags["XResolution"].value, tags["YResolution"].value
    spacing = about.get("spacing", 0.0)
    if min(nx, mx, ny, my) <= 0 or spacing <= 0:
        return None
    return (unit * spacing, unit * my / ny, unit * mx / nx)


def _ome_voxel_um(file: tifffile.TiffFile) -> VoxelUm | None:
    """Voxel size from the OME-XML. None: a size is missing, or its unit is not a length."""
    pixels = ElementTree.fromstring(file.ome_metadata or "<OME/>").find(".//{*}Pixels")
    sizes = []
    for axis in "ZYX":
        size = None if pixels is None else pixels.get(f"PhysicalSize{axis}")
        unit = None if pixels is None else MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if size is None or unit is None or float(size) <= 0:
            return None
        sizes.append(float(size) * unit)
    return tuple(sizes)  # type: ignore[return-value]
