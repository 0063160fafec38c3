"""Poses and shifts near the truth, refined through the projector: Levenberg-Marquardt for every image by itself, all at once.

    min over (w, t) of |P (CTF exp(-2 pi i k.t / n) V^(R^T exp(w)^T (kx, ky, 0)) - Y)|^2

P keeps low frequencies first and admits more from stage to stage: the valley around the truth is as wide as the shortest period
admitted. The volume is a good estimate of what the images show, on their scale.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size
from lfjax.rotation import from_vector
from lfjax.solvers.levenberg_marquardt import Normal, descend
from lfjax.tomography import gridding
from lfjax.tomography.fourier_slice import Plane, View
from lfjax.tomography.particles import Particles


class Refinement(NamedTuple):
    """Refined particles, and for each image the cost of the last stage over that before it."""

    particles: Particles
    ratio: Float[Array, " n"]


def refine_poses(
    volume: Float[Array, "z y x"],
    images: Float[Array, "n y x"],
    particles: Particles,
    *,
    cutoffs: Sequence[float] = (0.15, 0.3, 0.5),
    steps: int = 8,
    kernel: int = 4,
    batch: int = 64,
) -> Refinement:
    """Rotations and shifts that explain the images best, from a start about as far off as the first stage can see.

    A rotation that is off by a displaces a particle of radius r by r a at its rim: the first cutoff should keep periods of
    about four times that.

    Args:
        volume: (n, n, n).
        images: (count, n, n).
        particles: start; CTF and pixel sizes are kept.
        cutoffs: largest frequency of each stage, in units of Nyquist.
        steps: of each stage.
        kernel: taps of the interpolation.
        batch: images at a time.
    """
    size = volume.shape[0]
    require_shape("volume", volume.shape, (size,) * 3)
    require_shape("images", images.shape, (len(particles), size, size))
    require(len(cutoffs) > 0 and all(0 < c <= 1 for c in cutoffs), "cutoffs", tuple(cutoffs), "numbers from 0 to 1")
    grid = 2 * good_size(size)
    taps = gridding.kaiser_bessel(kernel, grid / size)
    spectrum = gridding.spectrum(jnp.asarray(volume, float), taps, grid)
    views = View(particles.rotations, particles.shifts, particles.ctf, particles.pixel_angstrom)
    images = jnp.asarray(images, float)
    ratio = jnp.ones(len(particles))
    for cutoff in cutoffs:
        plane = Plane(size, grid, taps, cutoff)
        views, ratio = _stage(plane, steps, batch, spectrum, views, images)
    found = Particles(
        views.rotation, shifts=views.shift, ctf=particles.ctf, pixel_angstrom=particles.pixel_angstrom, half=particles.half
    )
    return Refinement(found, ratio)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _stage(plane: Plane, steps: int, batch: int, spectrum: Array, views: View, images: Array) -> tuple[View, Array]:
    def one(item: tuple[View, Array]) -> tuple[View, Array]:
        view, image = item
        none = jnp.zeros(2, image.dtype)
        seen, centre = plane.samples(image, none), plane.at_samples(plane.displacement(none))

        def residual(move: Array, view: View) -> Array:
            here = _moved(view, move)
            values = gridding.interpolate(spectrum, plane.coordinates(here.rotation), plane.kernel, plane.grid)
            moved = plane.at_samples(plane.displacement(here.shift)) * centre.conj()
            misfit = values * plane.transfer(here) * moved - seen
            return jnp.concatenate([misfit.real, misfit.imag])

        def linearise(view: View) -> Normal:
            none = jnp.zeros(5, image.dtype)
            misfit, slopes = jax.linearize(lambda move: residual(move, view), none)
            jacobian = jax.vmap(slopes)(jnp.eye(5, dtype=image.dtype))
            return Normal(misfit @ misfit, jacobian @ misfit, jacobian @ jacobian.T)

        found, cost = descend(linearise, _moved, view, steps=steps)
        start = residual(jnp.zeros(5, image.dtype), view)
        return found, cost / (start @ start)

    return jax.lax.map(one, (views, images), batch_size=batch)


def _moved(view: View, move: Array) -> View:
    """Turned in the frame of the image, and displaced."""
    return view._replace(rotation=from_vector(move[:3]) @ view.rotation, shift=view.shift + move[3:])
