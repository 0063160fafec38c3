"""One process per result: the owner is named, and a lock whose owner is gone locks nothing."""

import json
import os
import subprocess
import sys
import threading

import pytest

from lfjax.errors import BusyError
from lfjax.io import locked
from lfjax.io.lock import lock_file
from lfjax.io.owner import is_alive, this_host

HOLD = """
import sys
from lfjax.io import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock of `x.zarr`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "x.zarr")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_owner_is_named_and_a_dead_one_is_replaced(tmp_path, other):
    path = tmp_path / "x.zarr"
    named = rf"x\.zarr: is being written by process {other.pid} on {this_host()} since 20\d\d-\d\d-\d\dT"
    with pytest.raises(BusyError, match=named), locked(path):
        pass
    with locked(path, 1), locked(tmp_path / "y.zarr"):  # of another process of the same job, and of another result
        pass
    other.kill()
    other.communicate()
    assert lock_file(path).exists()
    with locked(path), locked(path):  # the same thread may take it twice
        assert json.loads(lock_file(path).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_an_owner_that_ends_lets_go(tmp_path, other):
    other.communicate("")
    assert other.returncode == 0 and list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "x.zarr"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
    assert not is_alive(other.pid) and is_alive(os.getpid())


def test_two_threads_do_not_share_a_lock(tmp_path):
    found = []

    def take():
        try:
            with locked(tmp_path / "x.zarr"):
                found.append("taken")
        except BusyError as error:
            found.append(error)

    with locked(tmp_path / "x.zarr"):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert isinstance(found[0], BusyError)
