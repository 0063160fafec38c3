"""From half-maps to a map that can be published: resolution inside a mask, then `sharpening` of their mean.

The correlation of the half-maps inside the mask is corrected by phase randomisation and read at 0.143; it also weights the
shells of the mean of the half-maps.

Source: conventions of `relion_postprocess` (RELION 3.1).
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from lfjax.errors import DataWarning, ParameterError, require, require_shape
from lfjax.tomography import fourier_shells
from lfjax.tomography.fourier_shells import MaskedFsc
from lfjax.tomography.half_maps import same_map
from lfjax.tomography.masks import check_mask
from lfjax.tomography.sharpening import THRESHOLD, Guinier, Mtf, sharpen


class Postprocessed(NamedTuple):
    """The final map and what is known of it.

    Attributes:
        volume: sharpened, weighted mean of the half-maps.
        masked: `volume` times the mask; `volume` itself without a mask.
        mask: the mask; None: none was given.
        curves: correlations with and without the mask; without a mask, all are those of the maps as they are.
        curve: the correlation that gives resolution and weights: `curves.corrected`, or `curves.unmasked` where a warning says
            so.
        resolution_angstrom: period at which `curve` falls below 0.143, interpolated between shells.
        b_factor: B in angstrom^2 that the map was sharpened with, negative for sharpening; 0: not sharpened.
        guinier: the plot behind it.
        warnings: each thing to know before the map is trusted, also given as `DataWarning`.
    """

    volume: Float[Array, "z y x"]
    masked: Float[Array, "z y x"]
    mask: Float[NDArray[np.float32], "z y x"] | None
    curves: MaskedFsc
    curve: Float[NDArray[np.float64], " r"]
    resolution_angstrom: float
    b_factor: float
    guinier: Guinier
    warnings: tuple[str, ...]


def postprocess(
    first: Float[ArrayLike, "z y x"],
    second: Float[ArrayLike, "z y x"],
    voxel_angstrom: float,
    *,
    mask: Float[ArrayLike, "z y x"] | None = None,
    b_factor: float | None = None,
    fit_range_angstrom: tuple[float, float | None] = (10.0, None),
    mtf: Mtf | None = None,
    mtf_pixel_angstrom: float | None = None,
    lowpass_angstrom: float | None = None,
    skip_fsc_weighting: bool = False,
    force_mask: bool = False,
    key: Array | None = None,
    draws: int = 1,
) -> Postprocessed:
    """Resolution, sharpening and weighting of the mean of two half-maps.

    Args:
        first: unfiltered half-map, not masked.
        second: the other half-map.
        voxel_angstrom: voxel size.
        mask: values from 0 to 1 with a soft edge; None: no mask.
        b_factor: see `sharpen`.
        fit_range_angstrom: see `sharpen`.
        mtf: see `sharpen`.
        mtf_pixel_angstrom: see `sharpen`.
        lowpass_angstrom: see `sharpen`.
        skip_fsc_weighting: see `sharpen`.
        force_mask: whether to keep the curve inside the mask where the curve without it reaches farther.
        key: random key of the random phases; None: a fixed one.
        draws: sets of random phases, see `fourier_shells.masked_fsc`.

    Raises:
        ParameterError: an option is out of range, the mask is empty, a half-map is not finite or has one value, the half-maps
            are the same map, or they do not agree beyond chance.
        ShapeError: maps and mask are not cubes of one size.

    Warns:
        DataWarning: the mask raises the correlation by itself, or anything else that makes the resolution doubtful.
    """
    n = jnp.shape(first)[0]
    require_shape("first", jnp.shape(first), (n, n, n))
    require_shape("second", jnp.shape(second), (n, n, n))
    require(bool(np.isfinite(voxel_angstrom) and voxel_angstrom > 0), "voxel_angstrom", voxel_angstrom, "more than 0")
    for name, half in (("first", first), ("second", second)):
        low, high = float(np.min(half)) + 0.0, float(np.max(half))  # 0 without a sign
        require(bool(np.isfinite(low) and np.isfinite(high)), name, "numbers that are not finite", "a finite half-map")
        require(low < high, name, f"{low:g} everywhere", "a half-map")
    if same_map(first, second):
        raise ParameterError(
            "first and second: the half-maps are the same map, but for scale; expected maps of independent halves of the images"
        )
    weights = None
    if mask is not None:
        require_shape("mask", np.shape(mask), (n, n, n))
        weights = check_mask(mask)
    curves = _curves(first, second, weights, key, draws)
    curve, notes = _trusted(curves, weights is not None, force_mask, n * voxel_angstrom)
    notes += _beyond_chance(curves, curve, weights, n * voxel_angstrom)
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    found = sharpen(
        (jnp.asarray(first, float) + jnp.asarray(second, float)) / 2,
        voxel_angstrom,
        curve,
        b_factor=b_factor,
        fit_range_angstrom=fit_range_angstrom,
        mtf=mtf,
        mtf_pixel_angstrom=mtf_pixel_angstrom,
        lowpass_angstrom=lowpass_angstrom,
        skip_fsc_weighting=skip_fsc_weighting,
    )
    masked = found.volume if weights is None else found.volume * weights
    period = fourier_shells.resolution(curve, n * voxel_angstrom, THRESHOLD)
    notes += list(found.warnings)
    return Postprocessed(found.volume, masked, weights, curves, curve, period, found.b_factor, found.guinier, tuple(notes))


def _curves(first: ArrayLike, second: ArrayLike, mask: NDArray[np.float32] | None, key: Array | None, draws: int) -> MaskedFsc:
    if mask is not None:
        return fourier_shells.masked_fsc(first, second, mask, key=key, draws=draws)
    plain = fourier_shells.fsc(first, second)
    return MaskedFsc(plain, plain, jnp.zeros_like(plain), plain, len(plain) - 1)


def _trusted(
    curves: MaskedFsc, has_mask: bool, force_mask: bool, box: float
) -> tuple[Float[NDArray[np.float64], " r"], list[str]]:
    """The curve that gives the resolution, and notes on what is doubtful about it."""
    notes: list[str] = []
    plain, corrected = (np.array(c, float) for c in (curves.unmasked, curves.corrected))
    at, plain_at = _last_shell(corrected), _last_shell(plain)
    if not has_mask:
        return plain, notes
    if not (plain[1:] < 0.8).any():
        notes.append("the correlation without the mask never falls below 0.8: no phases are randomised, nothing is corrected")
    if plain_at > at:
        reach = f"without the mask the half-maps agree to {box / plain_at:.2f} A, farther than inside it"
        notes.append(f"{reach}; {'the mask is kept' if force_mask else 'the mask is left out'}")
        return (corrected if force_mask else plain), notes
    return corrected, notes + mask_doubts(curves, box)


def _beyond_chance(curves: MaskedFsc, curve: NDArray[np.float64], mask: NDArray[np.float32] | None, box: float) -> list[str]:
    """Refuse half-maps that agree neither inside the mask nor without it; a note where they agree only without it.

    The coefficients of a map inside a mask m count as (sum m^2)^2 / sum m^4 independent values.
    """
    power = 1.0 if mask is None else np.asarray(mask, float) ** 2
    share = 1.0 if mask is None else float(np.sum(power) ** 2 / np.sum(power**2) / mask.size)
    plain = np.isfinite(fourier_shells.resolution(curves.unmasked, box, THRESHOLD))
    inside = np.isfinite(fourier_shells.resolution(curve, box, THRESHOLD, share=share))
    if not (plain or inside):
        raise ParameterError(
            f"first and second: the half-maps do not agree beyond chance: expected a correlation above {THRESHOLD} and above "
            "that of noise in some shell before it first falls"
        )
    return [] if inside else ["inside the mask the half-maps do not agree beyond chance: the resolution is doubtful"]


def mask_doubts(curves: MaskedFsc, box_angstrom: float) -> list[str]:
    """A line where the mask alone correlates by more than 0.1 at the resolution of the corrected curve; else none.

    Args:
        curves: of `fourier_shells.masked_fsc`.
        box_angstrom: side of the box, voxels times voxel size.
    """
    at = _last_shell(np.asarray(curves.corrected, float))
    noise = float(curves.randomised[at])
    if noise <= 0.1:
        return []
    where = f"at {box_angstrom / max(at, 1):.2f} A inside the mask"
    told = f"random phases correlate by {noise:.2f} (more than 0.1) {where}: the resolution is doubtful"
    return [f"{told}; expected a softer mask with less detail"]


def _last_shell(curve: NDArray[np.float64]) -> int:
    """The last shell before the first one below the threshold."""
    below = curve < THRESHOLD
    return max(0, int(np.argmax(below)) - 1) if below.any() else len(curve) - 1
