"""Calibrations on disk."""

import dataclasses

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import FileError, ParameterError, ShapeError
from lfjax.optics import Alignment, Lattice, Microscope, Rectifier, read_calibration, write_calibration

SCOPE = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 8, camera_pixel_um=125 / 8.6, alignment=Alignment(2510.0, (3.0, 0.0)))
LATTICE = Lattice(8.6, 0.01, 49.3, 51.8)


def made(**options):
    """A calibration of lenslets drawn on a lattice, and the raw frame."""
    places = np.stack(np.mgrid[:96, :104], -1)
    cells = LATTICE.to_lattice(places)
    discs = np.hypot(*np.moveaxis(cells - np.round(cells), -1, 0)) < 0.45
    white = (100 + 900 * discs + np.random.default_rng(0).normal(0, 5, discs.shape)).astype(np.float32)
    white[30, 40] = 5000.0
    frame = 100 + 50 * discs * (1 + np.sin(places[..., 0] / 9))
    return Rectifier.calibrate(SCOPE, frame, white=white, **options), frame


@pytest.mark.parametrize("options", [{"dark": 100.0, "background": 3.0, "saturation": 4095.0}, {}])
def test_the_calibration_read_is_the_one_written(tmp_path, options):
    rectifier, frame = made(**options)
    write_calibration(tmp_path / "rig.toml", rectifier)
    back = read_calibration(tmp_path / "rig.toml")
    np.testing.assert_array_equal(back(frame), rectifier(frame))
    np.testing.assert_array_equal(back.mask, rectifier.mask)
    np.testing.assert_array_equal(back.white, rectifier.white)
    np.testing.assert_array_equal(back.bad, rectifier.bad)
    assert back.bad[30, 40]
    assert (back.lattice, back.field, back.saturation) == (rectifier.lattice, rectifier.field, rectifier.saturation)
    assert back.trusted == rectifier.trusted
    assert back.microscope.to_dict() == SCOPE.to_dict()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rig.h5", "rig.toml"]
    write_calibration(tmp_path / "rig.toml", dataclasses.replace(rectifier, saturation=1000.0))  # a calibration may be replaced
    assert read_calibration(tmp_path / "rig.toml").saturation == 1000.0


def test_rectified_frames_have_calibrations_too(tmp_path):
    rectifier = Rectifier.aligned(SCOPE, (24, 32), dark=7.0)
    write_calibration(tmp_path / "rig.toml", rectifier)
    back, frame = read_calibration(tmp_path / "rig.toml"), np.arange(24 * 32.0).reshape(24, 32)
    np.testing.assert_array_equal(back(frame), frame - 7)
    np.testing.assert_array_equal(back.mask, rectifier.mask)


def test_a_frame_of_another_size_is_refused(tmp_path):
    write_calibration(tmp_path / "rig.toml", made()[0])
    back = read_calibration(tmp_path / "rig.toml")
    with pytest.raises(ShapeError, match=r"frame has shape \(95, 104\): expected \(96, 104\)"):
        back(np.zeros((95, 104)))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("magnification = 20", "magnification = 21", "digest does not fit"),
        ("pitch_px = 8.", "pitch_px = 9.", "digest does not fit"),
        ("trusted = 0.", "trusted = 1.", "digest does not fit"),
        ("wavelength_um = 0.52", "wavelength_um = 520", r"\[microscope\] wavelength_um = 520.*looks like nm"),
        ("[lattice]", "[latice]", "unknown latice; missing lattice"),
        ("format = 1", "format = 9", "format = 9: expected 1"),
        ("frame_px = [96", "frame_px = [97", r"shape \(96, 104\); expected \(97, 104\)"),
        ("digest = ", "digest = = ", "cannot be read"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, old, new, says):
    path = tmp_path / "rig.toml"
    write_calibration(path, made()[0])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(FileError, match=says):
        read_calibration(path)


def test_changed_broken_and_missing_arrays_are_refused(tmp_path):
    path = tmp_path / "rig.toml"
    write_calibration(path, made()[0])
    with h5py.File(tmp_path / "rig.h5", "a") as file:
        file["mask"][0, 0] = 1 - file["mask"][0, 0]
    with pytest.raises(FileError, match="digest does not fit"):
        read_calibration(path)
    (tmp_path / "rig.h5").write_bytes((tmp_path / "rig.h5").read_bytes()[:3000])
    with pytest.raises(FileError, match=r"rig\.h5: cannot be read"):
        read_calibration(path)
    (tmp_path / "rig.h5").unlink()
    with pytest.raises(FileError, match=r"rig\.h5: no such file"):
        read_calibration(path)
    with pytest.raises(FileError, match=r"none\.toml: no such file"):
        read_calibration(tmp_path / "none.toml")


def test_recordings_and_microscopes_are_not_written_over(tmp_path):
    rectifier, frame = made()
    for name in ("path", "rig.h5", "rig"):
        with pytest.raises(ParameterError, match="NAME.toml"):
            write_calibration(tmp_path / name, rectifier)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["frames"] = frame
    (tmp_path / "scope.toml").write_text(SCOPE.to_toml())
    for name in ("raw.toml", "scope.toml"):
        with pytest.raises(FileError, match="exists and is no calibration"):
            write_calibration(tmp_path / name, rectifier)
    assert (tmp_path / "scope.toml").read_text() == SCOPE.to_toml()
    with h5py.File(tmp_path / "raw.h5") as file:
        np.testing.assert_array_equal(file["frames"], frame)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.h5", "scope.toml"]


def test_arrays_that_are_not_finite_are_not_written(tmp_path):
    rectifier = dataclasses.replace(made()[0], white=jnp.full(made()[0].mask.shape, jnp.nan))
    with pytest.raises(FileError, match="NaN"):
        write_calibration(tmp_path / "rig.toml", rectifier)
    assert not list(tmp_path.iterdir())
