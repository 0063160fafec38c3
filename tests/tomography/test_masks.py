"""Masks against RELION's program and closed forms, and the refusals that keep a wrong mask from giving a resolution."""

import shutil
import subprocess
import warnings

import numpy as np
import pytest

from lfjax import io, tomography
from lfjax.errors import DataWarning, ParameterError, ShapeError


def blobs(n=40):
    """A map of three Gaussians on noise, well inside its box."""
    x = np.arange(n) - n // 2
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    volume = 0.02 * np.random.default_rng(0).normal(size=(n, n, n))
    for centre, width, height in (((2, -3, 1), 4.0, 1.0), ((-5, 4, 2), 3.0, 0.8), ((3, 5, -6), 2.0, 1.2)):
        volume += height * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) / (2 * width**2))
    return volume.astype(np.float32)


@pytest.mark.parametrize(("extend", "soft"), [(3.0, 4.0), (2.5, 6.0), (-1.5, 3.0), (0.0, 0.0)])
def test_masks_equal_those_of_relion_mask_create(tmp_path, extend, soft):
    if shutil.which("relion_mask_create") is None:
        pytest.skip("relion_mask_create is not installed: nothing to compare with")
    io.write_map(tmp_path / "map.mrc", blobs(), 2.0)
    words = f"relion_mask_create --i map.mrc --o mask.mrc --ini_threshold 0.4 --lowpass 12 --angpix 2 --extend_inimask {extend}"
    subprocess.run([*words.split(), "--width_soft_edge", str(soft)], cwd=tmp_path, check=True, capture_output=True)
    expected = io.read_map(tmp_path / "mask.mrc").array
    found = tomography.density_mask(
        blobs(), voxel_angstrom=2.0, threshold=0.4, lowpass_angstrom=12.0, extend_px=extend, soft_px=soft
    )
    different = np.abs(found.mask - expected) > 1e-3
    assert different.mean() <= 1e-4  # voxels at the threshold itself, where rounding decides
    assert 0.005 < expected.mean() < 0.5
    assert found.fraction == pytest.approx((expected > 0.5).mean(), abs=2e-4)


def test_soft_edges_follow_the_distance_to_a_slab():
    """Growth by less than 4 voxels is growth by 3 planes, and the edge starts from the last of them."""
    inside = np.zeros((32, 12, 12), bool)
    inside[8:13] = True
    found = tomography.soft_mask(inside, extend_px=4.0, soft_px=6.0)
    z = np.arange(32)
    away = np.maximum(np.maximum(5 - z, z - 15), 0)
    expected = 0.5 + 0.5 * np.cos(np.pi * np.clip(away / 6.0, 0, 1))
    np.testing.assert_allclose(found, np.broadcast_to(expected[:, None, None], found.shape), atol=1e-6)
    shrunk = tomography.soft_mask(inside, extend_px=-2.0)
    np.testing.assert_array_equal(np.flatnonzero(shrunk[:, 0, 0]), [9, 10, 11])


def test_a_threshold_is_found_between_solvent_and_particle():
    found = tomography.density_mask(blobs(), voxel_angstrom=2.0, lowpass_angstrom=10.0, extend_px=0, soft_px=2)
    assert 0.2 < found.threshold < 0.7
    assert found.mask[20, 20, 20] == 1 and found.mask[0].max() == 0
    two = np.r_[np.full(900, 1.0), np.full(100, 5.0)]
    assert 1.0 < tomography.otsu_threshold(two) < 5.0


def test_small_islands_are_dropped_on_request():
    volume = np.zeros((32, 32, 32), np.float32)
    volume[10:22, 10:22, 10:22] = 1.0
    volume[4:6, 4:6, 4:6] = 1.0
    options = {"voxel_angstrom": 1.0, "threshold": 0.5, "lowpass_angstrom": None, "extend_px": 0, "soft_px": 0}
    assert tomography.density_mask(volume, **options).mask.sum() == 12**3 + 8
    assert tomography.density_mask(volume, **options, islands=0.01).mask.sum() == 12**3


def test_low_pass_keeps_long_periods_and_removes_short_ones():
    n, voxel = 32, 2.0
    x = np.arange(n)
    waves = {shell: np.broadcast_to(np.cos(2 * np.pi * shell * x / n), (n, n, n)) for shell in (3, 7, 8, 9, 12)}
    for shell, factor in ((3, 1.0), (7, 1.0), (8, 0.5), (9, 0.0), (12, 0.0)):
        found = np.asarray(tomography.low_pass(waves[shell], n * voxel / 8, voxel))
        np.testing.assert_allclose(found, factor * waves[shell], atol=1e-5)


@pytest.mark.parametrize("radius", [0.0, 0.25, -3.0, 16.5, 100.0, float("nan")])
def test_radii_that_fit_no_box_are_refused(radius):
    with pytest.raises(ParameterError, match="radius"):
        tomography.spherical_mask(32, radius)


def test_a_ball_may_have_a_hard_edge():
    ball = tomography.spherical_mask(32, 10.0, 0.0)
    assert set(np.unique(ball)) == {0.0, 1.0}
    assert ball.sum() == pytest.approx(4 / 3 * np.pi * 1000, rel=0.02)


