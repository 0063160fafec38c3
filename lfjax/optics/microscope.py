"""Parameters of a light-field microscope: presets, TOML files, derived quantities."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from lfjax.errors import FileError, ParameterError, require


class Microscope(eqx.Module):
    """A light-field microscope with one micro-lens array in its native image plane.

    The parameters are leaves of a pytree: pass Python floats and they are constants, put a JAX array in
    (`equinox.tree_at`) and the PSF is differentiable with respect to it.

    Args:
        magnification: M, of objective and tube lens together.
        numerical_aperture: NA, below the medium index.
        medium_index: refractive index n of the sample and immersion.
        wavelength_um: emission wavelength in vacuum, lambda.
        lenslet_pitch_um: distance between lenslet centres.
        lenslet_focal_length_um: focal length f_ml; the sensor stands at this distance.
        pixels_per_lenslet: N, the whole number of pixels per lenslet in *rectified* frames.
        lenslet_lattice: "square", or "hexagonal": rows sqrt(3) / 2 pitches apart, every second one shifted by half a pitch.
            The unit of a hexagonal lattice is a cell of two rows, (sqrt(3) pitch, pitch), with one lenslet in the middle
            and four quarters in the corners; "a lenslet" of images, volumes and operators then means this cell.
        camera_pixel_um: size of a raw camera pixel in the plane of the lenslets, from which the raw pitch follows; None:
            unknown.
        name: free text.

    Raises:
        ParameterError: a value is out of range.
    """

    magnification: float | Array
    numerical_aperture: float | Array
    medium_index: float | Array
    wavelength_um: float | Array
    lenslet_pitch_um: float | Array
    lenslet_focal_length_um: float | Array
    pixels_per_lenslet: int = eqx.field(static=True)
    camera_pixel_um: float | None = eqx.field(static=True, default=None)
    lenslet_lattice: str = eqx.field(static=True, default="square")
    name: str = eqx.field(static=True, default="custom")

    def __check_init__(self) -> None:
        for field in _NUMBERS:
            value = getattr(self, field)
            if isinstance(value, (int, float)):  # the values of arrays may be traced, hence unknown
                require(math.isfinite(value) and value > 0, field, value, "a positive number")
        na, n = self.numerical_aperture, self.medium_index
        if isinstance(na, (int, float)) and isinstance(n, (int, float)):
            require(na < n, "numerical_aperture", na, f"less than medium_index = {n}")
        whole = isinstance(self.pixels_per_lenslet, int) and self.pixels_per_lenslet >= 3
        require(whole, "pixels_per_lenslet", self.pixels_per_lenslet, "a whole number, 3 or more")
        require(self.lenslet_lattice in LATTICES, "lenslet_lattice", self.lenslet_lattice, " or ".join(LATTICES))
        pixel = self.camera_pixel_um
        require(pixel is None or pixel > 0, "camera_pixel_um", pixel, "a positive number, or None")

    @property
    def half_angle(self) -> Array:
        """alpha = asin(NA / n), in radians."""
        return jnp.arcsin(self.numerical_aperture / self.medium_index)

    @property
    def object_pitch_um(self) -> float | Array:
        """Size of a lenslet as seen in the sample: pitch / M, in micrometres."""
        return self.lenslet_pitch_um / self.magnification

    @property
    def cell_um(self) -> tuple[float | Array, float | Array]:
        """Size (y, x) of the unit cell of the array, on the array."""
        return (self.lenslet_pitch_um * self._cell_ratio, self.lenslet_pitch_um)

    @property
    def cell_pixels(self) -> tuple[int, int]:
        """Rectified pixels (N_y, N_x) of the unit cell: as square as whole numbers allow."""
        return (round(self._cell_ratio * self.pixels_per_lenslet), self.pixels_per_lenslet)

    def cell_voxels(self, voxels_per_lenslet: int) -> tuple[int, int]:
        """Voxels (s_y, s_x) of the unit cell, for s voxels across the pitch."""
        return (round(self._cell_ratio * voxels_per_lenslet), voxels_per_lenslet)

    @property
    def _cell_ratio(self) -> float:
        return 1.0 if self.lenslet_lattice == "square" else math.sqrt(3)

    @property
    def raw_pitch_px(self) -> float | None:
        """Raw camera pixels per lenslet; None: `camera_pixel_um` is unknown."""
        return None if self.camera_pixel_um is None else float(self.lenslet_pitch_um) / self.camera_pixel_um

    def voxel_um(self, voxels_per_lenslet: int) -> float:
        """Lateral voxel size, in micrometres, at s voxels per lenslet."""
        return float(self.object_pitch_um) / voxels_per_lenslet

    def blur_radius_lenslets(self, z_um: float) -> float:
        """Radius of the geometric blur of a point at depth z on the lenslet plane, in lenslets: |z| tan(alpha) M / pitch."""
        tangent = math.tan(math.asin(float(self.numerical_aperture) / float(self.medium_index)))
        return abs(z_um) * tangent / float(self.object_pitch_um)

    def to_dict(self) -> dict[str, Any]:
        """All parameters as plain numbers and text; those that are None are left out."""
        raw = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: float(v) if k in _NUMBERS else v for k, v in raw.items() if v is not None}

    @classmethod
    def from_dict(cls, parameters: dict[str, Any]) -> Microscope:
        """The microscope that `to_dict` describes.

        Raises:
            ParameterError: a parameter is missing, unknown or out of range.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        needed = known - {"camera_pixel_um", "lenslet_lattice", "name"}
        unknown, missing = set(parameters) - known, needed - set(parameters)
        if unknown or missing:
            raise ParameterError(
                f"microscope parameters: unknown {sorted(unknown) or 'none'}, missing {sorted(missing) or 'none'}; "
                f"expected {sorted(needed)} and optionally camera_pixel_um, lenslet_lattice, name"
            )
        for field in _NUMBERS:
            require(isinstance(parameters[field], (int, float)), field, parameters[field], "a number")
        return cls(**parameters)

    def to_toml(self) -> str:
        """The parameters as a TOML document that `from_toml` reads back."""
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in self.to_dict().items())

    @classmethod
    def from_toml(cls, path: str | Path) -> Microscope:
        """Read a microscope from a TOML file with one `name = value` line per parameter.

        Raises:
            FileError: the file does not exist or is not TOML.
            ParameterError: a parameter is missing, unknown or out of range.
        """
        try:
            return cls.from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise FileError(f"microscope file {path}: {error}") from error


