"""From frames to neurons by the direct path: time courses of footprint images, without reconstructed volumes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from lfjax import parallel
from lfjax._lazy import load
from lfjax.activity.direct import Images, image_footprints, photon_weights
from lfjax.activity.fluorescence import dff, peak_dff
from lfjax.activity.neurons import Neurons
from lfjax.activity.spike_times import Pulse, spikes
from lfjax.errors import require, require_shape
from lfjax.io.chunks import Chunks, stream
from lfjax.linop import LinearOperator
from lfjax.movies.frames import Frames
from lfjax.simulate.calcium import JGCAMP8F

JGCAMP8F_PULSE = Pulse(*JGCAMP8F.time_constants_s)


def direct_images(
    op: LinearOperator,
    footprints: ArrayLike,
    mean: ArrayLike,
    *,
    neuropil: ArrayLike | None = None,
    rest: bool = True,
    batch: int = 1,
) -> Images:
    """Images of all light sources: footprints first, then neuropil, then the part of the mean frame that these do not explain.

    Args:
        op: H.
        footprints: (n, z, y, x), footprints of neurons.
        mean: (row, col), mean frame of the movie; it also weighs the pixels (`photon_weights`).
        neuropil: (m, z, y, x), footprints of neuropil, as `neuropil_rings`.
        rest: whether the unexplained part of the mean, light from outside the volume, is a component of its own.
        batch: footprints imaged at once.

    Raises:
        ShapeError: `mean` is not a frame of `op`, or footprints are not volumes of it.
    """
    volumes = np.asarray(footprints, np.float32)
    if neuropil is not None:
        volumes = np.concatenate([volumes, np.asarray(neuropil, np.float32)])
    require_shape("mean", np.shape(mean), op.out_shape)
    require_shape("footprints", volumes.shape, ("n", *op.in_shape))
    return _direct_images(op, jnp.asarray(volumes), jnp.asarray(mean), rest, batch)


@eqx.filter_jit
def _direct_images(op: LinearOperator, volumes: Float[Array, "n z y x"], mean: Array, rest: bool, batch: int) -> Images:
    images = image_footprints(op, volumes, batch=batch)
    mean = mean.astype(images.dtype)
    weights = photon_weights(mean)
    if rest:
        known = Images.of(images, weights)
        level = known.time_courses(mean[None])[:, 0]
        residual = jnp.maximum(mean - jnp.einsum("n,nyx->yx", level, images), 0)
        images = jnp.concatenate([images, residual[None]])
    return Images.of(images, weights)


class _Courses(eqx.Module):
    """Time courses of a block of frames, (t, y, x) -> (t, n)."""

    images: Images

    def __call__(self, block: Float[Array, "t y x"]) -> Float[Array, "t n"]:
        return self.images.time_courses(block).T


def stream_courses(
    frames: Frames,
    images: Images,
    path: str | Path,
    *,
    size: int = 256,
    mesh: Mesh | None = None,
    process: parallel.Process | None = None,
    settings: Mapping[str, Any] | None = None,
    track: Callable[..., Any] | None = None,
) -> Path:
    """Time courses of all frames as Zarr (t, n), chunk by chunk; after an interruption, the same call resumes.

    Args:
        frames: (t, y, x).
        images: from `direct_images`.
        path: folder to write, ending with .zarr.
        size: frames per chunk.
        mesh: devices over which the frames of a chunk are spread; None: the default device.
        process: from `parallel.join`.
        settings: the settings that determine the result, see `movies.reconstruct_movie`.
        track: see `lfjax.progress.track`.

    Raises:
        FileError: the result exists already, or an interrupted run had other settings.
    """
    n = len(images.images)
    result = Chunks(path, len(frames), size, {"courses": (n,)}, dict(settings or {}), process)

    def courses(block: np.ndarray) -> Mapping[str, Array]:
        return {"courses": parallel.over_shares(_Courses(images), jnp.asarray(block, jnp.float32), mesh=mesh)}

    stream(frames, result, courses, track=track)
    return result.finish()


def find_spikes(
    traces: ArrayLike,
    frame_s: float,
    *,
    pulse: Pulse = JGCAMP8F_PULSE,
    amplitude: float | None = None,
    least_snr: float = 1.5,
) -> tuple[list[Float[np.ndarray, " _"]], Float[np.ndarray, " n"]]:
    """Spike times of every trace by `spikes`, and its noise.

    Args:
        traces: dF/F, (n, t).
        frame_s: duration of a frame.
        pulse: shape of a transient.
        amplitude: dF/F of one spike; by default, for each neuron the median height of the transients that a first pass finds,
            since single spikes are the most frequent.
        least_snr: peak dF/F of one spike over the noise of a frame; neurons below this SNR report no spikes, since noise alone
            would look like some.

    Returns:
        n arrays of times in seconds, and (n,) standard deviations of a frame's noise.
    """
    found, noises = [], []
    most = min(256, max(1, np.shape(traces)[1]))  # events are at least a frame apart
    for trace in np.asarray(traces, np.float32):
        one = amplitude
        if one is None:
            guess = max(float(peak_dff(trace[None])[0]) / 4, 1e-3)
            first = spikes(trace, frame_s, pulse, guess, most=most)
            heights = np.asarray(first.amplitudes)[np.asarray(first.found)]
            one = float(np.median(heights)) if len(heights) else guess
        result = spikes(trace, frame_s, pulse, one, most=most)
        noises.append(float(result.noise))
        found.append(result.train() if one >= least_snr * noises[-1] else np.zeros(0))
    return found, np.array(noises)


def extract(
    frames: Frames,
    op: LinearOperator,
    centres_um: ArrayLike,
    footprints: ArrayLike,
    path: str | Path,
    *,
    frame_s: float,
    voxel_um: tuple[float, float, float],
    mean: ArrayLike,
    neuropil: ArrayLike | None = None,
    pulse: Pulse = JGCAMP8F_PULSE,
    amplitude: float | None = None,
    size: int = 256,
    mesh: Mesh | None = None,
    process: parallel.Process | None = None,
    track: Callable[..., Any] | None = None,
) -> Neurons:
    """Neurons of a movie: time courses by the direct path, dF/F, spikes.

    Args:
        frames: (t, row, col), rectified.
        op: H.
        centres_um: (n, 3), (z, y, x) of the neurons, from the corner of the volume.
        footprints: (n, z, y, x).
        path: folder (.zarr) that holds the time courses during the run; a single process removes it at the end.
        frame_s: duration of a frame.
        voxel_um: voxel size (z, y, x).
        mean: (row, col), mean frame.
        neuropil: (m, z, y, x), footprints of neuropil.
        pulse: shape of a transient.
        amplitude: see `find_spikes`.
        size: frames per chunk.
        mesh: see `stream_courses`.
        process: see `stream_courses`; every process reads all time courses at the end.
        track: see `lfjax.progress.track`.

    Raises:
        ShapeError: `centres_um`, `footprints` or `mean` have the wrong shape.
        ParameterError: `frame_s` is not positive.
    """
    centres = np.asarray(centres_um, float)
    volumes = np.asarray(footprints)
    require_shape("centres_um", centres.shape, (len(volumes), 3))
    require(frame_s > 0, "frame_s", frame_s, "a positive number")
    images = direct_images(op, volumes, mean, neuropil=neuropil)
    kept = stream_courses(frames, images, path, size=size, mesh=mesh, process=process, track=track)
    courses = np.asarray(load("zarr", "extract").open_group(kept, mode="r")["courses"][:]).T
    n = len(centres)
    change = dff(courses[:n], frame_s)
    times, noise = find_spikes(change, frame_s, pulse=pulse, amplitude=amplitude)
    sums = volumes.sum((1, 2, 3), keepdims=True)
    if process is None or process.processes == 1:
        shutil.rmtree(kept)
    unit = volumes / np.where(sums > 0, sums, 1)
    return Neurons(centres, unit, courses[:n], change, times, frame_s, voxel_um, noise).check()
