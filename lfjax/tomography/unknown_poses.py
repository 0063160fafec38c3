"""A map from images of unknown pose: expectation maximisation from nothing, band by band.

    y_i(k) = c_i(k) V^(R_i^T k) exp(-2 pi i k.t_i / n) + noise,   R_i uniform, t_i normal, V^ and noise normal in each shell

`schedule` says which passes are made, `passes` what a pass is. Each start begins with noise in a ball; the residuals of a wrong
map are large and flatten the posteriors, so that the search anneals by itself, and the evidence tells which start came out
best. The hand cannot be known: the mirrored map, turned, explains single views as well. An anisotropic magnification of the
optics counts in balls and maps; grids of all rotations, whose frequencies are low, do without.

Sources: Sigworth, J. Struct. Biol. 122, 328 (1998); Scheres, J. Mol. Biol. 415, 406 (2012).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from lfjax.errors import require
from lfjax.tomography import schedule
from lfjax.tomography.bands import Band, band_of
from lfjax.tomography.image_batches import Stack
from lfjax.tomography.joint_refinement import refine_together
from lfjax.tomography.particles import Particles
from lfjax.tomography.passes import Poses
from lfjax.tomography.pose_search import Pass, PoseSearch, tell_doubts
from lfjax.tomography.posterior_map import Estimate, resolved
from lfjax.tomography.schedule import Step

FEW = 100  # images up to which more starts are made
CLEAN = 0.3  # share of the images' power left at the rim of the last band below which poses are refined by their gradient,
AT_ONCE = 2**26  # in sets of at most so many pixels
JUDGED = 3  # last passes of a start whose mean evidence counts


class State(NamedTuple):
    """A search after some passes; `abinitio` resumes from it.

    Attributes:
        done: number of passes done.
        near: number of bands to search in balls, as far as it is decided.
        estimate: map, prior and noise.
        poses: poses of the images.
        leader: estimate and poses of the best start so far.
        evidence: evidence of each start.
        history: lines of the passes.
    """

    done: int
    near: int
    estimate: Estimate
    poses: Poses
    leader: tuple[Estimate, Poses]
    evidence: tuple[float, ...]
    history: tuple[Pass, ...]


class AbInitio(NamedTuple):
    """Poses found and their map.

    Attributes:
        particles: the particles with their poses and displacements, posterior means about the best pose.
        poses: posterior of each image.
        estimate: map of the last band on the images' scale, prior and noise.
        band: the last band.
        good: probability of each image to show the particle.
        evidence: mean log-evidence of an image for each start.
        history: lines of the passes.
        explained: share of the images' signal that the map explains; about 1 for the right map, see `PoseSearch.explained`.
    """

    particles: Particles
    poses: Poses
    estimate: Estimate
    band: Band
    good: Float[NDArray[np.float32], " n"]
    evidence: tuple[float, ...]
    history: tuple[Pass, ...]
    explained: float


def abinitio(
    images: Stack,
    particles: Particles,
    *,
    radius_angstrom: float | None = None,
    symmetry: str = "C1",
    restarts: int | None = None,
    shift_px: float = 0.0,
    key: Array,
    noise: Float[ArrayLike, "groups r"] | None = None,
    mesh: Mesh | None = None,
    state: State | None = None,
    keep: Callable[[State], Any] | None = None,
) -> AbInitio:
    """Poses and a map of images, without any pose to begin with.

    Args:
        images: (n, y, x), particles bright, backgrounds of mean 0; an array, or an object with a shape and `[indices]`.
        particles: optics of the images, and the shifts about which they are searched; rotations are ignored.
        radius_angstrom: radius of the ball that holds the particle; None: 0.42 of the box. Boxes far larger than that hide a
            particle in noise: cut them with `neighbours.CutImages`.
        symmetry: point group of the particle.
        restarts: starts; None: 4, and 8 for up to 100 images.
        shift_px: standard deviation of the displacements along each axis, pixels; 0: particles are centred.
        key: random key.
        noise: relative noise power of each optics group and shell; None: white.
        mesh: devices over which the images are spread.
        state: where an earlier call stopped; None: from nothing.
        keep: called with the state after every pass.

    Raises:
        ShapeError: images and particles do not agree.
        ParameterError: an argument is out of range.

    Warns:
        DataWarning: the images do not determine their poses, see `tell_doubts`, or the boxes are far larger than the ball.
    """
    search = PoseSearch(
        images, particles, radius_angstrom=radius_angstrom, symmetry=symmetry, shift_px=shift_px, noise=noise, mesh=mesh
    )
    return run(search, key, restarts, state=state, keep=keep)


def run(
    search: PoseSearch,
    key: Array,
    restarts: int | None = None,
    *,
    state: State | None = None,
    keep: Callable[[State], Any] | None = None,
) -> AbInitio:
    """All passes of `abinitio` that are left."""
    starts = (8 if len(search.images) <= FEW else 4) if restarts is None else restarts
    require(starts >= 1, "restarts", restarts, "1 or more")
    if state is None:
        nothing = search.first_map(key), Poses.unknown(len(search.images))
        state = State(0, 2, *nothing, nothing, (), ())
    while True:
        plan = search.plan(starts, state.near)
        if state.done < len(plan):
            state = _after(search, key, state, plan[state.done])
            if keep is not None:
                keep(state)
        elif schedule.more_bands(state.near, resolved(state.estimate, plan[-1].limit), search.radius, search.nyquist):
            state = state._replace(near=state.near + 1)
        else:
            last = band_of(plan[-1].limit)
            explained = search.explained(state.estimate)
            tell_doubts(state.history, state.poses, search.shift_px, explained)
            found, poses = search.particles_at(state.poses), state.poses
            if state.history[-1].noise < CLEAN and len(found) * search.images.pixels**2 <= AT_ONCE:
                found = refine_together(search.images.images[np.arange(len(found))], found)
            return AbInitio(found, poses, state.estimate, last, poses.good, state.evidence, state.history, explained)


def _after(search: PoseSearch, key: Array, state: State, step: Step) -> State:
    """The state after a pass."""
    turn = jax.random.fold_in(key, state.done)
    estimate, poses = state.estimate, state.poses
    if step.kind == "coarse" and step.turn == 0:
        estimate, poses = search.first_map(turn), Poses.unknown(len(search.images))
    elif step.kind == "whole":
        estimate, poses = state.leader
    index = search.chosen(step, poses, key)
    before = estimate
    estimate, poses = search.advance(step, before, poses, turn, index)
    line = search.line(state.done, step, before, estimate, poses, index)
    state = state._replace(done=state.done + 1, estimate=estimate, poses=poses, history=(*state.history, line))
    if step.kind == "coarse" and step.last:
        evidence = float(np.mean([passed.evidence for passed in state.history[-JUDGED:]]))
        best = not state.evidence or evidence > max(state.evidence)
        state = state._replace(evidence=(*state.evidence, evidence))
        return state._replace(leader=(estimate, poses)) if best else state
    return state
