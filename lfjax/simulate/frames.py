"""Raw camera frames of a light-field microscope: a rectified light field put onto a real, tilted, noisy sensor."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from lfjax.errors import ShapeError, require, require_shape
from lfjax.noise import Camera
from lfjax.optics.camera.lattice import Lattice
from lfjax.optics.camera.resample import Resample


class RawFrames(NamedTuple):
    """What a camera delivers, in digital numbers, with the truth about its lenslets.

    Attributes:
        light_field: raw frame of the sample, (row, column).
        white: raw frame under uniform light.
        dark: raw frame without light.
        lattice: where the lenslets are.
    """

    light_field: Integer[Array, "row column"]
    white: Integer[Array, "row column"]
    dark: Integer[Array, "row column"]
    lattice: Lattice


def raw_frames(
    key: Array,
    light_field: Float[Array, "y x"],
    white_tile: Float[Array, "v u"],
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

    Cubic resampling; the light of a rectified pixel is kept as raw pixels grow or shrink. V is the vignetting, 1 in the
    middle. The frame just holds all lenslets; around them the lenslets of the edge go on.

    Args:
        key: random key of the noise.
        light_field: rectified, of shape (Y N, X N), in any unit.
        white_tile: model image (N, N) of one lenslet under uniform light, in any unit.
        pitch_px: raw pixels a lenslet.
        rotation_rad: of the lenslets, see `optics.Lattice`, between -pi/4 and pi/4.
        camera: its noise; `Camera()` if not given.
        photons: expected in the brightest pixel of `light_field`, before vignetting.
        white_photons: the same for the white frame.
        vignetting: fraction of the light lost in the corners of the frame.
        border_px: free pixels around the lenslets.

    Raises:
        ShapeError: `white_tile` is not square, or `light_field` is not a whole number of them.
        ParameterError: a number outside its meaning.
    """
    require(math.isfinite(pitch_px) and pitch_px > 0, "pitch_px", pitch_px, "a positive number")
    require(abs(rotation_rad) <= math.pi / 4, "rotation_rad", rotation_rad, "an angle between -pi/4 and pi/4")
    require(photons > 0, "photons", photons, "a positive number")
    require(white_photons > 0, "white_photons", white_photons, "a positive number")
    require(0 <= vignetting < 1, "vignetting", vignetting, "a fraction from 0 to below 1")
    require(border_px >= 0, "border_px", border_px, "zero or more pixels")
    camera = Camera() if camera is None else camera
    n = white_tile.shape[0]
    require_shape("white_tile", white_tile.shape, (n, n))
    require_shape("light_field", light_field.shape, ("y", "x"))
    if light_field.shape[0] % n or light_field.shape[1] % n:
        raise ShapeError(f"light_field has shape {light_field.shape}: expected multiples of N = {n}, as in white_tile")
    field = (light_field.shape[0] // n, light_field.shape[1] // n)
    lattice, shape = place_lattice(field, pitch_px, rotation_rad, border_px)

    rows_columns = np.stack(np.meshgrid(*(np.arange(side) for side in shape), indexing="ij"), axis=-1)
    lenslet = lattice.to_lattice(rows_columns) + (np.array(field) - 1) // 2
    outside = max(-lenslet.min(), float((lenslet - np.array(field) + 1).max()))
    pad = math.ceil(outside) + 1
    padded = tuple(n * (side + 2 * pad) for side in field)
    resample = Resample((padded[0], padded[1]), (lenslet + pad + 0.5) * n - 0.5)
    transmission = vignette(shape, vignetting) * (n / pitch_px) ** 2

    def on_sensor(image: Float[Array, "y x"], peak: float) -> Float[Array, "row column"]:
        brightest = jnp.max(image)
        image = image * (peak / jnp.where(brightest > 0, brightest, 1))
        lenslets = jnp.pad(image.reshape(field[0], n, field[1], n), ((pad, pad), (0, 0), (pad, pad), (0, 0)), "edge")
        return transmission * jnp.maximum(resample(lenslets.reshape(padded)), 0)  # cubic weights undershoot

    keys = jax.random.split(key, 3)
    return RawFrames(
        camera.expose(keys[0], on_sensor(jnp.asarray(light_field), photons)),
        camera.expose(keys[1], on_sensor(jnp.tile(jnp.asarray(white_tile), field), white_photons)),
        camera.expose(keys[2], jnp.zeros(shape)),
        lattice,
    )


def place_lattice(
    field: tuple[int, int], pitch_px: float, rotation_rad: float, border_px: int
) -> tuple[Lattice, tuple[int, int]]:
    """The lattice in the middle of the smallest frame that holds all lenslets and a border, and that frame's shape.

    Lenslet (Y, X) of the field has the lattice coordinates (Y, X) - ((Y_n - 1) // 2, (X_n - 1) // 2).
    """
    axes = Lattice(pitch_px, rotation_rad, 0.0, 0.0).axes
    extent = pitch_px * np.array(field) @ np.abs(axes)
    shape = (math.ceil(extent[0]) + 2 * border_px, math.ceil(extent[1]) + 2 * border_px)
    last = np.array(field) - 1
    origin = (np.array(shape) - 1) / 2 + pitch_px * (last // 2 - last / 2) @ axes
    return Lattice(pitch_px, rotation_rad, float(origin[0]), float(origin[1])), shape


def vignette(shape: tuple[int, int], loss: float) -> Float[Array, "row column"]:
    """cos^4 of the field angle, V(r) = (1 + t r^2 / R^2)^-2: 1 in the middle, 1 - loss in the corners, r = R."""
    y, x = (jnp.linspace(-1, 1, side) if side > 1 else jnp.zeros(1) for side in shape)
    h, w = shape[0] - 1, shape[1] - 1
    r2 = ((h * y[:, None]) ** 2 + (w * x[None, :]) ** 2) / max(h**2 + w**2, 1)
    return (1 + ((1 - loss) ** -0.5 - 1) * r2) ** -2
