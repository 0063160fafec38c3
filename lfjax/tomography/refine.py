"""Refinement of poses and shifts near the truth: Levenberg-Marquardt through the projector, for each image by itself.

    min over (w, t) of |P (|CTF| exp(-2 pi i k.t / n) V^(R^T exp(w)^T (kx, ky, 0)) - m Y / |CTF|)|^2

m Y is the part of the image in the data term, see `ctf`: this is the likelihood in white noise of the images as the camera
records them, whatever a program has multiplied into them since. P keeps low frequencies first and admits more from stage to
stage: the valley around the truth is as wide as the shortest period admitted. The volume is a good estimate of the object in
the images, on their scale.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size
from lfjax.rotation.matrices import from_vector
from lfjax.solvers.levenberg_marquardt import Normal, descend
from lfjax.tomography import gridding
from lfjax.tomography.fourier_slice import Plane, View, map_batches
from lfjax.tomography.particles import Particles

FAINT = 1e-4  # |CTF|^2 below which a frequency counts as that of its zeros


class Refinement(NamedTuple):
    """Refined particles.

    Attributes:
        particles: the particles with refined rotations and shifts.
        ratio: cost of each image after the last stage over that before it.
    """

    particles: Particles
    ratio: Float[Array, " n"]


def refine_poses(
    volume: Float[ArrayLike, "z y x"],
    images: Float[ArrayLike, "n row col"],
    particles: Particles,
    *,
    cutoffs: Sequence[float] = (0.15, 0.3, 0.5),
    steps: int = 8,
    kernel: int = 4,
    batch: int = 64,
) -> Refinement:
    """Rotations and shifts that explain the images best, from a start within reach of the first stage.

    A rotation error of angle a displaces the rim of a particle of radius r by r a: the first cutoff should keep periods of
    about four times that.

    Args:
        volume: (n, n, n).
        images: (count, n, n).
        particles: start; CTF, pixel sizes and half-sets stay.
        cutoffs: largest frequency of each stage, in units of Nyquist.
        steps: Levenberg-Marquardt steps per stage.
        kernel: taps of the interpolation.
        batch: most images per batch.

    Raises:
        ShapeError: volume, images and particles do not agree.
        ParameterError: a cutoff is out of range.
    """
    size = jnp.shape(volume)[0]
    require_shape("volume", jnp.shape(volume), (size,) * 3)
    require_shape("images", jnp.shape(images), (len(particles), size, size))
    require(len(cutoffs) > 0 and all(0 < c <= 1 for c in cutoffs), "cutoffs", tuple(cutoffs), "numbers from 0 to 1")
    grid = 2 * good_size(size)
    taps = gridding.kaiser_bessel(kernel, grid / size)
    spectrum = _spectrum(taps, grid, jnp.asarray(volume, float))
    views = View(particles.rotations, particles.shifts, particles.ctf, particles.pixel_angstrom)
    images = jnp.asarray(images, float)
    for cutoff in cutoffs:
        plane = Plane(size, grid, taps, cutoff)
        views, ratio = _stage(plane, steps, batch, spectrum, views, images)
    found = eqx.tree_at(lambda p: (p.rotations, p.shifts), particles, (views.rotation, views.shift))
    return Refinement(found, ratio)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _spectrum(kernel: gridding.Kernel, grid: int, volume: Array) -> Array:
    return gridding.spectrum(volume, kernel, grid)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _stage(plane: Plane, steps: int, batch: int, spectrum: Array, views: View, images: Array) -> tuple[View, Array]:
    def one(item: tuple[View, Array]) -> tuple[View, Array]:
        view, image = item
        none = jnp.zeros(2, image.dtype)
        contrast = jnp.sqrt(jnp.maximum(plane.power(view), FAINT))
        seen = plane.samples(image, none) * plane.matched(view) / contrast
        centre = plane.at_samples(plane.displacement(none))

        def residual(move: Array, view: View) -> Array:
            here = _moved(view, move)
            values = gridding.interpolate(spectrum, plane.coordinates(here), plane.kernel, plane.grid)
            moved = plane.at_samples(plane.displacement(here.shift)) * centre.conj()
            misfit = values * contrast * moved - seen
            return jnp.concatenate([misfit.real, misfit.imag])

        def linearise(view: View) -> Normal:
            none = jnp.zeros(5, image.dtype)
            misfit, derivative = jax.linearize(lambda move: residual(move, view), none)
            jacobian = jax.vmap(derivative)(jnp.eye(5, dtype=image.dtype))
            return Normal(misfit @ misfit, jacobian @ misfit, jacobian @ jacobian.T)

        found, cost = descend(linearise, _moved, view, steps=steps)
        start = residual(jnp.zeros(5, image.dtype), view)
        return found, cost / (start @ start)

    return map_batches(one, (views, images), batch)


def _moved(view: View, move: Array) -> View:
    """The view after a small rotation in the frame of the image and a displacement."""
    return view._replace(rotation=from_vector(move[:3]) @ view.rotation, shift=view.shift + move[3:])
