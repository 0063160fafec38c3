import re
import shutil
import subprocess

import jax
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from lfjax import rotation
from lfjax.errors import ParameterError
from lfjax.io import read_star, write_star
from lfjax.tomography import (
    Particles,
    add_noise,
    expand,
    expand_tables,
    fsc,
    random_particles,
    read_particles,
    reconstruct,
    symmetry_group,
)
from lfjax.tomography.symmetry import AXES

ORDERS = {"C1": 1, "C2": 2, "c7": 7, "D1": 2, "D3": 6, "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "i3": 60, "I4": 60}
GOLDEN = (1 + 5**0.5) / 2


def relion(program, *words, cwd):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    return subprocess.run([program, *map(str, words)], cwd=cwd, check=True, capture_output=True, text=True, timeout=100).stdout


def relions_group(name, folder):
    text = relion("relion_refine", "--sym", name, "--print_symmetry_ops", "--o", "x", cwd=folder)
    blocks = re.findall(r"R\(\d+\)=\s*((?:[-+.\de]+\s+){9})", text)
    return np.array([block.split() for block in blocks], float).reshape(-1, 3, 3)


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_elements_are_a_group_of_the_right_angles(name, order):
    group = symmetry_group(name)
    assert group.shape == (order, 3, 3)
    np.testing.assert_array_equal(group[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(group), 1, atol=1e-12)
    products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 3, 3)
    assert np.abs(products[:, None] - group[None]).max((2, 3)).min(1).max() <= 1e-9  # closed
    theirs = Rotation.create_group({"D1": "C2"}.get(name, name.upper()[:1] if name[0] in "Ii" else name.upper()))
    np.testing.assert_allclose(np.sort(Rotation.from_matrix(group).magnitude()), np.sort(theirs.magnitude()), atol=1e-9)


@pytest.mark.parametrize("name", ORDERS)
def test_elements_and_their_order_are_relions(name, tmp_path):
    theirs = relions_group(name, tmp_path)
    np.testing.assert_allclose(symmetry_group(name), theirs, atol=2e-5)  # RELION's axes of T have six digits


@pytest.mark.parametrize(
    ("name", "fold", "axis"),
    [
        ("C5", 5, (0, 0, 1)),
        ("D4", 4, (0, 0, 1)),
        ("D4", 2, (1, 0, 0)),
        ("T", 3, (0, 0, 1)),
        ("T", 2, (0, 2**0.5, 1)),
        *(("O", 4, axis) for axis in np.eye(3)),
        ("O", 3, (1, 1, 1)),
        *((name, 2, axis) for name in ("I", "I1", "I2") for axis in np.eye(3)),
        ("I", 5, (1, 0, GOLDEN)),
        ("I1", 5, (GOLDEN, 0, 1)),
        ("I2", 5, (1, 0, GOLDEN)),
        *((name, 5, (0, 0, 1)) for name in ("I3", "I4")),
        *((name, 2, (0, 1, 0)) for name in ("I3", "I4")),
        ("I3", 2, (-1, 0, GOLDEN)),
        ("I4", 2, (1, 0, GOLDEN)),
    ],
)
def test_axes_are_where_the_table_says(name, fold, axis):
    axis = np.asarray(axis) / np.linalg.norm(axis)
    turn = Rotation.from_rotvec(2 * np.pi / fold * axis).as_matrix()
    assert np.abs(symmetry_group(name) - turn).max((1, 2)).min() <= 1e-9
    assert {name, f"{name[0]}n"} & set(AXES)


def test_the_settings_of_icosahedra_differ():
    for one, two in (("I1", "I2"), ("I2", "I3"), ("I3", "I4"), ("I1", "I4")):
        first, second = symmetry_group(one), symmetry_group(two)
        assert np.abs(first[:, None] - second).max((2, 3)).min(1).max() > 0.1
    np.testing.assert_array_equal(symmetry_group("I"), symmetry_group("I2"))


@pytest.mark.parametrize("name", ["", "C", "C0", "C100", "X2", "I5", "D-1", "I2H", "Td", "C2V", "C٣", "T "])
def test_unknown_groups_are_refused(name):
    with pytest.raises(ParameterError, match=r"symmetry = .*I3 or I4"):
        symmetry_group(name)


def test_expansion_turns_the_object_and_keeps_the_rest():
    few = random_particles(jax.random.key(0), 5, pixel_angstrom=3.0, shift_px=1.0)
    many = expand(few, "D2")
    assert len(many) == 20
    wanted = np.asarray(few.rotations)[:, None] @ symmetry_group("D2")
    np.testing.assert_allclose(many.rotations, wanted.reshape(-1, 3, 3), atol=1e-6)
    np.testing.assert_array_equal(many.half, np.repeat(few.half, 4))
    np.testing.assert_array_equal(many.shifts, np.repeat(few.shifts, 4, axis=0))
    np.testing.assert_array_equal(many.ctf.defocus_u_angstrom, np.repeat(few.ctf.defocus_u_angstrom, 4))


def euler(table):
    with jax.enable_x64(True):
        columns = (np.deg2rad(table[f"rlnAngle{name}"].to_numpy(float)) for name in ("Rot", "Tilt", "Psi"))
        return np.asarray(rotation.from_euler(*columns))


def tables(n=4):
    angles = np.random.default_rng(0).uniform(0, 180, (n, 3))
    angles[0, 1], angles[1, 1] = 0.0, 180.0
    particles = pd.DataFrame(angles, columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])
    particles["rlnImageName"] = [f"{i + 1:06d}@a.mrcs" for i in range(n)]
    particles["rlnOriginXAngst"], particles["rlnOriginYAngst"] = np.arange(n) * 1.5, np.arange(n) * -0.5
    particles["rlnMicrographName"], particles["rlnOpticsGroup"] = "m.mrc", 1
    particles["rlnRandomSubset"] = np.arange(n) % 2 + 1
    names = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "o1", "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7}
    optics = pd.DataFrame([names | {"rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": 4.0, "rlnImageSize": 32}])
    optics["rlnImageDimensionality"] = 2
    return {"optics": optics, "particles": particles}


