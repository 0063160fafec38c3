"""From a raw frame to a volume in one call: what the command `lfjax reconstruct` runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from lfjax import metrics, solvers
from lfjax.errors import CalibrationError, DataWarning, require
from lfjax.optics import PSF, AntiAlias, LightField, Microscope, Rectifier, cached_psf, find_saturation
from lfjax.optics.camera.pixels import check_frame
from lfjax.optics.camera.trust import require_trusted
from lfjax.optics.microscope import require_square
from lfjax.pipeline.methods import SOLVERS
from lfjax.pipeline.settings import Calibration, Grid, Tissue


class Reconstruction(NamedTuple):
    """A volume and how well it explains the frame.

    Attributes:
        volume: (z, y, x), in the units of the light field.
        voxel_um: voxel size (z, y, x) in micrometres.
        light_field: (row, col), rectified and flattened data.
        image: (row, col), H x, the re-synthesised light field.
        mask: (row, col), the trusted pixels.
        trusted: share of the trusted pixels.
        saturated: share of the raw pixels that are saturated.
        correlation: Pearson correlation of `light_field` and `image` over the fitted pixels; None where one is constant, as the
            image of a volume of zeros is.
        withheld_correlation: the same over the trusted pixels that the fit did not see; None also if there are none.
        objective: (iterations + 1,), objective of the solver, the start first.
        rectifier: the lattice and the correction of the frames.
        psf: the PSF of H.
    """

    volume: Float[Array, "z y x"]
    voxel_um: tuple[float, float, float]
    light_field: Float[Array, "row col"]
    image: Float[Array, "row col"]
    mask: Bool[Array, "row col"]
    trusted: float
    saturated: float
    correlation: float | None
    withheld_correlation: float | None
    objective: np.ndarray
    rectifier: Rectifier
    psf: PSF


def reconstruct(
    frame: ArrayLike,
    microscope: Microscope | None = None,
    *,
    calibration: Calibration | None = None,
    grid: Grid | None = None,
    tissue: Tissue | None = None,
    white: ArrayLike | None = None,
    dark: ArrayLike | float | None = None,
    z_um: Sequence[float] | None = None,
    voxels_per_lenslet: int | None = None,
    solver: str | solvers.Solver = "richardson_lucy",
    iterations: int | None = None,
    sparsity: float = 1e-3,
    total_variation: float = 1e-3,
    anti_alias: bool | None = None,
    withhold: float = 0.0,
    saturation: float | None = None,
    psf: PSF | None = None,
    tolerance: float = 0.02,
    track: Callable[..., Any] | None = None,
) -> Reconstruction:
    """Reconstruct a volume from one raw light-field frame.

    The frame is rectified and flattened to y, and the solver fits y ~ H x over the trusted pixels with x >= 0.

    Args:
        frame: (row, col), camera frame.
        microscope: its parameters, or a preset. None: those of the calibration.
        calibration: white and dark frame, what is known of the lenslets, or a calibration made before.
        grid: depths of the planes and voxels per lenslet.
        tissue: tissue that scatters the light. None: clear.
        white, dark, saturation: the same as `Calibration(white, dark, saturation=...)`.
        z_um, voxels_per_lenslet: the same as `Grid(z_um, voxels_per_lenslet)`.
        solver: a name in `SOLVERS`, or any solver object.
        iterations: number of iterations. None: the default of the named solver, or 30.
        sparsity: l1 weight as a fraction of the weight that makes the volume zero (ista, fista, admm).
        total_variation: TV weight in the same unit (admm).
        anti_alias: smooth each plane to the sampling of the microscope at its depth, see `optics.AntiAlias`. None: where the
            lenslets are square and alike, for which the filter is made.
        withhold: fraction of the trusted pixels that the fit does not see, to measure how well the volume predicts them.
        psf: the PSF, which then sets depths and voxels. None: it is computed, or read from the cache.
        tolerance: largest convergence error of the PSF, see `compute_psf`.
        track: wraps loops to show their progress, see `lfjax.progress.track`.

    Raises:
        LfjaxError: names the argument, its value and the expected one. A pixel or an option that is NaN is refused, and so is a
            frame whose pixels all have the same value, as where the camera saturates.

    Warns:
        DataWarning: the volume is zero everywhere, or its image is constant.
    """
    require(not isinstance(solver, str) or solver in SOLVERS, "solver", solver, f"one of {', '.join(SOLVERS)}")
    require(iterations is None or iterations >= 1, "iterations", iterations, "1 or more")
    require(0 <= withhold < 1, "withhold", withhold, "a fraction from 0 to below 1")
    for name, value in (("sparsity", sparsity), ("total_variation", total_variation)):
        require(0 <= value < math.inf, name, value, "zero or more")
    raw = np.asarray(frame)
    _require_image(raw)
    rectifier = (calibration or Calibration(white, dark, saturation=saturation)).prepare(microscope, raw)
    scope = rectifier.microscope
    filtered = scope.repeats_square if anti_alias is None else anti_alias
    if filtered:
        require_square(scope)
    cells = None
    if psf is None:
        cells = (grid or Grid(z_um, Grid.voxels if voxels_per_lenslet is None else voxels_per_lenslet)).of(scope)
    counts, trusted = rectifier(raw), np.asarray(rectifier.mask)
    if not np.any(trusted & (np.asarray(counts) > 0)):
        raise CalibrationError("frame minus dark frame is nowhere positive: expected a frame brighter than dark")
    level = find_saturation(raw) if rectifier.saturation is None else rectifier.saturation
    if level is not None:
        trusted = trusted & ~rectifier.saturated(raw, level)
        require_trusted(trusted, f"pixels reach {level:g} counts, where the camera saturates: shorten the exposure")
    held = trusted & (np.random.default_rng(0).random(trusted.shape) < withhold)
    fitted = trusted & ~held

    if cells is not None:
        psf = cached_psf(scope, cells.depths, cells.voxels, tolerance=tolerance, track=track)
    assert psf is not None
    light_field = rectifier.flatten(counts, psf)
    op = LightField(psf, rectifier.field)
    seen = op if tissue is None else tissue.before(op, psf)
    problem = solvers.Problem(seen, light_field, jnp.asarray(fitted.astype(light_field.dtype)))
    if isinstance(solver, str):
        method, default = _solver(problem, solver, sparsity, total_variation), SOLVERS[solver][1]
    else:
        method, default = solver, 30
    smooth = AntiAlias(scope, psf.z_um, psf.voxels_per_lenslet, op.in_shape[1:]) if filtered else None
    result = solvers.run(method, problem, default if iterations is None else iterations, smooth=smooth, track=track)
    correlation = _correlation(light_field, result.image, fitted)
    if correlation is None:
        text = "the volume explains nothing of the frame, its image is the same in every pixel: is the sparsity too large?"
        warnings.warn(text, DataWarning, stacklevel=2)
    return Reconstruction(
        volume=result.x,
        voxel_um=psf.voxel_um,
        light_field=light_field,
        image=result.image,
        mask=jnp.asarray(trusted),
        trusted=float(trusted.mean()),
        saturated=0.0 if level is None else float(np.mean(raw >= level)),
        correlation=correlation,
        withheld_correlation=_correlation(light_field, result.image, held) if withhold else None,
        objective=result.objective,
        rectifier=rectifier,
        psf=psf,
    )


def _require_image(raw: np.ndarray) -> None:
    """Refuse a frame that holds NaN, or nothing to tell one pixel from another."""
    values = check_frame("frame", raw)
    if values.size and np.ptp(values) == 0:
        reason = "expected an image; does the camera saturate, or is its shutter closed?"
        raise CalibrationError(f"frame: all of its pixels have {values.flat[0]:g} counts: {reason}")


def _correlation(light_field: Array, image: Array, mask: np.ndarray) -> float | None:
    value = float(_measured(light_field, image, mask))
    return None if math.isnan(value) else value


_measured = jax.jit(metrics.correlation)


@eqx.filter_jit
def _solver(problem: solvers.Problem, name: str, sparsity: float, total_variation: float) -> solvers.Solver:
    return SOLVERS[name][0](problem, sparsity, total_variation)
