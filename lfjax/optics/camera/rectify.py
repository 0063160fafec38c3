"""Rectification: raw camera frames to light fields with N whole pixels per lenslet, corrected by dark and white frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real
from numpy.typing import ArrayLike

from lfjax.errors import CalibrationError, ParameterError, require, require_shape
from lfjax.linop import Identity
from lfjax.optics.camera.lattice import find_lattice
from lfjax.optics.camera.lattice_cells import Lattice
from lfjax.optics.camera.pixels import Repair, check_frame, equal_lenslets, find_saturation, hot_pixels
from lfjax.optics.camera.resample import Resample
from lfjax.optics.camera.trust import check_level, check_pitch, check_trust, check_white, trusted_in_pattern, warn_saturation
from lfjax.optics.microscope import Microscope
from lfjax.optics.psf.images import PSF

TOUCHED = 0.1  # weight of bad raw pixels in a rectified one from which on it is not trusted


class Rectifier(eqx.Module):
    """Correction made once from calibration frames and applied to every frame of a recording; pure, so jit and vmap it.

    "A lenslet" of a hexagonal or multi-focal array means its cell, see `Microscope`.

    Attributes:
        resample: operator from raw frame to light field with N pixels per lenslet; the identity for rectified frames.
        dark: raw dark frame, subtracted first.
        background: light of the empty field, dark subtracted, which is subtracted next; None: none.
        repair: replaces hot, dead and unusable raw pixels before resampling.
        white: rectified white frame, dark subtracted, bad pixels replaced. None: none was given.
        mask: trusted pixels: those where the white frame exceeds half its local maximum (`trusted_pixels`) or, without a white
            frame, those inside the geometric image of the pupil behind each lenslet; less those to which a bad raw pixel
            contributes.
        lattice: lattice of the lenslets in the raw frame; in a multi-focal array its origin is a lenslet [0][0].
        field: lenslets (Y, X) that lie wholly inside the frame.
        saturation: raw value at and above which a pixel is saturated; None: unknown, or none is.
        microscope: parameters of the microscope.
    """

    resample: Resample | Identity
    dark: Float[Array, "row column"]
    background: Float[Array, "row column"] | None
    repair: Repair
    white: Float[Array, "y x"] | None
    mask: Bool[Array, "y x"]
    lattice: Lattice = eqx.field(static=True)
    field: tuple[int, int] = eqx.field(static=True)
    saturation: float | None = eqx.field(static=True)
    microscope: Microscope

    @classmethod
    def calibrate(
        cls,
        microscope: Microscope,
        frame: ArrayLike,
        *,
        white: ArrayLike | None = None,
        dark: ArrayLike | float | None = None,
        background: ArrayLike | float | None = None,
        pitch_px: float | None = None,
        rotation_rad: float | None = None,
        offset_px: Sequence[float] | None = None,
        saturation: float | None = None,
    ) -> Rectifier:
        """Measure the lattice of the lenslets, find unusable pixels, and prepare the correction.

        Args:
            microscope: gives N and, if `camera_pixel_um` is known, the expected raw pitch (else N pixels).
            frame: raw light field (y, x), of a movie best the mean; without a white frame the lattice is measured in it.
            white: raw frame of a homogeneous fluorescent slide, of any exposure; None: no white frame.
            dark: raw frame without light, or one number; None: 0.
            background: raw frame of the empty field, dark level included, or counts above the dark level; it is subtracted from
                frames, not from the white frame. None: 0.
            pitch_px: raw pixels per lenslet, in place of that of the microscope; without a white frame it is kept as given.
            rotation_rad: rotation of the lattice, see `Lattice`; None: measured.
            offset_px: (y, x) of the centre of any lenslet; None: measured. A multi-focal array needs it, of a lenslet
                [0][0]: a white frame does not tell the focal lengths apart.
            saturation: raw value at and above which a pixel is saturated; None: found by `find_saturation`.

        Raises:
            ShapeError: the frames differ in size.
            ParameterError: a frame is complex, coloured, or not finite, a number is out of range, or a multi-focal array has no
                `offset_px`.
            CalibrationError: the frame shows no lattice, one whose pitch differs from the stated one by more than 5 %, or no
                whole lenslet; the white frame is too dark, saturated, or the dark frame; or fewer than a fifth of the pixels
                are trusted.

        Warns:
            CalibrationWarning: the measured pitch differs from the stated one by more than 0.5 %, or from N, where none is
                stated, by more than 25 %; the measured one is used. Or more than 1 % of the frame is saturated.
        """
        _require_first(microscope, offset_px)
        raw = check_frame("frame", frame)
        level = check_level("dark", dark, raw.shape)
        empty = _background(background, level)
        expected = microscope.raw_pitch_px or float(microscope.pixels_per_lenslet)
        if pitch_px is not None:
            require(math.isfinite(pitch_px) and pitch_px > 1, "pitch_px", pitch_px, "a number above 1")
            expected = float(pitch_px)
        bright = raw - level
        bad = hot_pixels(bright, expected, spot_px=_spot_px(microscope, expected))
        if np.ptp(level) > 0:
            bad |= hot_pixels(level, expected)
        if white is not None:
            bright, clipped = check_white(white, level, saturation)
            bad |= hot_pixels(bright, expected) | clipped
        repair = Repair(bad)
        bright = repair.in_numpy(bright)
        seen = bright
        if microscope.pattern is not None and white is not None:
            seen = equal_lenslets(bright, expected, (len(microscope.pattern), len(microscope.pattern[0])))
        lattice = find_lattice(
            seen,
            expected,
            kind=microscope.lenslet_lattice,
            rotation_rad=rotation_rad,
            offset_px=offset_px,
            white=white is not None,
            hold_pitch=pitch_px is not None and white is None,
        )
        check_pitch(microscope, lattice, pitch_px)
        if microscope.pattern is not None and offset_px is not None:
            lattice = lattice.starting(offset_px, microscope.units)
        positions, field = lenslet_pixels(lattice.grouped(microscope.units), raw.shape, microscope.cell_pixels)
        found = find_saturation(frame) if saturation is None else _level(saturation)
        warn_saturation(raw, found)
        resample = Resample((raw.shape[0], raw.shape[1]), positions)
        return _assembled(
            microscope, resample, lattice, field, level, empty, repair, bright if white is not None else None, found
        )

    @classmethod
    def aligned(
        cls,
        microscope: Microscope,
        shape: tuple[int, ...],
        *,
        white: ArrayLike | None = None,
        dark: ArrayLike | float | None = None,
        background: ArrayLike | float | None = None,
        saturation: float | None = None,
    ) -> Rectifier:
        """The correction of frames that are rectified already: N whole pixels per lenslet, no rotation, whole lenslets.

        Args:
            microscope: gives N and the pupil, whose image is the mask where no white frame is given.
            shape: (y, x) of the frames, which of a multi-focal array begin with the lenslet [0][0].
            white, dark, background, saturation: see `calibrate`; rectified frames too.

        Raises:
            ParameterError: the frames do not hold a whole number of lenslets.
            LfjaxError: see `calibrate`.
        """
        rows, columns = microscope.cell_pixels
        require_shape("frame", shape, ("y", "x"))
        if shape[0] % rows or shape[1] % columns or min(shape) < 1:
            raise ParameterError(
                f"frames of {tuple(shape)}: expected whole lenslets of {rows} x {columns} pixels in rectified frames"
            )
        field = (shape[0] // rows, shape[1] // columns)
        level = check_level("dark", dark, shape)
        bad = hot_pixels(level, columns) if np.ptp(level) > 0 else np.zeros(shape, bool)
        bright = None
        if white is not None:
            bright, clipped = check_white(white, level, saturation)
            bad |= hot_pixels(bright, columns) | clipped
        repair = Repair(bad)
        if bright is not None:
            bright = repair.in_numpy(bright)
        empty = _background(background, level)
        lattice = aligned_lattice(microscope, field)
        found = None if saturation is None else _level(saturation)
        return _assembled(microscope, Identity((shape[0], shape[1])), lattice, field, level, empty, repair, bright, found)

    @property
    def trusted(self) -> float:
        """Fraction of the pixels of the light field that are trusted."""
        return float(self.mask.mean())

    @property
    def bad(self) -> Bool[np.ndarray, "row column"]:
        """Raw pixels that are replaced: hot, dead, or saturated in the white frame."""
        mask = np.zeros(self.dark.shape, bool)
        mask[tuple(np.asarray(self.repair.places).T)] = True
        return mask

    def __call__(self, frame: Real[ArrayLike, "i j"]) -> Float[Array, "row col"]:
        """Light field of a raw frame: (area of a raw lenslet / N^2) Resample(frame - dark - background), in counts.

        Bad pixels are replaced before resampling. The shape is field * N.

        Raises:
            ShapeError: the frame has another size than the calibration.
        """
        require_shape("frame", np.shape(frame), self.dark.shape)
        cell_px = self.lattice.grouped(self.microscope.units).cell_px
        area = math.prod(cell_px) / math.prod(self.microscope.cell_pixels)
        raw = frame.astype(jnp.float32) if isinstance(frame, jax.Array) else jnp.asarray(np.asarray(frame, np.float32))
        return _light_field(self.resample, self.repair, raw, self.dark, self.background, area)

    @eqx.filter_jit
    def gain(self, psf: PSF) -> Float[Array, "y x"]:
        """Relative sensitivity of each pixel: white frame / H(uniform), of mean 1 in the mask; 1 without a white frame.

        Both H and the microscope image a uniform object as a disc in each lenslet. Division by the white frame alone would
        remove the disc from the data but not from H, so the data are divided by the ratio of the two.
        """
        if self.white is None:
            return jnp.ones(self.mask.shape)
        ratio = self.white / jnp.maximum(jnp.tile(white_tile(psf), self.field), 1e-6)
        return ratio / jnp.mean(ratio, where=self.mask)

    @eqx.filter_jit
    def flatten(self, image: Float[Array, "y x"], psf: PSF) -> Float[Array, "y x"]:
        """Light field divided by `gain`, clipped at zero, and 0 outside the mask: the data to which H x is fitted."""
        return jnp.where(self.mask, jnp.maximum(image / jnp.maximum(self.gain(psf), 1e-6), 0), 0)

    def saturated(self, frame: ArrayLike, level: float | None = None) -> Bool[np.ndarray, "row col"]:
        """Mask of the light-field pixels to which a saturated raw pixel contributes.

        Args:
            frame: raw frame.
            level: raw value at and above which a pixel is saturated; None: that of the rectifier, or else of `find_saturation`.
        """
        require_shape("frame", np.shape(frame), self.dark.shape)
        top = self.saturation if level is None else level
        top = find_saturation(frame) if top is None else top
        if top is None:
            return np.zeros(self.mask.shape, bool)
        clipped = jnp.asarray((np.asarray(frame) >= top).astype(np.float32))
        return np.abs(np.asarray(_resampled(self.resample, clipped))) > 1e-3


def _assembled(
    microscope: Microscope,
    resample: Resample | Identity,
    lattice: Lattice,
    field: tuple[int, int],
    dark: Float[np.ndarray, "row column"],
    background: Float[np.ndarray, "row column"] | None,
    repair: Repair,
    white: Float[np.ndarray, "row column"] | None,
    saturation: float | None,
) -> Rectifier:
    """The rectifier, its mask made from the repaired raw white frame or from the pupil."""
    pupil = pupil_mask(microscope)
    if white is None:
        flat, mask = None, np.tile(pupil, field)
    else:
        flat = _resampled(resample, jnp.asarray(white))
        mask = trusted_in_pattern(np.asarray(flat), microscope)
    bad = np.zeros(dark.shape, np.float32)
    bad[tuple(np.asarray(repair.places).T)] = 1
    mask = mask & (np.abs(np.asarray(_resampled(resample, jnp.asarray(bad)))) <= TOUCHED)
    check_trust(mask, pupil, white is not None)
    empty = None if background is None else jnp.asarray(background)
    return Rectifier(
        resample, jnp.asarray(dark), empty, repair, flat, jnp.asarray(mask), lattice, field, saturation, microscope
    )


def _require_first(microscope: Microscope, offset_px: Sequence[float] | None) -> None:
    """Ask for the place of a lenslet [0][0] of a multi-focal array."""
    needed = microscope.pattern is None or offset_px is not None
    reason = "(y, x) of a lenslet of focal length [0][0]: lenslets of all focal lengths look alike in a white frame"
    require(needed, "offset_px", offset_px, f"{reason}; or say that the frames are rectified, beginning with this lenslet")


def _level(saturation: float) -> float:
    require(math.isfinite(saturation) and saturation > 0, "saturation", saturation, "a positive number of counts, or None")
    return float(saturation)


def _background(given: ArrayLike | float | None, dark: Float[np.ndarray, "row col"]) -> Float[np.ndarray, "row col"] | None:
    """Counts above the dark level: a frame contains that level, a number does not."""
    if given is None:
        return None
    light = check_level("background", given, dark.shape)
    return light - dark if np.ndim(given) else light


def _spot_px(microscope: Microscope, pitch_px: float) -> float:
    """Width lambda f_ml / (pitch pixel) of the narrowest spot that a lenslet makes, in raw pixels."""
    spot_um = float(microscope.wavelength_um) * microscope.sensor_distance_um / float(microscope.lenslet_pitch_um)
    return spot_um * pitch_px / float(microscope.lenslet_pitch_um)


@eqx.filter_jit
def _light_field(
    resample: Resample | Identity,
    repair: Repair,
    raw: Float[Array, "i j"],
    dark: Float[Array, "i j"],
    background: Float[Array, "i j"] | None,
    area: float,
) -> Float[Array, "row col"]:
    """See `Rectifier.__call__`."""
    light = raw - dark if background is None else raw - dark - background
    return area * resample(repair(light))


@eqx.filter_jit
def _resampled(resample: Resample | Identity, image: Float[Array, "i j"]) -> Float[Array, "row col"]:
    """Resample an image; white frame, bad and saturated pixels share this one program."""
    return resample(image)


def lenslet_pixels(
    lattice: Lattice, shape: tuple[int, ...], cell_pixels: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Raw positions (Y N_y, X N_x, 2) of the light field's pixels, for the largest block of lenslets wholly inside the frame.

    Returns:
        The positions, and the lenslets (Y, X) of the block.

    Raises:
        CalibrationError: no lenslet lies wholly inside.
    """
    reach = math.ceil(math.hypot(*shape) / min(lattice.cell_px))
    top, bottom, left, right = -reach, reach, -reach, reach
    while top <= bottom and left <= right:  # remove the side that sticks out most, until none does
        corners = lattice.to_raw([[(y, x) for x in (left - 0.5, right + 0.5)] for y in (top - 0.5, bottom + 0.5)])
        excess = {
            "top": -0.5 - corners[0, :, 0].min(),
            "bottom": corners[1, :, 0].max() - (shape[0] - 0.5),
            "left": -0.5 - corners[:, 0, 1].min(),
            "right": corners[:, 1, 1].max() - (shape[1] - 0.5),
        }
        worst = max(excess, key=excess.__getitem__)
        if excess[worst] <= 0:
            break
        top, left = top + (worst == "top"), left + (worst == "left")
        bottom, right = bottom - (worst == "bottom"), right - (worst == "right")
    else:
        raise CalibrationError(f"frame of shape {shape} holds no whole lenslet of {lattice.pitch_px:.2f} px")
    rows, columns = bottom - top + 1, right - left + 1
    high, wide = cell_pixels
    y = top - 0.5 + (np.arange(rows * high) + 0.5) / high
    x = left - 0.5 + (np.arange(columns * wide) + 0.5) / wide
    return lattice.to_raw(np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)), (rows, columns)


