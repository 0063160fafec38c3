"""From raw frame to volume: every figure of this capability, measured.  `make bench-reconstruct`

The rows on the reference PSF and the real vesicle frame need the shared data beside a checkout; without it they are left
out, and the run says so.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import RESULTS, Report, arguments
from benchmarks.reference import clipped, psf_errors, relative_error
from lfjax import metrics, pipeline, simulate, solvers, viz
from lfjax.errors import CalibrationWarning
from lfjax.io import read_frame
from lfjax.optics import PRESETS, AntiAlias, LightField, Rectifier, cached_psf, compute_psf
from lfjax.optics.psf.images import Sampling, psf_images, sub_lenslet_offsets

SHARED = Path(__file__).parents[2] / "shared"
Z_UM = tuple(np.arange(10) - 4.5)
VOXELS = 4


def against_reference(report: Report) -> None:
    """PSF and projections of an independent wave-optics code."""
    reference = np.load(SHARED / "reference/lfm_psf_M20NA05_N11.npz", allow_pickle=False)
    psf = compute_psf(PRESETS["20x0.5"], (-60, -30, 0, 30, 60), 11, oversampling=3)
    worst = float(psf_errors(psf, reference["filters"]).max())
    report.at_most("PSF against the reference, worst of all positions and depths", worst, 0.02, peer="fast-light-field")
    op = LightField(clipped(psf), (11, 11))
    for name in ("rand", "beads"):
        volume = jnp.asarray(reference[f"vol_{name}"]).transpose(2, 0, 1)
        error = relative_error(op(volume), reference[f"proj_{name}"])
        report.at_most(f"forward projection against the reference, {name}", error, 0.02, peer="fast-light-field")
    back = np.asarray(op.T(jnp.asarray(reference["img_rand"]))).transpose(1, 2, 0)
    error = relative_error(back, reference["back_rand"])
    report.at_most("back projection against the reference", error, 0.02, peer="fast-light-field")
    x = jax.random.normal(jax.random.key(0), op.in_shape)
    y = jax.random.normal(jax.random.key(1), op.out_shape)
    gap = abs(float(jnp.vdot(op(x), y) - jnp.vdot(x, op.T(y)))) / float(jnp.linalg.norm(op(x)) * jnp.linalg.norm(y))
    report.at_most("adjoint, |<Hx, y> - <x, H^T y>| / |Hx||y|, float32", gap, 1e-5)


def convergence(report: Report) -> None:
    """The PSF at the oversampling chosen for a tolerance, against oversampling 15."""
    scope, tolerance = PRESETS["60x1.2w"], 0.02
    psf = cached_psf(scope, Z_UM, VOXELS, tolerance=tolerance)
    offsets, worst = sub_lenslet_offsets(VOXELS), 0.0
    sampling = Sampling.of(scope, Z_UM[0], psf.lenslets, 15)
    for z in (0, 4):
        probes = jnp.asarray([(offsets[0], offsets[0]), (offsets[1], offsets[1])])
        fine = np.asarray(psf_images(scope, Z_UM[z], probes, sampling=sampling))
        worst = max(worst, *(relative_error(psf.values[z, i, i], fine[i]) for i in range(2)))
    report.at_most(f"PSF at the chosen oversampling {psf.oversampling} against 15, tolerance 2 %", worst, tolerance)
    report.at_most("convergence error that the PSF reports", psf.convergence_error or 0.0, tolerance)


class Choice(NamedTuple):
    """A solver's setting and number of iterations, as the withheld pixels choose them."""

    withheld: float
    iterations: int
    label: str
    solver: solvers.Solver
    x: jax.Array


def candidates(problem: solvers.Problem) -> dict[str, tuple[list[tuple[str, solvers.Solver]], int]]:
    """For each solver the settings to choose from and the largest number of iterations."""
    scale = float(problem.lambda_max())
    sparse = (0.0, 1e-2)
    return {
        "Richardson-Lucy": ([("", solvers.RichardsonLucy())], 240),
        "ISRA": ([("", solvers.ISRA())], 240),
        "ISTA": ([(f"lambda {f:g} max", solvers.ISTA(f * scale)) for f in sparse], 320),
        "FISTA": ([(f"lambda {f:g} max", solvers.FISTA(f * scale)) for f in sparse], 320),
        "ADMM": ([(f"TV {f:g} max", solvers.ADMM(1e-3 * scale, f * scale)) for f in (1e-3, 1e-2)], 64),
        "CG": ([("", solvers.CG())], 96),
    }


