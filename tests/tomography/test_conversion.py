"""Conversion of particle files: STAR to .cs to STAR and back is the identity in what both formats hold."""

import shutil
import subprocess
import warnings

import jax
import numpy as np
import pandas as pd
import pytest

from lfjax import io, rotation
from lfjax.errors import DataWarning, FileError, ParameterError
from lfjax.tomography import convert_particles, merge_cs, read_particles
from lfjax.tomography.relion_tables import canonical, lowered
from tests.tomography.cs_examples import fields, save, several, turns, without

MAGNIFICATION = [f"rlnMagMat{i}" for i in ("00", "01", "10", "11")]
EXACT = ("rlnImageName", "rlnMicrographName", "rlnRandomSubset", "rlnClassNumber", "rlnOpticsGroup")
ROUNDED = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
ENVELOPE = ("rlnCtfBfactor", "rlnCtfScalefactor")
OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize", "rlnImageSize")


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return convert_particles(*args, **options)


def tables(path):
    return canonical(path, io.read_star(path))


def same(one, two, besides=()):
    """Check that two canonical tables agree in what both formats hold."""
    for name in (n for n in EXACT if n in one["particles"] and n not in besides):
        first, second = one["particles"][name].astype(str).tolist(), two["particles"][name].astype(str).tolist()
        if name == "rlnImageName":
            first, second = ([(int(n.split("@")[0]), n.split("@")[1]) for n in v] for v in (first, second))
        assert first == second, name
    for name in (n for n in (*ROUNDED, *ENVELOPE) if n in one["particles"]):
        first, second = (np.asarray(t["particles"][name], float) for t in (one, two))
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=2e-6, err_msg=name)
    if "rlnAngleRot" in one["particles"]:
        with jax.enable_x64(True):
            apart = np.rad2deg(np.asarray(rotation.distance(turns(one["particles"]), turns(two["particles"]))))
        assert apart.max() <= 1e-4
    first, second = (t["optics"].set_index("rlnOpticsGroup").loc[t["particles"]["rlnOpticsGroup"]] for t in (one, two))
    for name in (n for n in (*OPTICS, *MAGNIFICATION) if n in first):
        np.testing.assert_allclose(first[name].astype(float), second[name].astype(float), rtol=1e-7, err_msg=name)


REAL = ("relion31.star", "relion31.6opticsgroups.star", "relion5.star", "empiar_10076_7.star")


@pytest.mark.parametrize("version", ["3.0", "3.1", "5"])
@pytest.mark.parametrize("name", REAL)
def test_a_star_file_comes_back_from_cryosparc(shared, tmp_path, name, version):
    source = tmp_path / name
    for path in (shared / "data/cryo").glob(f"{source.stem}.*"):
        shutil.copy(path, tmp_path)
    whole = tables(source)
    done = quietly(source, tmp_path / "a.cs", folder=source.parent)
    assert done.images == len(whole["particles"]) and done.posed == ("rlnAngleRot" in whole["particles"])
    quietly(tmp_path / "a.cs", tmp_path / "b.star", version=version)
    besides = {"rlnOpticsGroup"} if version == "3.0" else set()  # 3.0 numbers no groups
    if any("half-set 1" in line for line in done.lost):
        assert set(whole["particles"]["rlnRandomSubset"]) == {1}
        besides.add("rlnRandomSubset")
    same(whole, tables(tmp_path / "b.star"), besides)
    quietly(tmp_path / "b.star", tmp_path / "c.cs")
    first, second = merge_cs(tmp_path / "a.cs"), merge_cs(tmp_path / "c.cs")
    assert set(first) - set(second) == ({"alignments3D/split"} if "rlnRandomSubset" in besides else set())
    for field, values in ((f, v) for f, v in first.items() if f in second):
        if values.dtype.kind == "f":
            np.testing.assert_allclose(second[field], values, rtol=2e-6, atol=2e-6, err_msg=field)
        else:
            np.testing.assert_array_equal(second[field], values, err_msg=field)


