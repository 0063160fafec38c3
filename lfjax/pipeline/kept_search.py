"""A search for unknown poses on disk, so that it resumes after any interruption: one HDF5 file, whole or not there.

The file `.NAME.abinitio.h5` beside the result NAME.mrc holds the state after the last pass and the settings of the run. It is
replaced after every pass under a temporary name, read without running code from it, and removed when the results are written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np

from lfjax.errors import FileError
from lfjax.io.arrays import reading
from lfjax.io.hdf5 import choose_dataset, numbers, read_values
from lfjax.io.hdf5_attributes import Attributes
from lfjax.io.hdf5_file import new_hdf5
from lfjax.tomography import Estimate, Pass, Poses, State

FORMAT = "lfjax search for poses 2"


class KeptSearch:
    """The file of one search.

    Attributes:
        path: the file.
        settings: the settings that determine the result.
    """

    def __init__(self, output: str | Path, settings: Mapping[str, Any]) -> None:
        """Name the file of a result; nothing is read or written.

        Args:
            output: the result, such as NAME.mrc.
            settings: numbers, texts and lists: digests of the inputs, and the options.
        """
        output = Path(output)
        self.path = output.with_name(f".{output.stem}.abinitio.h5")
        self.settings = json.loads(json.dumps(dict(settings), default=list))

    def state(self, *, replace: bool = False) -> State | None:
        """The state that an interrupted run of the same settings left; None: there is none.

        Args:
            replace: begin anew where the run had other settings.

        Raises:
            FileError: the run had other settings, or the file is no such run.
        """
        if not self.path.exists():
            return None
        try:
            there, state = self._read()
            self._compare(there)
        except FileError:
            if replace:
                return None
            raise
        return state

    def check(self) -> None:
        """Read the file, if there is one, whatever its settings: before the images are read.

        Raises:
            FileError: it is no search, or not all of one.
        """
        if self.path.exists():
            self._read()

    def keep(self, state: State) -> None:
        """Replace the file by one that holds this state."""
        rest = {
            "done": state.done, "near": state.near, "evidence": state.evidence,
            "history": [passed._asdict() for passed in state.history],
        }  # fmt: skip
        with new_hdf5(self.path) as file:
            file.attrs["format"] = FORMAT
            for name, value in (("settings", self.settings), ("rest", rest)):
                file.create_dataset(name, data=np.frombuffer(json.dumps(value).encode(), np.uint8))
            estimate, poses = state.leader
            for name, tree in (
                ("estimate", state.estimate), ("poses", state.poses), ("leader/estimate", estimate), ("leader/poses", poses),
            ):  # fmt: skip
                for field in dataclasses.fields(tree):
                    file.create_dataset(f"{name}/{field.name}", data=np.asarray(getattr(tree, field.name)))
            file.attrs["sha256"] = _digest(file, lambda name: file[name][()])

    def remove(self) -> None:
        """Remove the file: the results are written."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Any], State]:
        """The settings and the state that the file holds."""
        try:
            with reading(self.path, "HDF5"), h5py.File(self.path, "r") as file:
                told = Attributes(self.path, file)
                if told.get("format") != FORMAT:
                    raise FileError(f"{self.path}: format {told.get('format')!r}; expected {FORMAT!r}")
                if told.get("sha256") != _digest(
                    file, lambda name: read_values(self.path, choose_dataset(self.path, file, name))
                ):
                    raise FileError(f"{self.path}: damaged, its checksum does not fit")
                there, rest = (json.loads(numbers(self.path, file, name).tobytes()) for name in ("settings", "rest"))

                def tree(kind: type[Any], name: str, of: Any) -> Any:
                    fields = [field.name for field in dataclasses.fields(kind)]
                    return kind(**{field: of(numbers(self.path, file, f"{name}/{field}")) for field in fields})

                found = {
                    name: (tree(Estimate, f"{name}estimate", jnp.asarray), tree(Poses, f"{name}poses", np.asarray))
                    for name in ("", "leader/")
                }
                history = tuple(Pass(**passed) for passed in rest["history"])
                state = State(rest["done"], rest["near"], *found[""], found["leader/"], tuple(rest["evidence"]), history)
                return dict(there), state
        except FileError as error:
            raise FileError(f"{error}: remove this file, or begin anew with --overwrite") from error

    def _compare(self, there: dict[str, Any]) -> None:
        """Refuse a search of other settings; of other images only where no setting makes them so."""
        names = sorted({*there, *self.settings})
        other = [name for name in names if there.get(name) != self.settings.get(name)]
        if other == ["inputs"]:
            told, advice = "of other images or optics", "give those of that run"
        else:
            values = {name: (_short(there.get(name)), _short(self.settings.get(name))) for name in other if name != "inputs"}
            told = f"with other settings ({', '.join(f'{n} = {a} there and {b} here' for n, (a, b) in values.items())})"
            advice = "resume with those"
        if other:
            raise FileError(f"{self.path}: holds an interrupted search {told}; {advice}, or begin anew with --overwrite")


def _digest(file: h5py.File, read: Callable[[str], np.ndarray]) -> str:
    """SHA-256 of all datasets; links are not followed."""
    found = hashlib.sha256()

    def add(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset):
            found.update(f"{name} {node.dtype.str} {node.shape};".encode() + np.asarray(read(name), node.dtype).tobytes())

    file.visititems(add)
    return found.hexdigest()


def _short(value: Any) -> str:
    """A setting for messages; digests are cut to their first digits."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:13]}...{text[-1]}"
