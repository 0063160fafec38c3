"""Poses and map refined in turn, for images that are nearly free of noise: the last step where a search ends at its grid.

A search near known poses stops at the spacing of its points. Where the residuals are mostly those of the poses, and not noise,
the gradient refines them: a least-squares map at the present poses, by conjugate gradients that stop early, and
Levenberg-Marquardt on every pose and displacement against it, with more frequencies from round to round.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from lfjax import rotation
from lfjax.solvers import CG, run
from lfjax.tomography.normal_equations import view_equations
from lfjax.tomography.particles import Particles
from lfjax.tomography.refine import refine_poses

ROUNDS = ((0.5, 8), (0.7, 8), (0.9, 8), (0.9, 14), (0.9, 14), *((0.9, 30),) * 10)
"""Largest frequency, in units of Nyquist, and steps of the conjugate gradients of each round."""
SETTLED_RAD = 1e-4
"""Median turn of the poses in a round at the last frequency, radians, below which no further round follows."""
POSE_STEPS = 5


def refine_together(
    images: Float[ArrayLike, "n y x"], particles: Particles, rounds: tuple[tuple[float, int], ...] = ROUNDS
) -> Particles:
    """Particles at poses and displacements that agree with the map that they make.

    Args:
        images: (n, y, x), particles bright, nearly without noise.
        particles: poses within reach of the first round, see `refine_poses`.
        rounds: largest frequency, in units of Nyquist, and steps for the map, of each round; those like the last end where the
            poses settle, see `SETTLED_RAD`.

    Raises:
        ShapeError: images and particles do not agree.
        ParameterError: a frequency is out of range.
    """
    images = jnp.asarray(images, float)
    white = np.ones((int(np.asarray(particles.group).max()) + 1, images.shape[-1] // 2 + 1))
    for cutoff, steps in rounds:
        volume = run(CG(), view_equations(images, particles, noise=white), steps).x
        before = particles.rotations
        particles = refine_poses(volume, images, particles, cutoffs=(cutoff,), steps=POSE_STEPS).particles
        turn = float(jnp.median(rotation.distance(before, particles.rotations)))
        if (cutoff, steps) == rounds[-1] and turn < SETTLED_RAD:
            break
    return particles