def invented(count=40):
    """Canonical tables with everything that both formats hold, poles and half turns among the angles."""
    draw = np.random.default_rng(5)
    angles = draw.uniform(-180, 180, (count, 3))
    angles[:6] = [[0, 0, 0], [30, 0, 20], [10, 180, -50], [180, 90, 0], [0, 180, 0], [45, -60, 200]]
    half, group = draw.integers(1, 3, count), np.arange(count) % 3 + 1
    columns = {f"rlnAngle{a}": angles[:, i] for i, a in enumerate(("Rot", "Tilt", "Psi"))}
    columns |= {f"rlnOrigin{a}Angst": draw.normal(size=count) for a in "XY"}
    columns |= {f"rlnDefocus{a}": draw.uniform(5e3, 3e4, count) for a in "UV"}
    columns |= {"rlnDefocusAngle": draw.uniform(-90, 90, count), "rlnPhaseShift": draw.uniform(0, 90, count)}
    columns |= {"rlnCtfBfactor": draw.uniform(0, 80, count), "rlnCtfScalefactor": draw.uniform(0.5, 1, count)}
    columns |= {"rlnRandomSubset": half, "rlnClassNumber": draw.integers(1, 4, count), "rlnOpticsGroup": group}
    columns |= {"rlnMicrographName": [f"MotionCorr/m{i % 4}.mrc" for i in range(count)]}
    columns |= {"rlnImageName": [f"{i + 1:06d}@Extract/job7/s{i % 4}.mrcs" for i in range(count)]}
    optics = {"rlnOpticsGroup": [1, 2, 3], "rlnOpticsGroupName": ["opticsGroup1", "opticsGroup2", "opticsGroup3"]}
    optics |= {"rlnVoltage": [300.0, 300.0, 200.0], "rlnSphericalAberration": [2.7, 2.7, 0.01]}
    optics |= {"rlnAmplitudeContrast": [0.1, 0.07, 0.1], "rlnImagePixelSize": [1.234567, 1.1, 0.885]}
    optics |= {"rlnImageSize": [64, 64, 80], "rlnImageDimensionality": [2, 2, 2]}
    optics |= {n: v for n, v in zip(MAGNIFICATION, [[1.01, 1, 1], [0.002, 0, 0], [0.003, 0, 0], [0.99, 1, 1]], strict=True)}
    return {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(columns)}


@pytest.mark.parametrize("version", ["3.0", "3.1", "5"])
def test_an_invented_file_loses_nothing(tmp_path, version):
    whole = invented()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # RELION 3.0 has no magnification matrix
        io.write_star(tmp_path / "a.star", lowered(whole, version))
    done = convert_particles(tmp_path / "a.star", tmp_path / "b.cs")
    half = (whole["particles"]["rlnRandomSubset"] == 1).sum()
    assert done == (40, 3, True, (half, 40 - half), ())
    if version == "3.0":
        with pytest.warns(DataWarning, match="rlnOpticsGroupName"):
            convert_particles(tmp_path / "b.cs", tmp_path / "c.star", version=version)
    else:
        assert not convert_particles(tmp_path / "b.cs", tmp_path / "c.star", version=version).lost
    same(whole, tables(tmp_path / "c.star"))


def test_a_cs_file_comes_back_from_relion(tmp_path):
    one = {
        "ctf/bfactor": np.full(6, 12.5, np.float32),
        "ctf/scale": np.linspace(0.5, 1, 6).astype(np.float32),
        "ctf/tilt_A": np.tile(np.float32([812.5, -3.25]), (6, 1)),
        "ctf/anisomag": np.tile(np.float32([0.01, 0.002, 0.003, -0.004]), (6, 1)),
        "blob/sign": np.full(6, -1, np.float32),
        "location/micrograph_path": np.full(6, b"J3/m.mrc"),
        "location/micrograph_shape": np.full((6, 2), (4000, 6000), np.uint32),
        "location/center_x_frac": np.linspace(0.1, 0.9, 6).astype(np.float32),
        "location/center_y_frac": np.linspace(0.2, 0.3, 6).astype(np.float32),
    }
    found = fields(**one, **{"alignments3D/psize_A": np.full(6, 1.31, np.float32)})
    path = save(tmp_path / "a.cs", found)
    for version in ("3.0", "3.1", "5"):
        done = quietly(path, tmp_path / "b.star", version=version)
        assert any("lfjaxTiltAngst" in line for line in done.lost) and any("blob/sign" in line for line in done.lost)
        quietly(tmp_path / "b.star", tmp_path / "c.cs")
        back = merge_cs(tmp_path / "c.cs")
        for field, values in found.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(back[field], values, rtol=1e-6, atol=1e-6, err_msg=field)
            elif field == "blob/path":
                assert [b">" + p for p in back[field]] == values.tolist()  # the sign of a path in another job
            else:
                np.testing.assert_array_equal(back[field], values, err_msg=field)


