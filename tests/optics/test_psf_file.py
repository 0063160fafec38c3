"""PSF files and their cache: equal on a hit, recovered when broken, apart when a parameter differs."""

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import FileError, ParameterError
from lfjax.optics import PSF, Microscope, cached_psf, compute_psf, psf_file, read_psf, write_psf

MICROSCOPE = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5, camera_pixel_um=6.5, name='tiny "µ"')
DEPTHS_UM = (0.0, 10.0)


@pytest.fixture(scope="module")
def psf():
    return compute_psf(MICROSCOPE, DEPTHS_UM, 2, oversampling=1)


def assert_same(a: PSF, b: PSF) -> None:
    np.testing.assert_array_equal(a.values, b.values)
    assert a.values.dtype == b.values.dtype
    assert (a.z_um, a.oversampling, a.convergence_error) == (b.z_um, b.oversampling, b.convergence_error)
    assert a.microscope.to_dict() == b.microscope.to_dict()


@pytest.fixture
def counted(monkeypatch, psf):
    """Counts the computations, and spares them."""
    calls = []

    def compute(microscope, z_um, s, *, tolerance=0.02, oversampling=None, lenslets=None, track=None):
        calls.append((tuple(z_um), s, oversampling))
        return psf

    monkeypatch.setattr(psf_file, "compute_psf", compute)
    return calls


def test_round_trip(tmp_path, psf):
    write_psf(tmp_path / "psf.h5", psf)
    assert_same(read_psf(tmp_path / "psf.h5"), psf)


def test_unmeasured_error_stays_unmeasured(tmp_path, psf):
    write_psf(tmp_path / "psf.h5", PSF(psf.values, MICROSCOPE, DEPTHS_UM))
    assert read_psf(tmp_path / "psf.h5").convergence_error is None


def test_cache_hit_is_equal_to_the_computed_psf(tmp_path, psf, monkeypatch):
    first = cached_psf(MICROSCOPE, DEPTHS_UM, 2, cache=tmp_path, oversampling=1)
    assert_same(first, psf)
    monkeypatch.setattr(psf_file, "write_psf", None)  # a second computation would fail
    assert_same(cached_psf(MICROSCOPE, DEPTHS_UM, 2, cache=tmp_path, oversampling=1), psf)


@pytest.mark.usefixtures("unchecked")  # numbers of NumPy
def test_key_takes_values_and_leaves_out_the_progress_bar(tmp_path, counted):
    same = [
        lambda: cached_psf(MICROSCOPE, DEPTHS_UM, 2, cache=tmp_path),
        lambda: cached_psf(MICROSCOPE, np.array([0, 10]), np.int64(2), cache=tmp_path, tolerance=0.02, track=print),
        lambda: cached_psf(MICROSCOPE, jnp.array([0, 10]), 2, cache=tmp_path, lenslets=None),
    ]
    for call in same:
        call()
    assert len(counted) == 1
    cached_psf(MICROSCOPE, DEPTHS_UM, 2, cache=tmp_path, oversampling=3)
    cached_psf(MICROSCOPE, (0.0, 11.0), 2, cache=tmp_path)
    cached_psf(Microscope(20, 0.5, 1.33, 0.53, 125, 2500, 5), DEPTHS_UM, 2, cache=tmp_path)
    assert len(counted) == 4


@pytest.mark.parametrize("damage", ["empty", "half", "one bit", "not HDF5"])
def test_broken_cache_file_is_computed_anew(tmp_path, counted, psf, damage):
    cached_psf(MICROSCOPE, DEPTHS_UM, 2, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    with h5py.File(path) as file:
        middle = file["psf"].id.get_chunk_info(3).byte_offset + 40
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "one bit": flipped, "not HDF5": b"x" * 999}[damage])
    assert_same(cached_psf(MICROSCOPE, DEPTHS_UM, 2, cache=tmp_path), psf)
    assert len(counted) == 2
    assert_same(read_psf(path), psf)


def test_old_format_is_refused(tmp_path, psf, monkeypatch):
    write_psf(tmp_path / "psf.h5", psf)
    monkeypatch.setattr(psf_file, "FORMAT", psf_file.FORMAT + 1)
    with pytest.raises(FileError, match="psf.h5: PSF format 2; expected 3"):
        read_psf(tmp_path / "psf.h5")


def test_files_that_are_no_psf(tmp_path, psf):
    with pytest.raises(FileError, match="no such file"):
        read_psf(tmp_path / "none.h5")
    write_psf(tmp_path / "psf.h5", psf)
    for attribute, value in (("z_um", [0.0]), ("microscope", '{"name": "x"}'), ("microscope", "{")):
        write_psf(tmp_path / "psf.h5", psf)
        with h5py.File(tmp_path / "psf.h5", "a") as file:
            file["psf"].attrs[attribute] = value
        with pytest.raises(FileError, match="psf.h5"):
            read_psf(tmp_path / "psf.h5")


def test_folder_from_the_environment(tmp_path, counted, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("LFJAX_CACHE", raising=False)
    cached_psf(MICROSCOPE, DEPTHS_UM, 2)
    assert len(list((tmp_path / "xdg" / "lfjax").glob("psf-*.h5"))) == 1
    monkeypatch.setenv("LFJAX_CACHE", str(tmp_path / "own"))
    cached_psf(MICROSCOPE, DEPTHS_UM, 2)
    assert len(list((tmp_path / "own").glob("psf-*.h5"))) == 1


def test_unwritable_cache_warns_and_gives_the_psf(tmp_path, counted, psf):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="not cached"):
        assert_same(cached_psf(MICROSCOPE, DEPTHS_UM, 2, cache=tmp_path / "file"), psf)


def test_bad_parameters_are_told_and_not_cached(tmp_path):
    with pytest.raises(ParameterError, match="voxels_per_lenslet"):
        cached_psf(MICROSCOPE, DEPTHS_UM, 99, cache=tmp_path)
    with pytest.raises(TypeError, match="tolerence"):
        cached_psf(MICROSCOPE, DEPTHS_UM, 2, cache=tmp_path, tolerence=0.1)
    assert not list(tmp_path.iterdir())
