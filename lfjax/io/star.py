"""STAR files as tables (Hall, J. Chem. Inf. Comput. Sci. 31, 326 (1991)); for RELION's particles see `particle_file`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import starfile

from lfjax.errors import FileError
from lfjax.io.arrays import reading
from lfjax.io.atomic import writing

Tables = dict[str, pd.DataFrame]


def read_star(path: str | Path) -> Tables:
    """Read every data block of a STAR file as a table, by name ("optics", "particles"; "" for a block without a name).

    A block of single values becomes a table of one row.

    Raises:
        FileError: the file is missing, broken, or without a block.
    """
    with reading(path, "STAR"):
        blocks = starfile.read(path, always_dict=True)
    if not blocks:
        raise FileError(f"{path}: no data block; expected a STAR file")
    return {name: block if isinstance(block, pd.DataFrame) else pd.DataFrame([block]) for name, block in blocks.items()}


def write_star(path: str | Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables as loops, each float with enough digits to read back exactly."""
    exact = {name: table.apply(_digits) for name, table in tables.items()}
    with writing(path) as temporary:
        starfile.write(exact, temporary)


def _digits(column: pd.Series) -> pd.Series:
    return column.map(repr) if pd.api.types.is_float_dtype(column) else column
