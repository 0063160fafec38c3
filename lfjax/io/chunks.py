"""Results of long runs, written chunk by chunk in time, so that a run resumes after any interruption.

Chunks go to a folder beside the result, whose name starts with a dot and ends with .partial; it takes the name of the result
when the last chunk is written. A chunk is one file (a Zarr shard), written under another name and renamed: it is whole or
missing. Its parts carry checksums, which a run that resumes verifies: a chunk that the disk has damaged is computed again.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.typing import ArrayLike

from lfjax._lazy import load
from lfjax.errors import FileError, StorageWarning, require
from lfjax.io.atomic import sync
from lfjax.io.chunk_store import (
    DamagedError,
    is_sound,
    make_group,
    mend_arrays,
    read_settings,
    remove_leftovers,
    shard_file,
    sync_shard,
    write_settings,
)
from lfjax.io.disk_space import free_bytes, in_words, on_disk
from lfjax.parallel import Process
from lfjax.progress import Steps

Layout = tuple[Mapping[str, tuple[int, ...]], Mapping[str, str], int, int]
PATIENCE_S = 24 * 3600.0  # longest wait for another process


class Chunks:
    """Arrays that share their first axis, time, as one Zarr group under construction.

    Attributes:
        path: folder of the finished result.
        frames: t, number of frames.
        size: frames per chunk.
        process: number of this process among several; they share the folder and take turns with the chunks.
        group: the Zarr group in the partial folder; after `finish`, open `path` instead.
        finished: whether the result was complete already, see `reuse`.
    """

    def __init__(
        self,
        path: str | Path,
        frames: int,
        size: int,
        arrays: Mapping[str, tuple[int, ...]],
        settings: Mapping[str, Any],
        process: Process | None = None,
        axes: Mapping[str, str] | None = None,
        *,
        reuse: bool = False,
    ) -> None:
        """Start a run, or resume an interrupted run of the same settings.

        Args:
            path: folder of the result; it must not exist yet, unless `reuse`.
            frames: t, number of frames.
            size: frames per chunk.
            arrays: name -> shape of the array at one frame; arrays are written as float32.
            settings: the settings that determine the result: numbers, texts and lists.
            process: from `parallel.join`. None: this process alone.
            axes: name -> letters of the array's axes, "tzyx" for example. None: unnamed axes.
            reuse: take a finished result of the same settings as it is; no chunk of it is missing.

        Raises:
            FileError: the result exists already, or an interrupted run had other settings.
            ParameterError: `frames` or `size` is less than 1.
        """
        require(frames >= 1, "frames", frames, "1 or more")
        require(size >= 1, "size", size, "1 or more frames per chunk")
        self.path, self.frames, self.size, self.process = Path(path), frames, size, process or Process()
        self.finished = reuse and self.path.exists()
        if self.path.exists() and not reuse:
            raise FileError(f"{self.path}: exists already; expected a new name, since results are not overwritten")
        partial = self.path.with_name(f".{self.path.name}.partial")
        self.folder = self.path if self.finished else partial
        wanted = json.loads(json.dumps({"frames": frames, "size": size, **settings}, default=list))
        make: Layout = (arrays, axes or {}, frames, size)
        self._frame_bytes = sum(4 * math.prod(shape) for shape in arrays.values())
        if self.finished:
            self._compare(wanted)
            self._open("r")
            broken = self._broken(range(len(self)))
            if not broken and not self.missing():
                return
            if self.process.processes > 1:
                raise FileError(f"{self.path}: {len(broken)} of {len(self)} chunks are damaged; expected sound ones: remove it")
            os.replace(self.path, partial)  # a run that lacks these chunks
            self.folder, self.finished = partial, False
        if self.process.number == 0:
            with on_disk(self.path, self.frames * self._frame_bytes):
                self._begin(make, wanted)
        _wait(lambda: self._settings() == wanted, f"{self.folder} of process 0")
        self._open("r+")
        there = set(range(len(self))) - set(self.missing())
        self._foreign = {k for k in there if not self.process.owns(k)}
        self._remove(self._broken(sorted(there - self._foreign)))

    def _open(self, mode: str) -> None:
        self.group = _zarr().open_group(self.folder, mode=mode)
        self._arrays: dict[str, Any] = dict(self.group.arrays())

    def _settings(self) -> Any:
        try:
            return read_settings(self.folder)
        except DamagedError:
            return None

    def _begin(self, make: Layout, wanted: dict[str, Any]) -> None:
        try:
            found = read_settings(self.folder)
        except DamagedError as error:
            found = None
            warnings.warn(f"{error}: the run of {self.path} begins anew", StorageWarning, stacklevel=4)
        if found is not None:
            self._compare(wanted)
            for name in mend_arrays(self.folder, *make):
                told = f"{self.folder / name}: the description of the array was damaged, and is written again"
                warnings.warn(told, StorageWarning, stacklevel=4)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        need, free = self.frames * self._frame_bytes, free_bytes(self.path)
        if free is not None and need > free:
            told = f"{self.path} needs up to {in_words(need)}, less where it can be compressed, and {in_words(free)} are free"
            warnings.warn(told, StorageWarning, stacklevel=4)
        try:
            write_settings(self.folder, make_group(self.folder, *make), wanted)
        except OSError:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _compare(self, wanted: dict[str, Any]) -> None:
        """Refuse the folder of a run with other settings."""
        try:
            found = read_settings(self.folder)
        except DamagedError as error:
            raise FileError(f"{error}; remove {self.folder} to begin anew") from error
        if not isinstance(found, dict):
            raise FileError(f"{self.folder}: exists already and is no result of this kind; expected a new name")
        other = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
        if other:
            differences = ", ".join(
                f"{name} = {_short(found.get(name))} there and {_short(wanted.get(name))} here" for name in other
            )
            raise FileError(f"{self.folder}: holds a run with other settings ({differences}); resume with those, or remove it")

    def __len__(self) -> int:
        return math.ceil(self.frames / self.size)

    def span(self, number: int) -> slice:
        """Frames of a chunk, as a slice."""
        return slice(number * self.size, min((number + 1) * self.size, self.frames))

    def missing(self) -> list[int]:
        """Numbers of the chunks that some array lacks."""
        return [k for k in range(len(self)) if not all(file.exists() for file in self._files(k))]

    def _files(self, number: int) -> list[Path]:
        return [shard_file(self.folder, name, array.ndim, number) for name, array in self._arrays.items()]

    def _broken(self, numbers: Iterable[int]) -> list[int]:
        """Numbers of the chunks, among those that are there, that do not fit their checksums."""
        there = [k for k in numbers if all(file.exists() for file in self._files(k))]
        return [k for k in there if not all(is_sound(array, self.span(k)) for array in self._arrays.values())]

    def _remove(self, broken: list[int]) -> None:
        """Remove damaged chunks, so that they are computed again."""
        for number in broken:
            for file in self._files(number):
                file.unlink(missing_ok=True)
        if broken:
            frames = ", ".join(f"{self.span(k).start} to {self.span(k).stop - 1}" for k in broken[:5])
            more = f", and {len(broken) - 5} more" * (len(broken) > 5)
            told = f"{len(broken)} of {len(self)} chunks are damaged (frames {frames}{more}) and are computed again"
            warnings.warn(f"{self.folder}: {told}", StorageWarning, stacklevel=3)

    def write(self, number: int, values: Mapping[str, np.ndarray]) -> None:
        """Write a chunk of every array.

        Raises:
            NoSpaceError: the disk is full; chunks that were written before stay.
        """
        span = self.span(number)
        with on_disk(self.path, (self.frames - span.start) * self._frame_bytes):
            for name, value in values.items():
                self._arrays[name][span] = np.asarray(value, np.float32)
            for file in self._files(number):
                if file.exists():
                    sync_shard(self.folder, file)

    def finish(self, attributes: Mapping[str, Any] | None = None) -> Path:
        """Give the folder its name and return it; of several processes, the first does so when all chunks are written.

        Raises:
            FileError: chunks are missing.
        """
        if self.finished:
            return self.path
        if self.process.number > 0:
            _wait(self.path.exists, f"{self.path} of process 0")
            return self.path
        if self.process.processes > 1:
            _wait(self._complete, f"all chunks of {self.folder}")
        left = self.missing()
        if left:
            raise FileError(f"{self.folder}: {len(left)} of {len(self)} chunks are missing; expected all of them")
        with on_disk(self.path):
            self.group.attrs.update(dict(attributes or {}))
            remove_leftovers(self.folder)
            sync(self.folder / "zarr.json")
            sync(self.folder)
        os.replace(self.folder, self.path)
        sync(self.path.parent)
        return self.path

    def _complete(self) -> bool:
        """Whether all chunks are there; those of other processes that an earlier run left are verified, once each."""
        if self.missing():
            return False
        self._foreign = set(self._broken(sorted(self._foreign)))
        return not self._foreign


def _short(value: Any) -> str:
    """A setting for messages; fingerprints are cut to their first digits."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:13]}...{text[-1]}"


