"""STAR files as tables (Hall, J. Chem. Inf. Comput. Sci. 31, 326 (1991)); for RELION's particles see `particle_file`."""

from __future__ import annotations

import linecache
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import starfile

from lfjax.errors import FileError
from lfjax.io.arrays import reading
from lfjax.io.atomic import writing
from lfjax.io.texts import read_text

Tables = dict[str, pd.DataFrame]


def read_star(path: str | Path) -> Tables:
    """Read every data block of a STAR file as a table, by name ("optics", "particles"; "" for a block without a name).

    A block of single values becomes a table of one row.

    Raises:
        FileError: the file is missing, broken, without a block, or not in UTF-8; two blocks or two columns of a block have one
            name; or a row has more or fewer fields than there are columns.
    """
    text = read_text(path, "STAR")
    with reading(path, "STAR"):
        _check(path, text)
        linecache.cache.pop(str(Path(path)), None)  # lines of an earlier version of the file
        try:
            blocks = starfile.read(path, always_dict=True)
        finally:
            linecache.cache.pop(str(Path(path)), None)  # starfile leaves them there when it fails
    if not blocks:
        raise FileError(f"{path}: no data block; expected a STAR file")
    return {name: block if isinstance(block, pd.DataFrame) else pd.DataFrame([block]) for name, block in blocks.items()}


def _check(path: str | Path, text: str) -> None:
    """Refuse what the reader below would take for something else: it keeps the last block of a name, and fills short rows."""
    block, seen, columns, rows, header = "", set[str](), list[str](), 0, False
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if line.startswith("data_"):
            block, columns, rows, header = line[5:], [], 0, False
            if block in seen:
                raise FileError(f"{path}: line {number}: a second block {block!r}; expected each name once: join their rows")
            seen.add(block)
        elif line.startswith("loop_"):
            header = True
        elif header and line.startswith("_"):
            name = line.split()[0][1:]
            if name in columns:
                raise FileError(f"{path}: block {block!r}, line {number}: a second column {name}; expected each name once")
            columns.append(name)
        elif columns and line and line[0] != "#":
            header, rows = False, rows + 1
            fields = len(_fields(line) if any(mark in line for mark in "#\"'") else line.split())
            if fields != len(columns):
                where = f"block {block!r}, row {rows} (line {number})"
                raise FileError(f"{path}: {where}: {fields} of {len(columns)} fields; expected one per column")


def _fields(line: str) -> list[str]:
    """Fields of a line, text in quotes as one, without a comment at its end."""
    return re.findall(r"\"[^\"]*\"|'[^']*'|[^\s\"'#]+", re.split(r"#(?=(?:[^\"']|\"[^\"]*\"|'[^']*')*$)", line)[0])


def write_star(path: str | Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables as loops, each float with enough digits to read back exactly."""
    exact = {name: table.apply(_digits) for name, table in tables.items()}
    with writing(path) as temporary:
        starfile.write(exact, temporary)


def _digits(column: pd.Series) -> pd.Series:
    return column.map(repr) if pd.api.types.is_float_dtype(column) else column
