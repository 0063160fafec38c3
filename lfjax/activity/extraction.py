"""From frames to neurons by the direct path: time courses of footprint images, without reconstructed volumes."""

from __future__ import annotations

import os
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
from lfjax.activity.direct import FLOOR, Images, image_footprints, weigh_photons
from lfjax.activity.fluorescence import dff, has_baseline
from lfjax.activity.neurons import Neurons
from lfjax.activity.spike_search import JGCAMP8F_PULSE, find_spikes
from lfjax.activity.spike_times import Pulse
from lfjax.errors import FileError, require, require_shape
from lfjax.io.chunks import Chunks, stream
from lfjax.io.lock import locked
from lfjax.linop import LinearOperator
from lfjax.movies.frames import Frames, check_weights
from lfjax.movies.identity import fingerprint


def direct_images(
    op: LinearOperator,
    footprints: ArrayLike,
    mean: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    neuropil: ArrayLike | None = None,
    rest: bool = True,
    batch: int = 1,
) -> Images:
    """Images of all light sources: footprints first, then neuropil, then the part of the mean frame that these do not explain.

    Args:
        op: H.
        footprints: (n, z, y, x), footprints of neurons.
        mean: (row, col), mean frame of the movie; it also weighs the pixels (`photon_weights`).
        weights: (row, col), trust of each pixel, 0 or more: the mask of the rectifier. Pixels of weight 0 have no influence.
            None: all pixels are trusted.
        neuropil: (m, z, y, x), footprints of neuropil, as `neuropil_rings`.
        rest: whether the unexplained part of the mean, light from outside the volume, is a component of its own.
        batch: footprints imaged at once.

    Raises:
        ShapeError: `mean` or `weights` is not a frame of `op`, or footprints are not volumes of it.
        ParameterError: a weight is negative or not finite, or no pixel is trusted.
    """
    volumes = np.asarray(footprints, np.float32)
    if neuropil is not None:
        volumes = np.concatenate([volumes, np.asarray(neuropil, np.float32)])
    require_shape("mean", np.shape(mean), op.out_shape)
    require_shape("footprints", volumes.shape, ("n", *op.in_shape))
    trust = None if weights is None else jnp.asarray(check_weights(weights, op.out_shape))
    return _direct_images(op, jnp.asarray(volumes), jnp.asarray(mean), trust, rest, batch)


