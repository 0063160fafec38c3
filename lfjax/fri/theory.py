"""Uniqueness of a structure given projections at unknown angles: the required counts, and the ambiguities below them."""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import require, require_shape


class Requirement(NamedTuple):
    """Requirements of exact reconstruction up to O(3).

    Attributes:
        projections: number of projections at unknown, different orientations.
        order: M of the features of each view: powers -M ... M (exponential) or 0 ... 2 M (polynomial) along each axis.
        samples: least number of samples per axis and view, with a kernel of that order and points within half a sample; each
            further sampling distance of field takes one more.
        condition: condition on the structure.
    """

    projections: int
    order: int
    samples: int
    condition: str


def minimum_projections(points: int, *, distinct_amplitudes: bool = True, kind: str = "points") -> Requirement:
    """Number of projections, and of samples per projection, that determine a structure.

    *Points*: three projections, for any K >= 4 points that are not coplanar. The centred projections are 2 P rows of rank 3;
    their 3 P orthonormality equations fix the 6 numbers of a metric, of which two views leave one free (`two_view_family`).
    Points of equal amplitudes are matched by common lines for K >= 5 generically, and by trying all orders for K = 4. 2-D
    ESPRIT separates K points of a view for M (M + 1) >= K, from 2 M + 1 features along an axis.

    *Polytopes* of N vertices: three projections, for the same reason. Complex moments of degree 0 to 2 N - 4 give all
    vertices of a view.

    *Plane*: three one-dimensional projections, for K >= 3 points that are not collinear: P equations for the 3 numbers of a
    metric, and 2 K features.

    Args:
        points: number K of points, or N of vertices.
        distinct_amplitudes: whether the amplitudes tell points apart.
        kind: "points", "polytope" or "plane".

    Raises:
        ParameterError: another kind, or too few points.
    """
    kinds = ("points", "polytope", "plane")
    require(kind in kinds, "kind", kind, " or ".join(kinds))
    least = 3 if kind == "plane" else 4
    require(isinstance(points, int) and points >= least, "points", points, f"{least} or more: fewer lie in a plane (on a line)")
    if kind == "polytope":
        return Requirement(3, points - 2, 2 * points - 3, "convex, of constant density, distinct lines of sight")
    if kind == "plane":
        return Requirement(3, points, 2 * points + 1, "points not collinear, distinct angles, distinct amplitudes")
    order = math.ceil((math.sqrt(4 * points + 1) - 1) / 2)
    condition = "points not coplanar, distinct lines of sight"
    if not distinct_amplitudes:
        condition += ", no two points coincident along a common line"
    return Requirement(3, order, 2 * order + 1, condition)


def two_view_family(
    points: Float[Array, "k 3"], rotations: Float[Array, "2 3 3"], shear: Float[Array, ""] | float
) -> tuple[Float[Array, "k 3"], Float[Array, "2 3 3"]]:
    """Another structure, at other orientations, with the same two projections, which shows that two never suffice.

    X' = B^-1 X and A' = A B have equal projections for any B. The six equations A_i B B^T A_i^T = I leave one direction N of
    metrics B B^T = I + s N free. Along it the second view rotates about the common line, and the structure is sheared in the
    plane of both lines of sight (Huang & Lee, IEEE TPAMI 11, 536 (1989)).

    Args:
        points: X.
        rotations: R of both views.
        shear: s, strictly between -1 and 1, since N is scaled to a largest eigenvalue of magnitude 1; 0 gives X itself.

    Returns:
        Points and rotations of the other structure.
    """
    require_shape("rotations", rotations.shape, (2, 3, 3))
    return _sheared(points, rotations, jnp.asarray(shear))


@jax.jit
def _sheared(points: Array, rotations: Array, shear: Array) -> tuple[Array, Array]:
    a = rotations[:, :2].reshape(4, 3)
    six = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))

    def row(u: Array, v: Array) -> Array:
        return jnp.stack([u[i] * v[j] + (u[j] * v[i] if i != j else 0) for i, j in six])

    equations = jnp.stack([row(a[i], a[j]) for i, j in ((0, 0), (1, 1), (0, 1), (2, 2), (3, 3), (2, 3))])
    free = jnp.linalg.svd(equations)[2][-1]
    metric = jnp.zeros((3, 3))
    for number, (i, j) in enumerate(six):
        metric = metric.at[i, j].set(free[number]).at[j, i].set(free[number])
    metric = jnp.eye(3) + shear * metric / jnp.abs(jnp.linalg.eigvalsh(metric)).max()
    upgrade = jnp.linalg.cholesky(metric)
    rows = (a @ upgrade).reshape(2, 2, 3)
    turned = jnp.concatenate([rows, jnp.cross(rows[:, 0], rows[:, 1])[:, None]], axis=1)
    return jnp.linalg.solve(upgrade, points.T).T, turned


@eqx.filter_jit
def mirror(points: Float[Array, "k 3"], rotations: Float[Array, "p 3 3"]) -> tuple[Float[Array, "k 3"], Float[Array, "p 3 3"]]:
    """The mirror image of a structure, and the orientations at which it has the same projections."""
    flip = jnp.diag(jnp.asarray([1.0, 1.0, -1.0], points.dtype))
    return points @ flip, jax.vmap(lambda r: flip @ r @ flip)(rotations)
