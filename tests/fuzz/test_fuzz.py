"""The fuzzer: that it finds each fault, that every reader is in its list, and a few of its cases; `make fuzz` runs them all."""

import ast
import pkgutil
import re
from pathlib import Path

import pytest

import lfjax
from tests.fuzz.campaign import campaign, faults, table
from tests.fuzz.faulty import KINDS
from tests.fuzz.readers import READERS

ROOT = Path(__file__).parents[2]
NAMES = re.compile(r"(read|open|load)(_\w+)?|find_model|from_toml|state|restore")
CALLS = re.compile(
    r"h5py\.File|np\.(load|memmap|fromfile)|TiffFile|tifffile\.\w*read|zarr\.open\w*|starfile\.read|tomllib\.loads?|json\.load"
    r"|gemmi\.read\w+|gzip\.\w+|bz2\.\w+|open|.*\.(open|read_text|read_bytes|open_group)"
)
COVERED = {f"lfjax.{name}" for reader in READERS.values() for name in reader.covers}
# Names like those of readers, and modules that open files, that read no file of a user: with the reason.
NO_READERS = {
    "lfjax._lazy.load": "modules",
    "lfjax.activity.extraction": "the time courses that it has just written",
    "lfjax.io.atomic": "files and folders that it has just written, to bring them to the disk",
    "lfjax.io.cache": "the kind of processor",
    "lfjax.io.chunk_store": "results of interrupted runs: see the tests of chunk stores",
    "lfjax.io.chunks": "results of interrupted runs: see the tests of chunk stores",
    "lfjax.io.hdf5.read_values": "a dataset of an open file",
    "lfjax.io.hdf5_attributes": "files that the readers of HDF5 have opened",
    "lfjax.io.limits": "free memory",
    "lfjax.io.lock": "the owner of a result, shown and not trusted",
    "lfjax.io.movie_source.read_frames": "frames of an open movie",
    "lfjax.pipeline.recording.open_recording": "frames of an open movie",
    "lfjax.training.saver": "checkpoints of interrupted runs: see the tests of resumed trainings",
    "lfjax.xrf.element_maps": "the maps that it has just written",
}


def modules():
    """Name and syntax tree of every module but those of the commands, which call the readers."""
    for found in pkgutil.walk_packages(lfjax.__path__, "lfjax."):
        path = ROOT / found.name.replace(".", "/")
        if not found.name.startswith("lfjax.cli"):
            yield found.name, ast.parse((path / "__init__.py" if found.ispkg else path.with_suffix(".py")).read_text())


def public_readers():
    """Full names of public functions and methods of public classes that are named like readers."""
    for module, tree in modules():
        for node in tree.body:
            parts = [node] if isinstance(node, ast.FunctionDef) else getattr(node, "body", [])
            holder = f".{node.name}" if isinstance(node, ast.ClassDef) else ""
            for part in parts:
                if not isinstance(part, ast.FunctionDef) or not NAMES.fullmatch(part.name) or "._" in holder:
                    continue
                wants = [argument.arg for argument in part.args.args if argument.arg not in ("self", "cls")]
                if wants or part.name in ("state", "restore"):
                    yield f"{module}{holder}.{part.name}"


def is_covered(name):
    return name in COVERED or name in NO_READERS or any(name.startswith(f"{other}.") for other in NO_READERS)


def test_every_public_reader_is_tried():
    found = sorted(set(public_readers()))
    assert len(found) > 30
    assert [name for name in found if not is_covered(name)] == []


def test_every_module_that_opens_files_to_read_has_a_reader_that_is_tried():
    """`cs_fields` is that of `cryosparc.read_cs`; `_lazy` reads the stubs of the package."""
    known = {"lfjax.tomography.cs_fields", *NO_READERS}
    for module, tree in modules():
        if module in known or any(name.startswith(f"{module}.") for name in (*COVERED, *NO_READERS)):
            continue
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and CALLS.fullmatch(ast.unparse(call.func)):
                values = [part.value for part in call.args if isinstance(part, ast.Constant)]
                assert set(values) & {"w", "w+", "wb", "w+b", "a"}, f"{module}, line {call.lineno}: {ast.unparse(call)}"


def test_every_covered_name_is_a_public_function_or_class():
    known = {f"{module}.{node.name}" for module, tree in modules() for node in tree.body if hasattr(node, "name")}
    for name in COVERED:
        assert name in known or name.rpartition(".")[0] in known, name


@pytest.mark.parametrize("reader", READERS.values(), ids=lambda one: one.name)
def test_the_good_files_are_read(reader, tmp_path):
    assert reader.read(reader.make(tmp_path)) is not None


def test_the_fuzzer_finds_each_fault():
    found = campaign(KINDS, range(1), processes=1)
    assert {one.reader: one.kind for one in found} == KINDS, table(found)


def test_a_few_mutated_files_are_right_or_refused_clearly():
    found = campaign(("frame .h5", "movie .tif", "map .mrc.gz", "microscope .toml"), range(25), processes=1)
    assert len(found) == 100
    assert faults(found) == [], table(found)