@eqx.filter_jit
def _direct_images(
    op: LinearOperator,
    volumes: Float[Array, "n z y x"],
    mean: Array,
    trust: Float[Array, "row col"] | None,
    rest: bool,
    batch: int,
) -> Images:
    images = image_footprints(op, volumes, batch=batch)
    trust = jnp.ones(mean.shape, images.dtype) if trust is None else trust
    mean = jnp.where(trust > 0, mean.astype(images.dtype), 0)
    weights = weigh_photons(mean, FLOOR, trust)
    if rest:
        known = Images.of(images, weights)
        level = known.time_courses(mean[None])[:, 0]
        residual = jnp.maximum(mean - jnp.einsum("n,nyx->yx", level, images), 0)
        images = jnp.concatenate([images, jnp.where(trust > 0, residual, 0)[None]])
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
    reuse: bool = False,
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
        settings: the settings that determine the result, see `movies.reconstruct_movie`: `movies.fingerprint` of the inputs
            among them, or an interrupted run of one recording would resume with another.
        reuse: return a finished folder of the same settings as it is, in place of refusing it.
        track: see `lfjax.progress.track`.

    Raises:
        FileError: the result exists already, or an interrupted run had other settings.
        BusyError: another process writes the result.
        NoSpaceError: the disk is full; the chunks that were written stay, and the same call resumes.
    """
    n = len(images.images)

    def courses(block: np.ndarray) -> Mapping[str, Array]:
        return {"courses": parallel.over_shares(_Courses(images), jnp.asarray(block, jnp.float32), mesh=mesh)}

    with locked(path, 0 if process is None else process.number):
        result = Chunks(path, len(frames), size, {"courses": (n,)}, dict(settings or {}), process, reuse=reuse)
        stream(frames, result, courses, track=track)
        return result.finish()


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
    weights: ArrayLike | None = None,
    neuropil: ArrayLike | None = None,
    moments: ArrayLike | None = None,
    pulse: Pulse = JGCAMP8F_PULSE,
    amplitude: float | None = None,
    size: int = 256,
    mesh: Mesh | None = None,
    process: parallel.Process | None = None,
    settings: Mapping[str, Any] | None = None,
    track: Callable[..., Any] | None = None,
) -> Neurons:
    """Neurons of a movie: time courses by the direct path, dF/F, spikes.

    The time courses are kept in the folder `path`, which remains: after an interruption at any moment, the same call resumes,
    also while spikes are sought. Remove it by `remove_courses` when the neurons are written.

    Args:
        frames: (t, row, col), rectified.
        op: H.
        centres_um: (n, 3), (z, y, x) of the neurons, from the corner of the volume.
        footprints: (n, z, y, x).
        path: folder (.zarr) that holds the time courses.
        frame_s: duration of a frame.
        voxel_um: voxel size (z, y, x).
        mean: (row, col), mean frame.
        weights: (row, col), trust of each pixel, 0 or more: the mask of the rectifier, see `direct_images`.
        neuropil: (m, z, y, x), footprints of neuropil.
        moments: (t,), ascending whole numbers, the time of each frame in units of `frame_s`, where frames are missing. The time
            courses are interpolated linearly at the missing ones, so that the time of the result runs evenly from 0. None: 0,
            1, 2, ...
        pulse: shape of a transient.
        amplitude: see `find_spikes`.
        size: frames per chunk.
        mesh: see `stream_courses`.
        process: see `stream_courses`; every process reads all time courses at the end.
        settings: further settings that determine the result, stored with it. Fingerprints of `frames`, `footprints`, `mean`,
            `weights` and `neuropil` are among them in any case.
        track: see `lfjax.progress.track`.

    Returns:
        The neurons. Their `neuropil`, where there is one ring for each, is the light that the neuropil around has in the volume
        of the soma.

    Raises:
        ShapeError: `centres_um`, `footprints`, `mean` or `weights` have the wrong shape.
        ParameterError: `frame_s` is not positive, or `weights` are no weights.
        FileError: `path` holds a run of other inputs or settings.
    """
    centres = np.asarray(centres_um, float)
    volumes = np.asarray(footprints)
    require_shape("centres_um", centres.shape, (len(volumes), 3))
    require(frame_s > 0, "frame_s", frame_s, "a positive number")
    if moments is not None:
        require_shape("moments", np.shape(moments), (len(frames),))
        rises = bool(np.all(np.diff(np.asarray(moments)) > 0)) and int(np.min(moments)) >= 0
        require(rises, "moments", moments, "ascending whole numbers from 0 up")
    images = direct_images(op, volumes, mean, weights=weights, neuropil=neuropil)
    inputs = {"movie": fingerprint(frames), "sources": fingerprint(volumes, np.asarray(mean), weights, neuropil)}
    kept = stream_courses(
        frames, images, path, size=size, mesh=mesh, process=process, settings={**inputs, **(settings or {})}, reuse=True,
        track=track,
    )  # fmt: skip
    courses = np.asarray(load("zarr", "extract").open_group(kept, mode="r")["courses"][:]).T
    if moments is not None:
        at = np.asarray(moments)
        courses = np.stack([np.interp(np.arange(at[-1] + 1), at, course) for course in courses]).astype(np.float32)
    n = len(centres)
    light = courses[:n]
    change = dff(light, frame_s)
    times, noise = find_spikes(change, frame_s, pulse=pulse, amplitude=amplitude, track=track)
    sums = volumes.sum((1, 2, 3), keepdims=True)
    unit = volumes / np.where(sums > 0, sums, 1)
    around = None
    if neuropil is not None and len(np.asarray(neuropil)) == n:
        around = courses[n : 2 * n] * (_density(np.asarray(neuropil)) / np.maximum(_density(volumes), 1e-30))[:, None]
    valid = has_baseline(light, frame_s)
    return Neurons(centres, unit, light, change, times, frame_s, voxel_um, noise, valid, around).check()


def _density(footprints: Float[np.ndarray, "n z y x"]) -> Float[np.ndarray, " n"]:
    """Mean brightness of each footprint where it is bright, sum of squares / sum; 0 for an empty one."""
    sums = footprints.sum((1, 2, 3), dtype=float)
    return np.einsum("nzyx,nzyx->n", footprints, footprints) / np.where(sums > 0, sums, 1)


def remove_courses(path: str | Path) -> None:
    """Remove the folder of time courses that `extract` leaves, once the neurons are written; nothing, if there is none.

    Args:
        path: the folder given to `extract`.

    Raises:
        FileError: the folder is not one of time courses.
    """
    folder = Path(path)
    if not folder.exists():
        return
    if not (folder / "courses" / "zarr.json").exists():
        raise FileError(f"{folder}: expected a folder of time courses, as `extract` writes it; it is left alone")
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder, doomed)  # at once: a kill leaves no half-empty folder under the name that a later run resumes
    shutil.rmtree(doomed)
