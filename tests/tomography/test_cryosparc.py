"""Particles of cryoSPARC: fields honoured, kept or refused by name, poses checked against SciPy, files merged by uid."""

import warnings

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfjax import io
from lfjax.errors import DataWarning, FileError, ParameterError
from lfjax.tomography import merge_cs, read_cs, read_particles, reconstruct, without_uid, write_cs
from tests.tomography.cs_examples import N, fields, save, several, turns, without


def test_poses_are_the_transposed_rotation_vectors_of_scipy(tmp_path):
    half_turns = np.pi * np.asarray([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0]])
    pose = np.concatenate([half_turns, [[0, 0, 0], [1e-5, 0, 0]], np.random.default_rng(1).normal(size=(40, 3))])
    found = fields(len(pose), **{"alignments3D/pose": pose.astype(np.float32)})
    tables = read_cs(save(tmp_path / "a.cs", found))
    wanted = Rotation.from_rotvec(pose.astype(np.float32).astype(float)).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(turns(tables["particles"]), wanted, atol=1e-12)
    write_cs(tmp_path / "b.cs", tables)
    back = Rotation.from_rotvec(np.load(tmp_path / "b.cs", allow_pickle=False)["alignments3D/pose"]).as_matrix()
    np.testing.assert_allclose(back.transpose(0, 2, 1), wanted, atol=5e-7)


def test_fields_become_the_columns_of_relion(tmp_path):
    found = fields(
        **{
            "ctf/anisomag": np.tile(np.float32([0.011472, 0.004231, 0.00456, 0.008858]), (N, 1)),
            "blob/sign": np.full(N, -1, np.float32),
            "location/micrograph_path": np.full(N, b"J3/motioncorrected/m.mrc"),
            "location/micrograph_shape": np.full((N, 2), (4000, 6000), np.uint32),
            "location/center_x_frac": np.full(N, 0.25, np.float32),
            "location/center_y_frac": np.full(N, 0.5, np.float32),
            "alignments3D/class": np.full(N, 2, np.uint32),
        }
    )
    tables = read_cs(save(tmp_path / "a.cs", found))
    optics, table = tables["optics"], tables["particles"]
    assert optics["lfjaxExposureGroup"].tolist() == [7, 23] and optics["rlnOpticsGroup"].tolist() == [1, 2]
    assert table["rlnOpticsGroup"].tolist() == [2, 1] * 3
    assert optics["rlnImagePixelSize"].tolist() == [1.31] * 2 and optics["rlnImageSize"].tolist() == [32] * 2
    assert optics["rlnVoltage"].tolist() == [300] * 2 and optics["rlnSphericalAberration"].tolist() == [2.7] * 2
    matrix = [1.011472, 0.004231, 0.00456, 1.008858]
    np.testing.assert_allclose(optics[[f"rlnMagMat{i}" for i in ("00", "01", "10", "11")]].iloc[0], matrix, atol=1e-9)
    assert table["rlnImageName"].iloc[0] == "000006@J7/imported/005213665113010562610_a.mrcs"
    np.testing.assert_array_equal(table["rlnDefocusU"], found["ctf/df1_A"])
    np.testing.assert_allclose(table["rlnDefocusAngle"], np.rad2deg(found["ctf/df_angle_rad"].astype(float)))
    np.testing.assert_allclose(table["rlnPhaseShift"], np.rad2deg(0.25))
    np.testing.assert_allclose(table["rlnOriginXAngst"], 2.62 * found["alignments3D/shift"][:, 0], rtol=1e-6)
    assert table["rlnRandomSubset"].tolist() == [1, 2, 2] * 2 and set(table["rlnClassNumber"]) == {3}
    assert set(table["lfjaxImageSign"]) == {-1} and table["lfjaxUid"].tolist() == found["uid"].tolist()
    assert set(table["rlnMicrographName"]) == {"J3/motioncorrected/m.mrc"}
    assert set(table["rlnCoordinateX"]) == {1500} and set(table["rlnCoordinateY"]) == {2000}


