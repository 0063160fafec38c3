"""Particle files that contradict themselves or a microscope: refused by name, or read with a word."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest

from lfjax.errors import DataWarning, FileError, ParameterError
from lfjax.io import Stack, read_star, write_stack, write_star
from lfjax.tomography import (
    Particles,
    convert_particles,
    draw_half_sets,
    expand_tables,
    names_from,
    random_particles,
    read_particles,
    write_particles,
)
from lfjax.tomography.background import noise_spectra
from lfjax.tomography.relion_notes import group_notes

NAMES = [(i, "a.mrcs") for i in range(6)]


def good(folder, count=6, **optics):
    """A small file of RELION 3.1 and its tables."""
    folder.mkdir(exist_ok=True)
    particles = random_particles(jax.random.key(0), count, pixel_angstrom=3.0, shift_px=1.0, **optics)
    write_stack(folder / "a.mrcs", np.random.default_rng(1).normal(size=(count, 8, 8)), 3.0)
    write_particles(folder / "a.star", particles, NAMES[:count], 8)
    return folder / "a.star", read_star(folder / "a.star")


def changed(path, tables, block="particles", **columns):
    write_star(path, tables | {block: tables[block].assign(**columns)})
    return path


def said(path, **options):
    """The file, and its warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", DataWarning)
        file = read_particles(path, **options)
        file.check()
    return file, "\n".join(str(w.message) for w in found if issubclass(w.category, DataWarning))


def names(*numbers):
    return [f"{n:06d}@a.mrcs" for n in numbers]


def test_an_image_in_both_half_sets_is_refused(tmp_path):
    path, tables = good(tmp_path)
    repeated = [*names(1, 2, 3, 1, 2), "3@./a.mrcs"]
    changed(path, tables, rlnImageName=repeated, rlnRandomSubset=[1, 2, 1, 1, 2, 2])
    with pytest.raises(FileError, match=r"image 000003@a.mrcs is in both half-sets \(row 3 and another\)"):
        read_particles(path)


def test_repeated_images_are_named_and_expansions_are_not(tmp_path):
    path, tables = good(tmp_path)
    halves = {"rlnRandomSubset": [1, 2, 1, 2, 1, 2]}
    assert said(changed(path, tables, **halves))[1] == ""
    expanded = expand_tables(read_star(path), "D2")
    write_star(path, expanded)
    file, warned = said(path)
    assert warned == "" and any(n == "18 of 24 rows repeat an image: 6 distinct" for n in file.notes)
    write_star(path, {**tables, "particles": pd.concat([read_star(path)["particles"].iloc[:8]] * 2)})
    assert "14 rows repeat an image of another row, 8 of them with the same pose, first row 9 (000001@a.mrcs)" in said(path)[1]


@pytest.mark.parametrize("seed", range(5))
def test_half_sets_are_drawn_per_image(tmp_path, seed):
    path, tables = good(tmp_path)
    changed(path, tables, rlnImageName=names(1, 2, 3, 3, 2, 1), rlnRandomSubset=[0, 0, 0, 0, 2, 0])
    file = said(path)[0]
    half = np.asarray(file.particles.with_half_sets(jax.random.key(seed), file.labels).half)
    np.testing.assert_array_equal(half[:3], half[:2:-1])
    assert half[1] == 2 and (half == 1).any() and (half > 0).all()


def test_labels_change_nothing_where_images_differ_and_balance_where_not():
    key = jax.random.key(3)
    half = np.array([0, 1, 0, 0, 2, 0, 0, 0])
    np.testing.assert_array_equal(draw_half_sets(key, half), draw_half_sets(key, half, 3 * np.arange(8)))
    for count in (2, 3, 4, 9):
        many = draw_half_sets(key, np.zeros(12 * count, int), np.repeat(np.arange(12), count))
        assert (many.reshape(12, count) == many[::count, None]).all() and (many == 1).sum() == 6 * count
    uneven = draw_half_sets(key, np.zeros(3, int), np.array([0, 1, 1]))
    assert set(uneven) == {1, 2}
    with pytest.raises(ParameterError, match="image of row"):
        draw_half_sets(key, np.array([1, 2]), np.array([0, 0]))
    few = random_particles(key, 4, pixel_angstrom=1.0)
    np.testing.assert_array_equal(few.with_half_sets(key, np.arange(4)).half, few.half)


