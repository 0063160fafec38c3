"""One training step: the weighted sum of the losses, and updates of the model and of its critic."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from lfjax.errors import require
from lfjax.models import trainable
from lfjax.parallel import WHOLE, spread
from lfjax.training import losses
from lfjax.training.data import Batch


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """The weight of each loss; a loss of weight 0 is not computed.

    Attributes:
        volume: weight of `losses.volume_error` on labelled samples.
        light_field: weight of `losses.light_field_error` on unlabelled frames, or on labelled ones if there are no others.
        adversarial: weight of the critic's loss on the same frames.
        sparsity: weight of `losses.sparsity`.
        equivariance: weight of `losses.equivariance`.
        noise_splitting: weight of `losses.noise_splitting`.
        game: adversarial game, "least_squares" or "wasserstein"; the latter adds `gradient_penalty`.
        gradient_penalty: weight of `losses.gradient_penalty` in the critic's loss.
        block: lenslets, see `losses.light_field_error`.
    """

    volume: float = 1.0
    light_field: float = 0.0
    adversarial: float = 0.0
    sparsity: float = 0.0
    equivariance: float = 0.0
    noise_splitting: float = 0.0
    game: str = "least_squares"
    gradient_penalty: float = 10.0
    block: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "game":
                require(value in GAMES, "game", value, f"one of {', '.join(GAMES)}")
            else:
                require(isinstance(value, (int, float)) and 0 <= value < math.inf, field.name, value, "zero or more")

    @property
    def unlabelled(self) -> bool:
        """Whether any loss uses frames without labels."""
        return any((self.light_field, self.adversarial, self.sparsity, self.equivariance, self.noise_splitting))


GAMES = {
    "least_squares": (losses.least_squares_critic, losses.least_squares_generator),
    "wasserstein": (losses.wasserstein_critic, losses.wasserstein_generator),
}


History = list[dict[str, float]]
"""Rows of a log: step, losses, and `score` where the model was validated."""


class TrainState(NamedTuple):
    """Everything that training changes and that a checkpoint keeps.

    Attributes:
        model: arrays that are trained.
        average: their exponential moving average, which is evaluated and returned.
        optimiser: state of the model's optimiser.
        critic: arrays of the critic; None without an adversarial loss.
        critic_optimiser: state of the critic's optimiser.
        best: `average` at the best validation so far.
        best_score: score of that validation; infinite before the first.
        step: number of steps done.
    """

    model: PyTree
    average: PyTree
    optimiser: optax.OptState
    critic: PyTree
    critic_optimiser: optax.OptState | None
    best: PyTree
    best_score: Float[Array, ""]
    step: Int[Array, ""]


class Training(NamedTuple):
    """Everything that training does not change: the structure of both networks, optimisers, losses.

    Attributes:
        fixed: the model without the arrays that are trained.
        critic: structure of the critic; None without an adversarial loss.
        op: H or its surrogate; None: no loss needs it.
        mask: pixels that count in the light-field losses.
        cell_pixels: pixels (y, x) per lenslet.
        weights: weights of the losses.
        optimiser: optimiser of the model.
        critic_optimiser: optimiser of the critic.
        decay: decay of the moving average of the weights per step.
        half: whether convolution kernels are rounded to bfloat16 in forward and backward passes.
        key: random key of all steps.
        mesh: devices over which the samples of a batch are spread; None: the default device.
    """

    fixed: PyTree
    critic: nnx.GraphDef[nnx.Module] | None
    op: losses.Forward | None
    mask: Bool[Array, "row col"]
    cell_pixels: tuple[int, int]
    weights: LossWeights
    optimiser: optax.GradientTransformation
    critic_optimiser: optax.GradientTransformation
    decay: float
    half: bool
    key: Array
    mesh: Mesh | None = None

    def model(self, arrays: PyTree) -> losses.Reconstruct:
        """The network with these arrays."""
        return eqx.combine(_rounded(arrays) if self.half else arrays, self.fixed)

    def score(self, critic: PyTree, volumes: Float[ArrayLike, "b z y x"]) -> Float[Array, " b"]:
        """Scores of volumes by the critic with these arrays."""
        assert self.critic is not None
        return jax.vmap(nnx.merge(self.critic, critic))(volumes)


class FromNNX(eqx.Module):
    """A Flax NNX network as an Equinox module, so that one loop trains, averages and stores both kinds.

    Only for networks whose forward pass changes no state (no batch norm, no dropout).
    """

    arrays: PyTree
    structure: nnx.GraphDef[nnx.Module] = eqx.field(static=True)

    def __init__(self, network: nnx.Module) -> None:
        self.structure, self.arrays = nnx.split(network)

    @eqx.filter_jit
    def __call__(self, y: Float[Array, "row col"]) -> Float[Array, "z y x"]:
        """The network's own call, compiled."""
        return nnx.merge(self.structure, self.arrays)(y)


