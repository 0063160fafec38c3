"""Particles whose boxes hold neighbours: the search finds their poses, and a ball that is too small is still refused."""

import dataclasses

import jax
import numpy as np
import pytest

from lfjax import io, rotation, tomography
from lfjax.errors import DataWarning, ParameterError
from lfjax.pipeline import SearchSettings, find_poses
from lfjax.tomography import schedule

SMALL, BOX, IMAGES, RADIUS = 24, 48, 60, 10.0
SETTINGS = SearchSettings(radius_angstrom=5.0 * RADIUS)
FEW = {"STARTING": 12, "EXTRA": 0, "GRIDS": ((8, 2), (11, 1)), "NEAR": ((13, (8.0, 5.0)), (16, (4.0,)))}


@pytest.fixture(scope="module", autouse=True)
def few_passes():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FEW.items():
            patch.setattr(schedule, name, value)
        yield


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Blobs, most of them with another view of the same blobs 16 to 22 pixels away, and the known poses."""
    folder = tmp_path_factory.mktemp("crowd")
    x = np.arange(SMALL) - SMALL // 2
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    rng = np.random.default_rng(0)
    blobs = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 1.62) for a, b, c in rng.uniform(-4.8, 4.8, (9, 3)))
    known, others = (
        tomography.random_particles(jax.random.key(k), IMAGES, pixel_angstrom=5.0, defocus_angstrom=None) for k in range(2)
    )
    views, strangers = (
        np.concatenate(list(tomography.simulate_stack(jax.random.key(2), blobs.astype(np.float32), p, snr=None)))
        for p in (known, others)
    )
    wide = 4 * BOX
    images = rng.normal(scale=views.std(), size=(IMAGES, wide, wide))
    for image, view, stranger in zip(images, views, strangers, strict=True):
        away, angle = rng.uniform(16, 22), rng.uniform(0, 2 * np.pi)
        for what, (down, right) in (
            (view, (0, 0)),
            (stranger, np.rint((away * np.sin(angle), away * np.cos(angle))).astype(int)),
        ):
            first = wide // 2 - SMALL // 2
            image[first + down : first + down + SMALL, first + right : first + right + SMALL] += what
    first = wide // 2 - BOX // 2
    images = images[:, first : first + BOX, first : first + BOX] / views.std()
    io.write_stack(folder / "p.mrcs", images, 5.0)
    known = dataclasses.replace(known, half=np.arange(IMAGES) % 2 + 1)
    tomography.write_particles(folder / "p.star", known, [(i, "p.mrcs") for i in range(IMAGES)], BOX)
    return tomography.read_particles(folder / "p.star", ctf=False)


def test_boxes_are_cut_to_the_particle_and_its_poses_are_found(crowd):
    notes = []
    made = find_poses(crowd, SETTINGS, restarts=1, independent=False, told=notes.append)
    assert any("neighbours: " in note and "of the signal lies beyond the ball of 50 A" in note for note in notes)
    assert "boxes are cut to 24 px about the particle for the search; maps are made of whole boxes" in notes
    both = (np.asarray(p.rotations, float) for p in (made.particles, crowd.particles))
    compared = rotation.compare(*both)
    assert float(compared.median_rad) <= np.deg2rad(8) and float(compared.below_10_degrees) >= 0.6
    assert made.maps.volume.shape == (BOX,) * 3
    line = made.search.history[0]
    assert line.period_angstrom == pytest.approx(24 * 5.0 / line.limit)


def test_a_ball_that_is_too_small_in_a_crowd_is_refused(crowd):
    small = dataclasses.replace(SETTINGS, radius_angstrom=15.0)
    with pytest.raises(ParameterError, match=r"radius_angstrom = 15: .* lies beyond the ball.*--radius"):
        find_poses(crowd, small, restarts=1)


class StoppedError(Exception):
    pass


def stop(line):
    raise StoppedError


def test_whole_boxes_that_are_asked_for_bring_a_warning_with_the_option_that_helps(crowd):
    whole, notes = dataclasses.replace(SETTINGS, cut=False), []
    with pytest.warns(DataWarning, match=r"lies beyond the ball of 50 A.*--cut-neighbours"), pytest.raises(StoppedError):
        find_poses(crowd, whole, restarts=1, told=notes.append, passed=stop)
    assert not any("boxes are cut to" in note for note in notes)


def test_a_cut_that_is_asked_for_is_made_and_its_doubts_are_told(crowd):
    small, notes = dataclasses.replace(SETTINGS, radius_angstrom=15.0, cut=True), []
    with pytest.warns(DataWarning, match=r"lies beyond the ball of 15 A.*--radius"), pytest.raises(StoppedError):
        find_poses(crowd, small, restarts=1, told=notes.append, passed=stop)
    assert any("boxes are cut to" in note for note in notes)
