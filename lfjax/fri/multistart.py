"""Structures in space from noisy views at unknown angles: from many random starts, poses and structure in turns.

No view is taken apart by itself, so that none can spoil the rest: a random structure is posed in every view as well as it can
be, refined together with its poses on all samples, posed again, and so on. A good part of the starts ends at the truth; the
one of least misfit wins. Nothing has to tell points apart: equal amplitudes are no special case.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from lfjax.errors import require, require_shape
from lfjax.fri.normal import point_normal
from lfjax.fri.planar import Sampling
from lfjax.fri.poses import Pose, PoseSearch
from lfjax.fri.refine import require_x64
from lfjax.fri.unknown_view import FLAT, Structure, centred, view_samples
from lfjax.rotation import random_rotations
from lfjax.solvers.levenberg_marquardt import Normal, descend

CAREFUL = 4  # times as many orientations for the structures that go on


class Effort(NamedTuple):
    """How hard `fit` tries.

    Attributes:
        starts: random structures.
        rounds: of pose search and refinement of each.
        kept: of them, that go on.
        more: rounds of these.
        orientations: of a pose search; a thousand are about 17 degrees apart. Four times as many for those that go on.
        candidates: of these, that are refined for each view; four times as many for those that go on.
        steps: of refinement a round.
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
    """A structure as a cloud of weighted points, smooth in its parameters."""

    def random(self, key: Array, size: Array, total: Array) -> Any:
        """Parameters to start from: any pytree.

        Args:
            key: of the random numbers.
            size: root mean square distance of the mass from its centre.
            total: mass.
        """
        ...

    def cloud(self, parameters: Any) -> tuple[Float[Array, "k 3"], Float[Array, " k"]]:
        """Points and their amplitudes."""
        ...


@dataclass(frozen=True)
class PointSources:
    """K points; parameters: (points, amplitudes)."""

    count: int

    def random(self, key: Array, size: Array, total: Array) -> tuple[Array, Array]:
        """Normal about the origin, nearly equal amplitudes."""
        points = size * jax.random.normal(key, (self.count, 3)) / jnp.sqrt(3)
        return points, total / self.count * jnp.linspace(0.8, 1.2, self.count)

    def cloud(self, parameters: tuple[Array, Array]) -> tuple[Array, Array]:
        """The points themselves."""
        return parameters


class Fit(NamedTuple):
    """A structure and its poses: maximum likelihood in white noise.

    Attributes:
        parameters: of the model.
        rotations: (p, 3, 3), X is seen as (R_i X)[:2] + t_i.
        shifts: (p, 2), t.
        residual: (p,), misfit of each view, relative to it.
        used: (p,), which views counted.
    """

    parameters: Any
    rotations: Float[Array, "p 3 3"]
    shifts: Float[Array, "p 2"]
    residual: Float[Array, " p"]
    used: Bool[Array, " p"]


class _State(NamedTuple):
    parameters: Any
    poses: Pose


def fit(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    model: Model,
    *,
    key: Array,
    outlier: float = 3.0,
    effort: Effort = Effort(),  # noqa: B008 - immutable
) -> Fit:
    """Maximum likelihood in white noise of a structure and its poses, from no start.

    Pure: jit it; for many problems `jax.lax.map` keeps memory small.

    Args:
        sampling: kernel, smooth, and grid of all views.
        views: samples.
        model: what is seen.
        key: of the structures and orientations that are tried.
        outlier: a view that fits worse than this many times the median does not count: see `Fit.used`.
        effort: how many starts, rounds and steps.
    """
    require_x64("lfjax.fri")
    p = len(views)
    require_shape("views", views.shape, ("p", sampling.size, sampling.size))
    require(p >= 3, "views", p, "three or more")
    require(outlier > 1, "outlier", outlier, "above 1")
    require(1 <= effort.kept <= effort.starts, "effort.kept", effort.kept, f"1 to effort.starts = {effort.starts}")
    search = PoseSearch(sampling, views)
    size = _extent(sampling, views, search.centres)
    total = jnp.mean(jnp.sum(views, axis=(1, 2))) / sampling.kernel.moment(0) ** 2
    rounding = 1e-12 * jnp.mean(views**2) * sampling.size**2

    def fair(misfits: Array) -> Array:
        return misfits <= outlier * jnp.median(misfits) + rounding

    def score(misfits: Array) -> Array:
        return jnp.sum(jnp.minimum(misfits, outlier * jnp.median(misfits) + rounding))

    def turn(careful: int, parameters: Any, key: Array) -> tuple[Any, tuple[_State, Array]]:
        orientations = random_rotations(key, careful * effort.orientations)
        poses, misfits = search(*model.cloud(parameters), orientations, keep=careful * effort.candidates)
        found = _refine(sampling, views, model, _State(parameters, poses), fair(misfits), effort.steps)
        return found.parameters, (found, score(_misfits(sampling, views, model, found)))

    def rounds(parameters: Any, key: Array, number: int, careful: int = 1) -> tuple[_State, Array]:
        _, (states, scores) = jax.lax.scan(partial(turn, careful), parameters, jax.random.split(key, number))
        best = jnp.argmin(jnp.nan_to_num(scores, nan=jnp.inf))
        return jax.tree.map(lambda leaf: leaf[best], (states, scores))

    def begin(key: Array) -> tuple[_State, Array]:
        first, more = jax.random.split(key)
        return rounds(model.random(first, size, total), more, effort.rounds)

    def finish(state_key: tuple[_State, Array]) -> tuple[_State, Array, Array]:
        state, key = state_key
        again, _ = rounds(state.parameters, key, effort.more, CAREFUL)
        good = fair(_misfits(sampling, views, model, again))
        last = _refine(sampling, views, model, again, good, effort.last)
        return last, score(_misfits(sampling, views, model, last)), good

    first, second = jax.random.split(key)
    states, scores = jax.lax.map(begin, jax.random.split(first, effort.starts))
    best = jnp.argsort(jnp.nan_to_num(scores, nan=jnp.inf))[: effort.kept]
    chosen = jax.tree.map(lambda leaf: leaf[best], states)
    finished, scores, used = jax.lax.map(finish, (chosen, jax.random.split(second, effort.kept)))
    winner = jnp.argmin(jnp.nan_to_num(scores, nan=jnp.inf))
    state, good = jax.tree.map(lambda leaf: leaf[winner], (finished, used))
    residual = jnp.sqrt(_misfits(sampling, views, model, state) / jnp.sum(views**2, axis=(1, 2)))
    return Fit(state.parameters, state.poses.rotation, state.poses.shift, residual, good)


