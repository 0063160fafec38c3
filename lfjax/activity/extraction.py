"""From frames to neurons by the direct path: footprints go through H once, and frames give time courses, without volumes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import zarr
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from lfjax import parallel
from lfjax.activity.direct import Images, image_footprints, photon_weights
from lfjax.activity.fluorescence import dff, peak_dff
from lfjax.activity.neurons import Neurons
from lfjax.activity.spike_times import Pulse, spikes
from lfjax.errors import require, require_shape
from lfjax.io.chunks import Chunks, stream
from lfjax.linop import LinearOperator
from lfjax.simulate.calcium import JGCAMP8F
from lfjax.solvers import nonnegative_least_squares

JGCAMP8F_PULSE = Pulse(*JGCAMP8F.time_constants_s)


def direct_images(
    op: LinearOperator,
    footprints: Float[np.ndarray, "n z y x"],
    mean: Float[Array, "y x"],
    *,
    neuropil: Float[np.ndarray, "m z y x"] | None = None,
    rest: bool = True,
    batch: int = 1,
) -> Images:
    """Images of everything that shines: footprints first, then neuropil, then what the two do not explain of the mean frame.

    Args:
        op: H.
        footprints: of neurons.
        mean: mean frame of the movie; it also weighs the pixels (`photon_weights`).
        neuropil: footprints of it, as `neuropil_rings`.
        rest: whether the unexplained part of the mean, light from outside of the volume, is a component of its own.
        batch: footprints at once.

    Raises:
        ShapeError: `mean` is no frame of `op`, or footprints are no volumes of it.
    """
    require_shape("mean", mean.shape, op.out_shape)
    volumes = footprints if neuropil is None else np.concatenate([footprints, neuropil])
    images = image_footprints(op, jnp.asarray(volumes, jnp.float32), batch=batch)
    mean = jnp.asarray(mean, images.dtype)
    weights = photon_weights(mean)
    if rest:
        known = Images.of(images, weights)
        level = nonnegative_least_squares(known.gram, known.project(mean[None]))[:, 0]
        left = jnp.maximum(mean - jnp.einsum("n,nyx->yx", level, images), 0)
        images = jnp.concatenate([images, left[None]])
    return Images.of(images, weights)


class _Courses(eqx.Module):
    """Time courses of a block of frames, (t, y, x) -> (t, n)."""

    images: Images

    def __call__(self, block: Float[Array, "t y x"]) -> Float[Array, "t n"]:
        return self.images.time_courses(block).T


def stream_courses(
    frames: Any,
    images: Images,
    path: str | Path,
    *,
    size: int = 256,
    mesh: Any = None,
    process: parallel.Process | None = None,
    settings: Mapping[str, Any] | None = None,
    track: Callable[..., Any] | None = None,
) -> Path:
    """Time courses of all frames as Zarr (t, n), chunk by chunk; run again after an interruption, it goes on.

    Args:
        frames: (t, y, x).
        images: from `direct_images`.
        path: of the result, a folder ending with .zarr.
        size: frames a chunk.
        mesh: devices over which the frames of a chunk are spread.
        process: from `parallel.join`.
        settings: what decides the result.
        track: see `lfjax.progress.track`.
    """
    n = len(images.images)
    result = Chunks(path, len(frames), size, {"courses": (n,)}, dict(settings or {}), process)

    def courses(block: np.ndarray) -> Mapping[str, Any]:
        return {"courses": parallel.over_shares(_Courses(images), jnp.asarray(block, jnp.float32), mesh=mesh)}

    stream(frames, result, courses, track=track)
    return result.finish()


def find_spikes(
    traces: Float[np.ndarray, "n t"],
    frame_s: float,
    *,
    pulse: Pulse = JGCAMP8F_PULSE,
    amplitude: float | None = None,
    least_snr: float = 1.5,
) -> tuple[list[np.ndarray], Float[np.ndarray, " n"]]:
    """Spike times of every trace, and its noise (`fri.spikes`).

    Args:
        traces: dF/F.
        frame_s: time of a frame.
        pulse: shape of a transient.
        amplitude: dF/F of one spike; if not given, for each neuron the median of a first pass, since single spikes are the most
            frequent.
        least_snr: of the peak of one spike and the noise of a frame; of a neuron below it no spikes are told, since any noise
            would look like some.
    """
    found, noises = [], []
    run = jax.jit(lambda y, a: spikes(y, frame_s, pulse, a))
    for trace in np.asarray(traces, np.float32):
        one = amplitude
        if one is None:
            guess = max(float(peak_dff(trace[None])[0]) / 4, 1e-3)
            first = run(trace, guess)
            heights = np.asarray(first.amplitudes)[np.asarray(first.found)]
            one = float(np.median(heights)) if len(heights) else guess
        result = run(trace, one)
        noises.append(float(result.noise))
        found.append(result.train() if one >= least_snr * noises[-1] else np.zeros(0))
    return found, np.array(noises)


def extract(
    frames: Any,
    op: LinearOperator,
    centres_um: ArrayLike,
    footprints: Float[np.ndarray, "n z y x"],
    path: str | Path,
    *,
    frame_s: float,
    voxel_um: tuple[float, float, float],
    mean: Float[Array, "y x"],
    neuropil: Float[np.ndarray, "m z y x"] | None = None,
    pulse: Pulse = JGCAMP8F_PULSE,
    amplitude: float | None = None,
    size: int = 256,
    mesh: Any = None,
    process: parallel.Process | None = None,
    track: Callable[..., Any] | None = None,
) -> Neurons:
    """Neurons of a movie: time courses by the direct path, dF/F, spikes.

    Args:
        frames: (t, y, x).
        op: H.
        centres_um: (n, 3), of the neurons.
        footprints: (n, z, y, x).
        path: folder in which time courses are kept while the run goes on (.zarr); gone when it is done.
        frame_s: time of a frame.
        voxel_um: voxel size (z, y, x).
        mean: mean frame, rectified.
        neuropil: footprints of it.
        pulse: shape of a transient.
        amplitude: see `find_spikes`.
        size: frames a chunk.
        mesh: see `stream_courses`.
        process: see `stream_courses`; all processes read all time courses in the end.
        track: see `lfjax.progress.track`.
    """
    centres = np.asarray(centres_um, float)
    require_shape("centres_um", centres.shape, (len(footprints), 3))
    require(frame_s > 0, "frame_s", frame_s, "a positive number")
    images = direct_images(op, footprints, mean, neuropil=neuropil)
    kept = stream_courses(frames, images, path, size=size, mesh=mesh, process=process, track=track)
    courses = np.asarray(zarr.open_group(kept, mode="r")["courses"][:]).T  # type: ignore[index]
    n = len(centres)
    change = dff(courses[:n], frame_s)
    times, noise = find_spikes(change, frame_s, pulse=pulse, amplitude=amplitude)
    sums = footprints.sum((1, 2, 3), keepdims=True)
    if process is None or process.processes == 1:
        shutil.rmtree(kept)
    unit = footprints / np.where(sums > 0, sums, 1)
    return Neurons(centres, unit, courses[:n], change, times, frame_s, voxel_um, noise).check()
