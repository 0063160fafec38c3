"""Frames and volumes in TIFF: ImageJ hyperstacks and OME-TIFF, with voxel sizes that ImageJ and napari read."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import ArrayLike

from lfjax.errors import FileError
from lfjax.io.arrays import Volume, VoxelUm, check_array, check_volume, choose_page, reading
from lfjax.io.atomic import writing
from lfjax.io.tiff_planes import open_planes

IMAGEJ_LIMIT_BYTES = 2**32 - 2**25  # ImageJ hyperstacks have 32-bit offsets
MICROMETRES = {
    "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4,
    "inch": 25400.0,
}  # fmt: skip


def read_frame(path: str | Path, *, page: int | None = None, follow_links: bool = False) -> np.ndarray:
    """Read one grey image (y, x) in its own type; see `lfjax.io.read_frame`."""
    with reading(path, "TIFF"):
        planes = open_planes(path, follow_links=follow_links)
        with planes.file:
            number = choose_page(path, planes.count, page)
            if planes.pages and planes.pages[number] is None:
                raise FileError(f"{path}: page {number} is missing; expected a complete TIFF file")
            return check_array(path, planes.read([number])[0], "yx")


def read_volume(path: str | Path, *, follow_links: bool = False) -> Volume:
    """Read a stack of grey images (z, y, x) and its voxel size; see `lfjax.io.read_volume`."""
    with reading(path, "TIFF"):
        planes = open_planes(path, follow_links=follow_links)
        with planes.file as file:
            axes = planes.axes if len(planes.axes) > 2 else "Z" + planes.axes  # tifffile drops axes of length 1
            if len(axes) != 3 or axes[0] in "TC":
                raise FileError(f"{path}: axes {axes} (time or channels) of shape {planes.shape}; expected ZYX")
            if None in planes.pages:
                raise FileError(
                    f"{path}: {planes.pages.count(None)} of {planes.count} planes are missing; expected all of them"
                )
            array = check_array(path, planes.read(range(planes.count)), "zyx")
            return Volume(array, _voxel_um(file))


def read_labels(path: str | Path) -> Volume:
    """Read numbers of neurons (y, x) or (z, y, x), or masks (n, z, y, x), and the voxel size of three axes.

    Raises:
        FileError: the file is missing, broken, not whole, or holds colours or several images.
    """
    with reading(path, "TIFF"):
        planes = open_planes(path)
        with planes.file as file:
            if planes.keyframe.samplesperpixel > 1:
                raise FileError(f"{path}: colour image, axes {planes.axes}; expected labels: one number per neuron")
            if None in planes.pages:
                raise FileError(f"{path}: planes are missing; expected all {planes.count} of them")
            array = planes.read(range(planes.count)).reshape(planes.shape)
            size = _voxel_um(file) if len(planes.axes) == 3 and planes.axes[0] not in "TC" else None
            return Volume(array, size)


def write_volume(path: str | Path, volume: ArrayLike, voxel_um: VoxelUm) -> None:
    """Write OME-TIFF if the name ends in .ome.tif(f), else an ImageJ hyperstack; see `lfjax.io.write_volume`."""
    ome = Path(path).name.lower().endswith((".ome.tif", ".ome.tiff"))
    if not ome and 4 * math.prod(np.shape(volume)) > IMAGEJ_LIMIT_BYTES:
        raise FileError(f"{path}: shape {np.shape(volume)} exceeds the 4 GiB of an ImageJ TIFF; use .ome.tif or .h5")
    array, (dz, dy, dx) = check_volume(path, volume, voxel_um)
    with writing(path, array.nbytes) as temporary:
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
    with writing(path, array.nbytes) as temporary:
        # ome=False: by the name alone tifffile would write OME metadata, but a frame has no scale
        tifffile.imwrite(temporary, array, photometric="minisblack", metadata=None, ome=False)


def _voxel_um(file: tifffile.TiffFile) -> VoxelUm | None:
    return _ome_voxel_um(file) if file.is_ome else _imagej_voxel_um(file)


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