def test_several_files_are_merged_by_uid(tmp_path):
    whole, found = save(tmp_path / "whole.cs", fields()), fields()
    order = np.random.default_rng(2).permutation(N)
    main = save(tmp_path / "J9_particles.cs", found, ("alignments3D",))
    rest = save(tmp_path / "J9_passthrough_particles.cs", found, ("blob", "ctf"), order)
    wanted = read_cs(whole)
    for name, table in read_cs([main, rest]).items():
        assert wanted[name].equals(table[list(wanted[name])])
    text = "group:\n  name: particles\n  type: particle\nresults:\n"
    for name in (main.name, rest.name, main.name):
        text += f"  some:\n    metafile: '>{name}'\n    num_items: {N}\n    type: particle.blob\n"
    (tmp_path / "J9_particles.csg").write_text(text)
    assert read_cs(tmp_path / "J9_particles.csg")["particles"].equals(read_cs([main, rest])["particles"])
    (tmp_path / "v.csg").write_text(text.replace("type: particle", "type: volume"))
    with pytest.raises(FileError, match=r"v\.csg.*volume"):
        read_cs(tmp_path / "v.csg")
    (tmp_path / "gone.csg").write_text(text.replace(rest.name, "gone.cs"))
    with pytest.raises(FileError, match=r"gone\.csg: names the file 'gone\.cs', which is missing"):
        read_cs(tmp_path / "gone.csg")
    two = fields(N, **{"ctf/df1_A": np.full(N, 5.0, np.float32)})  # a field of the first file wins
    assert not (merge_cs([whole, save(tmp_path / "two.cs", two)])["ctf/df1_A"] == 5).any()


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    main, found = save(tmp_path / "main.cs", fields(), ("blob",)), fields()
    with pytest.raises(FileError, match=r"few\.cs: 2 of the 6 uids.*first 9223372036854775808 \(row 1\)"):
        read_cs([main, save(tmp_path / "few.cs", found, order=[5, 3, 4, 2])])
    with pytest.raises(FileError, match=r"twice\.cs: uid 9223372036854775811 stands in 2 rows"):
        read_cs([main, save(tmp_path / "twice.cs", found, order=[0, 1, 1, 2, 3, 4, 5])])
    with pytest.raises(FileError, match=r"other\.cs: no uid in common"):
        read_cs([main, save(tmp_path / "other.cs", fields(uid=np.arange(N, dtype=np.uint64)))])
    np.save(open(tmp_path / "plain.cs", "wb"), np.zeros(3))
    np.save(open(tmp_path / "object.cs", "wb"), np.asarray([{}]), allow_pickle=True)
    for name, said in (("plain.cs", "named fields"), ("object.cs", "cannot be read"), ("none.cs", "no such file")):
        with pytest.raises(FileError, match=said):
            read_cs([main, tmp_path / name])
    with pytest.raises(FileError, match="no rows"):
        read_cs(save(tmp_path / "empty.cs", {k: v[:0] for k, v in found.items()}))


def test_a_phase_shift_in_degrees_brings_a_warning(tmp_path):
    found = fields() | {"ctf/phase_shift_rad": np.full(len(fields()["uid"]), 90.0, np.float32)}
    with pytest.warns(DataWarning, match="ctf/phase_shift_rad is up to 90 rad.*in degrees"):
        read_cs(save(tmp_path / "a.cs", found))


@pytest.mark.parametrize("field", ["ctf/df1_A", "ctf/cs_mm", "alignments3D/pose", "alignments3D/shift", "blob/psize_A"])
def test_a_nan_is_named_by_field_and_row(tmp_path, field):
    found = fields()
    found[field][4] = np.nan
    with pytest.raises(FileError, match=f"row 5, column {field}: .*nan"):
        read_cs(save(tmp_path / "a.cs", found))


