"""The micro-lens array: its lattice, the phase and the mask of its lenslets, and its position over the sensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, ArrayLike, Complex, Float

from lfjax.errors import require, require_shape
from lfjax.optics.microscope import Microscope


class Alignment(eqx.Module):
    """Position of the array between native image plane and sensor; every number may be a JAX array, to differentiate by it.

    Attributes:
        array_to_sensor_um: distance from the lenslets to the sensor; None: their focal length.
        offset_um: (y, x), shift of the array relative to the pixels, on the array.
        rotation_rad: rotation of the array relative to the pixels, about the middle of the field.
        native_plane_um: distance of the array behind the native image plane (off-focus, "plenoptic 2.0" arrays).
        mask: (y, x), amplitude transmission of one lenslet, sampled on a box of one pitch about its centre (hexagons: one
            pitch wide, 2 / sqrt(3) high), linear between samples, as `round_mask` makes it. PSFs then sum to the fraction
            of the light that passes. None: no mask.
    """

    array_to_sensor_um: float | Array | None = None
    offset_um: Sequence[float | Array] | Array = (0.0, 0.0)
    rotation_rad: float | Array = 0.0
    native_plane_um: float | Array = 0.0
    mask: ArrayLike | None = None

    def to_dict(self) -> dict[str, Any]:
        """All parameters as plain numbers."""
        distance = None if self.array_to_sensor_um is None else float(self.array_to_sensor_um)
        rest = {"rotation_rad": float(self.rotation_rad), "native_plane_um": float(self.native_plane_um)}
        mask = None if self.mask is None else np.asarray(self.mask, float).tolist()
        return {"array_to_sensor_um": distance, "offset_um": [float(v) for v in self.offset_um], **rest, "mask": mask}

    @classmethod
    def from_dict(cls, parameters: dict[str, Any]) -> Alignment:
        """The alignment that `to_dict` describes."""
        mask = parameters.get("mask")
        arrays = {"offset_um": tuple(parameters["offset_um"]), "mask": None if mask is None else np.asarray(mask)}
        return cls(**{**parameters, **arrays})


def lenslet_transmission(
    microscope: Microscope, samples: tuple[int, int], side: int, alignment: Alignment | None = None
) -> Complex[Array, "y x"]:
    """Transmission of the array: mask(x) exp(-i k0 |x|^2 / (2 f_ml)) about the nearest centre, k0 = 2 pi / lambda.

    Args:
        microscope: lattice, pitch, focal length and wavelength are used.
        samples: samples (y, x) across a cell.
        side: samples per side of the grid, whose middle is the centre of a lenslet.
        alignment: shift, rotation and mask of the array; None: the plain array.

    Raises:
        ShapeError: the mask is not two-dimensional.
    """
    steps = np.arange(side) - (side - 1) / 2
    k0, focal_um = 2 * jnp.pi / microscope.wavelength_um, microscope.lenslet_focal_length_um
    if alignment is None and microscope.lenslet_lattice == "square":
        x_um = (steps - samples[1] * np.floor(steps / samples[1] + 0.5)) / samples[1] * microscope.lenslet_pitch_um
        row = jnp.exp(-1j * k0 * x_um**2 / (2 * focal_um))
        return row[:, None] * row[None, :]
    alignment = Alignment() if alignment is None else alignment
    y, x = (jnp.asarray(steps) / n * size for n, size in zip(samples, microscope.cell_um, strict=True))
    y_um, x_um = y[:, None] - alignment.offset_um[0], x[None, :] - alignment.offset_um[1]
    c, s = jnp.cos(alignment.rotation_rad), jnp.sin(alignment.rotation_rad)
    dy, dx = _from_centre(microscope, c * y_um - s * x_um, s * y_um + c * x_um)
    wave = jnp.exp(-1j * k0 * (dy**2 + dx**2) / (2 * focal_um))
    if alignment.mask is None:
        return wave
    mask = jnp.asarray(alignment.mask)
    require_shape("alignment.mask", mask.shape, ("y", "x"))
    high = microscope.lenslet_pitch_um * (1.0 if microscope.lenslet_lattice == "square" else 2 / math.sqrt(3))
    boxes = (high, microscope.lenslet_pitch_um)
    places = [(d / box + 0.5) * n - 0.5 for d, box, n in zip((dy, dx), boxes, mask.shape, strict=True)]
    return wave * map_coordinates(mask, places, order=1, mode="nearest")


def _from_centre(microscope: Microscope, y_um: Array, x_um: Array) -> tuple[Array, Array]:
    """Distance (y, x) from the nearest centre of a lenslet."""

    def periodic(t: Array, size: Array | float) -> Array:
        return t - size * jnp.floor(t / size + 0.5)

    high, wide = microscope.cell_um
    dy, dx = periodic(y_um, high), periodic(x_um, wide)
    if microscope.lenslet_lattice == "square":
        return dy, dx
    ey, ex = periodic(y_um - high / 2, high), periodic(x_um - wide / 2, wide)  # the lenslets in the corners of the cell
    nearer = dy**2 + dx**2 <= ey**2 + ex**2
    return jnp.where(nearer, dy, ey), jnp.where(nearer, dx, ex)


def round_mask(diameter: float = 1.0, samples: int = 64) -> Float[np.ndarray, "y x"]:
    """A round aperture in a square box one pitch wide, for `Alignment.mask`; its rim is one sample wide.

    Args:
        diameter: diameter in pitches, at most 1.
        samples: samples per side of the box.

    Raises:
        ParameterError: the diameter is out of range.
    """
    require(0 < diameter <= 1, "diameter", diameter, "a fraction of the pitch")
    places = (np.arange(samples) + 0.5) / samples - 0.5
    inside = diameter / 2 - np.hypot(places[:, None], places[None, :])
    return np.clip(inside * samples + 0.5, 0, 1)
