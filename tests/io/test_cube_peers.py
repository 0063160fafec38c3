"""Files of spectra between lfjax and PyMca, and the real spectra that PyMca brings: bit for bit."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from lfjax import io
from lfjax.errors import FileError
from tests.io import cube_examples as examples
from tests.io.cube_examples import COUNTS

PyMca5 = pytest.importorskip("PyMca5")
DATA = Path(PyMca5.__file__).parent / "PyMcaData"


@pytest.mark.parametrize("order", ["LowByteFirst", "HighByteFirst"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", "f4", "f8"])
def test_edf_that_pymca_writes(tmp_path, order, dtype):
    from PyMca5.PyMcaIO.EdfFile import EdfFile

    values = (COUNTS % 250).astype(dtype)
    for k, row in enumerate(values):
        for path, append in ((tmp_path / "all.edf", k > 0), (tmp_path / f"row_{k:04d}.edf", False)):
            about = {"MCA a": "-0.1", "MCA b": "0.5", "MCA c": "0.0"}
            EdfFile(str(path), access="ab+").WriteImage(about, row, Append=int(append), ByteOrder=order)
    for name in ("all.edf", "row_0000.edf"):
        cube = io.open_cube(tmp_path / name)
        assert cube.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(cube.read(range(4)), values)
        np.testing.assert_allclose(cube.energy, (-100, 500))


def test_edf_of_64_bits_whose_header_says_32_is_refused(tmp_path):
    """PyMca writes 64-bit integers as UnsignedLong, and half their size: other programs would read other counts."""
    from PyMca5.PyMcaIO.EdfFile import EdfFile

    EdfFile(str(tmp_path / "a.edf"), access="ab+").WriteImage({}, COUNTS[0].astype(np.uint64), Append=0)
    with pytest.raises(FileError, match=r"a\.edf: no header at byte \d+"):
        io.open_cube(tmp_path / "a.edf")


def test_edf_of_these_tests_is_read_by_pymca(tmp_path):
    from PyMca5.PyMcaIO.EDFStack import EDFStack

    examples.write_edf_rows(tmp_path)
    stack = EDFStack(sorted(str(path) for path in tmp_path.iterdir()))
    np.testing.assert_array_equal(stack.data, COUNTS)


@pytest.mark.parametrize("record", ["vector", "image"])
def test_a_ripple_is_read_as_pymca_reads_it(tmp_path, record):
    from PyMca5.PyMcaIO.LispixMap import LispixMap

    path = examples.write_ripple(tmp_path, record_by=record)
    with io.open_cube(path) as cube:
        np.testing.assert_array_equal(cube.read(range(4)), LispixMap(str(path)).data)


def test_hdf5_goes_both_ways(tmp_path):
    from PyMca5.PyMcaCore.NexusTools import getMcaObjectPaths
    from PyMca5.PyMcaIO.ArraySave import save3DArrayAsHDF5
    from PyMca5.PyMcaIO.HDF5Stack1D import HDF5Stack1D

    live = np.random.default_rng(0).uniform(1, 2, (4, 5))
    io.write_cube(tmp_path / "ours.h5", COUNTS, io.EnergyAxis(-100.0, 500.0), live_s=live, pixel_um=(500.0, 250.0))
    stack = HDF5Stack1D([str(tmp_path / "ours.h5")], {"y": "/data/counts"})
    np.testing.assert_array_equal(stack.data, COUNTS)
    np.testing.assert_allclose(stack.info["McaCalib"], (-0.1, 0.5, 0.0))
    np.testing.assert_array_equal(np.ravel(stack.info["McaLiveTime"]), live.ravel())
    with h5py.File(tmp_path / "ours.h5") as file:
        assert {"calibration", "live_time"} <= set(getMcaObjectPaths(file, "/entry/data/counts"))
    save3DArrayAsHDF5(COUNTS, str(tmp_path / "theirs.h5"), interpretation="spectrum")
    with io.open_cube(tmp_path / "theirs.h5") as cube:
        np.testing.assert_array_equal(cube.read(range(4)), COUNTS)
    save3DArrayAsHDF5(COUNTS, str(tmp_path / "images.h5"), mcaindex=2, interpretation="image")
    with io.open_cube(tmp_path / "images.h5") as cube:
        np.testing.assert_array_equal(cube.read(range(4)), COUNTS)


@pytest.mark.parametrize(("name", "channels"), [("XRFSpectrum.mca", 4096), ("Steel.spe", 2048)])
def test_the_real_spectra_of_pymca(name, channels):
    from PyMca5.PyMcaIO.specfilewrapper import Specfile

    cube = io.open_cube(DATA / name)
    assert cube.shape == (1, 1, channels)
    scan = Specfile(str(DATA / name))[0]
    np.testing.assert_array_equal(cube.read(range(1))[0, 0], scan.mca(1) if scan.nbmca() else scan.datacol(2))


def test_an_amptek_spectrum_is_calibrated_as_pymca_does(tmp_path):
    from PyMca5.PyMcaIO.specfilewrapper import Specfile

    path = examples.write_amptek(tmp_path)
    scan = Specfile(str(path))[0]
    np.testing.assert_array_equal(io.open_cube(path).read(range(1))[0, 0], scan.mca(1))
    zero, gain = map(float, scan.header("@CALIB")[0].split()[1:3])
    np.testing.assert_allclose(io.open_cube(path).energy, (1e3 * zero, 1e3 * gain), rtol=1e-6)


def test_a_large_cube_is_never_whole_in_memory(tmp_path):
    """128 x 256 points of 2048 channels, 256 MiB: written and read with a quarter of that and less."""
    resource = pytest.importorskip("resource")
    if sys.platform != "linux":
        pytest.skip("peak memory in KiB is that of Linux")
    path = tmp_path / "big.h5"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    io.write_cube(path, (np.full((4, 256, 2048), k, np.uint32) for k in range(32)), None)
    with io.open_cube(path) as cube:
        total = sum(int(block.sum()) for _, block in cube.blocks(8))
    assert total == sum(range(32)) * 4 * 256 * 2048
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 96 * 1024
