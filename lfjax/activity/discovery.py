"""Neurons found by what they do: where a movie flares up over its slow background."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax import parallel, solvers
from lfjax.activity.localise import find_somata
from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.movies.background import SlowBackground


def flare_frames(
    frames: Any, frame_s: float, background: SlowBackground, *, average_s: float = 0.05, count: int = 96, block: int = 256
) -> Float[np.ndarray, "k y x"]:
    """What the brightest moments of a movie have over its background, averaged over a transient.

    The movie is read once, in blocks. A moment is scored by its energy over the background in units of shot noise; moments
    nearer to each other than two averages are one.

    Args:
        frames: (t, y, x).
        frame_s: time of a frame.
        background: of the movie.
        average_s: time over which frames are averaged.
        count: moments at most.
        block: frames in memory at a time.

    Returns:
        (k, y, x), zero or more.
    """
    require(frame_s > 0, "frame_s", frame_s, "a positive number")
    require(average_s > 0, "average_s", average_s, "a positive number")
    require(count >= 1, "count", count, "1 or more")
    width = max(1, round(average_s / frame_s))
    kept: list[tuple[float, int, np.ndarray]] = []
    for first in range(0, len(frames), block):
        left = background.remove(np.asarray(frames[first : first + block]), first)
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


def flare_map(
    op: LinearOperator, flares: Float[np.ndarray, "k y x"], *, iterations: int = 20, batch: int = 4, mesh: Any = None
) -> Float[np.ndarray, "z y x"]:
    """The brightest that any voxel becomes in the volumes of the flares, by Richardson-Lucy."""
    solver: Any = solvers.RichardsonLucy()

    def volume(y: Array) -> Array:
        problem = solvers.Problem(op, y)
        return solvers.iterate(solver, problem, solver.init(problem, None), iterations)[0].x

    reconstruct: Callable[[Array], Array] = jax.tree_util.Partial(volume)
    found = parallel.over_batch(reconstruct, jnp.asarray(flares, jnp.float32), mesh=mesh, batch_size=batch)
    return np.asarray(jnp.max(found, axis=0))


def discover(
    frames: Any,
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
    """Places of neurons that fired, without a structural volume.

    Somata are sought in the square root of the flare map: bursts differ by orders of magnitude, and a threshold relative to the
    brightest would leave out most neurons.

    Args:
        frames: rectified (t, y, x): an array, or `io.open_movie`.
        frame_s: time of a frame.
        op: H.
        voxel_um: voxel size (z, y, x).
        diameter_um: of a soma.
        threshold: see `find_somata`.
        count: moments that are looked at.
        iterations: for the volume of each.
        background: fitted here if not given.
        batch: volumes at once.

    Returns:
        (z, y, x) in um, from the corner of the volume, strongest first.
    """
    slow = SlowBackground.fit(frames, frame_s) if background is None else background
    flares = flare_frames(frames, frame_s, slow, count=count)
    bright = np.sqrt(flare_map(op, flares, iterations=iterations, batch=batch))
    return find_somata(bright, voxel_um, diameter_um=diameter_um, threshold=threshold)
