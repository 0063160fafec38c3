"""Whole micrographs: many particles in ice, seen through one CTF; and particles cut out of them.

    counts ~ Poisson(dose pixel^2 (1 - c (CTF * (sum of projections + ice))))

in the weak-phase approximation: the expected counts are those of the empty field, darkened where there is matter (underfocus).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray
from scipy import ndimage

from lfjax.errors import ParameterError, require, require_shape
from lfjax.rotation import random_rotations
from lfjax.tomography.ctf import ApplyCtf, Ctf
from lfjax.tomography.fourier_slice import FourierSlice
from lfjax.tomography.images import normalise


class Micrograph(NamedTuple):
    """A simulated micrograph.

    Attributes:
        counts: electrons in each pixel, (y, x).
        positions: centres (x, y) of the particles, in pixels from pixel (0, 0).
        rotations: their poses.
        signal: what the particles alone do to the expected counts, relative to the empty field.
    """

    counts: Float[Array, "y x"]
    positions: Float[Array, "n 2"]
    rotations: Float[Array, "n 3 3"]
    signal: Float[Array, "y x"]


def simulate_micrograph(
    key: Array,
    volume: Float[Array, "z y x"],
    count: int,
    shape: tuple[int, int],
    ctf: Ctf,
    pixel_angstrom: float,
    *,
    dose_electrons_per_angstrom2: float = 40.0,
    contrast: float = 0.05,
    ice: float = 0.01,
    spacing: float = 0.0,
) -> Micrograph:
    """Particles at random places and poses.

    Args:
        key: random key.
        volume: of one particle, (n, n, n); its scale does not matter.
        count: particles.
        shape: of the micrograph, (y, x).
        ctf: optics of the micrograph.
        pixel_angstrom: of volume and micrograph.
        dose_electrons_per_angstrom2: mean electrons.
        contrast: largest value that the projections have before the CTF, as a share of the empty field.
        ice: standard deviation of structural noise, white before the CTF, as such a share.
        spacing: least distance of two centres in pixels; 0 lets them overlap as they fall.

    Raises:
        ParameterError: so many particles do not fit at that spacing.
    """
    size = volume.shape[0]
    require_shape("volume", volume.shape, (size,) * 3)
    require(min(shape) > size, "shape", shape, f"larger than the particle, {size}")
    keys = jax.random.split(key, 4)
    corner = _places(keys[0], count, (shape[0] - size, shape[1] - size), spacing)
    whole = np.floor(corner).astype(int)
    rotations = random_rotations(keys[1], count)
    shifts = jnp.asarray(corner - whole)[:, ::-1]
    images = FourierSlice(rotations, size, shifts=shifts)(volume)
    field = jnp.zeros(shape)
    for image, (y, x) in zip(images / jnp.max(images), whole, strict=True):
        field = field.at[y : y + size, x : x + size].add(contrast * image)
    optics = ApplyCtf(ctf, shape, pixel_angstrom)
    signal = -optics(field)
    expected = dose_electrons_per_angstrom2 * pixel_angstrom**2 * (1 + signal - optics(ice * jax.random.normal(keys[2], shape)))
    counts = jax.random.poisson(keys[3], jnp.maximum(expected, 0)).astype(field.dtype)
    return Micrograph(counts, jnp.asarray(corner[:, ::-1] + size // 2), rotations, signal)


def _places(key: Array, count: int, limits: tuple[int, int], spacing: float) -> NDArray[np.float64]:
    """Positions (y, x) in a rectangle, none closer than `spacing` to one before it."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    found: list[NDArray[np.float64]] = []
    for _ in range(200 * count):
        if len(found) == count:
            break
        place = rng.uniform(0, limits)
        if all(np.hypot(*(place - other)) >= spacing for other in found):
            found.append(place)
    if len(found) < count:
        raise ParameterError(f"count = {count}: expected at most {len(found)} at spacing = {spacing} in {limits} pixels")
    return np.array(found)


def cut_particles(
    micrograph: Float[Array, "y x"], positions: Float[Array, "n 2"], size: int
) -> tuple[Float[NDArray[np.float32], "m size size"], NDArray[np.int64]]:
    """Boxes about positions (x, y), whole pixels, bright particles, background of mean 0 and deviation 1 outside of a disc.

    Args:
        micrograph: counts.
        positions: centres.
        size: of the boxes.

    Returns:
        The boxes that lie inside, and which of the positions they are. What is left of a position after rounding is the shift
        of its particle: `positions - round(positions)`.
    """
    image = np.asarray(micrograph, np.float32)
    corner = np.rint(np.asarray(positions)).astype(int)[:, ::-1] - size // 2
    inside = np.flatnonzero(((corner >= 0) & (corner + size <= image.shape)).all(1))
    boxes = np.array([-image[y : y + size, x : x + size] for y, x in corner[inside]]).reshape(-1, size, size)
    return np.asarray(normalise(jnp.asarray(boxes, jnp.float32))), inside


def pick_blobs(
    micrograph: Float[Array, "y x"], diameter: float, *, threshold: float = 3.0, dark: bool = True
) -> Float[NDArray[np.float64], "n 2"]:
    """Centres (x, y) of blobs of a diameter: maxima of a Laplacian of Gaussian (by SciPy). A simple picker, for clean data.

    Args:
        micrograph: counts.
        diameter: of a particle, in pixels.
        threshold: least response, in robust standard deviations of all responses.
        dark: whether particles are darker than the field.
    """
    require(diameter > 2, "diameter", diameter, "more than 2 pixels")
    image = np.asarray(micrograph, float)
    sigma = diameter / (2 * np.sqrt(2))
    response = ndimage.gaussian_laplace(image, sigma) * (1 if dark else -1)
    middle = np.median(response)
    deviation = 1.4826 * np.median(np.abs(response - middle))
    peak = (ndimage.maximum_filter(response, size=int(diameter) | 1) == response) & (response > middle + threshold * deviation)
    return np.argwhere(peak)[:, ::-1].astype(float)
