"""Simulation of whole micrographs, many particles in ice under one CTF, and extraction of particles from micrographs.

    counts ~ Poisson(dose pixel^2 (1 - c (CTF * (sum of projections + ice))))

in the weak-phase approximation: matter darkens the counts of the empty field (underfocus).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int
from numpy.typing import NDArray

from lfjax.errors import ParameterError, require, require_shape
from lfjax.rotation.matrices import random_rotations
from lfjax.tomography.ctf import ApplyCtf, Ctf
from lfjax.tomography.fourier_slice import FourierSlice
from lfjax.tomography.images import normalise


class Micrograph(NamedTuple):
    """A simulated micrograph.

    Attributes:
        counts: electrons in each pixel, (y, x).
        positions: centres (x, y) of the particles, in pixels from pixel (0, 0).
        rotations: rotations of the particles.
        signal: change of the expected counts by the particles alone, relative to the empty field.
    """

    counts: Float[Array, "y x"]
    positions: Float[Array, "n 2"]
    rotations: Float[Array, "n 3 3"]
    signal: Float[Array, "y x"]


def simulate_micrograph(
    key: Array,
    volume: Float[ArrayLike, "z row col"],
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
    """A micrograph with particles at random places and poses.

    Args:
        key: random key.
        volume: volume of one particle, (n, n, n); its scale does not matter.
        count: number of particles.
        shape: shape of the micrograph, (y, x).
        ctf: optics of the micrograph.
        pixel_angstrom: pixel size of volume and micrograph.
        dose_electrons_per_angstrom2: mean number of electrons per square angstrom.
        contrast: largest value of the projections before the CTF, as a fraction of the empty field.
        ice: standard deviation of structural noise, white before the CTF, as a fraction of the empty field.
        spacing: least distance of two centres in pixels; 0: particles may overlap.

    Raises:
        ShapeError: the volume is not a cube.
        ParameterError: the micrograph is smaller than a particle, or so many particles do not fit at that spacing.
    """
    size = jnp.shape(volume)[0]
    require_shape("volume", jnp.shape(volume), (size,) * 3)
    require(min(shape) > size, "shape", shape, f"larger than the particle, {size}")
    keys = jax.random.split(key, 4)
    corner = _places(keys[0], count, (shape[0] - size, shape[1] - size), spacing)
    whole = np.floor(corner).astype(int)
    electrons = dose_electrons_per_angstrom2 * pixel_angstrom**2
    optics = ApplyCtf(ctf, shape, pixel_angstrom)
    counts, rotations, signal = _expose(keys[1:], volume, whole, corner - whole, optics, electrons, contrast, ice)
    return Micrograph(counts, jnp.asarray(corner[:, ::-1] + size // 2), rotations, signal)


@jax.jit
def _expose(
    keys: Array,
    volume: Array,
    whole: Int[Array, "n 2"],
    part: Float[Array, "n 2"],
    optics: ApplyCtf,
    electrons: Array,
    contrast: Array,
    ice: Array,
) -> tuple[Array, Array, Array]:
    """Counts, rotations and signal of particles whose corners (y, x) have a whole and a fractional part."""
    size = volume.shape[0]
    rotations = random_rotations(keys[0], len(whole))
    images = FourierSlice(rotations, size, shifts=part[:, ::-1])(volume)

    def add(field: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        image, corner = item
        here = jax.lax.dynamic_slice(field, corner, (size, size))
        return jax.lax.dynamic_update_slice(field, here + image, corner), None

    field, _ = jax.lax.scan(add, jnp.zeros(optics.shape), (contrast * images / jnp.max(images), whole))
    signal = -optics(field)
    expected = electrons * (1 + signal - optics(ice * jax.random.normal(keys[1], optics.shape)))
    return jax.random.poisson(keys[2], jnp.maximum(expected, 0)).astype(field.dtype), rotations, signal


def _places(key: Array, count: int, limits: tuple[int, int], spacing: float) -> NDArray[np.float64]:
    """Random positions (y, x) in a rectangle, none closer than `spacing` to one before it."""
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
    micrograph: Float[ArrayLike, "y x"], positions: Float[ArrayLike, "n 2"], size: int
) -> tuple[Float[NDArray[np.float32], "m {size} {size}"], Int[NDArray[np.int64], " m"]]:
    """Boxes about positions (x, y), rounded to whole pixels: bright particles, background of mean 0 and deviation 1.

    Args:
        micrograph: counts.
        positions: centres.
        size: pixels per side of the boxes.

    Returns:
        The boxes that lie inside, and the indices of their positions. The remainder of a position after rounding is the shift
        of its particle: `positions - round(positions)`.
    """
    image = np.asarray(micrograph, np.float32)
    corner = np.rint(np.asarray(positions)).astype(int)[:, ::-1] - size // 2
    inside = np.flatnonzero(((corner >= 0) & (corner + size <= image.shape)).all(1))
    boxes = np.array([-image[y : y + size, x : x + size] for y, x in corner[inside]]).reshape(-1, size, size)
    return np.asarray(normalise(boxes.astype(np.float32))), inside


def pick_blobs(
    micrograph: Float[ArrayLike, "y x"], diameter: float, *, threshold: float = 3.0, dark: bool = True
) -> Float[NDArray[np.float64], "n 2"]:
    """Centres (x, y) of blobs of a given diameter: maxima of a Laplacian of Gaussian. A simple picker, for clean data.

    Args:
        micrograph: counts.
        diameter: diameter of a particle in pixels.
        threshold: least response, in robust standard deviations of all responses.
        dark: whether particles are darker than the field.

    Raises:
        ParameterError: the diameter is out of range.
    """
    from scipy import ndimage

    require(diameter > 2, "diameter", diameter, "more than 2 pixels")
    image = np.asarray(micrograph, float)
    sigma = diameter / (2 * np.sqrt(2))
    response = ndimage.gaussian_laplace(image, sigma) * (1 if dark else -1)
    middle = np.median(response)
    deviation = 1.4826 * np.median(np.abs(response - middle))
    peak = (ndimage.maximum_filter(response, size=int(diameter) | 1) == response) & (response > middle + threshold * deviation)
    return np.argwhere(peak)[:, ::-1].astype(float)
