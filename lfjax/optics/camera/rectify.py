"""Rectification: raw camera frames to light fields with N whole pixels per lenslet, corrected by dark and white frames."""

from __future__ import annotations

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real
from numpy.typing import ArrayLike

from lfjax.errors import CalibrationError, CalibrationWarning, require, require_shape
from lfjax.optics.camera.lattice import Lattice, find_lattice
from lfjax.optics.camera.resample import Resample
from lfjax.optics.microscope import Microscope
from lfjax.optics.psf.images import PSF

PITCH_TOLERANCE = 0.005  # relative difference between measured and stated pitch above which a warning is given


class Rectifier(eqx.Module):
    """Correction made once from calibration frames and applied to every frame of a recording; pure, so jit and vmap it.

    Attributes:
        resample: operator from raw frame to light field with N pixels per lenslet.
        dark: raw dark frame, subtracted first.
        white: rectified white frame, dark subtracted. None: none was given.
        mask: valid pixels: those where the white frame exceeds half its maximum or, without a white frame, those inside the
            geometric image of the pupil behind each lenslet.
        lattice: measured lattice of the lenslets in the raw frame.
        field: lenslets (Y, X) that lie wholly inside the frame.
        microscope: parameters of the microscope.
    """

    resample: Resample
    dark: Float[Array, "row column"]
    white: Float[Array, "y x"] | None
    mask: Bool[Array, "y x"]
    lattice: Lattice = eqx.field(static=True)
    field: tuple[int, int] = eqx.field(static=True)
    microscope: Microscope

    @classmethod
    def calibrate(
        cls,
        microscope: Microscope,
        frame: ArrayLike,
        *,
        white: ArrayLike | None = None,
        dark: ArrayLike | float | None = None,
    ) -> Rectifier:
        """Measure the lattice of the lenslets and prepare the correction.

        Args:
            microscope: gives N and, if `camera_pixel_um` is known, the expected raw pitch (else N pixels).
            frame: raw light field (y, x); without a white frame the lattice is measured in it.
            white: raw frame of a homogeneous fluorescent slide, of any exposure; None: no white frame.
            dark: raw frame without light, or one number; None: 0.

        Raises:
            ShapeError: the frames differ in size.
            CalibrationError: the frame shows no lattice, or holds no whole lenslet.

        Warns:
            CalibrationWarning: the measured pitch differs from the stated one by more than 0.5 %; the measured one is used.
        """
        raw = np.asarray(frame, np.float32)
        require_shape("frame", raw.shape, ("y", "x"))
        level = np.asarray(0.0 if dark is None else dark, np.float32)
        if level.ndim:
            require_shape("dark", level.shape, raw.shape)
        level = np.broadcast_to(level, raw.shape)
        bright = raw - level
        if white is not None:
            bright = np.asarray(white, np.float32)
            require_shape("white", bright.shape, raw.shape)
            bright = bright - level
        stated = microscope.raw_pitch_px
        require(microscope.lenslet_lattice == "square", "lenslet_lattice", microscope.lenslet_lattice, "square lenslets")
        lattice = find_lattice(bright, stated or microscope.pixels_per_lenslet)
        if stated and abs(lattice.pitch_px / stated - 1) > PITCH_TOLERANCE:
            warnings.warn(
                f"measured lenslet pitch {lattice.pitch_px:.3f} px, the parameters say {stated:.3f} px "
                f"(lenslet_pitch_um / camera_pixel_um); the measured pitch is used",
                CalibrationWarning,
                stacklevel=2,
            )
        positions, field = lenslet_pixels(lattice, raw.shape, microscope.pixels_per_lenslet)
        resample = Resample(raw.shape, positions)
        if white is None:
            flat, mask = None, jnp.asarray(np.tile(pupil_mask(microscope), field))
        else:
            flat = _resampled(resample, jnp.asarray(bright))
            values = np.asarray(flat)
            mask = jnp.asarray(values > 0.5 * values.max())
        return cls(resample, jnp.asarray(level), flat, mask, lattice, field, microscope)

    def __call__(self, frame: Real[ArrayLike, "i j"]) -> Float[Array, "row col"]:
        """Light field of a raw frame: (pitch / N)^2 Resample(frame - dark), in counts, of shape field * N."""
        require_shape("frame", np.shape(frame), self.resample.in_shape)
        area = (self.lattice.pitch_px / self.microscope.pixels_per_lenslet) ** 2
        raw = frame.astype(jnp.float32) if isinstance(frame, jax.Array) else jnp.asarray(np.asarray(frame, np.float32))
        return area * _resampled(self.resample, raw - self.dark)

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

    def saturated(self, frame: ArrayLike, level: float) -> Bool[np.ndarray, "row col"]:
        """Mask of the light-field pixels to which a raw pixel at or above `level` contributes."""
        clipped = jnp.asarray((np.asarray(frame) >= level).astype(np.float32))
        return np.abs(np.asarray(_resampled(self.resample, clipped))) > 1e-3


@eqx.filter_jit
def _resampled(resample: Resample, image: Float[Array, "i j"]) -> Float[Array, "row col"]:
    """Resample an image; frame, white frame and saturated pixels share this one program."""
    return resample(image)


def lenslet_pixels(lattice: Lattice, shape: tuple[int, ...], n: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Raw positions (Y n, X n, 2) of the light field's pixels, for the largest block of lenslets wholly inside the frame.

    Returns:
        The positions, and the lenslets (Y, X) of the block.

    Raises:
        CalibrationError: no lenslet lies wholly inside.
    """
    reach = math.ceil(math.hypot(*shape) / lattice.pitch_px)
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
    y = top - 0.5 + (np.arange(rows * n) + 0.5) / n
    x = left - 0.5 + (np.arange(columns * n) + 0.5) / n
    return lattice.to_raw(np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1)), (rows, columns)


def white_tile(psf: PSF) -> Float[Array, "v u"]:
    """Image by H of a uniform volume behind one lenslet, far from the borders, of maximum 1."""
    n, k = psf.microscope.pixels_per_lenslet, psf.lenslets
    tile = psf.values.sum((0, 1, 2)).reshape(k, n, k, n).sum((0, 2))
    return tile / tile.max()


def pupil_mask(microscope: Microscope) -> Bool[np.ndarray, "v u"]:
    """Mask of a lenslet's pixels within 0.9 of the radius of the pupil's image, f_ml NA / M (at most half a pitch)."""
    n = microscope.pixels_per_lenslet
    radius = microscope.lenslet_focal_length_um * microscope.numerical_aperture / microscope.magnification
    x = (np.arange(n) - (n - 1) / 2) / n
    limit = 0.9 * min(0.5, float(radius) / float(microscope.lenslet_pitch_um))
    return np.hypot(x[:, None], x[None, :]) <= limit
