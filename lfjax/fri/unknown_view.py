"""Points in space from projections at unknown angles: correspondence, factorisation, metric upgrade, refinement.

View i sees q_ik = (R_i X_k)[:2] + t_i. Three views of four points that are not in a plane fix X, R and t up to a rotation, a
translation and a reflection of all space; two views never do. (Wang, Bossema, Blu & Dragotti, arXiv:2404.09969; for the
factorisation Tomasi & Kanade, Int. J. Comput. Vis. 9, 137 (1992); two views: Huang & Lee, IEEE TPAMI 11, 536 (1989).)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lfjax.errors import require, require_shape
from lfjax.fri.planar import Features, Sampling, recover_points
from lfjax.fri.refine import cramer_rao, least_squares, require_x64
from lfjax.rotation import from_vector

FLAT = 1e-7  # third singular value over the first, below which points count as lying in a plane


class Structure(NamedTuple):
    """Points in space and the views of them, up to O(3): the handedness cannot be known from projections.

    Attributes:
        points: (k, 3), centred on their mean.
        amplitudes: (k,).
        rotations: (p, 3, 3), X is seen as (R_i X)[:2] + t_i.
        shifts: (p, 2), t.
        residual: (p,), misfit of each view, relative to it.
        determined: whether the views fix the structure at all: points not in a plane, views not alike.
        used: (p,), which views counted; a view that fits far worse than the others does not.
    """

    points: Float[Array, "k 3"]
    amplitudes: Float[Array, " k"]
    rotations: Float[Array, "p 3 3"]
    shifts: Float[Array, "p 2"]
    residual: Float[Array, " p"]
    determined: Bool[Array, ""]
    used: Bool[Array, " p"]


def project(
    points: Float[Array, "k 3"], rotations: Float[Array, "p 3 3"], shifts: Float[Array, "p 2"]
) -> Float[Array, "p k 2"]:
    """q_ik = (R_i X_k)[:2] + t_i."""
    return jnp.einsum("pij,kj->pki", rotations[:, :2], points) + shifts[:, None]


def view_samples(
    sampling: Sampling,
    points: Float[Array, "k 3"],
    amplitudes: Float[Array, " k"],
    rotations: Float[Array, "p 3 3"],
    shifts: Float[Array, "p 2"],
) -> Float[Array, "p m n"]:
    """Samples of every view; rows are y."""
    return jax.vmap(sampling.plane, (0, None))(project(points, rotations, shifts), amplitudes)


def factorise(views: Float[Array, "p k e"]) -> tuple[Array, Array, Array, Array]:
    """Points, rotations and shifts from matched projections; exact without noise, least squares of an affine model with it.

    Centred, the e P x K matrix of projections to e dimensions has rank e + 1: A X. Rows of A are orthonormal in the metric Q of
    A_i Q A_i^T = I: for views of space 3 P linear equations for its 6 numbers, for lines of a plane P for 3.

    Args:
        views: q, the same point at the same place in every view; e = 2 for points in space, 1 for points in a plane.

    Returns:
        points (k, e + 1), rotations (p, e + 1, e + 1), shifts (p, e), and whether they are determined.
    """
    require_shape("views", views.shape, ("p", "k", "e"))
    p, k, seen = views.shape
    require(seen in (1, 2), "views", views.shape, "(p, k, 2), or (p, k, 1) for points in a plane")
    d = seen + 1
    require(p >= 3, "views", p, "three or more: two never fix the structure")
    require(k > d, "points", k, f"{d + 1} or more: fewer lie in a {'plane' if d == 3 else 'line'}")
    shifts = views.mean(1)
    stacked = (views - shifts[:, None]).transpose(0, 2, 1).reshape(seen * p, k)
    left, values, right = jnp.linalg.svd(stacked, full_matrices=False)
    a = (left[:, :d] * values[:d]).reshape(p, seen, d)
    pairs = [(i, j) for i in range(d) for j in range(i, d)]

    def products(u: Array, v: Array) -> Array:
        return jnp.stack([u[:, i] * v[:, j] + (u[:, j] * v[:, i] if i != j else 0) for i, j in pairs], axis=-1)

    rows = [(i, j) for i in range(seen) for j in range(i, seen)]
    equations = jnp.concatenate([products(a[:, i], a[:, j]) for i, j in rows])
    wanted = jnp.concatenate([jnp.full(p, float(i == j)) for i, j in rows])
    q, _, _, metric = jnp.linalg.lstsq(equations, wanted)
    symmetric = jnp.zeros((d, d))
    for number, (i, j) in enumerate(pairs):
        symmetric = symmetric.at[i, j].set(q[number]).at[j, i].set(q[number])
    lengths, axes = jnp.linalg.eigh(symmetric)
    scales = jnp.sqrt(jnp.maximum(lengths, 1e-12 * jnp.abs(lengths).max()))
    points = ((axes / scales).T @ right[:d]).T  # the inverse of the upgrade, axes * scales
    u, _, vt = jnp.linalg.svd(a @ (axes * scales), full_matrices=False)
    frame = u @ vt
    last = jnp.cross(frame[:, 0], frame[:, 1]) if d == 3 else frame[:, 0, ::-1] * jnp.asarray([-1.0, 1.0])
    rotations = jnp.concatenate([frame, last[:, None]], axis=1)
    spread = values[d - 1] > FLAT * values[0]
    different = metric[-1] > 1e-9 * metric[0]
    return points, rotations, shifts, spread & different & (lengths[0] > 0)


def recover(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    count: int,
    features: Features,
    *,
    view_steps: int = 20,
    steps: int = 50,
) -> Structure:
    """Points with distinct amplitudes from the samples of views at unknown angles, three or more.

    Each view by `planar.recover_points`; points are matched by the order of their amplitudes, which is the assignment of least
    total difference; then `factorise`, then `refine_structure`. Pure: jit it, and batch it by `jax.vmap`.

    Args:
        sampling: kernel and grid of all views.
        views: samples.
        count: K.
        features: see `planar.Features`; in every view all points have to lie within their reach.
        view_steps: of refinement of each view; 0 is the algebra alone.
        steps: of refinement of everything together on the raw samples; 0 leaves it out.
    """
    require_x64("fri.unknown_view.recover")
    require_shape("views", views.shape, ("p", sampling.size, sampling.size))
    found = jax.vmap(lambda y: recover_points(sampling, y, count, features, refine=view_steps))(views)
    order = jnp.argsort(found.amplitudes, axis=1)
    matched = jnp.take_along_axis(found.points, order[:, :, None], axis=1)
    amplitudes = jnp.take_along_axis(found.amplitudes, order, axis=1).mean(0)
    points, rotations, shifts, determined = factorise(matched)
    nothing = jnp.zeros(len(views))
    start = Structure(points, amplitudes, rotations, shifts, nothing, determined, nothing == 0)
    return refine_structure(sampling, views, start, steps=steps)


def refine_structure(sampling: Sampling, views: Float[Array, "p m n"], start: Structure, *, steps: int = 50) -> Structure:
    """Maximum likelihood in white noise: points, amplitudes, poses and shifts together on the raw samples."""

    def unpack(parameters: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        points, amplitudes, turns, shifts = parameters
        return points, amplitudes, from_vector(turns) @ start.rotations, shifts

    def misfit(parameters: tuple[Array, Array, Array, Array]) -> Array:
        return view_samples(sampling, *unpack(parameters)) - views

    parameters = (start.points, start.amplitudes, jnp.zeros((len(views), 3)), start.shifts)
    if steps:
        parameters, _ = least_squares(misfit, parameters, steps=steps)
    residual = jnp.linalg.norm(misfit(parameters), axis=(1, 2)) / jnp.linalg.norm(views, axis=(1, 2))
    return centred(Structure(*unpack(parameters), residual, start.determined, start.used))


def centred(structure: Structure) -> Structure:
    """With the mean of the points at the origin, and the shifts to match."""
    middle = structure.points.mean(0)
    shifts = structure.shifts + jnp.einsum("pij,j->pi", structure.rotations[:, :2], middle)
    return structure._replace(points=structure.points - middle, shifts=shifts)


def align(points: Float[Array, "k 3"], truth: Float[Array, "k 3"]) -> Float[Array, "k 3"]:
    """The points turned (or reflected) and moved onto the truth, in their given order (Kabsch, with O(3))."""
    a, b = points - points.mean(0), truth - truth.mean(0)
    u, _, vt = jnp.linalg.svd(a.T @ b)
    return a @ (u @ vt) + truth.mean(0)


def aligned_error(points: Float[Array, "k 3"], truth: Float[Array, "k 3"]) -> Float[Array, ""]:
    """Root mean square distance to the truth after `align`; points in the same order."""
    return jnp.sqrt(jnp.mean(jnp.sum((align(points, truth) - truth) ** 2, axis=1)))


def structure_bound(
    sampling: Sampling,
    points: Float[Array, "k 3"],
    amplitudes: Float[Array, " k"],
    rotations: Float[Array, "p 3 3"],
    shifts: Float[Array, "p 2"],
    sigma: float | Array,
) -> Float[Array, ""]:
    """Cramer-Rao bound of `aligned_error`: of the points, rotations and translations of all space taken out."""

    def model(parameters: tuple[Array, Array, Array, Array]) -> Array:
        x, a, turns, t = parameters
        return view_samples(sampling, x, a, from_vector(turns) @ rotations, t)

    bound = cramer_rao(model, (points, amplitudes, jnp.zeros((len(rotations), 3)), shifts), sigma)
    k = len(points)
    free = [jnp.tile(axis, k) for axis in jnp.eye(3)]
    free += [jnp.cross(axis, points - points.mean(0)).ravel() for axis in jnp.eye(3)]
    basis = jnp.linalg.qr(jnp.stack(free, axis=1))[0]
    keep = jnp.eye(3 * k) - basis @ basis.T
    return jnp.sqrt(jnp.trace(keep @ bound[: 3 * k, : 3 * k] @ keep) / k)
