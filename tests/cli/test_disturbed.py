"""Commands that another process, a full disk or a signal disturbs: one line, the right exit code, nothing left behind."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lfjax.io import write_map
from lfjax.io.lock import lock_file

HOLD = """
import sys
from lfjax.io import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
RECIPE = '[microscope]\npreset = "25x1.0w"\n[volume]\nz_um = [0]\nvoxels_per_lenslet = 3\nlenslets = 13\n'
BUSY = {
    "movie": ("x.zarr", ("raw.h5", "--microscope", "60x1.2w", "-o", "x.zarr")),
    "neurons": ("x.h5", ("raw.h5", "--microscope", "60x1.2w", "-o", "x.h5")),
    "train": ("run", ("recipe.toml", "--folder", "run", "-o", "model.h5")),
    "abinitio": ("x.mrc", ("p.star", "-o", "x.mrc")),
}
CAMERA = ("--white", "sim/white.tif", "--microscope", "sim/microscope.toml", "--z=-1.5:1.5:1", "--voxels", 2)
FULL = {
    "project": ("map.mrc", "--n", 40, "-o", "new/full.star"),
    "rectify": ("sim/light_field.tif", *CAMERA[:4], "-o", "new/full.tif"),
    "reconstruct": ("sim/light_field.tif", *CAMERA, "--iterations", 1, "-o", "new/full.h5"),
    "psf": ("--microscope", "sim/microscope.toml", *CAMERA[4:], "-o", "new/full.h5"),
    "mask": ("map.mrc", "-o", "new/full.mrc"),
}


@pytest.fixture(scope="module")
def place(folder):
    grid = np.mgrid[:24, :24, :24] - 11.5
    write_map(folder / "map.mrc", np.exp(-(grid**2).sum(0) / 30).astype(np.float32), 2.0)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def names(folder):
    return {path for path in Path(folder).rglob("*") if "cache" not in path.parts}


@pytest.mark.parametrize("name", BUSY)
def test_a_result_that_another_process_writes_is_left_to_it(lfjax, place, name):
    result, arguments = BUSY[name]
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place / result)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    before = names(place)
    done = lfjax(name, *arguments, cwd=place)
    assert names(place) == before
    other.communicate("")
    assert done.code == 1 and not lock_file(place / result).exists()
    assert done.err.startswith(f"lfjax: {result}: is being written by process {other.pid} on ") and done.err.count("\n") == 1


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_is_one_line_and_nothing_left(lfjax, place, name):
    before, limits = names(place), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        done = lfjax(name, *FULL[name], cwd=place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = [line for line in done.err.splitlines() if line.startswith("lfjax: ")]
    assert done.code == 1 and len(told) == 1, done.err
    assert told[0].startswith("lfjax: no space left: new/full") and "3.00 kB free" in told[0]
    assert names(place) == before


@pytest.mark.parametrize("other", [None, ImportError])  # what a library makes of the interruption
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_says_what_is_kept(lfjax, place, monkeypatch, number, code, other):
    from lfjax import pipeline

    def interrupted(*_, **__):
        (place / ".half.zarr.partial" / "0").mkdir(parents=True, exist_ok=True)
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise (other("initialization failed") if other else error) from error

    done = lfjax("movie", "missing.h5", "--microscope", "60x1.2w", "-o", "half.zarr", cwd=place)
    assert done.code == 2 and "missing.h5" in done.err
    np.save(place / "raw.npy", np.ones((2, 8, 8), np.uint16))
    monkeypatch.setattr(pipeline, "reconstruct_movie", interrupted)
    done = lfjax("movie", "raw.npy", "--microscope", "60x1.2w", "-o", "half.zarr", cwd=place)
    assert done.code == code
    assert done.err == ("lfjax: interrupted; finished chunks are kept in .half.zarr.partial, and the same command resumes\n")
    assert not lock_file(place / "half.zarr").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
