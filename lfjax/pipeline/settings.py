"""Settings that the pipelines share, in three groups: calibration frames, the grid of the volume, and how a run is spread."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from lfjax import optics, parallel
from lfjax.errors import ParameterError, require
from lfjax.linop import LinearOperator
from lfjax.optics import PSF, LightField, Microscope, Rectifier, depth_range, is_rectified
from lfjax.pipeline.frame_checks import require_same_camera, warn_offset

PLANES = 11  # of a volume whose depths nobody states


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration of a recording: its frames, or numbers that are known, or a calibration made before.

    Attributes:
        white: raw white frame (row, col) in camera counts. None: the lenslets are found in the light field itself.
        dark: raw dark frame (row, col), or one level, in camera counts. None: 0.
        rectified: True if the frames have N whole pixels per lenslet, False if they are raw. None: lfjax looks for itself where
            there is no white frame. Of a multi-focal array, True says that they begin with the lenslet [0][0]; None is False.
        background: light that is there without the sample: a raw frame, dark level included, or a number of counts above dark.
        pitch_px: distance between lenslets in raw pixels. None: that of the microscope's camera, and measured.
        rotation_rad: rotation of the lenslets, see `optics.Lattice`. None: measured.
        offset_px: raw position (y, x) of the centre of a lenslet. None: measured.
        saturation: counts at and above which a pixel is saturated. None: found in the values.
        rectifier: a calibration made before, `optics.read_calibration`; the frames and numbers above are then left out.
    """

    white: ArrayLike | None = None
    dark: ArrayLike | float | None = None
    rectified: bool | None = None
    background: ArrayLike | float | None = None
    pitch_px: float | None = None
    rotation_rad: float | None = None
    offset_px: tuple[float, float] | None = None
    saturation: float | None = None
    rectifier: Rectifier | None = None

    def prepare(self, microscope: Microscope | None, frame: ArrayLike) -> Rectifier:
        """The correction of a recording's frames.

        Args:
            microscope: its parameters. None: those of `rectifier`.
            frame: a raw frame (row, col), or the mean frame of a movie.

        Raises:
            ParameterError: no microscope, or settings that exclude each other.
            LfjaxError: see `optics.Rectifier.calibrate`.
        """
        if self.rectifier is not None:
            others = [f.name for f in dataclasses.fields(self) if f.name != "rectifier" and getattr(self, f.name) is not None]
            require(not others, ", ".join(others), "given", "nothing beside a calibration made before")
            scope = self.rectifier.microscope
            same = microscope is None or microscope.pixels_per_lenslet == scope.pixels_per_lenslet
            require(
                same, "pixels_per_lenslet of the calibration", scope.pixels_per_lenslet, "those of the microscope or the model"
            )
            require_same_camera(self.rectifier, frame)
            return self.rectifier
        if microscope is None:
            raise ParameterError("microscope: none is given; expected a microscope, or a calibration that holds one")
        numbers = {"pitch_px": self.pitch_px, "rotation_rad": self.rotation_rad, "offset_px": self.offset_px}
        stated = [name for name, value in numbers.items() if value is not None]
        rectified = self.rectified
        if rectified is None:
            looks = self.white is None and not stated and microscope.pattern is None
            rectified = looks and is_rectified(frame, microscope.pixels_per_lenslet, kind=microscope.lenslet_lattice)
        common: dict[str, Any] = {
            "white": self.white, "dark": self.dark, "background": self.background, "saturation": self.saturation,
        }  # fmt: skip
        if not rectified:
            made = Rectifier.calibrate(microscope, frame, **common, **numbers)  # type: ignore[arg-type]
            if self.dark is None:
                warn_offset(np.asarray(frame))
            if self.white is not None:
                require_same_camera(made, frame)
            return made
        require(not stated, "rectified", True, f"no {', '.join(stated)}: rectified frames have N pixels per lenslet")
        return Rectifier.aligned(microscope, np.shape(frame), **common)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Voxels of a volume.

    Attributes:
        z_um: depths of the planes in micrometres, ascending; 0 is the native focal plane. None: eleven planes over the usable
            range of the microscope, `optics.depth_range`.
        voxels: s, voxels across a lenslet, from 1 to N.
    """

    z_um: Sequence[float] | None = None
    voxels: int = 4

    @property
    def depths(self) -> tuple[float, ...]:
        """The depths in micrometres.

        Raises:
            ParameterError: none are stated; `of` puts them in place.
        """
        require(self.z_um is not None, "z_um", None, "depths, as `Grid.of(microscope)` puts them in place")
        return tuple(self.z_um or ())

    def of(self, microscope: Microscope, step_um: float | None = None) -> Grid:
        """The grid with its depths in place, checked against a microscope.

        Args:
            microscope: the parameters.
            step_um: see `default_depths`.

        Raises:
            ParameterError: voxels or depths are out of range.
        """
        n = microscope.pixels_per_lenslet
        require(1 <= self.voxels <= n, "voxels", self.voxels, f"1 to {n}, the pixels per lenslet of {microscope.name}")
        if self.z_um is None:
            return Grid(default_depths(microscope, step_um), self.voxels)
        z = [float(depth) for depth in self.z_um]
        ascending = bool(z) and all(map(math.isfinite, z)) and all(a < b for a, b in zip(z, z[1:], strict=False))
        require(ascending, "z_um", z, "one or more depths in micrometres, ascending")
        return Grid(tuple(z), self.voxels)


def default_depths(microscope: Microscope, step_um: float | None = None) -> tuple[float, ...]:
    """Eleven depths in micrometres, evenly spaced over the usable range of a microscope, in steps of two digits.

    Args:
        microscope: the parameters.
        step_um: largest step; more than eleven planes keep it. None: eleven planes.
    """
    low, high = depth_range(microscope)
    planes = PLANES if step_um is None else max(PLANES, 2 * math.ceil((high - low) / 2 / step_um) + 1)
    step = (high - low) / (planes - 1)
    digits = 1 - math.floor(math.log10(step))
    step = math.floor(step * 10**digits) / 10**digits
    middle = round((low + high) / 2, digits)
    return tuple(round(middle + step * (number - planes // 2), digits) for number in range(planes))


@dataclasses.dataclass(frozen=True)
class Tissue:
    """Tissue that scatters the light of the sample, see `optics.Scattering`.

    Attributes:
        depth_um: tissue between the plane z = 0 and the surface on the side of the objective; the tissue above a plane grows
            with its z.
        mean_free_path_um: l, the scattering mean free path.
        anisotropy: g, the mean cosine of the scattering angle.
    """

    depth_um: float
    mean_free_path_um: float
    anisotropy: float = 0.93

    def before(self, op: LightField, psf: PSF) -> LinearOperator:
        """H S, the light field of a volume in this tissue, from H.

        Raises:
            ParameterError: a number is out of range, or a plane lies above the surface.
        """
        thickness = self.depth_um + np.asarray(psf.z_um)
        lowest = float(thickness.min())
        require(lowest >= 0, "depth_um", self.depth_um, f"{-min(psf.z_um):g} or more, so that all planes lie in the tissue")
        return op @ optics.Scattering(  # loads optimistix: only where there is tissue
            op.in_shape, psf.voxel_um[1], thickness, mean_free_path_um=self.mean_free_path_um, anisotropy=self.anisotropy
        )


def tissue_settings(tissue: Tissue | None) -> dict[str, float] | None:
    """The numbers of a tissue, to tell whether two runs share them; None: clear."""
    return None if tissue is None else dataclasses.asdict(tissue)


@dataclasses.dataclass(frozen=True)
class Run:
    """How the frames of a movie go through memory and devices.

    Attributes:
        chunk: frames per chunk. Three chunks are in memory at once; an interruption costs at most one chunk of work.
        batch: frames computed at once on each device.
        devices: number of devices over which the frames of a chunk are spread.
    """

    chunk: int = 16
    batch: int = 4
    devices: int = 1

    def mesh(self) -> Mesh | None:
        """The devices of this run. None: the default device.

        Raises:
            ParameterError: more devices than this process has, or none.
        """
        return None if self.devices == 1 else parallel.mesh(self.devices)

    def check(self) -> None:
        """Raise `ParameterError` for a chunk or a batch below one frame."""
        for name in ("chunk", "batch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more frames")
