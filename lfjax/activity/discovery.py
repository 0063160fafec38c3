"""Neurons found by their activity: where a movie flares up over its slow background."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from lfjax import parallel, solvers
from lfjax.activity.localise import find_somata
from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.movies.background import SlowBackground
from lfjax.movies.frames import Frames


def flare_frames(
    frames: Frames, frame_s: float, background: SlowBackground, *, average_s: float = 0.05, count: int = 96, block: int = 256
) -> Float[np.ndarray, "k y x"]:
    """The brightest moments of a movie minus its background, averaged over a transient.

    One pass reads the movie in blocks. The score of a moment is its energy over the background in units of shot noise. Of
    moments closer than two averages only the brightest is kept.

    Args:
        frames: (t, y, x).
        frame_s: duration of a frame.
        background: fitted to the movie.
        average_s: duration over which frames are averaged.
        count: largest number of moments.
        block: frames in memory at a time.

    Returns:
        (k, y, x), clipped at zero.

    Raises:
        ParameterError: a number is out of range.
    """
    require(frame_s > 0, "frame_s", frame_s, "a positive number")
    require(average_s > 0, "average_s", average_s, "a positive number")
    require(count >= 1, "count", count, "1 or more")
    width = max(1, round(average_s / frame_s))
    kept: list[tuple[float, int, np.ndarray]] = []
    for first in range(0, len(frames), block):
        left = background.remove(frames[first : first + block], first)
        number = len(left) // width
        if not number:
            continue
        means = left[: number * width].reshape(number, width, *left.shape[1:]).mean(1)
        noise = np.sqrt(np.maximum(background.at(first, 1)[0], 1e-6))
        scores = np.mean(np.maximum(means / noise, 0) ** 2, axis=(1, 2))
        order = np.argsort(-scores)[:count]
        kept += [(float(scores[i]), first // width + int(i), np.maximum(means[i], 0)) for i in order]
        kept = sorted(kept, key=lambda item: -item[0])[: 2 * count]
    chosen: list[tuple[int, np.ndarray]] = []
    for _, at, image in kept:
        if all(abs(at - other) > 1 for other, _ in chosen) and len(chosen) < count:
            chosen.append((at, image))
    return np.stack([image for _, image in chosen])


class _Volume(eqx.Module):
    """The volume of one frame by Richardson-Lucy."""

    op: LinearOperator
    iterations: int = eqx.field(static=True)

    def __call__(self, y: Float[Array, "row col"]) -> Float[Array, "z y x"]:
        problem = solvers.Problem(self.op, y)
        return solvers.solve(solvers.RichardsonLucy(), problem, self.iterations)


def flare_map(
    op: LinearOperator, flares: ArrayLike, *, iterations: int = 20, batch: int = 4, mesh: Mesh | None = None
) -> Float[np.ndarray, "z y x"]:
    """The maximum of each voxel over the volumes of the flares, reconstructed by Richardson-Lucy.

    Args:
        op: H.
        flares: (k, row, col), from `flare_frames`.
        iterations: number of iterations per volume.
        batch: volumes at once on each device.
        mesh: devices over which flares are spread; None: the default device.
    """
    volumes = parallel.over_batch(_Volume(op, iterations), jnp.asarray(flares, jnp.float32), mesh=mesh, batch_size=batch)
    return np.asarray(volumes).max(axis=0)


def discover(
    frames: Frames,
    frame_s: float,
    op: LinearOperator,
    voxel_um: tuple[float, float, float],
    *,
    diameter_um: float = 12.0,
    threshold: float = 0.1,
    count: int = 96,
    iterations: int = 20,
    background: SlowBackground | None = None,
    batch: int = 4,
) -> Float[np.ndarray, "n 3"]:
    """Positions of neurons that fired, without a structural volume.

    `find_somata` searches the square root of the flare map: bursts differ by orders of magnitude, and a threshold relative to
    the brightest would miss most neurons.

    Args:
        frames: (t, y, x), rectified.
        frame_s: duration of a frame.
        op: H.
        voxel_um: voxel size (z, y, x).
        diameter_um: diameter of a soma.
        threshold: see `find_somata`.
        count: largest number of moments used.
        iterations: number of iterations per volume.
        background: None: fitted to the movie.
        batch: volumes at once.

    Returns:
        (n, 3), (z, y, x) in um from the corner of the volume, strongest first.

    Raises:
        ParameterError: a number is out of range.
    """
    slow = SlowBackground.fit(frames, frame_s) if background is None else background
    flares = flare_frames(frames, frame_s, slow, count=count)
    bright = np.sqrt(flare_map(op, flares, iterations=iterations, batch=batch))
    return find_somata(bright, voxel_um, diameter_um=diameter_um, threshold=threshold)
