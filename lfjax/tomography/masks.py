"""Masks of maps, from 0 in the solvent to 1 in the particle, and the checks that a mask of another program has to pass.

A mask of a density: the map, smoothed, is cut at a threshold; the voxels above it grow by some voxels, and from there the mask
falls to 0 along a raised cosine of the distance d to the nearest voxel inside,

    m = 1/2 + 1/2 cos(pi d / w),   d < w.

Grown and softened masks equal those of `relion_mask_create` at the same threshold.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Bool, Float
from numpy.typing import NDArray

from lfjax.errors import DataWarning, ParameterError, require, require_shape
from lfjax.tomography.filters import low_pass

LEAST_VOXELS = 20
"""Fewest voxels above 1/2 of a mask: inside fewer, maps correlate by chance."""
BINS = 512
"""Bins of the histogram in which a threshold is looked for."""


class DensityMask(NamedTuple):
    """A mask and how it came about.

    Attributes:
        mask: values from 0 to 1.
        threshold: density of the smoothed map from which on a voxel is in the initial mask.
        fraction: share of the box with mask values above 1/2.
    """

    mask: Float[NDArray[np.float32], "z y x"]
    threshold: float
    fraction: float


def density_mask(
    volume: Float[ArrayLike, "z y x"],
    *,
    voxel_angstrom: float,
    threshold: float | None = None,
    lowpass_angstrom: float | None = 15.0,
    extend_px: float = 3.0,
    soft_px: float = 6.0,
    islands: float = 0.0,
) -> DensityMask:
    """A soft mask about the density of a map.

    Args:
        volume: cubic map, density positive.
        voxel_angstrom: voxel size.
        threshold: density of the smoothed map that bounds the initial mask; None: found by `otsu_threshold` inside the ball
            that the box holds.
        lowpass_angstrom: period to which the map is smoothed first; None: not smoothed.
        extend_px: growth of the initial mask in voxels, by distance; negative: it shrinks.
        soft_px: width of the soft edge in voxels, outside of the grown mask.
        islands: pieces of the initial mask smaller than this share of the largest piece are dropped; 0: all stay.

    Raises:
        ParameterError: an option is out of range, the map has one value, the low-pass period exceeds the box, no voxel or
            every voxel is above a threshold that the caller gives, or the mask is too small for `check_mask`.
        ShapeError: the map is no cube.

    Warns:
        DataWarning: the mask touches the border of the box, it covers more than 80 % of the ball that the box holds, or the
            smoothed map reaches farther below 0 than above, as an inverted map does.

    Source: `relion_mask_create` (RELION 3.1); Otsu, IEEE Trans. Syst. Man Cybern. 9, 62 (1979).
    """
    array = np.asarray(volume)
    n = len(array)
    require_shape("volume", array.shape, (n, n, n))
    numbers = {
        "voxel_angstrom": voxel_angstrom,
        "threshold": threshold,
        "lowpass_angstrom": lowpass_angstrom,
        "extend_px": extend_px,
        "soft_px": soft_px,
    }
    for name, value in numbers.items():
        require(value is None or bool(np.isfinite(value)), name, value, "a finite number")
    require(voxel_angstrom > 0, "voxel_angstrom", voxel_angstrom, "more than 0")
    require(soft_px >= 0, "soft_px", soft_px, "0 or more voxels")
    require(abs(extend_px) < n / 2, "extend_px", extend_px, f"less than half the box, {n / 2:g} voxels")
    require(0 <= islands <= 1, "islands", islands, "a share from 0 to 1")
    require(bool(np.isfinite(array).all()), "volume", "numbers that are not finite", "a finite map")
    if array.min() == array.max():
        raise ParameterError(f"volume: the map is constant, {array.flat[0]:g} everywhere: expected density and solvent")
    if lowpass_angstrom is not None and lowpass_angstrom > n * voxel_angstrom:
        told = f"lowpass_angstrom = {lowpass_angstrom:g} A is longer than the box of {n * voxel_angstrom:g} A"
        raise ParameterError(f"{told}: expected a shorter one")
    smooth = array if lowpass_angstrom is None else np.asarray(low_pass(array, lowpass_angstrom, voxel_angstrom))
    ball = spherical_mask(n, n / 2, 0.0) > 0
    low, high = float(smooth.min()), float(smooth.max())
    if -low > 1.5 * max(high, 0.0):
        told = f"volume: the smoothed map goes from {low:.4g} to {high:.4g}: is the map inverted? expected positive density"
        warnings.warn(told, DataWarning, stacklevel=2)
    cut = otsu_threshold(smooth[ball]) if threshold is None else float(threshold)
    inside = smooth >= cut
    if threshold is not None:
        require(0 < float(inside.mean()) < 1, "threshold", threshold, f"a density between {low:.4g} and {high:.4g}, of the map")
    mask = soft_mask(_large_pieces(inside, islands), extend_px=extend_px, soft_px=soft_px)
    if (covered := float((mask > 0.5)[ball].mean())) > 0.8:
        told = f"mask: it covers {covered:.0%} of the ball that the box holds; is the map inverted, or noise?"
        warnings.warn(told, DataWarning, stacklevel=2)
    return DensityMask(check_mask(mask), cut, float((mask > 0.5).mean()))


def soft_mask(inside: Bool[ArrayLike, "z y x"], *, extend_px: float = 0.0, soft_px: float = 0.0) -> NDArray[np.float32]:
    """A set of voxels, grown or shrunk by a distance, with a soft edge around it.

    Args:
        inside: the set.
        extend_px: voxels nearer to the set than this join it; negative: voxels nearer than this to the outside leave it.
        soft_px: distance over which the mask falls from 1 to 0.
    """
    chosen = np.asarray(inside, bool)
    if extend_px > 0:
        chosen = _distance(chosen, extend_px) < extend_px
    elif extend_px < 0:
        chosen = chosen & ~(_distance(~chosen, -extend_px) < -extend_px)
    if soft_px <= 0 or not chosen.any():
        return chosen.astype(np.float32)
    edge = np.clip(_distance(chosen, soft_px) / soft_px, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * edge)).astype(np.float32)


def _distance(inside: NDArray[np.bool_], reach: float) -> NDArray[np.float64]:
    """Distance of each voxel to the set, exact up to `reach`, beyond which it is infinite: only the set's block is computed."""
    from scipy.ndimage import distance_transform_edt

    found = np.full(inside.shape, np.inf)
    places = np.nonzero(inside)
    if len(places[0]):
        pad = int(np.ceil(reach)) + 1
        block = tuple(slice(max(0, int(p.min()) - pad), int(p.max()) + pad + 1) for p in places)
        found[block] = distance_transform_edt(~inside[block])
    return found


