"""Checks of a calibration: which pixels of a white frame are trusted, and whether the measured pitch is the stated one."""

from __future__ import annotations

import math
import warnings

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray

from lfjax.errors import CalibrationError, CalibrationWarning, require
from lfjax.optics.camera.lattice_cells import Lattice
from lfjax.optics.camera.pixels import check_frame, find_saturation, local_maximum
from lfjax.optics.microscope import Microscope

PITCH_TOLERANCE = 0.005  # relative difference between measured and stated pitch above which a warning is given
PITCH_LIMIT = 0.05  # and above which the two cannot be the same instrument
SAMPLING_TOLERANCE = 0.25  # relative difference between measured pitch and N above which a warning is given
LEAST_TRUSTED = 0.2  # fraction of the pixels below which there is nothing to reconstruct from
LEAST_LIGHT = 0.05  # brightness of a lenslet, relative to the brightest ones, below which it is outside the field
SATURATED_WHITE = 0.05  # fraction of saturated pixels above which a white frame is refused
SATURATED_FRAME = 0.01  # fraction of saturated pixels above which a frame is warned of


def check_level(name: str, value: ArrayLike | float | None, shape: tuple[int, ...]) -> Float[np.ndarray, "row col"]:
    """A dark or background frame, of one number or none too, as an array of the frame's shape.

    Raises:
        LfjaxError: see `check_frame`; the message begins with the name.
    """
    given = np.asarray(0.0 if value is None else value)
    if given.ndim:
        return check_frame(name, given, shape)
    require(given.dtype.kind in "uif" and bool(np.isfinite(given)), name, value, "a finite number, or a frame")
    return np.full(shape, given, np.float32)


def check_white(
    white: ArrayLike, dark: Float[np.ndarray, "row col"], saturation: float | None
) -> tuple[Float[np.ndarray, "row col"], Bool[np.ndarray, "row col"]]:
    """White frame above the dark level, and its saturated pixels.

    Args:
        white: raw white frame.
        dark: dark level of every pixel.
        saturation: level at which the camera clips; None: found from the values.

    Raises:
        ShapeError: the frames differ in size.
        CalibrationError: the white frame is the dark frame, is saturated, or is too dark.
    """
    raw = check_frame("white", white, dark.shape)
    if np.ptp(dark) > 0 and np.array_equal(raw, dark):
        raise CalibrationError("white and dark are the same frame: give a frame of a homogeneous slide as white")
    level = find_saturation(white) if saturation is None else saturation
    clipped = np.zeros(raw.shape, bool) if level is None else raw >= level
    if clipped.mean() > SATURATED_WHITE:
        raise CalibrationError(
            f"white frame: {clipped.mean():.0%} of its pixels are saturated (at {level:g} or above): expected at most "
            f"{SATURATED_WHITE:.0%}; take it with less light"
        )
    bright = raw - dark
    below, peak = (float(level) for level in np.percentile(bright, [2, 98]))
    if not peak > max(0.0, -3 * below):  # a frame without light lies as far below the dark level as above it
        raise CalibrationError(
            f"white frame is too dark: its brightest pixels lie {peak:.3g} counts above the dark level, its darkest ones "
            f"{-below:.3g} counts below it; check that the lamp was on and that white and dark are not exchanged"
        )
    return bright, clipped


