"""From the file that a user has to a map: every case that once went on in silence is right now, or refused by name."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest

from lfjax import io, metrics, tomography
from lfjax.errors import DataWarning, FileError
from lfjax.pipeline import reconstruct_particles
from lfjax.tomography import fsc, read_particles, resolution

GOOD = 0.97  # 100 images of a map that 300 images give with 0.997


@pytest.fixture(scope="module")
def cases(shared):
    return shared / "data/cases/cryo"


@pytest.fixture(scope="module")
def truth(cases):
    return io.read_map(cases / "truth_32px_4A.mrc").array


def quality(made, truth):
    """Correlation with the truth, and the resolution at FSC 0.5."""
    volume = np.asarray(made.found.volume)
    assert volume.shape == truth.shape
    return float(metrics.correlation(volume, truth)), resolution(fsc(volume, truth), 128.0, 0.5)


@pytest.fixture(scope="module")
def good(cases, truth):
    return quality(reconstruct_particles(read_particles(cases / "00_good_reference.star")), truth)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("01_ctf_premultiplied_flag_ignored.star", {}, "premultiplied"),
        ("02_phase_flipped_flag_ignored.star", {}, "flipped"),
        ("13_blob_sign_-1_ignored.cs", {}, "sign"),
    ],
)
def test_flags_are_honoured_and_told(cases, truth, good, name, options, says):
    made = reconstruct_particles(read_particles(cases / name), **options)
    correlation, angstrom = quality(made, truth)
    assert correlation >= good[0] - 0.01 and angstrom <= good[1] * 1.03
    assert any(says in note for note in made.notes), made.notes


def test_the_good_file_gives_the_good_map(good):
    assert good[0] >= GOOD and good[1] <= 16.0


def test_optics_groups_of_two_pixel_sizes_come_to_one_grid(cases, truth):
    file = read_particles(cases / "03_two_optics_groups_4A_5A_silently_mixed.star")
    assert (file.size, file.pixel_angstrom) == (32, 4.0)
    images = file.images()
    assert images.shape == (len(file), 32, 32)
    made = reconstruct_particles(file)
    correlation, _ = quality(made, truth)
    assert made.voxel_angstrom == 4.0 and correlation >= 0.9


def test_one_row_without_a_half_set_leaves_the_others_where_they_are(cases):
    file = read_particles(cases / "04_one_unassigned_subset_reshuffles_all_halves.star")
    stated = np.asarray(file.particles.half)
    free = np.flatnonzero(stated == 0)
    assert len(free) == 1
    with pytest.warns(DataWarning, match=rf"1 of {len(stated)} rows have no half-set \(rows {free[0] + 1}\)"):
        made = reconstruct_particles(file)
    used = np.asarray(made.particles.half)
    assert set(used) == {1, 2} and np.array_equal(np.delete(used, free), np.delete(stated, free))


def test_an_offset_of_ten_deviations_is_refused_or_taken_off(cases, truth, good):
    file = read_particles(cases / "07_unnormalised_dc_10_sigma.star")
    with pytest.raises(FileError, match="--normalise"):
        reconstruct_particles(file)
    correlation, angstrom = quality(reconstruct_particles(file, normalised=False), truth)
    assert correlation >= good[0] - 0.01 and angstrom <= good[1] * 1.03


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("05_one_nan_defocus_kills_map_at_the_end.star", "rlnDefocus"),
        ("09_zero_particles_traceback.star", "particles"),
        ("10_undefined_optics_group_says_nan_to_nan.star", "group"),
        ("14_main_cs_without_ctf_silently_no_ctf.cs", "CTF"),
    ],
)
def test_files_that_cannot_be_read_rightly_are_refused_by_name(cases, name, says):
    with pytest.raises(FileError, match=says) as refused:
        read_particles(cases / name)
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_no_ctf_is_a_choice(cases):
    file = read_particles(cases / "14_main_cs_without_ctf_silently_no_ctf.cs", ctf=False)
    assert file.particles.ctf is None and len(file) == 100


@pytest.fixture
def copied(cases, tmp_path):
    """A copy of the good stack and its file, to spoil: path, images, and a function that writes them."""
    images = np.array(io.Stack(cases / "good.mrcs")[:])
    tables = io.read_star(cases / "00_good_reference.star")

    def written(images):
        io.write_stack(tmp_path / "good.mrcs", images, 4.0)
        io.write_star(tmp_path / "good.star", tables)
        return read_particles(tmp_path / "good.star")

    return images, written


@pytest.mark.parametrize("factor", [10.0, 1e20, 0.0])
def test_an_image_that_would_outweigh_the_others_is_named(copied, factor):
    images, written = copied
    images[41] *= factor
    with pytest.raises(FileError, match=r"image 42@good\.mrcs"):
        reconstruct_particles(written(images))


def test_a_hot_pixel_is_named_also_after_normalisation(copied):
    images, written = copied
    images[7, 15, 16] = 1e6
    for normalised in (True, False):
        with pytest.raises(FileError, match=r"image 8@good\.mrcs"):
            reconstruct_particles(written(images), normalised=normalised)


def test_dark_particles_bring_a_warning_and_bright_ones_none(copied, truth, good):
    images, written = copied
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        reconstruct_particles(written(images))
    with pytest.warns(DataWarning, match="darker than their background.*--invert"):
        reconstruct_particles(written(-images))
    correlation, _ = quality(reconstruct_particles(written(-images), invert=True), truth)
    assert correlation == pytest.approx(good[0], abs=1e-4)


def test_images_of_smaller_boxes_are_normalised_before_they_are_padded(copied, tmp_path, truth):
    """Two groups of one pixel size and two boxes, the smaller ten times as strong."""
    images, written = copied
    file = written(images)
    tables = {name: table.copy() for name, table in file.tables.items()}
    small = 10 * images[50:, 2:30, 2:30]  # centre 16 of 32 becomes 14 of 28
    io.write_stack(tmp_path / "small.mrcs", small, 4.0)
    second = tables["optics"].assign(rlnOpticsGroup=2, rlnOpticsGroupName="two", rlnImageSize=28)
    tables["optics"] = pd.concat([tables["optics"], second], ignore_index=True)
    particles = tables["particles"]
    particles.loc[50:, "rlnOpticsGroup"] = 2
    particles.loc[50:, "rlnImageName"] = [f"{i + 1:06d}@small.mrcs" for i in range(50)]
    io.write_star(tmp_path / "mixed.star", tables)
    mixed = read_particles(tmp_path / "mixed.star", grid=(32, 4.0))
    with pytest.raises(FileError, match="--normalise"):
        reconstruct_particles(mixed)
    made = reconstruct_particles(mixed, normalised=False)
    assert float(metrics.correlation(made.found.volume, truth)) >= 0.98


def test_copies_of_an_image_come_into_one_half_set(tmp_path):
    """Noise that both half-maps share would agree to the Nyquist frequency."""
    particles = tomography.random_particles(jax.random.key(0), 60, pixel_angstrom=2.0, defocus_angstrom=None)
    bare = tomography.Particles(particles.rotations, pixel_angstrom=2.0)
    io.write_stack(tmp_path / "a.mrcs", np.random.default_rng(0).normal(size=(60, 16, 16)), 2.0)
    names = [(i, "a.mrcs") for i in range(60)]
    tomography.write_particles(tmp_path / "a.star", tomography.expand(bare, "C2"), [n for n in names for _ in range(2)], 16)
    file = tomography.read_particles(tmp_path / "a.star", ctf=False)
    made = reconstruct_particles(file, symmetry="C2")
    half = np.asarray(made.particles.half)
    assert (half[::2] == half[1::2]).all() and (half[::2] == 1).sum() == 30
    assert np.abs(made.found.curve[3:]).mean() < 0.3
