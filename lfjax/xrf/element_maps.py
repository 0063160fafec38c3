"""Maps of elements: nonnegative Poisson fits of every pixel's spectrum, row by row, with errors; smoothed if asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from numpy.typing import NDArray

from lfjax import parallel
from lfjax._lazy import load
from lfjax.errors import ParameterError, require
from lfjax.io.chunks import Chunks, stream
from lfjax.io.lock import locked
from lfjax.linop import Identity
from lfjax.solvers.admm import ADMM
from lfjax.solvers.base import solve
from lfjax.solvers.fisher_scoring import FisherScoring
from lfjax.solvers.problem import Problem
from lfjax.xrf.components import Spectrum, line_columns, scatter_lines, with_escape
from lfjax.xrf.identification import Identified
from lfjax.xrf.instrument import escape
from lfjax.xrf.lines import Family
from lfjax.xrf.window import Window

PIECES_EV = 4000.0  # between knots of what a pixel may change of the background's shape
ITERATIONS, SWEEPS = 4, 8  # of `FisherScoring`: amplitudes then change by less than a hundredth of their errors
BATCH = 256  # pixels at once: their normal matrices stay in the cache
SHRUNK = 0.5  # share of the scan's spectrum that a pixel has at least, for its errors
SMOOTHING = 60  # iterations of ADMM
CHUNK_BYTES = 2**26  # of counts per chunk of rows


class Maps(NamedTuple):
    """Counts of each family in each pixel.

    Attributes:
        names: of the families, such as "Pb L".
        counts: (m, rows, columns), zero or more, escape peaks aside.
        errors: (m, rows, columns), standard errors: Fisher information of the pixel, and the overlaps of the whole scan.
        energies_ev: (m,), strongest line of each family.
    """

    names: tuple[str, ...]
    counts: Float[NDArray[np.float32], "m rows columns"]
    errors: Float[NDArray[np.float32], "m rows columns"]
    energies_ev: Float[NDArray[np.float64], " m"]


def pixel_model(identified: Identified, families: Sequence[Family] | None = None) -> Spectrum:
    """The model of one pixel's spectrum: families with the ratios that the scan shows, scatter, and the scan's background.

    The background of a pixel is that of the whole scan times a positive combination of hat functions `PIECES_EV` apart: with
    few counts, a free background would take those of the lines.

    Args:
        identified: of the sum spectrum of the scan.
        families: to map. None: all of `identified`.
    """
    detector, instrument, window = identified.detector, identified.instrument, identified.window
    chosen = identified.families if families is None else tuple(families)
    known = {each.name: each for each in identified.families}
    with jax.enable_x64(True):
        seen = [known.get(each.name) or each.through(instrument.efficiency(each.energies_ev)) for each in chosen]
        parts = [with_escape(each, escape(each.energies_ev)) for each in seen]
        parts += scatter_lines(instrument)
        lines = np.asarray(line_columns(detector, parts, window.edges))
    energy, smooth = window.energies_ev, np.maximum(identified.background, 0)
    knots = np.linspace(energy[0], energy[-1], max(2, round((energy[-1] - energy[0]) / PIECES_EV) + 1))
    hats = np.stack([np.interp(energy, knots, row) for row in np.eye(len(knots))], axis=1) * smooth[:, None]
    columns, names = np.concatenate([lines, hats], axis=1), [each.name for each in parts]
    names += [f"background {i}" for i in range(len(knots))]
    size = columns.sum(axis=0)
    kept = [i for i in range(len(names)) if i < len(chosen) or size[i] > 1e-3]
    scale = np.where(np.arange(len(names)) < len(chosen) + len(parts) - len(chosen), 1.0, np.maximum(size, 1e-30))
    columns = (columns / scale)[:, kept]
    return Spectrum(jnp.asarray(columns, jnp.float32), [names[i] for i in kept], len(chosen))


class PixelFit(eqx.Module):
    """Amplitudes and errors of pixels: (pixels, bins) counts -> (pixels, m) amplitudes and (pixels, m) errors.

    Attributes:
        model: of one pixel.
        start: amplitudes of the scan per count: the first weights.
        overlap: variance of each family over that if it were alone, of the whole scan.
    """

    model: Spectrum
    start: Float[Array, " components"]
    overlap: Float[Array, " m"]

    @classmethod
    def of(cls, model: Spectrum, counts: Float[NDArray[np.floating], " bins"]) -> PixelFit:
        """From the sum spectrum of the scan, in the bins of the model."""
        problem = Problem(model, jnp.asarray(counts, jnp.float32))
        amplitudes = solve(FisherScoring(sweeps=60), problem, 20)
        columns = np.asarray(model.columns, float)
        weights = 1 / np.maximum(columns @ np.asarray(amplitudes, float), 1e-3 * counts.mean())
        gram = columns.T @ (weights[:, None] * columns)
        unit = np.sqrt(np.diagonal(gram))
        inverse = np.linalg.inv(gram / unit / unit[:, None] + 1e-9 * np.eye(len(gram)))
        m = model.families
        return cls(model, amplitudes / counts.sum(), jnp.asarray(np.diagonal(inverse)[:m], jnp.float32))

    def __call__(self, counts: Float[Array, "pixels bins"]) -> tuple[Float[Array, "pixels m"], Float[Array, "pixels m"]]:
        """`BATCH` pixels at a time."""
        return jax.lax.map(self._pixel, counts, batch_size=BATCH)

    def _pixel(self, counts: Float[Array, " bins"]) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        x0 = jnp.maximum(self.start, 1e-6) * jnp.maximum(counts.sum(), 1)
        amplitudes = solve(FisherScoring(sweeps=SWEEPS), Problem(self.model, counts), ITERATIONS, x0)
        scan = self.model.columns @ x0  # an absence that may be noise does not make a pixel exact
        weights = 1 / jnp.maximum(self.model.columns @ amplitudes, jnp.maximum(SHRUNK * scan, 1e-3))
        m = self.model.families
        information = jnp.einsum("nk,n->k", self.model.columns[:, :m] ** 2, weights)
        return amplitudes[:m], jnp.sqrt(self.overlap / information)


@dataclass(frozen=True)
class _Binned:
    """A cube whose rows come in the bins of a window."""

    cube: Any
    window: Window

    def __getitem__(self, which: slice) -> NDArray[np.float32]:
        rows = range(*which.indices(self.cube.shape[0]))
        counts = self.cube.read(rows) if hasattr(self.cube, "read") else np.asarray(self.cube[which])
        return self.window.binned_pixels(counts)


def maps(
    cube: Any,
    identified: Identified,
    *,
    families: Sequence[Family] | None = None,
    smooth: float = 0.0,
    path: str | Path | None = None,
    rows: int | None = None,
    mesh: Mesh | None = None,
    process: parallel.Process | None = None,
    settings: Mapping[str, Any] | None = None,
    track: Callable[..., Any] | None = None,
) -> Maps:
    """Counts of each family in each pixel, by nonnegative Poisson fits with the ratios, scatter and background of the scan.

    Per pixel min_a sum_n (S a)_n - y_n log (S a)_n, a >= 0, by `solvers.FisherScoring`, in bins of a quarter of a line's
    width. With `smooth`, each map is then the minimum of sum 1/2 (x - a)^2 / error^2 + smooth / error TV(x), x >= 0, by
    `solvers.ADMM`, error the median of its errors: a weight of 1 flattens steps of about one error.

    Args:
        cube: (rows, columns, channels), an array or `io.open_cube`.
        identified: elements, ratios and background, from `elements` on the sum spectrum of this cube.
        families: to map. None: all of `identified`.
        smooth: weight of the total variation, in errors; 0: every pixel by itself.
        path: folder (.zarr) in which finished rows are kept, so that the same call resumes after an interruption. None: in
            memory.
        rows: rows per chunk. None: as many as hold 64 MiB.
        mesh: devices over which the pixels of a chunk are spread; None: the default device.
        process: from `parallel.join`; with `path` alone.
        settings: further settings that determine the result, kept in `path`: a fingerprint of the inputs.
        track: see `lfjax.progress.track`.

    Raises:
        ShapeError: the cube does not have the channels of the detector.
        ParameterError: `smooth` is negative, or there is no family to map.
        FileError: the cube cannot be read, or `path` holds a run of other settings.
    """
    require(0 <= smooth < np.inf, "smooth", smooth, "zero or more")
    require(len(cube.shape) == 3, "cube", cube.shape, "(rows, columns, channels)")
    channels = identified.detector.channels
    require(cube.shape[2] == channels, "cube", f"{cube.shape[2]} channels", f"{channels}, those of the detector")
    model = pixel_model(identified, families)
    if model.families == 0:
        raise ParameterError("families: expected an element or more; identified none")
    fit, window, m = PixelFit.of(model, identified.window.counts), identified.window, model.families
    columns, names = int(cube.shape[1]), model.names[: model.families]
    size = rows or max(1, CHUNK_BYTES // max(1, columns * channels * 4))
    size = min(size, int(cube.shape[0]))

    def fitted(block: NDArray[np.float32]) -> Mapping[str, Array]:
        pixels = jnp.asarray(block.reshape(-1, block.shape[-1]))
        found = _fit_block(fit, pixels, mesh)
        return {name: each.reshape(len(block), columns, m) for name, each in zip(("counts", "errors"), found, strict=True)}

    shapes = {name: (columns, m) for name in ("counts", "errors")}
    binned = _Binned(cube, window)
    if path is None:
        made = _Memory(int(cube.shape[0]), size, shapes)
        stream(binned, made, fitted, track=track, unit="rows")
        arrays: Mapping[str, Any] = made.arrays
    else:
        told = {"families": list(names), "edges": window.edges.tolist(), **(settings or {})}
        with locked(path, 0 if process is None else process.number):
            kept = Chunks(path, int(cube.shape[0]), size, shapes, told, process, reuse=True)
            stream(binned, kept, fitted, track=track, unit="rows")
            group = load("zarr", "maps whose rows are kept").open_group(kept.finish(), mode="r")
            arrays = {name: group[name][:] for name in shapes}
    counts, errors = (np.moveaxis(np.asarray(arrays[name]), -1, 0) for name in ("counts", "errors"))
    known = {each.name: each for each in (families or identified.families)}
    energies = np.array([known[name].strongest_ev for name in names])
    if smooth:
        counts = np.stack([smoothed(each, sigma, smooth) for each, sigma in zip(counts, errors, strict=True)])
    return Maps(names, counts, errors, energies)


@eqx.filter_jit
def _fit_block(fit: PixelFit, pixels: Float[Array, "pixels bins"], mesh: Mesh | None) -> tuple[Array, Array]:
    found: tuple[Array, Array] = parallel.over_shares(fit, pixels, mesh=mesh)
    return found


def smoothed(
    counts: Float[NDArray[np.float32], "rows columns"], errors: Float[NDArray[np.float32], "rows columns"], weight: float
) -> Float[NDArray[np.float32], "rows columns"]:
    """min_x sum 1/2 (x - a)^2 / error^2 + weight / median(error) TV(x), x >= 0.

    Args:
        counts: a, one map.
        errors: standard error of each pixel.
        weight: see `maps`.
    """
    level = float(np.median(errors))
    shape = (1, *counts.shape)
    problem = Problem(Identity(shape), jnp.asarray(counts[None] / level), jnp.asarray((level / errors[None]) ** 2))
    return np.asarray(solve(ADMM(0.0, weight), problem, SMOOTHING))[0] * level


class _Memory:
    """Results in memory, see `io.chunks.Results`."""

    def __init__(self, rows: int, size: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.frames, self.size, self.process = rows, size, parallel.Process()
        self.arrays = {name: np.zeros((rows, *shape), np.float32) for name, shape in shapes.items()}

    def __len__(self) -> int:
        return -(-self.frames // self.size)

    def missing(self) -> list[int]:
        return list(range(len(self)))

    def span(self, number: int) -> slice:
        return slice(number * self.size, min((number + 1) * self.size, self.frames))

    def write(self, number: int, values: Mapping[str, np.ndarray]) -> None:
        for name, value in values.items():
            self.arrays[name][self.span(number)] = value