def choose(
    problem: solvers.Problem,
    settings: list[tuple[str, solvers.Solver]],
    longest: int,
    held: np.ndarray,
    data: jax.Array,
    smooth: AntiAlias | None = None,
) -> Choice:
    """The setting and iterations, of eight looks each, whose volume predicts the withheld pixels best."""
    best: list[Choice] = []
    for label, solver in settings:

        def look(k: int, x: jax.Array, _: float, label: str = label, solver: solvers.Solver = solver) -> None:
            score = float(metrics.correlation(data, problem.op(x), held))
            if not best or score > best[-1].withheld:
                best.append(Choice(score, k, label, solver, x))

        solvers.run(solver, problem, longest, chunk=longest // 8, smooth=smooth, callback=look)
    return best[-1]


def real_frame(report: Report) -> None:
    """The vesicles: calibration, fit, withheld pixels, lenslet grid, picture."""
    light_field, white, dark = (read_frame(SHARED / f"data/guv/{n}.tif") for n in ("light_field", "white", "dark"))
    scope = PRESETS["60x1.2w"]
    rectifier = Rectifier.calibrate(scope, light_field, white=white, dark=dark)
    lattice = rectifier.lattice
    report.row("real white frame: pitch", lattice.pitch_px, "px", "15.385 +- 0.02", abs(lattice.pitch_px - 15.385) <= 0.02)
    turn = lattice.rotation_rad
    near = abs(abs(turn) - 0.0018) <= 3e-4
    report.row("real white frame: rotation (rows of lenslets turn to +y)", turn, "rad", "|.0018| +- .0003", near)
    psf = cached_psf(scope, Z_UM, VOXELS)
    op = LightField(psf, rectifier.field)
    data = rectifier.flatten(rectifier(jnp.asarray(light_field, jnp.float32)), psf)
    mask = np.asarray(rectifier.mask)
    full = solvers.Problem(op, data, rectifier.mask)
    fifteen = solvers.run(solvers.RichardsonLucy(), full, 15)
    report.at_least(
        "real frame: correlation, 15 Richardson-Lucy iterations", float(metrics.correlation(data, fifteen.image, mask)), 0.935
    )

    held = mask & (np.random.default_rng(0).random(mask.shape) < 0.1)
    problem = solvers.Problem(op, data, mask & ~held)
    smooth = AntiAlias(scope, Z_UM, VOXELS, op.in_shape[1:])
    best_fit, volumes = 0.0, {}
    for name, (settings, longest) in candidates(problem).items():
        plain = choose(problem, settings, longest, held, data)
        filtered = choose(problem, [(plain.label, plain.solver)], longest, held, data, smooth)
        end = ", the longest tried" if plain.iterations == longest else ""
        what = f"real frame, {name}{', ' + plain.label if plain.label else ''}"
        report.row(f"{what}: iterations chosen by the withheld pixels{end}", plain.iterations, "")
        report.row(f"{what}: correlation on withheld pixels", plain.withheld, "")
        fit = float(metrics.correlation(data, solvers.run(plain.solver, full, plain.iterations).image, mask))
        best_fit = max(best_fit, fit)
        report.row(f"{what}: correlation, all trusted pixels fitted", fit, "")
        report.row(f"{what}: iterations with the anti-aliasing filter", filtered.iterations, "")
        report.at_most(f"{what}: withheld correlation lost by the filter", plain.withheld - filtered.withheld, 0.01)
        grid = max(
            float(metrics.lattice_energy(filtered.x[i], VOXELS) / metrics.lattice_energy(plain.x[i], VOXELS)) for i in (4, 5)
        )
        report.at_most(f"{what}: lenslet-grid energy at +-0.5 um, filtered / plain", grid, 1 / 3)
        volumes[name] = filtered.x
    report.at_least("real frame: correlation, best solver", best_fit, 0.955)
    if not report.toy:
        shown = volumes["Richardson-Lucy"] / volumes["Richardson-Lucy"].max((1, 2), keepdims=True)  # each plane at its best
        viz.planes(shown, Z_UM, psf.voxel_um, path=RESULTS / "reconstruct_vesicle.png")
        viz.resynthesis(data, fifteen.image, mask, path=RESULTS / "reconstruct_vesicle_fit.png")


def simulated(report: Report) -> None:
    """Raw simulated frames, where the truth is known."""
    lenslets = 10 if report.toy else 21
    scope = PRESETS["60x1.2w"]
    z_um = Z_UM[1:8] if report.toy else Z_UM  # SSIM has a window of 7
    psf = cached_psf(scope, z_um, VOXELS)
    made = simulate.raw_recording(1, scope, lenslets=lenslets, z_um=z_um, count=8, photons=2000, psf=psf)
    frames = {"white": made.frames.white, "dark": made.frames.dark}
    truth = np.asarray(made.volume)

    def score(result: pipeline.Reconstruction) -> tuple[float, float, float]:
        y, x = (min(a, b) for a, b in zip(result.volume.shape[1:], truth.shape[1:], strict=True))
        cut = (slice(None), slice((truth.shape[1] - y) // 2, None), slice((truth.shape[2] - x) // 2, None))
        wanted = truth[cut][:, :y, :x]
        got = np.asarray(result.volume)[:, :y, :x]
        got = got * float(metrics.match_scale(got, wanted))
        return float(metrics.psnr(got, wanted)), float(metrics.ssim(got, wanted)), float(metrics.correlation(got, wanted))

    for name in ("richardson_lucy", "fista") if report.toy else pipeline.SOLVERS:
        start = time.perf_counter()
        result = pipeline.reconstruct(made.frames.light_field, scope, **frames, psf=psf, solver=name)
        seconds = time.perf_counter() - start
        psnr, ssim, correlation = score(result)
        report.row(f"simulated raw frame, {name}: PSNR against the truth", psnr, "dB")
        report.row(f"simulated raw frame, {name}: SSIM", ssim, "")
        report.row(f"simulated raw frame, {name}: correlation", correlation, "")
        report.row(f"simulated raw frame, {name}: time, compilation included", seconds, "s")
        if name == "richardson_lucy":
            honest = psnr

    rectifier = Rectifier.calibrate(scope, made.frames.light_field, **frames)
    data = rectifier.flatten(rectifier(jnp.asarray(made.frames.light_field, jnp.float32)), psf)
    problem = solvers.Problem(LightField(psf, rectifier.field), data, rectifier.mask)
    sparsity = 1e-3 * float(problem.lambda_max())
    slow = solvers.run(solvers.ISTA(sparsity), problem, 200)
    fast = solvers.run(solvers.FISTA(sparsity), problem, 100)
    reached = np.flatnonzero(fast.objective <= slow.objective[-1])
    report.at_most("FISTA iterations to ISTA's objective after 200", float(reached[0]) if len(reached) else np.inf, 50)
    if not report.toy:
        viz.convergence({"ISTA": slow.objective, "FISTA": fast.objective}, path=RESULTS / "reconstruct_convergence.png")

    wrong = ("camera_pixel_um", "lenslet_pitch_um")  # either makes the raw pitch wrong; the second also the PSF
    for name in wrong[:1] if report.toy else wrong:
        lie = type(scope).from_dict(scope.to_dict() | {name: 1.02 * getattr(scope, name)})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = pipeline.reconstruct(made.frames.light_field, lie, **frames, z_um=z_um, voxels_per_lenslet=VOXELS)
        warned = any(issubclass(w.category, CalibrationWarning) for w in caught)
        report.row(f"{name} lies by 2 %: the warning appears", warned, "", "= 1", warned)
        off = abs(result.rectifier.lattice.pitch_px - made.frames.lattice.pitch_px)
        report.at_most(f"{name} lies by 2 %: measured pitch used, error", off, 0.02, "px")
        report.at_most(f"{name} lies by 2 %: PSNR lost against the honest case", honest - score(result)[0], 0.5, "dB")


def main() -> None:
    """Run all, at the size asked."""
    report = Report("reconstruct", arguments(__doc__ or "").toy)
    if SHARED.exists():
        if not report.toy:
            against_reference(report)  # the tests compare the same at this size
            convergence(report)
            real_frame(report)
    else:
        print("shared data not found beside the checkout: rows on the reference and the real frame are left out")
    simulated(report)
    report.write()


if __name__ == "__main__":
    main()
