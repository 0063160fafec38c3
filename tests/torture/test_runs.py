"""Commands that are killed, interrupted and started twice, small; benchmarks/reliability_runs.py does it often."""

import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks import torture
from lfjax.io.lock import lock_file

HOLD = """
import sys, time
from lfjax.io.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Inputs of the commands, whose programs are compiled."""
    folder = tmp_path_factory.mktemp("torture")
    torture.make_data(folder, frames=20, steps=10)
    return folder


def test_a_movie_that_is_interrupted_says_so_and_resumes(folder):
    case = torture.cases()["movie"]
    wanted, _ = torture.whole(folder, case)
    work = folder / "stopped"
    work.mkdir()
    for how in (signal.SIGINT, signal.SIGKILL):
        process = torture.start(folder, *torture.command(case, work))
        partial, deadline = work / case.states[0], time.time() + 120
        while not list(partial.glob("0/c/*/*/*/*")) and process.poll() is None and time.time() < deadline:
            time.sleep(0.01)
        process.send_signal(how)
        end = torture.finish(process)
        if how == signal.SIGINT and end.code:
            assert end.code == 130 and not end.raw, end.err
            assert end.told == [f"lfjax: interrupted; finished chunks are kept in {partial}, and the same command resumes"]
            assert torture.leftovers(work) == []
    done = torture.run(folder, *torture.command(case, work))
    if done.code:  # the first run had ended before its signal
        assert "this file exists" in done.err
    assert torture.digest(work / case.output) == wanted
    assert torture.leftovers(work) == []


RESULTS = {"movie": "x.zarr", "neurons": "x.h5", "train": "run", "abinitio": "x.mrc"}


@pytest.mark.parametrize(("name", "result"), RESULTS.items())
def test_a_result_that_another_process_writes_is_left_to_it(folder, name, result):
    case, work = torture.cases()[name], folder / f"{name}-busy"
    work.mkdir()
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(work / result)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    done = torture.run(folder, *torture.command(case, work))
    other.kill()
    other.communicate()
    assert done.code == 1 and not done.raw
    assert len(done.told) == 1 and f"{work / result}: is being written by process {other.pid} on " in done.told[0]
    assert lock_file(work / result).exists()  # the killed process left it, and it locks nothing: `test_lock.py`


@pytest.mark.parametrize("name", ["project", "backproject", "reconstruct", "train"])
def test_a_full_disk_is_one_line_and_nothing_left(folder, name):
    done, wrong = torture.on_full_disk(folder, torture.cases()[name], 1500, "")
    assert done.code == 1 and wrong == []


def test_a_full_disk_that_is_mounted(folder):
    if not torture.can_mount():
        pytest.skip("this user may not mount a disk of his own")
    case = torture.cases()["reconstruct"]
    done, wrong = torture.on_full_disk(folder, case, os.sysconf("SC_PAGE_SIZE"), "", mounted=True)
    assert done.code == 1 and wrong == []


def test_a_psf_is_delivered_where_only_its_cache_is_full(folder):
    case, work = torture.cases()["psf"], folder / "psf-uncached"
    wanted, _ = torture.whole(folder, case)
    work.mkdir()
    (folder / "file").write_text("in the place of the cache")
    done = torture.run(folder, *torture.command(case, work), cache=folder / "file")
    assert done.code == 0 and "warning: the PSF was not cached: " in done.err
    assert torture.digest(work / case.output) == wanted
