"""Fields of cryoSPARC's result files (.cs), merged by uid: a job spreads what it knows of a particle over several files.

A .cs file is a NumPy structured array, one row per particle. The main file of a job holds what the job found, its passthrough
file holds what came from the jobs before. A .csg file is a short text that names the files of one group of results.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfjax.errors import FileError
from lfjax.io.arrays import reading
from lfjax.io.checked_numbers import finite_column, require_rows
from lfjax.io.npy import read_array
from lfjax.io.texts import read_text

Fields = dict[str, NDArray[Any]]
"""Values of each field, one row per particle."""

_UID = re.compile(r"^\d{15,21}_")
_METAFILE = re.compile(r"^\s+metafile:\s*['\"]?>?(?P<name>[^'\"#]+?)['\"]?\s*$")
_TYPE = re.compile(r"^\s+type:\s*['\"]?(?P<kind>[\w.]+)['\"]?\s*$")


def merge_cs(paths: str | Path | Sequence[str | Path]) -> Fields:
    """All fields of several .cs files, by name; each has one row per particle of the first file, in its order.

    A field that stands in several files is taken from the first that has it. Rows are matched by `uid`, never by their order.

    Args:
        paths: .cs files of one job, the main one first, or a .csg file that names them.

    Raises:
        FileError: a file is missing or broken, has no rows, no uid where several files are given, the same uid twice, or lacks
            a uid of the first file.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [file for path in given for file in _group_files(Path(path))]
    if not files:
        raise FileError("no file given; expected one or more .cs files")
    first, *others = files
    fields = _load(first)
    for path in others:
        found = _load(path)
        rows = _rows_of(path, found, first, fields)
        fields |= {name: values[rows] for name, values in found.items() if name not in fields}
    return fields


def _load(path: Path) -> Fields:
    with reading(path, "cryoSPARC .cs"):
        with open(path, "rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise FileError(f"{path}: not a NumPy file; expected a .cs file of cryoSPARC")
        rows = read_array(path)
        if rows.dtype.names is None or rows.ndim != 1:
            raise FileError(f"{path}: not a table with named fields; expected a .cs file of cryoSPARC")
    if not len(rows):
        raise FileError(f"{path}: no rows; expected one per particle")
    return {name: rows[name] for name in rows.dtype.names}


def _rows_of(path: Path, found: Fields, first: Path, fields: Fields) -> NDArray[np.intp]:
    """Row of `path` for each row of the first file."""
    for name, table in ((first, fields), (path, found)):
        if "uid" not in table:
            raise FileError(f"{name}: no field uid; expected one, by which several .cs files are merged")
        values, counts = np.unique(table["uid"], return_counts=True)
        if (counts > 1).any():
            raise FileError(f"{name}: uid {values[counts > 1][0]} stands in {counts.max()} rows; expected each uid once")
    order = np.argsort(found["uid"])
    place = np.minimum(np.searchsorted(found["uid"], fields["uid"], sorter=order), len(order) - 1)
    rows = order[place]
    absent = found["uid"][rows] != fields["uid"]
    if absent.all():
        raise FileError(f"{path}: no uid in common with {first}; expected files of one job, or a job and its passthrough")
    if absent.any():
        row = int(np.flatnonzero(absent)[0])
        raise FileError(
            f"{path}: {absent.sum()} of the {len(absent)} uids of {first} are missing, first {fields['uid'][row]} "
            f"(row {row + 1}); expected all of them"
        )
    return rows


def _group_files(path: Path) -> list[Path]:
    """The .cs files that a path stands for: itself, or those that a .csg file names."""
    if path.suffix.lower() != ".csg":
        return [path]
    lines = read_text(path, "cryoSPARC .csg").splitlines()
    names = [found["name"] for line in lines if (found := _METAFILE.match(line))]
    kinds = {found["kind"].split(".")[0] for line in lines if (found := _TYPE.match(line))}
    if not names or kinds - {"particle"}:
        wanted = "the group of a job's particles, whose results name .cs files as metafile"
        raise FileError(f"{path}: {len(names)} result files, results of type {sorted(kinds)}; expected {wanted}")
    folder, files = Path(os.path.abspath(path)).parent, [path.parent / name for name in dict.fromkeys(names)]
    for name, file in zip(dict.fromkeys(names), files, strict=True):
        if file.suffix != ".cs" or not Path(os.path.abspath(file)).is_relative_to(folder):
            raise FileError(f"{path}: names the file {name!r}; expected .cs files beside it, or give those files themselves")
        if not file.is_file():
            raise FileError(f"{path}: names the file {name!r}, which is missing; expected all files that it names")
    return files


def field_values(name: str, fields: Fields, field: str, *, prefix: str = "") -> NDArray[np.float64]:
    """A field as 64-bit floats.

    Args:
        name: of the files, for messages.
        fields: the fields.
        field: name of one of them.
        prefix: what stands before that name in the file.

    Raises:
        FileError: a value is NaN, infinite or huge; the message names file, field and row.
    """
    return finite_column(name, prefix + field, fields[field])


def whole_values(name: str, fields: Fields, field: str, *, prefix: str = "") -> NDArray[np.int64]:
    """A field as whole numbers; arguments as in `field_values`.

    Raises:
        FileError: a value is no whole number; the message names file, field and row.
    """
    values = field_values(name, fields, field, prefix=prefix)
    require_rows(name, prefix + field, values, values == np.round(values), "a whole number")
    return values.astype(np.int64)


def short_decimals(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """32-bit floats as the shortest decimals that name them: 1.31 and not 1.30999994."""
    distinct, inverse = np.unique(values.astype(np.float32), return_inverse=True)
    return distinct.astype("U32").astype(np.float64)[inverse.reshape(values.shape)]


def without_uid(name: str) -> str:
    """A path without the uid of 15 to 21 digits that cryoSPARC puts before the name of an imported file.

    >>> without_uid("J1/imported/005213665113010562610_a.mrcs")
    'J1/imported/a.mrcs'
    """
    folder, slash, last = name.rpartition("/")
    return folder + slash + _UID.sub("", last)