LATTICES = ("square", "hexagonal")

_NUMBERS = (
    "magnification",
    "numerical_aperture",
    "medium_index",
    "wavelength_um",
    "lenslet_pitch_um",
    "lenslet_focal_length_um",
)

PRESETS: dict[str, Microscope] = {
    m.name: m
    for m in (
        Microscope(25, 1.0, 1.33, 0.515, 125, 1250, 19, name="25x1.0w"),  # Imperial College-like, after TCI 2023
        Microscope(40, 0.95, 1.0, 0.520, 150, 3000, 15, name="40x0.95"),  # Prevedel et al. 2014
        Microscope(22.2, 0.5, 1.33, 0.520, 125, 3125, 19, name="22.2x0.5"),
        Microscope(60, 1.2, 1.35, 0.593, 100, 2500, 16, camera_pixel_um=6.5, name="60x1.2w"),  # napari-LF vesicles
        Microscope(20, 0.5, 1.33, 0.520, 125, 2500, 11, name="20x0.5"),
    )
}
"""Microscopes of the literature by name; `lfjax info NAME` prints one as TOML."""


def preset(name: str) -> Microscope:
    """A microscope of the literature by name; `PRESETS` holds them all.

    Raises:
        ParameterError: no preset has this name; the message lists all names.
    """
    if name not in PRESETS:
        raise ParameterError(f"microscope preset {name!r}: expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def load_microscope(preset_or_path: str | Path) -> Microscope:
    """The preset of this name, or else the microscope of the TOML file at this path.

    Raises:
        ParameterError: neither a preset nor a file has this name.
    """

    name = str(preset_or_path)
    if name in PRESETS:
        return PRESETS[name]
    if not Path(name).exists():
        raise ParameterError(f"microscope {name!r}: neither a file nor one of the presets {', '.join(PRESETS)}")
    return Microscope.from_toml(name)
