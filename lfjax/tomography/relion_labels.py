"""Labels of RELION's STAR files that change the meaning of a particle image, and checks of their columns.

RELION defines some 600 labels (src/metadata_label.h of 3.1.3 and 5.0.1). Most describe how an image came about; those of
`relion_tables` are honoured. The few that change an image's meaning and that lfjax does not implement are refused by name, and
those that RELION's own `relion_reconstruct` leaves aside too are named in the notes of a file.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lfjax.errors import DataWarning, FileError
from lfjax.io.checked_numbers import finite_column
from lfjax.io.star import Tables

# label -> the value that changes nothing (None: the column itself is refused), and the reason
_REFUSED: dict[str, tuple[float | None, str]] = {
    "rlnImageDimensionality": (2, "lfjax reads 2-D images; extract 2-D stacks instead of 3-D sub-tomograms"),
    "rlnIsFlip": (0, "lfjax does not mirror images; mirror them first"),
    "rlnMagnificationCorrection": (1, "lfjax does not rescale images; give one pixel size per optics group"),
    "rlnEnabled": (1, "remove the rows that are switched off"),
    "rlnReconstructImageName": (None, "two sets of images; remove the column, or rename it to rlnImageName"),
    "rlnOriginZAngst": (0, "a 2-D image has no offset along z"),
    "rlnMatrix_1_1": (None, "poses as matrices are not read; give rlnAngleRot, rlnAngleTilt, rlnAnglePsi"),
    "rlnMovieFramesRunningAverage": (1, "running averages of frames count each frame several times; extract whole movies"),
}
_REFUSED_WITH_CTF: dict[str, tuple[float | None, str]] = {
    "rlnCtfDataAreCtfCorrected": (0, "the images have been divided by their CTF; say that they have none: ctf=False, --no-ctf"),
    "rlnCtfImage": (None, "images of CTF values are not read; remove the column, or say ctf=False, --no-ctf"),
}
# label -> the value that changes nothing (None: any)
_LEFT_ASIDE: dict[str, float | None] = {
    "rlnNormCorrection": 1,
    "rlnScaleCorrection": 1,
    "rlnGroupScaleCorrection": 1,
    "rlnImageWeight": 1,
    "rlnEnergyLoss": 0,
    "rlnLensStability": 0,
    "rlnConvergenceCone": 0,
    "rlnChromaticAberration": None,
    "rlnLongitudinalDisplacement": 0,
    "rlnTransversalDisplacement": 0,
    "rlnMicrographPreExposure": 0,
    "rlnCtfBfactorPerElectronDose": 0,
    "rlnMtfFileName": None,
}


def finite_numbers(path: str | Path, table: pd.DataFrame, name: str, block: str = "particles") -> NDArray[np.float64]:
    """Numbers (n,) of one column.

    Args:
        path: path of the file, for messages.
        table: the table.
        name: its column.
        block: name of the table, for messages.

    Raises:
        FileError: an entry is text, NaN, infinite or huge; the message names its row, from 1, and the column.
    """
    return finite_column(path, name, table[name].to_numpy(), block)


def all_or_none(path: str | Path, table: pd.DataFrame, names: tuple[str, ...]) -> bool:
    """Whether the table has these columns.

    Raises:
        FileError: it has some of them; the message names those missing.
    """
    missing = [name for name in names if name not in table]
    if missing and len(missing) < len(names):
        have = ", ".join(name for name in names if name in table)
        raise FileError(f"{path}: no column {' and no '.join(missing)} beside {have}; expected all of them or none")
    return not missing


def refuse_labels(path: str | Path, tables: Tables, *, ctf: bool = True) -> None:
    """Refuse labels that change the meaning of an image and that lfjax does not implement.

    Several classes in one file are read with a `DataWarning`, because a map is made from all images of a file.

    Args:
        path: path of the file, for messages.
        tables: canonical tables, see `relion_tables`.
        ctf: whether the CTF counts.

    Raises:
        FileError: there is such a label; the message names it and its first row.
    """
    refused = _REFUSED | (_REFUSED_WITH_CTF if ctf else {})
    for block in ("optics", "particles"):
        table = tables[block]
        for name in (n for n in refused if n in table):
            plain, reason = refused[name]
            if plain is None:
                raise FileError(f"{path}: {block}, column {name}: {reason}")
            other = finite_numbers(path, table, name, block) != plain
            if other.any():
                row = int(np.argmax(other))
                raise FileError(f"{path}: {block}, row {row + 1}, column {name}: {table[name].iloc[row]}; {reason}")
    particles = tables["particles"]
    if "rlnClassNumber" in particles and (count := particles["rlnClassNumber"].nunique()) > 1:
        warnings.warn(f"{path}: rlnClassNumber names {count} classes; lfjax reads the images of all", DataWarning, stacklevel=2)


def left_aside(tables: Tables) -> list[str]:
    """Columns with an effect that lfjax and `relion_reconstruct` do not apply, one line each.

    Args:
        tables: canonical tables, see `relion_tables`.
    """
    lines = []
    for block in ("optics", "particles"):
        for name in _LEFT_ASIDE.keys() & set(tables[block]):
            values, plain = tables[block][name], _LEFT_ASIDE[name]
            numbers = pd.to_numeric(values, errors="coerce")
            if plain is not None and (numbers == plain).all():
                continue
            span = sorted(values.astype(str).unique()) if plain is None else [numbers.min(), numbers.max()]
            lines.append(f"{name} ({' to '.join(str(v) for v in dict.fromkeys([span[0], span[-1]]))}): kept, not applied")
    return sorted(lines)
