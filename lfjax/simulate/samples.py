"""Simulated samples: fluorescent beads and neurons. Axes (z, y, x), sizes in micrometres, brightness from 0 to 1."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from jaxtyping import Array, Float

from lfjax.errors import ParameterError, require

Triple = tuple[float, float, float]
FWHM = 2 * math.sqrt(2 * math.log(2))  # full width at half maximum of a Gaussian, in standard deviations
NUCLEUS = 0.35  # brightness of the nucleus relative to the cytosol (assumed): calcium indicators are excluded from it


def beads(
    key: Array, shape: tuple[int, int, int], voxel_um: Triple, *, count: int, diameter_um: float
) -> Float[Array, "z y x"]:
    """Gaussian spots at random subvoxel positions, one diameter away from the borders where the volume is thick enough.

        x(r) = sum over beads b of the mean over voxel r of exp(-|r' - r_b|^2 / (2 sigma^2)),  sigma = diameter / 2.355

    The mean over the voxel preserves the light of a bead wherever it lies, even if the bead is smaller than a voxel.

    Args:
        key: random key.
        shape: voxels (z, y, x).
        voxel_um: voxel size (z, y, x).
        count: number of beads.
        diameter_um: full width at half maximum.

    Raises:
        ParameterError: a number is out of range.
    """
    check_volume(shape, voxel_um, count)
    require(diameter_um > 0, "diameter_um", diameter_um, "a positive number")
    return _beads(key, shape, voxel_um, count, float(diameter_um))


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _beads(key: Array, shape: tuple[int, int, int], voxel_um: Triple, count: int, diameter_um: float) -> Float[Array, "z y x"]:
    size = np.array(shape) * np.array(voxel_um)
    margin = np.minimum(diameter_um, size / 2)
    lowest, room = (jnp.asarray(v, jnp.result_type(float))[None] for v in (margin, size - 2 * margin))
    centres = lowest + room * jax.random.uniform(key, (count, 3))
    sigma = diameter_um / FWHM

    def profile(axis: int) -> Float[Array, "bead length"]:
        edges = jnp.asarray(voxel_um[axis] * np.arange(shape[axis] + 1), jnp.result_type(float))
        integral = math.sqrt(math.pi / 2) * sigma * erf((edges[None] - centres[:, axis, None]) / (math.sqrt(2) * sigma))
        return jnp.diff(integral, axis=1) / voxel_um[axis]

    return jnp.einsum("bz,by,bx->zyx", profile(0), profile(1), profile(2))


def neurons(
    key: Array, shape: tuple[int, int, int], voxel_um: Triple, *, count: int, soma_um: float = 10.0
) -> Float[Array, "z y x"]:
    """Neurons with a cytosolic indicator: ellipsoidal somata with a darker nucleus, and branching, thinning dendrites.

    NumPy draws them, box by box, so `key` must be concrete (outside `jit`).

    Args:
        key: random key, which fixes the sample.
        shape: voxels (z, y, x).
        voxel_um: voxel size (z, y, x).
        count: number of neurons.
        soma_um: mean diameter of the somata; dendrites scale with it.

    Returns:
        Brightness from 0, where there is no neuron, to 1.

    Raises:
        ParameterError: a number is out of range.
    """
    check_volume(shape, voxel_um, count)
    require(soma_um > 0, "soma_um", soma_um, "a positive number")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    voxel = np.array(voxel_um, np.float64)
    volume = np.zeros(shape)
    for centre in soma_centres(rng, np.array(shape) * voxel, count, soma_um):
        brightness = rng.uniform(0.4, 1.0)
        draw_dendrites(volume, rng, centre, voxel, soma_um, brightness)
        draw_soma(volume, rng, centre, voxel, soma_um, brightness)
    return jnp.asarray(volume / max(volume.max(), 1e-30), jnp.result_type(float))


def check_volume(shape: tuple[int, int, int], voxel_um: Triple, count: int) -> None:
    """Raise `ParameterError` unless shape, voxel size and number are in range."""
    if len(shape) != 3 or min(shape) < 1:
        raise ParameterError(f"shape = {shape!r}: expected three positive whole numbers (z, y, x)")
    require(len(voxel_um) == 3 and min(voxel_um) > 0, "voxel_um", voxel_um, "three positive sizes (z, y, x)")
    require(1 <= count <= math.prod(shape), "count", count, f"1 to {math.prod(shape)}, the number of voxels")


def soma_centres(
    rng: np.random.Generator, size: np.ndarray, count: int, soma_um: float, border_um: float = 0.0
) -> list[np.ndarray]:
    """Positions inside the volume and `border_um` from its sides, apart where there is room; each is the best of 30 tries."""
    margin = np.minimum(0.6 * soma_um + border_um * np.array([0, 1, 1]), size / 2)
    centres: list[np.ndarray] = []
    for _ in range(count):
        tries = rng.uniform(margin, np.maximum(size - margin, margin), (30, 3))
        gaps = np.linalg.norm(tries[:, None] - np.reshape(centres, (-1, 3)), axis=-1).min(1, initial=math.inf)
        apart = np.flatnonzero(gaps > 1.3 * soma_um)
        centres.append(tries[apart[0] if len(apart) else np.argmax(gaps)])
    return centres


def _box(
    shape: tuple[int, ...], centre: np.ndarray, reach: np.ndarray, voxel: np.ndarray
) -> tuple[tuple[slice, ...], list[np.ndarray]]:
    """Slices of the voxels within `reach` of `centre`, and their positions relative to it in um, one array per axis."""
    spans, axes = [], []
    for n, c, r, v in zip(
        shape, centre.tolist(), reach.tolist(), voxel.tolist(), strict=True
    ):  # floats: faster than arrays of 3
        low, high = (min(max(edge, 0), n) for edge in (math.floor((c - r) / v), math.ceil((c + r) / v)))
        spans.append(slice(low, high))
        axes.append((np.arange(low, high) + 0.5) * v - c)
    return tuple(spans), axes


def draw_soma(
    volume: np.ndarray,
    rng: np.random.Generator,
    centre: np.ndarray,
    voxel: np.ndarray,
    soma_um: float,
    brightness: float,
    nucleus_brightness: float = NUCLEUS,
) -> None:
    """Draw an ellipsoid in a random direction, its nucleus a little off centre, in place of whatever it covers."""
    radii = soma_um / 2 * rng.uniform(0.78, 1.2, 3)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    spans, axes = _box(volume.shape, centre, np.full(3, 1.3 * radii.max()) + voxel, voxel)
    position = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) @ rotation
    edge = max(0.04 * soma_um, 0.3 * voxel.min())

    def inside(middle: np.ndarray, semiaxes: np.ndarray) -> np.ndarray:
        rho = np.linalg.norm((position - middle) / semiaxes, axis=-1)
        return 0.5 * (1 + np.tanh((1 - rho) * semiaxes.mean() / edge))

    body = inside(np.zeros(3), radii)
    nucleus = inside(rng.uniform(-0.1, 0.1, 3) * soma_um, rng.uniform(0.5, 0.62) * radii)
    box = volume[spans]
    volume[spans] = (1 - body) * box + body * brightness * (1 - (1 - nucleus_brightness) * nucleus)


def draw_dendrites(
    volume: np.ndarray, rng: np.random.Generator, centre: np.ndarray, voxel: np.ndarray, soma_um: float, brightness: float
) -> None:
    """Draw persistent random walks that start in the soma, thin out and fork; each step stamps one Gaussian ball."""
    step = 0.06 * soma_um
    size = np.array(volume.shape) * voxel
    starts = rng.normal(size=(int(rng.integers(4, 8)), 3)) * np.array([0.7, 1.0, 1.0])
    # (position, direction, drift of the direction, radius, steps left, forks left)
    tips = [(centre, d / np.linalg.norm(d), np.zeros(3), 0.17 * soma_um, int(rng.integers(45, 80)), 3) for d in starts]
    while tips:
        position, direction, drift, radius, left, forks = tips.pop()
        for travelled in range(left):
            drift = 0.9 * drift + 0.035 * rng.normal(size=3)  # smooth bends rather than jitter
            direction = direction + drift
            direction = direction / np.linalg.norm(direction)
            position = position + step * direction
            radius = max(0.97 * radius, 0.035 * soma_um)
            if np.any(position < -soma_um) or np.any(position > size + soma_um):
                break
            stamp(volume, position, radius, voxel, 0.8 * brightness)
            if forks and travelled > 8 and rng.random() < 0.04:
                forks -= 1
                side = direction + 0.8 * rng.normal(size=3)
                side = side / np.linalg.norm(side)
                tips.append((position, side, np.zeros(3), 0.85 * radius, left - travelled, forks))


def stamp(volume: np.ndarray, position: np.ndarray, radius: float, voxel: np.ndarray, brightness: float) -> None:
    """Take the maximum of the volume and a Gaussian ball, widened to the voxel and dimmed so that a tube keeps its light."""
    sigma = np.maximum(0.7 * radius, 0.45 * voxel)
    dimming = float(np.prod(0.7 * radius / sigma)) ** (2 / 3)  # two of the three axes run across a tube
    spans, (z, y, x) = _box(volume.shape, position, 3 * sigma, voxel)
    if not (len(z) and len(y) and len(x)):
        return
    gz, gy, gx = (np.exp(-0.5 * (a / s) ** 2) for a, s in zip((z, y, x), sigma, strict=True))
    ball = brightness * dimming * gz[:, None, None] * gy[None, :, None] * gx[None, None, :]
    volume[spans] = np.maximum(volume[spans], ball)