def trusted_pixels(white: Float[np.ndarray, "y x"], cell_pixels: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """Pixels of a rectified white frame on the brighter side of the half-way contour of the lenslets about them.

        white > (high + min(low, high / 5)) / 2

    with the local maximum and minimum high and low (`local_maximum`): half the maximum, measured from the level of the gaps
    between lenslets, which scattered light and a missing dark frame raise; arrays without gaps are trusted up to 0.6 of it.
    Lenslets with less than a twentieth of the light of the brightest ones lie outside the field of view.

    Args:
        white: rectified, dark level subtracted, bad pixels replaced.
        cell_pixels: pixels (y, x) of a lenslet, or of the cell of a hexagonal array.
    """
    high, low = local_maximum(white, cell_pixels), -local_maximum(-white, cell_pixels)
    half = (high + np.clip(low, 0, np.maximum(high, 0) / 5)) / 2
    return (white > half) & (high > LEAST_LIGHT * np.percentile(high, 95))


def trusted_in_pattern(white: Float[np.ndarray, "y x"], microscope: Microscope) -> Bool[np.ndarray, "y x"]:
    """`trusted_pixels`, for a multi-focal array of the lenslets at each place of the pattern by themselves.

    Their focal lengths make some lenslets dimmer than their neighbours, with as good pixels.

    Args:
        white: rectified, dark level subtracted.
        microscope: gives the cell and its pattern.
    """
    (high, wide), (rows, columns) = microscope.cell_pixels, microscope.units
    high, wide = high // rows, wide // columns
    places = white.reshape(-1, rows, high, white.shape[1] // (columns * wide), columns, wide)
    trusted = np.empty(places.shape, bool)
    for i, j in np.ndindex(rows, columns):
        alike = places[:, i, :, :, j, :]
        flat = alike.reshape(alike.shape[0] * high, alike.shape[2] * wide)
        trusted[:, i, :, :, j, :] = trusted_pixels(flat, (high, wide)).reshape(alike.shape)
    return trusted.reshape(white.shape)


def check_trust(mask: Bool[np.ndarray, "y x"], pupil: Bool[np.ndarray, "v u"], white: bool) -> None:
    """Refuse a calibration that trusts less than a fifth of the pixels, or half of what the pupil covers if that is less.

    Raises:
        CalibrationError: the message has the share and says what to check.
    """
    share, limit = float(mask.mean()), min(LEAST_TRUSTED, 0.5 * float(pupil.mean()))
    if share >= limit and mask.any():
        return
    check = (
        "check that the white frame belongs to this recording, fills the field and is not mostly hot pixels"
        if white
        else "check lenslet_focal_length_um, numerical_aperture and magnification, from which the pupil's image follows, or "
        "give a white frame"
    )
    raise CalibrationError(f"{share:.2%} of the pixels are trusted: expected {limit:.0%} or more; {check}")


def require_trusted(mask: Bool[np.ndarray, "y x"], reason: str) -> None:
    """Refuse a recording of which less than a fifth of the pixels is left to trust.

    Args:
        mask: trusted pixels.
        reason: why others are not trusted, and the way out.

    Raises:
        CalibrationError: the message has the share and the reason.
    """
    share = float(mask.mean())
    if share < LEAST_TRUSTED:
        raise CalibrationError(f"{share:.2%} of the pixels are trusted: expected {LEAST_TRUSTED:.0%} or more; {reason}")


def measured_pitches(lattice: Lattice) -> tuple[float, float]:
    """Distances (y, x) between lenslets in raw pixels; the same twice if the pixels are square."""
    high, wide = lattice.cell_px
    return (high / math.sqrt(3) if lattice.kind == "hexagonal" else high), wide


def check_pitch(microscope: Microscope, lattice: Lattice, pitch_px: float | None) -> None:
    """Compare the measured pitch with the stated one, of `pitch_px` or of `camera_pixel_um`, or else with N.

    Raises:
        CalibrationError: it differs from the stated one by more than 5 %, or, of a multi-focal array, from N by more than 25 %.

    Warns:
        CalibrationWarning: it differs from the stated one by more than 0.5 %, or, if none is stated, from N by more than 25 %.
    """
    found = measured_pitches(lattice)
    same = abs(found[0] / found[1] - 1) < 1e-6
    measured = f"{found[1]:.3f} px" if same else f"{found[0]:.3f} px along y and {found[1]:.3f} px along x"
    stated = microscope.raw_pitch_px if pitch_px is None else pitch_px
    n = microscope.pixels_per_lenslet
    if stated is None:
        if microscope.pattern is not None and _off(found, n) > SAMPLING_TOLERANCE:
            raise CalibrationError(
                f"measured lenslet pitch {measured}, the parameters say pixels_per_lenslet = {n}: it may be that of the "
                "pattern of focal lengths; expected camera_pixel_um or pitch_px (--pitch), if lenslets have other than N pixels"
            )
        if _off(found, n) > SAMPLING_TOLERANCE:
            warnings.warn(
                f"measured lenslet pitch {measured}, the parameters say pixels_per_lenslet = {n} and no camera_pixel_um; the "
                f"measured pitch is used, and frames are resampled to {n} pixels per lenslet: check that this is the right "
                f"microscope; pixels_per_lenslet = {round(found[1])} keeps the camera's sampling, and camera_pixel_um = "
                f"{_fitting(microscope, found):.4g} states the pitch",
                CalibrationWarning,
                stacklevel=3,
            )
        return
    off = _off(found, stated)
    if off <= PITCH_TOLERANCE:
        return
    if pitch_px is None:
        source = "lenslet_pitch_um / camera_pixel_um"
        fits = f"camera_pixel_um = {_fitting(microscope, found):.4g} would fit"
        way_out = f"{fits}, or state the pitch: pitch_px = {found[1]:.3f} (--pitch {found[1]:.3f})"
    else:
        source, fits = "pitch_px (--pitch)", f"pitch_px = {found[1]:.3f} would fit"
        way_out = f"{fits}; check that the frames are of this microscope"
    text = f"measured lenslet pitch {measured}, the parameters say {stated:.3f} px ({source})"
    if off > PITCH_LIMIT:
        raise CalibrationError(f"{text}: expected a difference of at most {PITCH_LIMIT:.0%}, found {off:.1%}; {way_out}")
    warnings.warn(f"{text}; the measured pitch is used; {fits}", CalibrationWarning, stacklevel=3)


def _off(found: tuple[float, float], stated: float) -> float:
    return max(abs(pitch / stated - 1) for pitch in found)


def _fitting(microscope: Microscope, found: tuple[float, float]) -> float:
    """Size of a raw pixel on the array with which the measured pitch is the stated one."""
    return float(microscope.lenslet_pitch_um) / math.sqrt(found[0] * found[1])


def warn_saturation(frame: NDArray[np.float32], level: float | None) -> None:
    """Warn of a frame in which more than one pixel in a hundred is saturated."""
    share = 0.0 if level is None else float(np.mean(frame >= level))
    if share > SATURATED_FRAME:
        warnings.warn(
            f"frame: {share:.1%} of the pixels are saturated (at {level:g} or above); they tell too little light and have to "
            "be masked (`Rectifier.saturated`)",
            CalibrationWarning,
            stacklevel=3,
        )
