"""A raw movie and all that is settled before its first frame is fitted: good frames, rate, calibration, grid, PSF."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lfjax import movies
from lfjax.errors import require
from lfjax.movies.identity import fingerprint
from lfjax.movies.quality import Survey
from lfjax.movies.repair import BAD_FRAMES, GoodFrames
from lfjax.optics import PSF, Microscope, Rectifier, cached_psf
from lfjax.pipeline.settings import Calibration, Grid


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A movie of camera frames with its correction.

    Attributes:
        frames: (t, row, col), raw frames without those that are bad.
        frame_s: seconds per frame.
        survey: mean, peak, saturation and bad frames of the movie.
        rectifier: the correction of its frames.
        grid: depths and voxels per lenslet.
    """

    frames: GoodFrames
    frame_s: float
    survey: Survey
    rectifier: Rectifier
    grid: Grid

    @property
    def microscope(self) -> Microscope:
        """Parameters of the microscope."""
        return self.rectifier.microscope

    def psf(self, tolerance: float, track: Callable[..., Any] | None = None) -> PSF:
        """The PSF on the grid, computed or read from the cache."""
        return cached_psf(self.microscope, self.grid.depths, self.grid.voxels, tolerance=tolerance, track=track)

    @property
    def moments(self) -> np.ndarray | None:
        """(t,), time of each frame in units of `frame_s`, where frames were left out or lost; None: 0, 1, 2, ..."""
        numbers = self.frames.numbers
        if numbers.min() < 0 or not (self.survey.dropped or self.survey.bad):
            return None  # nothing is missing, or all that was has been filled in
        before = np.array(sorted(self.survey.dropped), int)
        lost = np.cumsum([0, *(self.survey.dropped[k] for k in before)])
        found = numbers + lost[np.searchsorted(before, numbers, side="right")]
        return None if np.array_equal(found, np.arange(len(found))) else found

    @property
    def filled(self) -> np.ndarray | None:
        """(t,), frames of an even time axis that are bad or were lost, whose values are made up; None: none."""
        numbers, moments = self.frames.numbers, self.moments
        if moments is not None:
            found = np.ones(int(moments[-1]) + 1, bool)
            found[moments] = False
        else:
            found = (numbers < 0) | np.isin(numbers, list(self.survey.bad))
        return found if found.any() else None

    def volume_grid(self) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
        """Voxels (z, y, x) of the volume, and their size in micrometres."""
        return volume_grid(self.rectifier, self.grid)

    def settings(self) -> dict[str, Any]:
        """The part of a run's settings that this recording determines, to tell whether two runs share them."""
        correction = fingerprint(*map(np.asarray, jax.tree.leaves(self.rectifier)), np.asarray(self.rectifier.lattice[:4]))
        return {
            "microscope": self.microscope.to_dict(), "z_um": self.grid.depths, "voxels": self.grid.voxels,
            "frame_s": self.frame_s, "frames": len(self.frames), "bad": sorted(self.survey.bad), "calibration": correction,
        }  # fmt: skip

    def light_fields(self, psf: PSF, *, register: bool = False, background: int = 0) -> movies.LightFields:
        """The frames rectified and flattened, see `movies.light_fields`."""
        return movies.light_fields(
            self.frames, self.rectifier, psf, peak=self.survey.peak, saturation=self.survey.saturation, register=register,
            background=background, frame_s=self.frame_s,
        )  # fmt: skip


def volume_grid(rectifier: Rectifier, grid: Grid) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Voxels (z, y, x) of a volume, and their size (z, y, x) in micrometres, without a PSF.

    Args:
        rectifier: gives the field and the microscope.
        grid: from `Grid.of`, with its depths in place.
    """
    scope = rectifier.microscope
    (rows, columns), cell = rectifier.field, scope.cell_voxels(grid.voxels)
    high, wide = (float(size) / float(scope.magnification) / count for size, count in zip(scope.cell_um, cell, strict=True))
    depth = float(np.mean(np.diff(grid.depths))) if len(grid.depths) > 1 else 1.0
    return (len(grid.depths), rows * cell[0], columns * cell[1]), (depth, high, wide)


def open_recording(
    frames: Any,
    microscope: Microscope | None,
    calibration: Calibration,
    grid: Grid,
    *,
    frame_s: float | None = None,
    bad_frames: str = "error",
    step_um: float | None = None,
    track: Callable[..., Any] | None = None,
) -> Recording:
    """Read a movie once and settle its correction.

    Args:
        frames: (t, row, col), camera frames: an array, or `io.open_movie`.
        microscope: its parameters. None: those of the calibration.
        calibration: calibration frames, or a calibration made before.
        grid: depths and voxels per lenslet.
        frame_s: seconds per frame. None: that of the file.
        bad_frames: treatment of missing, black, doubled and broken frames: "error", "skip" or "interpolate".
        step_um: largest step between planes, where `grid` leaves the depths open.
        track: see `lfjax.progress.track`.

    Raises:
        ParameterError: a number out of range, or no rate is known.
        FileError: the movie has bad frames, and `bad_frames` is "error".
        LfjaxError: see `optics.Rectifier.calibrate`.
    """
    require(bad_frames in BAD_FRAMES, "bad_frames", bad_frames, f"one of {', '.join(BAD_FRAMES)}")
    stated = getattr(frames, "frame_s", None)
    rate = stated if frame_s is None else frame_s
    require(rate is not None, "frame_s", None, "seconds per frame (`--rate-hz`): the file does not tell its rate")
    assert rate is not None
    require(rate > 0, "frame_s", rate, "a positive number of seconds")
    known = calibration.rectifier
    seen = movies.survey(frames, saturation=calibration.saturation if known is None else known.saturation, track=track)
    good = movies.good_frames(frames, seen.bad, bad_frames, dropped=seen.dropped)
    rectifier = calibration.prepare(microscope, seen.mean)
    return Recording(good, rate, seen, rectifier, grid.of(rectifier.microscope, step_um))
