"""Resolution by direction: Fourier shell correlation inside cones, and how far a map is from isotropic.

    FSC_d(r) = sum Re(A conj B) / sqrt(sum |A|^2 sum |B|^2)   over frequencies k of shell r with |k . d| >= |k| cos(a)

about each direction d, with half-angle a (Tan et al., Nat. Methods 14, 793 (2017)). What the set of views has to do with it is
in `coverage`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.tomography import fourier_shells


class DirectionalFsc(NamedTuple):
    """Correlations of half-maps by direction, and figures of anisotropy.

    Attributes:
        directions: unit vectors (x, y, z), on a half sphere where they were chosen here.
        curves: correlation of each direction and shell; a shell of which a cone holds no frequency has that of all directions.
        resolution_angstrom: of each direction; infinite where the correlation is never above the threshold, or above chance.
        ratio: worst over best resolution, 1 for an isotropic map.
        spread: standard deviation over mean of the frequencies of the directional resolutions.
        sphericity: of the surface that these frequencies span, 1 for a ball, see `sphericity`; NaN where a direction has none.
        area_ratio: least over greatest area under a directional curve, 1 for an isotropic map (cryoSPARC's cFAR).
    """

    directions: Float[NDArray[np.float64], "d 3"]
    curves: Float[Array, "d r"]
    resolution_angstrom: Float[NDArray[np.float64], " d"]
    ratio: float
    spread: float
    sphericity: float
    area_ratio: float


def half_sphere(count: int) -> Float[NDArray[np.float64], "d 3"]:
    """Directions (x, y, z) spread evenly over the half sphere z > 0: a Fibonacci lattice, each for an equal solid angle."""
    require(count >= 1, "count", count, "1 or more directions")
    z = (np.arange(count) + 0.5) / count
    azimuth = np.pi * (3 - math.sqrt(5)) * np.arange(count)
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], axis=-1)


def directional_fsc(
    first: Float[ArrayLike, "z y x"],
    second: Float[ArrayLike, "z y x"],
    voxel_angstrom: float,
    *,
    directions: int | Float[ArrayLike, "d 3"] = 200,
    half_angle_rad: float = math.radians(20.0),
    threshold: float = 0.143,
) -> DirectionalFsc:
    """Fourier shell correlations of two maps inside cones.

    Args:
        first: half-map, multiplied by a mask where one is used.
        second: the other half-map, multiplied by the same mask.
        voxel_angstrom: voxel size.
        directions: axes of the cones (x, y, z), of any length, or the number of a `half_sphere`.
        half_angle_rad: angle between the axis of a cone and its side.
        threshold: correlation at which a resolution is read.

    Raises:
        ParameterError: an option is out of range.
        ShapeError: the maps are not cubes of one size, or the directions not (d, 3).
    """
    n = jnp.shape(first)[0]
    require_shape("first", jnp.shape(first), (n, n, n))
    require_shape("second", jnp.shape(second), (n, n, n))
    require(voxel_angstrom > 0, "voxel_angstrom", voxel_angstrom, "more than 0")
    require(0 < half_angle_rad <= np.pi / 2, "half_angle_rad", half_angle_rad, "more than 0 and at most pi / 2")
    axes = half_sphere(directions) if isinstance(directions, int) else np.array(directions, float)
    require_shape("directions", axes.shape, ("d", 3))
    length = np.linalg.norm(axes, axis=1, keepdims=True)
    require(bool(length.min() > 0), "directions", axes.tolist(), "vectors of a length above 0")
    axes = axes / length
    curves = _cones(jnp.asarray(first, float), jnp.asarray(second, float), axes, math.cos(half_angle_rad))
    values, box = np.asarray(curves, float), n * voxel_angstrom
    found = np.array([fourier_shells.resolution(curve, box, threshold) for curve in values])
    frequency = 1 / found
    areas = np.clip(values[:, 1:], 0, None).sum(1)
    seen = bool(frequency.min() > 0)
    return DirectionalFsc(
        axes,
        curves,
        found,
        float(found.max() / found.min()) if np.isfinite(found.min()) else math.nan,
        float(frequency.std() / frequency.mean()) if frequency.max() > 0 else math.nan,
        sphericity(axes, frequency) if seen and len(axes) >= 10 else math.nan,
        float(areas.min() / max(areas.max(), 1e-12)),
    )


@jax.jit
def _cones(first: Array, second: Array, axes: Array, cosine: Array) -> Float[Array, "d r"]:
    n = first.shape[0]
    a, b = jnp.fft.rfftn(first), jnp.fft.rfftn(second)
    products = jnp.stack([(a * b.conj()).real, jnp.abs(a) ** 2, jnp.abs(b) ** 2], axis=-1)
    products = (products * fourier_shells.multiplicity(n)[:, None]).reshape(-1, 3).astype(first.dtype)
    shell = fourier_shells.shells(n).ravel()
    along = jnp.asarray(np.fft.fftfreq(n) * n, first.dtype)
    k = (jnp.arange(n // 2 + 1, dtype=first.dtype), along[:, None], along[:, None, None])
    # a frequency on the side of the cone itself is inside, whichever way it is rounded
    limit = cosine.astype(first.dtype) * fourier_shells.radii(n).astype(first.dtype) - 1e-4

    def correlation(inside: Array) -> tuple[Array, Array]:
        # frequencies outside of the cone go to the bin behind the last shell, which `segment_sum` drops
        sums = jax.ops.segment_sum(products, jnp.where(inside.ravel(), shell, n // 2 + 1), n // 2 + 1)
        power = sums[:, 1] * sums[:, 2]
        return sums[:, 0] / jnp.sqrt(jnp.where(power > 0, power, 1)), power > 0

    whole = correlation(jnp.ones(a.shape, bool))[0]

    def cone(axis: Array) -> Array:
        curve, filled = correlation(jnp.abs(k[0] * axis[0] + k[1] * axis[1] + k[2] * axis[2]) >= limit)
        return jnp.where(filled, curve, whole).at[0].set(1)

    return jax.lax.map(cone, axes.astype(first.dtype))


def sphericity(directions: Float[ArrayLike, "d 3"], radii: Float[ArrayLike, " d"]) -> float:
    """Sphericity pi^(1/3) (6 V)^(2/3) / S of the surface with a radius in each direction, and the same in the opposite one.

    V and S are of the polyhedron with these corners, relative to the one with all radii 1; 1 for a ball, less for any other
    surface.

    Args:
        directions: unit vectors (x, y, z) on a half sphere, ten or more.
        radii: radius in each, more than 0.

    Raises:
        ParameterError: a radius is not positive, or there are too few directions.
        ShapeError: the lengths differ.
    """
    from scipy.spatial import ConvexHull

    axes, lengths = np.asarray(directions, float), np.asarray(radii, float)
    require_shape("directions", axes.shape, ("d", 3))
    require_shape("radii", lengths.shape, (len(axes),))
    require(len(axes) >= 10, "directions", len(axes), "ten or more")
    require(bool(lengths.min() > 0), "radii", float(lengths.min()), "more than 0")
    points, lengths = np.concatenate([axes, -axes]), np.concatenate([lengths, lengths])
    corners = ConvexHull(points).simplices

    def ratio(places: NDArray[np.float64]) -> float:
        p, q, r = places[corners].transpose(1, 0, 2)
        volume = np.abs(np.einsum("ij,ij->i", p, np.cross(q, r))).sum() / 6
        surface = np.linalg.norm(np.cross(q - p, r - p), axis=1).sum() / 2
        return float(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface)

    return ratio(points * lengths[:, None]) / ratio(points)
