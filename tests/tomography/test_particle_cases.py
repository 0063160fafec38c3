"""Particle files as people have them: every one is read rightly or refused with the file, the column and the row named."""

import shutil
import subprocess
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from lfjax.errors import DataWarning, FileError, LfjaxError, ParameterError
from lfjax.io import Stack, read_star, write_stack, write_star
from lfjax.tomography import Aberrations, Ctf, Particles, random_particles, read_particles, write_particles, write_tables
from lfjax.tomography.relion_tables import canonical, lowered, to_particles
from lfjax.tomography.resampling import resample_images

CASES = "data/cases/cryo"


def read(path, **options):
    """The file, its notes and its warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", DataWarning)
        found = read_particles(path, **options)
        found.check()
        notes = found.notes
    return found, "\n".join(notes), "\n".join(str(w.message) for w in said if issubclass(w.category, DataWarning))


@pytest.mark.parametrize(
    ("name", "notes", "warned"),
    [
        ("00_good_reference", "mean defocus 8170 to 19913 A\nhalf-sets of the file: 49 and 51", ""),
        ("01_ctf_premultiplied_flag_ignored", "100 images of 32 px at 4 A, CTF premultiplied: honoured", ""),
        ("02_phase_flipped_flag_ignored", "phases flipped: honoured", ""),
        (
            "03_two_optics_groups_4A_5A_silently_mixed",
            "50 images of 32 px at 5 A, brought to 32 px at 4 A",
            "4 A in the header",
        ),
        ("04_one_unassigned_subset_reshuffles_all_halves", "1 of 100 images without half-set, first row 1", ""),
        ("07_unnormalised_dc_10_sigma", "100 images", ""),
    ],
)
def test_a_case_is_read_and_says_what_is_honoured(shared, name, notes, warned):
    found, said, warning = read(shared / CASES / f"{name}.star")
    assert notes in said and warned in warning and bool(warned) == bool(warning)
    assert found.size == 32 and found.pixel_angstrom == 4.0 and found.images([99]).shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("05_one_nan_defocus_kills_map_at_the_end.star", "particles, row 6, column rlnDefocusU: nan; expected a number"),
        ("09_zero_particles_traceback.star", "block 'particles' has no row"),
        ("10_undefined_optics_group_says_nan_to_nan.star", "row 100 names optics group 2 .*defines: 1"),
        ("14_main_cs_without_ctf_silently_no_ctf.cs", "ctf=False"),
    ],
)
def test_a_case_is_refused_by_name(shared, name, words):
    with pytest.raises(FileError, match=words) as error:
        read_particles(shared / CASES / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_flags_reach_the_transfer_function(shared):
    for name, applied in (("01_ctf_premultiplied_flag_ignored", 2), ("02_phase_flipped_flag_ignored", 1)):
        found = read_particles(shared / CASES / f"{name}.star")
        plain = read_particles(shared / CASES / "00_good_reference.star").particles.ctf(0.05, 0.02)
        np.testing.assert_array_equal(found.particles.ctf.applied, applied)
        np.testing.assert_allclose(found.particles.ctf(0.05, 0.02), plain**2 if applied == 2 else abs(plain), atol=1e-6)


def test_half_sets_are_kept_where_they_are(shared):
    name = "04_one_unassigned_subset_reshuffles_all_halves"
    column = read_star(shared / CASES / f"{name}.star")["particles"]["rlnRandomSubset"]
    np.testing.assert_array_equal(read_particles(shared / CASES / f"{name}.star").particles.half, column)


def test_dark_particles_are_turned_bright(shared):
    found = read_particles(shared / CASES / "13_blob_sign_-1_ignored.cs")
    np.testing.assert_array_equal(found.images([3, 0]), -Stack(shared / CASES / "dark.mrcs")[[3, 0]])


@pytest.mark.filterwarnings("ignore:.*in the header")
def test_groups_of_two_pixel_sizes_come_on_one_grid(shared):
    path = shared / CASES / "03_two_optics_groups_4A_5A_silently_mixed.star"
    found, table = read_particles(path), read_star(path)["particles"]
    group = table["rlnOpticsGroup"].to_numpy() - 1
    np.testing.assert_array_equal(found.particles.group, group)
    np.testing.assert_array_equal(found.particles.pixel_angstrom, 4.0)
    np.testing.assert_allclose(found.particles.shifts, -table[["rlnOriginXAngst", "rlnOriginYAngst"]] / 4, rtol=1e-5)
    np.testing.assert_array_equal(found.shells, [17, 13])  # 128 A: Nyquist of 4 A is shell 16, that of 5 A shell 12.8
    raw, some = Stack(path.with_name("mixedpix.mrcs")), [60, 0, 99, 3]
    expected = [resample_images(raw[[i]], [4.0, 5.0][group[i]], 32, 4.0)[0] for i in some]
    np.testing.assert_allclose(found.images(some), expected, rtol=1e-6, atol=1e-6)
    coarse = read_particles(path, grid=(24, 6.0))
    assert coarse.size == 24 and coarse.images([0]).shape == (1, 24, 24) and list(coarse.shells) == [13, 13]
    np.testing.assert_allclose(coarse.particles.shifts, found.particles.shifts * 4 / 6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*in the header")
def test_real_files_say_what_is_in_them(shared):
    groups = read_particles(shared / "data/cryo/relion31.6opticsgroups.star")
    optics, found = groups.tables["optics"], groups.particles.ctf.aberrations
    index = np.asarray(groups.particles.group)
    np.testing.assert_allclose(1e3 * found.beam_tilt_rad, optics[["rlnBeamTiltX", "rlnBeamTiltY"]].to_numpy()[index], rtol=1e-5)
    matrix = optics[[f"rlnMagMat{i}{j}" for i in "01" for j in "01"]].to_numpy().reshape(-1, 2, 2)[index]
    np.testing.assert_allclose(found.magnification, matrix, rtol=1e-6)
    np.testing.assert_allclose(found.odd[index == 1][0], [0.344534641293, 0.211712272982, -5.82415906716, 0, 0, 2.65234983837])
    assert found.even.shape == (139, 9) and groups.pixel_angstrom == 1.24 and groups.size == 196
    assert "rlnNormCorrection (0.495825 to 1.027814): kept, not applied" in groups.notes
    with pytest.raises(FileError, match="0003_shiny.mrcs"):
        groups.check()
    newer = read_particles(shared / "data/cryo/relion5.star")
    assert len(newer) == 17 and "beam tilt (0.0435, 0.0141) mrad, odd aberrations, even" in newer.notes[0]
    _, notes, warned = read(shared / "data/cryo/relion31.star")
    assert "half-sets of the file: 5 and 0 images" in notes and "1 A in the header of relion31.mrcs, 2.806 A" in warned
    old, notes, _ = read(shared / "data/cryo/empiar_10076_7.star")
    assert notes.startswith("optics group 1 (opticsGroup1): 7 images of 320 px at 1.31 A") and not old.posed


def good(tmp_path, count=6):
    """A small file of RELION 3.1 and its tables."""
    particles = random_particles(jax.random.key(0), count, pixel_angstrom=3.0, shift_px=2.0)
    write_stack(tmp_path / "a.mrcs", jax.random.normal(jax.random.key(1), (count, 8, 8)), 3.0)
    path = tmp_path / "a.star"
    write_particles(path, particles, [(i, "a.mrcs") for i in range(count)], 8)
    return path, read_star(path)


@pytest.mark.parametrize(
    "column",
    ["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    + ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnImagePixelSize"],
)
@pytest.mark.parametrize("version", ["3.0", "3.1"])
def test_a_missing_column_is_named(tmp_path, column, version):
    path, tables = good(tmp_path)
    write_star(path, lowered({k: t.drop(columns=column, errors="ignore") for k, t in tables.items()}, "3.1"))
    if version == "3.0":
        whole = lowered(tables, "3.0")[""]
        column = {"rlnImagePixelSize": "rlnDetectorPixelSize"}.get(column, column.removesuffix("Angst"))
        write_star(path, {"": whole.drop(columns=column)})
    words = "pixel size" if "PixelSize" in column else f"no column {column}"
    with pytest.raises(FileError, match=words):
        read_particles(path)


@pytest.mark.parametrize("entry", ["nan", "inf", "word"])
@pytest.mark.parametrize("column", ["rlnAnglePsi", "rlnOriginXAngst", "rlnDefocusV", "rlnPhaseShift", "rlnCtfBfactor"])
def test_an_entry_that_is_no_number_is_named_with_its_row(tmp_path, column, entry):
    path, tables = good(tmp_path)
    values = tables["particles"][column].astype(object)
    values[4] = entry
    write_star(path, tables | {"particles": tables["particles"].assign(**{column: values})})
    with pytest.raises(FileError, match=f"a.star: particles, row 5, column {column}: {entry}; expected a number"):
        read_particles(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rlnImageDimensionality": 3}, "rlnImageDimensionality: 3; lfjax reads 2-D images"),
        ({"rlnCtfDataAreCtfPremultiplied": 1, "rlnCtfDataArePhaseFlipped": 1}, "optics group 1 is flagged"),
        ({"rlnCtfDataAreCtfPremultiplied": 2}, "rlnCtfDataAreCtfPremultiplied: 2; expected 0 or 1"),
        ({"rlnCtfDataAreCtfCorrected": 1}, "rlnCtfDataAreCtfCorrected: 1; the images have been divided by their CTF"),
        ({"rlnOddZernike": "[0.1,x]"}, r"optics, row 1, column rlnOddZernike: '\[0.1,x\]'"),
        ({"rlnMagMat00": 0.0}, "rlnMagMat00.*expected matrices close to 1"),
        ({"rlnVoltage": 0.0}, "rlnVoltage: 0; expected 20 to 2000 kV"),
        ({"rlnAmplitudeContrast": 7.0}, "rlnAmplitudeContrast: 7; expected 0 to 1"),
        ({"rlnImagePixelSize": float("nan")}, "optics, row 1, column rlnImagePixelSize: nan"),
    ],
)
def test_optics_without_sense_are_refused(tmp_path, change, words):
    path, tables = good(tmp_path)
    write_star(path, tables | {"optics": tables["optics"].assign(**change)})
    with pytest.raises(FileError, match=words):
        read_particles(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rlnIsFlip": [0, 0, 1, 0, 0, 0]}, "particles, row 3, column rlnIsFlip: 1; lfjax does not mirror images"),
        ({"rlnMagnificationCorrection": 1.01}, "rlnMagnificationCorrection: 1.01"),
        ({"rlnEnabled": [1, 1, 1, 1, 1, 0]}, "row 6, column rlnEnabled: 0; remove"),
        ({"rlnReconstructImageName": "1@b.mrcs"}, "rlnReconstructImageName"),
        ({"rlnOriginZAngst": 2.0}, "rlnOriginZAngst: 2.0; a 2-D image"),
        ({"rlnCtfImage": "ctf.mrc"}, "rlnCtfImage: images of CTF values"),
        ({"rlnVoltage": [300, 300, 200, 300, 300, 300]}, "row 3, column rlnVoltage: 200.*but 300.0 in optics group 1"),
        ({"rlnOpticsGroup": [1, 1, 1, 4, 4, 1]}, r"row 4 names optics group 4 \(2 rows do\)"),
        ({"rlnOpticsGroup": [1, 1, None, 1, 1, 1]}, "row 3, column rlnOpticsGroup"),
        ({"rlnTomoName": "t1", "rlnTomoVisibleFrames": "[1,1]"}, "not 2-D stacks"),
        ({"lfjaxImageSign": 0.5}, "sign of an image 0.5"),
    ],
)
def test_columns_that_change_the_meaning_are_refused(tmp_path, change, words):
    path, tables = good(tmp_path)
    write_star(path, tables | {"particles": tables["particles"].assign(**change)})
    with pytest.raises(FileError, match=words):
        read_particles(path)


def test_columns_without_effect_are_not_refused(tmp_path):
    path, tables = good(tmp_path)
    plain = {
        "rlnIsFlip": 0,
        "rlnMagnificationCorrection": 1.0,
        "rlnOriginZAngst": 0.0,
        "rlnAngleTiltPrior": 90.0,
        "rlnVoltage": 300,
    }
    plain |= {
        "rlnHelicalTubeID": 3,
        "rlnNormCorrection": 0.7,
        "rlnMicrographName": "m.mrc",
        "rlnClassNumber": [1, 1, 1, 2, 2, 2],
    }
    write_star(path, tables | {"particles": tables["particles"].assign(**plain)})
    found, notes, warned = read(path)
    assert "rlnClassNumber names 2 classes" in warned
    assert "rlnNormCorrection (0.7): kept, not applied" in notes and "rlnIsFlip" not in notes
    assert list(found.tables["particles"]["rlnHelicalTubeID"]) == [3] * 6


def test_a_second_pixel_size_is_named(tmp_path):
    """Some programs write the columns of RELION 3.0 beside those of 3.1."""
    path, tables = good(tmp_path)
    both = {"rlnDetectorPixelSize": 5.0, "rlnMagnification": [16666.7] * 5 + [10000.0]}
    write_star(path, tables | {"particles": tables["particles"].assign(**both)})
    found, _, warned = read(path)
    assert "row 6: pixel size 3 A from rlnImagePixelSize, another from rlnDetectorPixelSize" in warned
    assert found.pixel_angstrom == 3.0
    write_tables(path, found.tables, version="3.0")
    again = read_star(path)[""]
    assert not again.columns.duplicated().any() and (again["rlnDetectorPixelSize"] == 3.0).all()


@pytest.mark.parametrize(("values", "read_as"), [([0, -4, -8] * 2, [0, 4, 8] * 2), ([5, -4, 0] * 2, [5, -4, 0] * 2)])
def test_b_factors_of_warp_are_decays_and_those_of_relion_have_both_signs(tmp_path, values, read_as):
    path, tables = good(tmp_path)
    write_star(path, tables | {"particles": tables["particles"].assign(rlnCtfBfactor=values)})
    found, notes, warned = read(path)
    np.testing.assert_array_equal(found.particles.ctf.b_factor_angstrom2, read_as)
    assert ("as Warp writes it" in warned and "dose weights" in notes) or ("as RELION does" in warned and "dose" not in notes)


def test_an_optics_group_is_defined_once(tmp_path):
    path, tables = good(tmp_path)
    write_star(path, tables | {"optics": pd.concat([tables["optics"]] * 2)})
    with pytest.raises(FileError, match="optics group 1 is defined twice"):
        read_particles(path)


def test_images_without_ctf_are_said_to_have_none(tmp_path):
    path, tables = good(tmp_path)
    bare = tables["particles"].drop(columns=["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"])
    write_star(path, tables | {"particles": bare})
    with pytest.raises(FileError, match="no column rlnDefocusU.*--no-ctf"):
        read_particles(path)
    write_star(path, tables | {"particles": bare.assign(rlnCtfImage="ctf.mrc")})
    found = read_particles(path, ctf=False)
    assert found.particles.ctf is None and found.notes[0].endswith("no CTF") and found.posed


def test_a_pixel_size_from_outside_keeps_the_pixels_of_the_shifts(tmp_path):
    path, _ = good(tmp_path)
    plain, new = read_particles(path), read_particles(path, pixel_angstrom=3.3)
    np.testing.assert_allclose(new.particles.shifts, plain.particles.shifts, rtol=1e-5)
    np.testing.assert_allclose(new.particles.pixel_angstrom, 3.3)
    tables = plain.tables
    two = {"optics": pd.concat([tables["optics"], tables["optics"].assign(rlnOpticsGroup=2, rlnImagePixelSize=4.0)])}
    with pytest.raises(ParameterError, match="pixel_angstrom = 3.3.*pixels of 3 to 4 A"):
        canonical(path, tables | two, pixel_angstrom=3.3)


def everything():
    """Two optics groups with all that RELION 3.1 says of one."""
    plain, n = random_particles(jax.random.key(2), 6, pixel_angstrom=1.3, shift_px=1.0), 6
    group = jnp.array([0, 1, 1, 0, 1, 0])
    tilt = jnp.array([[1.5e-3, -2e-4], [0.0, 5e-4]])[group]
    odd, even = jnp.array([[0.25, 1.5, -3.0], [0.0, 0.0, 7.5]])[group], jnp.array([[0.5], [0.125]])[group]
    matrix = jnp.array([[[1.01, 0.002], [0.003, 0.99]], [[1.0, 0.0], [0.0, 1.0]]])[group]
    found = Aberrations(beam_tilt_rad=tilt, odd=odd, even=even, magnification=matrix)
    old = {f: getattr(plain.ctf, f) for f in ("voltage_kv", "cs_mm", "amplitude_contrast", "b_factor_angstrom2", "scale")}
    angles = (plain.ctf.defocus_u_angstrom, plain.ctf.defocus_v_angstrom, plain.ctf.angle_rad)
    ctf = Ctf(*angles, **old, phase_shift_rad=jnp.full(n, 0.3), aberrations=found, applied=jnp.array([2, 1])[group])
    return Particles(plain.rotations, shifts=plain.shifts, ctf=ctf, pixel_angstrom=1.3, half=plain.half, group=group)


@pytest.mark.filterwarnings("ignore:RELION 3.0 does not know")
@pytest.mark.parametrize("version", ["3.0", "3.1", "5"])
def test_optics_with_everything_come_back(tmp_path, version):
    particles, path = everything(), tmp_path / "a.star"
    write_particles(path, particles, [(i, "a.mrcs") for i in range(6)], 8, version=version)
    found = to_particles(path, read_star(path))
    number = dict(zip(np.asarray(found.group).tolist(), np.asarray(particles.group).tolist(), strict=True))
    np.testing.assert_array_equal([number[g] for g in np.asarray(found.group).tolist()], particles.group)
    for a, b in zip(*(jax.tree.leaves(eqx.tree_at(lambda p: p.group, p, None)) for p in (found, particles)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


def test_tables_pass_through_every_version_unchanged(shared, tmp_path):
    """Conversion writes columns and not what was computed from them; angstroms go through pixels and back."""
    tables = read_particles(shared / "data/cryo/relion31.6opticsgroups.star").tables
    with pytest.warns(DataWarning, match="RELION 3.0 does not know rlnOddZernike"):
        write_tables(tmp_path / "old.star", tables, version="3.0")
    write_tables(tmp_path / "new.star", tables)
    for name in ("old", "new"):
        again = read_particles(tmp_path / f"{name}.star").tables
        for key in ("optics", "particles"):
            kept = [c for c in tables[key] if c in again[key] and not c.startswith("rlnOpticsGroup")]
            missing = (
                {"optics": {"rlnImageDimensionality"}, "particles": set()}
                if name == "old"
                else {"optics": set(), "particles": set()}
            )
            assert set(tables[key]) - set(again[key]) <= missing[key] | {"rlnMicrographPixelSize"}
            left, right = (t[key][kept] for t in (again, tables))
            if key == "optics":
                left = left.sort_values("rlnBeamTiltX", ignore_index=True)
                right = right.sort_values("rlnBeamTiltX", ignore_index=True)
            pd.testing.assert_frame_equal(left, right, rtol=1e-12)


@pytest.mark.skipif(shutil.which("relion_convert_star") is None, reason="RELION 3.1 is not installed")
def test_files_of_relion_3_0_become_what_relion_makes_of_them(shared, tmp_path):
    old = lowered(read_particles(shared / "data/cryo/relion31.star").tables, "3.0")
    table = old[""].assign(rlnBeamTiltX=[0.1, 0.2, 0.1, 0.1, 0.2], rlnBeamTiltY=0.3)
    write_star(tmp_path / "old.star", {"": table.drop(columns="rlnImageSize")})
    shutil.copy(shared / "data/cryo/relion31.mrcs", tmp_path)
    program = ["relion_convert_star", "--i", "old.star", "--o", "new.star"]
    subprocess.run(program, cwd=tmp_path, check=True, capture_output=True, timeout=100)
    theirs = read_star(tmp_path / "new.star")
    ours = canonical(tmp_path / "old.star", read_star(tmp_path / "old.star"))
    for key in ("optics", "particles"):
        for name in ours[key]:
            if pd.api.types.is_numeric_dtype(ours[key][name]):
                np.testing.assert_allclose(ours[key][name], theirs[key][name], rtol=1e-5, atol=1e-6, err_msg=name)
            else:
                assert list(ours[key][name]) == list(theirs[key][name])


@pytest.mark.parametrize("version", ["3.0", "3.1"])
def test_shared_columns_may_stand_beside_the_particles(tmp_path, version):
    path, tables = good(tmp_path)
    flags = {"rlnCtfDataAreCtfPremultiplied": 1, "rlnBeamTiltX": 0.5}
    tables = tables | {"particles": tables["particles"].assign(**flags)}
    write_star(path, lowered(tables, "3.0") if version == "3.0" else tables)
    found = read_particles(path).particles.ctf
    np.testing.assert_array_equal(found.applied, 2)
    np.testing.assert_allclose(found.aberrations.beam_tilt_rad, np.tile([5e-4, 0.0], (6, 1)))


def test_images_come_in_the_order_of_their_files(tmp_path):
    """What a batch holds does not depend on the order, and each stack is passed once."""
    rng, count = np.random.default_rng(0), 9
    names = [(int(i), s) for s in ("b.mrcs", "a.mrcs", "c.mrcs") for i in range(3)]
    names = [names[i] for i in rng.permutation(count)]
    for k, stack in enumerate(("a.mrcs", "b.mrcs", "c.mrcs")):
        write_stack(tmp_path / stack, np.arange(3)[:, None, None] + 10.0 * k + np.zeros((3, 4, 4)), 3.0)
    particles = random_particles(jax.random.key(0), count, pixel_angstrom=3.0)
    write_particles(tmp_path / "a.star", particles, names, 4)
    found = read_particles(tmp_path / "a.star")
    assert [names[i] for i in found.order] == sorted(names, key=lambda n: (n[1], n[0]))
    images, parts = zip(*found.batches(4), strict=True)
    np.testing.assert_array_equal(np.concatenate(images)[:, 0, 0], [0, 1, 2, 10, 11, 12, 20, 21, 22])
    defocus = np.concatenate([part.ctf.defocus_u_angstrom for part in parts])
    np.testing.assert_array_equal(defocus, np.asarray(found.particles.ctf.defocus_u_angstrom)[found.order])
    value = {"a.mrcs": 0, "b.mrcs": 10, "c.mrcs": 20}
    np.testing.assert_array_equal(found.images()[:, 1, 2], [value[s] + i for i, s in names])


def test_stacks_are_compared_with_the_file_before_any_work(tmp_path):
    path, tables = good(tmp_path)
    read_particles(path).check()
    write_stack(tmp_path / "short.mrcs", np.zeros((2, 8, 8)), 3.0)
    write_stack(tmp_path / "large.mrcs", np.zeros((6, 10, 10)), 3.0)
    for stack, words in (
        ("short.mrcs", "short.mrcs: 2 images; expected image 6"),
        ("large.mrcs", "large.mrcs: images of 10 x 10 pixels; expected 8 x 8"),
        ("gone.mrcs", "gone.mrcs is not in"),
    ):
        changed = [*tables["particles"]["rlnImageName"][:5], f"000006@{stack}"]
        write_star(path, tables | {"particles": tables["particles"].assign(rlnImageName=changed)})
        with pytest.raises(FileError, match=words):
            read_particles(path).check()
    bare = tables["optics"].drop(columns="rlnImageSize")
    write_star(
        path,
        {
            "optics": bare,
            "particles": tables["particles"].assign(rlnImageName=[f"{i}@a.mrcs" for i in range(1, 6)] + ["6@large.mrcs"]),
        },
    )
    with pytest.raises(FileError, match="large.mrcs: images of 10 x 10 pixels; expected 8 x 8"):
        read_particles(path).check()


def test_the_stack_of_another_job_is_not_taken_for_the_one_named(tmp_path):
    path, tables = good(tmp_path)
    names = [name.replace("@", "@Polish/job7/") for name in tables["particles"]["rlnImageName"]]
    write_star(path, tables | {"particles": tables["particles"].assign(rlnImageName=names)})
    with pytest.raises(FileError, match="Polish/job7/a.mrcs is not in"):
        read_particles(path).check()
    read_particles(path, folder=tmp_path).check()  # the caller says where the stacks are


def test_a_single_image_is_a_file(tmp_path):
    path, _ = good(tmp_path, count=1)
    assert read_particles(path).images().shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"also": ["b.cs"]}, "also"),
        ({"alignment": "alignments3D"}, "alignment"),
        ({"grid": (0, 1.0)}, "grid"),
        ({"pixel_angstrom": -1.0}, "pixel_angstrom"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, options, words):
    path, _ = good(tmp_path)
    with pytest.raises(LfjaxError, match=words):
        read_particles(path, **options)


def test_a_beam_tilt_replaces_the_coma_terms_as_in_relion(tmp_path):
    particles = random_particles(jax.random.key(0), 3, pixel_angstrom=1.0)
    write_particles(tmp_path / "a.star", particles, [(i, "a.mrcs") for i in range(3)], 8)
    tables = read_star(tmp_path / "a.star")
    tables["optics"]["rlnOddZernike"] = "[1,2,3,4,5,6]"
    write_star(tmp_path / "odd.star", tables)
    assert np.array_equal(read_particles(tmp_path / "odd.star").particles.ctf.aberrations.odd[0], [1, 2, 3, 4, 5, 6])
    tables["optics"]["rlnBeamTiltX"] = 0.0
    write_star(tmp_path / "tilt.star", tables)
    with pytest.warns(DataWarning, match="coma terms"):
        found = read_particles(tmp_path / "tilt.star")
    assert np.array_equal(found.particles.ctf.aberrations.odd[0], [1, 2, 3, 0, 0, 6])
