"""Whether two maps can be half-maps, and how far they agree, in words."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from lfjax.errors import require_shape
from lfjax.tomography.fourier_shells import fsc, resolution

SAME = 0.9999
"""Correlation in every shell from which on two maps are one: two measurements differ more, at Nyquist at the latest."""


def same_map(
    first: Float[ArrayLike, "z y x"], second: Float[ArrayLike, "z y x"], curve: Float[ArrayLike, " r"] | None = None
) -> bool:
    """Whether two maps are one map, up to scale, offset and rounding, so that their correlation tells nothing of noise.

    They are where s a + c leaves no more than 10^-5 of the other map's deviation for some s and c, or where their Fourier shell
    correlation exceeds 0.9999 in every shell from 1 to Nyquist.

    >>> noise = np.random.default_rng(0).normal(size=(2, 8, 8, 8))
    >>> same_map(noise[0], 2 * noise[0] + 1), same_map(noise[0], noise[1])
    (True, False)

    Args:
        first: cubic map.
        second: map of the same shape.
        curve: their Fourier shell correlation, where it is known; None: computed.

    Raises:
        ShapeError: the maps are not cubes of one size.
    """
    n = jnp.shape(first)[0]
    require_shape("first", jnp.shape(first), (n, n, n))
    require_shape("second", jnp.shape(second), jnp.shape(first))
    a, b = (np.asarray(half, float).ravel() for half in (first, second))
    a, b = a - a.mean(), b - b.mean()
    if np.linalg.norm(b - a * (a @ b) / max(float(a @ a), 1e-300)) <= 1e-5 * np.linalg.norm(b):
        return True
    return bool((np.asarray(fsc(first, second) if curve is None else curve)[1:] > SAME).all())


def resolution_text(curve: Float[ArrayLike, " r"], box_angstrom: float, threshold: float = 0.143, *, share: float = 1.0) -> str:
    """The `resolution` in words: "4.31 A", "8.00 A, Nyquist: it does not fall to 0.143", or why there is none.

    >>> resolution_text(np.array([1.0, 0.9, 0.5, 0.1]), 60.0, 0.5)
    '30.00 A'
    >>> resolution_text(np.array([1.0, 0.1, 0.0, 0.0]), 60.0)
    'never above 0.143'
    >>> resolution_text(np.array([1.0, 0.2, 0.0, 0.0]), 60.0)
    'never above the noise: the maps do not agree'

    Args:
        curve: result of `fsc`.
        box_angstrom: side of the box, voxels times voxel size.
        threshold: correlation at which the resolution is read.
        share: see `fourier_shells.chance_level`.

    Raises:
        ParameterError: see `resolution`.
    """
    found, values = resolution(curve, box_angstrom, threshold, share=share), np.asarray(curve, float)
    if math.isinf(found):
        return f"never above {threshold:g}" if values[1] < threshold else "never above the noise: the maps do not agree"
    if bool((values[1:] >= threshold).all()):
        return f"{found:.2f} A, Nyquist: it does not fall to {threshold:g}"
    return f"{found:.2f} A"


def agreement(curve: Float[ArrayLike, " r"], box_angstrom: float, threshold: float = 0.143, *, share: float = 1.0) -> str:
    """How far half-maps agree, as a clause that a command prints.

    >>> agreement(np.array([1.0, 1.0, 0.9, 0.05, 0.0]), 60.0)
    'half-maps agree to 20.76 A (FSC 0.143)'
    >>> agreement(np.ones(5), 60.0)
    'half-maps agree up to Nyquist, 15.00 A (FSC above 0.143)'
    >>> agreement(np.array([1.0, 0.2, 0.0, 0.0]), 60.0)
    'half-maps do not agree beyond chance'

    Args:
        curve: result of `fsc`.
        box_angstrom: side of the box, voxels times voxel size.
        threshold: correlation at which the resolution is read.
        share: see `fourier_shells.chance_level`.

    Raises:
        ParameterError: see `resolution`.
    """
    found = resolution(curve, box_angstrom, threshold, share=share)
    if math.isinf(found):
        return "half-maps do not agree beyond chance"
    if bool((np.asarray(curve, float)[1:] >= threshold).all()):
        return f"half-maps agree up to Nyquist, {found:.2f} A (FSC above {threshold:g})"
    return f"half-maps agree to {found:.2f} A (FSC {threshold:g})"
