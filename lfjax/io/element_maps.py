"""Maps of elements (maps, y, x) with their names and energies: OME-TIFF, a channel per map, or HDF5, a dataset per map."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import h5py
import numpy as np
from numpy.typing import ArrayLike

from lfjax._lazy import load
from lfjax.errors import FileError, require
from lfjax.io.arrays import check_array, reading
from lfjax.io.atomic import writing
from lfjax.io.checked_numbers import finite_attribute
from lfjax.io.cube_hdf5_about import attribute_text
from lfjax.io.cube_raw import pixel_size
from lfjax.io.hdf5 import choose_dataset, read_values
from lfjax.io.hdf5_attributes import Attributes
from lfjax.io.hdf5_file import new_hdf5

OME, HDF5 = (".ome.tif", ".ome.tiff"), (".h5", ".hdf5")
ERRORS = "errors"  # name of the image of standard errors in OME-TIFF; in HDF5 NAME_errors, as NeXus has it
ENERGIES = "energies_ev"  # key of an annotation in OME-XML


class ElementMaps(NamedTuple):
    """Maps of elements, or of lines.

    Attributes:
        maps: (m, y, x), 32-bit floats.
        names: one per map: "Fe K", "Pb L".
        energies_ev: (m,), energy of each line in eV. None: not told.
        errors: (m, y, x), standard error of each value. None: not told.
        pixel_um: distance of points (y, x) in micrometres. None: not told.
        unit: of the values.
    """

    maps: np.ndarray
    names: tuple[str, ...]
    energies_ev: np.ndarray | None = None
    errors: np.ndarray | None = None
    pixel_um: tuple[float, float] | None = None
    unit: str = "counts"


def write_maps(
    path: str | Path,
    maps: ArrayLike,
    names: Sequence[str],
    *,
    energies_ev: ArrayLike | None = None,
    errors: ArrayLike | None = None,
    pixel_um: tuple[float, float] | None = None,
    unit: str = "counts",
) -> None:
    """Write maps (m, y, x), as 32-bit floats.

    OME-TIFF has a channel per map, named after it, as ImageJ, napari and QuPath show it; errors are a second image, energies an
    annotation. HDF5 has the group `maps` (NXdata), a dataset per map with attributes energy_ev and unit, and NAME_errors.

    Args:
        path: .ome.tif, .ome.tiff, .h5 or .hdf5.
        maps: (m, y, x).
        names: one per map, all different, without "/", and none of x, y and NAME_errors, which HDF5 needs.
        energies_ev: (m,), energy of each line in eV.
        errors: (m, y, x), standard errors.
        pixel_um: distance of points (y, x) in micrometres.
        unit: of the values.

    Raises:
        FileError: the suffix is unknown, or maps or errors are not finite.
        ParameterError: names, energies, errors or distances do not fit the maps.
    """
    path = Path(path)
    suffix = path.name.lower()
    if not suffix.endswith((*OME, *HDF5)):
        raise FileError(f"{path}: unknown suffix {path.suffix!r}; expected one of {', '.join((*OME, *HDF5))}")
    with np.errstate(over="ignore"):  # overflow becomes infinity, which the check reports
        array = check_array(path, check_array(path, maps, "cyx").astype(np.float32), "cyx")
        off = None if errors is None else check_array(path, check_array(path, errors, "cyx").astype(np.float32), "cyx")
    kept = tuple(names)
    good = len(kept) == len(array) == len(set(kept)) and not any(_clashes(one) for one in kept)
    require(good, "names", kept, f"{len(array)} different names, not x, y or NAME_errors, without '/'")
    require(off is None or off.shape == array.shape, "errors", errors, f"shape {array.shape}")
    lines = None if energies_ev is None else np.asarray(energies_ev, np.float64)
    fits = lines is None or (lines.shape == (len(array),) and bool(((lines > 0) & (lines < math.inf)).all()))
    require(fits, "energies_ev", energies_ev, f"{len(array)} positive energies")
    sizes = None if pixel_um is None else (float(pixel_um[0]), float(pixel_um[-1]))
    positive = sizes is None or (len(pixel_um or ()) == 2 and all(0 < one < math.inf for one in sizes))
    require(positive, "pixel_um", pixel_um, "two positive numbers")
    (_write_ome if suffix.endswith(OME) else _write_hdf5)(path, ElementMaps(array, kept, lines, off, sizes, unit))


def _clashes(name: str) -> bool:
    return name.strip() != name or name in ("", ".", "x", "y") or "/" in name or name.endswith("_errors")


def read_maps(path: str | Path) -> ElementMaps:
    """Read maps that `write_maps` has written, or OME-TIFF of channels from other programs.

    Args:
        path: .ome.tif, .ome.tiff, .h5 or .hdf5.

    Raises:
        FileError: the file is missing, broken or truncated, or holds no maps of finite numbers.
    """
    name = Path(path).name.lower()
    if not name.endswith((*OME, *HDF5)):
        raise FileError(f"{path}: unknown suffix; expected one of {', '.join((*OME, *HDF5))}")
    if name.endswith(OME):
        with reading(path, "TIFF"):
            return _read_ome(Path(path))
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        return _read_hdf5(Path(path), file)


def _write_ome(path: Path, maps: ElementMaps) -> None:
    about: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": list(maps.names)}}
    if maps.pixel_um is not None:
        for axis, size in zip("YX", maps.pixel_um, strict=True):
            about.update({f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"})
    told = {"unit": maps.unit} | ({} if maps.energies_ev is None else {ENERGIES: json.dumps(maps.energies_ev.tolist())})
    with writing(path, maps.maps.nbytes) as temporary, load("tifffile", "TIFF").TiffWriter(temporary, ome=True) as file:
        file.write(maps.maps, photometric="minisblack", metadata={**about, "Name": "maps", "MapAnnotation": told})
        if maps.errors is not None:
            file.write(maps.errors, photometric="minisblack", metadata={**about, "Name": ERRORS})


def _read_ome(path: Path) -> ElementMaps:
    planes_of = load("lfjax.io.tiff_planes").open_planes
    with planes_of(path, 0).file as file:
        root = ElementTree.fromstring(file.ome_metadata or "<OME/>")
        count = len(file.series)
    images = root.findall(".//{*}Image")
    if not images or count > 2 or (count == 2 and images[-1].get("Name") != ERRORS):
        raise FileError(f"{path}: {count} images; expected one of a channel per map, or another of errors")
    arrays = []
    for number in range(count):
        planes = planes_of(path, number)
        with planes.file:
            axes = planes.axes if len(planes.axes) > 2 else "C" + planes.axes  # tifffile drops axes of length 1
            if len(axes) != 3 or axes[0] != "C" or None in planes.pages:
                raise FileError(f"{path}: axes {axes} of shape {planes.shape}, or planes missing; expected CYX, whole")
            arrays.append(check_array(path, planes.read(range(planes.count)), "cyx").astype(np.float32))
    pixels = images[0].find("{*}Pixels")
    channels = [] if pixels is None else pixels.findall("{*}Channel")
    names = tuple(channel.get("Name") or f"channel {k}" for k, channel in enumerate(channels))
    if len(names) != len(arrays[0]) or any(one.shape != arrays[0].shape for one in arrays):
        raise FileError(
            f"{path}: {len(names)} names for maps {arrays[0].shape}; expected one per map, and errors of this shape"
        )
    told = {one.get("K"): one.text or "" for one in root.iterfind(".//{*}MapAnnotation/{*}Value/{*}M")}
    return ElementMaps(
        arrays[0], names, _listed_energies(path, told.get(ENERGIES), len(names)), arrays[1] if count == 2 else None,
        _ome_pixel_um(pixels), told.get("unit", "counts"),
    )  # fmt: skip


def _listed_energies(path: Path, text: str | None, count: int) -> np.ndarray | None:
    if text is None:
        return None
    return np.array(finite_attribute(path, {ENERGIES: json.loads(text)}, ENERGIES, positive=True, count=count))


def _ome_pixel_um(pixels: ElementTree.Element | None) -> tuple[float, float] | None:
    if pixels is None or any(pixels.get(f"PhysicalSize{axis}") is None for axis in "YX"):
        return None
    units = {pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"}
    sizes = [float(pixels.get(f"PhysicalSize{axis}", "nan")) for axis in "YX"]
    return pixel_size(sizes, units.pop()) if len(units) == 1 and all(size < math.inf for size in sizes) else None


def _write_hdf5(path: Path, maps: ElementMaps) -> None:
    with new_hdf5(path, maps.maps.nbytes) as file:
        group = file.create_group("maps")
        file.attrs.update({"NX_class": "NXroot", "default": "maps"})
        axes = ["y", "x"] if maps.pixel_um else [".", "."]
        group.attrs.update({"NX_class": "NXdata", "signal": maps.names[0], "axes": axes, "names": list(maps.names)})
        group.attrs["auxiliary_signals"] = list(maps.names[1:])
        for k, name in enumerate(maps.names):
            dataset = group.create_dataset(name, data=maps.maps[k])
            dataset.attrs.update({"unit": maps.unit, "units": maps.unit, "interpretation": "image"})
            if maps.energies_ev is not None:
                dataset.attrs["energy_ev"] = maps.energies_ev[k]
            if maps.errors is not None:
                group.create_dataset(f"{name}_errors", data=maps.errors[k])
        if maps.pixel_um is not None:
            group.attrs["pixel_um"] = maps.pixel_um
            for axis, size, count in zip("yx", maps.pixel_um, maps.maps.shape[1:], strict=True):
                group.create_dataset(axis, data=size * np.arange(count)).attrs["units"] = "um"


def _read_hdf5(path: Path, file: h5py.File) -> ElementMaps:
    group = file.get("maps") if file.get("maps", getlink=True, getclass=True) is h5py.HardLink else None
    if not isinstance(group, h5py.Group) or "names" not in group.attrs:
        raise FileError(f"{path}: no group 'maps' with the attribute names; expected element maps")
    about = Attributes(path, group)
    names = tuple(attribute_text(one) or "" for one in np.ravel(about["names"]))

    def values(name: str) -> np.ndarray:
        return check_array(path, read_values(path, choose_dataset(path, file, f"maps/{name}")), "yx").astype(np.float32)

    arrays = [values(name) for name in names]
    errors = [values(f"{name}_errors") for name in names if f"{name}_errors" in group]
    if not arrays or len({one.shape for one in (*arrays, *errors)}) > 1 or len(errors) not in (0, len(arrays)):
        raise FileError(f"{path}: {len(arrays)} maps and {len(errors)} errors of different shapes; expected one shape, and all")
    told = [Attributes(path, group[name]) for name in names]
    lines = [finite_attribute(path, one, "energy_ev", positive=True, count=1)[0] for one in told if "energy_ev" in one]
    if len(lines) not in (0, len(names)):
        raise FileError(f"{path}: {len(lines)} of {len(names)} maps have the attribute energy_ev; expected all or none")
    sizes = finite_attribute(path, about, "pixel_um", positive=True, count=2) if "pixel_um" in about else None
    return ElementMaps(
        np.stack(arrays), names, np.array(lines) if lines else None, np.stack(errors) if errors else None,
        None if sizes is None else (sizes[0], sizes[1]), attribute_text(told[0].get("unit")) or "counts",
    )  # fmt: skip
