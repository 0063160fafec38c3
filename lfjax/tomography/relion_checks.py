"""Checks of the values in canonical tables: numbers in impossible units, contradictions, and images that stand there twice.

A number that no microscope has, an origin outside the image, or one image in both half-sets gives a map that looks right and is
not. `FileError` names file, row, column, the value and the range; `DataWarning` names values that are possible and unlikely.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import ArrayLike, Int
from numpy.typing import NDArray

from lfjax.errors import DataWarning, FileError
from lfjax.io.checked_numbers import LARGEST, require_rows
from lfjax.io.star import Tables
from lfjax.tomography.relion_labels import finite_numbers

LENS_RANGES = {
    "rlnVoltage": (20.0, 2000.0, "kV"),
    "rlnSphericalAberration": (-50.0, 50.0, "mm"),
    "rlnAmplitudeContrast": (0.0, 1.0, "as a fraction"),
}
"""Least and largest value and unit of the columns of the lens."""
DEFOCUS_LIMIT = 1e6  # angstroms, 0.1 mm
IN_MICROMETRES = 50.0  # angstroms: every defocus below it is a file in other units
NUMBERS = (
    "rlnImagePixelSize", "rlnImageSize", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnBeamTiltX",
    "rlnBeamTiltY", "rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi",
    "rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift",
    "rlnCtfBfactor", "rlnCtfScalefactor", "rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied",
    "rlnCtfDataAreCtfCorrected", "rlnImageDimensionality", "lfjaxExposure", "lfjaxImageSign",
)  # fmt: skip
"""Columns of the image: its optics, pose, shift and CTF."""
LISTS = ("rlnOddZernike", "rlnEvenZernike")
"""Columns of several numbers per optics group."""
WIDEST = 65536
"""Pixels per side of the largest image: more than any detector has."""
POSE = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")


def check_lenses(path: str | Path, optics: pd.DataFrame, used: Int[ArrayLike, " groups"]) -> None:
    """Refuse voltages, spherical aberrations and amplitude contrasts that no microscope has (`LENS_RANGES`).

    Args:
        path: path of the file, for messages.
        optics: canonical table of optics groups.
        used: rows of the table, from 0, whose groups have images.

    Raises:
        FileError: a value is out of range.
    """
    groups = np.asarray(used)
    for name, (low, high, unit) in LENS_RANGES.items():
        values = finite_numbers(path, optics, name, "optics")[groups]
        if (wrong := ~((values >= low) & (values <= high))).any():
            at = int(np.argmax(wrong))
            where = f"optics, row {groups[at] + 1}, column {name}: {values[at]:g}"
            raise FileError(f"{path}: {where}; expected {low:g} to {high:g} {unit}")


def check_defoci(path: str | Path, particles: pd.DataFrame) -> None:
    """Refuse defoci beyond 0.1 mm; warn of a file whose defoci are all below 50 A, or whose means are all negative.

    Args:
        path: path of the file, for messages.
        particles: canonical table of images with rlnDefocusU and rlnDefocusV.

    Raises:
        FileError: a defocus is larger.
    """
    both = []
    for name in ("rlnDefocusU", "rlnDefocusV"):
        both.append(values := finite_numbers(path, particles, name))
        if (wrong := np.abs(values) > DEFOCUS_LIMIT).any():
            row = int(np.argmax(wrong))
            where = f"particles, row {row + 1}, column {name}: {values[row]:g}"
            raise FileError(f"{path}: {where}; expected -1e6 to 1e6, in angstroms")
    u, v = both
    largest = max(np.abs(u).max(), np.abs(v).max())
    if 0 < largest < IN_MICROMETRES:
        told = f"no defocus is larger than {largest:g} A; are rlnDefocusU and V in micrometres? RELION's are in angstroms"
        warnings.warn(f"{path}: {told}", DataWarning, stacklevel=4)
    elif (u + v < 0).all():
        told = (
            f"the mean defocus of every image is negative ({(u + v).max() / 2:g} A and less): overfocus, which inverts contrast"
        )
        warnings.warn(f"{path}: {told}; is the sign right? RELION's underfocus is positive", DataWarning, stacklevel=4)


def check_origins(path: str | Path, tables: Tables, group: Int[ArrayLike, " n"], sizes: Sequence[int]) -> None:
    """Refuse origins outside the image.

    Args:
        path: path of the file, for messages.
        tables: canonical tables.
        group: row of the optics table, from 0, of each image.
        sizes: pixels per side of the images of each optics group; 0: not known.

    Raises:
        FileError: an origin is farther from the centre than the box is wide.
    """
    side = np.asarray(sizes, float) * finite_numbers(path, tables["optics"], "rlnImagePixelSize", "optics")
    for name in (n for n in POSE[3:] if n in tables["particles"]):
        values, box = finite_numbers(path, tables["particles"], name), side[np.asarray(group)]
        if (wrong := (np.abs(values) > box) & (box > 0)).any():
            row = int(np.argmax(wrong))
            where = f"particles, row {row + 1}, column {name}: {values[row]:g} A"
            raise FileError(f"{path}: {where}; expected an origin within the box of {box[row]:g} A")


def check_numbers(path: str | Path, tables: Tables) -> None:
    """Refuse numbers that are none, whether or not a command uses them; conversion would carry them on.

    Args:
        path: path of the file, for messages.
        tables: canonical tables.

    Raises:
        FileError: an entry of `NUMBERS` is text, NaN, infinite or huge, a box has no whole number of pixels, or a half-set is
            none.
    """
    for block in ("optics", "particles"):
        for name in (n for n in NUMBERS if n in tables[block]):
            values = finite_numbers(path, tables[block], name, block)
            if name == "rlnImageSize":
                right = (values == np.round(values)) & (values >= 1) & (values <= WIDEST)
                require_rows(path, name, values, right, f"1 to {WIDEST} pixels", block)
    for name in (n for n in LISTS if n in tables["optics"]):
        number_lists(path, tables["optics"], name)
    half_set_numbers(path, tables["particles"])


def number_lists(path: str | Path, optics: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Coefficients (groups, terms) from texts such as "[1.2,0,3]", shorter ones filled up with zeros.

    Args:
        path: path of the file, for messages.
        optics: table of optics groups.
        name: its column of texts.

    Raises:
        FileError: an entry is no list of numbers, or a number is NaN, infinite or huge.
    """
    rows = []
    for row, text in enumerate(optics[name]):
        try:
            numbers = [float(part) for part in str(text).strip("[] ").replace(",", " ").split()]
        except ValueError:
            numbers = [np.nan]
        if not (np.abs(numbers) <= LARGEST).all():
            where = f"optics, row {row + 1}, column {name}: {text!r}"
            raise FileError(f"{path}: {where}; expected numbers of at most {LARGEST:g} in size, for example [0.1,0,2.5]")
        rows.append(numbers)
    longest = max(len(numbers) for numbers in rows)
    return np.array([numbers + [0.0] * (longest - len(numbers)) for numbers in rows]).reshape(len(rows), longest)


