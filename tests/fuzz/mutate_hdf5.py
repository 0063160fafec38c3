"""Mutations of HDF5 files by their structure: datasets, attributes, links, storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

Rng = np.random.Generator
OTHER_VALUES = (
    "abc", b"abc", np.nan, np.inf, -1.0, 0.0, 0, -1, 10**18, True, "[" * 3000, "line\nline", '{"a": NaN}', "",
    np.zeros(0), np.full(3, np.nan), np.arange(7.0), np.array([b"a", b"b"]), np.zeros((2, 3)), 1j,
)  # fmt: skip
TYPES = ("u1", "i1", ">i2", "f2", "f4", "f8", "c8", "S5", "bool", [("a", "f4"), ("b", "i2")], h5py.string_dtype())


def _dataset(file: h5py.File, rng: Rng) -> h5py.Dataset | None:
    found: list[h5py.Dataset] = []
    file.visititems(lambda name, node: found.append(node) if isinstance(node, h5py.Dataset) else None)
    return found[rng.integers(len(found))] if found else None


def _on_dataset(change: Callable[[h5py.File, h5py.Dataset, str, Rng, Path], str]) -> Callable[[Path, Rng], str]:
    def mutate(path: Path, rng: Rng) -> str:
        with h5py.File(path, "a") as file:
            dataset = _dataset(file, rng)
            if dataset is None:
                return "no dataset"
            return f"{dataset.name}: {change(file, dataset, dataset.name, rng, path)}"

    return mutate


def _replace(file: h5py.File, dataset: h5py.Dataset, **made: object) -> None:
    """Another dataset of the same name and attributes."""
    name, kept = dataset.name, dict(dataset.attrs)
    del file[name]
    file.create_dataset(name, **made).attrs.update(kept)


def values(file: h5py.File, dataset: h5py.Dataset, name: str, rng: Rng, path: Path) -> str:
    """NaN, infinity, a huge or a negative number among the values."""
    array, wrong = dataset[()], (np.nan, np.inf, -1.0, 1e30)[rng.integers(4)]
    if not array.size or array.dtype.kind not in "uif":
        return "nothing to change"
    if array.dtype.kind != "f":
        wrong = (0, np.iinfo(array.dtype).max, np.iinfo(array.dtype).min)[rng.integers(3)]
    flat = np.ravel(array).copy()
    flat[rng.integers(flat.size)] = wrong
    dataset[...] = flat.reshape(array.shape)
    return f"a value is {wrong}"


def kind(file: h5py.File, dataset: h5py.Dataset, name: str, rng: Rng, path: Path) -> str:
    """Values of another type."""
    other = TYPES[rng.integers(len(TYPES))]
    _replace(file, dataset, shape=dataset.shape, dtype=other)
    return f"of type {other}"


def shape(file: h5py.File, dataset: h5py.Dataset, name: str, rng: Rng, path: Path) -> str:
    """Fewer or more axes, none, an empty one, or another length."""
    array, choice = dataset[()], int(rng.integers(5))
    if array.ndim == 0:
        choice = 4
    made = (lambda: array[0], lambda: array[..., None], lambda: array[:0], lambda: array[:-1], lambda: np.ravel(array)[0])
    _replace(file, dataset, data=made[choice]())
    return ("without its first axis", "with one more axis", "empty", "shorter", "a scalar")[choice]


def huge(file: h5py.File, dataset: h5py.Dataset, name: str, rng: Rng, path: Path) -> str:
    """A shape of gigabytes, of which nothing, or one chunk, was ever written."""
    side, ndim = (30000, 2**20, 2**40)[rng.integers(3)], max(dataset.ndim, 1)
    wanted = (*dataset.shape[: max(ndim - 2, 0)], *(side,) * min(ndim, 2))
    dtype = dataset.dtype if dataset.dtype.kind in "uif" else np.float32
    partly = rng.random() < 0.5 and side <= 2**20
    _replace(file, dataset, shape=wanted, dtype=dtype, chunks=(1,) * (ndim - 1) + (64,) if partly else None)
    if partly:
        file[name][(0,) * ndim] = 1
    return f"of shape {wanted}, {'one chunk' if partly else 'nothing'} written"


def unwritten(file: h5py.File, dataset: h5py.Dataset, name: str, rng: Rng, path: Path) -> str:
    """The right shape, but nothing, or only one chunk, was ever written."""
    partly = rng.random() < 0.5 and dataset.ndim > 0 and dataset.shape[0] > 1
    made = {"chunks": (1, *dataset.shape[1:])} if partly else {}
    _replace(file, dataset, shape=dataset.shape, dtype=dataset.dtype, **made)
    if partly:
        file[name][0] = 1
    return "one chunk written" if partly else "never written"


def bomb(file: h5py.File, dataset: h5py.Dataset, name: str, rng: Rng, path: Path) -> str:
    """Megabytes of one value in a few kilobytes."""
    _replace(file, dataset, data=np.ones((2000, 4000), np.uint8), compression="gzip", chunks=(500, 4000))
    return "8 MB of ones"


def renamed(file: h5py.File, dataset: h5py.Dataset, name: str, rng: Rng, path: Path) -> str:
    """The name is another, or missing, or a group's."""
    choice = int(rng.integers(3))
    file.move(name, f"{name}_other")
    if choice:
        del file[f"{name}_other"]
    if choice == 2:
        file.create_group(name)
    return ("renamed", "missing", "a group")[choice]


