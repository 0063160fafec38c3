"""Names of images in particle files: number and stack, where the stack is, and images that a file names several times."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int
from numpy.typing import NDArray

from lfjax.errors import DataWarning, FileError
from lfjax.io.star import Tables
from lfjax.tomography.cs_fields import without_uid


def image_name(path: str | Path, row: int, name: Any) -> tuple[int, str]:
    """Number, from 0, and stack of the image that a name such as "000003@a.mrcs" stands for.

    Args:
        path: path of the file, for messages.
        row: row of the name, from 0, for messages.
        name: the name.

    Raises:
        FileError: it is no such name.
    """
    number, at, stack = str(name).partition("@")
    if not (at and number.isdigit() and int(number) >= 1 and stack):
        raise FileError(f"{path}: row {row + 1}, image name {name!r}; expected NUMBER@STACK with numbers from 1")
    return int(number) - 1, stack


def image_labels(names: list[tuple[int, str]]) -> Int[NDArray[np.int64], " n"]:
    """One number for each distinct image, whichever way its stack is written: "./a.mrcs" is "a.mrcs".

    Args:
        names: number and stack of each image.
    """
    plain = {stack: os.path.normpath(stack) for _, stack in names}
    return pd.factorize(pd.MultiIndex.from_arrays([[i for i, _ in names], [plain[s] for _, s in names]]))[0].astype(np.int64)


def find_beside(path: Path, name: str, folder: Path | None = None) -> Path:
    """Path of a file that another one names, relative to a project folder, which is often above that of the other.

    Where there is none, a file without cryoSPARC's uid before its name is taken; for such a name, and in a `folder` that the
    caller gives, also one without the folders before it. (Otherwise a stack of that name may be another job's.)

    Args:
        path: the file that names it.
        name: the name.
        folder: the project folder; None: the folder of `path` or one above it.

    Raises:
        FileError: there is no such file.
    """
    places = [folder] if folder else [path.parent, *path.resolve().parents]
    plain = without_uid(name)
    for candidate in dict.fromkeys((name, plain, Path(plain).name if folder or plain != name else plain)):
        for place in places:
            if (place / candidate).is_file():
                return place / candidate
    where = f"{places[0]}{'' if folder else ' or above'}"
    raise FileError(f"{path}: stack {name} is not in {where}; give the folder that names are relative to (--folder, folder=)")


def names_from(tables: Tables, source: str | Path, target: str | Path, folder: str | Path | None = None) -> Tables:
    """The tables with names of stacks by which a file in another folder finds them too; a `DataWarning` names a change.

    A stack that `find_beside` finds from the target as from the source keeps its name. Another one, which is there, is named
    relative to the folder of the target; one that is not there keeps its name.

    Args:
        tables: canonical tables of the source.
        source: path of the file that the tables come from.
        target: path of the file to write.
        folder: folder that names are relative to; None: that of the source or one above it.
    """
    source, target, place = Path(source), Path(target), None if folder is None else Path(folder)
    particles = tables["particles"]
    parts = particles["rlnImageName"].astype(str).str.partition("@")
    changed = {}
    for name in parts[2].unique():
        try:
            found = find_beside(source, name, place).resolve()
        except FileError:
            continue
        try:
            kept = find_beside(target, name).resolve() == found
        except FileError:
            kept = False
        if not kept:
            changed[name] = os.path.relpath(found, target.resolve().parent)
    if not changed:
        return tables
    first, new = next(iter(changed.items()))
    told = f"stacks are named relative to the folder of this file, {first} as {new}"
    warnings.warn(f"{target}: {told}; run RELION or import from there", DataWarning, stacklevel=3)
    named = parts[0] + parts[1] + parts[2].map(lambda name: changed.get(name, name))
    return tables | {"particles": particles.assign(rlnImageName=named)}
