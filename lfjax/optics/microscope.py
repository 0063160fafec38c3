"""Parameters of a light-field microscope: presets, TOML files, derived quantities."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from lfjax.errors import ParameterError, require
from lfjax.io.toml import is_number, naming, read_toml, require_keys, require_table, toml_lines
from lfjax.optics.alignment import Alignment

Pattern = tuple[tuple[float | Array, ...], ...]
"""Focal lengths of a multi-focal array, rows (y) of lenslets (x) that repeat over the array."""


def _rows(focal: Any) -> Any:
    """A pattern of focal lengths as tuples, which are hashable and never arrays; one number as it is."""
    if not isinstance(focal, (list, tuple)):
        return focal
    return tuple(tuple(row) if isinstance(row, list) else row for row in focal)


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
        lenslet_focal_length_um: focal length f_ml; the sensor stands at this distance. Or, of a multi-focal array, rows (y) of
            focal lengths (x), ((2500, 3000), (3000, 2500)) for example, which repeat over the array: `pattern`.
        pixels_per_lenslet: N, the whole number of pixels per lenslet in *rectified* frames.
        lenslet_lattice: "square", or "hexagonal": rows sqrt(3) / 2 pitches apart, every second one shifted by half a pitch.
            The unit of a hexagonal lattice is a cell of two rows, (sqrt(3) pitch, pitch), with one lenslet in the middle
            and four quarters in the corners; "a lenslet" of images, volumes and operators then means this cell, or the cell
            of a multi-focal array.
        camera_pixel_um: size of a raw camera pixel in the plane of the lenslets, from which the raw pitch follows; None:
            unknown.
        name: free text.
        alignment: position of the array, which `compute_psf` takes where it is given none. None: on the native plane, f_ml
            from the sensor. Of a multi-focal array, whose sensor cannot stand in all foci, it states `array_to_sensor_um`.

    Raises:
        ParameterError: a value is out of range. A value far off names the unit in which it was probably given. The values of
            JAX arrays are not checked.
    """

    magnification: float | Array
    numerical_aperture: float | Array
    medium_index: float | Array
    wavelength_um: float | Array
    lenslet_pitch_um: float | Array
    lenslet_focal_length_um: float | Array | Pattern = eqx.field(converter=_rows)
    pixels_per_lenslet: int = eqx.field(static=True)
    camera_pixel_um: float | None = eqx.field(static=True, default=None)
    lenslet_lattice: str = eqx.field(static=True, default="square")
    name: str = eqx.field(static=True, default="custom")
    alignment: Alignment | None = None

    def __check_init__(self) -> None:
        for field in RANGES:
            value = getattr(self, field)
            if isinstance(value, (int, float)):  # the values of arrays may be traced, hence unknown
                _check_unit(field, value)
        self._check_pattern()
        distance = None if self.alignment is None else self.alignment.array_to_sensor_um
        if isinstance(distance, (int, float)):
            _check_unit("alignment.array_to_sensor_um", distance, RANGES["lenslet_focal_length_um"])
        na, n = self.numerical_aperture, self.medium_index
        if isinstance(na, (int, float)) and isinstance(n, (int, float)):
            require(na < n, "numerical_aperture", na, f"less than medium_index = {n}")
        whole = isinstance(self.pixels_per_lenslet, int) and 3 <= self.pixels_per_lenslet <= MOST_PIXELS
        require(whole, "pixels_per_lenslet", self.pixels_per_lenslet, f"a whole number, 3 or more, at most {MOST_PIXELS}")
        require(self.lenslet_lattice in LATTICES, "lenslet_lattice", self.lenslet_lattice, " or ".join(LATTICES))

    def _check_pattern(self) -> None:
        """Refuse a pattern of focal lengths that does not repeat over the array, or has no distance to the sensor."""
        name, rows = "lenslet_focal_length_um", self.pattern
        if rows is None:
            return
        even = all(isinstance(row, tuple) and len(row) == len(rows[0]) > 0 for row in rows) and len(rows) > 0
        require(even, name, rows, "one number, or rows of equally many numbers (y, x)")
        paired = self.lenslet_lattice != "hexagonal" or len(rows) % 2 == 0
        require(paired, name, rows, "an even number of rows: every second row of a hexagonal lattice is shifted")
        for value in itertools.chain.from_iterable(rows):
            if isinstance(value, (int, float)):
                _check_unit(name, value)
        stated = self.alignment is not None and self.alignment.array_to_sensor_um is not None
        require(stated, "alignment.array_to_sensor_um", None, "the distance to the sensor, which cannot stand in several foci")

    @property
    def repeats_square(self) -> bool:
        """Whether the array repeats one square lenslet: it is neither hexagonal nor multi-focal."""
        return self.lenslet_lattice == "square" and self.pattern is None

    @property
    def pattern(self) -> Pattern | None:
        """Focal lengths of the lenslets that repeat over a multi-focal array; None: all lenslets are alike.

        pattern[i][j] is the focal length of the lenslet in row i (y) and column j (x) of the cell, which in frames and volumes
        begins with the lenslet [0][0]. On a hexagonal lattice, lenslet [1][0] lies below [0][0], half a pitch to the right.
        """
        focal = self.lenslet_focal_length_um
        return focal if isinstance(focal, tuple) else None

    @property
    def units(self) -> tuple[int, int]:
        """Squares, or hexagonal unit cells of two rows, (y, x) in the cell of a multi-focal array; (1, 1) for other arrays."""
        if self.pattern is None:
            return (1, 1)
        return (len(self.pattern) // (1 if self.lenslet_lattice == "square" else 2), len(self.pattern[0]))

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
        rows, columns = self.units
        return (self.lenslet_pitch_um * (self._cell_ratio * rows), self.lenslet_pitch_um * columns)

    @property
    def cell_pixels(self) -> tuple[int, int]:
        """Rectified pixels (N_y, N_x) of the unit cell: as square as whole numbers allow."""
        return self.cell_voxels(self.pixels_per_lenslet)

    def cell_voxels(self, voxels_per_lenslet: int) -> tuple[int, int]:
        """Voxels (s_y, s_x) of the unit cell, for s voxels across the pitch."""
        rows, columns = self.units
        return (rows * round(self._cell_ratio * voxels_per_lenslet), columns * voxels_per_lenslet)

    @property
    def _cell_ratio(self) -> float:
        return 1.0 if self.lenslet_lattice == "square" else math.sqrt(3)

    @property
    def raw_pitch_px(self) -> float | None:
        """Raw camera pixels per lenslet; None: `camera_pixel_um` is unknown."""
        return None if self.camera_pixel_um is None else float(self.lenslet_pitch_um) / self.camera_pixel_um

    @property
    def sensor_distance_um(self) -> float:
        """Distance from the lenslets to the sensor: that of the alignment, or else their focal length."""
        distance = None if self.alignment is None else self.alignment.array_to_sensor_um
        if distance is None:
            assert not isinstance(self.lenslet_focal_length_um, tuple), "a multi-focal array states its distance"
            distance = self.lenslet_focal_length_um
        return float(distance)

    @property
    def native_plane_um(self) -> float:
        """D, distance of the array behind the native image plane: that of the alignment, or else 0."""
        return 0.0 if self.alignment is None else float(self.alignment.native_plane_um)

    def voxel_um(self, voxels_per_lenslet: int) -> float:
        """Lateral voxel size, in micrometres, at s voxels per lenslet."""
        return float(self.object_pitch_um) / voxels_per_lenslet

    def blur_radius_lenslets(self, z_um: float) -> float:
        """Radius of the geometric blur of a point at depth z on the lenslet plane, in lenslets: |z| tan(alpha) M / pitch."""
        tangent = math.tan(math.asin(float(self.numerical_aperture) / float(self.medium_index)))
        return abs(z_um) * tangent / float(self.object_pitch_um)

    def to_dict(self) -> dict[str, Any]:
        """All parameters as plain numbers and text; those that are None are left out."""
        raw = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "alignment"}
        plain = {k: _plain(v) if k in _NUMBERS else v for k, v in raw.items() if v is not None}
        return plain if self.alignment is None else plain | {"alignment": self.alignment.to_dict()}

    @classmethod
    def from_dict(cls, parameters: dict[str, Any]) -> Microscope:
        """The microscope that `to_dict` describes.

        Raises:
            ParameterError: a parameter is missing, unknown or out of range.
        """
        require_table("microscope", parameters)
        fields = dataclasses.fields(cls)
        needed = [f.name for f in fields if f.default is dataclasses.MISSING]
        require_keys("microscope", parameters, [f.name for f in fields], needed)
        for text in {"name", "lenslet_lattice"} & set(parameters):
            require(isinstance(parameters[text], str), text, parameters[text], "text")
        focal = parameters["lenslet_focal_length_um"]
        if isinstance(focal, (list, tuple)):
            rows = "one number, or rows (y) of numbers (x), [[2500, 3000], [3000, 2500]] for example, of several focal lengths"
            table = all(isinstance(row, (list, tuple)) and all(map(is_number, row)) for row in focal)
            require(table, "lenslet_focal_length_um", focal, rows)
            parameters = parameters | {"lenslet_focal_length_um": tuple(map(tuple, focal))}
        for field in (*_NUMBERS, *({"camera_pixel_um"} & set(parameters))):
            number = is_number(parameters[field]) or isinstance(parameters[field], tuple)
            require(number, field, parameters[field], "a number")
        position = parameters.get("alignment")
        if position is None:
            return cls(**parameters)
        require(isinstance(position, dict), "alignment", position, "a table of parameters, see `Alignment`")
        return cls(**parameters | {"alignment": Alignment.from_dict(position)})

    def to_toml(self) -> str:
        """The parameters as a TOML document that `from_toml` reads back."""
        parameters = self.to_dict()
        position = parameters.pop("alignment", None)
        return toml_lines(parameters) + ("" if position is None else f"\n[alignment]\n{toml_lines(position)}")

    @classmethod
    def from_toml(cls, path: str | Path) -> Microscope:
        """Read a microscope from a TOML file: one `name = value` line per parameter, and optionally a table [alignment].

        Raises:
            FileError: the file does not exist or is not TOML, or a parameter is missing, unknown, of another type or out of
                range; the message names file and parameter.
        """
        with naming(path):
            return cls.from_dict(read_toml(path, "a microscope"))


