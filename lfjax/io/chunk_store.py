"""The Zarr group under a run in chunks: made with checksums, and checked when a run resumes.

Every inner chunk and every index of a shard carries the CRC-32C of Zarr 3, the settings carry their SHA-256, and the
description of each array is compared with the one that the run itself would write. So damage of any byte is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lfjax._lazy import load
from lfjax.io.atomic import sync, writing

SETTINGS, DIGEST = "lfjax", "lfjax_sha256"


class DamagedError(Exception):
    """The description of a store cannot be read, or does not fit its checksum; the message tells what."""


def make_group(store: Any, arrays: Mapping[str, tuple[int, ...]], axes: Mapping[str, str], frames: int, size: int) -> Any:
    """A new group with its arrays, without settings.

    Args:
        store: folder, or a store of Zarr.
        arrays: name -> shape of the array at one frame.
        axes: name -> letters of the array's axes.
        frames: number of frames.
        size: frames per chunk.
    """
    codecs = load("zarr.codecs", "a result in chunks")
    group = load("zarr").create_group(store)
    for name, shape in arrays.items():
        group.create_array(
            name, shape=(frames, *shape), chunks=(1, *shape), shards=(size, *shape), dtype="float32",
            dimension_names=list(axes[name]) if name in axes else None,
            compressors=[codecs.ZstdCodec(), codecs.Crc32cCodec()],
            fill_value=np.nan,  # Zarr omits chunks that hold only this value, and a volume may be all zeros
        )  # fmt: skip
    return group


def write_settings(folder: Path, group: Any, settings: Mapping[str, Any]) -> None:
    """Store the settings of a run with their checksum; a folder that has them is complete but for chunks."""
    group.attrs.update({SETTINGS: settings, DIGEST: _digest(settings)})
    sync(folder / "zarr.json")
    sync(folder)


def read_settings(folder: Path) -> Any:
    """The settings of the run in a folder; None: there is none, or it was killed before it had written them.

    Raises:
        DamagedError: they cannot be read, or do not fit their checksum.
    """
    note = folder / "zarr.json"
    if not note.exists():
        return None
    try:
        attributes = json.loads(note.read_bytes())["attributes"]
        found, digest = attributes.get(SETTINGS), attributes.get(DIGEST)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{note} cannot be read") from error
    if (found, digest) != (None, None) and digest != _digest(found):
        raise DamagedError(f"{note} does not fit its checksum" if digest else f"{note} has no checksum")
    return found


def mend_arrays(
    folder: Path, arrays: Mapping[str, tuple[int, ...]], axes: Mapping[str, str], frames: int, size: int
) -> list[str]:
    """Write the descriptions of arrays again where they are not what this run would write; return their names."""
    wanted: dict[str, Any] = {}
    make_group(load("zarr.storage").MemoryStore(wanted), arrays, axes, frames, size)
    mended = []
    for name in arrays:
        note, right = folder / name / "zarr.json", wanted[f"{name}/zarr.json"].to_bytes()
        found = None
        with suppress(OSError, ValueError):
            found = json.loads(note.read_bytes())
        if found != json.loads(right):
            with writing(note) as temporary:
                temporary.write_bytes(right)
            mended.append(name)
    return mended


def shard_file(folder: Path, name: str, axes: int, number: int) -> Path:
    """The file of a chunk of an array with `axes` axes."""
    return folder / name / "c" / "/".join([str(number), *("0" for _ in range(axes - 1))])


def is_sound(array: Any, span: slice) -> bool:
    """Whether the frames of a chunk can be read and fit their checksums."""
    try:
        return bool(np.isfinite(array[span]).all())
    except MemoryError:
        raise
    except Exception:  # damage shows in many ways: a checksum, a length, an index beyond the file
        return False


def sync_shard(folder: Path, file: Path) -> None:
    """Wait until a chunk, and the names that lead to it, are on the disk."""
    for place in (file, *file.parents):
        sync(place)
        if place == folder:
            return


def remove_leftovers(folder: Path) -> None:
    """Remove the files that Zarr was writing when a process was killed."""
    for file in folder.rglob("*.partial"):
        file.unlink(missing_ok=True)


def _digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