def start(model: PyTree, critic: nnx.Module | None, training: Training) -> TrainState:
    """The state before the first step."""
    arrays = eqx.filter(model, trainable(model))
    critic_arrays = None if critic is None else nnx.split(critic)[1]
    optimiser, critic_optimiser = _optimiser_states(training, arrays, critic_arrays)
    best_score, step = jnp.asarray(np.inf, jnp.result_type(float)), jnp.asarray(0, jnp.int32)
    return TrainState(arrays, arrays, optimiser, critic_arrays, critic_optimiser, arrays, best_score, step)


@eqx.filter_jit
def _optimiser_states(training: Training, arrays: PyTree, critic: PyTree) -> tuple[optax.OptState, optax.OptState | None]:
    return training.optimiser.init(arrays), None if critic is None else training.critic_optimiser.init(critic)


@eqx.filter_jit
def advance(training: Training, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
    """One step: the model descends its losses, then the critic descends its own on the volumes of the model.

    Returns:
        The next state, and the losses by name, each before its weight.
    """
    key = jax.random.fold_in(training.key, state.step)
    gradient, critic_gradient, terms = _gradients(training, state.model, state.critic, batch, key)
    updates, optimiser = training.optimiser.update(gradient, state.optimiser, state.model)
    model = optax.apply_updates(state.model, updates)
    rate = jnp.minimum(training.decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda old, new: rate * old + (1 - rate) * new, state.average, model)
    critic, critic_optimiser = state.critic, state.critic_optimiser
    if training.weights.adversarial:
        updates, critic_optimiser = training.critic_optimiser.update(critic_gradient, critic_optimiser, critic)
        critic = optax.apply_updates(critic, updates)
    after = state._replace(
        model=model, average=average, optimiser=optimiser, critic=critic, critic_optimiser=critic_optimiser, step=state.step + 1
    )
    return after, terms


def shard_batch(batch: Batch, mesh: Mesh | None) -> Batch:
    """A batch spread over a mesh in turn: sample i, labelled or not, goes to device i modulo mesh.size.

    Each device thus has a batch of its own, in which the labelled and the unlabelled sample of one number meet.
    """
    if mesh is None:
        return batch
    place, n = NamedSharding(mesh, spread(mesh)), mesh.size

    def interleaved(a: np.ndarray) -> Array:
        return jax.device_put(a.reshape(len(a) // n, n, *a.shape[1:]).swapaxes(0, 1).reshape(a.shape), place)

    return jax.tree.map(interleaved, batch)


Gradients = tuple[PyTree, PyTree, dict[str, Array]]


def _gradients(training: Training, model: PyTree, critic: PyTree, batch: Batch, key: Array) -> Gradients:
    """Gradients of model and critic, and the losses; on a mesh the means over the devices' shares of the batch."""
    mesh = training.mesh
    if mesh is None:
        return _local_gradients(training, model, critic, batch, key)
    arrays, fixed = eqx.partition(training, eqx.is_array)

    def share(arrays: PyTree, *given: PyTree) -> Gradients:
        return jax.lax.pmean(_local_gradients(eqx.combine(arrays, fixed), *given), mesh.axis_names[0])

    specs = (WHOLE, WHOLE, WHOLE, spread(mesh), WHOLE)
    return jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=WHOLE, check_vma=False)(arrays, model, critic, batch, key)


def _local_gradients(training: Training, model: PyTree, critic: PyTree, batch: Batch, key: Array) -> Gradients:
    batch = _augmented(batch)

    def total(arrays: PyTree) -> tuple[Array, tuple[dict[str, Array], Array | None]]:
        return _model_losses(training, training.model(arrays), critic, batch, key)

    (_, (terms, fake)), gradient = jax.value_and_grad(total, has_aux=True)(model)
    if not training.weights.adversarial:
        return gradient, None, terms
    real = jnp.asarray(batch.volumes)
    value, critic_gradient = jax.value_and_grad(lambda c: _critic_loss(training, c, real, fake, key))(critic)
    return gradient, critic_gradient, terms | {"critic": value}


def _keys(training: Training, key: Array, count: int) -> Array:
    """One key per sample, by its number in the whole batch: the same on any number of devices (see `shard_batch`)."""
    if training.mesh is None:
        return jax.random.split(key, count)
    n, device = training.mesh.size, jax.lax.axis_index(training.mesh.axis_names[0])
    return jax.random.split(key, count * n).reshape(count, n)[:, device]


def _augmented(batch: Batch) -> Batch:
    """The batch with each sample flipped or transposed as `batch.turns` says."""
    b = len(batch.frames)
    turn = jax.vmap(losses.dihedral)
    frames, volumes = (turn(jnp.asarray(a), batch.turns[:b]) for a in (batch.frames, batch.volumes))
    others = turn(jnp.asarray(batch.unlabelled), batch.turns[b:]) if len(batch.unlabelled) else batch.unlabelled
    return Batch(frames, volumes, others, batch.turns)


def _model_losses(
    training: Training, model: losses.Reconstruct, critic: PyTree, batch: Batch, key: Array
) -> tuple[Array, tuple[dict[str, Array], Array | None]]:
    """The weighted sum of the model's losses; each loss by name; and the volumes that the critic is to tell from real ones."""
    weights, op, terms = training.weights, training.op, {}
    frames = jnp.asarray(batch.unlabelled if len(batch.unlabelled) else batch.frames)
    if weights.volume:
        labelled = jax.vmap(model)(jnp.asarray(batch.frames))
        terms["volume"] = jnp.mean(jax.vmap(losses.volume_error)(labelled, jnp.asarray(batch.volumes)))
    fake: PyTree = jax.vmap(model)(frames) if weights.unlabelled else None
    keys = _keys(training, key, len(frames))
    if weights.light_field:
        terms["light_field"] = jnp.mean(jax.vmap(lambda x, y: _resynthesis(training, x, y))(fake, frames))
    if weights.adversarial:
        terms["adversarial"] = GAMES[weights.game][1](training.score(critic, fake))
    if weights.sparsity:
        terms["sparsity"] = jnp.mean(jax.vmap(losses.sparsity)(fake))
    if weights.equivariance:
        turned = jax.vmap(lambda x, k: losses.equivariance(model, op, x, k))  # type: ignore[arg-type]
        terms["equivariance"] = jnp.mean(turned(fake, keys))
    if weights.noise_splitting:
        split = jax.vmap(lambda y, k: losses.noise_splitting(model, op, y, k, training.mask))  # type: ignore[arg-type]
        terms["noise_splitting"] = jnp.mean(split(frames, keys))
    value = sum((getattr(weights, name) * term for name, term in terms.items()), jnp.zeros(()))
    return value, (terms | {"total": value}, fake)


def _resynthesis(training: Training, x: Array, y: Array) -> Float[Array, ""]:
    image = training.op(x)  # type: ignore[misc]
    return losses.light_field_error(image, y, training.mask, cell_pixels=training.cell_pixels, block=training.weights.block)


def _critic_loss(training: Training, critic: PyTree, real: Array, fake: Array, key: Array) -> Float[Array, ""]:
    value = GAMES[training.weights.game][0](training.score(critic, real), training.score(critic, fake))
    if training.weights.game == "wasserstein":
        number = min(len(real), len(fake))
        penalty = jax.vmap(lambda r, f, k: losses.gradient_penalty(lambda v: training.score(critic, v[None])[0], r, f, k))
        value += training.weights.gradient_penalty * jnp.mean(
            penalty(real[:number], fake[:number], _keys(training, key, number))
        )
    return value


def _rounded(arrays: PyTree) -> PyTree:
    """Convolution kernels in bfloat16; step sizes, thresholds and biases unchanged."""
    return jax.tree.map(lambda a: a.astype(jnp.bfloat16) if a.ndim >= 4 else a, arrays)
