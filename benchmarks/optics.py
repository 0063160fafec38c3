"""Scattering, aberrations, calibration and other designs, against wave simulations and closed forms.

`make bench-optics` writes results/optics.json and figures.
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from benchmarks.common import RESULTS, Report, arguments
from benchmarks.fourier_waves import FourierWaves
from benchmarks.gradients import gradients_and_differences
from benchmarks.phase_screens import PhaseScreens
from benchmarks.reference import relative_error
from lfjax import solvers
from lfjax.metrics import correlation
from lfjax.optics import (
    Alignment,
    LightField,
    Microscope,
    Pupil,
    Scattering,
    calibrate,
    compute_psf,
    fit_scattering,
    preset,
)
from lfjax.optics.camera.calibration import bead_frame
from lfjax.optics.psf.images import Sampling, psf_images, support_lenslets

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SCOPE = preset("20x0.5")
FREE_PATH_UM, ANISOTROPY = 30.0, 0.98
LENSLETS = 9


def scattering(report: Report, toy: bool) -> list[tuple[float, NDArray[np.float64], NDArray[np.float32]]]:
    """The operator against phase screens, at 0.5 to 2 mean free paths."""
    psf = compute_psf(SCOPE, [0.0], 5, oversampling=1 if toy else 3, lenslets=LENSLETS)
    op = LightField(psf, (LENSLETS, LENSLETS))
    middle = op.in_shape[1] // 2
    point = jnp.zeros(op.in_shape).at[0, middle, middle].set(1.0)
    waves = PhaseScreens(SCOPE, LENSLETS, side=640 if toy else 1152, mean_free_path_um=FREE_PATH_UM, anisotropy=ANISOTROPY)
    pictures = []
    for paths in (1.0,) if toy else (0.5, 1.0, 1.5, 2.0):
        d = paths * FREE_PATH_UM
        truth = waves.mean_image(d, 0.0, layers_per_free_path=4 if toy else 8, realisations=1 if toy else 64)
        tissue = Scattering(op.in_shape, SCOPE.voxel_um(5), [d], mean_free_path_um=FREE_PATH_UM, anisotropy=ANISOTROPY)
        image = np.asarray(op(tissue(point)))
        name = f"scattering against phase screens, {paths:g} mean free paths, relative L2"
        report.at_most(name, relative_error(image, truth), 0.15, peer="phase screens")
        report.row(f"the same without the operator, {paths:g} mean free paths", relative_error(op(point), truth), "1")
        pictures.append((paths, truth, image))
    return pictures


def with_noise(clean: Array, seed: int) -> Array:
    """An image with white noise at 30 dB."""
    noise = np.random.default_rng(seed).normal(size=clean.shape)
    image = np.asarray(clean) + noise * np.linalg.norm(clean) / np.linalg.norm(noise) * 10 ** (-30 / 20)
    return jnp.asarray(image, jnp.float32)


def fit(report: Report, toy: bool) -> None:
    """Mean free path and anisotropy from a light field and a known volume, at 30 dB."""
    depths, thickness = (-30.0, -10.0, 10.0, 30.0), (100.0, 70.0, 40.0, 10.0)
    op = LightField(compute_psf(SCOPE, depths, 3, oversampling=1), (15, 15))
    spots = np.random.default_rng(0).random(op.in_shape, np.float32)
    volume = np.where(spots > 0.99, spots, 0)
    worst = [0.0, 0.0]
    tissues = ((60.0, 0.93), (90.0, 0.9), (40.0, 0.97))
    for seed, (free_path, g) in enumerate(tissues[:1] if toy else tissues):
        tissue = Scattering(op.in_shape, SCOPE.voxel_um(3), thickness, mean_free_path_um=free_path, anisotropy=g)
        frame = with_noise(op(tissue(volume)), seed)
        found = fit_scattering(frame, volume, op, SCOPE.voxel_um(3), thickness)
        errors = (abs(found.mean_free_path_um / free_path - 1), abs((1 - found.anisotropy) / (1 - g) - 1))
        worst = [max(w, e) for w, e in zip(worst, errors, strict=True)]
    report.at_most("fit_scattering at 30 dB, worst: relative error of l", worst[0], 0.1)
    report.at_most("fit_scattering at 30 dB, worst: relative error of 1 - g", worst[1], 0.1)


def reconstruction(report: Report, toy: bool) -> list[tuple[str, NDArray[np.float32]]]:
    """Points under 1.5 mean free paths, imaged by the wave simulation, reconstructed with H and with H S."""
    field, depths = (21, 21), (-20.0, 0.0, 20.0)
    thickness = [1.5 * FREE_PATH_UM - z / 2 for z in depths]
    op = LightField(compute_psf(SCOPE, depths, 3, oversampling=1 if toy else 3), field)
    waves = PhaseScreens(SCOPE, LENSLETS, side=640 if toy else 1152, mean_free_path_um=FREE_PATH_UM, anisotropy=ANISOTROPY)
    n, reach = SCOPE.pixels_per_lenslet, LENSLETS // 2
    rng = np.random.default_rng(1)
    truth, image = np.zeros(op.in_shape, np.float32), np.zeros([(side + 2 * reach) * n for side in field])
    for k, (z, d) in enumerate(zip(depths, thickness, strict=True)):
        spread = waves.mean_image(d, z, layers_per_free_path=4, realisations=1 if toy else 32, seed=k)
        for y, x in rng.integers(3, 18, (12, 2)):
            weight = rng.uniform(0.5, 1.0)
            truth[k, 3 * y + 1, 3 * x + 1] += weight
            image[y * n : (y + LENSLETS) * n, x * n : (x + LENSLETS) * n] += weight * spread
    image = image[reach * n : -reach * n, reach * n : -reach * n]
    counts = rng.poisson(image * 3e4).astype(np.float32)
    tissue = Scattering(op.in_shape, SCOPE.voxel_um(3), thickness, mean_free_path_um=FREE_PATH_UM, anisotropy=ANISOTROPY)
    near = partial(gaussian_filter, sigma=(0, 1, 1))  # single voxels: half a voxel off should not count as nothing
    pictures, scores = [("truth", truth)], {}
    for name, model in (("without", op), ("with", op @ tissue)):
        x = solvers.run(solvers.RichardsonLucy(), solvers.Problem(model, counts), 10 if toy else 100).x
        scores[name] = float(correlation(near(np.asarray(x)), near(truth)))
        pictures.append((f"{name} the operator: {scores[name]:.3f}", np.asarray(x)))
    report.row("points at 1.5 mean free paths, correlation with the truth, without scattering in H", scores["without"], "1")
    report.at_least("the same with scattering in H", scores["with"], scores["without"])
    return pictures


def aberrations(report: Report, toy: bool) -> None:
    """The PSF from a pupil by FFT, without aberrations, against the Debye integral; gradients."""
    worst = 0.0
    offsets = jnp.asarray([[0.0, 0.0], [0.3, -0.1], [0.5, 0.5]])
    for name in ("20x0.5",) if toy else ("20x0.5", "22.2x0.5", "25x1.0w"):
        scope = preset(name)
        sampling = Sampling.of(scope, 20.0, support_lenslets(scope, [20.0]), 3)
        for z in (-20.0, 0.0, 10.0):
            debye = psf_images(scope, z, offsets, sampling=sampling)
            fourier = psf_images(scope, z, offsets, sampling=sampling, pupil=Pupil())
            worst = max(worst, *(relative_error(f, d) for f, d in zip(fourier, debye, strict=True)))
    report.at_most("pupil without aberrations against Debye, worst, relative L2", worst, 1e-3, peer="Debye")
    scope = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5)
    if toy:  # the tests compare the gradients at this size
        return
    for name, (gradient, difference) in gradients_and_differences(scope).items():
        error = abs(gradient / difference - 1)
        report.at_most(f"gradient in {name} against central differences, relative", error, 1e-3)


def fourier_design(report: Report, toy: bool) -> list[tuple[float, NDArray[np.float64], NDArray[np.float32]]]:
    """Views of the Fourier light field against one wave through the whole array."""
    design, pictures = FourierWaves(), []
    for z in (20.0,) if toy else (-40.0, -20.0, 0.0, 20.0, 40.0):
        truth = design.images(z, (0.0, 0.0), 45)
        views = np.asarray(design.views.psfs([z], side=45))[:, 0]
        worst = max(relative_error(view, wave) for view, wave in zip(views, truth, strict=True))
        name = f"Fourier light field, 7 views at z = {z:g} um against one wave, worst, relative L2"
        report.at_most(name, worst, 0.05, peer="direct wave simulation")
        pictures.append((z, truth, views))
    return pictures


def calibration(report: Report, toy: bool) -> None:
    """f_ml 2 % off and the sensor 3 um off, from a bead frame at 30 dB made with a finer field than the fit uses."""
    spots = np.array([[-30, 5.1, 5.2], [-18, 5.3, 15.8], [20, 15.9, 5.1], [32, 15.2, 15.4], [-25, 10.2, 10.3]], float)
    spots = spots[1:3] if toy else spots
    bright = 1e4 * np.array([1.0, 1.2, 0.9, 1.1, 1.0])[: len(spots)]
    truth = eqx.tree_at(lambda m: m.lenslet_focal_length_um, SCOPE, 1.02 * SCOPE.lenslet_focal_length_um)
    system = (truth, None, Alignment(array_to_sensor_um=SCOPE.lenslet_focal_length_um + 3.0))
    sampling = Sampling.of(truth, 40.0, 9, 3 if toy else 9)
    corners = np.round(spots[:, 1:]).astype(int)
    beads = jnp.asarray(np.c_[spots, bright], jnp.float32)
    frame = with_noise(jax.jit(lambda beads: bead_frame(system, beads, corners, (21, 21), sampling))(beads), 0)
    guess = spots + np.random.default_rng(1).normal(size=spots.shape) * [1.0, 0.1, 0.1]
    found = calibrate(frame, SCOPE, guess, oversampling=3 if toy else 5)
    focal, distance = (found.values[name] for name in ("lenslet_focal_length_um", "array_to_sensor_um"))
    report.at_most("calibration, 30 dB: f_ml, relative error", abs(focal / truth.lenslet_focal_length_um - 1), 2e-3)
    report.at_most("calibration, 30 dB: array to sensor, error", abs(distance - system[2].array_to_sensor_um), 0.5, "um")
    report.row("calibration: standard deviation that it states for f_ml", found.errors["lenslet_focal_length_um"], "um")
    report.row("calibration: standard deviation that it states for the distance", found.errors["array_to_sensor_um"], "um")
    report.row("calibration: largest error of a bead's depth", np.abs(found.beads - spots)[:, 0].max(), "um")


def scattering_picture(
    clouds: list[tuple[float, NDArray[np.float64], NDArray[np.float32]]], volumes: list[tuple[str, NDArray[np.float32]]]
) -> None:
    """Light fields by waves and by the operator; volumes."""
    figure, axes = plt.subplots(3, max(len(clouds), 3), figsize=(11, 8), layout="constrained", squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for column, (paths, truth, image) in enumerate(clouds):
        top = truth.max()
        axes[0, column].imshow(np.sqrt(truth / top), vmin=0, vmax=1, cmap="magma")
        axes[0, column].set_title(f"waves, {paths:g} mean free paths")
        axes[1, column].imshow(np.sqrt(np.maximum(image, 0) / top), vmin=0, vmax=1, cmap="magma")
        axes[1, column].set_title("H S")
    for axis, (name, volume) in zip(axes[2], volumes, strict=False):
        axis.imshow(np.sqrt(volume.max(0) / volume.max()), cmap="magma")
        axis.set_title(name)
    figure.savefig(RESULTS / "optics_scattering.png", dpi=110)


def views_picture(pictures: list[tuple[float, NDArray[np.float64], NDArray[np.float32]]]) -> None:
    """Views by one wave and by the package, side by side, one depth a column."""
    figure, axes = plt.subplots(2, len(pictures), figsize=(15, 2.4), layout="constrained")
    for column, (z, *images) in zip(axes.T, pictures, strict=True):
        for axis, views, name in zip(column, images, ("waves", "SubPupils"), strict=True):
            axis.imshow(np.sqrt(np.concatenate(list(views[:4]), axis=1)), cmap="magma")
            axis.set_title(f"{name}, z = {z:g} um")
            axis.axis("off")
    figure.savefig(RESULTS / "optics_views.png", dpi=110)


def main() -> None:
    """All figures."""
    toy = arguments(__doc__ or "").toy
    report = Report("optics", toy)
    clouds = scattering(report, toy)
    fit(report, toy)
    volumes = reconstruction(report, toy)
    aberrations(report, toy)
    views = fourier_design(report, toy)
    calibration(report, toy)
    report.write()
    if not toy:
        scattering_picture(clouds, volumes)
        views_picture(views)


if __name__ == "__main__":
    main()