def _large_pieces(inside: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """The connected pieces that have at least this share of the voxels of the largest."""
    from scipy.ndimage import label

    if share == 0:
        return inside
    pieces, _ = label(inside)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (sizes >= max(1.0, share * sizes.max()))[pieces]


def otsu_threshold(values: Float[ArrayLike, "..."]) -> float:
    """The threshold that splits values into two classes with the greatest variance between them.

    Source: Otsu, IEEE Trans. Syst. Man Cybern. 9, 62 (1979).
    """
    counts, edges = np.histogram(np.asarray(values, float), BINS)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * middle)
    above = counts.sum() - below
    apart = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * apart**2)])


def spherical_mask(n: int, radius: float, edge: float = 5.0) -> Float[NDArray[np.float64], "n n n"]:
    """1 inside a ball about the centre n // 2, falling to 0 over `edge` voxels along a raised cosine.

    Args:
        n: voxels per side.
        radius: radius of the ball in voxels.
        edge: width of the soft edge in voxels, outside of the ball; 0: a hard edge.

    Raises:
        ParameterError: the radius is less than 1 or exceeds half the box, or the edge is negative.
    """
    expected = f"1 to half the box, {n / 2:g} voxels" + (", as a ball below 1 holds one voxel" if 0 < radius < 1 else "")
    require(1 <= radius <= n / 2, "radius", radius, expected)
    require(edge >= 0 and bool(np.isfinite(edge)), "edge", edge, "0 or more voxels")
    x = np.arange(n) - n // 2
    distance = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
    if edge == 0:
        return (distance <= radius).astype(float)
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius) / edge, 0, 1))


def check_mask(mask: Float[ArrayLike, "z y x"], name: str = "mask") -> NDArray[np.float32]:
    """The mask as an array, after the checks that keep a wrong one from giving a wrong resolution.

    Args:
        mask: (z, y, x).
        name: what messages call it, such as the name of its file.

    Raises:
        ParameterError: a value is not finite or outside of 0 to 1, or fewer than 20 values exceed 1/2.
        ShapeError: the mask has other than three axes.

    Warns:
        DataWarning: the mask is not 0 at the border of the box, where it cuts the particle or correlates with itself across
            the border, or it is 1 everywhere.
    """
    values = np.asarray(mask, np.float32)
    require_shape(name, values.shape, ("z", "y", "x"))
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high) and low >= -1e-6 and high <= 1 + 1e-6):
        raise ParameterError(
            f"{name}: values from {low:g} to {high:g}: expected a mask, 0 in the solvent and 1 in the particle"
        )
    if high <= 0.5:
        raise ParameterError(f"{name}: no value above 0.5 (the highest is {high:g}): the mask is empty")
    if (held := int((values > 0.5).sum())) < LEAST_VOXELS:
        voxels = "one voxel" if held == 1 else f"{held} voxels"
        raise ParameterError(
            f"{name}: {voxels} above 0.5: expected {LEAST_VOXELS} or more, for a correlation that tells something"
        )
    if low > 0.999:
        warnings.warn(f"{name}: 1 everywhere, so it masks nothing", DataWarning, stacklevel=2)
    elif max(np.abs(np.take(values, side, axis)).max() for axis in range(3) for side in (0, -1)) > 1e-3:
        text = (
            f"{name}: not 0 at the border of the box; the particle may be cut, and the correlation in it is not to be trusted"
        )
        warnings.warn(text, DataWarning, stacklevel=2)
    return np.clip(values, 0, 1)