def test_expansion_draws_half_sets_before_and_names_a_second_expansion(tmp_path):
    path, tables = good(tmp_path)
    bare = tables | {"particles": tables["particles"].drop(columns="rlnRandomSubset")}
    with pytest.warns(DataWarning, match="6 of 6 rows have no half-set: drawn at random per image"):
        once = expand_tables(bare, "C3")
    half = once["particles"]["rlnRandomSubset"].to_numpy().reshape(6, 3)
    assert (half == half[:, :1]).all() and (half[:, 0] == 1).sum() == 3
    with pytest.warns(DataWarning, match="12 of 18 rows repeat an image.*expanded before"):
        expand_tables(once, "C3")


@pytest.mark.parametrize(
    ("block", "change", "words"),
    [
        ("optics", {"rlnVoltage": 300000.0}, "optics, row 1, column rlnVoltage: 300000; expected 20 to 2000 kV"),
        ("optics", {"rlnSphericalAberration": 2.7e7}, "rlnSphericalAberration: 2.7e.07; expected -50 to 50 mm"),
        ("optics", {"rlnAmplitudeContrast": -0.1}, "rlnAmplitudeContrast: -0.1; expected 0 to 1"),
        ("optics", {"rlnAmplitudeContrast": 7.0}, "rlnAmplitudeContrast: 7; expected 0 to 1"),
        ("particles", {"rlnDefocusV": [1e4, 1e4, 2e6, 1e4, 1e4, 1e4]}, "row 3, column rlnDefocusV: 2e.06; expected"),
        ("particles", {"rlnOriginYAngst": [0, 0, 0, 0, 30.0, 0]}, "row 5, column rlnOriginYAngst: 30 A; expected.*box of 24 A"),
        ("particles", {"rlnRandomSubset": [1, 2, 1, 3, 1, 2]}, "row 4, column rlnRandomSubset: 3; expected half-set 1 or 2"),
        ("particles", {"rlnRandomSubset": [1, 1.5, 1, 2, 1, 2]}, "row 2, column rlnRandomSubset: 1.5"),
        ("particles", {"rlnRandomSubset": [1, 2, "A", 2, 1, 2]}, "row 3, column rlnRandomSubset: A"),
        (
            "particles",
            {"rlnOriginX": 1.5, "rlnOriginXAngst": 1.5},
            "row 1: rlnOriginX 1.5 px is 4.5 A, but rlnOriginXAngst is 1.5",
        ),
        ("particles", {"rlnDetectorPixelSize": 5.0, "rlnMagnification": 0.0}, "another from rlnDetectorPixelSize"),
    ],
)
def test_impossible_values_are_refused(tmp_path, block, change, words):
    path, tables = good(tmp_path)
    kind = DataWarning if "another" in words else FileError
    with pytest.warns(kind, match=words) if kind is DataWarning else pytest.raises(kind, match=words):
        read_particles(changed(path, tables, block, **change))


def test_a_magnification_of_zero_is_named(tmp_path):
    path, tables = good(tmp_path)
    optics = tables["optics"].drop(columns="rlnImagePixelSize").assign(rlnDetectorPixelSize=5.0, rlnMagnification=0.0)
    write_star(path, tables | {"optics": optics})
    with pytest.raises(FileError, match="column rlnMagnification: 0; expected a positive number"):
        read_particles(path)


def test_origins_are_checked_where_only_the_stack_knows_the_box(tmp_path):
    path, tables = good(tmp_path)
    optics = tables["optics"].drop(columns="rlnImageSize")
    write_star(path, {"optics": optics, "particles": tables["particles"].assign(rlnOriginXAngst=30.0)})
    with pytest.raises(FileError, match="row 1, column rlnOriginXAngst: 30 A"):
        read_particles(path).check()