def aligned_lattice(microscope: Microscope, field: tuple[int, int]) -> Lattice:
    """Lattice of rectified frames that hold `field` lenslets."""
    sizes = zip(field, microscope.cell_pixels, microscope.units, strict=True)
    y, x = ((cells - 1) // 2 * n + (n // units - 1) / 2 for cells, n, units in sizes)
    cell = [size // count for size, count in zip(microscope.cell_pixels, microscope.units, strict=True)]
    if microscope.lenslet_lattice == "square":
        return Lattice(float(cell[1]), 0.0, y, x)
    return Lattice(float(cell[1]), 0.0, y, x, pitch_y_px=float(cell[0]), kind=microscope.lenslet_lattice)


def white_tile(psf: PSF) -> Float[Array, "v u"]:
    """Image by H of a uniform volume behind one lenslet, far from the borders, of maximum 1."""
    (high, wide), k = psf.microscope.cell_pixels, psf.lenslets
    tile = psf.values.sum((0, 1, 2)).reshape(k, high, k, wide).sum((0, 2))
    return tile / tile.max()


def pupil_mask(microscope: Microscope) -> Bool[np.ndarray, "v u"]:
    """Mask of a lenslet's pixels within 0.9 of the radius of the pupil's image, b NA / M (at most half a pitch).

    b is the distance from array to sensor. In the cell of a hexagonal or multi-focal array the distance to the nearest centre
    counts. Focal lengths do not: the chief rays from the rim of the pupil pass the lenslets' centres unbent.
    """
    radius = microscope.sensor_distance_um * float(microscope.numerical_aperture) / float(microscope.magnification)
    pitch = float(microscope.lenslet_pitch_um)
    counts = microscope.units
    size = [float(side) / pitch / count for side, count in zip(microscope.cell_um, counts, strict=True)]
    pixels = [n // count for n, count in zip(microscope.cell_pixels, counts, strict=True)]
    y, x = ((np.arange(n) - (n - 1) / 2) / n * side for n, side in zip(pixels, size, strict=True))
    distance = np.hypot(y[:, None], x[None, :])
    if microscope.lenslet_lattice == "hexagonal":
        distance = np.minimum(distance, np.hypot(size[0] / 2 - abs(y)[:, None], size[1] / 2 - abs(x)[None, :]))
    return np.tile(distance <= 0.9 * min(0.5, radius / pitch), counts)
