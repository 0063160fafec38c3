"""The training loop for all models: batches, steps, validation, logs, and checkpoints that a killed run resumes bit for bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from lfjax._lazy import load
from lfjax.errors import require
from lfjax.io.lock import locked
from lfjax.linop import LinearOperator
from lfjax.models import PatchCritic, trainable
from lfjax.parallel import replicate, unreplicate
from lfjax.training.data import Batch, TrainingSet
from lfjax.training.steps import History, LossWeights, Training, TrainState, advance, shard_batch, start

if TYPE_CHECKING:
    from lfjax.training.saver import Saver

LEAST_RMS = 1e-4  # least root mean square by which relative moves are scaled: arrays of zeros must move too


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of a training run.

    Attributes:
        steps: number of updates of the model.
        labelled: labelled samples per batch.
        unlabelled: unlabelled samples per batch.
        optimiser: "muon": convolution kernels move orthogonally, so that components which H shows faintly are learned as fast
            as those it shows well, and all other arrays move by Adam; "adam": all arrays move by Adam.
        learning_rate: highest learning rate; it rises over the first twentieth of the steps and falls to a tenth as a cosine.
        relative: whether each array moves in proportion to its own root mean square, so that a learning rate of 0.01 is one per
            cent per step. Physics gives the kernels of an unfolded network sizes that differ by orders of magnitude, and equal
            steps of Adam would blow up the widest.
        critic_learning_rate: learning rate of the critic, constant.
        critic_width: see `models.PatchCritic`.
        clip: largest norm of a gradient; longer ones are scaled down.
        accumulate: batches whose gradients are averaged for one update.
        decay: decay of the moving average of the weights per step.
        precision: "float32", or "bfloat16" for the kernels of convolutions.
        crop: lenslets (Y, X) of random windows; None: the whole field. The H of the light-field losses must have this field.
        turn: whether to flip and transpose samples, which needs a mirror-symmetric PSF.
        superpose: fraction of labelled samples that are sums of two, see `TrainingSet.batch`.
        border: lenslets on each side that the light-field losses leave out, because light from outside the field enters there.
        validate_every: batches between validations.
        patience: validations without improvement after which training stops; 0: it never stops early.
        checkpoint_every: batches between checkpoints.
        seed: fixes the random numbers.
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
        model: the model with the averaged weights of the best validation, or of the last step if nothing was validated.
        history: one row per validation and one at the end: step, losses, and `score` where it was validated.
        state: the last state.
    """

    model: PyTree
    history: History
    state: TrainState


def fit(
    model: PyTree,
    data: TrainingSet,
    *,
    op: LinearOperator | None = None,
    weights: LossWeights | None = None,
    options: Options | None = None,
    validate: Callable[[PyTree], float] | None = None,
    folder: str | Path | None = None,
    track: Callable[[Iterable[int], str], Iterable[int]] | None = None,
    mesh: Mesh | None = None,
) -> Fitted:
    """Train a model. Called again with the same arguments after an interruption, it resumes from the last checkpoint.

    Args:
        model: an Equinox module, light field -> volume; `FromNNX(network)` turns a Flax network into one.
        data: samples to draw from.
        op: H or `models.LinearForwardNet`, for the losses that need one.
        weights: weights of the losses; None: the volume error alone.
        options: settings; None: `Options()`.
        validate: model -> score, lower is better; the score selects the weights that are returned, and stops training early.
        folder: folder for log.csv, log.json, tensorboard/ and checkpoints/; None: nothing is written.
        track: see `lfjax.progress.track`.
        mesh: devices over which the samples of each batch are spread, see `parallel.mesh`; None: the default device. The mesh
            changes the weights by no more than rounding.

    Raises:
        ParameterError: a loss needs H and `op` is None, or the samples of a batch cannot be spread evenly over the mesh.
        FileError: the folder holds a run with different settings or of a different model.
        BusyError: another process trains in this folder.
        NoSpaceError: the disk is full; the checkpoint before stays, and the same call resumes.
    """
    weights, options = weights or LossWeights(), options or Options()
    data.check()
    needs = weights.light_field or weights.equivariance or weights.noise_splitting
    require(not (needs and op is None), "op", op, "H or a surrogate: light-field, equivariance and splitting losses need it")
    others = options.unlabelled if weights.unlabelled and data.movies else 0
    for name, count in (("labelled", options.labelled), ("unlabelled", others)):
        size = 1 if mesh is None else mesh.size
        require(count % size == 0, name, count, f"a multiple of the {size} devices of the mesh")
    critic = new_critic(options.critic_width, options.seed) if weights.adversarial else None
    training = prepare(model, critic, data, op, weights, options)._replace(mesh=mesh)
    state = start(model, critic, training)
    history: History = []
    with nullcontext() if folder is None else locked(folder):
        saver: Saver | None = None
        if folder is not None:
            settings = {"weights": dataclasses.asdict(weights), "options": dataclasses.asdict(options)}
            saver = load("lfjax.training.saver").Saver(Path(folder), settings)
            state, history = saver.restore(state)
        state = replicate(state, mesh)
        waiting, end = _waiting(history), options.steps * options.accumulate
        remaining = range(int(state.step), end)
        losses: dict[str, list[Array]] = {}
        for step, batch in _batches(data, options, others, mesh, track(remaining, "training") if track else remaining):
            if options.patience and waiting >= options.patience:
                break
            state, terms = advance(training, state, batch)
            for name, value in terms.items():
                losses.setdefault(name, []).append(value)
            done, last = step + 1, step + 1 == end
            if done % options.validate_every == 0 or last:
                row = {"step": float(done)} | {name: float(np.mean(values)) for name, values in losses.items()}
                losses = {}
                if validate is not None:
                    row["score"] = float(validate(eqx.combine(unreplicate(state.average, mesh), training.fixed)))
                    if row["score"] < float(state.best_score):
                        score = replicate(jnp.asarray(row["score"], state.best_score.dtype), mesh)
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
    model: PyTree,
    critic: nnx.Module | None,
    data: TrainingSet,
    op: LinearOperator | None,
    weights: LossWeights,
    options: Options,
) -> Training:
    """Everything that does not change while training."""
    rows, columns = op.out_shape if op is not None else data.frames.shape[1:]
    mask = np.zeros((rows, columns), bool)
    (y, x) = (options.border * p for p in data.cell_pixels)
    mask[y : rows - y, x : columns - x] = True
    return Training(
        fixed=eqx.filter(model, trainable(model), inverse=True),
        critic=None if critic is None else nnx.split(critic)[0],
        op=op,
        mask=jnp.asarray(mask),
        cell_pixels=data.cell_pixels,
        weights=weights,
        optimiser=model_optimiser(
            options.optimiser, options.learning_rate, options.steps, options.relative, options.clip, options.accumulate
        ),
        critic_optimiser=critic_optimiser(options.critic_learning_rate),
        decay=options.decay,
        half=options.precision == "bfloat16",
        key=jax.random.key(options.seed),
    )


