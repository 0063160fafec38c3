"""Calls of every command that cannot be meant, each refused before any work: exit code 2 (1 where work had begun), one line, no
file left behind.

A case is a command line and words that the message must hold: the option or the file, so that the user knows where to look.
`failures` runs `bad_call_table` in one process, for the test `tests/cli/test_bad_calls.py` and for `benchmarks.reliability`.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import tifffile

from benchmarks.bad_call_table import CALLS, Case
from benchmarks.common import Report
from lfjax.cli import main
from lfjax.io import write_map, write_stack


class Outcome(NamedTuple):
    """What a call did.

    Attributes:
        code: exit code; -1: it ended with a traceback.
        errors: lines on standard error.
        changed: files that are new, gone or other than before.
    """

    code: int
    errors: tuple[str, ...]
    changed: tuple[str, ...]

    def faults(self, case: Case) -> list[str]:
        """What is wrong with it; nothing, if the call was refused as it should."""
        found = [] if self.code in (1, 2) else [f"exit code {self.code}"]
        found += [] if len(self.errors) == 1 else [f"{len(self.errors)} lines"]
        found += [] if case.says in " ".join(self.errors) else [f"says no {case.says!r}"]
        found += [f"left {', '.join(self.changed)}"] if self.changed else []
        return [f"lfjax {case.line}: {', '.join(found)}: {' | '.join(self.errors)[:300]}"] if found else []


"""Calls of all commands."""

DETECTOR = """[detector]
channels = 128
gain_ev = 20.0
offset_ev = 0.0
noise_ev = 80.0
fano = 0.115
"""
WRONG = "[volume]\nz_um = 'abc'\n"
RECIPE = """[microscope]
preset = "20x0.5"
pixels_per_lenslet = 5
[volume]
z_um = [-1, 1]
voxels_per_lenslet = 2
lenslets = 3
[training]
steps = 1
"""
STAR = """data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
1 one 300 2.7 0.1 2.0 8 2

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnAngleRot #3
_rlnAngleTilt #4
_rlnAnglePsi #5
_rlnOriginXAngst #6
_rlnOriginYAngst #7
_rlnDefocusU #8
_rlnDefocusV #9
_rlnDefocusAngle #10
_rlnRandomSubset #11
"""


def make_inputs(folder: Path) -> None:
    """Small files of every kind that the calls name: good ones, and some with a single wrong value."""
    rng = np.random.default_rng(0)
    (folder / "folder").mkdir()
    raw = rng.integers(100, 200, (48, 48)).astype(np.uint16)
    tifffile.imwrite(folder / "raw.tif", raw)
    tifffile.imwrite(folder / "nan.tif", np.where(raw > 190, np.nan, raw).astype(np.float32))
    np.save(folder / "complex.npy", raw.astype(np.complex64))
    for name, kind in (("raw", np.uint16), ("complex", np.complex64)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("frames", data=np.stack([raw, raw[::-1], raw.T]).astype(kind))
            file["frames"].attrs["frame_s"] = 0.01
    density = rng.random((8, 8, 8)).astype(np.float32)
    write_map(folder / "map.mrc", density, 2.0)
    write_stack(folder / "stack.mrcs", density, 2.0)
    broken = bytearray((folder / "map.mrc").read_bytes())
    broken[1024:1028] = np.float32(np.nan).tobytes()
    (folder / "nan.mrc").write_bytes(broken)
    rows = [f"{i + 1}@stack.mrcs 1 {10 * i} {20 * i} 5 0.5 0.5 9000 9500 30 {1 + i % 2}" for i in range(8)]
    (folder / "particles.star").write_text(STAR + "\n".join(rows) + "\n", encoding="utf-8")
    rows[2] = rows[2].replace(" 40 ", " nan ")
    (folder / "nan.star").write_text(STAR + "\n".join(rows) + "\n", encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "wrong.toml").write_text(WRONG, encoding="utf-8")
    (folder / "session.toml").write_text("[session]\nlab = 'one'\n", encoding="utf-8")
    np.save(folder / "cube.npy", rng.integers(1, 9, (2, 3, 64)).astype(np.uint16))
    (folder / "detector.toml").write_text(DETECTOR, encoding="utf-8")
    (folder / "scope.toml").write_text("magnification = 20.0\n", encoding="utf-8")


def attempt(line: str, folder: Path) -> Outcome:
    """Run a command line in a folder, in this process."""
    before, out, err = _files(folder), io.StringIO(), io.StringIO()
    with _standing(folder, line), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main.run()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except Exception as error:  # a traceback of the user
            code = -1
            err.write(f"{type(error).__name__}: {error}")
    after = _files(folder)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return Outcome(code, tuple(err.getvalue().strip().splitlines()), tuple(changed))


@contextlib.contextmanager
def _standing(folder: Path, line: str) -> Iterator[None]:
    """Stand in a folder with the arguments of a command line, and go back."""
    here, arguments, show = Path.cwd(), sys.argv, warnings.showwarning
    known = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")  # no cache for programs that no call may need
    os.chdir(folder)
    sys.argv = ["lfjax", *shlex.split(line)]
    try:
        yield
    finally:
        os.chdir(here)
        sys.argv, warnings.showwarning = arguments, show
        if known is None:
            os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything in a folder."""
    return {
        str(path.relative_to(folder)): (stat.st_size if path.is_file() else 0, stat.st_mtime_ns if path.is_file() else 0)
        for path in folder.rglob("*")
        for stat in [path.lstat()]
    }


def failures(folder: Path, cases: Iterable[Case] = CALLS) -> list[str]:
    """One line for each call that is not refused as it should be.

    Args:
        folder: an empty folder, in which `make_inputs` makes the files.
        cases: the calls.
    """
    make_inputs(folder)
    return [fault for case in cases for fault in attempt(case.line, folder).faults(case)]


def call_rows(report: Report, *, toy: bool) -> None:
    """The row of the calls that are not refused as they should be.

    Args:
        report: takes the row.
        toy: whether only every tenth call is tried.
    """
    cases = CALLS[::10] if toy else CALLS
    with tempfile.TemporaryDirectory() as name:
        found = failures(Path(name), cases)
    for fault in found:
        print(fault)
    report.at_most(f"bad calls, {len(cases)} over all commands: not exit code 2 or 1, several lines, files left", len(found), 0)