@pytest.mark.parametrize(
    ("block", "change", "words"),
    [
        ("particles", {"rlnDefocusU": 1.2, "rlnDefocusV": 1.1}, "no defocus is larger than 1.2 A.*micrometres"),
        ("particles", {"rlnDefocusU": -1e4, "rlnDefocusV": -1.2e4}, "negative.*overfocus.*is the sign right"),
        ("optics", {"rlnPixelSize": 4.0}, r"row 1: pixel size 3 A from rlnImagePixelSize, another from rlnPixelSize \(4 A\)"),
    ],
)
def test_unlikely_values_bring_a_warning(tmp_path, block, change, words):
    path, tables = good(tmp_path)
    with pytest.warns(DataWarning, match=words):
        read_particles(changed(path, tables, block, **change))


def test_plain_files_have_no_warnings_and_say_their_optics(tmp_path):
    path, tables = good(tmp_path)
    file, warned = said(changed(path, tables, rlnDefocusU=[8e3, 2e4, 1e4, 1e4, 1e4, 1e4], rlnDefocusV=1e4))
    assert warned == "" and "CTF: 300 kV, Cs 2.7 mm, amplitude contrast 0.1, mean defocus 9000 to 15000 A" in file.notes
    assert said(changed(path, tables, rlnOriginX=tables["particles"]["rlnOriginXAngst"] / 3))[1] == ""
    assert group_notes(file.tables, file.particles[:1])[0].startswith("optics group 1 (opticsGroup1): 1 image at")


def test_what_goes_with_the_ctf_is_named(tmp_path):
    path, tables = good(tmp_path)
    changed(path, tables, "optics", rlnCtfDataAreCtfPremultiplied=1)
    with pytest.raises(FileError, match="rlnCtfDataAreCtfPremultiplied.*--no-ctf"):
        read_particles(path, ctf=False)
    changed(path, tables, "optics", rlnCtfDataArePhaseFlipped=1, rlnBeamTiltX=0.3, rlnEvenZernike="[0.5]", rlnMagMat00=1.01)
    with pytest.warns(DataWarning, match="PhaseFlipped, rlnBeamTiltX, rlnEvenZernike, rlnMagMat00: dropped together"):
        assert read_particles(path, ctf=False).particles.ctf is None


def test_another_pixel_size_is_named(tmp_path):
    path, _ = good(tmp_path)
    file, warned = said(path, pixel_angstrom=5.0)
    assert "pixel size 5 A given instead of 3 A; shifts keep their pixels, so origins" in warned and "by 1.667" in warned
    np.testing.assert_allclose(file.particles.shifts, read_particles(path).particles.shifts, rtol=1e-5)
    assert said(path, pixel_angstrom=3.0)[1] == ""
    convert_particles(path, tmp_path / "a.cs")
    file, warned = said(tmp_path / "a.cs", pixel_angstrom=5.0)
    assert "instead of 3 A" in warned
    np.testing.assert_allclose(file.particles.shifts, read_particles(path).particles.shifts, rtol=1e-5)


def test_tomograms_of_plain_particles_are_refused(tmp_path):
    path, _ = good(tmp_path)
    with pytest.raises(ParameterError, match="tomograms.*a row per image"):
        read_particles(path, tomograms=tmp_path / "tomograms.star")


@pytest.mark.parametrize("flag", ["rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"])
def test_relion_3_0_gets_no_images_that_it_would_misread(tmp_path, flag):
    path, tables = good(tmp_path)
    changed(path, tables, "optics", **{flag: 1})
    with pytest.raises(FileError, match=f"old.star: column {flag} is set; RELION 3.0.*write version 3.1"):
        convert_particles(path, tmp_path / "old.star", version="3.0")
    assert not (tmp_path / "old.star").exists()
    convert_particles(path, tmp_path / "new.star")


