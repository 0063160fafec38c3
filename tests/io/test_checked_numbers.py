"""Numbers in files that are none: NaN, infinity, numbers beyond 32 bits and texts are refused where they are read, by place."""

import dataclasses
import json
import math

import h5py
import numpy as np
import pytest

from lfjax.activity import read_neurons, write_neurons
from lfjax.activity.neurons import Neurons
from lfjax.errors import FileError
from lfjax.io import Stack, read_map, write_map
from lfjax.io.checked_numbers import LARGEST, finite_attribute, finite_column, require_rows
from lfjax.optics import PRESETS, PSF, Alignment, Pupil, read_psf, read_view_psfs, write_psf, write_view_psfs
from lfjax.tomography.gaussians import read_structure
from lfjax.training.data import TrainingSet, open_pairs, write_pairs

BAD = ("nan", "inf", "-inf", "1e300")


def test_a_column_is_read_number_by_number():
    np.testing.assert_array_equal(finite_column("a", "x", np.array(["1", 2, 3.5], object)), [1, 2, 3.5])
    np.testing.assert_array_equal(finite_column("a", "x", np.array([[1, 2], [3, 4]], np.uint8)), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(finite_column("a", "x", np.array([LARGEST, -LARGEST])), [LARGEST, -LARGEST])
    assert finite_column("a", "x", np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("entry", [*map(float, BAD), *BAD, "abc", "", None, 10**400, 1.01 * LARGEST])
def test_a_wrong_entry_is_named_by_table_row_and_column(entry):
    column = np.array([1.0, entry, 2.0, entry], object)
    with pytest.raises(FileError, match=r"^a\.star: optics, row 2, column x: .*; expected a number.* \(2 rows are like it\)$"):
        finite_column("a.star", "x", column, "optics")


def test_a_row_of_several_numbers_is_wrong_where_one_is():
    values = np.array([[1.0, 2.0], [3.0, np.nan]])
    with pytest.raises(FileError, match=r"^a: row 2, column x: \[ ?3\. nan\]; expected finite$"):
        require_rows("a", "x", values, np.isfinite(values), "finite")


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300, "abc", [1.0, math.nan], [], b"x", -1.0, 0.0])
def test_an_attribute_is_named(value):
    with pytest.raises(FileError, match=r"^a\.h5: attribute frame_s = .*; expected a positive number$"):
        finite_attribute("a.h5", {"frame_s": value}, "frame_s", positive=True, count=1)


def test_attributes_that_are_there_and_that_are_not():
    assert finite_attribute("a.h5", {"z_um": np.array([-1, 1])}, "z_um") == (-1.0, 1.0)
    with pytest.raises(FileError, match="no attribute z_um; expected one or more numbers"):
        finite_attribute("a.h5", {}, "z_um")
    with pytest.raises(FileError, match=r"voxel_um = \[1, 2\]; expected 3 positive numbers"):
        finite_attribute("a.h5", {"voxel_um": [1, 2]}, "voxel_um", positive=True, count=3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38])
@pytest.mark.parametrize(("name", "place"), [("voxel size", 40), ("voxel size", 48), ("origin", 196), ("origin", 204)])
def test_voxel_and_origin_of_a_map_are_finite(tmp_path, name, place, value):
    path = tmp_path / "a.mrc"
    write_map(path, np.ones((4, 4, 4)), 2.0)
    content = bytearray(path.read_bytes())
    content[place : place + 4] = np.float32(value).tobytes()
    path.write_bytes(content)
    with pytest.raises(FileError, match=rf"a\.mrc: {name}"):
        read_map(path)
    if place == 40:  # x, along which a stack has its pixels
        with pytest.raises(FileError, match=r"a\.mrc: pixel size"):
            Stack(path)


def psf():
    scope = dataclasses.replace(PRESETS["20x0.5"], pixels_per_lenslet=5)
    values = np.full((2, 1, 1, 15, 15), 1 / 225, np.float32)
    return PSF(values, scope, (-1.0, 1.0), 1, 0.01, Pupil([0.0, 0.1]), Alignment(2500.0))


