"""Structural volumes and the user's masks on the grid of the reconstruction."""

import h5py
import numpy as np
import pytest
import tifffile

from lfjax import activity, io
from lfjax.errors import FileError, ParameterError, ShapeError

GRID, GRID_UM = (7, 12, 10), (10.0, 4.0, 4.0)


def position(shape, voxel_um):
    """z + 2 y + 3 x from the centre, at the middle of each voxel."""
    z, y, x = ((np.arange(n) - (n - 1) / 2) * v for n, v in zip(shape, voxel_um, strict=True))
    return z[:, None, None] + 2 * y[:, None] + 3 * x


def test_a_volume_on_the_grid_passes_unchanged():
    volume = np.random.default_rng(0).integers(0, 60000, GRID).astype(np.uint16)
    for size in (None, GRID_UM, (10.0, 4.0001, 4.0)):
        got = activity.resample_structure(volume, size, GRID, GRID_UM)
        assert got.dtype == np.uint16
        np.testing.assert_array_equal(got, volume)


def test_coarser_voxels_are_means_and_finer_ones_interpolated():
    rng = np.random.default_rng(1)
    fine = rng.random((35, 24, 20), np.float32)
    got = activity.resample_structure(fine, (2.0, 2.0, 2.0), GRID, GRID_UM)
    np.testing.assert_allclose(got, fine.reshape(7, 5, 12, 2, 10, 2).mean((1, 3, 5)), rtol=1e-5)
    inside = (slice(1, -1),) * 3  # a linear volume stays linear, and its centre the centre
    for shape, size, off in (
        ((35, 24, 40), (2.0, 2.0, 1.0), 1e-3),
        ((7, 9, 7), (10.0, 5.4, 5.8), 1e-3),
        ((61, 48, 40), (1.0, 1.0, 1.0), 1e-3),  # from the first plane to the last: 60 um, as the grid
        ((35, 16, 13), (2.0, 3.0, 3.0), 3.0),  # voxels cut in parts: within a quarter of one
    ):
        got = activity.resample_structure(position(shape, size), size, GRID, GRID_UM)
        np.testing.assert_allclose(got[inside], position(GRID, GRID_UM)[inside], atol=off)
        np.testing.assert_allclose(activity.resample_structure(np.ones(shape), size, GRID, GRID_UM), 1, rtol=1e-5)


def test_a_volume_of_another_size_is_refused_by_name():
    with pytest.raises(ShapeError, match=r"no voxel size: expected the grid's .* --structure-voxel-um Z,Y,X"):
        activity.resample_structure(np.ones((7, 12, 11)), None, GRID, GRID_UM)
    with pytest.raises(ParameterError, match=r"along x are 80 um, the grid has 40 um.* within 6 um"):
        activity.resample_structure(np.ones((7, 12, 20)), GRID_UM, GRID, GRID_UM)
    with pytest.raises(ParameterError, match="6 voxels of 10 um along z"):  # a plane is missing, at one of two ends
        activity.resample_structure(np.ones((6, 12, 10)), GRID_UM, GRID, GRID_UM)
    with pytest.raises(ParameterError, match="along y"):  # the same shape, of other voxels
        activity.resample_structure(np.ones(GRID), (10.0, 6.0, 4.0), GRID, GRID_UM)
    with pytest.raises(ParameterError, match="voxel_um"):
        activity.resample_structure(np.ones(GRID), (10.0, 0.0, 4.0), GRID, GRID_UM)
    with pytest.raises(ShapeError, match="structure has shape"):
        activity.resample_structure(np.ones((12, 10)), None, GRID, GRID_UM)


def labels():
    array = np.zeros(GRID, np.uint16)
    array[1:3, 2:5, 3:5], array[4, 8:10, 7] = 7, 300
    return array


def test_labels_become_places_and_keep_their_numbers():
    got = activity.masks_to_places(labels(), GRID, GRID_UM)
    assert got.ids.tolist() == [7, 300]
    np.testing.assert_allclose(got.centres_um, [[20, 14, 16], [45, 36, 30]])
    np.testing.assert_array_equal(got.masks, [labels() == 7, labels() == 300])
    fine = np.kron(labels(), np.ones((5, 2, 2), int))
    finer = activity.masks_to_places(fine, GRID, GRID_UM, voxel_um=(2.0, 2.0, 2.0))
    np.testing.assert_array_equal(finer.masks, got.masks)
    stack = activity.masks_to_places(255 * got.masks, GRID, GRID_UM)
    np.testing.assert_array_equal(stack.masks, got.masks)
    assert stack.ids.tolist() == [1, 2]


def test_masks_come_from_files(tmp_path):
    tifffile.imwrite(tmp_path / "napari.tif", labels())
    io.write_volume(tmp_path / "fiji.tif", labels(), GRID_UM)
    tifffile.imwrite(tmp_path / "plane.tif", labels()[2])
    np.save(tmp_path / "labels.npy", labels())
    with h5py.File(tmp_path / "masks.h5", "w") as file:
        file["masks"] = np.stack([labels() == 7, labels() == 300])
        file["masks"].attrs["voxel_um"] = GRID_UM
        file["other"] = 1
    for name, size in (("napari.tif", None), ("fiji.tif", GRID_UM), ("labels.npy", None), ("masks.h5", GRID_UM)):
        found = activity.read_masks(tmp_path / name)
        assert found.voxel_um is size or np.allclose(found.voxel_um, size, rtol=1e-4)
        got = activity.masks_to_places(found.array, GRID, GRID_UM, voxel_um=found.voxel_um)
        np.testing.assert_array_equal(got.masks, [labels() == 7, labels() == 300])
    assert activity.read_masks(tmp_path / "plane.tif").array.shape == (1, *GRID[1:])
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "complex.npy", labels() * 1j)
    for name in ("missing.tif", "text.npy", "complex.npy", "labels.png"):
        with pytest.raises(FileError, match=name):
            activity.read_masks(tmp_path / name)
    with pytest.raises(FileError, match="expected a dataset 'rois'"):
        activity.read_masks(tmp_path / "masks.h5", dataset="rois")


def test_masks_that_are_none_are_refused():
    for wrong, error, message in (
        (labels()[:, :-1], ShapeError, "no voxel size"),
        (labels()[0], ShapeError, r"labels \(z, y, x\)"),
        (0 * labels(), ParameterError, "one neuron or more"),
        (labels() + 0.5, ParameterError, "whole numbers"),
        (labels() > 0, ParameterError, "2 separate pieces"),
        (-labels().astype(int), ParameterError, "0 is outside"),
    ):
        with pytest.raises(error, match=message):
            activity.masks_to_places(wrong, GRID, GRID_UM)
    with pytest.raises(ParameterError, match="neurons 300 have no voxel"):
        lost = np.kron(labels(), np.ones((1, 3, 3), int))
        lost[lost == 300] = 0
        lost[4, 0, 0] = 300  # smaller than a voxel of the grid
        activity.masks_to_places(lost, GRID, GRID_UM, voxel_um=(10.0, 4 / 3, 4 / 3))
