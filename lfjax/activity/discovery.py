"""Neurons found by their activity: where a movie flares up over its slow background, and the time courses that prove it."""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from lfjax import parallel, solvers
from lfjax.activity.direct import image_footprints
from lfjax.activity.localise import find_somata
from lfjax.activity.segment import soma_footprints
from lfjax.activity.significance import least_frames, project_movie, significant
from lfjax.activity.spike_search import JGCAMP8F_PULSE
from lfjax.activity.spike_times import Pulse
from lfjax.errors import require, require_shape
from lfjax.linop import LinearOperator
from lfjax.movies.background import SlowBackground
from lfjax.movies.frames import Frames, check_weights
from lfjax.movies.prepare import mean_frame


class Discovery(NamedTuple):
    """Neurons found by their activity.

    Attributes:
        centres_um: (n, 3), (z, y, x) from the corner of the volume, the most significant first.
        p_values: (n,), probability that noise alone makes a transient as large in some frame; see `significant`.
        false_discovery: estimated fraction of places without a neuron that fires; at most the one asked for.
        candidates: number of places that were tested.
        reason: why none was found; empty if some were.
    """

    centres_um: Float[np.ndarray, "n 3"]
    p_values: Float[np.ndarray, " n"]
    false_discovery: float
    candidates: int
    reason: str


def flare_frames(
    frames: Frames,
    frame_s: float,
    background: SlowBackground,
    *,
    weights: ArrayLike | None = None,
    average_s: float = 0.05,
    count: int = 96,
    block: int = 256,
) -> Float[np.ndarray, "k y x"]:
    """The brightest moments of a movie minus its background, averaged over a transient.

    One pass reads the movie in blocks. The score of a moment is its energy over the background in units of shot noise, a mean
    over trusted pixels. Of moments closer than two averages only the brightest is kept.

    Args:
        frames: (t, y, x).
        frame_s: duration of a frame.
        background: fitted to the movie.
        weights: (y, x), trust of each pixel, 0 or more; None: 1.
        average_s: duration over which frames are averaged.
        count: largest number of moments.
        block: frames in memory at a time.

    Returns:
        (k, y, x), clipped at zero.

    Raises:
        ShapeError: `weights` is not a frame.
        ParameterError: a number is out of range, or the movie is shorter than an average.
    """
    require(frame_s > 0, "frame_s", frame_s, "a positive number")
    require(average_s > 0, "average_s", average_s, "a positive number")
    require(count >= 1, "count", count, "1 or more")
    width = max(1, round(average_s / frame_s))
    require(len(frames) >= width, "frames", len(frames), f"{width} or more, the frames of an average")
    trust = np.ones(frames.shape[1:], np.float32) if weights is None else check_weights(weights, frames.shape[1:])
    share, block = trust / trust.sum(), max(block, width)
    kept: list[tuple[float, int, np.ndarray]] = []
    for first in range(0, len(frames), block):
        left = background.remove(frames[first : first + block], first)
        number = len(left) // width
        if not number:
            continue
        means = left[: number * width].reshape(number, width, *left.shape[1:]).mean(1)
        noise = np.sqrt(np.maximum(background.at(first, 1)[0], 1e-6))
        scores = np.sum(share * np.maximum(means / noise, 0) ** 2, axis=(1, 2))
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
    weights: Float[Array, "row col"]
    iterations: int = eqx.field(static=True)

    def __call__(self, y: Float[Array, "row col"]) -> Float[Array, "z y x"]:
        problem = solvers.Problem(self.op, y, self.weights)
        return solvers.solve(solvers.RichardsonLucy(), problem, self.iterations)


def flare_map(
    op: LinearOperator,
    flares: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    iterations: int = 20,
    batch: int = 4,
    mesh: Mesh | None = None,
) -> Float[np.ndarray, "z y x"]:
    """The maximum of each voxel over the volumes of the flares, reconstructed by Richardson-Lucy.

    Args:
        op: H.
        flares: (k, row, col), from `flare_frames`.
        weights: (row, col), trust of each pixel, 0 or more; None: 1.
        iterations: number of iterations per volume.
        batch: volumes at once on each device.
        mesh: devices over which flares are spread; None: the default device.

    Raises:
        ShapeError: the flares, or the weights, are not frames of `op`.
        ParameterError: a weight is negative or not finite, or no pixel is trusted.
    """
    require_shape("flares", np.shape(flares), ("k", *op.out_shape))
    trust = jnp.ones(op.out_shape) if weights is None else jnp.asarray(check_weights(weights, op.out_shape))
    one = _Volume(op, trust, iterations)
    volumes = parallel.over_batch(one, jnp.asarray(flares, jnp.float32), mesh=mesh, batch_size=batch)
    return np.asarray(volumes).max(axis=0)


