"""The user's own masks of neurons: label volumes and stacks of masks, from Fiji, napari, suite2p or Cellpose."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.ndimage import label

from lfjax._lazy import load
from lfjax.activity.structure import on_grid
from lfjax.errors import FileError, ParameterError, ShapeError, require
from lfjax.io.arrays import VoxelUm, reading
from lfjax.io.hdf5 import choose_dataset, read_values
from lfjax.io.hdf5_attributes import Attributes
from lfjax.io.npy import read_array

NAMES = ("masks", "labels", "label", "volume")  # datasets of HDF5 files, in order of preference


class Masks(NamedTuple):
    """Masks as a file holds them.

    Attributes:
        array: (z, y, x), numbers of neurons, 0 outside; or (n, z, y, x), one mask per neuron.
        voxel_um: voxel size (z, y, x); None: the file does not tell.
    """

    array: np.ndarray
    voxel_um: VoxelUm | None


class MaskedPlaces(NamedTuple):
    """Neurons of masks on the grid of the reconstruction.

    Attributes:
        centres_um: (n, 3), centres of mass (z, y, x) from the corner of the volume.
        masks: (n, z, y, x), weights of 0 to 1.
        ids: (n,), the numbers that the neurons have in a label volume; 1 to n for masks.
    """

    centres_um: Float[np.ndarray, "n 3"]
    masks: Float[np.ndarray, "n z y x"]
    ids: Int[np.ndarray, " n"]


def read_masks(path: str | Path, *, dataset: str | None = None) -> Masks:
    """Masks of neurons from a file.

    Args:
        path: .tif or .tiff (labels (z, y, x), a plane of labels (y, x), or masks (n, z, y, x)), .npy, or .h5 and .hdf5.
        dataset: name of the dataset of an HDF5 file; None: the first of masks, labels, label, volume, or the only one there.
            Its attribute voxel_um, if there is one, gives the voxel size.

    Raises:
        FileError: the file is missing or broken, of another kind, or holds no masks.
    """
    suffix = Path(path).suffix.lower()
    size: VoxelUm | None = None
    if suffix in (".tif", ".tiff"):
        array, size = load("lfjax.io.tiff").read_labels(path)
    elif suffix == ".npy":
        array = read_array(path)
    elif suffix in (".h5", ".hdf5"):
        array, size = _hdf5(path, dataset)
    else:
        raise FileError(f"{path}: suffix {suffix!r} is not known; expected .tif, .tiff, .npy, .h5 or .hdf5")
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3, 4) or not array.size:
        raise FileError(f"{path}: {array.dtype} of shape {array.shape}; expected labels (z, y, x) or masks (n, z, y, x)")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FileError(f"{path}: NaN or infinite values; expected numbers of neurons, or masks of 0 to 1")
    return Masks(array[None] if array.ndim == 2 else array, size)


def _hdf5(path: str | Path, dataset: str | None) -> tuple[np.ndarray, VoxelUm | None]:
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        found = choose_dataset(path, file, dataset, NAMES, (3, 4, 2), kinds="buif")
        array = read_values(path, found)
        size = np.ravel(Attributes(path, found).get("voxel_um", ()))
        if size.size not in (0, 3) or (size.size and (size.dtype.kind not in "uif" or not bool(np.all(size > 0)))):
            raise FileError(f"{path}: attribute voxel_um of {found.name} is {size!r}; expected 3 positive numbers")
        return array, (float(size[0]), float(size[1]), float(size[2])) if size.size else None


def masks_to_places(
    masks: ArrayLike,
    shape: tuple[int, int, int],
    grid_voxel_um: tuple[float, float, float],
    *,
    voxel_um: tuple[float, float, float] | None = None,
    diameter_um: float = 12.0,
) -> MaskedPlaces:
    """Neurons of label volumes or masks, on the grid of the reconstruction.

    A mask on another grid is resampled to the nearest voxel, the centres of the two volumes aligned; the extents must agree as
    for `resample_structure`. The numbers of labels are kept as `ids`.

    Args:
        masks: (z, y, x), whole numbers: 0 outside, one number per neuron; or (n, z, y, x), one mask of 0 to 1 per neuron.
        shape: voxels (z, y, x) of the grid.
        grid_voxel_um: voxel size (z, y, x) of the grid.
        voxel_um: voxel size (z, y, x) of the masks. None: unknown, and they must be on the grid.
        diameter_um: diameter of a soma, see `resample_structure`.

    Raises:
        ShapeError: other than three or four axes, or another shape than the grid's and no voxel size.
        ParameterError: labels that are not whole numbers, a single label for separate pieces, no neuron, a neuron without a
            voxel on the grid, or extents that differ.
    """
    array = np.asarray(masks)
    if array.ndim not in (3, 4):
        raise ShapeError(f"masks has shape {array.shape}: expected labels (z, y, x) or masks (n, z, y, x)")
    require(array.dtype.kind in "buif", "masks", array.dtype, "numbers")
    labelled = array.ndim == 3
    whole = array.dtype.kind in "bui" or bool(np.all(np.isfinite(array)) and (not labelled or np.all(array == np.round(array))))
    require(whole, "masks", array.dtype, "whole numbers as labels, or finite weights as masks")
    require(bool(array.min(initial=0) >= 0), "masks", array.min(initial=0), "zero or more: 0 is outside all neurons")
    planes = _nearest(array, shape, grid_voxel_um, voxel_um, diameter_um)
    if labelled:
        ids = np.unique(array)
        ids = ids[ids > 0].astype(np.int64)
        parts = label(array > 0)[1] if len(ids) == 1 else 1
        wanted = "one number per neuron (label the connected components first), or masks (n, z, y, x)"
        require(parts == 1, "masks", f"one label, {ids}, in {parts} separate pieces", wanted)
        chosen = (planes[None] == ids[:, None, None, None]).astype(np.float32)
    else:
        ids, chosen = np.arange(1, len(planes) + 1), planes.astype(np.float32)
        chosen /= np.maximum(chosen.max((1, 2, 3), keepdims=True, initial=0), 1e-30)
    require(len(ids) > 0, "masks", "zeros", "one neuron or more")
    light = chosen.sum((1, 2, 3), dtype=float)
    if not bool(light.all()):
        lost = ", ".join(str(i) for i in ids[light == 0][:8])
        raise ParameterError(f"masks: neurons {lost} have no voxel on the grid {tuple(shape)}: expected one or more for each")
    axes = [(np.arange(n) + 0.5) * v for n, v in zip(shape, grid_voxel_um, strict=True)]
    sums = [chosen.sum((2, 3)), chosen.sum((1, 3)), chosen.sum((1, 2))]
    centres = np.stack([part @ axis / light for part, axis in zip(sums, axes, strict=True)], axis=1)
    return MaskedPlaces(centres, chosen, ids)


def _nearest(
    array: np.ndarray,
    shape: tuple[int, int, int],
    grid_voxel_um: tuple[float, float, float],
    voxel_um: tuple[float, float, float] | None,
    diameter_um: float,
) -> np.ndarray:
    """The last three axes on the grid, each voxel with the value of the nearest one."""
    if on_grid("masks", array.shape[-3:], voxel_um, shape, grid_voxel_um, diameter_um):
        return array
    assert voxel_um is not None
    for place, (n, v, m, w) in enumerate(zip(array.shape[-3:], voxel_um, shape, grid_voxel_um, strict=True)):
        at = (np.arange(m) - (m - 1) / 2) * w / v + (n - 1) / 2
        array = np.take(array, np.clip(np.round(at).astype(int), 0, n - 1), axis=array.ndim - 3 + place)
    return array
