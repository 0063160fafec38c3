"""Number of iterations: more confine a neuron's light in space and lower its temporal signal-to-noise ratio."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from lfjax.activity.fluorescence import dff
from lfjax.activity.measures import confinement, peak_snr_db
from lfjax.activity.segment import soma_footprints
from lfjax.errors import require, require_shape
from lfjax.linop import LinearOperator
from lfjax.solvers.base import Solver, State, in_own_units
from lfjax.solvers.problem import Problem
from lfjax.solvers.richardson_lucy import RichardsonLucy

AROUND = 4  # radii around a neuron within which light counts as its own


class IterationTradeoff(NamedTuple):
    """Confinement and temporal SNR against iterations, medians over neurons.

    Attributes:
        iterations: (k,).
        confinement: (k,), fraction of a neuron's activity within four radii that lies within one.
        snr_db: (k,), `peak_snr_db` of the traces.
        best: the number of iterations at the knee.
    """

    iterations: tuple[int, ...]
    confinement: Float[np.ndarray, " k"]
    snr_db: Float[np.ndarray, " k"]
    best: int


def iteration_tradeoff(
    frames: ArrayLike,
    op: LinearOperator,
    centres_um: ArrayLike,
    voxel_um: tuple[float, float, float],
    frame_s: float,
    *,
    iterations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64),
    solver: Solver | None = None,
    radius_um: float = 10.0,
    diameter_um: float = 12.0,
    batch: int = 4,
) -> IterationTradeoff:
    """Confinement and temporal SNR of known neurons in the volumes of some frames after increasing numbers of iterations.

    The activity of a neuron is the mean volume of its brightest twentieth of frames minus that of its darker half, clipped at
    zero, within four radii, which excludes other neurons further away.

    Args:
        frames: (t, row, col), rectified; a few hundred with activity, all of whose volumes fit into memory.
        op: H.
        centres_um: (n, 3), (z, y, x) of neurons from the corner of the volume.
        voxel_um: voxel size (z, y, x).
        frame_s: duration of a frame.
        iterations: increasing numbers.
        solver: with its step size; None: Richardson-Lucy.
        radius_um: radius of the confinement.
        diameter_um: diameter of a soma; its Gaussian weighs the trace.
        batch: frames at once.

    Raises:
        ShapeError: `frames` are not frames of `op`.
        ParameterError: the iterations do not increase.

    Source: Howe et al., Neurophotonics 9, 041404 (2022), for the trade-off.
    """
    rising = all(a < b for a, b in zip((0, *iterations), iterations, strict=False))
    require(len(iterations) > 0 and rising, "iterations", iterations, "increasing numbers, 1 or more")
    require_shape("frames", np.shape(frames), ("t", *op.out_shape))
    method: Any = RichardsonLucy() if solver is None else solver
    y = jnp.maximum(jnp.asarray(frames, jnp.float32), 0)
    z, rows, columns = op.in_shape
    weights = soma_footprints(centres_um, (z, rows, columns), voxel_um, diameter_um=diameter_um)
    states, units = _begin(method, op, y, batch)
    confined, ratio, done = [], [], 0
    for count in iterations:
        states, done = _advance(method, op, y, states, jnp.asarray(count - done), batch), count
        volumes = np.asarray(states.x) * np.asarray(units)[:, None, None, None]
        traces = np.einsum("nzyx,tzyx->nt", weights, volumes)
        ratio.append(float(np.median(peak_snr_db(dff(traces, frame_s)))))
        shares = []
        for trace, centre in zip(traces, np.asarray(centres_um, float), strict=True):
            bright, dark = trace >= np.percentile(trace, 95), trace <= np.median(trace)
            active = np.maximum(volumes[bright].mean(0) - volumes[dark].mean(0), 0)
            active = np.where(_distance(active.shape, centre, voxel_um) < AROUND * radius_um, active, 0)
            if active.sum() > 0:
                shares.append(confinement(active, centre, voxel_um, radius_um))
        confined.append(float(np.median(shares)) if shares else 0.0)
    return IterationTradeoff(iterations, np.array(confined), np.array(ratio), iterations[knee(confined, ratio)])


@eqx.filter_jit
def _begin(
    solver: Solver, op: LinearOperator, frames: Float[Array, "t row col"], batch: int
) -> tuple[State, Float[Array, " t"]]:
    """The first state of every frame, in the frame's own units, and these units."""

    def one(y: Array) -> tuple[State, Array]:
        own, problem, units = in_own_units(solver, Problem(op, y))
        return own.init(problem, None), units.data

    return jax.lax.map(one, frames, batch_size=batch)


@eqx.filter_jit
def _advance(
    solver: Solver,
    op: LinearOperator,
    frames: Float[Array, "t row col"],
    states: State,
    count: Int[Array, ""],
    batch: int,
) -> State:
    """`count` iterations of every frame; traced, so that one program serves all counts."""

    def one(given: tuple[Array, State]) -> State:
        y, state = given
        own, problem, _ = in_own_units(solver, Problem(op, y))
        return jax.lax.fori_loop(0, count, lambda _, state: own.step(problem, state), state)

    return jax.lax.map(one, (frames, states), batch_size=batch)


def _distance(
    shape: tuple[int, ...], centre: Float[np.ndarray, "3"], voxel_um: tuple[float, float, float]
) -> Float[np.ndarray, "z y x"]:
    lengths = zip(shape, voxel_um, centre, strict=True)
    z, y, x = (((np.arange(n) + 0.5) * v - c) ** 2 for n, v, c in lengths)
    return np.sqrt(z[:, None, None] + y[:, None] + x)


def knee(rising: ArrayLike, falling: ArrayLike) -> int:
    """Index at which the sum of two curves, each scaled to 0 to 1, is largest: beyond it the loss outweighs the gain.

    Args:
        rising: (k,).
        falling: (k,).
    """
    parts = []
    for values in (rising, falling):
        v = np.asarray(values, float)
        spread = v.max() - v.min()
        parts.append((v - v.min()) / spread if spread > 0 else np.zeros_like(v))
    return int(np.argmax(parts[0] + parts[1]))
