import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfjax import rotation


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def many():
    with jax.enable_x64(True):
        return np.asarray(rotation.random_rotations(jax.random.key(0), 500))


def mT(matrices):  # noqa: N802 - as NumPy 2 names it
    return np.swapaxes(matrices, -1, -2)


def test_rotations_are_rotations_and_uniform():
    many = np.asarray(rotation.random_rotations(jax.random.key(0), 20000))
    np.testing.assert_allclose(many @ mT(many), np.broadcast_to(np.eye(3), many.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(many), 1, atol=1e-12)
    np.testing.assert_allclose(many.mean(0), 0, atol=0.02)
    angles = np.asarray(rotation.distance(many, np.eye(3)))  # density (1 - cos) / pi
    assert np.mean(angles) == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.02)


def test_vectors_and_quaternions_are_scipys(many):
    theirs = Rotation.from_matrix(many)
    np.testing.assert_allclose(rotation.to_vector(many), theirs.as_rotvec(), atol=1e-10)
    np.testing.assert_allclose(rotation.from_vector(theirs.as_rotvec()), many, atol=1e-12)
    mine = np.asarray(rotation.to_quaternion(many))
    wanted = theirs.as_quat(scalar_first=True)
    np.testing.assert_allclose(mine * np.sign(mine[:, :1]), wanted * np.sign(wanted[:, :1]), atol=1e-12)
    np.testing.assert_allclose(rotation.from_quaternion(3.0 * mine), many, atol=1e-12)


def test_euler_angles_are_relions(many):
    """RELION turns the frame, scipy's intrinsic ZYZ the object: one is the transpose of the other."""
    rot, tilt, psi = rotation.to_euler(many)
    np.testing.assert_allclose(rotation.from_euler(rot, tilt, psi), many, atol=1e-12)
    assert np.all((tilt >= 0) & (tilt <= np.pi))
    theirs = Rotation.from_euler("ZYZ", np.stack([rot, tilt, psi], axis=-1)).as_matrix()
    np.testing.assert_allclose(mT(many), theirs, atol=1e-12)


@pytest.mark.parametrize("tilt", [0.0, np.pi])
def test_euler_angles_at_the_poles_give_the_rotation_back(tilt):
    r = rotation.from_euler(0.7, tilt, -0.4)
    np.testing.assert_allclose(rotation.from_euler(*rotation.to_euler(r)), r, atol=1e-12)
    assert float(rotation.to_euler(r)[2]) == 0


def test_derivatives_and_half_turns_are_finite():
    derivative = np.asarray(jax.jit(jax.jacfwd(rotation.from_vector))(np.zeros(3)))
    np.testing.assert_allclose(derivative[..., 2], [[0, -1, 0], [1, 0, 0], [0, 0, 0]], atol=1e-9)
    half = np.pi * np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3, 2 / 3, -2 / 3]])
    np.testing.assert_allclose(np.abs(rotation.to_vector(rotation.from_vector(half))), np.abs(half), atol=1e-7)


def test_distances_are_angles(many):
    angles = np.array([1e-9, 0.3, 2.0, np.pi - 1e-9])
    turned = many[:4] @ np.asarray(rotation.from_vector(angles[:, None] * [0.6, 0.0, 0.8]))
    np.testing.assert_allclose(rotation.distance(many[:4], turned), angles, rtol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_poses_are_compared_up_to_a_turn_and_the_mirror_image(many, mirrored):
    turn = Rotation.from_rotvec([0.4, -1.0, 0.7]).as_matrix()
    noise = Rotation.from_rotvec(0.02 * np.random.default_rng(1).normal(size=(500, 3))).as_matrix()
    found = noise @ many @ turn
    mirror = np.diag([1.0, 1.0, -1.0])
    result = rotation.align_poses(mirror @ found @ mirror if mirrored else found, many)
    assert bool(result.mirrored) == mirrored
    np.testing.assert_allclose(result.turn, turn, atol=0.01)
    assert np.sqrt(np.mean(np.square(result.error))) == pytest.approx(0.02 * np.sqrt(3), rel=0.1)
    if mirrored:
        assert np.median(rotation.align_poses(mirror @ found @ mirror, many, handedness=False).error) > 0.5


def test_the_old_name_of_symmetry_groups_warns():
    with pytest.warns(FutureWarning, match="lfjax.tomography.symmetry_group"):
        assert rotation.symmetry_group("D2").shape == (4, 3, 3)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_grid_covers_all_rotations_evenly(order, many):
    points = rotation.grid(order)
    assert len(points) == 72 * 8**order
    largest_trace = np.max(many.reshape(-1, 9) @ points.reshape(-1, 9).T, axis=1)  # tr(R^T S) = 1 + 2 cos(angle)
    nearest = np.rad2deg(np.arccos(np.minimum((largest_trace - 1) / 2, 1)))
    assert nearest.max() <= 50 / 2**order
    assert nearest.mean() <= 30 / 2**order
    directions = points[:, 2]  # lines of sight in the object: each pixel of equal area
    np.testing.assert_allclose(directions.mean(0), 0, atol=1e-12)
    spread = directions.T @ directions / len(directions)
    np.testing.assert_allclose(spread, np.eye(3) / 3, atol=0.04 / 4**order)
