"""Somata at known positions; footprints and rings by their definitions."""

import jax
import numpy as np
import pytest

from lfjax import activity, metrics, simulate
from lfjax.errors import ParameterError, ShapeError

VOXEL_UM = (3.0, 2.0, 2.0)


def balls(centres, shape, radius_um, brightness):
    axes = [(np.arange(n) + 0.5) * v for n, v in zip(shape, VOXEL_UM, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    volume = np.zeros(shape)
    for centre, light in zip(centres, brightness, strict=True):
        inside = ((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) < radius_um**2
        volume[inside] = light
    return volume


def test_balls_are_found_with_their_size_and_place():
    centres = np.array([[12.0, 20, 20], [24, 20, 50], [30, 48, 30], [14, 60, 62]])
    volume = balls(centres, (14, 40, 40), 6.0, (1.0, 0.6, 1.5, 1.0)) + 0.05
    found = activity.segment_somata(volume, VOXEL_UM)
    assert metrics.f1_score(found.centres_um, centres, 2.0) == 1
    masks = found.masks()
    assert masks.shape == (4, 14, 40, 40) and masks.sum(0).max() == 1
    sizes = masks.sum((1, 2, 3)) * np.prod(VOXEL_UM)
    np.testing.assert_allclose(sizes, 4 / 3 * np.pi * 6.0**3, rtol=0.35)


def test_touching_somata_are_two():
    centres = np.array([[18.0, 30, 24], [18, 30, 38]])
    found = activity.segment_somata(balls(centres, (12, 30, 30), 6.5, (1, 1)), VOXEL_UM)
    assert metrics.f1_score(found.centres_um, centres, 3.0) == 1


def test_somata_of_simulated_cortex_in_noise():
    tissue = simulate.cortex(jax.random.key(0), (14, 60, 60), VOXEL_UM, count=12)
    noisy = np.random.default_rng(0).poisson(100 * np.asarray(tissue.structure)) / 100
    found = activity.segment_somata(noisy, VOXEL_UM)
    assert metrics.f1_score(found.centres_um, np.asarray(tissue.centres_um), 6.0) >= 0.9


def test_an_empty_volume_has_no_somata():
    found = activity.segment_somata(np.zeros((6, 8, 8)), VOXEL_UM)
    assert found.centres_um.shape == (0, 3) and found.masks().shape == (0, 6, 8, 8)


def test_footprints_have_the_given_width():
    centre = np.array([[21.0, 31, 31]])
    blob = activity.soma_footprints(centre, (14, 31, 31), VOXEL_UM, diameter_um=12.0)[0]
    np.testing.assert_allclose(blob.sum(), 1, rtol=1e-5)
    profile = blob[7 - 1 : 7 + 1].mean(0)[15]
    np.testing.assert_allclose(profile[15 + 3], profile[15] / 2, rtol=0.05)  # 6 um off
    grid = [(np.arange(n) + 0.5) * v for n, v in zip(blob.shape, VOXEL_UM, strict=True)]
    for axis, at in enumerate(grid):
        other = tuple(a for a in range(3) if a != axis)
        np.testing.assert_allclose((blob.sum(other) * at).sum(), centre[0, axis], atol=0.2)


def test_rings_exclude_all_somata():
    centres = np.array([[20.0, 30, 30], [20, 30, 52]])
    masks = np.stack([balls([c], (14, 40, 40), 6.0, [1.0]) for c in centres])
    rings = activity.neuropil_rings(centres, masks, VOXEL_UM, inner_um=8, outer_um=20)
    np.testing.assert_allclose(rings.sum((1, 2, 3)), 1, rtol=1e-5)
    assert np.all(rings[:, masks.any(0)] == 0)
    far = np.argwhere(rings[0] > 0) * np.array(VOXEL_UM) + np.array(VOXEL_UM) / 2
    distance = np.linalg.norm(far - centres[0], axis=1)
    assert distance.min() > 8 and distance.max() <= 20


def test_wrong_arguments_are_named():
    with pytest.raises(ParameterError, match="edge = 2"):
        activity.segment_somata(np.ones((4, 8, 8)), VOXEL_UM, edge=2)
    with pytest.raises(ShapeError, match="volume has shape"):
        activity.segment_somata(np.ones((8, 8)), VOXEL_UM)
    with pytest.raises(ParameterError, match="inner_um, outer_um"):
        activity.neuropil_rings(np.zeros((1, 3)), np.zeros((1, 4, 8, 8)), VOXEL_UM, inner_um=5, outer_um=4)
    with pytest.raises(ShapeError, match="centres_um has shape"):
        activity.soma_footprints(np.zeros(3), (4, 8, 8), VOXEL_UM)
