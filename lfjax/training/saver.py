"""Checkpoints and logs of one training run in one folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from tensorboardX import SummaryWriter

from lfjax.errors import FileError
from lfjax.io import writing
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
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
        checkpoints = (folder / "checkpoints").resolve()
        self.manager = ocp.CheckpointManager(checkpoints, options=options, item_handlers=ocp.StandardCheckpointHandler())
        self.board: SummaryWriter | None = None
        self.logged = 0

    def restore(self, state: TrainState) -> tuple[TrainState, History]:
        """The last complete checkpoint and the log up to it; `state` and an empty log if there is none.

        Raises:
            FileError: the checkpoint holds other arrays than `state`, because the model is another one.
        """
        latest = self.manager.latest_step()
        history: History = []
        if latest is not None:
            state = self._read(latest, state)
            log = self.folder / "log.json"
            rows = json.loads(log.read_text(encoding="utf-8")) if log.exists() else []
            history = [row for row in rows if row["step"] <= latest]
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=latest or 0)
        self.logged = len(history)
        return state, history

    def _read(self, step: int, state: TrainState) -> TrainState:
        wanted = _arrays_by_name(state)
        found = {name: tuple(kept.shape) for name, kept in self.manager.item_metadata(step).items()}
        for name in sorted({*wanted, *found}):
            shape = wanted[name].shape if name in wanted else "no such array"
            if found.get(name, "no such array") != shape:
                raise FileError(
                    f"{self.folder}: array {name} of the checkpoint at step {step} has shape "
                    f"{found.get(name, 'no such array')}; expected {shape}, as in this model"
                )
        kept = self.manager.restore(step, args=ocp.args.StandardRestore(wanted))
        return jax.tree.unflatten(jax.tree.structure(state), [jnp.asarray(kept[name], a.dtype) for name, a in wanted.items()])

    def save(self, state: TrainState, history: History) -> None:
        """Write a checkpoint and the log; orbax writes to a temporary folder and renames it, so none is ever half written."""
        self.manager.save(int(state.step), args=ocp.args.StandardSave(_arrays_by_name(state)), force=True)
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
            for name, value in row.items():
                if self.board is not None and name != "step":
                    self.board.add_scalar(name, value, int(row["step"]))
        self.logged = len(history)
        if self.board is not None:
            self.board.flush()


def _arrays_by_name(state: TrainState) -> dict[str, np.ndarray]:
    """The arrays of a state, each under its path: ".model.data_term.forward"."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
