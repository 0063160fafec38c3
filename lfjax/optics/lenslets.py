"""The micro-lens array: the phase of its square lenslets, and how it stands on the sensor."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from lfjax.optics.microscope import Microscope


class Alignment(eqx.Module):
    """How the array stands between native image plane and sensor; every number may be a JAX array to differentiate by.

    Attributes:
        array_to_sensor_um: distance from the lenslets to the sensor; None: their focal length.
        offset_um: (y, x), shift of the array against the pixels, on the array.
        rotation_rad: turn of the array against the pixels about the middle of the field.
        native_plane_um: distance of the array behind the native image plane (off-focus, "plenoptic 2.0" arrays).
    """

    array_to_sensor_um: Any = None
    offset_um: Any = (0.0, 0.0)
    rotation_rad: Any = 0.0
    native_plane_um: Any = 0.0

    def to_dict(self) -> dict[str, Any]:
        """All parameters as plain numbers."""
        distance = None if self.array_to_sensor_um is None else float(self.array_to_sensor_um)
        rest = {"rotation_rad": float(self.rotation_rad), "native_plane_um": float(self.native_plane_um)}
        return {"array_to_sensor_um": distance, "offset_um": [float(v) for v in self.offset_um], **rest}

    @classmethod
    def from_dict(cls, parameters: dict[str, Any]) -> Alignment:
        """The alignment that `to_dict` describes."""
        return cls(**{**parameters, "offset_um": tuple(parameters["offset_um"])})


def lenslet_phase(
    microscope: Microscope, samples: int, side: int, alignment: Alignment | None = None
) -> Complex[Array, "y x"]:
    """Transmission of square lenslets: exp(-i k0 |x|^2 / (2 f_ml)) about each centre, k0 = 2 pi / lambda.

    Args:
        microscope: pitch, focal length and wavelength are used.
        samples: samples across a lenslet.
        side: samples of the grid, whose middle is the centre of a lenslet.
        alignment: shift and turn of the array; none if not given.
    """
    steps = np.arange(side) - (side - 1) / 2
    k0 = 2 * jnp.pi / microscope.wavelength_um
    if alignment is None:
        x_um = (steps - samples * np.floor(steps / samples + 0.5)) / samples * microscope.lenslet_pitch_um
        row = jnp.exp(-1j * k0 * x_um**2 / (2 * microscope.lenslet_focal_length_um))
        return row[:, None] * row[None, :]
    pitch = microscope.lenslet_pitch_um
    x = jnp.asarray(steps) / samples * pitch
    y_um, x_um = x[:, None] - alignment.offset_um[0], x[None, :] - alignment.offset_um[1]
    c, s = jnp.cos(alignment.rotation_rad), jnp.sin(alignment.rotation_rad)
    turned = (c * y_um - s * x_um, s * y_um + c * x_um)
    r2 = sum((t - pitch * jnp.floor(t / pitch + 0.5)) ** 2 for t in turned)
    return jnp.exp(-1j * k0 * r2 / (2 * microscope.lenslet_focal_length_um))
