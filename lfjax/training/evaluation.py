"""Scores of a reconstruction method on movies with known truth: image quality, neurons found, traces, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Shaped

from lfjax import metrics, solvers
from lfjax.activity import find_somata
from lfjax.errors import require
from lfjax.simulate import Movie
from lfjax.training.losses import Reconstruct
from lfjax.training.model_file import TrainedModel

SOMA_UM = 12.0
ArrayT = TypeVar("ArrayT", Array, np.ndarray)


class Scores(NamedTuple):
    """Mean scores over movies.

    Attributes:
        psnr_db: peak signal-to-noise ratio of volumes scaled to fit the truth best (`metrics.match_scale`).
        ssim: structural similarity of the same volumes.
        correlation: correlation of volume and truth.
        f1: F1 score of the somata found; a match lies within two thirds of a soma diameter of a true soma. Somata cut by the
            border do not count.
        temporal_snr_db: median over neurons of `metrics.temporal_snr` of their traces; nan if no neuron fires.
        seconds: median time per volume, one volume at a time.
    """

    psnr_db: float
    ssim: float
    correlation: float
    f1: float
    temporal_snr_db: float
    seconds: float


def evaluate(
    reconstruct: Reconstruct,
    movies: Sequence[Movie],
    voxel_um: tuple[float, float, float],
    *,
    border: tuple[int, int] = (0, 0),
    batch: int = 4,
) -> Scores:
    """Score a reconstruction method on simulated movies.

    Args:
        reconstruct: light field -> volume, traceable by JAX.
        movies: simulated movies with `shown` volumes.
        voxel_um: voxel size (z, y, x).
        border: voxels (y, x) on each side that do not count.
        batch: frames per batch where traces are extracted.

    Raises:
        ParameterError: a movie has no volumes, or the border leaves none of the field.
    """
    single, many = partial(_reconstruct, reconstruct), partial(_reconstruct_all, reconstruct, batch)
    rows = []
    for movie in movies:
        require(len(movie.shown) > 0, "movies", movie.shown, "movies with volumes (`shown`) to compare with")
        fits = all(2 * rim < side for rim, side in zip(border, movie.volumes.shape[2:], strict=True))
        require(fits, "border", border, f"less than half of the volume's sides {movie.volumes.shape[2:]}")
        rows.append((*_images(single, movie, voxel_um, border), _traces(many, movie, border)))
    frame = movies[0].frames[0]
    seconds = [_timed(single, frame) for _ in range(5)]
    return Scores._make([*(float(v) for v in np.nanmean(rows, axis=0)), float(np.median(seconds))])


@eqx.filter_jit
def _reconstruct(reconstruct: Reconstruct, frame: Float[Array, "row col"]) -> Float[Array, "z y x"]:
    """One volume; networks of one structure share the program."""
    return reconstruct(frame)


@eqx.filter_jit
def _reconstruct_all(reconstruct: Reconstruct, batch: int, frames: Float[Array, "t row col"]) -> Float[Array, "t z y x"]:
    return jax.lax.map(reconstruct, frames, batch_size=batch)


def compare(model: TrainedModel, frames: int = 60) -> dict[str, Scores]:
    """Scores of a model, and of 20 iterations of Richardson-Lucy, on the held-out samples of its recipe.

    Args:
        model: the model.
        frames: frames per held-out movie.

    Returns:
        Scores by the name of the method.
    """
    recipe = model.recipe
    movies = recipe.test_movies(recipe.experiment(), frames)
    voxels, _ = recipe.cells
    border = (recipe.training.border * voxels[0], recipe.training.border * voxels[1])
    op = recipe.operator()

    def richardson_lucy(y: Float[Array, "row col"]) -> Float[Array, "z y x"]:
        problem = solvers.Problem(op, jnp.maximum(y, 0))
        return solvers.solve(solvers.RichardsonLucy(), problem, 20)

    methods = {recipe.model.kind: model.network, "Richardson-Lucy, 20": richardson_lucy}
    return {name: evaluate(method, movies, recipe.voxel_um, border=border) for name, method in methods.items()}


def inside(volume: Shaped[ArrayT, "... y x"], border: tuple[int, int]) -> Shaped[ArrayT, "... h w"]:
    """The volume without its border."""
    rows, columns = volume.shape[-2:]
    return volume[..., border[0] : rows - border[0], border[1] : columns - border[1]]


def somata_f1(volume: Float[ArrayLike, "z y x"], voxel_um: tuple[float, float, float], centres_um: np.ndarray) -> float:
    """F1 score of the somata that `find_somata` finds in a volume.

    Args:
        volume: (z, y, x).
        voxel_um: voxel size (z, y, x).
        centres_um: (n, 3), true centres, measured from the corner of the volume. Centres outside the volume need not be found,
            and detections of somata cut by the volume's border are not counted as false positives.
    """
    radius = 2 / 3 * SOMA_UM
    inner = np.all((centres_um > 0) & (centres_um < np.array(np.shape(volume)) * np.asarray(voxel_um)), axis=1)
    found = find_somata(volume, voxel_um, diameter_um=SOMA_UM)
    if len(found) and not inner.all():
        distance = np.linalg.norm(found[:, None] - centres_um[None], axis=-1)
        nearest = distance.argmin(1)
        found = found[inner[nearest] | (distance.min(1) > radius)]
    return metrics.f1_score(found, centres_um[inner], radius)


def _images(
    reconstruct: Reconstruct, movie: Movie, voxel_um: tuple[float, float, float], border: tuple[int, int]
) -> list[float]:
    """PSNR, SSIM, correlation and F1, means over the movie's volumes."""
    rows = []
    corner = np.array([0, *border]) * np.asarray(voxel_um)
    centres = np.concatenate([movie.centres_um, movie.outside_um]) - corner
    for number, t in enumerate(movie.shown):
        truth = inside(movie.volumes[number], border)
        x = inside(reconstruct(movie.frames[t]), border)
        psnr, ssim, correlation = (float(value) for value in _image_scores(x, truth))
        alike = correlation if float(np.ptp(x)) > 0 else 0.0
        rows.append([psnr, ssim, alike, somata_f1(x, voxel_um, centres)])
    return list(np.mean(rows, axis=0))


