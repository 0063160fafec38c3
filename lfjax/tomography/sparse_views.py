"""A map from few images (25 to 200) at known poses, by least squares with a prior on its voxels.

    V = m x,   x = argmin 1/2 sum_i |Y_i - H_i V|^2 / N + s (b TV(x) + l |x|_1) + s^2 / 2 |(1 - q)(x - mean)|^2,  perhaps x >= 0

m is a soft ball, TV the isotropic total variation, q a soft mask of the particle that follows from the map itself, and mean the
mean of x outside of it. The unit of all weights is s, the standard deviation that the noise has in a voxel of the gradient of
the data term: s^2 = p(0) of `view_equations`. So a weight is a number near 1 whatever the number of images, their noise and
their CTF. The default, b = 0.9, was chosen on a ribosome; a molecule of Gaussians has its best value nearby.

A Wiener map has one filter per shell, and cannot tell the particle from the solvent. Total variation removes noise where the
map is flat, while few large gradients cost it little.

Source: Rudin, Osher, Fatemi, Physica D 60, 259 (1992).
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from lfjax import solvers
from lfjax.errors import DataWarning, require, require_shape
from lfjax.linop import Diagonal
from lfjax.tomography.background import background_levels
from lfjax.tomography.ctf import PREMULTIPLIED
from lfjax.tomography.masks import density_mask, spherical_mask
from lfjax.tomography.normal_equations import ViewEquations, view_equations
from lfjax.tomography.particles import Particles

TERMS = ("nonnegative", "l1", "tv", "solvent")
WEIGHT = 0.9
EDGE = 3.0  # voxels: the soft edge of the ball
QUIETEST = 1e-4  # of the variance of the images: the least noise, so that images without noise have a weight
ROUNDS = 2  # masks of the particle, each from the map before
SMOOTH, GROW, SOFT = 6.0, 1.0, 3.0  # voxels: period to which a map is smoothed for its mask, its growth and its edge


class RegularisedMap(NamedTuple):
    """A map and its making.

    Attributes:
        volume: the map, at the scale of the images: its projections are their least-squares fit under the prior.
        noise: variance per pixel of each optics group and shell that the data term used.
        unit: s, the unit of the weights.
        mask: q of the prior "solvent"; None with others.
        objective: value after each step of the last round, without the constant of the data.
    """

    volume: Float[Array, "z y x"]
    noise: Float[NDArray[np.float64], "groups r"]
    unit: float
    mask: Float[NDArray[np.float32], "z y x"] | None
    objective: Float[NDArray[np.floating], " steps"]


def regularised_map(
    images: Float[ArrayLike, "n y x"],
    particles: Particles,
    *,
    radius_angstrom: float,
    prior: str = "tv",
    noise: Float[ArrayLike, "groups r"] | None = None,
    weight: float | None = None,
    steps: int = 40,
) -> RegularisedMap:
    """The map that fits the images best under a prior, by `solvers.ADMM`.

    Args:
        images: (n, y, x); n of a few hundred at most, as they are in memory together.
        particles: poses and optics of the images.
        radius_angstrom: radius of the ball that holds the particle; the map is 0 outside of it.
        prior: "tv", "nonnegative", "l1", "solvent", or several joined by "+", such as "nonnegative+tv". Maps of real
            particles have negative parts, where their CTF or their solvent takes them: "tv" is the one to start from.
        noise: variance per pixel of the noise of each optics group and shell, see `view_equations`; None: white, that of
            the images beyond the ball.
        weight: weight of each term of the prior in units of s; None: 0.9. With 0 the map is that of least squares inside the
            ball, or of nonnegative least squares.
        steps: iterations of ADMM. The map changes little after 40.

    Raises:
        ParameterError: an option is out of range, the ball exceeds the box, or a term of the prior is unknown.
        ShapeError: images and particles differ in number, the images are not square, or the noise does not fit.
    """
    terms = prior.split("+")
    require(set(terms) <= set(TERMS), "prior", prior, f"one or several of {', '.join(TERMS)}, joined by +")
    require(weight is None or 0 <= weight < np.inf, "weight", weight, "None, or 0 or more")
    require(isinstance(steps, int) and steps >= 1, "steps", steps, "a whole number, 1 or more")
    size = jnp.shape(images)[-1]
    require_shape("images", jnp.shape(images), (len(particles), size, size))
    pixel = float(np.asarray(particles.pixel_angstrom)[0])
    radius = radius_angstrom / pixel
    expected = f"1 to {size / 2:g} pixels of {pixel:g} A"
    require(1 <= radius <= size / 2, "radius_angstrom", radius_angstrom, expected)
    power = _white_noise(images, particles, radius) if noise is None else np.asarray(noise, float)
    ball = jnp.asarray(spherical_mask(size, radius, min(EDGE, size / 2 - radius)), jnp.float32)
    problem = view_equations(images, particles, noise=power, support=ball)
    unit = jnp.sqrt(problem.information)
    strength = unit * (WEIGHT if weight is None else weight)
    solver = solvers.ADMM(
        sparsity=strength * ("l1" in terms),
        total_variation=strength * ("tv" in terms),
        penalty=problem.information,
        inner_iterations=2,
        signed="nonnegative" not in terms,
    )
    x, objective, units = _solve(solver, problem, None, steps)
    mask = None
    for _ in range(ROUNDS if "solvent" in terms else 0):
        mask = _particle_mask(ball * x, pixel)
        pulled = _towards_solvent(problem, ball * (1 - jnp.asarray(mask)) ** 2, x, strength * unit)
        x, objective, units = _solve(solver, pulled, x, steps)
    history = units.of(solver.objective_powers) * np.asarray(objective, float)
    return RegularisedMap(ball * x, power, float(unit), mask, history)


@eqx.filter_jit
def _solve(
    solver: solvers.ADMM, problem: solvers.Problem, start: Array | None, steps: int
) -> tuple[Array, Array, solvers.Units]:
    """The map, and the objective after each step in units that come third."""
    solver, problem, units = solvers.in_own_units(solver, problem)
    state = solver.init(problem, None if start is None else start / units.data)
    state, objective = solvers.iterate(solver, problem, state, steps)
    return state.x * units.data, objective, units


def _white_noise(images: ArrayLike, particles: Particles, radius: float) -> Float[NDArray[np.float64], "groups r"]:
    """The mean variance beyond the ball per optics group, in every shell."""
    stack = np.asarray(images)
    size, group = stack.shape[-1], np.asarray(particles.group)
    variance = np.maximum(background_levels(stack, 2 * radius / size)[1] ** 2, QUIETEST * stack.var())
    if particles.ctf is not None and particles.ctf.applied is not None:
        kx, ky = (jnp.asarray(f(size), jnp.float32) for f in (np.fft.rfftfreq, np.fft.fftfreq))
        k = kx / particles.pixel_angstrom[:, None, None], ky[:, None] / particles.pixel_angstrom[:, None, None]
        of_each = jax.vmap(lambda ctf, x, y: jnp.mean(ctf.power(x, y)))(particles.ctf, *k)
        variance = variance / np.where(np.asarray(particles.ctf.applied) == PREMULTIPLIED, np.asarray(of_each), 1)
    powers = [variance[group == g].mean() if (group == g).any() else 1.0 for g in range(int(group.max()) + 1)]
    return np.repeat(np.asarray(powers)[:, None], size // 2 + 1, axis=1)


def _particle_mask(volume: Array, pixel: float) -> Float[NDArray[np.float32], "z y x"]:
    """1 where the smoothed map is dense."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # they are about masks that a user cuts
        made = density_mask(
            volume, voxel_angstrom=pixel, lowpass_angstrom=SMOOTH * pixel, extend_px=GROW, soft_px=SOFT, islands=0.1
        )
    return made.mask


def _towards_solvent(problem: ViewEquations, outside: Array, x: Array, pull: Array) -> ViewEquations:
    """The problem with pull / 2 |outside^(1/2) (x - mean)|^2 added."""
    mean = jnp.sum(outside * x) / jnp.maximum(jnp.sum(outside), 1e-6)
    op, data = problem.op + Diagonal(pull * outside), problem.data + pull * outside * mean
    return eqx.tree_at(lambda p: (p.op, p.data), problem, (op, data))