def test_what_is_missing_is_named(tmp_path):
    found = fields()
    with pytest.raises(FileError, match=r"no field ctf/\*; give the passthrough file.*--no-ctf"):
        read_cs(save(tmp_path / "a.cs", without(found, "ctf")))
    assert "rlnVoltage" not in read_cs(tmp_path / "a.cs", ctf=False)["optics"]
    with pytest.raises(FileError, match="no field ctf/cs_mm;"):
        read_cs(save(tmp_path / "b.cs", without(found, "ctf/cs_mm")))
    with pytest.raises(FileError, match="blob/psize_A"):
        read_cs(save(tmp_path / "c.cs", without(found, "blob/psize_A")))
    assert set(read_cs(tmp_path / "c.cs", pixel_angstrom=1.5)["optics"]["rlnImagePixelSize"]) == {1.5}
    with pytest.raises(FileError, match="no field blob/idx and blob/path"):
        read_cs(save(tmp_path / "d.cs", without(found, "blob")))
    for field, value in (("blob/sign", 0.0), ("alignments3D/split", 2), ("blob/psize_A", -1.0)):
        with pytest.raises(FileError, match=f"row 1, column {field}: "):
            read_cs(save(tmp_path / "e.cs", fields(**{field: np.full(N, value)})))
    with pytest.raises(FileError, match="square"):
        read_cs(save(tmp_path / "f.cs", fields(**{"blob/shape": np.full((N, 2), (30, 32))})))


@pytest.mark.parametrize("multi", [False, True])
def test_several_sets_of_poses_need_a_choice(tmp_path, multi):
    found, pose = several(multi)
    path = save(tmp_path / "a.cs", found)
    with pytest.raises(FileError, match="class_0, class_1, best"):
        read_cs(path)
    with pytest.raises(FileError, match="class_2"):
        read_cs(path, alignment="class_2")
    best = read_cs(path, alignment="best")["particles"]
    assert best["rlnClassNumber"].tolist() == [1, 2, 1, 2, 1, 2]
    wanted = Rotation.from_rotvec(pose[np.arange(N), [0, 1] * 3]).as_matrix().transpose(0, 2, 1)
    np.testing.assert_allclose(turns(best), wanted, atol=1e-6)
    with pytest.warns(DataWarning, match="3 of 6 images have their largest posterior in class_1"):
        one = read_cs(path, alignment="class_1")["particles"]
    np.testing.assert_allclose(turns(one), wanted[1::2], atol=1e-6)
    assert one["lfjaxUid"].tolist() == found["uid"][1::2].tolist() and set(one["rlnClassNumber"]) == {2}


def test_classes_in_2_d_are_no_poses(tmp_path):
    found = without(fields(), "alignments3D")
    found |= {"alignments2D/pose": np.zeros(N, np.float32), "alignments2D/class": np.arange(N, dtype=np.uint32)}
    with pytest.warns(DataWarning, match="alignments2D only"):
        table = read_cs(save(tmp_path / "a.cs", found))["particles"]
    assert "rlnAngleRot" not in table and table["rlnClassNumber"].tolist() == [1, 2, 3, 4, 5, 6]


def test_jobs_without_half_sets_have_none(tmp_path):
    found = fields(**{"alignments3D/split": np.zeros(N, np.uint32)})
    assert "rlnRandomSubset" not in read_cs(save(tmp_path / "a.cs", found))["particles"]


def test_aberrations_of_unknown_sign_are_named_kept_and_written_back(tmp_path):
    values = {
        "ctf/tilt_A": np.tile(np.float32([2700.0, -1350.0]), (N, 1)),
        "ctf/trefoil_A": np.tile(np.float32([500.5, 0]), (N, 1)),
        "ctf/tetra_A": np.tile(np.float32([1, 2, 3, 4.25]), (N, 1)),
        "ctf/shift_A": np.tile(np.float32([0.5, 0]), (N, 1)),
        "ctf/scale_const": np.full(N, 0.125, np.float32),
        "alignments3D/alpha": np.linspace(0.5, 1.5, N).astype(np.float32),
    }
    path = save(tmp_path / "a.cs", fields(**values))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        tables = read_cs(path)
    said = " ".join(str(w.message) for w in found if issubclass(w.category, DataWarning))
    assert all(name in said for name in values) and "rlnBeamTiltX" not in tables["optics"]
    wave, k = 0.0196875, 0.5 / 1.31
    assert f"{2 * np.pi * wave**2 * k**3 * np.hypot(2700, 1350):.3g} rad" in said  # the phase of the tilt at Nyquist
    write_cs(tmp_path / "b.cs", tables)
    back = np.load(tmp_path / "b.cs", allow_pickle=False)
    for name in list(values)[:5]:
        np.testing.assert_array_equal(back[name], values[name])
    with pytest.warns(DataWarning, match="trefoil"):
        tilt = read_cs(path, tilt_sign=-1)["optics"]
    np.testing.assert_allclose(tilt[["rlnBeamTiltX", "rlnBeamTiltY"]].iloc[0], [-0.1, 0.05], rtol=1e-6)  # mrad
    with pytest.raises(ParameterError, match="tilt_sign"):
        read_cs(path, tilt_sign=0)


