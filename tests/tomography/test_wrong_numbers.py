"""Particle files with a column of the image that has no number in a row: refused by row and column, read or converted."""

import warnings

import numpy as np
import pytest

from lfjax.errors import FileError
from lfjax.tomography import convert_particles, read_particles
from lfjax.tomography.relion_checks import LISTS, NUMBERS
from tests.tomography.cs_examples import fields, save

OPTICS = {
    "rlnOpticsGroup": 1, "rlnOpticsGroupName": "one", "rlnVoltage": 300, "rlnSphericalAberration": 2.7,
    "rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": 2, "rlnImageSize": 8, "rlnImageDimensionality": 2, "rlnBeamTiltX": 0.1,
    "rlnBeamTiltY": 0.2, "rlnMagMat00": 1, "rlnMagMat01": 0, "rlnMagMat10": 0, "rlnMagMat11": 1, "rlnOddZernike": "[0,1]",
    "rlnEvenZernike": "[0,1]", "rlnCtfDataArePhaseFlipped": 0, "rlnCtfDataAreCtfPremultiplied": 0,
    "rlnCtfDataAreCtfCorrected": 0,
}  # fmt: skip
IMAGE = {
    "rlnImageName": "1@a.mrcs", "rlnOpticsGroup": 1, "rlnAngleRot": 10, "rlnAngleTilt": 20, "rlnAnglePsi": 5,
    "rlnOriginXAngst": 0.5, "rlnOriginYAngst": 0.5, "rlnOriginZAngst": 0, "rlnDefocusU": 9000, "rlnDefocusV": 9500,
    "rlnDefocusAngle": 30, "rlnPhaseShift": 0, "rlnCtfBfactor": 0, "rlnCtfScalefactor": 1, "lfjaxExposure": 2,
    "lfjaxImageSign": 1, "rlnRandomSubset": 1,
}  # fmt: skip
BAD = ("nan", "inf", "-inf", "1e300", "abc")


def written(path, block=None, name=None, value=None):
    """A file of four images, its third row, or its optics, with a value in a column."""
    images = [IMAGE | {"rlnImageName": f"{i + 1}@a.mrcs", "rlnRandomSubset": 1 + i % 2} for i in range(4)]
    tables = {"optics": [dict(OPTICS)], "particles": images}
    if block:
        tables[block][2 if block == "particles" else 0][name] = value
    with path.open("w") as file:
        for key, rows in tables.items():
            file.write(f"data_{key}\n\nloop_\n" + "".join(f"_{column}\n" for column in rows[0]))
            file.writelines(" ".join(map(str, row.values())) + "\n" for row in rows)
            file.write("\n")
    return path


def test_the_table_has_every_number_of_an_image(tmp_path):
    assert {*NUMBERS, *LISTS} <= OPTICS.keys() | IMAGE.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(read_particles(written(tmp_path / "a.star"))) == 4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", [*NUMBERS, *LISTS, "rlnRandomSubset"])
def test_a_number_that_is_none_is_refused_by_row_and_column(tmp_path, name, value):
    block, row = ("optics", 1) if name in OPTICS else ("particles", 3)
    path = written(tmp_path / "a.star", block, name, value)
    says = rf"^\S*a\.star: {block}, row {row}, column {name}: .*; expected "
    for ctf in (True, False):
        with pytest.raises(FileError, match=says):
            read_particles(path, ctf=ctf)
    for target in ("b.star", "b.cs"):
        with pytest.raises(FileError, match=says):
            convert_particles(path, tmp_path / target)
        assert not (tmp_path / target).exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", ["3", "-1", "0.5"])
def test_a_half_set_that_is_none_is_refused(tmp_path, value):
    path = written(tmp_path / "a.star", "particles", "rlnRandomSubset", value)
    for read in (read_particles, lambda path: convert_particles(path, tmp_path / "b.star")):
        with pytest.raises(FileError, match="row 3, column rlnRandomSubset: .*; expected half-set 1 or 2, or 0"):
            read(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", ["0", "65537", "7.5"])
def test_a_box_that_is_none_is_refused(tmp_path, value):
    with pytest.raises(FileError, match="optics, row 1, column rlnImageSize: .*; expected 1 to 65536 pixels"):
        read_particles(written(tmp_path / "a.star", "optics", "rlnImageSize", value))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_a_field_of_cryosparc_that_is_no_number_is_refused(tmp_path, value):
    good = fields()
    good |= {name: good[name].astype(np.float32) for name in ("alignments3D/split", "ctf/exp_group_id", "blob/shape")}
    more = {"alignments3D/class": np.zeros(6, np.float32), "alignments3D/alpha": np.ones(6, np.float32)}
    read_particles(save(tmp_path / "a.cs", good | more))
    for name in (n for n, values in (good | more).items() if values.dtype.kind == "f"):
        wrong = {n: values.copy() for n, values in (good | more).items()}
        wrong[name][4] = value
        path = save(tmp_path / "a.cs", wrong)
        for read in (read_particles, lambda path: convert_particles(path, tmp_path / "b.star")):
            with pytest.raises(FileError, match=rf"a\.cs: row 5, column {name}: .*; expected "):
                read(path)