PUPIL = {"zernike_waves": [0.1], "sample_index": None, "depth_um": 0.0}
WRONG_PUPILS = (
    {"zernike_waves": [math.nan]}, {"zernike_waves": "x"}, {"sample_index": math.inf}, {"depth_um": math.nan}, {"more": 1},
)  # fmt: skip


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("z_um", value) for value in (math.nan, [1.0, math.inf], "abc", [1.0, 2.0, 3.0])],
        *[("oversampling", value) for value in (math.nan, 0, -1, "3", [1, 1])],
        *[("convergence_error", value) for value in (math.nan, math.inf, "small")],
        *[("pupil", json.dumps(PUPIL | wrong)) for wrong in WRONG_PUPILS],
        *[("alignment", json.dumps({"array_to_sensor_um": value})) for value in (math.nan, -1.0, "far")],
        *[("microscope", text) for text in ('{"magnification": NaN}', "[1]", "3", "{")],
    ],
)
def test_attributes_of_a_psf_are_finite(tmp_path, name, value):
    path = tmp_path / "psf.h5"
    write_psf(path, psf())
    assert read_psf(path).z_um == (-1.0, 1.0)
    with h5py.File(path, "a") as file:
        file["psf"].attrs[name] = value
    with pytest.raises(FileError, match=r"psf\.h5: ") as refused:
        read_psf(path)
    assert "\n" not in str(refused.value)


def test_depths_of_views_and_attributes_of_neurons_are_finite(tmp_path):
    write_view_psfs(tmp_path / "views.h5", np.ones((2, 2, 3, 3)), (-1.0, 1.0))
    found = Neurons(
        np.ones((1, 3)), np.ones((1, 2, 2, 2)), np.ones((1, 4)), np.zeros((1, 4)), [np.zeros(0)], 0.01, (1.0, 1.0, 1.0),
        np.ones(1), z_um=(-1.0, 1.0),
    )  # fmt: skip
    write_neurons(tmp_path / "neurons.h5", found)
    assert read_neurons(tmp_path / "neurons.h5").z_um == (-1.0, 1.0)
    with h5py.File(tmp_path / "views.h5", "a") as file:
        file["view_psfs"].attrs["z_um"] = [1.0, math.nan]
    with pytest.raises(FileError, match=r"views\.h5: attribute z_um"):
        read_view_psfs(tmp_path / "views.h5")
    for name, value in (("frame_s", 0.0), ("voxel_um", [1.0, 1.0, math.inf]), ("z_um", [math.nan, 1.0])):
        write_neurons(tmp_path / "neurons.h5", found)
        with h5py.File(tmp_path / "neurons.h5", "a") as file:
            file.attrs[name] = value
        with pytest.raises(FileError, match=rf"neurons\.h5: attribute {name}"):
            read_neurons(tmp_path / "neurons.h5")


ATOM = "ATOM  {:5d}  CA  ALA A{:4d}    {:>8}{:>8}{:>8}{:>6}{:>6}           C\n"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        *[((text, "1.000", "2.000", "1.00", "20.00"), "atom 2, position|line 2, x") for text in (*BAD, "********", "")],
        *[(("2.000", "1.000", "2.000", text, "20.00"), "atom 2, occupancy") for text in ("nan", "inf", "-1.00")],
        *[(("2.000", "1.000", "2.000", "1.00", text), "atom 2, B-factor") for text in ("nan", "inf", "-99.00")],
        (("2.000", "1.000", "2.000", "1.00", "******"), "line 2, B-factor"),
    ],
)
def test_an_atom_that_is_nowhere_is_named(tmp_path, fields, says):
    lines = [ATOM.format(i, i, f"{i:.3f}", "1.000", "2.000", "1.00", "20.00") for i in (1, 2, 3)]
    lines[1] = ATOM.format(2, 2, *fields)
    (tmp_path / "a.pdb").write_text("".join(lines))
    with pytest.raises(FileError, match=rf"a\.pdb: ({says})"):
        read_structure(tmp_path / "a.pdb", 2.0)


def test_a_structure_without_any_occupied_atom_is_refused(tmp_path):
    (tmp_path / "a.pdb").write_text(ATOM.format(1, 1, "1.000", "1.000", "2.000", "0.00", "20.00"))
    with pytest.raises(FileError, match="occupancy of every atom is 0"):
        read_structure(tmp_path / "a.pdb", 2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["frames", "volumes"])
def test_a_training_pair_that_is_not_finite_is_named(tmp_path, name, value):
    path = tmp_path / "pairs.h5"
    write_pairs(path, np.ones((2, 10, 10), np.float32), np.ones((2, 2, 4, 4), np.float32))
    with h5py.File(path, "a") as file:
        file[name][1] = value
    frames, volumes = open_pairs(path)
    samples = TrainingSet(frames, volumes, [], (5, 5), (2, 2)).check()
    with pytest.raises(FileError, match=rf"pairs\.h5: sample 1 of `{name}` has NaN or infinite values"):
        samples.batch(0, 0, 20, 0)
