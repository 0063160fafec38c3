"""The micro-lens array: its lattice, and the phase and the mask of its lenslets."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Complex, Float

from lfjax.errors import require, require_shape
from lfjax.optics.alignment import Alignment
from lfjax.optics.microscope import Microscope


def lenslet_transmission(
    microscope: Microscope, samples: tuple[int, int], side: int, alignment: Alignment | None = None
) -> Complex[Array, "y x"]:
    """Transmission of the array: mask(x) exp(-i k0 |x|^2 / (2 f_ml)) about the nearest centre, k0 = 2 pi / lambda.

    In a multi-focal array f_ml is the focal length of the lenslet with this centre.

    Args:
        microscope: lattice, pitch, focal length and wavelength are used.
        samples: samples (y, x) across a cell.
        side: samples per side of the grid, with the middle of a cell at `grid_middle`.
        alignment: shift, rotation and mask of the array; None: the plain array.

    Raises:
        ShapeError: the mask is not two-dimensional.
    """
    k0, focal_um = 2 * jnp.pi / microscope.wavelength_um, microscope.lenslet_focal_length_um
    if alignment is None and not isinstance(focal_um, tuple) and microscope.lenslet_lattice == "square":
        steps = np.arange(side) - grid_middle(side, samples[1])
        x_um = (steps - samples[1] * np.floor(steps / samples[1] + 0.5)) / samples[1] * microscope.lenslet_pitch_um
        row = jnp.exp(-1j * k0 * x_um**2 / (2 * focal_um))
        return row[:, None] * row[None, :]
    alignment = Alignment() if alignment is None else alignment
    axes = zip(samples, microscope.cell_um, strict=True)
    y, x = (jnp.asarray(np.arange(side) - grid_middle(side, n)) / n * size for n, size in axes)
    y_um, x_um = y[:, None] - alignment.offset_um[0], x[None, :] - alignment.offset_um[1]
    c, s = jnp.cos(alignment.rotation_rad), jnp.sin(alignment.rotation_rad)
    y_um, x_um = _from_first(microscope, c * y_um - s * x_um, s * y_um + c * x_um)
    dy, dx = _from_centre(microscope, y_um, x_um)
    if isinstance(focal_um, tuple):
        focal_um = _focal_um(microscope, y_um - dy, x_um - dx)
    wave = jnp.exp(-1j * k0 * (dy**2 + dx**2) / (2 * focal_um))
    if alignment.mask is None:
        return wave
    mask = jnp.asarray(alignment.mask)
    require_shape("alignment.mask", mask.shape, ("y", "x"))
    high = microscope.lenslet_pitch_um * (1.0 if microscope.lenslet_lattice == "square" else 2 / math.sqrt(3))
    boxes = (high, microscope.lenslet_pitch_um)
    places = [(d / box + 0.5) * n - 0.5 for d, box, n in zip((dy, dx), boxes, mask.shape, strict=True)]
    return wave * map_coordinates(mask, places, order=1, mode="nearest")


def grid_middle(side: int, samples: int) -> float:
    """Place, in samples, of the middle of a cell on a grid: in the middle of the grid, or half a sample before it.

    An odd number of cells about it begins and ends with whole samples, whether cell and grid are of odd or even length.

    Args:
        side: samples of the grid.
        samples: samples across a cell.
    """
    return (side - samples) // 2 + (samples - 1) / 2


def _unit_um(microscope: Microscope) -> tuple[Array | float, Array | float]:
    """Size (y, x) of a square, or of two rows of hexagons: the cell without its pattern of focal lengths."""
    (high, wide), (rows, columns) = microscope.cell_um, microscope.units
    return high / rows, wide / columns


def _from_first(microscope: Microscope, y_um: Array, x_um: Array) -> tuple[Array, Array]:
    """Distance (y, x) from the centre of lenslet [0][0], for places about the middle of the cell."""
    (high, wide), (rows, columns) = _unit_um(microscope), microscope.units
    return y_um + (rows - 1) / 2 * high, x_um + (columns - 1) / 2 * wide


def _focal_um(microscope: Microscope, y_um: Array, x_um: Array) -> Array:
    """Focal lengths of the lenslets of a multi-focal array with these centres, (y, x) from that of lenslet [0][0]."""
    pattern = jnp.asarray(microscope.lenslet_focal_length_um)
    (high, wide), hexagonal = _unit_um(microscope), microscope.lenslet_lattice == "hexagonal"
    row = jnp.round(y_um / high * (2 if hexagonal else 1)).astype(jnp.int32)
    shift = 0.5 * (row % 2) if hexagonal else 0.0
    column = jnp.round(x_um / wide - shift).astype(jnp.int32)
    return pattern[row % pattern.shape[0], column % pattern.shape[1]]


def _from_centre(microscope: Microscope, y_um: Array, x_um: Array) -> tuple[Array, Array]:
    """Distance (y, x) from the nearest centre of a lenslet."""

    def periodic(t: Array, size: Array | float) -> Array:
        return t - size * jnp.floor(t / size + 0.5)

    high, wide = _unit_um(microscope)
    dy, dx = periodic(y_um, high), periodic(x_um, wide)
    if microscope.lenslet_lattice == "square":
        return dy, dx
    ey, ex = periodic(y_um - high / 2, high), periodic(x_um - wide / 2, wide)  # the lenslets in the corners of the cell
    nearer = dy**2 + dx**2 <= ey**2 + ex**2
    return jnp.where(nearer, dy, ey), jnp.where(nearer, dx, ex)


def round_mask(diameter: float = 1.0, samples: int = 64) -> Float[np.ndarray, "y x"]:
    """A round aperture in a square box one pitch wide, for `Alignment.mask`; its rim is one sample wide.

    Args:
        diameter: diameter in pitches, at most 1.
        samples: samples per side of the box.

    Raises:
        ParameterError: the diameter is out of range.
    """
    require(0 < diameter <= 1, "diameter", diameter, "a fraction of the pitch")
    places = (np.arange(samples) + 0.5) / samples - 0.5
    inside = diameter / 2 - np.hypot(places[:, None], places[None, :])
    return np.clip(inside * samples + 0.5, 0, 1)