def linked(file: h5py.File, dataset: h5py.Dataset, name: str, rng: Rng, path: Path) -> str:
    """A link to itself, to nothing, into another file, or values that lie in another file."""
    choice = int(rng.integers(6))
    other, where = path.with_name("other.h5"), dataset.shape or (1,)
    dtype = dataset.dtype if dataset.dtype.kind in "uif" else np.dtype("f4")
    kept = dict(dataset.attrs)
    del file[name]
    if choice == 0:
        file[name] = h5py.SoftLink(name)
    elif choice == 1:
        file[name] = h5py.SoftLink("/nowhere")
    elif choice == 2:
        with h5py.File(other, "w") as there:
            there.create_dataset("d", data=np.ones(where, dtype))
        file[name] = h5py.ExternalLink("other.h5", "d")
    elif choice == 3:
        file.create_dataset(name, where, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]).attrs.update(kept)
    else:
        layout = h5py.VirtualLayout(where, dtype)
        layout[...] = h5py.VirtualSource("missing.h5" if choice == 4 else "/etc/hosts", "d", where)
        file.create_virtual_dataset(name, layout)
        file[name].attrs.update(kept)
    kinds = ("a link to itself", "a link to nothing", "an external link", "external storage", "virtual", "virtual, elsewhere")
    return kinds[choice]


def attribute(path: Path, rng: Rng) -> str:
    """An attribute is missing or says something else."""
    with h5py.File(path, "a") as file:
        dataset = _dataset(file, rng)
        holders = [node for node in (file, dataset) if node is not None and len(node.attrs)]
        if not holders:
            return "no attribute"
        holder = holders[rng.integers(len(holders))]
        name = sorted(holder.attrs)[rng.integers(len(holder.attrs))]
        if rng.random() < 0.15:
            del holder.attrs[name]
            return f"attribute {name} missing"
        text = holder.attrs[name]
        if isinstance(text, str) and text.startswith("{") and rng.random() < 0.7:
            from tests.fuzz.mutate import word

            data = bytearray(text.encode())
            told = word(data, rng)
            holder.attrs[name] = data.decode("utf-8", "replace").replace("\0", " ")
            return f"attribute {name}: {told}"
        value = OTHER_VALUES[rng.integers(len(OTHER_VALUES))]
        holder.attrs[name] = value
        return f"attribute {name} is {str(value)[:30]!r}"


MUTATIONS = (*(_on_dataset(one) for one in (values, kind, shape, huge, unwritten, bomb, renamed, linked)), attribute)
