"""Parameters, presets and files of microscopes."""

import pytest

from lfjax.errors import FileError, ParameterError
from lfjax.optics import PRESETS, Microscope, load_microscope, preset


@pytest.mark.parametrize("name", PRESETS)
def test_toml_round_trip(name, tmp_path):
    path = tmp_path / "scope.toml"
    path.write_text(preset(name).to_toml())
    assert load_microscope(path) == PRESETS[name]


def test_derived_quantities():
    scope = PRESETS["60x1.2w"]
    assert float(scope.object_pitch_um) == pytest.approx(100 / 60)
    assert scope.voxel_um(4) == pytest.approx(100 / 240)
    assert scope.raw_pitch_px == pytest.approx(15.385, abs=1e-3)
    assert PRESETS["20x0.5"].raw_pitch_px is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"magnification": -1.0}, "magnification"),
        ({"numerical_aperture": 1.4}, "less than medium_index"),
        ({"pixels_per_lenslet": 15.5}, "whole number"),
        ({"wavelength_um": float("nan")}, "wavelength_um"),
        ({"wavelength_um": "green"}, "wavelength_um"),
        ({"camera_pixel_um": 0.0}, "camera_pixel_um"),
        ({"pitch": 3}, "unknown"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_parameters_are_named(change, says):
    with pytest.raises(ParameterError, match=says):
        Microscope.from_dict(PRESETS["60x1.2w"].to_dict() | change)


def test_bad_files_are_named(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("magnification = = 3")
    with pytest.raises(FileError, match=r"broken\.toml"):
        load_microscope(broken)
    broken.write_text("magnification = 3")
    with pytest.raises(ParameterError, match="missing"):
        load_microscope(broken)
    with pytest.raises(ParameterError, match="neither a file nor one of the presets"):
        load_microscope("80x")
