"""Gradients of the PSF in each physical parameter, and central differences of the same number; float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from lfjax.optics import Alignment, Microscope, Pupil
from lfjax.optics.psf.images import Sampling, psf_images

Change = Callable[[Microscope, Pupil, Alignment, Any], tuple[Microscope, Pupil, Alignment]]

# what changes, where, and the step of the difference
PARAMETERS: dict[str, tuple[Change, float, float]] = {
    "magnification": (lambda m, p, a, v: (eqx.tree_at(lambda x: x.magnification, m, v), p, a), 20.0, 1e-3),
    "numerical_aperture": (lambda m, p, a, v: (eqx.tree_at(lambda x: x.numerical_aperture, m, v), p, a), 0.5, 1e-5),
    "medium_index": (lambda m, p, a, v: (eqx.tree_at(lambda x: x.medium_index, m, v), p, a), 1.33, 1e-5),
    "wavelength_um": (lambda m, p, a, v: (eqx.tree_at(lambda x: x.wavelength_um, m, v), p, a), 0.52, 1e-6),
    "lenslet_pitch_um": (lambda m, p, a, v: (eqx.tree_at(lambda x: x.lenslet_pitch_um, m, v), p, a), 125.0, 1e-3),
    "f_ml": (lambda m, p, a, v: (eqx.tree_at(lambda x: x.lenslet_focal_length_um, m, v), p, a), 2500.0, 1e-1),
    "array_to_sensor_um": (lambda m, p, a, v: (m, p, eqx.tree_at(lambda x: x.array_to_sensor_um, a, v)), 2520.0, 1e-1),
    "native_plane_um": (lambda m, p, a, v: (m, p, eqx.tree_at(lambda x: x.native_plane_um, a, v)), 300.0, 1e-1),
    "offset y": (lambda m, p, a, v: (m, p, eqx.tree_at(lambda x: x.offset_um, a, (v, 2.0))), 3.0, 1e-3),
    "rotation_rad": (lambda m, p, a, v: (m, p, eqx.tree_at(lambda x: x.rotation_rad, a, v)), 0.01, 1e-6),
    "sample_index": (lambda m, p, a, v: (m, Pupil(p.zernike_waves, sample_index=v, depth_um=40.0), a), 1.36, 1e-6),
    "astigmatism": (lambda m, p, a, v: (m, Pupil(p.zernike_waves.at[4].set(v)), a), 0.05, 1e-5),
    "coma": (lambda m, p, a, v: (m, Pupil(p.zernike_waves.at[6].set(v)), a), 0.05, 1e-5),
    "spherical": (lambda m, p, a, v: (m, Pupil(p.zernike_waves.at[10].set(v)), a), 0.05, 1e-5),
}


def slope_and_difference(scope: Microscope, name: str) -> tuple[float, float]:
    """d/dv and (f(v + h) - f(v - h)) / 2h of the distance between an aberrated, misaligned PSF and a random image."""
    change, at, step = PARAMETERS[name]
    sampling = Sampling.of(scope, 20.0, 5, 2)
    side = 5 * scope.pixels_per_lenslet
    with jax.enable_x64(True):
        target = jax.random.uniform(jax.random.key(0), (1, side, side)) / side**2
        plain = Alignment(2520.0, (3.0, 2.0), 0.01, 300.0)

        @jax.jit
        def score(value: Any) -> jax.Array:
            changed, pupil, alignment = change(scope, Pupil(0.03 * jnp.ones(11)), plain, value)
            offsets = jnp.asarray([[0.1, -0.2]])
            image = psf_images(changed, 20.0, offsets, sampling=sampling, pupil=pupil, alignment=alignment)
            return jnp.sum((image - target) ** 2)

        slope = float(jax.grad(score)(jnp.asarray(at)))
        return slope, float(score(at + step) - score(at - step)) / (2 * step)
