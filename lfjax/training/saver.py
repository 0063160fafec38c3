"""Checkpoints and logs of one training run in one folder.

Beside each checkpoint of orbax, `checkpoint-STEP.json` holds the SHA-256 of its arrays, their shapes, and the log up to it. A
run resumes from the last checkpoint that fits its note; one that the disk has damaged is removed, and its steps are computed
again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from lfjax.errors import FileError, StorageWarning
from lfjax.io import writing
from lfjax.io.disk_space import on_disk, require_space
from lfjax.io.interrupts import uninterrupted
from lfjax.training.board import Board
from lfjax.training.steps import History, TrainState


class Saver:
    """Checkpoints and logs of one run in one folder."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        """Open the folder, or make it.

        Args:
            folder: the folder.
            settings: settings of the run, which its checkpoints depend on.

        Raises:
            FileError: the folder holds a run with different settings.
        """
        self.folder = folder
        note, text = folder / "settings.json", json.dumps(settings, indent=1, sort_keys=True, default=list)
        if note.exists() and note.read_text(encoding="utf-8") != text:
            raise FileError(f"{folder}: holds a run with different settings; expected an empty folder or the same settings")
        with writing(note) as temporary:
            temporary.write_text(text, encoding="utf-8")
        for file in folder.glob("checkpoint-*.json"):  # of a checkpoint that orbax has dropped, or never finished
            if not (folder / "checkpoints" / file.stem.partition("-")[2]).exists():
                file.unlink(missing_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
        checkpoints = (folder / "checkpoints").resolve()
        with _undisturbed():
            self.manager = ocp.CheckpointManager(checkpoints, options=options, item_handlers=ocp.StandardCheckpointHandler())
        self.board: Board | None = None
        self.logged = 0

    def restore(self, state: TrainState) -> tuple[TrainState, History]:
        """The last complete checkpoint and the log up to it; `state` and an empty log if there is none.

        Raises:
            FileError: the checkpoint holds other arrays than `state`, because the model is another one.
        """
        history: History = []
        for step in sorted(self.manager.all_steps(), reverse=True):
            found = self._read(step, state)
            if found is not None:
                state, history = found
                break
            told = f"{self.folder}: the checkpoint at step {step} is damaged; its steps are computed again"
            warnings.warn(told, StorageWarning, stacklevel=3)
            with _undisturbed():
                self.manager.delete(step)
        with on_disk(self.folder / "tensorboard"):
            self.board = Board(self.folder / "tensorboard", int(state.step))
        self.logged = len(history)
        return state, history

    def _read(self, step: int, state: TrainState) -> tuple[TrainState, History] | None:
        """State and log of a checkpoint; None: it is damaged.

        Raises:
            FileError: it holds other arrays than `state`.
        """
        note = self._note(step)
        if note is None:
            return None
        wanted, found = _arrays_by_name(state), {name: tuple(shape) for name, shape in note["shapes"].items()}
        for name in sorted({*wanted, *found}):
            shape = wanted[name].shape if name in wanted else "no such array"
            if found.get(name, "no such array") != shape:
                raise FileError(
                    f"{self.folder}: array {name} of the checkpoint at step {step} has shape "
                    f"{found.get(name, 'no such array')}; expected {shape}, as in this model"
                )
        try:
            with _undisturbed():
                kept = self.manager.restore(step, args=ocp.args.StandardRestore(wanted))
        except Exception:  # damage shows in many ways
            return None
        arrays = {name: np.asarray(kept[name]) for name in wanted}
        if _digest(arrays) != note["sha256"]:
            return None
        leaves = [jnp.asarray(arrays[name], a.dtype) for name, a in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(state), leaves), note["history"]

    def _note_file(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}.json"

    def _note(self, step: int) -> dict[str, Any] | None:
        """What is noted of a checkpoint; None: the note is missing or damaged."""
        try:
            digest, _, text = self._note_file(step).read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return None
        return json.loads(text) if hashlib.sha256(text.encode()).hexdigest() == digest else None

    def save(self, state: TrainState, history: History) -> None:
        """Write a checkpoint and the log; orbax writes to a temporary folder and renames it, so none is ever half written.

        Raises:
            NoSpaceError: the disk is full; the checkpoint before stays.
        """
        step, arrays = int(state.step), _arrays_by_name(state)
        place, size = self.folder / "checkpoints", sum(a.nbytes for a in arrays.values())
        require_space(place / str(step), size)
        shapes = {name: list(a.shape) for name, a in arrays.items()}
        text = json.dumps({"sha256": _digest(arrays), "shapes": shapes, "history": history}, indent=1)
        with _undisturbed():
            with on_disk(place / str(step), size):
                self.manager.save(step, args=ocp.args.StandardSave(arrays), force=True)
            with writing(self._note_file(step)) as temporary:
                temporary.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", encoding="utf-8")
        self.log(history)

    def log(self, history: Sequence[dict[str, float]]) -> None:
        """Write log.csv and log.json, and add the new rows to TensorBoard."""
        names = list(dict.fromkeys(name for row in history for name in row))
        with writing(self.folder / "log.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(history)
        with writing(self.folder / "log.json") as temporary:
            temporary.write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
        for row in history[self.logged :]:
            values = {name: value for name, value in row.items() if name != "step"}
            if self.board is not None:
                with on_disk(self.folder / "tensorboard"):
                    self.board.add(int(row["step"]), values)
        self.logged = len(history)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Orbax at work: to its end, and without lines and tracebacks about errors, which it raises as well."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with uninterrupted():
            yield
    finally:
        logger.setLevel(level)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape};".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _arrays_by_name(state: TrainState) -> dict[str, np.ndarray]:
    """The arrays of a state, each under its path: ".model.data_term.forward"."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
