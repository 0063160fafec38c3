"""A search for unknown poses on disk, so that it resumes after any interruption: one HDF5 file, whole or not there.

The file `.NAME.abinitio.h5` beside the result NAME.mrc holds the state after the last pass and the settings of the run. It is
replaced after every pass under a temporary name, read without running code from it, and removed when the results are written.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np

from lfjax.errors import FileError
from lfjax.io.arrays import reading
from lfjax.io.atomic import writing
from lfjax.io.hdf5 import numbers
from lfjax.tomography import Estimate, Pass, Poses, State

FORMAT = "lfjax search for poses 1"


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
            return self._read()
        except FileError:
            if replace:
                return None
            raise

    def keep(self, state: State) -> None:
        """Replace the file by one that holds this state."""
        rest = {
            "done": state.done, "near": state.near, "evidence": state.evidence,
            "history": [passed._asdict() for passed in state.history],
        }  # fmt: skip
        with writing(self.path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format"] = FORMAT
            for name, value in (("settings", self.settings), ("rest", rest)):
                file.create_dataset(name, data=np.frombuffer(json.dumps(value).encode(), np.uint8))
            estimate, poses = state.leader
            for name, tree in (
                ("estimate", state.estimate), ("poses", state.poses), ("leader/estimate", estimate), ("leader/poses", poses),
            ):  # fmt: skip
                for field in dataclasses.fields(tree):
                    file.create_dataset(f"{name}/{field.name}", data=np.asarray(getattr(tree, field.name)))

    def remove(self) -> None:
        """Remove the file: the results are written."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> State:
        with reading(self.path, "HDF5"), h5py.File(self.path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise FileError(f"{self.path}: format {file.attrs.get('format')!r}; expected {FORMAT!r}, or no such file")
            try:
                there, rest = (json.loads(numbers(self.path, file, name).tobytes()) for name in ("settings", "rest"))
            except ValueError as error:
                raise FileError(f"{self.path}: no settings can be read ({error}); remove the file to begin anew") from error
            self._compare(there)

            def tree(kind: type[Any], name: str, of: Any) -> Any:
                fields = [field.name for field in dataclasses.fields(kind)]
                return kind(**{field: of(numbers(self.path, file, f"{name}/{field}")) for field in fields})

            found = {
                name: (tree(Estimate, f"{name}estimate", jnp.asarray), tree(Poses, f"{name}poses", np.asarray))
                for name in ("", "leader/")
            }
        history = tuple(Pass(**passed) for passed in rest["history"])
        return State(rest["done"], rest["near"], *found[""], found["leader/"], tuple(rest["evidence"]), history)

    def _compare(self, there: Any) -> None:
        names = sorted({*there, *self.settings})
        other = [name for name in names if there.get(name) != self.settings.get(name)]
        if other:
            told = ", ".join(f"{n} = {_short(there.get(n))} there and {_short(self.settings.get(n))} here" for n in other)
            advice = "resume with those, or begin anew with --overwrite"
            raise FileError(f"{self.path}: holds an interrupted search with other settings ({told}); {advice}")


def _short(value: Any) -> str:
    """A setting for messages; digests are cut to their first digits."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:13]}...{text[-1]}"
