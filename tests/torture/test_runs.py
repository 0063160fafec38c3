"""A command that is interrupted, killed, and given a small disk; benchmarks/reliability_runs.py does it often, with all."""

import os
import signal
import time

import pytest

from benchmarks import torture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Inputs of the commands."""
    folder = tmp_path_factory.mktemp("torture")
    torture.make_data(folder, frames=20, steps=10)
    return folder


def test_a_movie_that_is_interrupted_and_killed_says_so_and_resumes(folder):
    case, ends = torture.cases()["movie"], {}
    for name in ("whole", "stopped"):
        (folder / name).mkdir()
    for how in (signal.SIGINT, signal.SIGKILL):
        process = torture.start(folder, *torture.command(case, folder / "stopped"))
        partial, deadline = folder / "stopped" / case.states[0], time.time() + 240
        before = len(list(partial.glob("0/c/*/0/0/0")))
        while len(list(partial.glob("0/c/*/0/0/0"))) <= before and process.poll() is None and time.time() < deadline:
            time.sleep(0.005)
        process.send_signal(how)
        ends[how] = torture.finish(process)
    end = ends[signal.SIGINT]
    if end.code != 0:  # else all was written before the signal came
        assert end.code == 130 and not end.raw, end.err
        assert end.told == [f"lfjax: interrupted; finished chunks are kept in {partial}, and the same command resumes"]
    for name in ("stopped", "whole"):
        done = torture.run(folder, *torture.command(case, folder / name))
        assert done.code == 0 or "this file exists" in done.err
    assert torture.digest(folder / "stopped" / case.output) == torture.digest(folder / "whole" / case.output)
    assert torture.leftovers(folder) == []


def test_a_disk_of_one_page(folder):
    if not torture.can_mount():
        pytest.skip("this user may not mount a disk of his own")
    case = torture.cases()["project"]
    done, wrong = torture.on_full_disk(folder, case, os.sysconf("SC_PAGE_SIZE"), "", mounted=True)
    assert done.code == 1 and wrong == []
