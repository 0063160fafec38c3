"""Position of the micro-lens array between native image plane and sensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, ArrayLike

from lfjax.errors import ParameterError, require


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
        """The alignment that `to_dict` describes; parameters that are left out have their defaults.

        Raises:
            ParameterError: a parameter is unknown, or is not a finite number (two for `offset_um`, rows for `mask`).
        """
        unknown = set(parameters) - set(NAMES)
        if unknown:
            raise ParameterError(f"alignment parameters: unknown {sorted(unknown)}; expected some of {', '.join(NAMES)}")
        known = {name: value for name, value in parameters.items() if value is not None}
        for name in ("array_to_sensor_um", "rotation_rad", "native_plane_um"):
            require(_finite(known.get(name, 0.0), 0), f"alignment.{name}", known.get(name), "a finite number")
        distance = known.get("array_to_sensor_um", 1.0)
        require(distance > 0, "alignment.array_to_sensor_um", distance, "a positive number")
        offset = known.get("offset_um", (0.0, 0.0))
        require(_finite(offset, 1) and len(offset) == 2, "alignment.offset_um", offset, "two finite numbers (y, x)")
        known["offset_um"] = tuple(float(v) for v in offset)
        if "mask" in known:
            require(_finite(known["mask"], 2), "alignment.mask", "other values", "rows of equally many finite numbers")
            known["mask"] = np.asarray(known["mask"], float)
        return cls(**known)


NAMES = ("array_to_sensor_um", "offset_um", "rotation_rad", "native_plane_um", "mask")


def _finite(value: Any, axes: int) -> bool:
    """Whether a value read from a file consists of finite numbers and has this number of axes."""
    if axes == 0:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different length
        return False
    return array.ndim == axes and array.dtype.kind in "iuf" and bool(np.isfinite(array).all())
