"""The neurons of a recording: positions, footprints, fluorescence and spikes, and their HDF5 file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Bool, Float

from lfjax.activity.fluorescence import has_baseline
from lfjax.errors import FileError, require, require_shape
from lfjax.io.arrays import reading
from lfjax.io.checked_numbers import finite_attribute
from lfjax.io.hdf5 import numbers
from lfjax.io.hdf5_attributes import Attributes
from lfjax.io.hdf5_file import new_hdf5

FORMAT = "lfjax neurons 2"
BEFORE = "lfjax neurons 1"  # without `valid` and `neuropil`


@dataclasses.dataclass(frozen=True, eq=False)
class Neurons:
    """Neurons of a recording, all arrays in the same order.

    Attributes:
        centres_um: (n, 3), (z, y, x) from the corner of the volume.
        footprints: (n, z, y, x), each of sum 1.
        fluorescence: (n, t), light of each neuron without neuropil.
        dff: (n, t).
        spikes: n arrays of times in seconds; an event of two spikes appears twice.
        frame_s: duration of a frame.
        voxel_um: voxel size (z, y, x).
        noise: (n,), standard deviation of the noise of a frame's dF/F.
        valid: (n,), whether dF/F is defined, see `has_baseline`; where it is not, dF/F is 0 and means nothing. None: found from
            the fluorescence.
        neuropil: (n, t), light of the neuropil around each neuron, in the unit of `fluorescence`; None: not known.
        filled: (t,), frames that are bad or missing in the recording: their values are interpolated, and they hold no spikes.
            None: no frame.
        z_um: depth of each plane of the footprints in micrometres. None: not known.
    """

    centres_um: Float[np.ndarray, "n 3"]
    footprints: Float[np.ndarray, "n z y x"]
    fluorescence: Float[np.ndarray, "n t"]
    dff: Float[np.ndarray, "n t"]
    spikes: list[Float[np.ndarray, " _"]]
    frame_s: float
    voxel_um: tuple[float, float, float]
    noise: Float[np.ndarray, " n"]
    valid: Bool[np.ndarray, " n"] = None  # type: ignore[assignment] # found below where it is not given
    neuropil: Float[np.ndarray, "n t"] | None = None
    filled: Bool[np.ndarray, " t"] | None = None
    z_um: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.valid is None:
            found = has_baseline(self.fluorescence, self.frame_s) if self.frame_s > 0 else np.ones(len(self), bool)
            object.__setattr__(self, "valid", found)

    def __len__(self) -> int:
        return len(self.centres_um)

    def check(self) -> Neurons:
        """Return self after checking that all arrays describe the same neurons.

        Raises:
            ShapeError: the shapes do not fit each other.
            ParameterError: a size or a duration is not positive.
        """
        n, t = np.shape(self.fluorescence)
        require_shape("centres_um", np.shape(self.centres_um), (n, 3))
        require_shape("footprints", np.shape(self.footprints), (n, "z", "y", "x"))
        require_shape("dff", np.shape(self.dff), (n, t))
        require_shape("noise", np.shape(self.noise), (n,))
        require_shape("valid", np.shape(self.valid), (n,))
        if self.neuropil is not None:
            require_shape("neuropil", np.shape(self.neuropil), (n, t))
        if self.filled is not None:
            require_shape("filled", np.shape(self.filled), (t,))
        require_shape("spikes", (len(self.spikes),), (n,))
        require(self.frame_s > 0, "frame_s", self.frame_s, "a positive number")
        require(len(self.voxel_um) == 3 and bool(min(self.voxel_um) > 0), "voxel_um", self.voxel_um, "three positive numbers")
        return self


def write_neurons(path: str | Path, neurons: Neurons) -> None:
    """Write neurons to HDF5: a dataset for each attribute of `Neurons`; spike times concatenated, with `spike_counts`.

    Raises:
        ShapeError: the shapes do not fit each other.
    """
    neurons.check()
    with new_hdf5(path) as file:
        file.attrs.update({"format": FORMAT, "frame_s": neurons.frame_s, "voxel_um": neurons.voxel_um})
        for name in ("centres_um", "fluorescence", "dff", "noise") + (() if neurons.neuropil is None else ("neuropil",)):
            file.create_dataset(name, data=np.asarray(getattr(neurons, name), np.float32))
        if neurons.z_um is not None:
            file.attrs["z_um"] = neurons.z_um
        if neurons.filled is not None:
            file.create_dataset("filled", data=np.asarray(neurons.filled, np.uint8))
        file.create_dataset("valid", data=np.asarray(neurons.valid, np.uint8))
        footprints = np.asarray(neurons.footprints, np.float32)
        chunks = (1, *footprints.shape[1:]) if len(footprints) else None
        file.create_dataset("footprints", data=footprints, chunks=chunks, compression="gzip" if chunks else None)
        file.create_dataset("spikes", data=np.concatenate([np.zeros(0), *neurons.spikes]))
        file.create_dataset("spike_counts", data=np.array([len(s) for s in neurons.spikes], np.int64))


def read_neurons(path: str | Path) -> Neurons:
    """Read a file of `write_neurons`, of this version or the one before; `valid` is then found from the fluorescence.

    Raises:
        FileError: the file is missing or broken, or holds other datasets.
    """
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        told = Attributes(path, file)
        version = told.get("format")
        if version not in (FORMAT, BEFORE):
            raise FileError(f"{path}: format {version!r}; expected {BEFORE!r} or {FORMAT!r}")
        axes = {"centres_um": "nx", "footprints": "nzyx", "fluorescence": "nt", "dff": "nt", "noise": "n"}
        parts = {name: numbers(path, file, name) for name in axes}
        for name, letters in axes.items():
            require_shape(name, parts[name].shape, tuple(letters))
        valid = numbers(path, file, "valid").astype(bool) if version == FORMAT else None
        neuropil = numbers(path, file, "neuropil") if "neuropil" in file else None
        filled = numbers(path, file, "filled").astype(bool) if "filled" in file else None
        times, counts = numbers(path, file, "spikes"), numbers(path, file, "spike_counts")
        if counts.sum() != len(times) or len(counts) != len(parts["noise"]):
            raise FileError(f"{path}: {len(times)} spikes of {len(counts)} neurons; expected as many as spike_counts says")
        spikes = np.split(times, np.cumsum(counts)[:-1]) if len(counts) else []
        z, y, x = finite_attribute(path, told, "voxel_um", positive=True, count=3)
        (frame_s,) = finite_attribute(path, told, "frame_s", positive=True, count=1)
        z_um = finite_attribute(path, told, "z_um") if "z_um" in told else None
        known = np.ones(len(counts), bool) if valid is None else valid
        found = Neurons(
            parts["centres_um"], parts["footprints"], parts["fluorescence"], parts["dff"], list(spikes), frame_s, (z, y, x),
            parts["noise"], known, neuropil, filled, z_um,
        ).check()  # fmt: skip
        return found if valid is not None else dataclasses.replace(found, valid=has_baseline(found.fluorescence, frame_s))
