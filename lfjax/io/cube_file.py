"""Spectral cubes in files: a function opens every format, by the suffix; another writes HDF5 that PyMca and h5web open."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lfjax._lazy import load
from lfjax.errors import FileError, LfjaxError, require
from lfjax.io.arrays import reason
from lfjax.io.cube import Cube, EnergyAxis, check_counts
from lfjax.io.cube_layout import Ask, Detector
from lfjax.io.hdf5_file import new_hdf5

CUBES = {
    ".h5": ("cube_hdf5", "open_hdf5"), ".hdf5": ("cube_hdf5", "open_hdf5"), ".nxs": ("cube_hdf5", "open_hdf5"),
    ".hdf": ("cube_hdf5", "open_hdf5"), ".rpl": ("cube_ripple", "open_ripple"), ".raw": ("cube_ripple", "open_ripple"),
    ".edf": ("cube_edf", "open_edf"), ".mca": ("cube_mca", "open_spectrum"), ".spe": ("cube_mca", "open_spectrum"),
    ".hdr": ("cube_envi", "open_envi"), ".img": ("cube_envi", "open_envi"), ".dat": ("cube_envi", "open_envi"),
    ".bsq": ("cube_envi", "open_envi"), ".bsp": ("cube_envi", "open_envi"), ".bil": ("cube_envi", "open_envi"),
    ".bip": ("cube_envi", "open_envi"), ".npy": ("npy", "open_cube_array"),
}  # fmt: skip
"""Suffix -> the module of `lfjax.io` that opens it, and its function."""
EXPECTED = "expected spectra: HDF5, raw with rpl, EDF, mca, spe, ENVI or NPY"


def open_cube(
    path: str | Path | Sequence[str | Path],
    *,
    dataset: str | None = None,
    axes: str | None = None,
    detector: Detector = None,
    grid: tuple[int, int] | None = None,
    energy: EnergyAxis | None = None,
    follow_links: bool = False,
) -> Cube:
    """Open counts (rows, columns, channels) of X-rays, of which only the requested rows are read.

    HDF5 (.h5, .hdf5, .hdf, .nxs): NXdata and NXmca, layouts of PyMca, MAPS and scanners, plain arrays. Lispix (.rpl, .raw).
    EDF (.edf): an image per row, in one file, in the files that are numbered on from it, or in a folder, pattern or list.
    Single spectra (.mca, .spe): 1 x 1 point. ENVI (.hdr or its values). NumPy (.npy). docs/xrf_formats.md tells what is read.

    Args:
        path: a file; of EDF also a folder, a pattern such as `map/row*.edf`, or a list of files, one per row in natural order.
        dataset: name of the dataset, or of the NXdata group, in HDF5.
        axes: letters of the axes of an array in HDF5 or NPY, where the file tells none or wrong ones: y rows, x columns,
            e energies, d detectors, p points of a list: "eyx" for images one after the other.
        detector: number of a detector, from 0, or "sum" of all, where the file has several.
        grid: (rows, columns) of a list of spectra in HDF5 or NPY.
        energy: axis of energies in place of that of the file.
        follow_links: whether counts may lie in other files that an HDF5 file names, see `lfjax.io.open_movie`.

    Raises:
        FileError: the file is missing, truncated, broken or holds no spectra of real numbers; or it holds several datasets or
            detectors and none is chosen; or its axes are ambiguous; or its energies bend or have no unit of energy.
        ParameterError: `axes` are no letters for the array.
    """
    ask = Ask(dataset, axes, detector, grid, energy, follow_links)
    if not isinstance(path, (str, Path)):
        files = [Path(one) for one in path]
        require(len(files) > 0, "path", path, "one file or more")
        return _files(files, ask)
    path = Path(path)
    if path.is_dir() or (not path.exists() and any(letter in str(path) for letter in "*?[")):
        return _files(load("lfjax.io.cube_edf").edf_folder(path), ask)
    if path.suffix.lower() not in CUBES:
        raise FileError(f"{path}: unknown suffix {path.suffix!r}; {EXPECTED}")
    module, name = CUBES[path.suffix.lower()]
    return _opened(path, path, getattr(load(f"lfjax.io.{module}"), name), ask)


def _files(files: list[Path], ask: Ask) -> Cube:
    other = next((one for one in files if one.suffix.lower() != ".edf"), None)
    if other is not None:
        raise FileError(f"{other}: suffix {other.suffix!r} in a list of files; expected .edf files, one per row")
    for one in files:
        _require_file(one)
    return _opened(files[0], files, load("lfjax.io.cube_edf").open_edf_files, ask)


def _require_file(path: Path) -> None:
    if not os.path.isfile(path):
        raise FileError(f"{path}: {'not a regular file' if os.path.lexists(path) else 'no such file'}; {EXPECTED}")


def _opened(path: Path, what: Path | list[Path], opener: Callable[[Any, Ask], Cube], ask: Ask) -> Cube:
    """Open one cube; errors of any reader become a `FileError` that names the file."""
    _require_file(path)
    try:
        cube = opener(what, ask)
    except LfjaxError:
        raise
    except Exception as error:  # readers of damaged files raise errors of any kind
        raise FileError(f"{path}: cannot be read ({reason(error)}); {EXPECTED}") from error
    if 0 in cube.shape or cube.dtype.kind not in "uif":
        cube.close()
        raise FileError(f"{path}: counts {cube.shape} of type {cube.dtype}; {EXPECTED}")
    return cube


def write_cube(
    path: str | Path,
    counts: Cube | ArrayLike | Iterable[np.ndarray],
    energy: EnergyAxis | None,
    *,
    live_s: ArrayLike | None = None,
    pixel_um: tuple[float, float] | None = None,
) -> None:
    """Write counts to HDF5, in the layout of NXdata that `open_cube`, PyMca and h5web open; rows are written as they come.

    The group entry/data has counts (rows, columns, channels) in their own type, compressed, a chunk per row; energy (channels,)
    and calibration (offset, slope, 0) in keV, as PyMca has them; live_time (rows, columns) in s; y and x in um.

    Args:
        path: .h5 or .hdf5.
        counts: a cube, an array (rows, columns, channels), or pieces of one, (n, columns, channels) each, in order.
        energy: energies of the channels. None: those of a cube, or none.
        live_s: (rows, columns), live times in seconds. None: those of a cube, or none.
        pixel_um: distance of points (y, x) in micrometres. None: that of a cube, or none.

    Raises:
        FileError: the suffix is unknown, or the counts are not finite numbers of 0 or more of that shape.
        ParameterError: energy, live times or distances are not positive or do not fit the counts.
    """
    path = Path(path)
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise FileError(f"{path}: unknown suffix {path.suffix!r}; expected .h5 or .hdf5")
    if isinstance(counts, Cube):
        live_s = counts.live_s if live_s is None else live_s
        energy, pixel_um = energy or counts.energy, pixel_um or counts.pixel_um
    if energy is not None:
        require(math.isfinite(energy.offset_ev) and 0 < energy.gain_ev < math.inf, "energy", energy, "finite, of positive gain")
    if pixel_um is not None:
        good = len(pixel_um) == 2 and all(0 < size < math.inf for size in pixel_um)
        require(good, "pixel_um", pixel_um, "two positive numbers")
    times = None if live_s is None else np.asarray(live_s, np.float64)
    require(times is None or bool(((times >= 0) & (times < np.inf)).all()), "live_s", live_s, "finite times, 0 or more")
    with new_hdf5(path) as file:
        shape = _write_counts(path, file, _pieces(counts))
        require(times is None or times.shape == shape[:2], "live_s", live_s, f"times of shape {shape[:2]}")
        _write_about(file["entry/data"], shape, energy, times, pixel_um)


def _pieces(counts: Any) -> Iterator[np.ndarray]:
    """Rows (n, columns, channels), piece by piece."""
    if isinstance(counts, Cube):
        return (block for _, block in counts.blocks())
    if isinstance(counts, np.ndarray) or (hasattr(counts, "__array__") and not isinstance(counts, (list, tuple))):
        return iter([np.asarray(counts)])
    return map(np.asarray, counts)


def _write_counts(path: Path, file: Any, pieces: Iterator[np.ndarray]) -> tuple[int, int, int]:
    """Write pieces one after the other; their shape together."""
    first = next(pieces, np.zeros(0))
    if first.ndim != 3 or 0 in first.shape:
        raise FileError(f"{path}: counts of shape {first.shape}; expected (rows, columns, channels), not empty")
    entry = file.create_group("entry")
    data = entry.create_group("data")
    file.attrs.update({"NX_class": "NXroot", "default": "entry"})
    entry.attrs.update({"NX_class": "NXentry", "default": "data"})
    data.attrs.update({"NX_class": "NXdata", "signal": "counts"})
    dataset = data.create_dataset(
        "counts", (0, *first.shape[1:]), first.dtype, maxshape=(None, *first.shape[1:]), chunks=(1, *first.shape[1:]),
        compression="gzip", compression_opts=1, shuffle=True,
    )  # fmt: skip
    dataset.attrs.update({"interpretation": "spectrum", "units": "counts"})
    rows = 0
    for block in itertools.chain([first], pieces):
        if block.shape[1:] != first.shape[1:] or not np.can_cast(block.dtype, first.dtype):
            told = f"{first.shape[1:]} {first.dtype}, as before"
            raise FileError(f"{path}: counts {block.shape[1:]} {block.dtype} from row {rows}; expected {told}")
        checked = check_counts(path, block, rows)
        dataset.resize(rows + len(block), axis=0)
        dataset[rows:] = checked
        rows += len(block)
    return rows, first.shape[1], first.shape[2]


def _write_about(
    data: Any,
    shape: tuple[int, int, int],
    energy: EnergyAxis | None,
    live_s: np.ndarray | None,
    pixel_um: tuple[float, float] | None,
) -> None:
    """Energies, live times and positions beside the counts."""
    axes = [".", ".", "."]
    if energy is not None:
        data.create_dataset("energy", data=energy.energies_ev(shape[2]) / 1e3).attrs["units"] = "keV"
        data.create_dataset("calibration", data=[energy.offset_ev / 1e3, energy.gain_ev / 1e3, 0.0]).attrs["units"] = "keV"
        axes[2] = "energy"
    if live_s is not None:
        data.create_dataset("live_time", data=live_s).attrs["units"] = "s"
    if pixel_um is not None:
        for k, name in enumerate("yx"):
            data.create_dataset(name, data=float(pixel_um[k]) * np.arange(shape[k])).attrs["units"] = "um"
            axes[k] = name
        data.attrs["pixel_um"] = [float(one) for one in pixel_um]
    data.attrs["axes"] = axes