def half_set_numbers(path: str | Path, particles: pd.DataFrame) -> NDArray[np.int64]:
    """Half-set of each image: 1, 2, or 0 for those without.

    Args:
        path: path of the file, for messages.
        particles: canonical table of images.

    Raises:
        FileError: rlnRandomSubset has another value than 0, 1 and 2.
    """
    if "rlnRandomSubset" not in particles:
        return np.zeros(len(particles), np.int64)
    half = finite_numbers(path, particles, "rlnRandomSubset")
    wanted = "half-set 1 or 2, or 0 for an image in neither"
    said = particles["rlnRandomSubset"].to_numpy()
    require_rows(path, "rlnRandomSubset", said, np.isin(half, (0, 1, 2)), wanted, "particles")
    return half.astype(np.int64)


def check_repeats(path: str | Path, particles: pd.DataFrame, labels: Int[ArrayLike, " n"], half: Int[ArrayLike, " n"]) -> None:
    """Refuse an image in both half-sets, whose noise would make them agree; warn of images that a file repeats.

    After symmetry expansion each image appears as often as the others, with different poses: this brings no warning.

    Args:
        path: path of the file, for messages.
        particles: canonical table of images.
        labels: number of each distinct image, see `stack_names.image_labels`.
        half: half-set of each image.

    Raises:
        FileError: an image is in both half-sets.
    """
    number, sets = np.asarray(labels), np.asarray(half)
    counts = np.bincount(number)
    if (counts == 1).all():
        return
    first = np.unique(number, return_index=True)[1]
    if (both := np.logical_and(*(np.bincount(number, sets == half_set) > 0 for half_set in (1, 2)))).any():
        row = int(first[np.argmax(both)])
        told = f"image {particles['rlnImageName'].iloc[row]} is in both half-sets (row {row + 1} and another); {both.sum()}"
        advice = "expected every row of an image in one half-set, or the half-maps share its noise and agree to Nyquist"
        raise FileError(f"{path}: {told} of {len(counts)} images like it; {advice}")
    poses = particles[[name for name in POSE if name in particles]].apply(pd.to_numeric, errors="coerce").round(3)
    same = poses.assign(label=number).duplicated().to_numpy()
    if same.any() or len(np.unique(counts)) > 1:
        row = int(np.argmax(same if same.any() else pd.Series(number).duplicated().to_numpy()))
        kind = f"{same.sum()} of them with the same pose" if same.any() else "some more often than others"
        told = f"{len(number) - len(counts)} rows repeat an image of another row, {kind}, first row {row + 1}"
        count = f"{particles['rlnImageName'].iloc[row]}): each counts again"
        warnings.warn(f"{path}: {told} ({count}", DataWarning, stacklevel=4)


