"""Structures in space from noisy views at unknown angles: alternating pose search and refinement from many random starts.

No view is analysed by itself, so that none can spoil the others. Each start poses a random structure in every view, refines
it together with its poses on all samples, poses it again, and so on. A good part of the starts reaches the true structure;
the one of least misfit wins. Points need not be told apart: equal amplitudes are no special case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from lfjax.errors import require, require_shape
from lfjax.fri.normal import point_normal
from lfjax.fri.planar import Sampling
from lfjax.fri.poses import Pose, PoseSearch
from lfjax.fri.refine import require_x64
from lfjax.fri.unknown_view import FLAT, Structure, centred, view_samples
from lfjax.rotation.matrices import random_rotations
from lfjax.solvers.levenberg_marquardt import Normal, descend

CAREFUL = 4  # factor on orientations and candidates for the structures that are kept


class Effort(NamedTuple):
    """Size of the search of `fit`.

    Attributes:
        starts: number of random structures.
        rounds: rounds of pose search and refinement of each start.
        kept: number of structures that go into the second stage.
        more: rounds of each kept structure; 0: only the last refinement.
        orientations: orientations per pose search, four times as many for kept structures; a thousand lie about 17 degrees
            apart.
        candidates: orientations refined per view, four times as many for kept structures.
        steps: refinement steps per round.
        last: steps of the last refinement.
    """

    starts: int = 32
    rounds: int = 4
    kept: int = 6
    more: int = 3
    orientations: int = 1000
    candidates: int = 4
    steps: int = 8
    last: int = 40


@runtime_checkable
class Model(Protocol):
    """A structure as a cloud of weighted points, smooth in its parameters.

    `fit` is compiled for the model: make it a pytree of arrays (an `equinox.Module`) or hashable (a frozen dataclass).
    """

    def random(self, key: Array, size: Float[Array, ""], total: Float[Array, ""]) -> Any:
        """Random initial parameters: any pytree of arrays.

        Args:
            key: fixes the random numbers.
            size: root mean square distance of the mass from its centre.
            total: mass.
        """
        ...

    def cloud(self, parameters: Any) -> tuple[Float[Array, "k 3"], Float[Array, " k"]]:
        """Points and their amplitudes."""
        ...


@dataclass(frozen=True)
class PointSources:
    """K points; the parameters are (points, amplitudes).

    Attributes:
        count: K.
    """

    count: int

    def random(self, key: Array, size: Float[Array, ""], total: Float[Array, ""]) -> tuple[Array, Array]:
        """Normally distributed points about the origin, of nearly equal amplitudes."""
        points = size * jax.random.normal(key, (self.count, 3)) / jnp.sqrt(3)
        return points, total / self.count * jnp.linspace(0.8, 1.2, self.count)

    def cloud(self, parameters: tuple[Array, Array]) -> tuple[Float[Array, "k 3"], Float[Array, " k"]]:
        """The points themselves."""
        return parameters


class Fit(NamedTuple):
    """A structure and its poses: maximum likelihood in white noise.

    Attributes:
        parameters: parameters of the model.
        rotations: R of each view; X projects to (R_i X)[:2] + t_i.
        shifts: t of each view.
        residual: |samples - model| / |samples| of each view.
        used: views that the fit used.
    """

    parameters: PyTree[Array]
    rotations: Float[Array, "p 3 3"]
    shifts: Float[Array, "p 2"]
    residual: Float[Array, " p"]
    used: Bool[Array, " p"]


class _State(NamedTuple):
    parameters: PyTree[Array]
    poses: Pose


@eqx.filter_jit
def fit(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    model: Model,
    *,
    key: Array,
    outlier: float = 3.0,
    effort: Effort = Effort(),  # noqa: B008 - immutable
) -> Fit:
    """Maximum likelihood in white noise of a structure and its poses, without an initial estimate.

    Pure and compiled whole; for many problems `jax.lax.map` keeps memory small.

    Args:
        sampling: smooth kernel, and grid of all views.
        views: samples of three or more views; rows are y.
        model: kind of structure to fit.
        key: fixes the random structures and orientations.
        outlier: views whose squared misfit exceeds this multiple of the median are not used, see `Fit.used`.
        effort: number of starts, rounds and steps.

    Raises:
        ParameterError: JAX does not run in float64, fewer than three views, or an option out of range.
        ShapeError: views of another size than the grid.
    """
    require_x64("lfjax.fri")
    require_shape("views", views.shape, ("p", sampling.size, sampling.size))
    require(len(views) >= 3, "views", len(views), "three or more")
    require(outlier > 1, "outlier", outlier, "above 1")
    require(1 <= effort.kept <= effort.starts, "effort.kept", effort.kept, f"1 to effort.starts = {effort.starts}")
    search = _Search(sampling, views, model, outlier, effort)
    first, second = jax.random.split(key)
    states, scores = jax.lax.map(search.first_stage, jax.random.split(first, effort.starts))
    kept = jnp.argsort(jnp.nan_to_num(scores, nan=jnp.inf))[: effort.kept]
    kept_states = jax.tree.map(lambda leaf: leaf[kept], states)
    states, scores, used = jax.lax.map(search.second_stage, (kept_states, jax.random.split(second, effort.kept)))
    state, used = _best(scores, (states, used))
    return _result(sampling, views, model, state, used)


class _Search(eqx.Module):
    """The random multi-start search of `fit`: the fixed data of all starts, and the two stages of each."""

    sampling: Sampling
    views: Float[Array, "p m n"]
    model: Model
    poses: PoseSearch
    size: Float[Array, ""]
    total: Float[Array, ""]
    rounding: Float[Array, ""]
    outlier: float = eqx.field(static=True)
    effort: Effort = eqx.field(static=True)

    def __init__(self, sampling: Sampling, views: Float[Array, "p m n"], model: Model, outlier: float, effort: Effort) -> None:
        self.sampling, self.views, self.model, self.outlier, self.effort = sampling, views, model, outlier, effort
        self.poses = PoseSearch(sampling, views)
        self.size = _extent(sampling, views, self.poses.centres)
        self.total = jnp.mean(jnp.sum(views, axis=(1, 2))) / sampling.kernel.moment(0) ** 2
        self.rounding = 1e-12 * jnp.mean(views**2) * sampling.size**2

    def first_stage(self, key: Array) -> tuple[_State, Array]:
        """One random structure after its rounds, and its score."""
        start, rounds = jax.random.split(key)
        return self._rounds(self.model.random(start, self.size, self.total), rounds, self.effort.rounds)

    def second_stage(self, state_key: tuple[_State, Array]) -> tuple[_State, Array, Bool[Array, " p"]]:
        """A kept structure after more, careful rounds and the last refinement, its score, and the views used."""
        state, key = state_key
        if self.effort.more:
            state, _ = self._rounds(state.parameters, key, self.effort.more, CAREFUL)
        used = self._inliers(self._misfits(state))
        state = _refine(self.sampling, self.views, self.model, state, used, self.effort.last)
        return state, self._score(self._misfits(state)), used

    def _rounds(self, parameters: PyTree[Array], key: Array, number: int, careful: int = 1) -> tuple[_State, Array]:
        """The best state of several rounds, each a pose search and a refinement, and its score."""

        def one(parameters: PyTree[Array], key: Array) -> tuple[PyTree[Array], tuple[_State, Array]]:
            orientations = random_rotations(key, careful * self.effort.orientations)
            cloud = self.model.cloud(parameters)
            poses, misfits = self.poses(*cloud, orientations, keep=careful * self.effort.candidates)
            start, used = _State(parameters, poses), self._inliers(misfits)
            state = _refine(self.sampling, self.views, self.model, start, used, self.effort.steps)
            return state.parameters, (state, self._score(self._misfits(state)))

        _, (states, scores) = jax.lax.scan(one, parameters, jax.random.split(key, number))
        return _best(scores, (states, scores))

    def _misfits(self, state: _State) -> Float[Array, " p"]:
        return _misfits(self.sampling, self.views, self.model, state)

    def _limit(self, misfits: Float[Array, " p"]) -> Float[Array, ""]:
        return self.outlier * jnp.median(misfits) + self.rounding

    def _inliers(self, misfits: Float[Array, " p"]) -> Bool[Array, " p"]:
        return misfits <= self._limit(misfits)

    def _score(self, misfits: Float[Array, " p"]) -> Float[Array, ""]:
        """Total misfit in which an outlier counts as the limit."""
        return jnp.sum(jnp.minimum(misfits, self._limit(misfits)))


def _best(scores: Float[Array, " s"], candidates: Any) -> Any:
    """Entries of a pytree of candidates at the least score."""
    best = jnp.argmin(jnp.nan_to_num(scores, nan=jnp.inf))
    return jax.tree.map(lambda leaf: leaf[best], candidates)


def _result(sampling: Sampling, views: Array, model: Model, state: _State, used: Array) -> Fit:
    residual = jnp.sqrt(_misfits(sampling, views, model, state) / jnp.sum(views**2, axis=(1, 2)))
    return Fit(state.parameters, state.poses.rotation, state.poses.shift, residual, used)


@eqx.filter_jit
def refine_fit(sampling: Sampling, views: Float[Array, "p m n"], model: Model, start: Fit, *, steps: int = 20) -> Fit:
    """A fit refined on the samples of the views it used: with a finer model, or after an edit of its parameters.

    Args:
        sampling: smooth kernel, and grid of all views.
        views: samples of each view.
        model: kind of structure; its parameters are those of `start`.
        start: initial fit.
        steps: number of refinement steps.
    """
    state = _State(start.parameters, Pose(start.rotations, start.shifts))
    return _result(sampling, views, model, _refine(sampling, views, model, state, start.used, steps), start.used)


@eqx.filter_jit
def recover_noisy(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    count: int,
    *,
    key: Array,
    outlier: float = 3.0,
    effort: Effort = Effort(),  # noqa: B008 - immutable
) -> Structure:
    """`fit` of K points, whose amplitudes may be equal.

    Args:
        sampling: smooth kernel, and grid of all views.
        views: samples of three or more views; rows are y.
        count: K, the number of points, four or more.
        key: fixes the random structures and orientations.
        outlier: views whose squared misfit exceeds this multiple of the median are not used, see `Structure.used`.
        effort: number of starts, rounds and steps.
    """
    require(count >= 4, "count", count, "four points or more: three lie in a plane")
    found = fit(sampling, views, PointSources(count), key=key, outlier=outlier, effort=effort)
    points, amplitudes = found.parameters
    spread = jnp.linalg.svd(points - points.mean(0), compute_uv=False)
    determined = (spread[2] > FLAT * spread[0]) & (jnp.sum(found.used) >= 3)
    return centred(Structure(points, amplitudes, *found[1:4], determined, found.used))


def _extent(sampling: Sampling, views: Array, centres: Array) -> Array:
    """Root mean square distance of the mass from its centre, from the second moments of the views."""
    n = sampling.positions * sampling.spacing
    distance2 = (n - centres[:, 0, None])[:, None, :] ** 2 + (n - centres[:, 1, None])[:, :, None] ** 2
    kernel = sampling.kernel
    blur = 2 * (kernel.moment(2) / kernel.moment(0) - (kernel.moment(1) / kernel.moment(0)) ** 2) * sampling.spacing**2
    variance = 1.5 * (jnp.median(jnp.sum(views * distance2, axis=(1, 2)) / jnp.sum(views, axis=(1, 2))) - blur)
    return jnp.sqrt(jnp.clip(variance, sampling.spacing**2, (sampling.size * sampling.spacing / 2) ** 2))


def _misfits(sampling: Sampling, views: Array, model: Model, state: _State) -> Array:
    """|samples - model|^2 of each view."""
    return jnp.sum((view_samples(sampling, *model.cloud(state.parameters), *state.poses) - views) ** 2, axis=(1, 2))


def _refine(sampling: Sampling, views: Array, model: Model, start: _State, used: Bool[Array, " p"], steps: int) -> _State:
    """Parameters and poses refined on the samples of the used views."""
    p = len(views)
    flat, unravel = ravel_pytree(start.parameters)
    q = len(flat)

    def cloud(flat: Array) -> tuple[Array, Array]:
        return model.cloud(unravel(flat))

    def linearise(state: tuple[Array, Pose]) -> Normal:
        flat, poses = state
        points, amplitudes = cloud(flat)
        d_points, d_amplitudes = jax.jacfwd(cloud)(flat)

        def one(samples: Array, pose: Pose) -> Normal:
            d_projected = jnp.concatenate([pose.by_points(d_points), pose.by_pose(points)], axis=1)
            jacobian = jnp.concatenate([d_projected, jnp.pad(d_amplitudes, ((0, 0), (0, 5)))])
            return point_normal(sampling, samples, pose.view(points), amplitudes, jacobian)

        each = jax.vmap(one)(views, poses)
        each = jax.tree.map(lambda leaf: jnp.where(used.reshape((-1,) + (1,) * (leaf.ndim - 1)), leaf, 0), each)
        pose_blocks = each.matrix[:, q:, q:]
        diagonal = (pose_blocks[:, :, None] * jnp.eye(p)[:, None, :, None]).reshape(5 * p, 5 * p)
        side = each.matrix[:, :q, q:].transpose(1, 0, 2).reshape(q, 5 * p)
        matrix = jnp.block([[jnp.sum(each.matrix[:, :q, :q], axis=0), side], [side.T, diagonal]])
        gradient = jnp.concatenate([jnp.sum(each.gradient[:, :q], axis=0), each.gradient[:, q:].ravel()])
        return Normal(jnp.sum(each.cost), gradient, matrix)

    def move(state: tuple[Array, Pose], step: Array) -> tuple[Array, Pose]:
        return state[0] + step[:q], jax.vmap(Pose.move)(state[1], step[q:].reshape(p, 5))

    (flat, poses), _ = descend(linearise, move, (flat, start.poses), steps=steps)
    return _State(unravel(flat), poses)
