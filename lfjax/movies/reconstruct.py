"""From a movie of frames to a movie of volumes: streamed, batched over devices, and resumed after any interruption.

>>> import numpy as np, tempfile, pathlib
>>> folder = pathlib.Path(tempfile.mkdtemp())
>>> frames = np.ones((5, 4, 4), np.float32)
>>> path = reconstruct_movie(frames, lambda y: y[None], folder / "out.zarr", (1, 4, 4), (1.0, 1.0, 1.0), frame_s=0.01)
>>> path.name
'out.zarr'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lfjax import parallel, solvers
from lfjax.errors import require, require_shape
from lfjax.io.chunks import Chunks, ome_attributes, stream
from lfjax.linop import LinearOperator

WARM = ("none", "background", "previous")


class FrameSolver(eqx.Module):
    """A fixed number of iterations of a solver on one frame: what is compiled once for a whole movie.

    Attributes:
        op: H, volume (z, y, x) -> light field (y, x).
        solver: any of `lfjax.solvers`, with its step size fixed, or it is found anew for every frame (see `frame_solver`).
        weights: (y, x), of the pixels; None is 1.
        start: (z, y, x), where iterations start; None is the solver's own start.
        iterations: how many.
    """

    op: LinearOperator
    solver: Any
    weights: Array | None
    start: Float[Array, "z y x"] | None
    iterations: int = eqx.field(static=True)

    def __call__(self, y: Float[Array, "y x"], start: Float[Array, "z y x"] | None = None) -> Float[Array, "z y x"]:
        """The volume of one frame; `start` goes before the solver's own."""
        problem = solvers.Problem(self.op, y, self.weights)
        state = self.solver.init(problem, self.start if start is None else start)
        return solvers.iterate(self.solver, problem, state, self.iterations)[0].x


def frame_solver(
    make: Callable[[solvers.Problem], Any],
    op: LinearOperator,
    mean: Float[Array, "y x"],
    iterations: int,
    *,
    weights: Float[Array, "y x"] | None = None,
    warm: bool = True,
) -> FrameSolver:
    """A solver for all frames of a movie, set up on their mean: step size, sparsity, and the background that it starts from.

    Args:
        make: problem -> solver, for example `lambda p: solvers.ISTA(1e-2 * p.lambda_max(), 1 / p.lipschitz())`; called once.
        op: H.
        mean: of some frames.
        iterations: for each frame.
        weights: of the pixels.
        warm: whether frames start from the volume of the mean, found by five times as many iterations.

    Raises:
        ShapeError: `mean` is no frame of `op`.
        ParameterError: no iterations.
    """
    require_shape("mean", mean.shape, op.out_shape)
    require(iterations >= 1, "iterations", iterations, "1 or more")
    problem = solvers.Problem(op, jnp.maximum(jnp.asarray(mean), 0), weights)
    solver = make(problem)
    start = None
    if warm:
        start = solvers.run(solver, problem, 5 * iterations).x
        floor = 1e-3 * jnp.mean(start)  # from zero, multiplicative solvers would not come back
        start = jnp.maximum(start, floor) if getattr(solver, "needs_counts", False) else start
    return FrameSolver(op, solver, weights, start, iterations)


class _InTurn(eqx.Module):
    """Frames one after another, each starting where the last one ended; the first from the background."""

    reconstruct: Any

    def __call__(self, frames: Float[Array, "t y x"], start: Float[Array, "z y x"]) -> Float[Array, "t z y x"]:
        def one(x: Array, y: Array) -> tuple[Array, Array]:
            x = self.reconstruct(y, x)
            return x, x

        return jax.lax.scan(one, start, frames)[1]


def reconstruct_movie(
    frames: Any,
    reconstruct: Callable[..., Any],
    path: str | Path,
    shape: tuple[int, int, int],
    voxel_um: tuple[float, float, float],
    *,
    frame_s: float,
    origin_um: tuple[float, float, float] = (0.0, 0.0, 0.0),
    size: int = 16,
    batch: int = 4,
    start: Float[Array, "z y x"] | None = None,
    mesh: Mesh | None = None,
    process: parallel.Process | None = None,
    settings: Mapping[str, Any] | None = None,
    track: Callable[..., Any] | None = None,
) -> Path:
    """Volumes of all frames, as OME-Zarr (t, z, y, x); run again after an interruption, it goes on at the first missing chunk.

    What is in memory is three chunks of frames and of volumes, whatever the length of the movie: one that is read, one that is
    computed, one that is written.

    Args:
        frames: (t, y, x), light fields: an array, `io.open_movie`, or what `recordings.light_fields` makes of raw frames.
        reconstruct: frame -> volume, traceable: `FrameSolver`, `models.UnfoldedISTA`, `training.TrainedModel.network`.
        path: of the result, a folder ending with .zarr.
        shape: of a volume (z, y, x).
        voxel_um: voxel size (z, y, x).
        frame_s: time of a frame.
        origin_um: middle of the first voxel (z, y, x), which the file tells.
        size: frames a chunk.
        batch: frames at once on each device.
        start: with it, frames go in turn on one device, each starting from the volume of the frame before, and each chunk from
            this volume, so that chunks do not depend on each other; `reconstruct` then takes (frame, start).
        mesh: devices over which frames are spread; None is the device at hand.
        process: from `parallel.join`; each process takes its own chunks.
        settings: what decides the result, kept with it; a run with others is not gone on with.
        track: see `lfjax.progress.track`.

    Returns:
        `path`.

    Raises:
        FileError: the result is there already, or was begun with other settings.
        ParameterError: a number outside its meaning.
    """
    require(frame_s > 0, "frame_s", frame_s, "a positive number of seconds")
    require(batch >= 1, "batch", batch, "1 or more frames")
    require(start is None or mesh is None or mesh.size == 1, "mesh", mesh, "one device where frames go in turn")
    result = Chunks(path, len(frames), size, {"0": shape}, dict(settings or {}), process, {"0": "tzyx"})
    in_turn = eqx.filter_jit(_InTurn(reconstruct))

    def volumes(block: np.ndarray) -> Mapping[str, Any]:
        y = jnp.asarray(block, jnp.float32)
        if start is not None:
            return {"0": in_turn(y, start)}
        return {"0": parallel.over_batch(reconstruct, y, mesh=mesh, batch_size=batch)}

    stream(frames, result, volumes, track=track)
    name = Path(path).name.removesuffix(".zarr").removesuffix(".ome")
    return result.finish(ome_attributes(name, "tzyx", (frame_s, *voxel_um), origin=(0.0, *origin_um)))