def check_second_origin(path: str | Path, particles: pd.DataFrame, name: str, pixel: NDArray[np.float64]) -> None:
    """Refuse an origin in pixels (RELION 3.0) that contradicts the one in angstroms (3.1) beside it.

    Args:
        path: path of the file, for messages.
        particles: table of images with both columns.
        name: column in pixels, without Angst.
        pixel: pixel size of each image in the file.

    Raises:
        FileError: they differ by more than 0.05 pixels.
    """
    old, new = finite_numbers(path, particles, name), finite_numbers(path, particles, f"{name}Angst")
    if (wrong := np.abs(old * pixel - new) > 0.05 * pixel).any():
        row = int(np.argmax(wrong))
        both = f"{name} {old[row]:g} px is {old[row] * pixel[row]:g} A, but {name}Angst is {new[row]:g} A"
        raise FileError(f"{path}: particles, row {row + 1}: {both}; expected one origin: remove the wrong column")


def check_second_pixel(path: str | Path, optics: pd.DataFrame, particles: pd.DataFrame, detector: tuple[str, str]) -> None:
    """Warn of other columns with a pixel size, at which RELION 3.1 does not look, that contradict rlnImagePixelSize.

    Args:
        path: path of the file, for messages.
        optics: canonical table of optics groups.
        particles: canonical table of images.
        detector: columns of RELION 3.0: detector pixel in micrometres, and magnification.
    """
    group = pd.Index(optics["rlnOpticsGroup"].astype(float)).get_indexer(particles["rlnOpticsGroup"].astype(float))
    pixel = optics["rlnImagePixelSize"].to_numpy(float)[group]
    others = {}
    if set(detector) <= set(particles):
        side, magnification = (finite_numbers(path, particles, name) for name in detector)
        others[" and ".join(detector)] = 1e4 * side / np.where(magnification == 0, np.nan, magnification)
    for table, index in ((optics, group), (particles, slice(None))):
        if "rlnPixelSize" in table:
            others["rlnPixelSize"] = pd.to_numeric(table["rlnPixelSize"], errors="coerce").to_numpy(float)[index]
    for name, values in others.items():
        if (off := ~(np.abs(values - pixel) <= 0.01 * pixel)).any():
            row = int(np.argmax(off))
            both = f"{pixel[row]:g} A from rlnImagePixelSize, another from {name} ({values[row]:g} A)"
            told = f"{path}: row {row + 1}: pixel size {both}; lfjax follows the first"
            warnings.warn(told, DataWarning, stacklevel=4)
