"""From a movie of frames to a movie of volumes: streamed, spread over devices, and resumed after any interruption.

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
from numpy.typing import ArrayLike

from lfjax import parallel, solvers
from lfjax.errors import require, require_shape
from lfjax.io.chunks import Chunks, ome_attributes, stream
from lfjax.io.lock import locked
from lfjax.linop import LinearOperator
from lfjax.movies.frames import Frames

WARM = ("none", "background", "previous")


class FrameSolver(eqx.Module):
    """A fixed number of iterations of a solver on one frame, compiled once for a whole movie.

    Attributes:
        op: H, volume (z, y, x) -> light field (row, col).
        solver: any of `lfjax.solvers`. Fix its step size, or every frame computes it anew (see `frame_solver`).
        weights: (row, col), weight of each pixel; None: 1.
        start: (z, y, x), the first iterate; None: the solver's own.
        iterations: number of iterations.
    """

    op: LinearOperator
    solver: solvers.Solver
    weights: Float[Array, "row col"] | None
    start: Float[Array, "z y x"] | None
    iterations: int = eqx.field(static=True)

    def __call__(self, y: Float[Array, "row col"], start: Float[Array, "z y x"] | None = None) -> Float[Array, "z y x"]:
        """The volume of one frame; `start` takes precedence over the attribute."""
        problem = solvers.Problem(self.op, y, self.weights)
        return solvers.solve(self.solver, problem, self.iterations, self.start if start is None else start)


def frame_solver(
    make: Callable[[solvers.Problem], solvers.Solver],
    op: LinearOperator,
    mean: ArrayLike,
    iterations: int,
    *,
    weights: ArrayLike | None = None,
    warm: bool = True,
) -> FrameSolver:
    """A solver for all frames of a movie, set up on their mean: step size, sparsity, and the background that it starts from.

    Args:
        make: problem -> solver, for example `lambda p: solvers.ISTA(1e-2 * p.lambda_max(), 1 / p.lipschitz())`; called once.
        op: H.
        mean: (row, col), mean of some frames.
        iterations: number of iterations per frame.
        weights: (row, col), weight of each pixel.
        warm: whether frames start from the volume of the mean, computed with five times as many iterations.

    Raises:
        ShapeError: `mean` is not a frame of `op`.
        ParameterError: no iterations.
    """
    require_shape("mean", np.shape(mean), op.out_shape)
    require(iterations >= 1, "iterations", iterations, "1 or more")
    weights = None if weights is None else jnp.asarray(weights)
    problem = solvers.Problem(op, jnp.asarray(np.maximum(mean, 0), jnp.result_type(float)), weights)
    solver = make(problem)
    start = None
    if warm:
        start = solvers.run(solver, problem, 5 * iterations).x
        floor = 1e-3 * jnp.mean(start)  # multiplicative solvers never leave zero
        start = jnp.maximum(start, floor) if solver.needs_counts else start
    return FrameSolver(op, solver, weights, start, iterations)


class _Sequential(eqx.Module):
    """Frames one after another, each starting from the volume of the frame before, the first from `start`."""

    reconstruct: Callable[[Array, Array], Array]

    def __call__(self, frames: Float[Array, "t row col"], start: Float[Array, "z y x"]) -> Float[Array, "t z y x"]:
        def one(x: Array, y: Array) -> tuple[Array, Array]:
            x = self.reconstruct(y, x)
            return x, x

        return jax.lax.scan(one, start, frames)[1]


def reconstruct_movie(
    frames: Frames,
    reconstruct: Callable[..., Array],
    path: str | Path,
    shape: tuple[int, int, int],
    voxel_um: tuple[float, float, float],
    *,
    frame_s: float,
    origin_um: tuple[float, float, float] = (0.0, 0.0, 0.0),
    size: int = 16,
    batch: int = 4,
    start: ArrayLike | None = None,
    mesh: Mesh | None = None,
    process: parallel.Process | None = None,
    settings: Mapping[str, Any] | None = None,
    track: Callable[..., Any] | None = None,
) -> Path:
    """Volumes of all frames, as OME-Zarr (t, z, y, x); after an interruption, the same call resumes at the first missing chunk.

    Memory holds three chunks of frames and of volumes, whatever the length of the movie: one is read, one is computed, one is
    written.

    Args:
        frames: (t, y, x), light fields: an array, `io.open_movie`, or the frames of `light_fields`.
        reconstruct: frame -> volume, traceable: `FrameSolver`, `models.UnfoldedISTA`, `training.TrainedModel.network`.
        path: folder to write, ending with .zarr.
        shape: voxels (z, y, x) of a volume.
        voxel_um: voxel size (z, y, x).
        frame_s: duration of a frame.
        origin_um: middle of the first voxel (z, y, x), stored in the file.
        size: frames per chunk.
        batch: frames at once on each device.
        start: (z, y, x), for sequential reconstruction on one device: each frame starts from the volume of the frame before,
            and the first frame of each chunk from this volume, so that chunks stay independent. `reconstruct` then takes
            (frame, start).
        mesh: devices over which frames are spread; None: the default device.
        process: from `parallel.join`; each process takes its own chunks.
        settings: the settings that determine the result, stored with it; resuming with different settings raises FileError.
        track: see `lfjax.progress.track`.

    Returns:
        `path`.

    Raises:
        FileError: the result exists already, or an interrupted run had other settings.
        BusyError: another process writes the result.
        NoSpaceError: the disk is full; the chunks that were written stay, and the same call resumes.
        ParameterError: a number is out of range.
    """
    require(frame_s > 0, "frame_s", frame_s, "a positive number of seconds")
    require(batch >= 1, "batch", batch, "1 or more frames")
    require(start is None or mesh is None or mesh.size == 1, "mesh", mesh, "one device for sequential reconstruction")
    sequential = eqx.filter_jit(_Sequential(reconstruct))

    def volumes(block: np.ndarray) -> Mapping[str, Array]:
        y = jnp.asarray(block, jnp.float32)
        if start is not None:
            return {"0": sequential(y, jnp.asarray(start))}
        return {"0": parallel.over_batch(reconstruct, y, mesh=mesh, batch_size=batch)}

    name = Path(path).name.removesuffix(".zarr").removesuffix(".ome")
    with locked(path, 0 if process is None else process.number):
        result = Chunks(path, len(frames), size, {"0": shape}, dict(settings or {}), process, {"0": "tzyx"})
        stream(frames, result, volumes, track=track)
        return result.finish(ome_attributes(name, "tzyx", (frame_s, *voxel_um), origin=(0.0, *origin_um)))
