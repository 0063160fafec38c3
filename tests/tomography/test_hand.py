"""The hand from tilt pairs, offsets of the map in the shifts, and images that two files have in common."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import binom

from lfjax.errors import DataWarning, FileError, ParameterError, ShapeError
from lfjax.tomography import (
    fit_map_offset,
    hand_of_pairs,
    pairs_within,
    read_particles,
    same_images,
    symmetry_group,
    tilt_rotations,
)

F = np.diag([1.0, 1.0, -1.0])
M = 40


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def poses(seed, n=M):
    return Rotation.random(n, random_state=np.random.default_rng(seed)).as_matrix()


def noise(sigma, seed, n=M):
    return Rotation.from_rotvec(sigma * np.random.default_rng(seed).normal(size=(n, 3))).as_matrix()


def pairs(tilt, axis, sigma=0.0):
    """Found poses of a map that lies anywhere, and the known tilts."""
    known = Rotation.from_rotvec(tilt * np.array([np.cos(axis), np.sin(axis), 0.0])).as_matrix()
    truth, turn = poses(0), poses(1)[0]
    return noise(sigma, 2) @ truth @ turn, noise(sigma, 3) @ known @ truth @ turn, known


@pytest.mark.parametrize("mirrored", [False, True])
def test_without_noise_the_other_hand_is_twice_the_tilt_away(mirrored):
    untilted, tilted, known = pairs(0.4, 1.1)
    np.testing.assert_allclose(tilt_rotations(0.4, 1.1), known, atol=1e-12)
    if mirrored:
        untilted, tilted = F @ untilted @ F, F @ tilted @ F
    found = hand_of_pairs(untilted, tilted, tilt_rotations(np.full(M, 0.4), 1.1))
    right, wrong = (found.mirrored_rad, found.as_found_rad) if mirrored else (found.as_found_rad, found.mirrored_rad)
    assert float(right) < 1e-7 and float(wrong) == pytest.approx(0.8) and float(found.tilt_rad) == pytest.approx(0.4)
    assert bool(found.decided) and bool(found.mirrored) == mirrored and int(found.nearer_as_found) == M * (1 - mirrored)
    assert float(found.chance) == pytest.approx(2.0 ** (1 - M))
    assert ("mirror image is right" in found.statement) == mirrored


def test_with_noise_the_hand_is_decided_and_the_angle_is_that_of_two_poses():
    found = hand_of_pairs(*pairs(0.4, 1.1, sigma=0.05))
    assert bool(found.decided) and not bool(found.mirrored)
    assert float(found.as_found_rad) == pytest.approx(1.538 * 0.05 * np.sqrt(2), rel=0.2)  # chi, three degrees of freedom


def test_pairs_that_tell_nothing_decide_nothing():
    known = tilt_rotations(0.4, 1.1)
    found = [hand_of_pairs(poses(10 + s), poses(60 + s), known) for s in range(50)]
    assert not any(bool(f.decided) for f in found)
    share = np.mean([float(f.chance) < 0.2 for f in found])  # as binomial numbers have it: at most 0.2
    assert 0 < share < 0.4
    for f in found[:10]:
        most = max(int(f.nearer_as_found), int(f.pairs) - int(f.nearer_as_found))
        assert float(f.chance) == pytest.approx(min(2 * binom.sf(most - 1, int(f.pairs), 0.5), 1), rel=1e-9)
    assert "undecided, chance alone" in found[0].statement
    same = hand_of_pairs(poses(0), poses(0), tilt_rotations(0.0, 0.0))
    assert int(same.pairs) == 0 and float(same.chance) == 1 and not bool(same.decided)


def test_a_wrong_axis_and_few_pairs_decide_nothing():
    untilted, tilted, _ = pairs(0.4, 0.0, sigma=0.02)
    across = hand_of_pairs(untilted, tilted, tilt_rotations(0.4, np.deg2rad(75.0)))
    assert float(across.chance) < 0.01 and not bool(across.decided) and "no tilt at all" in across.statement
    right = tilt_rotations(0.4, 0.0)
    assert [bool(hand_of_pairs(untilted[:m], tilted[:m], right).decided) for m in (7, 8)] == [False, True]
    with pytest.raises(ParameterError, match="pairs"):
        hand_of_pairs(untilted[:0], tilted[:0], right)


def test_wrong_shapes_are_named(unchecked):
    known = tilt_rotations(0.4, 0.0)
    with pytest.raises(ShapeError, match="tilted has shape"):
        hand_of_pairs(poses(0), poses(1)[:3], known)
    with pytest.raises(ShapeError, match="rotations has shape"):
        fit_map_offset(np.zeros((3, 2)), np.zeros((3, 2)), poses(0))


@pytest.mark.parametrize("mirrored", [False, True])
def test_pairs_of_a_symmetric_object_may_show_different_elements(mirrored):
    untilted, tilted, known = pairs(0.4, 1.1, sigma=0.03)
    group = symmetry_group("D3")  # in the frame of these poses
    untilted, tilted = (r @ group[np.random.default_rng(s).integers(6, size=M)] for s, r in enumerate((untilted, tilted)))
    if mirrored:
        untilted, tilted, group = (F @ r @ F for r in (untilted, tilted, group))
    found = hand_of_pairs(untilted, tilted, known, group=group)
    assert bool(found.decided) and bool(found.mirrored) == mirrored
    assert float(found.mirrored_rad if mirrored else found.as_found_rad) < 0.1
    assert not bool(hand_of_pairs(untilted, tilted, known).decided)


def test_the_hand_of_a_real_tilt_series(shared):
    with pytest.warns(DataWarning, match="rlnCtfBfactor"):
        file = read_particles(shared / "data/cryo/sta_testing_bin8.star")
    first, second = pairs_within(file.tables["particles"]["rlnGroupName"].to_numpy())
    known = np.asarray(file.particles.rotations, float)
    between = known[second] @ known[first].transpose(0, 2, 1)
    poses_found = noise(0.1, 4, len(known)) @ known @ poses(5)[0]
    for mirrored in (False, True):
        found = F @ poses_found @ F if mirrored else poses_found
        result = hand_of_pairs(found[first], found[second], between)
        assert bool(result.decided) and bool(result.mirrored) == mirrored
        assert np.rad2deg(float(result.tilt_rad)) == pytest.approx(30, abs=2)  # of the series, 3 degrees a step up to 60


def test_pairs_share_no_image():
    names = np.random.default_rng(0).integers(7, size=60)
    first, second = pairs_within(names)
    assert len(np.unique(np.r_[first, second])) == 2 * len(first)
    np.testing.assert_array_equal(names[first], names[second])
    assert len(first) == sum(count // 2 for count in np.bincount(names))


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_offset_of_the_map_is_taken_from_the_shifts(mirrored):
    """A volume displaced by t, at the poses of its own frame, is seen displaced by (R t)_xy."""
    truth, turn = poses(0), poses(1)[0]
    found = F @ truth @ turn @ F if mirrored else truth @ turn
    own = np.array([1.0, -2.0, 0.5])  # in the frame of the found map
    shifts = np.random.default_rng(5).normal(size=(M, 2))
    errors = 0.1 * np.random.default_rng(6).normal(size=(M, 2))
    seen = shifts - (found @ own)[:, :2]
    result = fit_map_offset(seen, shifts, truth)
    np.testing.assert_allclose(result.offset, turn @ (F @ own if mirrored else own), atol=1e-10)
    assert float(result.rms) < 1e-10
    result = fit_map_offset(seen + errors, shifts, truth)
    assert float(result.rms) == pytest.approx(0.1 * np.sqrt(2 * (1 - 3 / (2 * M))), rel=0.15)
    one = fit_map_offset(seen[:4], shifts[:4], np.repeat(truth[:1], 4, axis=0))  # one view: no depth
    assert np.isfinite(one.offset).all() and abs(float(truth[0, 2] @ np.asarray(one.offset))) < 1e-9


def test_images_are_matched_by_name():
    first = [(0, "./a.mrcs"), (1, "a.mrcs"), (0, "b.mrcs")]
    i, j = same_images(first, [(0, "b.mrcs"), (5, "a.mrcs"), (0, "a.mrcs")])
    assert i.tolist() == [0, 2] and j.tolist() == [2, 0]
    i, j = same_images(first, [(0, "job/b.mrcs"), (0, "job/005213665113010562610_a.mrcs")])
    assert i.tolist() == [0, 2] and j.tolist() == [1, 0]
    assert len(same_images(first, [(0, "c.mrcs")])[0]) == 0
    with pytest.raises(FileError, match="image 1 of a.mrcs stands in 2 rows"):
        same_images(first, [(0, "a.mrcs"), (0, "./a.mrcs")])
    with pytest.raises(FileError, match="2 rows"):  # of one name in two folders, none of them the other's
        same_images([(0, "x/a.mrcs"), (0, "y/a.mrcs")], [(0, "z/a.mrcs")])