@jax.jit
def _image_scores(x: Float[Array, "z y x"], truth: Float[Array, "z y x"]) -> tuple[Array, Array, Array]:
    """PSNR, SSIM and correlation of a volume scaled to fit the truth best."""
    x = x * metrics.match_scale(x, truth)
    return metrics.psnr(x, truth), metrics.ssim(x, truth), metrics.correlation(x, truth)


def _traces(reconstruct: Callable[[Array], Array], movie: Movie, border: tuple[int, int]) -> float:
    """Median temporal SNR of the neurons that fire and lie mostly inside the border.

    A trace is the mean over the brighter half of the neuron's true footprint, frame by frame.
    """
    footprints = np.asarray(movie.footprints)
    bright = footprints > 0.5 * footprints.max((1, 2, 3), keepdims=True)
    masks = inside(bright, border)
    counted, whole = masks.sum((1, 2, 3)), bright.sum((1, 2, 3))
    volumes = np.asarray(inside(reconstruct(movie.frames), border))
    traces = np.einsum("nzyx,tzyx->nt", masks.astype(volumes.dtype), volumes, optimize=True) / np.maximum(counted[:, None], 1)
    dff = np.asarray(movie.dff)
    kept = np.flatnonzero((counted > 0.5 * whole) & (np.ptp(dff, axis=1) > 0.1))
    values = [temporal(traces[n], dff[n]) for n in kept]
    return float(np.median(values)) if values else float("nan")


def temporal(trace: Float[ArrayLike, " t"], truth: Float[ArrayLike, " t"]) -> float:
    """`metrics.temporal_snr` in dB, and -40 for a trace without any signal."""
    value = float(_temporal_snr(jnp.asarray(trace), jnp.asarray(truth))) if float(np.ptp(trace)) > 0 else -40.0
    return max(value, -40.0) if np.isfinite(value) else -40.0


_temporal_snr = jax.jit(metrics.temporal_snr)


def _timed(reconstruct: Reconstruct, frame: Float[Array, "row col"]) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(reconstruct(frame))
    return time.perf_counter() - begin