def test_masks_that_are_none_are_refused_and_doubtful_ones_reported(unchecked):
    good = tomography.spherical_mask(16, 4.0, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(tomography.check_mask(good), good.astype(np.float32))
    for bad, words in (
        (0 * good, "empty"),
        (2 * good, "0 to 2"),
        (good - 0.5, "-0.5"),
        (np.where(good > 0.5, np.nan, 0), "nan"),
    ):
        with pytest.raises(ParameterError, match=f"mask.mrc.*{words}"):
            tomography.check_mask(bad, "mask.mrc")
    with pytest.raises(ShapeError, match="mask"):
        tomography.check_mask(good[0])
    with pytest.warns(DataWarning, match="border"):
        tomography.check_mask(np.roll(good, 8, 0))
    with pytest.warns(DataWarning, match="1 everywhere"):
        tomography.check_mask(np.ones((8, 8, 8)))


def test_options_out_of_range_are_named(unchecked):
    volume = blobs()
    for options, name in (
        ({"threshold": 99.0}, "threshold"),
        ({"soft_px": -1.0}, "soft_px"),
        ({"extend_px": 30.0}, "extend_px"),
        ({"voxel_angstrom": 0.0}, "voxel_angstrom"),
        ({"lowpass_angstrom": -2.0}, "period_angstrom"),
        ({"lowpass_angstrom": np.nan}, "lowpass_angstrom"),
        ({"threshold": np.nan}, "threshold"),
        ({"soft_px": np.nan}, "soft_px"),
        ({"voxel_angstrom": np.inf}, "voxel_angstrom"),
    ):
        with pytest.raises(ParameterError, match=name):
            tomography.density_mask(volume, **({"voxel_angstrom": 2.0} | options))
    with pytest.raises(ShapeError, match="volume"):
        tomography.density_mask(volume[:20], voxel_angstrom=2.0)


def test_maps_that_give_no_mask_are_refused_by_their_cause(unchecked):
    """A map without contrast has no threshold, and a message about one would speak of a number that nobody gave."""
    for volume, options, words in (
        (np.zeros((32, 32, 32)), {}, "volume: the map is constant, 0 everywhere"),
        (np.full((32, 32, 32), 3.0), {"lowpass_angstrom": None}, "volume: the map is constant, 3 everywhere"),
        (blobs(), {"lowpass_angstrom": 1e5}, "lowpass_angstrom = 100000 A is longer than the box of 80 A"),
    ):
        with pytest.raises(ParameterError, match=words) as told:
            tomography.density_mask(volume, **({"voxel_angstrom": 2.0} | options))
        assert "threshold" not in str(told.value)


def test_masks_of_inverted_maps_and_of_noise_are_doubted():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tomography.density_mask(blobs(), voxel_angstrom=2.0)
    with pytest.warns(DataWarning, match=r"from -1.* is the map inverted") as told:
        tomography.density_mask(-blobs(), voxel_angstrom=2.0, lowpass_angstrom=8.0)
    assert any("covers 100% of the ball" in str(w.message) or "covers 9" in str(w.message) for w in told)
    with pytest.warns(DataWarning, match="of the ball that the box holds; is the map inverted, or noise"):
        tomography.density_mask(np.random.default_rng(0).normal(size=(40, 40, 40)), voxel_angstrom=2.0)


@pytest.mark.parametrize(("voxels", "words"), [(1, "one voxel above"), (19, "19 voxels above")])
def test_masks_of_few_voxels_are_refused_with_their_number(unchecked, voxels, words):
    mask = np.zeros((16, 16, 16), np.float32)
    mask[5:10, 7:11, 8] = 1  # 20 voxels
    assert tomography.check_mask(mask).sum() == 20
    mask[tuple(np.argwhere(mask)[: 20 - voxels].T)] = 0
    with pytest.raises(ParameterError, match=f"mask.mrc: {words}.*expected 20 or more"):
        tomography.check_mask(mask, "mask.mrc")


def test_maps_of_different_grids_are_refused_by_name():
    small, large = np.zeros((8, 8, 8)), np.zeros((10, 10, 10))
    assert tomography.same_grid({"a.mrc": (small, 1.35), "b.mrc": (small, 1.350001), "c.mrc": (small, None)}) == 1.35
    with pytest.raises(ParameterError, match=r"b\.mrc has voxels of 1\.4 angstroms: expected 1\.35, as a\.mrc"):
        tomography.same_grid({"a.mrc": (small, 1.35), "b.mrc": (small, 1.4)})
    with pytest.raises(ShapeError, match=r"b\.mrc has 10 x 10 x 10 voxels.*expected 8 x 8 x 8, as a\.mrc"):
        tomography.same_grid({"a.mrc": (small, 1.35), "b.mrc": (large, 1.35)})
    with pytest.raises(ShapeError, match="cube"):
        tomography.same_grid({"a.mrc": (small[:4], 1.0)})
    with pytest.raises(ParameterError, match="state none"):
        tomography.same_grid({"a.mrc": (small, None), "b.mrc": (small, 0.0)})
