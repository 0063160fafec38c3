"""The stacks and programs that `benchmarks.abinitio` compares with are as they say."""

import dataclasses
import os

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from benchmarks import peers_abinitio
from benchmarks.abinitio_scenes import (
    CAP_DEG,
    CASES,
    GOOD,
    NOISE,
    OTHER,
    POSES,
    Scene,
    small_molecule,
    symmetric_molecule,
    write,
)
from benchmarks.peers_relion import PeerError
from lfjax import io, rotation
from lfjax.tomography import read_particles, symmetry_group

SCENE = Scene("all at once", "D2", 100, 0.5, ctf=True, shift_px=1.5, preferred=0.8, junk=0.4, seed=3, size=32)


@pytest.fixture(scope="module")
def made():
    return SCENE.make()


def turned(volume, turn):
    """V(g x), by splines."""
    axis = np.arange(len(volume)) - len(volume) // 2
    xyz = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")[::-1]).reshape(3, -1)
    return map_coordinates(volume, (turn @ xyz)[::-1] + len(volume) // 2, order=3).reshape(volume.shape)


@pytest.mark.parametrize("name", ["D2", "I"])
def test_a_symmetric_molecule_is_that_under_its_group_and_no_other(name):
    molecule = symmetric_molecule(64, symmetry=name)
    for turn in symmetry_group(name)[1:4]:
        assert np.abs(turned(molecule.volume, turn) - molecule.volume).max() < 0.02
    assert np.abs(turned(molecule.volume, symmetry_group("O")[-1]) - molecule.volume).max() > 0.3
    assert np.abs(molecule.volume[:, :, :0:-1] - molecule.volume[:, :, 1:]).max() > 0.3  # it has a hand


def test_the_small_molecule_has_no_symmetry_and_fits_its_box():
    molecule = small_molecule()
    middle = molecule.volume[16:49, 16:49, 16:49]
    for turn in symmetry_group("O")[1:]:
        assert np.corrcoef(turned(middle, turn).ravel(), middle.ravel())[0, 1] < 0.8
    assert molecule.radius_angstrom < 0.42 * 64 * molecule.voxel_angstrom
    assert small_molecule(32).radius_angstrom == pytest.approx(molecule.radius_angstrom, abs=2 * molecule.voxel_angstrom)


def test_noise_has_deviation_1_and_the_volume_explains_the_good_images_alone(made):
    signal = np.asarray(made.particles.projector(SCENE.size)(made.volume))
    rest = made.images - signal
    good, noise, other = (made.junk == label for label in (GOOD, NOISE, OTHER))
    assert [good.sum(), noise.sum(), other.sum()] == [60, 20, 20]
    assert made.images.dtype == np.float32
    power = signal.var(axis=(1, 2)).mean()
    assert power == pytest.approx(SCENE.snr, rel=0.05)
    assert rest[good].std() == pytest.approx(1, rel=0.02)
    assert made.images[noise].std() == pytest.approx(1, rel=0.02)
    assert made.images[other].var(axis=(1, 2)).mean() == pytest.approx(1 + power, rel=0.1)
    centred = signal - signal.mean(axis=(1, 2), keepdims=True)
    fit = np.sum(centred * made.images, axis=(1, 2)) / np.sum(centred**2, axis=(1, 2))
    assert fit[good].mean() == pytest.approx(1, abs=0.05)
    assert abs(fit[noise].mean()) < 0.05
    assert fit[other].mean() < 0.9


def test_preferred_views_lie_in_one_cap_and_the_rest_anywhere(made):
    views = np.asarray(made.particles.rotations)[:, 2]
    axis = np.linalg.eigh(views.T @ views)[1][:, 2]
    axis *= np.sign(np.median(views @ axis))
    within = views @ axis > np.cos(np.deg2rad(CAP_DEG + 3))
    assert within.sum() == pytest.approx(80, abs=4)
    assert np.linalg.norm(views[~within].mean(axis=0)) < 0.5
    assert np.asarray(made.particles.shifts).std() == pytest.approx(1.5, rel=0.15)


def test_a_scene_is_fixed_by_its_seed(made):
    again, others = SCENE.make(), dataclasses.replace(SCENE, seed=4).make()
    np.testing.assert_array_equal(again.images, made.images)
    assert np.abs(others.images - made.images).std() > 1
    assert np.allclose(others.volume / others.volume.max(), made.volume / made.volume.max(), atol=1e-5)
    assert len({case.scene.name for case in CASES}) == len(CASES)


def test_images_without_noise_have_deviation_1():
    clean = dataclasses.replace(SCENE, snr=None, junk=0.0).make()
    assert clean.images.std() == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(clean.particles.projector(32)(clean.volume), clean.images, atol=1e-4)


def test_the_files_of_a_scene_hide_poses_and_origins(made, tmp_path):
    posed, unposed = (read_particles(path) for path in write(SCENE, tmp_path / "new", made))
    assert posed.posed and not unposed.posed
    assert not set(POSES) & set(io.read_star(tmp_path / "new/unposed.star")["particles"])
    np.testing.assert_allclose(unposed.images(), made.images)
    np.testing.assert_allclose(posed.particles.rotations, made.particles.rotations, atol=1e-5)
    np.testing.assert_allclose(posed.particles.shifts, made.particles.shifts, atol=1e-5)
    np.testing.assert_allclose(unposed.particles.ctf.defocus_u_angstrom, made.particles.ctf.defocus_u_angstrom)
    assert not np.asarray(unposed.particles.shifts).any()


def test_a_peer_is_given_no_pose_and_its_poses_come_back_in_the_order_of_the_stack(made, tmp_path):
    star = peers_abinitio._blind(tmp_path, made.images, made.particles)
    tables = io.read_star(star)
    assert not set(POSES) & set(tables["particles"])
    # a job of RELION leaves its rows in another order, here backwards, beside its map
    angles = np.rad2deg(np.stack(rotation.to_euler(made.particles.rotations), axis=-1))
    pixel = made.molecule.voxel_angstrom
    rows = tables["particles"].copy()
    rows[POSES] = np.concatenate([angles, -pixel * np.asarray(made.particles.shifts)], axis=1)
    for name in ("optimiser", "data"):
        io.write_star(tmp_path / f"initial/run_it010_{name}.star", tables | {"particles": rows[::-1]})
    io.write_map(tmp_path / "initial/run_it010_class001.mrc", made.volume, pixel)
    found = peers_abinitio._read(tmp_path, "initial", 1.0, 1.0, True, "program")
    np.testing.assert_allclose(found.rotations, made.particles.rotations, atol=1e-5)
    np.testing.assert_allclose(found.shifts, made.particles.shifts, atol=1e-4)
    np.testing.assert_allclose(found.volume, made.volume)
    assert found.version == "program, iteration 010"


def test_a_peer_ends_at_its_time_limit_and_says_how_it_failed(tmp_path):
    seconds, _, finished = peers_abinitio._timed(["sleep", 30], tmp_path, 0.2)
    assert not finished and seconds < 10
    with pytest.raises(PeerError, match="ended with 3:\nno luck"):
        peers_abinitio._timed(["sh", "-c", "echo no luck; exit 3"], tmp_path, 10.0, dict(os.environ))
    with pytest.raises(PeerError, match="no-such-program is not installed"):
        peers_abinitio._timed(["no-such-program"], tmp_path, 1.0)
    (tmp_path / "initial").mkdir()
    with pytest.raises(PeerError, match="no iteration"):
        peers_abinitio._last_iteration(tmp_path / "initial")
