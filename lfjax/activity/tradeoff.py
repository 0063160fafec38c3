"""How many iterations: more of them confine a neuron's light in space and lower its temporal signal-to-noise ratio."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from lfjax import solvers
from lfjax.activity.fluorescence import dff
from lfjax.activity.measures import confinement, peak_snr_db
from lfjax.activity.segment import soma_footprints
from lfjax.errors import require, require_shape
from lfjax.linop import LinearOperator

AROUND = 4  # radii around a neuron within which light counts


class IterationTradeoff(NamedTuple):
    """Both sides of the trade, medians over neurons.

    Attributes:
        iterations: (k,).
        confinement: (k,), share of a neuron's activity within the radius, of what is within four.
        snr_db: (k,), `peak_snr_db` of the traces.
        best: of `iterations`, the one at the knee.
    """

    iterations: tuple[int, ...]
    confinement: Float[np.ndarray, " k"]
    snr_db: Float[np.ndarray, " k"]
    best: int


def iteration_tradeoff(
    frames: Float[np.ndarray, "t y x"],
    op: LinearOperator,
    centres_um: ArrayLike,
    voxel_um: tuple[float, float, float],
    frame_s: float,
    *,
    iterations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64),
    solver: Any = None,
    radius_um: float = 10.0,
    diameter_um: float = 12.0,
    batch: int = 4,
) -> IterationTradeoff:
    """Volumes of some frames after more and more iterations, and what that does to known neurons.

    The activity of a neuron is what the mean of its brightest twentieth of frames has over the mean of its darker half, within
    four radii: what others do further away is not its own.

    Args:
        frames: (t, y, x), rectified; a few hundred with activity, all of whose volumes have to fit into memory.
        op: H.
        centres_um: (n, 3), of neurons.
        voxel_um: voxel size (z, y, x).
        frame_s: time of a frame.
        iterations: rising numbers.
        solver: with its step size; Richardson-Lucy if not given.
        radius_um: of the confinement.
        diameter_um: of a soma; its Gaussian weighs the trace.
        batch: frames at once.

    Raises:
        ParameterError: iterations that do not rise.

    Source: the trade is that of Howe et al., Neurophotonics 9, 041404 (2022).
    """
    rising = all(a < b for a, b in zip((0, *iterations), iterations, strict=False))
    require(len(iterations) > 0 and rising, "iterations", iterations, "rising numbers, 1 or more")
    require_shape("frames", np.shape(frames), ("t", *op.out_shape))
    method: Any = solvers.RichardsonLucy() if solver is None else solver
    shape: Any = op.in_shape
    y = jnp.maximum(jnp.asarray(frames, jnp.float32), 0)
    weights = soma_footprints(centres_um, shape, voxel_um, diameter_um=diameter_um)

    def begin(frame: Any) -> Any:
        return method.init(solvers.Problem(op, frame), None)

    def more(given: Any, count: int) -> Any:
        frame, state = given
        return solvers.iterate(method, solvers.Problem(op, frame), state, count)[0]

    states = jax.jit(lambda y: jax.lax.map(begin, y, batch_size=batch))(y)
    advance = jax.jit(
        lambda y, states, count: jax.lax.map(lambda given: more(given, count), (y, states), batch_size=batch), static_argnums=2
    )
    confined, ratio, done = [], [], 0
    for count in iterations:
        states, done = advance(y, states, count - done), count
        volumes = np.asarray(states.x)
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


def _distance(shape: tuple[int, ...], centre: np.ndarray, voxel_um: tuple[float, float, float]) -> np.ndarray:
    lengths = zip(shape, voxel_um, centre, strict=True)
    z, y, x = (((np.arange(n) + 0.5) * v - c) ** 2 for n, v, c in lengths)
    return np.sqrt(z[:, None, None] + y[:, None] + x)


def knee(rising: ArrayLike, falling: ArrayLike) -> int:
    """Where what is won by going on no longer outweighs what is lost: the largest sum of both, each scaled to 0 to 1.

    Args:
        rising: (k,).
        falling: (k,).

    Returns:
        Its number.
    """
    parts = []
    for values in (rising, falling):
        v = np.asarray(values, float)
        spread = v.max() - v.min()
        parts.append((v - v.min()) / spread if spread > 0 else np.zeros_like(v))
    return int(np.argmax(parts[0] + parts[1]))
