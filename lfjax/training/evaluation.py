"""How good a reconstruction is on movies whose truth is known: image quality, neurons found, traces, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax import metrics
from lfjax.activity import find_somata
from lfjax.errors import require
from lfjax.simulate import Movie

SOMA_UM = 12.0


class Scores(NamedTuple):
    """Means over movies.

    Attributes:
        psnr_db: of volumes scaled to fit the truth best (`metrics.match_scale`).
        ssim: of the same.
        correlation: of volume and truth.
        f1: of somata found, within two thirds of a soma of a true one; those that the border cuts do not count.
        temporal_snr_db: median over neurons of `metrics.temporal_snr` of their traces; nan if no neuron fires.
        seconds: a volume, one at a time; median.
    """

    psnr_db: float
    ssim: float
    correlation: float
    f1: float
    temporal_snr_db: float
    seconds: float


def evaluate(
    reconstruct: Callable[[Float[Array, "y x"]], Float[Array, "z y x"]],
    movies: Sequence[Movie],
    voxel_um: tuple[float, float, float],
    *,
    border: tuple[int, int] = (0, 0),
    batch: int = 4,
) -> Scores:
    """Score a method.

    Args:
        reconstruct: light field -> volume, traceable by JAX.
        movies: simulated, with `shown` volumes.
        voxel_um: voxel size (z, y, x).
        border: voxels (y, x) at each side that do not count.
        batch: frames at once where traces are extracted.

    Raises:
        ParameterError: a movie without volumes, or nothing left inside of the border.
    """
    single = eqx.filter_jit(reconstruct)
    many = eqx.filter_jit(lambda ys: jax.lax.map(reconstruct, ys, batch_size=batch))
    rows = []
    for movie in movies:
        require(len(movie.shown) > 0, "movies", movie.shown, "movies with volumes (`shown`) to compare with")
        require(2 * border[0] < movie.volumes.shape[2] and 2 * border[1] < movie.volumes.shape[3], "border", border, "less")
        rows.append((*_images(single, movie, voxel_um, border), _traces(many, movie, border)))
    frame = movies[0].frames[0]
    seconds = [_timed(single, frame) for _ in range(5)]
    return Scores._make([*(float(v) for v in np.nanmean(rows, axis=0)), float(np.median(seconds))])


def inside(volume: Array, border: tuple[int, int]) -> Array:
    """The volume without its border."""
    rows, columns = volume.shape[-2:]
    return volume[..., border[0] : rows - border[0], border[1] : columns - border[1]]


def somata_f1(volume: Array, voxel_um: tuple[float, float, float], centres_um: np.ndarray) -> float:
    """F1 of the somata that `find_somata` finds in a volume.

    Args:
        volume: (z, y, x).
        voxel_um: voxel size (z, y, x).
        centres_um: (n, 3), true centres, from the corner of the volume. Those outside of it need not be found, and what is
            found of them, where the volume's border cuts them, is no mistake.
    """
    radius = 2 / 3 * SOMA_UM
    inner = np.all((centres_um > 0) & (centres_um < np.array(volume.shape) * np.asarray(voxel_um)), axis=1)
    found = find_somata(volume, voxel_um, diameter_um=SOMA_UM)
    if len(found) and not inner.all():
        distance = np.linalg.norm(found[:, None] - centres_um[None], axis=-1)
        nearest = distance.argmin(1)
        found = found[inner[nearest] | (distance.min(1) > radius)]
    return metrics.f1_score(found, centres_um[inner], radius)


def _images(
    reconstruct: Callable[[Array], Array], movie: Movie, voxel_um: tuple[float, float, float], border: tuple[int, int]
) -> list[float]:
    rows = []
    corner = np.array([0, *border]) * np.asarray(voxel_um)
    for number, t in enumerate(movie.shown):
        truth = inside(movie.volumes[number], border)
        x = inside(reconstruct(movie.frames[t]), border)
        f1 = somata_f1(x, voxel_um, np.concatenate([movie.centres_um, movie.outside_um]) - corner)
        x = x * metrics.match_scale(x, truth)
        alike = metrics.correlation(x, truth) if float(jnp.ptp(x)) > 0 else 0.0
        rows.append([float(metrics.psnr(x, truth)), float(metrics.ssim(x, truth)), float(alike), f1])
    return list(np.mean(rows, axis=0))


def _traces(reconstruct: Callable[[Array], Array], movie: Movie, border: tuple[int, int]) -> float:
    """Mean over the brighter half of each true footprint, of every frame; only neurons inside of the border, and that fire."""
    masks = inside(movie.footprints, border)
    masks = (masks > 0.5 * movie.footprints.max((1, 2, 3), keepdims=True)).astype(movie.frames.dtype)
    whole = (movie.footprints > 0.5 * movie.footprints.max((1, 2, 3), keepdims=True)).sum((1, 2, 3))
    volumes = inside(reconstruct(movie.frames), border)
    traces = jnp.einsum("nzyx,tzyx->nt", masks, volumes) / jnp.maximum(masks.sum((1, 2, 3))[:, None], 1)
    kept = np.flatnonzero((np.asarray(masks.sum((1, 2, 3))) > 0.5 * np.asarray(whole)) & (np.ptp(movie.dff, axis=1) > 0.1))
    values = [temporal(traces[n], movie.dff[n]) for n in kept]
    return float(np.median(values)) if values else float("nan")


def temporal(trace: Array, truth: Array) -> float:
    """`metrics.temporal_snr` in dB, with -40 for a trace without any signal."""
    value = float(metrics.temporal_snr(trace, truth)) if float(jnp.ptp(trace)) > 0 else -40.0
    return max(value, -40.0) if np.isfinite(value) else -40.0


def _timed(reconstruct: Callable[[Array], Array], frame: Array) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(reconstruct(frame))
    return time.perf_counter() - begin