def refine_fit(sampling: Sampling, views: Float[Array, "p m n"], model: Model, start: Fit, *, steps: int = 20) -> Fit:
    """A fit refined on the samples of the views it used: with a finer model, or after a change by hand."""
    state = _State(start.parameters, Pose(start.rotations, start.shifts))
    state = _refine(sampling, views, model, state, start.used, steps)
    residual = jnp.sqrt(_misfits(sampling, views, model, state) / jnp.sum(views**2, axis=(1, 2)))
    return Fit(state.parameters, state.poses.rotation, state.poses.shift, residual, start.used)


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
        sampling: kernel, smooth, and grid of all views.
        views: samples.
        count: K.
        key: of the structures and orientations that are tried.
        outlier: a view that fits worse than this many times the median does not count: see `Structure.used`.
        effort: how many starts, rounds and steps.
    """
    require(count >= 4, "count", count, "four points or more: three lie in a plane")
    found = fit(sampling, views, PointSources(count), key=key, outlier=outlier, effort=effort)
    points, amplitudes = found.parameters
    spread = jnp.linalg.svd(points - points.mean(0), compute_uv=False)
    determined = (spread[2] > FLAT * spread[0]) & (jnp.sum(found.used) >= 3)
    return centred(Structure(points, amplitudes, *found[1:4], determined, found.used))


def _extent(sampling: Sampling, views: Array, centres: Array) -> Array:
    """Root mean square distance of the mass from its centre, from the second moments of the views."""
    n = jnp.asarray(sampling.positions) * sampling.spacing
    away2 = (n - centres[:, 0, None])[:, None, :] ** 2 + (n - centres[:, 1, None])[:, :, None] ** 2
    kernel = sampling.kernel
    blur = 2 * (kernel.moment(2) / kernel.moment(0) - (kernel.moment(1) / kernel.moment(0)) ** 2) * sampling.spacing**2
    variance = 1.5 * (jnp.median(jnp.sum(views * away2, axis=(1, 2)) / jnp.sum(views, axis=(1, 2))) - blur)
    return jnp.sqrt(jnp.clip(variance, sampling.spacing**2, (sampling.size * sampling.spacing / 2) ** 2))


def _misfits(sampling: Sampling, views: Array, model: Model, state: _State) -> Array:
    """|samples - model|^2 of each view."""
    return jnp.sum((view_samples(sampling, *model.cloud(state.parameters), *state.poses) - views) ** 2, axis=(1, 2))


def _refine(sampling: Sampling, views: Array, model: Model, start: _State, good: Bool[Array, " p"], steps: int) -> _State:
    """Parameters and poses on the samples of the good views."""
    p = len(views)
    flat, unravel = ravel_pytree(start.parameters)
    own = len(flat)

    def cloud(flat: Array) -> tuple[Array, Array]:
        return model.cloud(unravel(flat))

    def linearise(state: tuple[Array, Pose]) -> Normal:
        flat, poses = state
        points, amplitudes = cloud(flat)
        slopes, rises = jax.jacfwd(cloud)(flat)

        def one(samples: Array, pose: Pose) -> Normal:
            seen = jnp.concatenate([pose.by_points(slopes), pose.by_pose(points)], axis=1)
            jacobian = jnp.concatenate([seen, jnp.pad(rises, ((0, 0), (0, 5)))])
            return point_normal(sampling, samples, pose.view(points), amplitudes, jacobian)

        each = jax.vmap(one)(views, poses)
        each = jax.tree.map(lambda leaf: jnp.where(good.reshape((-1,) + (1,) * (leaf.ndim - 1)), leaf, 0), each)
        posed = each.matrix[:, own:, own:]
        diagonal = (posed[:, :, None] * jnp.eye(p)[:, None, :, None]).reshape(5 * p, 5 * p)
        side = each.matrix[:, :own, own:].transpose(1, 0, 2).reshape(own, 5 * p)
        matrix = jnp.block([[jnp.sum(each.matrix[:, :own, :own], axis=0), side], [side.T, diagonal]])
        gradient = jnp.concatenate([jnp.sum(each.gradient[:, :own], axis=0), each.gradient[:, own:].ravel()])
        return Normal(jnp.sum(each.cost), gradient, matrix)

    def move(state: tuple[Array, Pose], step: Array) -> tuple[Array, Pose]:
        return state[0] + step[:own], jax.vmap(Pose.move)(state[1], step[own:].reshape(p, 5))

    (flat, poses), _ = descend(linearise, move, (flat, start.poses), steps=steps)
    return _State(unravel(flat), poses)
