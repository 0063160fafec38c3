"""The commands on poses."""

import re

import jax
import numpy as np
import pytest

from lfjax import rotation, tomography

F = np.diag([1.0, 1.0, -1.0])
N, PIXEL = 60, 2.0


@pytest.fixture(scope="module")
def truth():
    return tomography.random_particles(jax.random.key(0), N, pixel_angstrom=PIXEL, shift_px=1.0)


@pytest.fixture(scope="module")
def files(truth, tmp_path_factory):
    """True poses, and found ones of the first 40 images: of the mirror image, in a map that lies and stands elsewhere."""
    folder = tmp_path_factory.mktemp("poses")
    rng = np.random.default_rng(1)
    names = [(i, "stack.mrcs") for i in range(N)]
    tables = tomography.relion_writing.from_particles(truth, names, 32)
    shown = [f"particle {i // 10}" for i in range(N)]
    tables["particles"] = tables["particles"].assign(rlnTomoParticleName=shown)
    tomography.write_tables(folder / "truth.star", tables)
    true = np.asarray(truth.rotations, float)
    turn = np.asarray(rotation.from_vector(np.array([0.4, -1.0, 0.7])), float)
    found = np.asarray(rotation.from_vector(0.02 * rng.normal(size=(N, 3))), float) @ true @ turn
    found[::10] = np.asarray(rotation.random_rotations(jax.random.key(5), N))[::10]
    shifts = np.asarray(truth.shifts, float) - (true @ np.array([1.0, 0.0, -2.0]))[:, :2]
    made = tomography.Particles(F @ found @ F, shifts=shifts, ctf=truth.ctf, pixel_angstrom=PIXEL, half=truth.half)
    for name in ("found.star", "found.cs"):
        tomography.write_particles(folder / name, made[:40], names[:40], 32)
    elements = tomography.symmetry_group("D2")[rng.integers(4, size=N)]
    turned = tomography.Particles(F @ true @ elements @ turn @ F, shifts=truth.shifts, ctf=truth.ctf, pixel_angstrom=PIXEL)
    tomography.write_particles(folder / "d2.star", turned, names, 32)
    tomography.write_particles(folder / "elsewhere.star", truth, [(i, "other.mrcs") for i in range(N)], 32)
    twice = [(i // 2, "stack.mrcs") for i in range(N)]
    tomography.write_particles(folder / "twice.star", turned, twice, 32)
    tomography.write_particles(folder / "one.star", truth[:1], names[:1], 32)
    bare = tables["particles"].drop(columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])
    tomography.write_tables(folder / "bare.star", tables | {"particles": bare})
    return folder


def number(pattern, text):
    return float(re.search(pattern, text)[1])


@pytest.mark.parametrize("found", ["found.star", "found.cs"])
def test_poses_of_the_mirror_image_are_compared_by_image_name(lfjax, files, found):
    done = lfjax("compare-poses", found, "truth.star", "--tilt-pairs", "-o", f"{found}.png", cwd=files)
    assert done.code == 0, done.err
    assert f"40 images in common, of 40 in {found} and 60 in truth.star" in done.out
    assert number(r"median ([\d.]+) degrees", done.out) == pytest.approx(np.rad2deg(1.538 * 0.02), rel=0.25)
    assert number(r"([\d.]+) % below 10", done.out) == 90.0
    assert 90 < number(r"random poses: median ([\d.]+)", done.out) < 132
    assert "hand: the mirror image of truth.star" in done.out
    assert number(r"differ by ([\d.e-]+) px", done.out) < 1e-3 and "(1.00, 0.00, -2.00)" in done.out.replace("-0.00", "0.00")
    assert "20 pairs" in done.out and "the mirror image is right" in done.out
    assert (files / f"{found}.png").stat().st_size > 1000


def test_a_point_group_lets_equal_views_agree(lfjax, files):
    done = lfjax("compare-poses", "d2.star", "truth.star", "--symmetry", "D2", "--tilt-pairs", cwd=files)
    assert done.code == 0 and "100.0 % below 10" in done.out and "hand: the mirror image of truth.star" in done.out, done.err
    assert number(r"as found, ([\d.]+) mirrored", done.out) == 0 and "the mirror image is right" in done.out
    assert number(r"median ([\d.e-]+) degrees", done.out) < 0.01
    plain = lfjax("compare-poses", "d2.star", "truth.star", cwd=files)
    assert number(r"median ([\d.]+) degrees", plain.out) > 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bare.star", "truth.star"), "bare.star: no poses"),
        (("found.star", "bare.star"), "bare.star: no poses"),
        (("found.star", "elsewhere.star"), "no image in common; found.star begins with 000001@stack.mrcs"),
        (("found.star", "twice.star"), "stands in 2 rows"),
        (("found.star", "gone.star"), "gone.star"),
        (("gone.star", "truth.star", "--symmetry", "K3"), "--symmetry K3: expected a point group of rotations"),
        (
            ("found.star", "one.star"),
            "have 1 image in common: a turn of the map makes any single pose agree; expected 2 or more",
        ),
        (("found.star", "truth.star", "--folder", "gone"), "--folder gone: expected a folder"),
        (("found.star", "truth.star", "--voxel-angstrom", "-1"), "--voxel-angstrom -1: expected a positive number"),
        (("found.star", "d2.star", "--tilt-pairs"), "d2.star: no column rlnTomoParticleName"),
        (("found.star", "truth.star", "-o", "truth.star"), "ends with .png"),
    ],
    ids=lambda value: "-".join(value).replace("--", "") if isinstance(value, tuple) else None,
)
def test_what_cannot_be_compared_is_named(lfjax, files, words, message):
    done = lfjax("compare-poses", *words, cwd=files)
    assert done.code == 2 and message in done.err and not done.out
