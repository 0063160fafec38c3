"""Full disks, by a limit of the size of files: one line, and nothing left; HDF5 does not crash."""

import errno
import gc
import resource
import signal
import sys
import threading
import warnings

import h5py
import numpy as np
import pytest

from lfjax.errors import NoSpaceError, StorageWarning
from lfjax.io import new_hdf5, require_space, write_map, write_stack, write_star, write_volume, writing
from lfjax.io.atomic import together
from lfjax.io.disk_space import free_bytes, no_space, no_space_error

VALUES = np.random.default_rng(0).random((30, 64, 64)).astype(np.float32)


@pytest.fixture
def small():
    """Files of 64 kB at most, from the call on."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (1, 64, 64)}, {"chunks": (1, 64, 64), "compression": "gzip"}, {"chunks": (1, 8, 8), "fletcher32": True}],
    ids=["contiguous", "chunks", "compressed", "checksums"],
)
def test_hdf5_on_a_full_disk_raises_and_leaves_nothing(tmp_path, small, options):
    small()
    with pytest.raises(NoSpaceError, match="no space left: .*new/a.h5 needs more than 65.5 kB, 65.5 kB free"):
        with new_hdf5(tmp_path / "new" / "a.h5") as file:
            file.create_dataset("a", data=VALUES, **options)
            file.attrs["b"] = 1
    assert list(tmp_path.iterdir()) == []


def test_hdf5_reads_back_its_own_names_on_a_full_disk(tmp_path, small):
    small()
    with pytest.raises(NoSpaceError), new_hdf5(tmp_path / "a.h5") as file:
        for number in range(300):
            file.create_dataset(f"{number}/values", data=VALUES[0, :8])
            file.flush()
        np.testing.assert_array_equal(file["7/values"][()], VALUES[0, :8])
    assert list(tmp_path.iterdir()) == []


def test_what_hdf5_writes_through_is_the_same(tmp_path):
    with new_hdf5(tmp_path / "a.h5") as file, h5py.File(tmp_path / "b.h5", "w") as plain:
        for one in (file, plain):
            one.create_dataset("a", data=VALUES, chunks=(1, 64, 64), compression="gzip")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.fixture
def often_collected():
    """Garbage is collected all the time, so that Ctrl-C falls into it as well: Python drops what is raised there."""
    usual = gc.get_threshold()
    gc.set_threshold(3)
    yield
    gc.set_threshold(*usual)


@pytest.mark.parametrize("wait_s", [0.1, 0.13, 0.17, 0.2, 0.22])
def test_ctrl_c_while_hdf5_writes_waits_until_the_call_is_done(tmp_path, often_collected, wait_s):
    interrupt = threading.Timer(wait_s, signal.raise_signal, [signal.SIGINT])
    with pytest.raises(KeyboardInterrupt), new_hdf5(tmp_path / "a.h5") as file:
        interrupt.start()
        for number in range(10**5):
            file.create_dataset(str(number), data=number)
            file.flush()
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_size_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, small):
    small()
    for write in (
        lambda: write_volume(tmp_path / "a.h5", VALUES, (1, 1, 1)),
        lambda: write_volume(tmp_path / "a.tif", VALUES, (1, 1, 1)),
        lambda: write_map(tmp_path / "a.mrc", VALUES, 1.0),
        lambda: write_stack(tmp_path / "a.mrcs", VALUES, 1.0),
    ):
        with pytest.raises(NoSpaceError, match=r"a\.\w+ needs 49[0-9] kB, 65.5 kB free$"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_stack_whose_disk_fills_on_the_way(tmp_path, small):
    def batches():
        yield VALUES[:10]
        small()
        yield VALUES[10:]

    with pytest.raises(NoSpaceError, match="a.mrcs needs 493 kB"):
        write_stack(tmp_path / "a.mrcs", batches(), 1.0, count=30)
    assert list(tmp_path.iterdir()) == []


def test_libraries_that_hide_the_number_of_the_error(tmp_path, small):
    pandas = pytest.importorskip("pandas")
    small()
    with pytest.raises(NoSpaceError), writing(tmp_path / "a.npy") as temporary:
        np.save(temporary, VALUES)  # NumPy tells "123 requested and 45 written"
    with pytest.raises(NoSpaceError):
        write_star(tmp_path / "a.star", {"particles": pandas.DataFrame(VALUES[0])})
    assert list(tmp_path.iterdir()) == []


def test_errors_of_other_kinds_are_not_of_space(tmp_path):
    assert not no_space(PermissionError(errno.EACCES, "Permission denied"))
    assert no_space(OSError(errno.EDQUOT, "Disk quota exceeded"))
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("a library") from error
    except RuntimeError as wrapped:
        assert no_space(wrapped)
    told = str(no_space_error("x.h5", 2 * 10**9, OSError(errno.EDQUOT, "quota")))
    assert told.startswith("no space left: x.h5 needs 2.00 GB, ") and told.endswith(" free (a quota is reached)")
    assert free_bytes(tmp_path / "not" / "there" / "yet") > 0
    with pytest.raises(NoSpaceError, match="needs 1000000 TB"):
        require_space(tmp_path / "a", 10**18)


def test_a_killed_process_leaves_a_file_that_the_next_one_removes(tmp_path):
    import subprocess

    program = f"""
import os, signal
from lfjax.io import writing
with writing({str(tmp_path / "a.h5")!r}) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    assert len(list(tmp_path.iterdir())) == 1 and not (tmp_path / "a.h5").exists()
    with writing(tmp_path / "a.h5") as temporary:
        with writing(tmp_path / "a.h5") as other:  # of a running process: it stays
            other.write_text("inner")
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_files_that_belong_together(tmp_path):
    (tmp_path / "old").write_text("old")
    with pytest.raises(OSError), together(tmp_path / "old", tmp_path / "new"):
        (tmp_path / "new").write_text("new")
        raise OSError
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_cache_that_is_full_costs_no_psf(tmp_path, small):
    from lfjax.optics import Microscope, cached_psf

    scope = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5)
    wanted = cached_psf(scope, (0.0,), 2, cache=tmp_path / "whole", oversampling=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.warns(StorageWarning, match="the PSF was not cached: no space left: .* 1.00 kB free"):
            psf = cached_psf(scope, (0.0,), 2, cache=tmp_path / "full", oversampling=1)
    np.testing.assert_array_equal(psf.values, wanted.values)
    assert not (tmp_path / "full").exists()