def require_square(microscope: Microscope) -> None:
    """Refuse arrays that do not repeat one square lenslet, in functions that are made for one.

    Raises:
        ParameterError: the array is hexagonal or multi-focal.
    """
    require(microscope.lenslet_lattice == "square", "lenslet_lattice", microscope.lenslet_lattice, "square lenslets")
    one = microscope.pattern is None
    require(one, "lenslet_focal_length_um", microscope.pattern, "one number: lenslets that are alike, not a multi-focal array")


def _plain(value: Any) -> Any:
    """A number, or rows of numbers, without arrays and tuples."""
    return [[float(v) for v in row] for row in value] if isinstance(value, tuple) else float(value)


def _check_unit(name: str, value: float, limits: tuple[float, float] | None = None) -> None:
    """Refuse a value outside its range, and name the unit with which it would fit.

    Raises:
        ParameterError: the value is out of range.
    """
    require(bool(math.isfinite(value) and value > 0), name, value, "a positive number")
    low, high = RANGES[name] if limits is None else limits
    if low <= value <= high:
        return
    fits = [(unit, value * scale) for unit, scale in UNITS if low <= value * scale <= high and name.endswith("_um")]
    hint = f"; the value looks like {fits[0][0]}, which would be {fits[0][1]:.6g} um" if fits else ""
    raise ParameterError(f"{name} = {value!r}: expected {low:g} to {high:g}{' um' * name.endswith('_um')}{hint}")


RANGES: dict[str, tuple[float, float]] = {
    "magnification": (0.5, 200),
    "numerical_aperture": (0.01, 1.7),
    "medium_index": (1.0, 2.0),
    "wavelength_um": (0.2, 2.0),
    "lenslet_pitch_um": (5.0, 5e3),
    "lenslet_focal_length_um": (50.0, 2e5),
    "camera_pixel_um": (0.3, 50.0),
}
"""Least and largest value of each parameter: wider than any instrument, narrower than a mistaken unit."""

UNITS = (("nm", 1e-3), ("mm", 1e3), ("m", 1e6))
"""Units in which lengths are given by mistake, and their size in micrometres."""

MOST_PIXELS = 1000
"""Largest number of pixels behind a lenslet."""

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
        FileError: see `Microscope.from_toml`.
    """
    name = str(preset_or_path)
    if name in PRESETS:
        return PRESETS[name]
    if not Path(name).exists():
        raise ParameterError(f"microscope {name!r}: neither a file nor one of the presets {', '.join(PRESETS)}")
    return Microscope.from_toml(name)