def test_what_a_cs_file_cannot_say_is_refused(tmp_path):
    tables = read_cs(save(tmp_path / "a.cs", fields()))
    for flag in ("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"):
        with pytest.raises(FileError, match=f"b.cs: {flag}"):
            write_cs(tmp_path / "b.cs", tables | {"optics": tables["optics"].assign(**{flag: 1})})
    loose = tables["particles"].assign(rlnRandomSubset=[1, 2, 0, 1, 2, 2])
    with pytest.raises(FileError, match="row 3, column rlnRandomSubset: 0.0"):
        write_cs(tmp_path / "b.cs", tables | {"particles": loose})
    with pytest.raises(FileError, match="no column rlnAnglePsi"):
        write_cs(tmp_path / "b.cs", tables | {"particles": tables["particles"].drop(columns="rlnAnglePsi")})
    nan = tables["particles"].assign(rlnDefocusU=np.nan)
    with pytest.raises(FileError, match="row 1, column ctf/df1_A: nan"):
        write_cs(tmp_path / "b.cs", tables | {"particles": nan})
    assert not (tmp_path / "b.cs").exists()


def test_images_get_a_uid_from_their_names(tmp_path):
    tables = read_cs(save(tmp_path / "a.cs", fields()))
    table = tables["particles"].drop(columns="lfjaxUid")
    write_cs(tmp_path / "b.cs", tables | {"particles": table})
    write_cs(tmp_path / "c.cs", tables | {"particles": table.iloc[[3, 1, 3]]})  # an image twice, as after symmetry expansion
    b, c = (np.load(tmp_path / f"{n}.cs", allow_pickle=False)["uid"] for n in "bc")
    assert len(set(b)) == N and len(set(c)) == 3 and c[:2].tolist() == [b[3], b[1]]


def test_names_lose_the_uid_of_an_import():
    assert without_uid("J7/imported/005213665113010562610_a_b.mrcs") == "J7/imported/a_b.mrcs"
    assert without_uid("2024_a.mrcs") == "2024_a.mrcs"


def test_a_stack_is_found_without_the_uid_of_its_import(tmp_path):
    images = np.arange(N * 32 * 32, dtype=np.float32).reshape(N, 32, 32)
    io.write_stack(tmp_path / "a.mrcs", images, 1.31)
    save(tmp_path / "p.cs", fields(**{"blob/sign": np.asarray([1, -1] * 3, np.float32)}))
    text = "results:\n  blob:\n    metafile: '>p.cs'\n    type: particle.blob\n"
    (tmp_path / "p.csg").write_text(text)
    file = read_particles(tmp_path / "p.csg")
    found = file.images([0, 1])
    np.testing.assert_array_equal(found, [images[5], -images[4]])  # blob/idx runs backwards, the second is dark


def test_the_sign_of_the_images_is_honoured_and_a_missing_ctf_refused(shared):
    folder = shared / "data/cases/cryo"
    found = read_particles(folder / "13_blob_sign_-1_ignored.cs", ctf=True)
    made = reconstruct(found.batches(100), 32)
    truth = io.read_map(folder / "truth_32px_4A.mrc").array
    assert np.corrcoef(np.ravel(made.volume), np.ravel(truth))[0, 1] >= 0.99
    plain = folder / "14_main_cs_without_ctf_silently_no_ctf.cs"
    with pytest.raises(FileError, match="passthrough"):
        read_cs(plain)
    whole = read_cs([plain, folder / "13_blob_sign_-1_ignored.cs"])
    assert whole["particles"].equals(read_cs(folder / "13_blob_sign_-1_ignored.cs")["particles"])
