"""Poses and a map from images alone; from a known map; and half by half."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import rotation
from lfjax.errors import DataWarning, ParameterError, ShapeError
from lfjax.tomography import Particles, fsc, pose_search, reconstruct, schedule
from lfjax.tomography.bands import band_of, resized
from lfjax.tomography.gold_standard import RandomPhases, independent_halves
from lfjax.tomography.known_map import orient
from lfjax.tomography.passes import Poses
from lfjax.tomography.pose_search import PoseSearch, tell_doubts
from lfjax.tomography.posterior_map import Estimate, powers_in
from lfjax.tomography.unknown_poses import abinitio
from tests.tomography.molecule import hidden, molecule, stack
from tests.tomography.test_outliers import auc

SIZE, COUNT = 24, 60
BODY = molecule(SIZE)
KEY = jax.random.key(0)


def degrees(angle):
    return float(np.rad2deg(angle))


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Fewer passes over the grids, and coarse grids only: at SNR 3 they are enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "EXTRA", 0)
        patch.setattr(schedule, "STARTING", 14)
        patch.setattr(schedule, "GRIDS", ((8, 3), (11, 2)))
        patch.setattr(pose_search, "GRIDS", dict.fromkeys(pose_search.GRIDS, schedule.COARSE))
        yield


@pytest.fixture(scope="module")
def seen():
    return stack(BODY, COUNT, SIZE, snr=3.0, seed=1)


@pytest.fixture(scope="module")
def found(seen, quick):
    images, particles, _ = seen
    states = []
    return abinitio(images, hidden(particles), restarts=2, key=KEY, keep=states.append), states


@pytest.fixture
def short(monkeypatch):
    """A schedule of very few passes, in which every kind of pass occurs, in bands of one size."""
    monkeypatch.setattr(schedule, "EXTRA", 0)
    monkeypatch.setattr(schedule, "STARTING", 3)
    monkeypatch.setattr(schedule, "GRIDS", ((8, 2),))
    monkeypatch.setattr(schedule, "NEAR", ((8, (8.0, 4.0)), (8, (4.0,))))


def test_poses_and_map_of_images_alone(seen, found):
    _, particles, _ = seen
    result, states = found
    told = rotation.compare(result.particles.rotations, particles.rotations)
    assert degrees(told.median_rad) < 4 and float(told.below_10_degrees) > 0.8 and degrees(told.null_rad) > 90
    assert len(result.evidence) == 2 and len(states) == len(result.history)
    assert [passed.step for passed in result.history] == list(range(len(states)))
    last = result.history[-1]
    assert last.kind == "near" and last.limit == result.band.limit == 11 and last.noise <= 1.05
    assert last.stuck <= 1 - float(told.below_10_degrees) + 0.05 and last.spread_rad < result.history[1].spread_rad
    assert result.good.shape == (COUNT,) and result.good.mean() > 0.8
    assert result.explained == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(result.particles.shifts, 0)


def test_the_map_has_the_scale_of_the_images(seen, found):
    images, particles, deviation = seen
    result, _ = found
    noise = np.asarray(result.estimate.noise)[2:10] / (deviation * SIZE) ** 2
    np.testing.assert_allclose(noise, 1, atol=0.3)
    assert float(result.estimate.volume.sum()) == pytest.approx(float(BODY.volume(SIZE).sum()), rel=0.1)


def test_the_best_start_goes_on(found):
    result, states = found
    best = int(np.argmax(result.evidence))
    end = schedule.STARTING * (best + 1) - 1
    leader = states[2 * schedule.STARTING - 1].leader
    np.testing.assert_array_equal(leader[0].volume, states[end].estimate.volume)
    np.testing.assert_array_equal(leader[1].rotations, states[end].poses.rotations)


def test_the_known_map_orients_images_as_well(seen, found):
    images, particles, _ = seen
    lines = []
    result = orient(3.7 * BODY.volume(SIZE), images, hidden(particles), key=KEY, keep=lines.append)
    told = rotation.compare(result.particles.rotations, particles.rotations, handedness=False)
    alone = rotation.compare(found[0].particles.rotations, particles.rotations)
    assert degrees(told.median_rad) < min(4.0, degrees(alone.median_rad) + 0.3) and float(told.below_10_degrees) > 0.95
    turn = np.asarray(rotation.distance(result.particles.rotations, particles.rotations))
    assert degrees(np.median(turn)) < 4  # in the frame of the map itself
    assert result.history == tuple(lines)
    assert (np.rad2deg(turn[result.good < 0.5]) > 10).all() and result.good.mean() > 0.95  # of a wrong pose, if not good


def test_a_search_goes_on_from_every_pass_as_if_it_had_not_stopped(seen, short):
    images, particles, _ = seen
    few, states = Particles(np.broadcast_to(np.eye(3), (16, 3, 3))), []
    whole = abinitio(images[:16], few, restarts=2, key=KEY, keep=states.append)
    assert {passed.kind for passed in whole.history} == {"coarse", "whole", "fine", "near", "again"}
    for state in states[::3]:
        more = []
        resumed = abinitio(images[:16], few, restarts=2, key=KEY, state=state, keep=more.append)
        assert len(more) == len(states) - state.done
        same = jax.tree.map(
            lambda a, b: bool(np.array_equal(a, b)), (whole[:3], whole.evidence), (resumed[:3], resumed.evidence)
        )
        assert all(jax.tree.leaves(same)) and resumed.history == whole.history


def test_displacements_are_found_about_those_given(seen, short):
    _, particles, deviation = seen
    rng = np.random.default_rng(2)
    given, more = rng.uniform(-3, 3, (COUNT, 2)), rng.normal(0, 0.7, (COUNT, 2))
    images = np.asarray(BODY.project(particles.rotations, SIZE, shifts=given + more)) + deviation * rng.standard_normal(
        (COUNT, SIZE, SIZE)
    )
    start = Particles(np.broadcast_to(np.eye(3), (COUNT, 3, 3)), shifts=given)
    result = orient(BODY.volume(SIZE), images, start, shift_px=0.7, key=KEY)
    told = rotation.compare(result.particles.rotations, particles.rotations, handedness=False)
    assert degrees(told.median_rad) < 8
    error = np.asarray(result.particles.shifts) - given - more
    assert np.median(np.abs(error)) < 0.3 < np.median(np.abs(more))


@pytest.mark.parametrize("kind", ["noise", "other"])
def test_junk_is_told_from_images_of_the_map(seen, kind):
    images, particles, deviation = seen
    junk, rng = np.arange(COUNT) < COUNT // 5, np.random.default_rng(3)
    other = 1.5 * stack(molecule(SIZE, seed=9), int(junk.sum()), SIZE)[0] if kind == "other" else 0.0
    mixed = images.copy()
    mixed[junk] = other + deviation * rng.standard_normal(mixed[junk].shape)
    result = orient(BODY.volume(SIZE), mixed, hidden(particles), key=KEY)
    assert auc(result.good[~junk], result.good[junk]) > 0.95
    error = np.asarray(rotation.distance(result.particles.rotations, particles.rotations))[~junk]
    assert degrees(np.median(error)) < 4


def test_images_with_random_phases_keep_their_powers(seen):
    images, _, _ = seen
    changed = RandomPhases(images, 7, KEY)
    some = changed[np.array([3, 5, 3])]
    assert changed.shape == images.shape and some.dtype == np.float32
    np.testing.assert_array_equal(some[0], some[2])
    old, new = np.fft.rfft2(images[[3, 5]]), np.fft.rfft2(some[:2])
    k = np.hypot(np.rint(np.fft.fftfreq(SIZE)[:, None] * SIZE), np.arange(SIZE // 2 + 1))
    np.testing.assert_allclose(new[:, k < 7], old[:, k < 7], atol=1e-2)
    inner = (k >= 7) & (np.arange(SIZE // 2 + 1) % (SIZE // 2) != 0)
    np.testing.assert_allclose(np.abs(new[:, inner]), np.abs(old[:, inner]), atol=1e-2)
    turn = np.exp(1j * np.angle(new[:, inner] / old[:, inner]))
    assert np.abs(turn.mean(1)).max() < 4 / np.sqrt(inner.sum()) and np.abs((turn[0] / turn[1]).mean()) < 4 / np.sqrt(
        inner.sum()
    )


def test_half_maps_do_not_agree_beyond_what_images_show(found, short):
    clean, particles, _ = stack(BODY, COUNT, SIZE, snr=10.0, seed=1)
    images = RandomPhases(clean, 6, KEY)
    search = PoseSearch(images, hidden(particles))
    band = band_of(8)
    volume = resized(BODY.volume(SIZE), band.size)  # a map with details that the images do not show
    power, noise = powers_in(band, search.powers)
    poses = Poses.unknown(COUNT)
    poses.rotations[:] = np.asarray(particles.rotations, np.float32)[:, None]
    start = found[0]._replace(poses=poses, estimate=Estimate(volume, power, noise, 0 * power), band=band)
    half = np.arange(COUNT) % 2 + 1
    seen = []
    apart = independent_halves(
        search, start, half, jax.random.key(1), track=lambda steps, name: seen.append((name, len(steps))) or steps
    )
    np.testing.assert_array_equal(apart.half, half)
    assert [name for name, _ in seen] == ["half-set 1", "half-set 2"] and seen[0][1] == seen[1][1] > 2
    halves = reconstruct([(images[np.arange(COUNT)], apart)], SIZE).halves
    curve = np.asarray(fsc(*(np.asarray(each) * ball(0.42 * SIZE) for each in halves)))
    print(curve)
    assert curve[1:5].min() > 0.7 and np.abs(curve[7:11]).mean() < 0.15


def ball(radius):
    x = np.arange(SIZE) - SIZE // 2
    return x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 < radius**2


def test_what_cannot_be_searched_is_refused(seen, found):
    images, particles, _ = seen
    with pytest.raises(ShapeError, match="images"):
        abinitio(images[:5], particles, key=KEY)
    with pytest.raises(ParameterError, match="radius_angstrom = 13"):
        abinitio(images, particles, radius_angstrom=13, key=KEY)
    with pytest.raises(ParameterError, match="shift_px"):
        abinitio(images, particles, shift_px=-1.0, key=KEY)
    with pytest.raises(ParameterError, match="restarts"):
        abinitio(images, particles, restarts=0, key=KEY)
    with pytest.raises(ShapeError, match="volume"):
        orient(jnp.zeros((8, 8, 8)), images, particles, key=KEY)
    with pytest.raises(ParameterError, match="half"):
        independent_halves(PoseSearch(images, particles), found[0], np.ones(COUNT, int), KEY)


def test_images_of_noise_alone_are_told_to_have_no_poses(short):
    noise = np.asarray(jax.random.normal(KEY, (40, SIZE, SIZE)))
    with pytest.warns(DataWarning, match="the poses are not determined, and neither the map nor its resolution"):
        abinitio(noise, Particles(np.broadcast_to(np.eye(3), (40, 3, 3))), restarts=1, key=KEY)


def test_what_the_last_passes_hide_is_told(found):
    result, _ = found
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell_doubts(result.history, result.poses, 0.5, 1.0)
    few = jax.tree.map(lambda a: a[:5], result.poses)
    with pytest.warns(DataWarning, match="5 images: so few explain themselves by any map"):
        tell_doubts(result.history, few, 0.0, 1.0)
    far = eqx.tree_at(lambda p: p.displacement, result.poses, result.poses.displacement + 2)
    with pytest.warns(DataWarning, match="displacements of 2 pixels rms .* expected about 1"):
        tell_doubts(result.history, far, 1.0, 1.0)
    with pytest.warns(DataWarning, match="the map explains 50% of the images' signal; expected 90% or more: another object"):
        tell_doubts(result.history, result.poses, 0.5, 0.5)


def test_a_wrong_map_leaves_signal_unexplained(seen):
    images, particles, _ = seen
    right = orient(BODY.volume(SIZE), images, hidden(particles), key=KEY)
    assert right.explained == pytest.approx(1, abs=0.1)
    with pytest.warns(DataWarning, match="of the images' signal; expected 90% or more: another object"):
        wrong = orient(molecule(SIZE, seed=9).volume(SIZE), images, hidden(particles), key=KEY)
    assert wrong.explained < 0.7


def test_a_symmetry_that_the_map_lacks_is_refused(seen):
    images, particles, _ = seen
    with pytest.raises(ParameterError, match="symmetry = 'C2': expected one that the map has: the views .* correlate by"):
        orient(BODY.volume(SIZE), images, hidden(particles), symmetry="C2", key=KEY)


def test_displacements_that_leave_the_box_are_refused(seen):
    images, particles, _ = seen
    with pytest.raises(ParameterError, match="shift_px = 50: expected 0 to"):
        PoseSearch(images, particles, shift_px=50)
