"""From a raw frame to a volume in one call: what the command `lfjax reconstruct` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from lfjax import metrics, solvers
from lfjax.errors import CalibrationError, require
from lfjax.optics import PSF, AntiAlias, LightField, Microscope, cached_psf
from lfjax.optics.camera.rectify import Rectifier

SOLVERS: dict[str, tuple[Callable[..., Any], int]] = {
    "richardson_lucy": (lambda problem, sparsity, tv: solvers.RichardsonLucy(), 30),
    "isra": (lambda problem, sparsity, tv: solvers.ISRA(), 60),
    "ista": (lambda problem, sparsity, tv: solvers.ISTA(sparsity * problem.lambda_max()), 200),
    "fista": (lambda problem, sparsity, tv: solvers.FISTA(sparsity * problem.lambda_max()), 50),
    "admm": (
        lambda problem, sparsity, tv: solvers.ADMM(sparsity * problem.lambda_max(), tv * problem.lambda_max()),
        20,
    ),
    "cg": (lambda problem, sparsity, tv: solvers.CG(), 15),
}
"""Name -> (maker of the solver from problem, relative sparsity and relative total variation; default iterations)."""


class Reconstruction(NamedTuple):
    """A volume and how well it explains the frame.

    Attributes:
        volume: (z, y, x), in the units of the light field.
        voxel_um: voxel size (z, y, x).
        light_field: rectified, flattened data.
        image: H x, the re-synthesised light field.
        mask: pixels that were trusted.
        correlation: Pearson correlation of `light_field` and `image` inside the fitted pixels.
        withheld_correlation: the same on trusted pixels kept from the fit; None if none were.
        objective: history of the solver.
        rectifier: the calibration.
        psf: the PSF used.
    """

    volume: Float[Array, "z y x"]
    voxel_um: tuple[float, float, float]
    light_field: Float[Array, "y x"]
    image: Float[Array, "y x"]
    mask: Bool[Array, "y x"]
    correlation: float
    withheld_correlation: float | None
    objective: np.ndarray
    rectifier: Rectifier
    psf: PSF


def reconstruct(
    frame: ArrayLike,
    microscope: Microscope,
    *,
    white: ArrayLike | None = None,
    dark: ArrayLike | float | None = None,
    z_um: Sequence[float] = tuple(np.arange(10) - 4.5),
    voxels_per_lenslet: int = 4,
    solver: str | solvers.Solver = "richardson_lucy",
    iterations: int | None = None,
    sparsity: float = 1e-3,
    total_variation: float = 1e-3,
    anti_alias: bool = True,
    withhold: float = 0.0,
    saturation: float | None = None,
    psf: PSF | None = None,
    tolerance: float = 0.02,
    track: Callable[..., Any] | None = None,
) -> Reconstruction:
    """Reconstruct a volume from one raw light-field frame.

    Args:
        frame: raw camera frame (y, x).
        microscope: its parameters, or a preset.
        white, dark: calibration frames, see `Rectifier.calibrate`.
        z_um: depths of the planes in micrometres.
        voxels_per_lenslet: s.
        solver: a name in `SOLVERS`, or any solver object.
        iterations: the default of the named solver if not given.
        sparsity: l1 weight as a fraction of the one that makes the volume zero (ista, fista, admm).
        total_variation: TV weight in the same unit (admm).
        anti_alias: smooth each plane to what the microscope samples there, see `optics.AntiAlias`.
        withhold: fraction of the trusted pixels kept out of the fit, to measure how well the volume predicts them.
        saturation: raw value at and above which a pixel is saturated; the maximum of the dtype for whole-number frames.
        psf: if you have it already; depths and s are then taken from it.
        tolerance: of the PSF, see `compute_psf`.
        track: see `lfjax.progress.track`.

    Raises:
        LfjaxError: with the argument, what came and what was expected.
    """
    require(isinstance(solver, str) is False or solver in SOLVERS, "solver", solver, f"one of {', '.join(SOLVERS)}")
    require(0 <= withhold < 1, "withhold", withhold, "a fraction from 0 to below 1")
    rectifier = Rectifier.calibrate(microscope, frame, white=white, dark=dark)
    counts = rectifier(jnp.asarray(np.asarray(frame), jnp.float32))
    if not bool(jnp.any(rectifier.mask & (counts > 0))):
        raise CalibrationError("frame minus dark frame is nowhere positive: expected a frame brighter than dark")
    if psf is None:
        psf = cached_psf(microscope, z_um, voxels_per_lenslet, tolerance=tolerance, track=track)
    op = LightField(psf, rectifier.field)
    light_field = rectifier.flatten(counts, psf)
    kind = np.asarray(frame).dtype
    if saturation is None and np.issubdtype(kind, np.integer):
        saturation = float(np.iinfo(kind).max)
    mask = rectifier.mask
    if saturation is not None:
        mask = mask & ~rectifier.saturated(frame, saturation)
    held = mask & jnp.asarray(np.random.default_rng(0).random(mask.shape) < withhold)
    problem = solvers.Problem(op, light_field, mask & ~held)
    method, default = SOLVERS[solver] if isinstance(solver, str) else ((lambda *_: solver), 30)
    smooth = AntiAlias(microscope, psf.z_um, psf.voxels_per_lenslet, op.in_shape[1:]) if anti_alias else None
    result = solvers.run(method(problem, sparsity, total_variation), problem, iterations or default, smooth=smooth, track=track)
    return Reconstruction(
        volume=result.x,
        voxel_um=psf.voxel_um,
        light_field=light_field,
        image=result.image,
        mask=mask,
        correlation=float(metrics.correlation(light_field, result.image, mask & ~held)),
        withheld_correlation=float(metrics.correlation(light_field, result.image, held)) if withhold else None,
        objective=result.objective,
        rectifier=rectifier,
        psf=psf,
    )
