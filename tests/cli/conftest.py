"""The command in this process, and a folder with a simulated frame."""

import contextlib
import io
import os
import sys
import warnings
from typing import NamedTuple

import pytest


class Done(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def lfjax():
    """The command: `lfjax(*arguments, cwd=folder)`; its cache is the folder's."""
    from lfjax.cli import main

    def run(*arguments, cwd) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.chdir(cwd)
            patch.setattr(sys, "argv", ["lfjax", *map(str, arguments)])
            patch.setattr(warnings, "showwarning", warnings.showwarning)  # which the command replaces
            patch.setenv("LFJAX_CACHE", str(cwd / "cache"))
            patch.setenv("JAX_COMPILATION_CACHE_DIR", os.environ.get("JAX_COMPILATION_CACHE_DIR", ""))
            try:
                main.run()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
        return Done(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def folder(lfjax, tmp_path_factory):
    """A simulated recording in `sim`, of 8 x 8 lenslets and 4 depths."""
    folder = tmp_path_factory.mktemp("cli")
    size = ("--lenslets", 8, "--count", 4, "--z=-1.5:1.5:1", "--voxels", 2)
    done = lfjax("simulate", "--microscope", "60x1.2w", *size, "-o", "sim", cwd=folder)
    assert done.code == 0, done.err
    return folder