@lru_cache
def model_optimiser(
    name: str, learning_rate: float, steps: int, relative: bool, clip: float, accumulate: int
) -> optax.GradientTransformation:
    """The optimiser of the model, see `Options`.

    Equal arguments give the same object, so that runs which differ in nothing else share the compiled `steps.advance`.
    """
    warm = max(steps // 20, 1)
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warm, max(steps, warm + 1), learning_rate / 10)
    scale = [optax.scale_by_param_block_rms(LEAST_RMS)] if relative else []
    direction = muon() if name == "muon" else optax.scale_by_adam()
    optimiser = optax.chain(optax.clip_by_global_norm(clip), direction, *scale, optax.scale_by_learning_rate(rate))
    if accumulate > 1:
        optimiser = optax.MultiSteps(optimiser, accumulate).gradient_transformation()
    return optimiser


@lru_cache
def critic_optimiser(learning_rate: float) -> optax.GradientTransformation:
    """The optimiser of the critic; the same object for the same learning rate, as in `model_optimiser`."""
    return optax.adam(learning_rate, b1=0.5)


def new_critic(width: int, seed: int) -> PatchCritic:
    """A random critic, built by one compiled program."""
    return nnx.jit(lambda: PatchCritic(width, rngs=nnx.Rngs(seed)))()


def muon() -> optax.GradientTransformation:
    """Kernels (..., k, l, i, o) move orthogonally, as matrices of k l i rows and o columns; other arrays move by Adam.

    Moves of kernels have unit root mean square, as those of Adam nearly have.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), by `optax.contrib`.
    """

    def kernel(a: Array) -> optax.contrib.MuonDimensionNumbers:
        return optax.contrib.MuonDimensionNumbers(tuple(range(a.ndim - 4, a.ndim - 1)), (a.ndim - 1,))

    def unit(updates: PyTree[Array], _: PyTree) -> PyTree[Array]:
        return jax.tree.map(lambda u: u * jax.lax.rsqrt(jnp.mean(u**2) + jnp.finfo(u.dtype).tiny), updates)

    orthogonal = optax.contrib.scale_by_muon(weight_dimension_numbers=lambda updates: jax.tree.map(kernel, updates))
    return optax.partition(
        {"kernels": optax.chain(orthogonal, optax.stateless(unit)), "others": optax.scale_by_adam()},
        lambda arrays: jax.tree.map(lambda a: "kernels" if a.ndim >= 4 else "others", arrays),
    )


def _batches(
    data: TrainingSet, options: Options, others: int, mesh: Mesh | None, steps: Iterable[int]
) -> Iterator[tuple[int, Batch]]:
    """(step, batch); a thread reads the next batch while this one is used."""

    def read(step: int) -> Batch:
        batch = data.batch(
            options.seed, step, options.labelled, others, crop=options.crop, turn=options.turn, superpose=options.superpose
        )
        return shard_batch(batch, mesh)

    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for step in steps:
            batch = waiting.result() if waiting is not None else read(step)
            waiting = pool.submit(read, step + 1)
            yield step, batch


def _waiting(history: History) -> int:
    """Validations since the best one."""
    scores = [row["score"] for row in history if "score" in row]
    return len(scores) - 1 - int(np.argmin(scores)) if scores else 0