def _zarr() -> Any:
    return load("zarr", "a result in chunks")


def _wait(ready: Callable[[], bool], what: str) -> None:
    """Wait until `ready()` holds; processes meet at their shared folder, so a run resumes after one dies, without a network."""
    begin = time.monotonic()
    while not ready():
        if time.monotonic() - begin > PATIENCE_S:
            raise FileError(f"{what}: missing after {PATIENCE_S:.0f} s; expected the other processes to be running")
        time.sleep(0.1)


@runtime_checkable
class Sliceable(Protocol):
    """Frames (t, y, x) that are read by slices, as `movies.Frames`."""

    def __getitem__(self, which: slice, /) -> Any: ...


@runtime_checkable
class Results(Protocol):
    """Where the results of chunks go: `Chunks`, or arrays in memory."""

    @property
    def size(self) -> int:
        """Frames per chunk."""
        ...

    @property
    def process(self) -> Process:
        """This process among several."""
        ...

    def missing(self) -> list[int]:
        """Numbers of the chunks that are not there."""
        ...

    def span(self, number: int) -> slice:
        """Frames of a chunk."""
        ...

    def write(self, number: int, values: Mapping[str, np.ndarray]) -> None:
        """Keep the results of a chunk."""
        ...


def stream(
    frames: Sliceable,
    chunks: Results,
    function: Callable[[np.ndarray], Mapping[str, ArrayLike]],
    *,
    track: Callable[[Iterable[int], str], Iterable[int]] | None = None,
    unit: str = "frames",
) -> None:
    """Run `function` on every missing chunk, while the next chunk is read and the previous one is written.

    At most three chunks are in memory, however long the movie. The last chunk is padded with its last frame, so that all calls
    have one shape and compile once; results of the padding are not written.

    Args:
        frames: (t, y, x), read by slices.
        chunks: the results.
        function: (size, y, x) -> name -> (size, ...); it depends on its chunk alone, so that order and interruptions do not
            matter.
        track: see `lfjax.progress.track`.
        unit: name of what the first axis counts, in the plural, for the progress line.

    Raises:
        FileError: frames or results hold NaN or infinity.
    """
    left = [number for number in chunks.missing() if chunks.process.owns(number)]

    def read(number: int) -> np.ndarray:
        block = np.asarray(frames[chunks.span(number)])
        _check(block, chunks.span(number), "frame", "finite numbers")
        short = chunks.size - len(block)
        return np.concatenate([block, np.repeat(block[-1:], short, axis=0)]) if short else block

    def write(number: int, results: Mapping[str, ArrayLike]) -> None:
        count = chunks.span(number).stop - chunks.span(number).start
        arrays = {name: np.asarray(value)[:count] for name, value in results.items()}
        for value in arrays.values():
            _check(value, chunks.span(number), "the result of frame", "finite numbers: check the solver's settings")
        chunks.write(number, arrays)

    def numbers() -> Iterator[int]:
        steps = Steps(left, chunks.size, unit)
        title = "movie" if unit == "frames" else unit
        yield from track(steps, f"{title}, {chunks.size} {unit} per step") if track else left

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = reader.submit(read, left[0]) if left else None
        written = None
        for place, number in enumerate(numbers()):
            block = ahead.result()  # type: ignore[union-attr]
            ahead = reader.submit(read, left[place + 1]) if place + 1 < len(left) else None
            results = function(block)
            if written is not None:
                written.result()
            written = writer.submit(write, number, results)
        if written is not None:
            written.result()


