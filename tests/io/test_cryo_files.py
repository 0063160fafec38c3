"""MRC, STAR and cryoSPARC files: the real ones, our own, and broken ones."""

import jax
import jax.numpy as jnp
import mrcfile
import numpy as np
import pandas as pd
import pytest

from lfjax import rotation
from lfjax.errors import FileError, LfjaxError
from lfjax.io import Stack, read_map, read_star, write_map, write_stack, write_star
from lfjax.tomography import read_particles, write_particles
from lfjax.tomography.particles import random_particles
from lfjax.tomography.relion_tables import to_particles

STARS = ["relion31.star", "relion5.star", "relion31.6opticsgroups.star", "sta_testing_bin8.star", "empiar_10076_7.star"]


def test_the_axes_of_a_map_are_those_of_its_header(shared):
    """EMD-3001 has columns along z, rows along x and sections along y."""
    path = shared / "data/cryo/EMD-3001.map"
    found, raw = read_map(path), mrcfile.read(path)
    assert raw.shape == (25, 43, 73) and found.array.shape == (73, 25, 43)  # sections y, rows x, columns z
    np.testing.assert_array_equal(found.array, raw.transpose(2, 0, 1))
    cell, samples = (33.03, 4.71, 17.93), (72, 12, 40)
    np.testing.assert_allclose(found.voxel_angstrom, [c / m for c, m in zip(cell, samples, strict=True)], rtol=1e-6)
    np.testing.assert_allclose(found.origin_angstrom, np.array([0, -12, -21]) * found.voxel_angstrom, rtol=1e-6)


@pytest.mark.parametrize("name", ["EMD-3001.map", "EMD-3197.map"])
def test_maps_come_back(shared, tmp_path, name):
    found = read_map(shared / "data/cryo" / name)
    write_map(tmp_path / "a.mrc", found.array, found.voxel_angstrom, origin_angstrom=found.origin_angstrom)
    again = read_map(tmp_path / "a.mrc")
    np.testing.assert_array_equal(again.array, found.array)
    np.testing.assert_allclose(again.voxel_angstrom, found.voxel_angstrom, rtol=1e-6)
    np.testing.assert_allclose(again.origin_angstrom, found.origin_angstrom, rtol=1e-6)
    assert mrcfile.validate(tmp_path / "a.mrc")


def test_a_voxel_size_of_zero_is_asked_for(shared):
    path = shared / "data/cryo/clean70SRibosome_vol_65p.mrc"
    with pytest.raises(FileError, match="voxel_angstrom"):
        read_map(path)
    assert read_map(path, voxel_angstrom=5.0).voxel_angstrom == (5.0, 5.0, 5.0)


@pytest.mark.parametrize("name", STARS)
def test_star_files_come_back_as_they_were(shared, tmp_path, name):
    tables = read_star(shared / "data/cryo" / name)
    write_star(tmp_path / "a.star", tables)
    again = read_star(tmp_path / "a.star")
    assert list(again) == list(tables)
    for key, table in tables.items():
        pd.testing.assert_frame_equal(again[key], table, check_exact=True)


@pytest.mark.filterwarnings("ignore:.*rlnCtfBfactor")
@pytest.mark.parametrize("name", STARS)
def test_particles_written_into_their_own_tables_are_the_same(shared, tmp_path, name):
    found = read_particles(shared / "data/cryo" / name)
    write_particles(tmp_path / "a.star", found.particles, found.names, 64, tables=found.tables)
    again = read_particles(tmp_path / "a.star")
    assert again.names == found.names
    for a, b in zip(jax.tree.leaves(again.particles), jax.tree.leaves(found.particles), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-5)
    for key, table in found.tables.items():
        kept = [c for c in table if not c.startswith(("rlnAngle", "rlnOrigin", "rlnRandomSubset"))]
        pd.testing.assert_frame_equal(again.tables[key][kept], table[kept], check_exact=True)


@pytest.mark.filterwarnings("ignore:.*in the header")
def test_what_relion_says_of_a_particle(shared):
    found = read_particles(shared / "data/cryo/relion31.star")
    rot, tilt, psi = (float(np.rad2deg(a[0])) for a in rotation.to_euler(found.particles.rotations))
    row = found.tables["particles"].iloc[0]
    np.testing.assert_allclose((rot, tilt, psi), [row[f"rlnAngle{a}"] for a in ("Rot", "Tilt", "Psi")], atol=1e-3)
    np.testing.assert_allclose(found.particles.shifts[0], [-row[f"rlnOrigin{a}Angst"] / 2.806 for a in "XY"], rtol=1e-5)
    assert float(found.particles.ctf.cs_mm[0]) == pytest.approx(0.01) and found.posed
    images = found.images([4, 0])
    with mrcfile.open(shared / "data/cryo/relion31.mrcs", permissive=True) as file:  # no identity string in its header
        np.testing.assert_array_equal(images, file.data[[4, 0]])


