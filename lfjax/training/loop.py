"""The one loop of training: batches, steps, validation, logs, and checkpoints from which it goes on bit for bit."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh
from tensorboardX import SummaryWriter

from lfjax.errors import FileError, require
from lfjax.io import writing
from lfjax.linop import LinearOperator
from lfjax.models import PatchCritic, trainable
from lfjax.parallel import replicate, unreplicate
from lfjax.training.data import Batch, TrainingSet
from lfjax.training.steps import LossWeights, Training, TrainState, advance, shard_batch, start

LEAST_RMS = 1e-4  # of an array that moves in proportion to itself: arrays of zeros must move too


@dataclasses.dataclass(frozen=True)
class Options:
    """How to train.

    Attributes:
        steps: of the optimiser (with `accumulate`, of the accumulation).
        labelled: samples with a label in a batch.
        unlabelled: without.
        optimiser: "muon" for convolution kernels, whose moves it makes orthogonal, so that what H shows faintly is learned as
            fast as what it shows well, with Adam for all other arrays; or "adam" for all.
        learning_rate: warmed up over a twentieth of the steps and falling to a tenth as a cosine.
        relative: whether each array moves in proportion to its own root mean square, so that 0.01 is one per cent a step. The
            kernels of an unfolded network differ by orders of magnitude, since physics gives them their size; Adam's even steps
            would blow up the widest.
        critic_learning_rate: of the critic, constant.
        critic_width: see `models.PatchCritic`.
        clip: largest norm of a gradient.
        accumulate: batches whose gradients are averaged for one move.
        decay: of the moving average of the weights.
        precision: "float32", or "bfloat16" for the kernels of convolutions.
        crop: lenslets (Y, X) of random windows; the whole field if not given. H of the light-field loss has to be of this
            field.
        turn: whether to flip and transpose samples, which needs a mirror-symmetric PSF.
        superpose: share of labelled samples that are sums of two, see `TrainingSet.batch`.
        border: lenslets at each side that the light-field loss leaves out, since light from outside comes in there.
        validate_every: steps between validations.
        patience: validations without progress after which to stop; 0 never stops.
        checkpoint_every: steps between checkpoints.
        seed: fixes everything.
    """

    steps: int = 1000
    labelled: int = 2
    unlabelled: int = 2
    optimiser: str = "muon"
    learning_rate: float = 8e-3
    relative: bool = True
    critic_learning_rate: float = 2e-4
    critic_width: int = 16
    clip: float = 1.0
    accumulate: int = 1
    decay: float = 0.99
    precision: str = "float32"
    crop: tuple[int, int] | None = None
    turn: bool = True
    superpose: float = 0.0
    border: int = 0
    validate_every: int = 100
    patience: int = 0
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "labelled", "accumulate", "validate_every", "checkpoint_every", "critic_width"):
            value = getattr(self, name)
            require(isinstance(value, int) and value >= 1, name, value, "a whole number, 1 or more")
        for name in ("unlabelled", "border", "patience", "seed"):
            value = getattr(self, name)
            require(isinstance(value, int) and value >= 0, name, value, "a whole number, zero or more")
        for name in ("learning_rate", "critic_learning_rate", "clip"):
            value = getattr(self, name)
            require(isinstance(value, (int, float)) and 0 < value < math.inf, name, value, "a positive number")
        require(0 <= self.superpose <= 1, "superpose", self.superpose, "a share from 0 to 1")
        require(0 <= self.decay < 1, "decay", self.decay, "a fraction from 0 to below 1")
        require(self.optimiser in ("muon", "adam"), "optimiser", self.optimiser, "muon or adam")
        require(self.precision in ("float32", "bfloat16"), "precision", self.precision, "float32 or bfloat16")


class Fitted(NamedTuple):
    """A trained model.

    Attributes:
        model: with the averaged weights of the best validation, or of the last step where nothing was validated.
        history: one row a validation and one at the end: step, losses, and `score` where it was validated.
        state: the last state.
    """

    model: Any
    history: list[dict[str, float]]
    state: TrainState


def fit(
    model: Any,
    data: TrainingSet,
    *,
    op: LinearOperator | None = None,
    weights: LossWeights | None = None,
    options: Options | None = None,
    validate: Callable[[Any], float] | None = None,
    folder: str | Path | None = None,
    track: Callable[..., Any] | None = None,
    mesh: Mesh | None = None,
) -> Fitted:
    """Train a model; run the same call again after an interruption, and it goes on from the last checkpoint.

    Args:
        model: an Equinox module, light field -> volume; `FromNNX(network)` makes one of a Flax network.
        data: what to draw from.
        op: H or `models.LinearForwardNet`, for the losses that need one.
        weights: of the losses; the volume error alone if not given.
        options: see `Options`.
        validate: model -> score, lower is better; it decides which weights are kept, and when to stop early.
        folder: where log.csv, log.json, tensorboard/ and checkpoints/ go; nothing is written if not given.
        track: see `lfjax.progress.track`.
        mesh: devices over which the samples of each batch are spread, see `parallel.mesh`; None is the device at hand. It
            changes the weights by no more than rounding.

    Raises:
        ParameterError: a loss that needs H without H, or samples of a batch that cannot be spread evenly over the mesh.
        FileError: a folder that holds another run's checkpoints.
    """
    weights, options = weights or LossWeights(), options or Options()
    data.check()
    needs = weights.light_field or weights.equivariance or weights.noise_splitting
    require(not (needs and op is None), "op", op, "H or a surrogate: light-field, equivariance and splitting losses need it")
    others = options.unlabelled if weights.unlabelled and data.movies else 0
    for name, count in (("labelled", options.labelled), ("unlabelled", others)):
        size = 1 if mesh is None else mesh.size
        require(count % size == 0, name, count, f"a multiple of the {size} devices of the mesh")
    critic = PatchCritic(options.critic_width, rngs=nnx.Rngs(options.seed)) if weights.adversarial else None
    training = prepare(model, critic, data, op, weights, options)._replace(mesh=mesh)
    state = start(model, critic, training)
    history: list[dict[str, float]] = []
    saver: Saver | None = None
    if folder is not None:
        saver = Saver(Path(folder), {"weights": dataclasses.asdict(weights), "options": dataclasses.asdict(options)})
        state, history = saver.restore(state)
    state = replicate(state, mesh)
    first, waiting = int(state.step), _waiting(history)
    numbers = range(first, options.steps * options.accumulate)
    sums: dict[str, list[Any]] = {}
    for step, batch in _batches(data, options, others, mesh, track(numbers, "training") if track else numbers):
        if options.patience and waiting >= options.patience:
            break
        state, terms = advance(training, state, batch)
        for name, value in terms.items():
            sums.setdefault(name, []).append(value)
        done, last = step + 1, step + 1 == options.steps * options.accumulate
        if done % options.validate_every == 0 or last:
            row = {"step": float(done)} | {name: float(np.mean(values)) for name, values in sums.items()}
            sums = {}
            if validate is not None:
                row["score"] = float(validate(eqx.combine(unreplicate(state.average, mesh), training.fixed)))
                if row["score"] < float(state.best_score):
                    score = replicate(jnp.asarray(row["score"]), mesh)
                    state = state._replace(best=state.average, best_score=score)
            history.append(row)
            waiting = _waiting(history)
            if saver is not None:
                saver.log(history)
        stopping = options.patience > 0 and waiting >= options.patience
        if saver is not None and (done % options.checkpoint_every == 0 or last or stopping):
            saver.save(state, history)
    kept = state.best if validate is not None and math.isfinite(float(state.best_score)) else state.average
    return Fitted(eqx.combine(unreplicate(kept, mesh), training.fixed), history, state)


def prepare(
    model: Any, critic: nnx.Module | None, data: TrainingSet, op: LinearOperator | None, weights: LossWeights, options: Options
) -> Training:
    """Everything that does not change while training."""
    rows, columns = op.out_shape if op is not None else data.frames.shape[1:]
    mask = np.zeros((rows, columns), bool)
    (y, x) = (options.border * p for p in data.cell_pixels)
    mask[y : rows - y, x : columns - x] = True
    warm = max(options.steps // 20, 1)
    rate = optax.warmup_cosine_decay_schedule(0.0, options.learning_rate, warm, options.steps, options.learning_rate / 10)
    scale = [optax.scale_by_param_block_rms(LEAST_RMS)] if options.relative else []
    direction = muon() if options.optimiser == "muon" else optax.scale_by_adam()
    moves = (optax.clip_by_global_norm(options.clip), direction, *scale, optax.scale_by_learning_rate(rate))
    optimiser: Any = optax.chain(*moves)
    judge: Any = optax.adam(options.critic_learning_rate, b1=0.5)
    if options.accumulate > 1:
        optimiser = optax.MultiSteps(optimiser, options.accumulate).gradient_transformation()
    return Training(
        eqx.filter(model, trainable(model), inverse=True), None if critic is None else nnx.split(critic)[0], op,
        jnp.asarray(mask),
        data.cell_pixels, weights, optimiser, judge, options.decay, options.precision == "bfloat16", options.seed,
    )  # fmt: skip


def muon() -> optax.GradientTransformation:
    """Kernels (..., k, l, in, out) move orthogonally, as matrices of all they read by all they give; other arrays as in Adam.

    Moves of kernels have unit root mean square, as Adam's have nearly.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), as Optax has it.
    """

    def kernel(a: Any) -> optax.contrib.MuonDimensionNumbers:
        return optax.contrib.MuonDimensionNumbers(tuple(range(a.ndim - 4, a.ndim - 1)), (a.ndim - 1,))

    def unit(updates: Any, _: Any) -> Any:
        return jax.tree.map(lambda u: u * jax.lax.rsqrt(jnp.mean(u**2) + jnp.finfo(u.dtype).tiny), updates)

    orthogonal = optax.contrib.scale_by_muon(weight_dimension_numbers=lambda updates: jax.tree.map(kernel, updates))
    return optax.partition(
        {"kernels": optax.chain(orthogonal, optax.stateless(unit)), "others": optax.scale_by_adam()},
        lambda arrays: jax.tree.map(lambda a: "kernels" if a.ndim >= 4 else "others", arrays),
    )


def _batches(data: TrainingSet, options: Options, others: int, mesh: Mesh | None, numbers: Any) -> Iterator[tuple[int, Batch]]:
    """(step, batch), the next one being read while this one is used."""

    def read(step: int) -> Batch:
        draw = {"crop": options.crop, "turn": options.turn, "superpose": options.superpose}
        return shard_batch(data.batch(options.seed, step, options.labelled, others, **draw), mesh)  # type: ignore[arg-type]

    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for step in numbers:
            batch = waiting.result() if waiting is not None else read(step)
            waiting = pool.submit(read, step + 1)
            yield step, batch


def _waiting(history: list[dict[str, float]]) -> int:
    """Validations since the best."""
    scores = [row["score"] for row in history if "score" in row]
    return len(scores) - 1 - int(np.argmin(scores)) if scores else 0


class Saver:
    """Checkpoints and logs of one run in one folder."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Open the folder; a run of other settings in it is an error, since its checkpoints would not fit.

        Raises:
            FileError: the folder holds a run of other settings.
        """
        self.folder = folder
        note, text = folder / "settings.json", json.dumps(settings, indent=1, sort_keys=True, default=list)
        if note.exists() and note.read_text(encoding="utf-8") != text:
            raise FileError(f"{folder}: holds a run with other settings; expected an empty folder or the same run")
        with writing(note) as temporary:
            temporary.write_text(text, encoding="utf-8")
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
        self.manager = ocp.CheckpointManager((folder / "checkpoints").resolve(), options=options)
        self.board: SummaryWriter | None = None
        self.shown = 0

    def restore(self, state: TrainState) -> tuple[TrainState, list[dict[str, float]]]:
        """The last whole checkpoint, or the state given if there is none."""
        latest = self.manager.latest_step()
        history: list[dict[str, float]] = []
        if latest is not None:
            leaves, structure = jax.tree.flatten(state)
            template = {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
            kept = self.manager.restore(latest, args=ocp.args.StandardRestore(template))
            state = jax.tree.unflatten(structure, [jnp.asarray(kept[name], a.dtype) for name, a in template.items()])
            log = self.folder / "log.json"
            rows = json.loads(log.read_text(encoding="utf-8")) if log.exists() else []
            history = [row for row in rows if row["step"] <= latest]
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=latest or 0)
        self.shown = len(history)
        return state, history

    def save(self, state: TrainState, history: list[dict[str, float]]) -> None:
        """A checkpoint, whole or not there: orbax writes beside and renames."""
        leaves = {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
        self.manager.save(int(state.step), args=ocp.args.StandardSave(leaves), force=True)
        self.log(history)

    def log(self, history: list[dict[str, float]]) -> None:
        """log.csv, log.json and TensorBoard."""
        names = list(dict.fromkeys(name for row in history for name in row))
        with writing(self.folder / "log.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(history)
        with writing(self.folder / "log.json") as temporary:
            temporary.write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
        for row in history[self.shown :]:
            for name, value in row.items():
                if self.board is not None and name != "step":
                    self.board.add_scalar(name, value, int(row["step"]))
        self.shown = len(history)
        if self.board is not None:
            self.board.flush()
