"""Parameters, presets, files and usable depths of microscopes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import FileError, ParameterError
from lfjax.optics import (
    PRESETS,
    PSF,
    Alignment,
    Microscope,
    cached_psf,
    compute_psf,
    depth_range,
    load_microscope,
    preset,
    read_psf,
    sampling_widths,
    write_psf,
)


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
        ({"camera_pixel_um": "6.5"}, "camera_pixel_um"),
        ({"pitch": 3}, "unknown"),
        (
            {"wavelength_um": 593},
            "wavelength_um = 593: expected 0.2 to 2 um; the value looks like nm.* 0.593 um",
        ),
        ({"wavelength_um": 5.93e-7}, "looks like m, which would be 0.593 um"),
        ({"lenslet_focal_length_um": 2.5}, "lenslet_focal_length_um = 2.5.*looks like mm, which would be 2500 um"),
        ({"lenslet_pitch_um": 0.125}, "lenslet_pitch_um.*looks like mm, which would be 125 um"),
        ({"camera_pixel_um": 6500.0}, "camera_pixel_um.*looks like nm, which would be 6.5 um"),
        ({"magnification": 6000.0}, "magnification = 6000.0: expected 0.5 to 200$"),
        ({"medium_index": 0.9, "numerical_aperture": 0.5}, "medium_index = 0.9: expected 1 to 2$"),
        ({"lenslet_focal_length_um": [2500.0, 2800.0]}, "rows .* of several focal lengths"),
        ({"alignment": 3.0}, "alignment = 3.0"),
        ({"alignment": {"shift": 1.0}}, "unknown.*shift"),
        ({"alignment": {"offset_um": [1.0]}}, "alignment.offset_um"),
        ({"alignment": {"mask": [[1.0, 0.0], [1.0]]}}, "alignment.mask"),
        ({"alignment": {"native_plane_um": float("inf")}}, "alignment.native_plane_um"),
        ({"alignment": {"array_to_sensor_um": 2.51}}, "alignment.array_to_sensor_um.*looks like mm, which would be 2510 um"),
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
    with pytest.raises(FileError, match=r"broken\.toml.*missing"):
        load_microscope(broken)
    with pytest.raises(ParameterError, match="neither a file nor one of the presets"):
        load_microscope("80x")


def test_a_file_in_nanometres_is_refused(shared):
    with pytest.raises(FileError, match="m_nm.toml: wavelength_um = 593: .* nm, which would be 0.593"):
        load_microscope(shared / "data/cases/lightfield/m_nm.toml")
    assert load_microscope(shared / "data/cases/lightfield/sea.toml").raw_pitch_px == pytest.approx(16.89, abs=0.01)


def test_arrays_and_tracers_are_not_checked():
    odd = jax.jit(lambda um: dataclasses.replace(SCOPE, wavelength_um=um).object_pitch_um)(jnp.asarray(593.0))
    assert float(odd) == pytest.approx(125 / 20)


SCOPE = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5)
MOVED = Alignment(2510.0, (10.0, -4.0), 0.0, 50.0, np.full((4, 4), 0.5))


def test_the_alignment_travels_in_the_file(tmp_path):
    scope, path = dataclasses.replace(SCOPE, alignment=MOVED, name='the "second" rig µ😀'), tmp_path / "scope.toml"
    path.write_text(scope.to_toml(), encoding="utf-8")
    back = load_microscope(path)
    assert back.to_dict() == scope.to_dict() and back.name == scope.name
    assert back.alignment.to_dict() == MOVED.to_dict()
    path.write_text(SCOPE.to_toml() + "[alignment]\nnative_plane_um = 5000\n")
    assert load_microscope(path).alignment.to_dict() == Alignment(native_plane_um=5000.0).to_dict()


def test_the_psf_is_that_of_the_microscope_as_aligned(tmp_path):
    options = {"oversampling": 1, "lenslets": 3}
    scope = dataclasses.replace(SCOPE, alignment=MOVED)
    apart = compute_psf(SCOPE, [10.0], 1, alignment=MOVED, **options)
    within = cached_psf(scope, [10.0], 1, cache=tmp_path, **options)
    np.testing.assert_array_equal(within.values, apart.values)
    assert within.alignment is MOVED
    again = cached_psf(scope, [10.0], 1, cache=tmp_path, **options)
    assert len(list(tmp_path.iterdir())) == 1 and again.alignment is MOVED
    plain = cached_psf(SCOPE, [10.0], 1, cache=tmp_path, **options)
    assert plain.alignment is None and np.abs(plain.values - within.values).max() > 1e-3
    write_psf(tmp_path / "psf.h5", PSF(within.values, scope, (10.0,), alignment=MOVED))
    assert read_psf(tmp_path / "psf.h5").microscope.alignment.to_dict() == MOVED.to_dict()


@pytest.mark.parametrize("name", PRESETS)
def test_at_the_ends_of_the_depth_range_a_lenslet_or_a_pixel_resolves_one_lenslet(name):
    scope = PRESETS[name]
    low, high = depth_range(scope)
    assert low == -high
    n, m, pitch = scope.medium_index, scope.magnification, scope.lenslet_pitch_um
    spot_um = 0.94 * scope.wavelength_um * m * high / (n * pitch)  # band limit of Broxton et al. (2013)
    pixel_um = (pitch / scope.pixels_per_lenslet) * (m**2 * high / n / scope.lenslet_focal_length_um) / m
    assert max(spot_um, pixel_um) == pytest.approx(pitch / m)
    width = sampling_widths(scope, (low, high))
    assert np.all(width >= 1 / scope.pixels_per_lenslet - 1e-9) and np.all(width < 1)
    spots = pitch * scope.numerical_aperture / (0.47 * scope.wavelength_um * m)
    levoy_um = spots**2 * scope.wavelength_um * n / (4 * scope.numerical_aperture**2)
    assert high <= 1.01 * levoy_um


def test_the_depth_range_follows_the_plane_of_the_array_and_the_camera():
    scope = PRESETS["20x0.5"]
    low, high = depth_range(dataclasses.replace(scope, alignment=Alignment(native_plane_um=5000.0)))
    assert (low + high) / 2 == pytest.approx(-1.33 * 5000 / 400)
    assert high - low == pytest.approx(2 * depth_range(scope)[1])
    middle = dataclasses.replace(scope, alignment=Alignment(native_plane_um=5000.0))
    assert sampling_widths(middle, [(low + high) / 2]) == 1 and sampling_widths(middle, [low]) == sampling_widths(
        middle, [high]
    )
    coarse = dataclasses.replace(scope, camera_pixel_um=25.0)  # five raw pixels per lenslet
    assert depth_range(coarse)[1] == pytest.approx(5 / 11 * depth_range(scope)[1])
