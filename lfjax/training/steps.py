"""One step of training: the losses added up, and the two players of the adversarial game moved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.models import trainable
from lfjax.parallel import WHOLE, spread
from lfjax.training import losses
from lfjax.training.data import Batch


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """How much each loss counts; 0 leaves it out, and it is then not computed.

    Attributes:
        volume: `losses.volume_error` on labelled samples.
        light_field: `losses.light_field_error` on unlabelled frames, or on labelled ones if there are no others.
        adversarial: of the critic's opinion on the same.
        sparsity: `losses.sparsity`.
        equivariance: `losses.equivariance`.
        noise_splitting: `losses.noise_splitting`.
        game: "least_squares" or "wasserstein", with `gradient_penalty`.
        gradient_penalty: its weight.
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
                require(isinstance(value, (int, float)) and value >= 0, field.name, value, "zero or more")

    @property
    def unlabelled(self) -> bool:
        """Whether any loss works without labels."""
        return any((self.light_field, self.adversarial, self.sparsity, self.equivariance, self.noise_splitting))


GAMES = {
    "least_squares": (losses.least_squares_critic, losses.least_squares_generator),
    "wasserstein": (losses.wasserstein_critic, losses.wasserstein_generator),
}


class TrainState(NamedTuple):
    """All that changes in training, and that a checkpoint keeps.

    Attributes:
        model: arrays that learn.
        average: their exponential moving average, which is what is evaluated and kept.
        optimiser: state of the model's.
        critic: arrays of the critic; None without a game.
        critic_optimiser: state of its.
        best: average of the best validation so far.
        best_score: its score; infinite before the first.
        step: steps done.
    """

    model: Any
    average: Any
    optimiser: Any
    critic: Any
    critic_optimiser: Any
    best: Any
    best_score: Float[Array, ""]
    step: Array


class Training(NamedTuple):
    """All that does not change: the structure of both networks, optimisers, losses.

    Attributes:
        fixed: the model without what learns.
        critic: structure of the critic; None without a game.
        op: H or its surrogate, for the light-field loss; None if none is used.
        mask: pixels that count in it.
        cell_pixels: pixels (y, x) of a lenslet.
        weights: of the losses.
        optimiser: of the model.
        critic_optimiser: of the critic.
        decay: of the moving average.
        half: whether convolution kernels are rounded to bfloat16 in forward and backward passes.
        seed: of all random numbers.
        mesh: over which the samples of a batch are spread; None is the device at hand.
    """

    fixed: Any
    critic: Any
    op: LinearOperator | None
    mask: Any
    cell_pixels: tuple[int, int]
    weights: LossWeights
    optimiser: optax.GradientTransformation
    critic_optimiser: optax.GradientTransformation
    decay: float
    half: bool
    seed: int
    mesh: Mesh | None = None

    def model(self, arrays: Any) -> Callable[[Array], Array]:
        """The network with these arrays."""
        return eqx.combine(_rounded(arrays) if self.half else arrays, self.fixed)


class FromNNX(eqx.Module):
    """A Flax NNX network as an Equinox module, so that one loop trains, averages and stores both.

    Only for networks without state that changes in the forward pass (no batch norm, no dropout).
    """

    arrays: Any
    structure: Any = eqx.field(static=True)

    def __init__(self, network: nnx.Module) -> None:
        self.structure, self.arrays = nnx.split(network)

    def __call__(self, y: Array) -> Array:
        """The network's own call."""
        return nnx.merge(self.structure, self.arrays)(y)


def start(model: Any, critic: nnx.Module | None, training: Training) -> TrainState:
    """The state before the first step."""
    arrays = eqx.filter(model, trainable(model))
    judge = None if critic is None else nnx.split(critic)[1]
    return TrainState(
        arrays, arrays, training.optimiser.init(arrays), judge,
        None if judge is None else training.critic_optimiser.init(judge), arrays, jnp.asarray(jnp.inf), jnp.asarray(0),
    )  # fmt: skip


