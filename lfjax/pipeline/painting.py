"""From the scan of a painting to its elements and their maps: what the commands `lfjax xrf` run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from lfjax import parallel
from lfjax.errors import FileError
from lfjax.io.cube import Cube
from lfjax.movies.identity import fingerprint
from lfjax.progress import Steps
from lfjax.xrf.calibration import Calibration, calibrate
from lfjax.xrf.detector import Detector
from lfjax.xrf.detector_fit import NUMBERS
from lfjax.xrf.element_maps import Maps, maps
from lfjax.xrf.identification import Identified, elements, fitted
from lfjax.xrf.instrument import Instrument
from lfjax.xrf.lines import parse_families

LOOKED = 16  # rows that tell one scan from another, beside the sum of all


class ScanSpectra(NamedTuple):
    """Spectra of a whole scan.

    Attributes:
        total: (channels,), sum over all pixels.
        maximum: (channels,), largest counts of any pixel.
        pixels: number of pixels.
    """

    total: Float[NDArray[np.float64], " channels"]
    maximum: Float[NDArray[np.float64], " channels"]
    pixels: int


def scan_spectra(cube: Cube, track: Callable[..., Any] | None = None) -> ScanSpectra:
    """Sum and maximum spectra, in one pass by rows.

    Args:
        cube: from `io.open_cube`.
        track: see `lfjax.progress.track`.

    Raises:
        FileError: the cube cannot be read, or holds no counts, or some that are negative or not finite.
    """
    total, most = np.zeros(cube.shape[2]), np.zeros(cube.shape[2])
    rows = max(1, 2**26 // max(1, cube.shape[1] * cube.shape[2] * cube.dtype.itemsize))
    starts = list(range(0, cube.shape[0], rows))
    for start in track(Steps(starts, rows, "rows"), "sum of all spectra") if track else starts:
        block = cube.read(range(start, min(start + rows, cube.shape[0])))
        total += block.sum(axis=(0, 1), dtype=np.float64)
        most = np.maximum(most, block.max(axis=(0, 1)))
    if total.sum() == 0:
        where = cube.files[0] if cube.files else "cube"
        raise FileError(f"{where}: all counts are 0; expected counts in some channel")
    return ScanSpectra(total, most, cube.shape[0] * cube.shape[1])


def calibrate_scan(
    cube: Cube,
    instrument: Instrument,
    *,
    gain_ev: float | None = None,
    offset_ev: float | None = None,
    spectra: ScanSpectra | None = None,
    track: Callable[..., Any] | None = None,
) -> Calibration:
    """The detector of a scan, from its sum and maximum spectra; energies that the file states are the start of the search.

    Args:
        cube: from `io.open_cube`.
        instrument: what is known of the scanner.
        gain_ev: in place of that of the file, see `xrf.calibrate`.
        offset_ev: in place of that of the file.
        spectra: from `scan_spectra`. None: the cube is read.
        track: see `lfjax.progress.track`.

    Raises:
        CalibrationError: no gain explains the lines.
        LfjaxError: see `scan_spectra` and `xrf.calibrate`.
    """
    found = scan_spectra(cube, track) if spectra is None else spectra
    if gain_ev is None and offset_ev is None and cube.energy is not None:
        gain_ev, offset_ev = cube.energy.gain_ev, cube.energy.offset_ev
    several = found.maximum if found.pixels > 1 else None
    return calibrate(found.total, instrument, maximum=several, gain_ev=gain_ev, offset_ev=offset_ev)


def identify_scan(
    cube: Cube,
    detector: Detector,
    instrument: Instrument,
    *,
    families: str | None = None,
    spectra: ScanSpectra | None = None,
    track: Callable[..., Any] | None = None,
) -> Identified:
    """Elements of a scan, from its sum spectrum.

    Args:
        cube: from `io.open_cube`.
        detector: of the scan.
        instrument: of the scan.
        families: those to fit, such as "Pb L, Fe K", whether they are there or not. None: found.
        spectra: from `scan_spectra`. None: the cube is read.
        track: see `lfjax.progress.track`.

    Raises:
        LfjaxError: see `scan_spectra`, `xrf.elements` and `xrf.parse_families`.
    """
    chosen = None if families is None else parse_families(families, instrument.highest_ev)
    found = scan_spectra(cube, track) if spectra is None else spectra
    if chosen is None:
        return elements(found.total, detector, instrument)
    return fitted(found.total, detector, chosen, instrument)


def map_scan(
    cube: Cube,
    identified: Identified,
    *,
    smooth: float = 0.0,
    path: str | Path | None = None,
    rows: int | None = None,
    devices: int = 1,
    track: Callable[..., Any] | None = None,
) -> Maps:
    """Maps of the elements of a scan; with a folder, finished rows are kept there and the same call resumes.

    Args:
        cube: from `io.open_cube`.
        identified: from `identify_scan`.
        smooth: see `xrf.maps`.
        path: folder (.zarr) for finished rows. None: in memory.
        rows: rows per chunk.
        devices: over which pixels are spread.
        track: see `lfjax.progress.track`.

    Raises:
        LfjaxError: see `xrf.maps`.
    """
    numbers = [float(getattr(identified.detector, name)) for name in NUMBERS]
    looked = sorted({round(row) for row in np.linspace(0, len(cube) - 1, LOOKED)})  # the sum is the same in any order of rows
    some = np.concatenate([cube.read(range(row, row + 1)) for row in looked])
    inputs = fingerprint(identified.window.counts, identified.background, some)
    told = {"inputs": inputs, "detector": numbers, "shape": list(cube.shape)}
    mesh = parallel.mesh(devices) if devices > 1 else None
    return maps(cube, identified, smooth=smooth, path=path, rows=rows, mesh=mesh, settings=told, track=track)
