"""Find the lenslet lattice of a raw camera frame: pitch, rotation and offset."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lfjax.errors import CalibrationError, require, require_shape
from lfjax.optics.camera.lattice_cells import KINDS, Lattice as Lattice
from lfjax.optics.camera.lattice_fit import fit_cells, windowed
from lfjax.optics.camera.lattice_holes import distance_px
from lfjax.optics.camera.lattice_sample import named, near_rotation, sample_lattice, sample_lattice_of_pitch
from lfjax.optics.camera.lattice_search import PEAK_TO_BACKGROUND, RANGE, Basis, find_bases, find_peaks

LEAST_SHARE = 0.5  # share of the peaks' power that a lattice must explain


def find_lattice(
    frame: ArrayLike,
    pitch_px: float,
    *,
    kind: str = "square",
    rotation_rad: float | None = None,
    offset_px: Sequence[float] | None = None,
    white: bool = True,
    hold_pitch: bool = False,
) -> Lattice:
    """Measure the lattice in a white frame, or in a light field of a sample.

    1. Peaks of the windowed frame's spectrum give candidates; the coarsest reciprocal lattice that explains them is the true
       one among p, p / 2, 2 p, p / sqrt(2) and sqrt(2) p. It also shows whether the array is square or hexagonal.
    2. Newton's method maximises the power sum_h |F(g_h)|^2 at the low harmonics g_h over the reciprocal vectors, or over pitch
       and rotation if both pitches agree within the error, which is about pitch^2 / (100 field).
    3. The phases of the first harmonics give the offset.

    In a light field of a sample, lenslets show the sample too, and points out of focus have another period. There, steps 1 and
    2 see only what is darker than its neighbourhood, and the holes between the pupils must lie on the lattice found in every
    part of the frame in which holes are seen; otherwise the frame is refused. A frame that is seen to be rectified already
    (`is_rectified`), where `pitch_px` is a whole number, has exactly this pitch.

    Args:
        frame: raw frame (y, x), with or without its dark level.
        pitch_px: expected pitch in raw pixels, right to a factor of 3.
        kind: "square" or "hexagonal".
        rotation_rad: rotation of the lattice, if known (see `Lattice`); it is then kept.
        offset_px: (y, x) of the centre of any lenslet, if known; it is then kept.
        white: the frame is a white frame; False: it shows a sample.
        hold_pitch: `pitch_px` is known and is kept; rotation and offset are measured unless they are given as well.

    Raises:
        ParameterError: the pitch is not a positive number, or the kind is unknown.
        CalibrationError: the frame holds NaN, is smaller than six lenslets, shows no lattice, one of the other kind or one that
            contradicts what is given, or, without a white frame, does not suffice to find it.
    """
    require(math.isfinite(pitch_px) and pitch_px > 1, "pitch_px", pitch_px, "a number above 1")
    require(kind in KINDS, "kind", kind, " or ".join(KINDS))
    image = np.asarray(frame, np.float32)
    require_shape("frame", image.shape, ("y", "x"))
    if not np.isfinite(image).all():
        bad = np.count_nonzero(~np.isfinite(image))
        raise CalibrationError(f"frame has {bad} pixels that are NaN or infinite: expected finite values; replace them")
    if min(image.shape) < 6 * pitch_px:
        raise CalibrationError(f"frame has shape {image.shape}: expected six lenslets of {pitch_px:.2f} px or more per side")
    middle = (np.array(image.shape) - 1) / 2
    if hold_pitch and rotation_rad is not None and offset_px is not None:
        return Lattice(pitch_px, rotation_rad, *_place(offset_px), kind=kind).moved(middle)
    if white:
        found = _in_white(image, pitch_px, kind, rotation_rad)
    elif hold_pitch:
        found = sample_lattice_of_pitch(image, pitch_px, kind, rotation_rad)
    else:
        found = sample_lattice(image, pitch_px, kind, rotation_rad)
    if white and hold_pitch:
        found = found._replace(pitch_px=pitch_px, pitch_y_px=None)
    if offset_px is None:
        return found
    miss = distance_px(found, found.to_lattice(_place(offset_px)))
    if miss > max(1.0, 0.1 * found.pitch_px):
        raise CalibrationError(
            f"offset_px = {_place(offset_px)}: the frame shows lenslets {miss:.1f} px from there, the nearest to the middle at "
            f"({found.origin_y_px:.2f}, {found.origin_x_px:.2f}); state the centre of a lenslet (y, x), or leave it out"
        )
    y, x = _place(offset_px)
    return found._replace(origin_y_px=y, origin_x_px=x).moved(middle)


def _place(offset_px: Sequence[float]) -> tuple[float, float]:
    require_shape("offset_px", np.shape(offset_px), (2,))
    return float(offset_px[0]), float(offset_px[1])


def _in_white(image: NDArray[np.float32], pitch_px: float, kind: str, rotation_rad: float | None) -> Lattice:
    """The lattice of a white frame."""
    low, high = np.quantile(image.ravel()[:: max(1, image.size // 200_000)], [0.01, 0.99])
    bright = np.minimum(image, np.float32(low + 1.5 * (high - low)))  # hot pixels
    signal = windowed(bright if high > low else np.zeros_like(bright))  # the spectrum of rounding errors has peaks
    spectrum = find_peaks(signal, pitch_px)
    bases = find_bases(spectrum, pitch_px)
    if not bases or bases[0].share < LEAST_SHARE:
        seen = f"the strongest peak of the spectrum is {spectrum.contrast:.1f} times the background, expected "
        raise CalibrationError(
            f"no lenslet lattice of {pitch_px / RANGE:.1f} to {pitch_px * RANGE:.1f} px (expected {pitch_px:.2f} px): {seen}"
            + f"{PEAK_TO_BACKGROUND:.0f} or more"
            + (f"; candidates: {named(bases)}" if bases else "")
        )
    _require_kind(bases[0], kind, bases)
    found = fit_cells(signal, bases[0].start())
    if rotation_rad is None:
        return found
    return fit_cells(signal, near_rotation(found, rotation_rad, max(image.shape) / 2), rotation_rad)


def _require_kind(basis: Basis, kind: str, bases: list[Basis]) -> None:
    """Refuse a lattice of another kind than stated."""
    if basis.kind == kind:
        return
    if basis.kind is None:
        raise CalibrationError(f"the frame shows a lattice that is neither square nor hexagonal; candidates: {named(bases)}")
    raise CalibrationError(
        f"kind = {kind!r}: the frame looks {basis.kind}; say lenslet_lattice = {basis.kind!r}; candidates: {named(bases)}"
    )