@eqx.filter_jit
def advance(training: Training, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
    """One step of both players: the model against its losses, then the critic against what the model made.

    Returns:
        The next state, and the losses by name, each before its weight.
    """
    key = jax.random.fold_in(jax.random.key(training.seed), state.step)
    slope, critic_slope, terms = _slopes(training, state.model, state.critic, batch, key)
    updates, optimiser = training.optimiser.update(slope, state.optimiser, state.model)
    model = optax.apply_updates(state.model, updates)
    rate = jnp.minimum(training.decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda old, new: rate * old + (1 - rate) * new, state.average, model)
    critic, critic_optimiser = state.critic, state.critic_optimiser
    if training.weights.adversarial:
        updates, critic_optimiser = training.critic_optimiser.update(critic_slope, critic_optimiser, critic)
        critic = optax.apply_updates(critic, updates)
    after = state._replace(
        model=model, average=average, optimiser=optimiser, critic=critic, critic_optimiser=critic_optimiser, step=state.step + 1
    )
    return after, terms


def shard_batch(batch: Batch, mesh: Mesh | None) -> Batch:
    """A batch spread over a mesh as cards are dealt: sample i, with a label or without, goes to device i modulo mesh.size.

    So that each device has a batch of its own, in which labelled and unlabelled samples of one number meet.
    """
    if mesh is None:
        return batch
    place, n = NamedSharding(mesh, spread(mesh)), mesh.size

    def dealt(a: np.ndarray) -> Array:
        return jax.device_put(a.reshape(len(a) // n, n, *a.shape[1:]).swapaxes(0, 1).reshape(a.shape), place)

    return jax.tree.map(dealt, batch)


def _slopes(training: Training, model: Any, critic: Any, batch: Batch, key: Array) -> tuple[Any, Any, dict[str, Array]]:
    """Gradients of model and critic, and the losses; on a mesh the means of what each device finds for its samples."""
    mesh = training.mesh
    if mesh is None:
        return _own_slopes(training, model, critic, batch, key)
    arrays, fixed = eqx.partition(training, eqx.is_array)

    def share(arrays: Any, *given: Any) -> Any:
        return jax.lax.pmean(_own_slopes(eqx.combine(arrays, fixed), *given), mesh.axis_names[0])

    specs = (WHOLE, WHOLE, WHOLE, spread(mesh), WHOLE)
    return jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=WHOLE, check_vma=False)(arrays, model, critic, batch, key)


def _own_slopes(training: Training, model: Any, critic: Any, batch: Batch, key: Array) -> tuple[Any, Any, dict[str, Array]]:
    batch = _turned(batch)

    def total(arrays: Any) -> tuple[Array, Any]:
        return _model_losses(training, training.model(arrays), critic, batch, key)

    (_, (terms, fake)), slope = jax.value_and_grad(total, has_aux=True)(model)
    if not training.weights.adversarial:
        return slope, None, terms
    value, critic_slope = jax.value_and_grad(lambda c: _critic_loss(training, c, batch.volumes, fake, key))(critic)
    return slope, critic_slope, terms | {"critic": value}


def _keys(training: Training, key: Array, count: int) -> Array:
    """One a sample, by its number in the whole batch: the same on any number of devices (see `shard_batch`)."""
    if training.mesh is None:
        return jax.random.split(key, count)
    n, device = training.mesh.size, jax.lax.axis_index(training.mesh.axis_names[0])
    return jax.random.split(key, count * n).reshape(count, n)[:, device]


def _turned(batch: Batch) -> Batch:
    b = len(batch.frames)
    turn = jax.vmap(losses.dihedral)
    frames, volumes = (turn(jnp.asarray(a), batch.turns[:b]) for a in (batch.frames, batch.volumes))
    others = turn(jnp.asarray(batch.unlabelled), batch.turns[b:]) if len(batch.unlabelled) else batch.unlabelled
    return Batch(frames, volumes, others, batch.turns)


def _model_losses(training: Training, model: Any, critic: Any, batch: Batch, key: Array) -> tuple[Array, Any]:
    weights, terms = training.weights, {}
    frames = jnp.asarray(batch.unlabelled if len(batch.unlabelled) else batch.frames)
    if weights.volume:
        labelled = jax.vmap(model)(jnp.asarray(batch.frames))
        terms["volume"] = jnp.mean(jax.vmap(losses.volume_error)(labelled, batch.volumes))
    fake: Any = jax.vmap(model)(frames) if weights.unlabelled else None
    keys = _keys(training, key, len(frames))
    if weights.light_field:
        terms["light_field"] = jnp.mean(jax.vmap(lambda x, y: _resynthesis(training, x, y))(fake, frames))
    if weights.adversarial:
        opinion = jax.vmap(nnx.merge(training.critic, critic))(fake)
        terms["adversarial"] = GAMES[weights.game][1](opinion)
    if weights.sparsity:
        terms["sparsity"] = jnp.mean(jax.vmap(losses.sparsity)(fake))
    if weights.equivariance:
        turn = jax.vmap(lambda x, k: losses.equivariance(model, training.op, x, k))  # type: ignore[arg-type]
        terms["equivariance"] = jnp.mean(turn(fake, keys))
    if weights.noise_splitting:
        split = jax.vmap(lambda y, k: losses.noise_splitting(model, training.op, y, k, training.mask))  # type: ignore[arg-type]
        terms["noise_splitting"] = jnp.mean(split(frames, keys))
    value = sum((getattr(weights, name) * term for name, term in terms.items()), jnp.zeros(()))
    return value, (terms | {"total": value}, fake)


def _resynthesis(training: Training, x: Array, y: Array) -> Array:
    image = training.op(x)  # type: ignore[misc]
    return losses.light_field_error(image, y, training.mask, cell_pixels=training.cell_pixels, block=training.weights.block)


def _critic_loss(training: Training, critic: Any, real: Array, fake: Array, key: Array) -> Array:
    judge = nnx.merge(training.critic, critic)
    value = GAMES[training.weights.game][0](jax.vmap(judge)(real), jax.vmap(judge)(fake))
    if training.weights.game == "wasserstein":
        number = min(len(real), len(fake))
        penalty = jax.vmap(lambda r, f, k: losses.gradient_penalty(judge, r, f, k))
        value += training.weights.gradient_penalty * jnp.mean(
            penalty(real[:number], fake[:number], _keys(training, key, number))
        )
    return value


def _rounded(arrays: Any) -> Any:
    """Convolution kernels in bfloat16; step sizes, thresholds and biases as they are."""
    return jax.tree.map(lambda a: a.astype(jnp.bfloat16) if a.ndim >= 4 else a, arrays)
