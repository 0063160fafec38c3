"""TOML files of every kind: a value of another type, a missing or an unknown key is refused by file and key, in one line."""

import dataclasses
import datetime
import math
import re
import tomllib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import optics
from lfjax.activity import read_session
from lfjax.errors import FileError, ParameterError
from lfjax.io.toml import of_table, read_toml, require_keys
from lfjax.linop import Identity
from lfjax.optics import PRESETS, Alignment, Microscope
from lfjax.optics.camera.lattice_cells import Lattice
from lfjax.optics.camera.pixels import Repair
from lfjax.optics.camera.rectify import Rectifier
from lfjax.training import Recipe

pytestmark = pytest.mark.usefixtures("unchecked")
SESSION = """[subject]
subject_id = "m17"
species = "Mus musculus"
sex = "F"
age = "P90D"
date_of_birth = 2025-11-01
description = "one"
genotype = "wild"
strain = "C57BL/6J"
weight = "21 g"
[session]
start = 2026-03-04T10:30:00+01:00
description = "one"
identifier = "one"
session_id = "one"
institution = "one"
lab = "one"
experimenter = ["Last, First"]
keywords = ["one"]
related_publications = ["doi:one"]
notes = "one"
[imaging]
location = "VISp"
indicator = "jGCaMP8f"
excitation_nm = 488.0
emission_nm = 515.0
depth_um = 150.0
"""
WRONG = {
    "text": "abc", "empty text": "", "number": 3.25, "true": True, "list": [1], "list of texts": ["a"], "nested": [[1, [2]]],
    "table": {"a": 1}, "date": datetime.date(2026, 1, 2), "time": datetime.time(1, 2), "nan": math.nan, "inf": math.inf,
    "negative": -7, "huge": 10**40, "empty list": [], "list of dates": [datetime.date(2026, 1, 2)],
}  # fmt: skip


def written(value):
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, (bool, str)):
        return str(value).lower() if isinstance(value, bool) else f'"{value}"'
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


def document(tables):
    plain = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    lines = [f"{key} = {written(value)}" for key, value in plain.items()]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {written(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def microscope(folder):
    scope = dataclasses.replace(PRESETS["60x1.2w"], alignment=Alignment(2500.0))
    return tomllib.loads(scope.to_toml()), Microscope.from_toml


def recipe(folder):
    tables = Recipe.from_dict({"microscope": {"preset": "20x0.5"}, "volume": SIZE}).to_dict()
    for table in tables.values():
        for key in [key for key, value in table.items() if value is None]:
            del table[key]
    return tables, Recipe.read


SIZE = {"z_um": [-1, 1], "voxels_per_lenslet": 2, "lenslets": 3}


def session(folder):
    return tomllib.loads(SESSION), read_session


def calibration(folder):
    scope, shape = PRESETS["20x0.5"], (66, 66)
    ones, none = jnp.ones(shape), np.zeros(shape, bool)
    lattice = Lattice(11.0, 0.0, 27.0, 27.0)
    made = Rectifier(Identity(shape), 0 * ones, None, Repair(none), None, ones > 0, lattice, (6, 6), 4e3, scope)
    optics.write_calibration(folder / "file.toml", made)
    return tomllib.loads((folder / "file.toml").read_text()), optics.read_calibration


KINDS = (microscope, recipe, session, calibration)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_value_of_any_key_is_named_with_its_file(kind, tmp_path):
    tables, read = kind(tmp_path)
    path = tmp_path / "file.toml"
    path.write_text(document(tables))
    read(path)
    places = [(key, None) for key in tables]
    places += [(name, key) for name, table in tables.items() if isinstance(table, dict) for key in table]
    for name, key in places:
        for what, value in WRONG.items():
            changed = tables | {name: value if key is None else tables[name] | {key: value}}
            path.write_text(document(changed))
            try:
                read(path)
            except FileError as error:
                told = str(error)
                assert re.match(rf"{re.escape(str(path.with_suffix('')))}\.(toml|h5): ", told), (name, key, what, told)
                assert "\n" not in told, (name, key, what, told)
                assert (key or name) in told or "digest" in told, (name, key, what, told)
            # another error is one of the kind "raw", and fails the test


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_unknown_keys_are_named_with_their_file(kind, tmp_path):
    tables, read = kind(tmp_path)
    path = tmp_path / "file.toml"
    for name, table in tables.items():
        path.write_text(document(tables | {"unheard_of": 1}))
        with pytest.raises(FileError, match=rf"{re.escape(str(path))}.*unheard_of"):
            read(path)
        if not isinstance(table, dict):
            continue
        path.write_text(document(tables | {name: table | {"unheard_of": 1}}))
        with pytest.raises(FileError, match=rf"{re.escape(str(path))}.*unheard_of"):
            read(path)
        for key in table:
            path.write_text(document(tables | {name: {one: value for one, value in table.items() if one != key}}))
            try:
                read(path)
            except FileError as error:
                assert str(error).startswith(f"{path}: ") and (key in str(error) or "digest" in str(error)), error


@pytest.mark.parametrize(
    "content",
    [b"", b"z = ", b"\xff\xfe", b"a = 1\na = 2\n", b"a = " + b"[" * 5000, b"a = " + b"9" * 9999, b"a = 2026-99-99", b"\0"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_file_is_named_in_one_line(kind, content, tmp_path):
    _, read = kind(tmp_path)
    path = tmp_path / "file.toml"
    path.write_bytes(content)
    if content or kind is not session:  # a session may say nothing
        with pytest.raises(FileError, match=re.escape(str(path))) as refused:
            read(path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_there_and_a_folder_are_named(kind, tmp_path):
    _, read = kind(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    for name in ("none.toml", "folder.toml"):
        with pytest.raises(FileError, match=name):
            read(tmp_path / name)


class Sample(NamedTuple):
    whole: int
    number: float
    text: str = "a"
    yes: bool = False
    several: tuple[float, ...] = ()
    pair: tuple[int, int] | None = None


def test_types_of_a_table():
    good = {"whole": 1, "number": 2, "text": "b", "yes": True, "several": [1, 2.5], "pair": [3, 4]}
    assert of_table(Sample, "sample", good) == Sample(1, 2, "b", True, (1, 2.5), (3, 4))
    assert of_table(Sample, "sample", {"whole": 1, "number": math.inf}) == Sample(1, math.inf)
    for key, value, expected in (
        ("whole", 1.5, "a whole number"), ("whole", True, "a whole number"), ("number", "1", "a number"),
        ("number", math.nan, "a number"), ("text", 1, "text"), ("yes", 1, "true or false"),
        ("several", [1, "a"], "a list of numbers"), ("several", 3, "a list of numbers"), ("pair", [1, 2, 3], "2 whole numbers"),
    ):  # fmt: skip
        with pytest.raises(ParameterError, match=rf"\[sample\] {key} = .*: expected {expected}"):
            of_table(Sample, "sample", good | {key: value})
    with pytest.raises(ParameterError, match=r"sample = 3: expected a table, \[sample\]"):
        of_table(Sample, "sample", 3)


def test_keys_of_a_table():
    require_keys("[a]", {"x": 1}, ("x", "y"), ("x",))
    with pytest.raises(ParameterError, match=r"\[a\]: unknown q; missing x: expected x, y"):
        require_keys("[a]", {"q": 1}, ("x", "y"), ("x",))


def test_tables_are_read(tmp_path):
    (tmp_path / "a.toml").write_text("[a]\nb = 1\n")
    assert read_toml(tmp_path / "a.toml", "a table") == {"a": {"b": 1}}
