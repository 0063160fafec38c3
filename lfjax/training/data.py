"""Training data: labelled pairs and unlabelled movies, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import h5py
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from lfjax.errors import FileError, ParameterError, require, require_shape
from lfjax.io import Movie, open_movie
from lfjax.io.arrays import reading
from lfjax.io.hdf5 import choose_dataset, require_values
from lfjax.io.hdf5_file import new_hdf5


@runtime_checkable
class Stored(Protocol):
    """An array of which parts are read: NumPy, JAX, an HDF5 dataset, a memory map."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ArrayLike: ...


class Batch(NamedTuple):
    """The samples of one step.

    Attributes:
        frames: (b, row, col), labelled light fields.
        volumes: (b, z, y, x), their labels.
        unlabelled: (c, row, col), unlabelled light fields.
        turns: (b + c,), number of the flip or transpose of each sample (`losses.dihedral`), which the device applies.
    """

    frames: Float[Array | np.ndarray, "b row col"]
    volumes: Float[Array | np.ndarray, "b z y x"]
    unlabelled: Float[Array | np.ndarray, "c row col"]
    turns: Int[Array | np.ndarray, " n"]


class TrainingSet(NamedTuple):
    """Labelled pairs and unlabelled movies: arrays, or HDF5 datasets and memory maps, which are read sample by sample.

    A batch is a pure function of (seed, step). No iterator has a state that a checkpoint would have to keep, and no loader
    library is needed.

    Attributes:
        frames: (n, row, col), photons.
        volumes: (n, z, y, x), in the same units: y ~ H x.
        movies: (t, row, col) each.
        cell_pixels: pixels (y, x) per lenslet.
        cell_voxels: voxels (y, x) per lenslet.
    """

    frames: Stored
    volumes: Stored
    movies: Sequence[Stored]
    cell_pixels: tuple[int, int]
    cell_voxels: tuple[int, int]

    def check(self) -> TrainingSet:
        """The set itself, after a check of its shapes.

        Raises:
            ShapeError: frames, volumes and movies do not match.
            ParameterError: a frame is not a whole number of lenslets.
        """
        n, rows, columns = self.frames.shape
        whole = rows % self.cell_pixels[0] == 0 and columns % self.cell_pixels[1] == 0
        require(whole, "frames", self.frames.shape, f"whole lenslets of {self.cell_pixels} pixels")
        sides = (s * side // p for s, side, p in zip(self.cell_voxels, (rows, columns), self.cell_pixels, strict=True))
        require_shape("volumes", self.volumes.shape, (n, "z", *sides))
        for movie in self.movies:
            require_shape("a movie", movie.shape, ("t", rows, columns))
        return self

    def batch(
        self,
        seed: int,
        step: int,
        labelled: int,
        unlabelled: int,
        *,
        crop: tuple[int, int] | None = None,
        turn: bool = True,
        superpose: float = 0.0,
    ) -> Batch:
        """The batch of a step.

        Args:
            seed: together with `step`, fixes the batch.
            step: number of the step.
            labelled: number of labelled samples, b.
            unlabelled: number of unlabelled samples, c; without movies there are none.
            crop: lenslets (Y, X) of a random window; None: the whole field.
            turn: whether to draw flips and transposes.
            superpose: fraction of labelled samples that are sums of two, frames and volumes alike. H is linear and sums of
                Poisson numbers are Poisson numbers, so a sum is a valid, denser sample.

        Raises:
            ParameterError: `crop` is larger than the field.
            FileError: a sample is not finite; the message names its dataset, file and number.
        """
        rng = np.random.default_rng((seed, step))
        frames: list[np.ndarray] = []
        volumes: list[np.ndarray] = []
        for _ in range(labelled):
            parts = 2 if superpose and rng.random() < superpose else 1
            pairs = [(int(rng.integers(len(self.frames))), self._window(rng, crop)) for _ in range(parts)]
            frames.append(
                np.sum([self._cut(_read(self.frames, "frames", i), at, crop, self.cell_pixels) for i, at in pairs], axis=0)
            )
            volumes.append(
                np.sum([self._cut(_read(self.volumes, "volumes", i), at, crop, self.cell_voxels) for i, at in pairs], axis=0)
            )
        others = []
        for _ in range(unlabelled if self.movies else 0):
            movie = self.movies[int(rng.integers(len(self.movies)))]
            frame = _read(movie, "frames of a movie", int(rng.integers(len(movie))))
            others.append(self._cut(frame, self._window(rng, crop), crop, self.cell_pixels))
        turns = rng.integers(0, 8 if turn else 1, labelled + len(others))
        empty = np.zeros((0, *frames[0].shape), np.float32)
        return Batch(_stack(frames), _stack(volumes), _stack(others) if others else empty, turns.astype(np.int32))

    def _window(self, rng: np.random.Generator, crop: tuple[int, int] | None) -> tuple[int, int]:
        field = (side // p for side, p in zip(self.frames.shape[1:], self.cell_pixels, strict=True))
        room = [0 if crop is None else n - c for n, c in zip(field, crop or (0, 0), strict=True)]
        require(min(room) >= 0, "crop", crop, "no more lenslets than the field has")
        return int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))

    @staticmethod
    def _cut(a: np.ndarray, at: tuple[int, int], crop: tuple[int, int] | None, cell: tuple[int, int]) -> np.ndarray:
        if crop is None:
            return a
        (y, x), (rows, columns) = ((p * c for p, c in zip(pair, cell, strict=True)) for pair in (at, crop))
        return a[..., y : y + rows, x : x + columns]


def _read(stored: Stored, name: str, number: int) -> np.ndarray:
    """One sample of an array or a dataset, which must be finite."""
    file = getattr(getattr(stored, "file", None), "filename", None)  # of an HDF5 dataset
    with nullcontext() if file is None else reading(file, "HDF5"):
        sample = np.asarray(stored[number], np.float32)
    if not np.isfinite(sample).all():
        place = ", ".join(str(path) for path in getattr(stored, "files", ())) or file or "memory"
        raise FileError(f"{place}: sample {number} of `{name}` has NaN or infinite values; expected finite ones")
    return sample


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    return np.stack(arrays).astype(np.float32)


def open_pairs(path: str | Path) -> tuple[Movie, h5py.Dataset]:
    """Labelled pairs from HDF5: datasets `frames` (n, row, col) and `volumes` (n, z, y, x), read as they are drawn.

    Raises:
        FileError: the file is missing or broken, or holds other datasets.
    """
    frames = open_movie(path, dataset="frames")
    with reading(path, "HDF5"):
        volumes = choose_dataset(path, h5py.File(path, "r"), "volumes")
        require_values(path, volumes)
    if volumes.ndim != 4 or len(volumes) != len(frames) or frames.missing:
        raise FileError(f"{path}: expected the datasets `frames` (n, row, col) and `volumes` (n, z, y, x), as many of each")
    return frames, volumes


def write_pairs(path: str | Path, frames: np.ndarray, volumes: np.ndarray) -> None:
    """Write labelled pairs in the format that `open_pairs` reads.

    Raises:
        ParameterError: the numbers of frames and volumes differ.
    """
    if len(frames) != len(volumes):
        raise ParameterError(f"volumes: {len(volumes)} volumes; expected {len(frames)}, one per frame")
    with new_hdf5(path, 4 * (np.size(frames) + np.size(volumes))) as file:
        file.create_dataset("frames", data=np.asarray(frames, np.float32), chunks=(1, *frames.shape[1:]))
        file.create_dataset("volumes", data=np.asarray(volumes, np.float32), chunks=(1, *volumes.shape[1:]))
