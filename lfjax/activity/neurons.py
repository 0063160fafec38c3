"""The neurons of a recording: positions, footprints, fluorescence and spikes, and their HDF5 file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float

from lfjax.errors import FileError, require, require_shape
from lfjax.io import writing
from lfjax.io.arrays import reading
from lfjax.io.hdf5 import numbers

FORMAT = "lfjax neurons 1"


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
    """

    centres_um: Float[np.ndarray, "n 3"]
    footprints: Float[np.ndarray, "n z y x"]
    fluorescence: Float[np.ndarray, "n t"]
    dff: Float[np.ndarray, "n t"]
    spikes: list[Float[np.ndarray, " _"]]
    frame_s: float
    voxel_um: tuple[float, float, float]
    noise: Float[np.ndarray, " n"]

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
    with writing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": FORMAT, "frame_s": neurons.frame_s, "voxel_um": neurons.voxel_um})
        for name in ("centres_um", "fluorescence", "dff", "noise"):
            file.create_dataset(name, data=np.asarray(getattr(neurons, name), np.float32))
        footprints = np.asarray(neurons.footprints, np.float32)
        chunks = (1, *footprints.shape[1:]) if len(footprints) else None
        file.create_dataset("footprints", data=footprints, chunks=chunks, compression="gzip" if chunks else None)
        file.create_dataset("spikes", data=np.concatenate([np.zeros(0), *neurons.spikes]))
        file.create_dataset("spike_counts", data=np.array([len(s) for s in neurons.spikes], np.int64))


def read_neurons(path: str | Path) -> Neurons:
    """Read a file of `write_neurons`.

    Raises:
        FileError: the file is missing or broken, or holds other datasets.
    """
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        if file.attrs.get("format") != FORMAT:
            raise FileError(f"{path}: format {file.attrs.get('format')!r}; expected {FORMAT!r}")
        parts = {name: numbers(path, file, name) for name in ("centres_um", "footprints", "fluorescence", "dff", "noise")}
        times, counts = numbers(path, file, "spikes"), numbers(path, file, "spike_counts")
        if counts.sum() != len(times) or len(counts) != len(parts["noise"]):
            raise FileError(f"{path}: {len(times)} spikes of {len(counts)} neurons; expected as many as spike_counts says")
        spikes = np.split(times, np.cumsum(counts)[:-1]) if len(counts) else []
        voxel = tuple(float(v) for v in file.attrs["voxel_um"])
        frame_s = float(file.attrs["frame_s"])
    z, y, x = voxel
    return Neurons(**parts, spikes=list(spikes), frame_s=frame_s, voxel_um=(z, y, x)).check()