def _check(values: np.ndarray, span: slice, what: str, expected: str) -> None:
    if values.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
        if len(bad):
            raise FileError(f"{what} {span.start + bad[0]} holds NaN or infinity; expected {expected}")


def ome_attributes(
    name: str, axes: str, scale: tuple[float, ...], *, origin: tuple[float, ...] | None = None, path: str = "0"
) -> dict[str, Any]:
    """Metadata of OME-Zarr 0.5 for one array, from which napari and Fiji read its scale.

    Args:
        name: name of the image.
        axes: letters of its axes, out of "tczyx".
        scale: step along each axis, in seconds and micrometres.
        origin: position of the first element along each axis, in the same units. None: 0.
        path: path of the array in the group.
    """
    kinds = {"t": {"type": "time", "unit": "second"}, "c": {"type": "channel"}}
    moves: list[dict[str, Any]] = [{"type": "scale", "scale": list(scale)}]
    if origin is not None:
        moves.append({"type": "translation", "translation": list(origin)})
    space = {"type": "space", "unit": "micrometer"}
    return {
        "ome": {
            "version": "0.5",
            "multiscales": [
                {
                    "name": name,
                    "axes": [{"name": axis, **kinds.get(axis, space)} for axis in axes],
                    "datasets": [{"path": path, "coordinateTransformations": moves}],
                }
            ],
        }
    }
