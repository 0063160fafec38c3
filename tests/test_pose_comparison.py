"""Poses against true ones: the turn despite wrong poses, the hand, point groups, and random poses as the null."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfjax import rotation
from lfjax.errors import ParameterError, ShapeError
from lfjax.tomography import symmetry_group

F = np.diag([1.0, 1.0, -1.0])
TURN = Rotation.from_rotvec([0.4, -1.0, 0.7]).as_matrix()
N = 200


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def poses(seed, n=N):
    return Rotation.random(n, random_state=np.random.default_rng(seed)).as_matrix()


def noisy(matrices, sigma, seed=1):
    """Turned by normal rotation vectors of this deviation along each axis."""
    vectors = sigma * np.random.default_rng(seed).normal(size=(len(matrices), 3))
    return Rotation.from_rotvec(vectors).as_matrix() @ matrices


def angle(a, b):
    """Of scipy: independent of the code under test."""
    return (Rotation.from_matrix(a).inv() * Rotation.from_matrix(b)).magnitude()


@pytest.mark.parametrize("wild", ["random", "a turn of their own", "the other hand"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_forty_percent_of_wrong_poses_leave_the_turn_exact(mirrored, wild):
    truth = poses(0)
    found = truth @ TURN
    bad = np.random.default_rng(2).permutation(N)[: int(0.4 * N)]
    found[bad] = {"random": poses(3), "a turn of their own": truth @ poses(4)[0], "the other hand": F @ truth @ F}[wild][bad]
    result = rotation.align_poses(F @ found @ F if mirrored else found, truth)
    assert bool(result.mirrored) == mirrored
    np.testing.assert_allclose(result.turn, TURN, atol=1e-6)
    good = np.setdiff1d(np.arange(N), bad)
    assert np.asarray(result.error)[good].max() < 1e-6 and np.asarray(result.error)[bad].mean() > 1
    if wild == "a turn of their own":
        assert angle(np.asarray(rotation.align_poses(found, truth, robust=False).turn), TURN) > 0.05


def test_with_noise_the_turn_is_as_good_as_the_noise_allows():
    """The turn is a mean of n vectors of deviation s per axis; wild poses may add the 13 % that 120 of 200 poses have more."""
    sigma, errors = np.deg2rad(3.0), {"clean": [], "wild": []}
    for seed in range(12):
        truth = poses(10 + seed)
        found = noisy(truth, sigma, seed) @ TURN
        errors["clean"].append(angle(np.asarray(rotation.align_poses(found, truth).turn), TURN))
        found[::5], found[1::5] = poses(50 + seed)[::5], poses(80 + seed)[1::5]
        errors["wild"].append(angle(np.asarray(rotation.align_poses(found, truth).turn), TURN))
    rms = {name: np.sqrt(np.mean(np.square(values))) for name, values in errors.items()}
    assert rms["clean"] < 1.4 * sigma * np.sqrt(3 / N)
    assert rms["wild"] < 1.5 * sigma * np.sqrt(3 / (0.6 * N))


def test_in_single_precision_many_poses_keep_the_turn():
    truth = np.tile(poses(0, 1000), (100, 1, 1))
    with jax.enable_x64(False):
        result = rotation.align_poses((truth @ TURN).astype(np.float32), truth.astype(np.float32))
    assert angle(np.asarray(result.turn, float), TURN) < 2e-5


def test_the_median_is_that_of_the_noise():
    """|v| of v normal with deviation s per axis has the median 1.538 s, that of chi with three degrees of freedom."""
    truth = poses(0)
    sigma = np.deg2rad(3.0)
    result = rotation.compare(F @ noisy(truth, sigma) @ TURN @ F, truth)
    assert float(result.median_rad) == pytest.approx(1.538 * sigma, rel=0.1)
    assert float(result.mean_rad) == pytest.approx(1.596 * sigma, rel=0.1)
    assert bool(result.mirrored) and float(result.other_hand_rad) > 1
    theirs = angle(F @ (F @ noisy(truth, sigma) @ TURN @ F) @ F, truth @ np.asarray(result.turn))
    np.testing.assert_allclose(result.error_rad, theirs, atol=1e-9)
    assert float(result.below_10_degrees) == np.mean(theirs < np.deg2rad(10))


def test_random_poses_are_at_the_null():
    """A uniform rotation has the median 132.3 degrees, where t - sin t = pi / 2; the fitted turn lowers it."""
    result = rotation.compare(poses(5), poses(6))
    assert float(result.null_rad) == pytest.approx(float(result.median_rad), abs=np.deg2rad(8))
    assert np.deg2rad(110) < float(result.null_rad) < np.deg2rad(132.3)
    again = rotation.compare(poses(5), poses(6))
    assert float(again.null_rad) == float(result.null_rad) and float(again.median_rad) == float(result.median_rad)
    other = rotation.compare(poses(5), poses(6), key=jax.random.key(3))
    assert float(other.null_rad) != float(result.null_rad) and float(other.median_rad) == float(result.median_rad)


@pytest.mark.parametrize("name", ["D2", "I"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_poses_that_show_the_same_view_of_a_symmetric_object_agree(name, mirrored):
    group = symmetry_group(name)
    truth, sigma = poses(0), np.deg2rad(2.0)
    elements = group[np.random.default_rng(7).integers(len(group), size=N)]
    found = noisy(truth, sigma) @ elements @ TURN
    found[::3] = poses(8)[::3]
    result = rotation.compare(F @ found @ F if mirrored else found, truth, group=group)
    assert bool(result.mirrored) == mirrored
    every = np.stack([angle(found, truth @ g @ np.asarray(result.turn)) for g in group])
    np.testing.assert_allclose(result.error_rad, every.min(axis=0), atol=1e-9)
    good = np.arange(N) % 3 > 0
    assert np.median(every.min(axis=0)[good]) == pytest.approx(1.538 * sigma, rel=0.15)
    assert min(angle(g @ np.asarray(result.turn), TURN) for g in group) < 1.5 * sigma * np.sqrt(3 / good.sum())
    random = np.stack([angle(poses(5), poses(6) @ g) for g in group]).min(axis=0)
    assert 0.85 * np.median(random) < float(result.null_rad) < np.median(random)
    assert float(result.other_hand_rad) > 0.8 * float(result.null_rad)
    if name == "D2":
        assert float(rotation.compare(found, truth).median_rad) > 0.5


def test_the_known_hand_is_kept():
    truth = poses(0)
    kept = rotation.compare(F @ truth @ F, truth, handedness=False)
    assert not bool(kept.mirrored) and float(kept.median_rad) > 1 and float(kept.other_hand_rad) < 1e-6


def test_wrong_shapes_are_named(unchecked):
    truth = poses(0)
    with pytest.raises(ShapeError, match="truth has shape"):
        rotation.compare(truth, truth[:7])
    with pytest.raises(ShapeError, match="group has shape"):
        rotation.align_poses(truth, truth, group=np.eye(3))
    with pytest.raises(ParameterError, match="one or more poses"):
        rotation.compare(truth[:0], truth[:0])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_poses_align_exactly(n):
    truth = poses(0, n)
    result = rotation.align_poses(truth @ TURN, truth, handedness=False)
    np.testing.assert_allclose(result.turn, TURN, atol=1e-9)
