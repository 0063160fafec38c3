import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfjax import rotation
from lfjax.errors import ParameterError


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def many(float64):
    return rotation.random_rotations(jax.random.key(0), 500)


def test_rotations_are_rotations_and_uniform():
    many = rotation.random_rotations(jax.random.key(0), 20000)
    np.testing.assert_allclose(many @ many.mT, np.broadcast_to(np.eye(3), many.shape), atol=1e-12)
    np.testing.assert_allclose(jnp.linalg.det(many), 1, atol=1e-12)
    np.testing.assert_allclose(many.mean(0), 0, atol=0.02)
    angles = np.asarray(rotation.distance(many, jnp.eye(3)))  # density (1 - cos) / pi
    assert np.mean(angles) == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.02)


def test_vectors_and_quaternions_are_scipys(many):
    theirs = Rotation.from_matrix(np.asarray(many))
    np.testing.assert_allclose(rotation.to_vector(many), theirs.as_rotvec(), atol=1e-10)
    np.testing.assert_allclose(rotation.from_vector(jnp.asarray(theirs.as_rotvec())), many, atol=1e-12)
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
    np.testing.assert_allclose(many.mT, theirs, atol=1e-12)


@pytest.mark.parametrize("tilt", [0.0, np.pi])
def test_euler_angles_at_the_poles_give_the_rotation_back(tilt):
    r = rotation.from_euler(jnp.asarray(0.7), jnp.asarray(tilt), jnp.asarray(-0.4))
    np.testing.assert_allclose(rotation.from_euler(*rotation.to_euler(r)), r, atol=1e-12)
    assert float(rotation.to_euler(r)[2]) == 0


def test_derivatives_and_half_turns_are_finite():
    slope = jax.jacfwd(rotation.from_vector)(jnp.zeros(3))
    np.testing.assert_allclose(slope[..., 2], [[0, -1, 0], [1, 0, 0], [0, 0, 0]], atol=1e-9)
    half = jnp.asarray([[np.pi, 0, 0], [0, np.pi, 0], [0, 0, np.pi], [1.0, 2.0, -2.0]])
    half = half.at[3].multiply(np.pi / 3)
    np.testing.assert_allclose(jnp.abs(rotation.to_vector(rotation.from_vector(half))), jnp.abs(half), atol=1e-7)


def test_distances_are_angles(many):
    angles = jnp.asarray([1e-9, 0.3, 2.0, np.pi - 1e-9])
    turned = many[:4] @ rotation.from_vector(angles[:, None] * jnp.asarray([0.6, 0.0, 0.8]))
    np.testing.assert_allclose(rotation.distance(many[:4], turned), angles, rtol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_poses_are_compared_up_to_a_turn_and_the_mirror_image(many, mirrored):
    turn = rotation.from_vector(jnp.asarray([0.4, -1.0, 0.7]))
    noise = rotation.from_vector(0.02 * jax.random.normal(jax.random.key(1), (500, 3)))
    found = noise @ many @ turn
    mirror = jnp.diag(jnp.asarray([1.0, 1.0, -1.0]))
    result = rotation.align_poses(mirror @ found @ mirror if mirrored else found, many)
    assert bool(result.mirrored) == mirrored
    np.testing.assert_allclose(result.turn, turn, atol=0.01)
    assert float(jnp.sqrt(jnp.mean(result.error**2))) == pytest.approx(0.02 * np.sqrt(3), rel=0.1)
    if mirrored:
        assert float(jnp.median(rotation.align_poses(mirror @ found @ mirror, many, handedness=False).error)) > 0.5


@pytest.mark.parametrize(("name", "order"), [("C1", 1), ("C5", 5), ("D3", 6), ("T", 12), ("O", 24), ("I", 60)])
def test_symmetry_groups_are_scipys(name, order):
    group = rotation.symmetry_group(name)
    assert group.shape == (order, 3, 3)
    np.testing.assert_allclose(group[0], np.eye(3))
    products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 3, 3)
    gaps = np.abs(products[:, None] - group[None]).max((2, 3)).min(1)
    assert gaps.max() <= 1e-9  # closed
    angles = np.sort(Rotation.from_matrix(group).magnitude())
    np.testing.assert_allclose(angles, np.sort(Rotation.create_group(name).magnitude()), atol=1e-9)


def test_unknown_groups_are_refused():
    for name in ("", "C", "C0", "X2", "I2", "D-1"):
        with pytest.raises(ParameterError, match="name"):
            rotation.symmetry_group(name)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_grid_covers_all_rotations_evenly(order, many):
    points = jnp.asarray(rotation.grid(order))
    assert len(points) == 72 * 8**order
    nearest = jax.lax.map(lambda r: jnp.rad2deg(jnp.min(rotation.distance(points, r))), many)
    assert float(nearest.max()) <= 50 / 2**order
    assert float(nearest.mean()) <= 30 / 2**order
    directions = np.asarray(points[:, 2])  # lines of sight in the object: each pixel of equal area
    np.testing.assert_allclose(directions.mean(0), 0, atol=1e-12)
    spread = directions.T @ directions / len(directions)
    np.testing.assert_allclose(spread, np.eye(3) / 3, atol=0.04 / 4**order)
