"""Gradients of the PSF with respect to each physical parameter, and central differences of the same number; float64."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lfjax.optics import Alignment, Microscope, Pupil
from lfjax.optics.psf.images import Sampling, psf_images

# where each parameter stands, and the step of its difference
PARAMETERS: dict[str, tuple[float, float]] = {
    "magnification": (20.0, 1e-3),
    "numerical_aperture": (0.5, 1e-5),
    "medium_index": (1.33, 1e-5),
    "wavelength_um": (0.52, 1e-6),
    "lenslet_pitch_um": (125.0, 1e-3),
    "f_ml": (2500.0, 1e-1),
    "array_to_sensor_um": (2520.0, 1e-1),
    "native_plane_um": (300.0, 1e-1),
    "offset y": (3.0, 1e-3),
    "rotation_rad": (0.01, 1e-6),
    "sample_index": (1.36, 1e-6),
    "astigmatism": (0.05, 1e-5),
    "coma": (0.05, 1e-5),
    "spherical": (0.05, 1e-5),
}


def system(scope: Microscope, v: dict[str, jax.Array]) -> tuple[Microscope, Pupil, Alignment]:
    """An aberrated, misaligned microscope that looks 40 um deep into a sample of another index."""
    names = ("magnification", "numerical_aperture", "medium_index", "wavelength_um", "lenslet_pitch_um")
    changed = dataclasses.replace(scope, **{name: v[name] for name in names}, lenslet_focal_length_um=v["f_ml"])
    waves = [0.03] * 4 + [v["astigmatism"], 0.03, v["coma"], 0.03, 0.03, 0.03, v["spherical"]]
    pupil = Pupil(waves, sample_index=v["sample_index"], depth_um=40.0)
    return changed, pupil, Alignment(v["array_to_sensor_um"], (v["offset y"], 2.0), v["rotation_rad"], v["native_plane_um"])


def gradients_and_differences(scope: Microscope) -> dict[str, tuple[float, float]]:
    """df/dv and (f(v + h) - f(v - h)) / 2h for each parameter v, f the squared distance of the PSF from a random image."""
    sampling = Sampling.of(scope, 20.0, 5, 2)
    side = 5 * scope.pixels_per_lenslet
    target = np.random.default_rng(0).random((1, side, side)) / side**2
    at, steps = (np.array(column) for column in zip(*PARAMETERS.values(), strict=True))

    def score(values: jax.Array) -> jax.Array:
        changed, pupil, alignment = system(scope, dict(zip(PARAMETERS, values, strict=True)))
        offsets = jnp.asarray([[0.1, -0.2]])
        image = psf_images(changed, 20.0, offsets, sampling=sampling, pupil=pupil, alignment=alignment)
        return jnp.sum((image - target) ** 2)

    with jax.enable_x64(True):
        gradient = np.asarray(jax.jit(jax.grad(score))(at))
        moved = np.concatenate([at + np.diag(steps), at - np.diag(steps)])
        ahead, behind = np.split(np.asarray(jax.jit(lambda v: jax.lax.map(score, v))(moved)), 2)
    pairs = zip(gradient, (ahead - behind) / (2 * steps), strict=True)
    return {name: (float(g), float(d)) for name, (g, d) in zip(PARAMETERS, pairs, strict=True)}