def test_whatever_is_lost_is_named(tmp_path):
    whole = invented()
    optics = whole["optics"].assign(
        rlnBeamTiltX=[0.1, 0, 0], rlnBeamTiltY=0.0, rlnOddZernike="[0,0,0]", rlnEvenZernike="[0,1,2]"
    )
    optics = optics.assign(rlnOpticsGroupName=["a", "b", "c"], rlnMtfFileName="mtf.star", rlnCtfDataAreCtfPremultiplied=0)
    table = whole["particles"].assign(rlnNormCorrection=0.9, rlnCoordinateX=100.0, rlnCoordinateY=90.0)
    table = table[table["rlnOpticsGroup"] != 2]
    io.write_star(tmp_path / "a.star", {"optics": optics, "particles": table, "general": optics[["rlnVoltage"]]})
    with pytest.warns(DataWarning, match="b.cs: not carried over: .*rlnNormCorrection"):
        done = convert_particles(tmp_path / "a.star", tmp_path / "b.cs")
    names = {line.split(":")[0].split(", ")[-1] for line in done.lost}
    assert names == {
        *("rlnBeamTiltX", "rlnEvenZernike", "rlnOpticsGroupName", "rlnMtfFileName", "rlnNormCorrection", "rlnCoordinateX"),
        *("rlnCoordinateY", "optics groups without images", "table 'general'"),
    }
    found = fields(**{"alignments3D/error": np.ones(6, np.float32), "ctf/type": np.full(6, b"spline")})
    found |= {"blob/path": np.full(6, b"a.mrc"), "pick_stats/power": np.ones(6, np.float32)}
    with pytest.warns(DataWarning, match="not carried over"):
        done = convert_particles(save(tmp_path / "c.cs", found), tmp_path / "d.star")
    assert [line.split(":")[0] for line in done.lost] == [
        "alignments3D/error",
        "ctf/type",
        "pick_stats/power",
        "stacks named .mrc",
    ]


def test_passthrough_files_and_a_choice_of_poses_are_passed_on(tmp_path):
    found, _ = several(multi=True)
    main, rest = save(tmp_path / "a.cs", found, ("alignments",)), save(tmp_path / "b.cs", found, ("blob", "ctf"))
    done = convert_particles(main, tmp_path / "c.star", also=[rest], alignment="best")
    assert done.images == 6 and done.lost == ("alignments3D_multi/class_posterior: no such column",)
    apart, _ = several(multi=False)
    done = quietly(save(tmp_path / "g.cs", apart), tmp_path / "g.star", alignment="class_1")
    names = [f"alignments_class_{i}/{n}" for i, n in ((0, "pose"), (0, "shift"), (0, "class_posterior"), (0, "psize_A"))]
    assert [line.split(":")[0] for line in done.lost] == [*names, "alignments_class_1/class_posterior"] and done.images == 3
    with pytest.raises(FileError, match="--alignment"):
        convert_particles(main, tmp_path / "d.star", also=[rest])
    plain = save(tmp_path / "e.cs", without(fields(), "ctf"))
    with pytest.raises(FileError, match="--no-ctf"):
        convert_particles(plain, tmp_path / "d.star")
    assert convert_particles(plain, tmp_path / "d.star", ctf=False).images == 6
    with pytest.raises(ParameterError, match="also"):
        convert_particles(tmp_path / "d.star", tmp_path / "f.cs", also=[rest])
    with pytest.raises(ParameterError, match="version"):
        convert_particles(plain, tmp_path / "d.star", version="2.0")
    with pytest.raises(ParameterError, match="target"):
        convert_particles(plain, plain)
    with pytest.raises(FileError, match=r"\.csv"):
        convert_particles(plain, tmp_path / "d.csv")


@pytest.mark.parametrize("case", ["01_ctf_premultiplied_flag_ignored.star", "02_phase_flipped_flag_ignored.star"])
def test_images_with_the_ctf_applied_are_refused(shared, tmp_path, case):
    with pytest.raises(FileError, match="rlnCtfDataAre"):
        convert_particles(shared / "data/cases/cryo" / case, tmp_path / "a.cs")
    assert not (tmp_path / "a.cs").exists()


def test_the_particles_of_both_files_are_the_same(shared, tmp_path):
    source = shared / "data/cases/cryo/00_good_reference.star"
    assert convert_particles(source, tmp_path / "a.cs").lost == ()
    one, two = read_particles(source), read_particles(tmp_path / "a.cs", folder=source.parent)
    np.testing.assert_allclose(two.particles.shifts, one.particles.shifts, atol=1e-5)
    np.testing.assert_allclose(two.particles.rotations, one.particles.rotations, atol=2e-6)
    np.testing.assert_array_equal(two.particles.half, one.particles.half)
    np.testing.assert_allclose(two.particles.ctf(0.05, 0.02), one.particles.ctf(0.05, 0.02), atol=1e-4)
    np.testing.assert_array_equal(two.images([3, 5]), one.images([3, 5]))


@pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="RELION is not installed")
def test_relion_makes_the_same_map_of_a_file_that_was_at_cryosparc(shared, tmp_path):
    source = shared / "data/cases/cryo/00_good_reference.star"
    convert_particles(source, tmp_path / "a.cs")
    convert_particles(tmp_path / "a.cs", tmp_path / "b.star")
    shutil.copy(source, tmp_path / "c.star")
    shutil.copy(source.parent / "good.mrcs", tmp_path)
    maps = []
    for name in ("b", "c"):
        command = ["relion_reconstruct", "--i", f"{name}.star", "--o", f"{name}.mrc", "--ctf"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        maps.append(io.read_map(tmp_path / f"{name}.mrc").array)
    # RELION's own map moves by 5 % of its maximum where angles move by 1e-6 degrees
    assert np.corrcoef(np.ravel(maps[0]), np.ravel(maps[1]))[0, 1] >= 0.995