def test_cryosparc_and_relion_say_the_same_of_one_set(shared):
    """The files differ in rounding: angle and pixel size are 32-bit numbers in the .cs file."""
    star, cs = (read_particles(shared / f"data/cryo/empiar_10076_7.{kind}") for kind in ("star", "cs"))
    assert not star.posed and not cs.posed
    for a, b in zip(jax.tree.leaves(star.particles), jax.tree.leaves(cs.particles), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_array_equal(star.images(), -cs.images())  # only the .cs file says that its particles are dark: blob/sign


def invented():
    return random_particles(jax.random.key(0), 7, pixel_angstrom=3.0, shift_px=2.0)


@pytest.mark.parametrize(("name", "version"), [("a.star", "3.0"), ("a.star", "3.1"), ("a.cs", "3.1")])
def test_our_particles_come_back(tmp_path, name, version):
    particles = invented()
    images = np.asarray(jax.random.normal(jax.random.key(1), (7, 8, 8)))
    write_stack(tmp_path / "a.mrcs", (images[i : i + 3] for i in range(0, 7, 3)), 3.0, count=7)
    write_particles(tmp_path / name, particles, [(i, "a.mrcs") for i in range(7)], 8, version=version)
    found = read_particles(tmp_path / name)
    assert float(rotation.distance(found.particles.rotations, particles.rotations).max()) <= 1e-6
    np.testing.assert_allclose(found.particles.shifts, particles.shifts, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(found.particles.ctf), jax.tree.leaves(particles.ctf), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_array_equal(found.particles.half, particles.half)
    batches = list(found.batches(3))
    assert [len(b[0]) for b in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), images)
    np.testing.assert_array_equal(found.images(np.arange(7) % 2 == 1), images[1::2])


def test_several_optics_groups_are_told_apart(tmp_path):
    particles = invented()
    particles = particles.__class__(
        particles.rotations, ctf=particles.ctf, pixel_angstrom=jnp.asarray([1.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.0])
    )
    write_particles(tmp_path / "a.star", particles, [(i, "a.mrcs") for i in range(7)], 8)
    tables = read_star(tmp_path / "a.star")
    assert list(tables["optics"]["rlnImagePixelSize"]) == [1.0, 2.0]
    own = to_particles(tmp_path / "a.star", tables)
    np.testing.assert_array_equal(own.pixel_angstrom, particles.pixel_angstrom)
    np.testing.assert_array_equal(own.group, [0, 1, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(read_particles(tmp_path / "a.star").particles.pixel_angstrom, 1.0)  # the common grid


def test_a_stack_reads_only_what_is_asked_for(tmp_path):
    write_stack(tmp_path / "a.mrcs", np.zeros((5, 4, 4)), 2.0)
    stack = Stack(tmp_path / "a.mrcs")
    assert isinstance(stack._data, np.memmap) and stack.shape == (5, 4, 4) and stack.pixel_angstrom == pytest.approx(2.0)


def test_a_stack_that_stays_short_is_not_left_behind(tmp_path):
    with pytest.raises(FileError, match="expected count = 5"):
        write_stack(tmp_path / "a.mrcs", iter([np.zeros((2, 4, 4))]), 2.0, count=5)
    with pytest.raises(FileError, match="expected 2 images"):
        write_stack(tmp_path / "a.mrcs", iter([np.zeros((2, 4, 4)), np.zeros((1, 4, 4))]), 2.0, count=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 100, 1100, 3000])
def test_cut_and_foreign_files_are_named(tmp_path, keep):
    write_map(tmp_path / "a.mrc", np.ones((10, 10, 10)), 1.0)
    content = (tmp_path / "a.mrc").read_bytes()
    for name, bytes_ in (("cut.mrc", content[:keep]), ("noise.mrc", np.random.default_rng(keep).bytes(5000))):
        (tmp_path / name).write_bytes(bytes_)
        for read in (read_map, Stack):
            with pytest.raises(FileError, match=name):
                read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.star", "nothing here", "a.star"),
        ("a.star", "data_\n\nloop_\n_rlnAngleRot\n1.0\n2.0\n", "rlnImageName"),
        ("a.star", "data_\n\nloop_\n_rlnImageName\n_rlnAngleRot\nstack.mrcs 1\nstack.mrcs 2\n", "pixel"),
        ("a.star", "data_\n\nloop_\n_rlnImageName\n_rlnImagePixelSize\nstack.mrcs 1\nstack.mrcs 2\n", "NUMBER@STACK"),
        ("a.star", "data_\n\nloop_\n_rlnImageName\n_rlnImagePixelSize\n1@s.mrcs 0\n2@s.mrcs 2\n", "positive"),
        ("a.cs", "no array", "a.cs"),
        ("a.txt", "", "suffix"),
    ],
)
def test_broken_particle_files_are_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(LfjaxError, match=words):
        read_particles(tmp_path / name)


def test_pickles_are_refused(tmp_path):
    with open(tmp_path / "a.cs", "wb") as file:
        np.save(file, np.array([{"blob/path": "x"}], object), allow_pickle=True)
    with pytest.raises(FileError, match="a.cs"):
        read_particles(tmp_path / "a.cs")


def test_a_missing_stack_is_named(tmp_path):
    write_particles(tmp_path / "a.star", invented(), [(i, "gone.mrcs") for i in range(7)], 8)
    with pytest.raises(FileError, match="gone.mrcs"):
        read_particles(tmp_path / "a.star").images()
