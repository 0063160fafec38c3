"""A simulated movie as a folder of files, as a microscope would leave it, with the truth beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lfjax.io import write_frame, write_volume, writing
from lfjax.io.disk_space import require_space
from lfjax.io.hdf5_file import new_hdf5
from lfjax.progress import Steps
from lfjax.simulate.cortex_movie import BLOCK, RawMovie


def write_raw_movie(folder: str | Path, movie: RawMovie, *, track: Callable[..., Any] | None = None) -> None:
    """Write a simulated movie; the frames are simulated and written block by block, so that the memory does not grow with them.

    The folder holds `white.tif`, `dark.tif`, `structure.ome.tif`, `microscope.toml`, `truth.h5`, and last `raw.h5`: the dataset
    `frames` (t, row, col) with the attribute `frame_s`. Where `raw.h5` stands, the folder is complete.

    `truth.h5` has the attributes `frame_s` and `voxel_um` and the datasets of `Truth`; spike times are concatenated, with the
    number of each neuron in `spike_counts`, as in the file of `activity.Neurons`.

    Args:
        folder: folder to write to; it is made if it is missing.
        movie: from `raw_movie`.
        track: see `lfjax.progress.track`.

    Raises:
        NoSpaceError: the disk is full.
        OSError: a file cannot be written.
    """
    folder, shape = Path(folder), movie.frames.shape
    size = math.prod(shape) * movie.frames.dtype.itemsize
    require_space(folder / "raw.h5", size)
    write_frame(folder / "white.tif", movie.white)
    write_frame(folder / "dark.tif", movie.dark)
    write_volume(folder / "structure.ome.tif", movie.structure, movie.voxel_um)
    with writing(folder / "microscope.toml") as temporary:
        temporary.write_text(movie.microscope.to_toml(), encoding="utf-8")
    with new_hdf5(folder / "truth.h5") as file:
        file.attrs.update({"frame_s": movie.frame_s, "voxel_um": movie.voxel_um})
        truth = movie.truth._asdict()
        spikes = truth.pop("spikes")
        file.create_dataset("spikes", data=np.concatenate([np.zeros(0), *spikes]))
        file.create_dataset("spike_counts", data=np.array([len(s) for s in spikes], np.int64))
        for name, values in truth.items():
            options = {"chunks": (1, *values.shape[1:]), "compression": "gzip"} if name == "footprints" else {}
            file.create_dataset(name, data=values, **options)
    starts = Steps(range(0, len(movie.frames), BLOCK), BLOCK, "frames")
    with new_hdf5(folder / "raw.h5", size) as file:
        frames = file.create_dataset("frames", shape, movie.frames.dtype, chunks=(1, *shape[1:]))
        for attributes in (file.attrs, frames.attrs):
            attributes["frame_s"] = movie.frame_s
        for start in starts if track is None else track(starts, "frames"):
            frames[start : start + BLOCK] = movie.frames[start : start + BLOCK]
