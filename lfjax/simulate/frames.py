"""Raw camera frames of a light-field microscope: a rectified light field on a tilted, noisy sensor."""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Integer

from lfjax.errors import ShapeError, require, require_shape
from lfjax.io.limits import require_memory
from lfjax.noise import Camera
from lfjax.optics.camera.lattice import Lattice
from lfjax.optics.camera.resample import Resample

BYTES_PER_PIXEL = 128
"""Bytes per raw pixel of the positions and weights from which a frame is resampled."""


class RawFrames(NamedTuple):
    """Frames of a camera in digital numbers, with the true lattice of its lenslets.

    Attributes:
        light_field: raw frame of the sample, (row, column).
        white: raw frame under uniform light.
        dark: raw frame without light.
        lattice: the lattice of the lenslets.
    """

    light_field: Integer[Array, "row col"]
    white: Integer[Array, "row col"]
    dark: Integer[Array, "row col"]
    lattice: Lattice


def raw_frames(
    key: Array,
    light_field: Float[ArrayLike, "y x"],
    white_tile: Float[ArrayLike, "v u"],
    *,
    pitch_px: float,
    rotation_rad: float = 0.0,
    camera: Camera | None = None,
    photons: float = 1000.0,
    white_photons: float = 20000.0,
    vignetting: float = 0.3,
    border_px: int = 4,
) -> RawFrames:
    """Light field, white and dark frames as a camera behind tilted lenslets of any pitch would take them.

        photons(p) = (N / pitch)^2 V(p) light_field(rectified position of p)

    Resampling is cubic and preserves the light of a rectified pixel as raw pixels grow or shrink. V is the vignetting, 1 at the
    centre. The frame is the smallest that holds all lenslets and a border; the lenslets of the edge repeat into the border.

    Args:
        key: random key of the noise.
        light_field: rectified light field (Y N, X N), in any unit.
        white_tile: model image (N, N) of one lenslet under uniform light, in any unit.
        pitch_px: raw pixels per lenslet.
        rotation_rad: rotation of the lenslets, between -pi/4 and pi/4, see `optics.Lattice`.
        camera: camera that adds noise; None: `Camera()`.
        photons: expected photons in the brightest pixel of `light_field`, before vignetting.
        white_photons: the same for the white frame.
        vignetting: fraction of the light lost in the corners of the frame.
        border_px: pixels around the lenslets.

    Raises:
        ShapeError: `white_tile` is not square, or `light_field` is not a whole number of such tiles.
        ParameterError: a number is out of range.
    """
    require(photons > 0, "photons", photons, "a positive number")
    require(white_photons > 0, "white_photons", white_photons, "a positive number")
    camera = Camera() if camera is None else camera
    n, side = jnp.shape(white_tile)[0], jnp.shape(light_field)
    require_shape("white_tile", jnp.shape(white_tile), (n, n))
    require_shape("light_field", side, ("y", "x"))
    if side[0] % n or side[1] % n:
        raise ShapeError(f"light_field has shape {side}: expected multiples of N = {n}, as in white_tile")
    sensor = Sensor.of((side[0] // n, side[1] // n), n, pitch_px, rotation_rad, vignetting, border_px)
    sample_key, white_key, dark_key = jax.random.split(key, 3)
    sample = _exposed(sensor, jnp.asarray(light_field), jnp.asarray(photons, float))
    white, dark = sensor.calibration_frames(white_key, dark_key, white_tile, white_photons, camera)
    return RawFrames(camera.expose(sample_key, sample), white, dark, sensor.lattice)


class Sensor(eqx.Module):
    """The linear part of a camera behind tilted lenslets: rectified light field (Y N, X N) -> light on raw pixels.

        raw(p) = (N / pitch)^2 V(p) light_field(rectified position of p)

    Linear, hence its cubic weights may undershoot below 0; take the positive part of a whole image, not of its sources.

    Attributes:
        resample: from the padded light field to raw pixels.
        transmission: (row, col), (N / pitch)^2 V.
        lattice: the lattice of the lenslets in the raw frame.
        field: lenslets (Y, X).
        pixels: N.
    """

    resample: Resample
    transmission: Float[Array, "row col"]
    lattice: Lattice = eqx.field(static=True)
    field: tuple[int, int] = eqx.field(static=True)
    pixels: int = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        field: tuple[int, int],
        pixels: int,
        pitch_px: float,
        rotation_rad: float = 0.0,
        vignetting: float = 0.3,
        border_px: int = 4,
    ) -> Sensor:
        """The smallest sensor that holds all lenslets and a border; arguments as in `raw_frames`.

        Args:
            field: lenslets (Y, X).
            pixels: N, rectified pixels per lenslet.
            pitch_px: raw pixels per lenslet.
            rotation_rad: rotation of the lenslets.
            vignetting: fraction of the light lost in the corners of the frame.
            border_px: pixels around the lenslets.

        Raises:
            ParameterError: a number is out of range.
        """
        check_frame(field, pitch_px, rotation_rad)
        require(0 <= vignetting < 1, "vignetting", vignetting, "a fraction from 0 to below 1")
        require(border_px >= 0, "border_px", border_px, "zero or more pixels")
        lattice, shape = place_lattice(field, pitch_px, rotation_rad, border_px)
        rows_columns = np.stack(np.meshgrid(*(np.arange(length) for length in shape), indexing="ij"), axis=-1)
        lenslet = lattice.to_lattice(rows_columns) + (np.array(field) - 1) // 2
        outside = max(-lenslet.min(), float((lenslet - np.array(field) + 1).max()))
        pad = math.ceil(outside) + 1
        sides = (pixels * (field[0] + 2 * pad), pixels * (field[1] + 2 * pad))
        resample = Resample(sides, (lenslet + pad + 0.5) * pixels - 0.5)
        return cls(resample, vignette(shape, vignetting) * (pixels / pitch_px) ** 2, lattice, field, pixels)

    @property
    def shape(self) -> tuple[int, int]:
        """(row, col) of the raw frame."""
        rows, columns = self.transmission.shape
        return (rows, columns)

    def __call__(self, light_field: Float[Array, "y x"]) -> Float[Array, "row col"]:
        """Light on the raw pixels; the lenslets of the edge repeat into the border."""
        (rows, columns), n = self.field, self.pixels
        pad = (self.resample.shape[0] // n - rows) // 2
        lenslets = light_field.reshape(rows, n, columns, n)
        padded = jnp.pad(lenslets, ((pad, pad), (0, 0), (pad, pad), (0, 0)), "edge")
        return self.transmission * self.resample(padded.reshape(self.resample.shape))

    def calibration_frames(
        self, white_key: Array, dark_key: Array, white_tile: Float[ArrayLike, "v u"], white_photons: float, camera: Camera
    ) -> tuple[Integer[Array, "row col"], Integer[Array, "row col"]]:
        """A white and a dark frame, one exposure each; arguments as in `raw_frames`."""
        uniform = jnp.asarray(np.tile(np.asarray(white_tile), self.field))
        light = _exposed(self, uniform, jnp.asarray(white_photons, float))
        return camera.expose(white_key, light), camera.expose(dark_key, np.zeros(self.shape))


@eqx.filter_jit
def _exposed(sensor: Sensor, image: Float[Array, "y x"], peak: Float[Array, ""]) -> Float[Array, "row col"]:
    """Photons on the raw pixels, for a rectified image whose brightest pixel has `peak` photons."""
    brightest = jnp.max(image)
    return jnp.maximum(sensor(image * (peak / jnp.where(brightest > 0, brightest, 1))), 0)  # cubic weights undershoot


def check_frame(field: tuple[int, int], pitch_px: float, rotation_rad: float) -> None:
    """Refuse a pitch or a rotation out of range, and a frame that does not fit into the memory.

    Args:
        field: lenslets (Y, X).
        pitch_px: raw pixels per lenslet.
        rotation_rad: rotation of the lenslets.

    Raises:
        ParameterError: a number is out of range.
    """
    require(1 <= pitch_px < math.inf, "pitch_px", pitch_px, "1 or more pixels")
    require(abs(rotation_rad) <= math.pi / 4, "rotation_rad", rotation_rad, "an angle between -pi/4 and pi/4")
    pixels = math.prod(math.ceil(side * pitch_px) for side in field)
    require_memory("lenslets (--lenslets)", field, BYTES_PER_PIXEL * pixels)


def place_lattice(
    field: tuple[int, int], pitch_px: float, rotation_rad: float, border_px: int
) -> tuple[Lattice, tuple[int, int]]:
    """The lattice centred in the smallest frame that holds all lenslets and a border, and the shape of this frame.

    Lenslet (Y, X) of the field has the lattice coordinates (Y, X) - ((Y_n - 1) // 2, (X_n - 1) // 2).
    """
    axes = Lattice(pitch_px, rotation_rad, 0.0, 0.0).axes
    extent = pitch_px * np.array(field) @ np.abs(axes)
    shape = (math.ceil(extent[0]) + 2 * border_px, math.ceil(extent[1]) + 2 * border_px)
    last = np.array(field) - 1
    origin = (np.array(shape) - 1) / 2 + pitch_px * (last // 2 - last / 2) @ axes
    return Lattice(pitch_px, rotation_rad, float(origin[0]), float(origin[1])), shape


def vignette(shape: tuple[int, int], loss: float) -> Float[Array, "row col"]:
    """cos^4 of the field angle, V(r) = (1 + t r^2 / R^2)^-2: 1 at the centre, 1 - loss in the corners, r = R."""
    y, x = (np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in shape)
    h, w = shape[0] - 1, shape[1] - 1
    r2 = ((h * y[:, None]) ** 2 + (w * x[None, :]) ** 2) / max(h**2 + w**2, 1)
    return jnp.asarray((1 + ((1 - loss) ** -0.5 - 1) * r2) ** -2, jnp.result_type(float))
