"""What a set of views tells about the frequencies of the object in each direction.

A view along the unit vector v, the third row of its rotation, measures the plane of frequencies k with k . v = 0, about a cycle
per box thick. A direction u is sampled by the views with |u . v| < w, where w is the sine of half the angle that the thickness
takes at the radius of interest,

    S(u) = (1 / N) sum_i [|u . v_i| < w] / w,

whose mean over all u is 1. Uniform views give 1 everywhere; views along axes tilted by at most a from z leave the cone about z
of half-angle 90 degrees - a empty.

Source: Baldwin & Lyumkis, Prog. Biophys. Mol. Biol. 150, 160 (2020).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.tomography.directional import half_sphere
from lfjax.tomography.particles import Particles

BATCH = 512  # views per pass


class Coverage(NamedTuple):
    """Sampling of the directions of frequency space by a set of views.

    Attributes:
        directions: unit vectors (x, y, z) of a half sphere, each for an equal solid angle.
        sampling: S of each direction; its mean is 1 but for the grain of the directions.
        unsampled: share of directions that no view samples.
        compensation: harmonic over arithmetic mean of S over the sampled directions, the factor by which uneven sampling
            reduces the signal-to-noise ratio of a shell: 1 for uniform views, 8 / pi^2 = 0.81 for side views.
        empty_half_angle_rad: half-angle of the largest empty cone, 0 where there is none.
        empty_axis: axis (x, y, z) of that cone, or else the direction least sampled.
    """

    directions: Float[NDArray[np.float64], "d 3"]
    sampling: Float[NDArray[np.float64], " d"]
    unsampled: float
    compensation: float
    empty_half_angle_rad: float
    empty_axis: Float[NDArray[np.float64], "3"]


def orientation_coverage(
    particles: Particles | Float[ArrayLike, "n 3 3"],
    *,
    directions: int | Float[ArrayLike, "d 3"] = 2000,
    width_rad: float = math.radians(2.0),
) -> Coverage:
    """How evenly a set of views samples the directions of frequency space.

    Views of a symmetric particle have to be given once for each element of its symmetry group.

    Args:
        particles: the views, or their rotations, object to image.
        directions: unit vectors (x, y, z), or the number of a `half_sphere`.
        width_rad: half the angle that a plane of frequencies takes: 1 / (2 r) at a radius of r cycles per box.

    Raises:
        ParameterError: an option is out of range, or there is no view.
        ShapeError: rotations or directions have a wrong shape.
    """
    turns = jnp.asarray(particles.rotations if isinstance(particles, Particles) else particles, float)
    require_shape("rotations", turns.shape, ("n", 3, 3))
    require(len(turns) > 0, "particles", len(turns), "one or more views")
    require(0 < width_rad < np.pi / 2, "width_rad", width_rad, "between 0 and pi / 2")
    axes = half_sphere(directions) if isinstance(directions, int) else np.asarray(directions, float)
    require_shape("directions", axes.shape, ("d", 3))
    sampling = np.asarray(_sampling(turns[:, 2], jnp.asarray(axes, float), math.sin(width_rad)), float)
    empty = sampling == 0
    seen = sampling[~empty]
    angle, axis = _largest_gap(axes, empty)
    if not empty.any():
        axis = axes[int(np.argmin(sampling))]
    compensation = float(1 / (np.mean(1 / seen) * np.mean(seen))) if len(seen) else 0.0
    return Coverage(axes, sampling, float(empty.mean()), compensation, angle, axis)


@jax.jit
def _sampling(views: Float[Array, "n 3"], axes: Float[Array, "d 3"], width: Array) -> Float[Array, " d"]:
    views, width = views.astype(axes.dtype), width.astype(axes.dtype)
    return jax.lax.map(lambda axis: jnp.mean(jnp.abs(views @ axis) < width, dtype=axes.dtype), axes, batch_size=64) / width


def _largest_gap(axes: NDArray[np.float64], empty: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """Half-angle and axis of the largest cone about an empty direction that holds no sampled one."""
    if not empty.any():
        return 0.0, axes[0]
    if empty.all():
        return math.pi / 2, axes[0]
    centres, rest = axes[empty], axes[~empty]
    nearest = np.concatenate([np.abs(part @ rest.T).max(1) for part in np.array_split(centres, max(1, len(centres) // 256))])
    best = int(np.argmin(nearest))
    return float(np.arccos(np.clip(nearest[best], -1, 1))), centres[best]


class TransferSections(NamedTuple):
    """Power of the transfer that a set of views gives to frequencies in three central planes.

    Attributes:
        power: sum over views of |CTF|^2, of the planes xy, xz, yz, each at angles from its first axis (0 to pi) and radii.
        angle_rad: of each row.
        frequency: radius of each column in 1 / angstrom.
    """

    power: Float[Array, "3 a r"]
    angle_rad: Float[NDArray[np.float64], " a"]
    frequency: Float[NDArray[np.float64], " r"]


def transfer_sections(particles: Particles, size: int, *, angles: int = 60, shells: int | None = None) -> TransferSections:
    """The sum of |CTF|^2 that the views give to each frequency of the planes xy, xz and yz: the weight of the data there.

    A view counts for a frequency k where its plane passes within half a cycle per box, |k . v| < 1/2; without a CTF it counts
    1.

    Args:
        particles: the views, with optics and pixel size.
        size: pixels per side of the images, which set the box.
        angles: directions per plane, over half a turn.
        shells: radii, evenly spaced from one cycle per box to Nyquist; None: one per cycle per box, at most 64.

    Raises:
        ParameterError: an option is out of range, or there is no view.
    """
    require(len(particles) > 0, "particles", len(particles), "one or more views")
    require(size >= 4, "size", size, "4 pixels or more")
    require(angles >= 2, "angles", angles, "2 or more")
    count = min(size // 2, 64) if shells is None else shells
    require(count >= 2, "shells", count, "2 or more")
    pixel = float(np.asarray(particles.pixel_angstrom)[0])
    angle = np.pi * np.arange(angles) / angles
    radius = np.linspace(1, size / 2, count)
    first, second, zero = np.cos(angle), np.sin(angle), np.zeros(angles)
    axes = np.stack([np.stack(p, -1) for p in ((first, second, zero), (first, zero, second), (zero, first, second))])
    total = jnp.zeros((3 * angles, count))
    for start in range(0, len(particles), BATCH):
        part = particles[start : start + BATCH]
        whole = part[np.minimum(np.arange(BATCH), len(part) - 1)]  # one size: one program
        total = total + _transfer(whole, np.arange(BATCH) < len(part), axes.reshape(-1, 3), radius, size * pixel)
    return TransferSections(total.reshape(3, angles, count), angle, radius / (size * pixel))


@jax.jit
def _transfer(particles: Particles, counted: Array, axes: Array, radius: Array, box: Array) -> Float[Array, "d r"]:
    """Sum over a batch of views; views that do not count fill it up."""
    kind = particles.rotations.dtype
    axes, radius = axes.astype(kind), radius.astype(kind)

    def add(total: Array, one: tuple[Particles, Array]) -> tuple[Array, None]:
        view, counts = one
        x, y, z = view.rotations @ axes.T  # the directions in the frame of the image
        flat = jnp.maximum(jnp.hypot(x, y), 1e-6)
        kx, ky = (radius * (part / flat)[:, None] / box.astype(kind) for part in (x, y))
        power = jnp.ones_like(kx) if view.ctf is None else view.ctf.power(kx, ky)
        return total + jnp.where(counts & (jnp.abs(z)[:, None] * radius < 0.5), power, 0), None

    return jax.lax.scan(add, jnp.zeros((len(axes), len(radius)), kind), (particles, counted))[0]