@pytest.mark.parametrize("target", ["out/deep/b.star", "out/b.cs", "job/b.star", "job/deep/b.star"])
def test_stacks_are_found_from_another_folder(tmp_path, target):
    path, _ = good(tmp_path / "job")
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        convert_particles(path, tmp_path / target)
    assert any("relative to the folder of this file" in str(w.message) for w in found) == target.startswith("out")
    np.testing.assert_array_equal(read_particles(tmp_path / target).images([4]), Stack(path.with_name("a.mrcs"))[[4]])


def test_names_stay_where_the_stack_is_missing_or_found(tmp_path):
    path, tables = good(tmp_path / "job")
    (tmp_path / "job/a.mrcs").unlink()
    assert names_from(tables, path, tmp_path / "b.star") is tables
    (tmp_path / "job/a.mrcs").write_bytes(b"x")
    with pytest.warns(DataWarning, match="a.mrcs as job/a.mrcs"):
        moved = names_from(tables, path, tmp_path / "b.star")
    assert moved["particles"]["rlnImageName"][5] == "000006@job/a.mrcs"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text + text, "a second block 'optics'; expected each name once"),
        (
            lambda text: text.replace("_rlnDefocusV #", "_rlnDefocusU #"),
            "block 'particles', line .*: a second column rlnDefocusU",
        ),
        (lambda text: text.rstrip().rsplit("\t", 3)[0] + "\n", r"block 'particles', row 6 \(line \d+\): \d+ of \d+ fields"),
        (lambda text: text.replace("a.mrcs", "a b.mrcs", 1), r"row 1 \(line \d+\): 15 of 14 fields"),
        (lambda text: text.replace("opticsGroup1", "é"), "line 15: byte 0xe9 is not UTF-8"),
    ],
)
def test_broken_star_files_are_refused_by_name(tmp_path, change, words):
    path, tables = good(tmp_path)
    path.write_bytes(change(path.read_text()).encode("latin-1"))
    with pytest.raises(FileError, match=words):
        read_star(path)


def test_star_files_with_quotes_comments_and_blank_lines_are_read(tmp_path):
    path = tmp_path / "a.star"
    path.write_text("# by hand\ndata_\n\nloop_\n_rlnA #1\n_rlnB #2\n'a b' 1\n\n# none\n\"c # d\" 2 # two\ne 3\n")
    table = read_star(path)[""]
    assert list(table["rlnB"]) == [1, 2, 3] and table["rlnA"][0] == "a b"


def test_a_text_named_cs_is_no_numpy_file(tmp_path):
    (tmp_path / "a.cs").write_text("data_\n")
    with pytest.raises(FileError, match="a.cs: not a NumPy file") as error:
        read_particles(tmp_path / "a.cs")
    assert "pickle" not in str(error.value)


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_groups_without_images_do_not_count(tmp_path, empty):
    """Neither their pixels set the common grid, nor does their place shift the weights of others."""
    path, tables = good(tmp_path)
    optics = pd.concat([tables["optics"]] * 3, ignore_index=True).assign(rlnOpticsGroup=[1, 2, 3])
    optics.loc[empty, "rlnImagePixelSize"] = 0.5
    group = np.resize([g for g in range(3) if g != empty], 6)
    write_star(path, {"optics": optics, "particles": tables["particles"].assign(rlnOpticsGroup=group + 1)})
    file, warned = said(path)
    assert warned == "" and file.pixel_angstrom == 3.0 and file.size == 8
    noise = noise_spectra(file.images, file.particles, file.size, shells=file.shells, radius=0.5)
    full = Particles(np.tile(np.eye(3), (6, 1, 1)), group=(group == group[1]).astype(int))
    wanted = noise_spectra(file.images(), full, 8, radius=0.5)
    np.testing.assert_allclose(noise[np.unique(group)], wanted[np.argsort(group[:2])], rtol=1e-6)
    assert noise.shape == (3, 5) and (noise[empty] == 1e4).all()