def discover(
    frames: Frames,
    frame_s: float,
    op: LinearOperator,
    voxel_um: tuple[float, float, float],
    *,
    weights: ArrayLike | None = None,
    diameter_um: float = 12.0,
    pulse: Pulse = JGCAMP8F_PULSE,
    false_discovery: float = 0.05,
    threshold: float = 0.1,
    count: int = 96,
    most: int = 256,
    iterations: int = 20,
    background: SlowBackground | None = None,
    batch: int = 4,
) -> Discovery:
    """Positions of neurons that fired, without a structural volume, at a stated rate of false ones.

    Candidates come from `find_somata` in the square root of the flare map: bursts differ by orders of magnitude, and a
    threshold relative to the brightest would miss most neurons. The flare map has maxima in noise too. The time courses decide:
    `significant` keeps the candidates with transients beyond noise. Tissue that does not fire gives none.

    Args:
        frames: (t, y, x), rectified.
        frame_s: duration of a frame.
        op: H.
        voxel_um: voxel size (z, y, x).
        weights: (row, col), trust of each pixel, 0 or more: the mask of the rectifier. None: all pixels are trusted.
        diameter_um: diameter of a soma.
        pulse: shape of a transient.
        false_discovery: largest expected fraction of places without a neuron that fires.
        threshold: see `find_somata`.
        count: largest number of moments used.
        most: largest number of candidates, the strongest; their images are held in memory.
        iterations: number of iterations per volume.
        background: None: fitted to the movie.
        batch: volumes at once.

    Returns:
        The places, and how sure they are.

    Raises:
        ShapeError: `frames` or `weights` are not frames of `op`.
        ParameterError: a number is out of range, or the movie is too short to tell transients from noise.
    """
    require_shape("frames", tuple(frames.shape), ("t", *op.out_shape))
    require(0 < frame_s < math.inf, "frame_s", frame_s, "a positive number")
    require(0 < false_discovery < 1, "false_discovery", false_discovery, "a fraction between 0 and 1")
    require(most >= 1, "most", most, "1 or more")
    least = least_frames(frame_s, pulse)
    expected = f"{least} or more at {1 / frame_s:g} Hz, to tell transients from noise; a structural volume needs none"
    require(len(frames) >= least, "frames", len(frames), expected)
    trust = None if weights is None else check_weights(weights, op.out_shape)
    slow = SlowBackground.fit(frames, frame_s, weights=trust) if background is None else background
    flares = flare_frames(frames, frame_s, slow, weights=trust, average_s=max(frame_s, pulse.decay_s / 2), count=count)
    bright = np.sqrt(flare_map(op, flares, weights=trust, iterations=iterations, batch=batch))
    places = find_somata(bright, voxel_um, diameter_um=diameter_um, threshold=threshold)[:most]
    if not len(places):
        return Discovery(np.zeros((0, 3)), np.zeros(0), 0.0, 0, "no frame is brighter than the slow background")
    footprints = soma_footprints(places, (op.in_shape[0], op.in_shape[1], op.in_shape[2]), voxel_um, diameter_um=diameter_um)
    seen = project_movie(frames, image_footprints(op, footprints), mean_frame(frames), weights=trust)
    searched = np.prod(np.maximum(np.array(op.in_shape) * np.asarray(voxel_um) / (diameter_um / 2), 1))
    sure = significant(
        seen, places, frame_s, pulse=pulse, places=math.ceil(searched), false_discovery=false_discovery,
        shared_um=3 * diameter_um,
    )  # fmt: skip
    reason = ""
    if not len(sure.chosen):
        reason = "the frames do not change" if sure.still else f"none of {len(places)} places has transients beyond noise"
    return Discovery(places[sure.chosen], sure.p_values, sure.false_discovery, len(places), reason)
