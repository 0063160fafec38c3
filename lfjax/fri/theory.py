"""When is a structure determined by projections at unknown angles? The counts, and the ambiguities where it is not."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.errors import require, require_shape


class Requirement(NamedTuple):
    """What exact reconstruction up to O(3) takes.

    Attributes:
        projections: at unknown, different orientations.
        order: M of the features of each view: powers -M ... M (exponential) or 0 ... 2 M (polynomial) along each axis.
        samples: an axis and view, at least, with a kernel of that order and points within half a sample; each further sample
            distance of field takes one more.
        condition: on the structure.
    """

    projections: int
    order: int
    samples: int
    condition: str


def minimum_projections(points: int, *, distinct_amplitudes: bool = True, kind: str = "points") -> Requirement:
    """How many projections a structure takes, and how many samples each.

    *Points.* Three, for any K >= 4 that are not in a plane: centred, 2 P rows of rank 3 and 3 P orthonormality equations for
    the 6 numbers of a metric, of which two views leave one free (`two_view_family`). With equal amplitudes the points of
    different views are told apart by common lines, from K = 5 generically, K = 4 by trying all orders. A view needs 2-D ESPRIT
    to separate K points: M (M + 1) >= K, and 2 M + 1 features along an axis.

    *Polytopes* of N vertices: three, for the same reason; complex moments of degree 0 to 2 N - 4 give all vertices of a view.

    *Plane*: K >= 3 points that are not on a line, from one-dimensional views: three, P equations for the 3 numbers of a metric,
    and 2 K features.

    Args:
        points: K, or N vertices.
        distinct_amplitudes: whether amplitudes tell points apart.
        kind: "points", "polytope" or "plane".
    """
    kinds = ("points", "polytope", "plane")
    require(kind in kinds, "kind", kind, " or ".join(kinds))
    least = 3 if kind == "plane" else 4
    require(isinstance(points, int) and points >= least, "points", points, f"{least} or more: fewer lie in a plane (on a line)")
    if kind == "polytope":
        return Requirement(3, points - 2, 2 * points - 3, "convex, of constant density, no two lines of sight alike")
    if kind == "plane":
        return Requirement(3, points, 2 * points + 1, "not all points on a line, no two angles alike, amplitudes distinct")
    order = math.ceil((math.sqrt(4 * points + 1) - 1) / 2)
    condition = "not all points in a plane, no two orientations with one line of sight"
    if not distinct_amplitudes:
        condition += ", no two points together along a common line"
    return Requirement(3, order, 2 * order + 1, condition)


def two_view_family(
    points: Float[Array, "k 3"], rotations: Float[Array, "2 3 3"], shear: float | Array
) -> tuple[Float[Array, "k 3"], Float[Array, "2 3 3"]]:
    """Another structure, at other orientations, with the very same two projections: why two are never enough.

    X' = B^-1 X and A' = A B project alike for any B. The six equations A_i B B^T A_i^T = I leave one direction N of metrics
    B B^T = I + s N free. Along it the second view turns about the common line, and the structure is sheared in the plane of
    both lines of sight (Huang & Lee, IEEE TPAMI 11, 536 (1989)).

    Args:
        points: X.
        rotations: of both views.
        shear: s; 0 gives X itself. From -1 / max to 1 / max of the eigenvalues of N, which are scaled to at most 1.

    Returns:
        points and rotations of the other structure.
    """
    require_shape("rotations", rotations.shape, (2, 3, 3))
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


def mirror(points: Float[Array, "k 3"], rotations: Float[Array, "p 3 3"]) -> tuple[Float[Array, "k 3"], Float[Array, "p 3 3"]]:
    """The mirror image of a structure, and the orientations at which it has the same projections: handedness is not in them."""
    flip = jnp.diag(jnp.asarray([1.0, 1.0, -1.0], points.dtype))
    return points @ flip, jax.vmap(lambda r: flip @ r @ flip)(rotations)
