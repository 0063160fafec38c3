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

STACK_SUFFIXES = {".mrc", ".mrcs", ".map", ".st", ".ali", ".rec"}
"""Suffixes of MRC files, as RELION, IMOD and cryoSPARC write them; .gz or .bz2 may follow."""


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


def same_images(
    first: list[tuple[int, str]], second: list[tuple[int, str]]
) -> tuple[Int[NDArray[np.int64], " m"], Int[NDArray[np.int64], " m"]]:
    """Rows of two particle files that name one image, in the order of the first file.

    Images are one where number and stack are, whichever way the stack is written; in files without such an image, where number
    and file name of the stack are, without its folder and without cryoSPARC's uid.

    >>> same_images([(0, "a.mrcs"), (1, "a.mrcs")], [(1, "J1/005213665113010562610_a.mrcs")])
    (array([1]), array([0]))

    Args:
        first: number and stack of each image of a file.
        second: those of another.

    Raises:
        FileError: several rows of a file name an image that the other has too.
    """
    for plain in (os.path.normpath, _file_name):
        places: list[dict[tuple[int, str], list[int]]] = [{}, {}]
        for names, rows in zip((first, second), places, strict=True):
            for row, (number, stack) in enumerate(names):
                rows.setdefault((number, plain(stack)), []).append(row)
        common = [image for image in places[0] if image in places[1]]
        for rows in places:
            if several := next((image for image in common if len(rows[image]) > 1), None):
                told = f"image {several[0] + 1} of {several[1]} stands in {len(rows[several])} rows of a file"
                raise FileError(f"{told}; expected one row per image in both files")
        if common:
            break
    i, j = ([rows[image][0] for image in common] for rows in places)
    return np.array(i, np.int64), np.array(j, np.int64)


def _file_name(stack: str) -> str:
    return without_uid(Path(stack).name)


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


def find_stack(path: Path, name: str, folder: Path | None = None) -> Path:
    """Path of the stack of images that a particle file names.

    RELION's projects name stacks by absolute paths and by paths that climb out of the folder of the file, so both are followed.
    What a name cannot do is to open a file that is no image: its suffix must be one that MRC images have, the file must have a
    header of that format, and no message quotes what is in it.

    Args:
        path: the particle file.
        name: the name of the stack.
        folder: the project folder, see `find_beside`.

    Raises:
        FileError: the name is that of no MRC file, or there is no such file.
    """
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    last = suffixes[-2:-1] if suffixes[-1:] in ([".gz"], [".bz2"]) else suffixes[-1:]
    if not set(last) & STACK_SUFFIXES:
        raise FileError(f"{path}: stack {name!r}; expected an MRC file, {', '.join(sorted(STACK_SUFFIXES))}")
    return find_beside(path, name, folder)


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