@pytest.mark.parametrize("name", ["C2", "D3", "T", "O", "I"])
def test_expanded_tables_are_those_of_relion(name, tmp_path):
    write_star(tmp_path / "in.star", tables())
    relion("relion_particle_symmetry_expand", "--i", "in.star", "--o", "out.star", "--sym", name, cwd=tmp_path)
    theirs, mine = read_star(tmp_path / "out.star")["particles"], expand_tables(tables(), name)["particles"]
    assert list(mine["rlnImageName"]) == list(theirs["rlnImageName"])
    np.testing.assert_allclose(euler(mine), euler(theirs), atol=3e-5)
    for column in ("rlnOriginXAngst", "rlnOriginYAngst"):
        np.testing.assert_allclose(mine[column], theirs[column], atol=1e-6)


def test_expanded_tables_are_the_expanded_particles():
    before = tables()
    after = expand_tables(before, "O")
    with jax.enable_x64(True):
        many = expand(Particles(euler(before["particles"])), "O")
        np.testing.assert_allclose(euler(after["particles"]), many.rotations, atol=1e-12)
    pd.testing.assert_frame_equal(after["particles"].iloc[::24].reset_index(drop=True), before["particles"])
    assert after["optics"] is before["optics"]
    assert list(after["particles"].columns) == list(before["particles"].columns)


def test_tables_without_poses_are_not_expanded():
    without = tables()
    del without["particles"]["rlnAngleTilt"]
    with pytest.raises(ParameterError, match="rlnAngleTilt missing"):
        expand_tables(without, "C2")


def molecule(group, n=32):
    """Gaussians without symmetry, and all their images under a group, about the middle of the box."""
    x = np.arange(n) - n // 2
    points = np.random.default_rng(3).normal(size=(5, 3))
    points *= np.array([3.0, 5.0, 7.0, 8.5, 10.0])[:, None] / np.linalg.norm(points, axis=1, keepdims=True)
    every = (points[:, None, None] @ np.swapaxes(group, 1, 2)).reshape(-1, 3)
    parts = np.exp(-((x[:, None] - every.T[:, None, :]) ** 2) / (2 * 1.3**2))  # (axis x y z, position, point)
    return np.einsum("xp,yp,zp->zyx", *parts)


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


@pytest.mark.parametrize(("name", "count"), [("D3", 48), ("T", 48), ("O", 48), ("I1", 24), ("I2", 24)])
def test_symmetric_molecules_come_back_from_few_images(name, count, tmp_path):
    """Made symmetric by the matrices that RELION prints."""
    truth = molecule(relions_group(name, tmp_path))
    particles = random_particles(jax.random.key(0), count, pixel_angstrom=4.0, shift_px=1.0)
    images = np.asarray(add_noise(jax.random.key(1), particles.projector(32)(truth), 2.0))
    found = reconstruct([(images, particles)], 32, symmetry=name)
    assert correlation(found.volume, truth) >= 0.985
    for half in found.halves:
        assert np.asarray(fsc(half, truth))[2:9].min() >= 0.85
    assert np.asarray(found.curve)[2:9].min() >= 0.8


@pytest.mark.parametrize(("name", "right", "wrong"), [("15_relion_T", "T", ["C1"]), ("16_relion_I", "I", ["C1", "I1"])])
def test_each_half_map_predicts_the_images_of_the_other_half(name, right, wrong, shared):
    """Thirty images, whose molecule has RELION's symmetry: another group predicts them worse."""
    file = read_particles(shared / f"data/cases/cryo/{name}_symmetry.star")
    images, particles = file.images(), file.particles

    def predicted(symmetry):
        first = reconstruct([(images, particles)], 32, symmetry=symmetry).halves[0]
        views = particles.projector(32)(first)[np.asarray(particles.half) == 2]
        return np.mean([correlation(*pair) for pair in zip(views, images[np.asarray(particles.half) == 2], strict=True)])

    found = predicted(right)
    assert found >= 0.6
    for other in wrong:
        assert predicted(other) <= found - 0.04
