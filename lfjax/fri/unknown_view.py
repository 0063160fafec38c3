"""Points in space from projections at unknown angles: correspondence, factorisation, metric upgrade, refinement.

View i sees q_ik = (R_i X_k)[:2] + t_i. Three views of four points that are not in a plane fix X, R and t up to a rotation, a
translation and a reflection of all space; two views never do. (Wang, Bossema, Blu & Dragotti, arXiv:2404.09969; for the
factorisation Tomasi & Kanade, Int. J. Comput. Vis. 9, 137 (1992); two views: Huang & Lee, IEEE TPAMI 11, 536 (1989).)
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lfjax.errors import require, require_shape
from lfjax.fri.planar import Features, Sampling, recover_points
from lfjax.fri.refine import cramer_rao, least_squares, require_x64
from lfjax.rotation.matrices import from_vector

FLAT = 1e-7  # ratio of the third singular value to the first below which points count as coplanar


class Structure(NamedTuple):
    """Points in space and their views, up to O(3): projections do not tell the handedness.

    Attributes:
        points: X, centred on their mean.
        amplitudes: amplitude of each point.
        rotations: R of each view; X projects to (R_i X)[:2] + t_i.
        shifts: t of each view.
        residual: |samples - model| / |samples| of each view.
        determined: whether the views fix the structure: points not coplanar, views along different lines of sight.
        used: views that the fit used; those that fit far worse than the others are excluded.
    """

    points: Float[Array, "k 3"]
    amplitudes: Float[Array, " k"]
    rotations: Float[Array, "p 3 3"]
    shifts: Float[Array, "p 2"]
    residual: Float[Array, " p"]
    determined: Bool[Array, ""]
    used: Bool[Array, " p"]


@eqx.filter_jit
def project(
    points: Float[Array, "k 3"], rotations: Float[Array, "p 3 3"], shifts: Float[Array, "p 2"]
) -> Float[Array, "p k 2"]:
    """q_ik = (R_i X_k)[:2] + t_i."""
    return jnp.einsum("pij,kj->pki", rotations[:, :2], points) + shifts[:, None]


@eqx.filter_jit
def view_samples(
    sampling: Sampling,
    points: Float[Array, "k 3"],
    amplitudes: Float[Array, " k"],
    rotations: Float[Array, "p 3 3"],
    shifts: Float[Array, "p 2"],
) -> Float[Array, "p m n"]:
    """Samples of all views; rows are y.

    Args:
        sampling: kernel and grid.
        points: X.
        amplitudes: amplitude of each point.
        rotations: R of each view.
        shifts: t of each view.
    """
    return jax.vmap(sampling.plane, (0, None))(project(points, rotations, shifts), amplitudes)


class Factorisation(NamedTuple):
    """Points and poses from matched projections to e dimensions.

    Attributes:
        points: X, in d = e + 1 dimensions.
        rotations: R of each view.
        shifts: t of each view.
        determined: whether the views fix the points.
    """

    points: Float[Array, "k d"]
    rotations: Float[Array, "p d d"]
    shifts: Float[Array, "p e"]
    determined: Bool[Array, ""]


@eqx.filter_jit
def factorise(views: Float[Array, "p k e"]) -> Factorisation:
    """Points, rotations and shifts from matched projections; exact without noise, least squares of an affine model with it.

    Centred, the e P x K matrix of projections to e dimensions is A X, of rank e + 1. The rows of A are orthonormal in the
    metric Q of A_i Q A_i^T = I: 3 P linear equations for 6 unknowns for views of space, P for 3 for lines of a plane.

    Args:
        views: q, the points of all views in the same order; e = 2 for points in space, 1 for points in a plane.

    Raises:
        ParameterError: fewer than three views, or fewer than e + 2 points.
    """
    require_shape("views", views.shape, ("p", "k", "e"))
    p, k, e = views.shape
    require(e in (1, 2), "views", views.shape, "(p, k, 2), or (p, k, 1) for points in a plane")
    d = e + 1
    require(p >= 3, "views", p, "three or more: two never fix the structure")
    require(k > d, "points", k, f"{d + 1} or more: fewer lie in a {'plane' if d == 3 else 'line'}")
    shifts = views.mean(1)
    stacked = (views - shifts[:, None]).transpose(0, 2, 1).reshape(e * p, k)
    left, values, right = jnp.linalg.svd(stacked, full_matrices=False)
    a = (left[:, :d] * values[:d]).reshape(p, e, d)
    pairs = [(i, j) for i in range(d) for j in range(i, d)]

    def products(u: Array, v: Array) -> Array:
        return jnp.stack([u[:, i] * v[:, j] + (u[:, j] * v[:, i] if i != j else 0) for i, j in pairs], axis=-1)

    rows = [(i, j) for i in range(e) for j in range(i, e)]
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
    return Factorisation(points, rotations, shifts, spread & different & (lengths[0] > 0))


@eqx.filter_jit
def recover(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    count: int,
    features: Features,
    *,
    view_steps: int = 20,
    steps: int = 50,
) -> Structure:
    """Points with distinct amplitudes from the samples of three or more views at unknown angles.

    `planar.recover_points` finds the points of each view. The order of their amplitudes, which is the assignment of least
    total difference, matches them; `factorise` and `refine_structure` follow. Pure and compiled whole; batch by `jax.vmap`.

    Args:
        sampling: kernel and grid of all views.
        views: samples of each view; rows are y.
        count: K, the number of points, four or more.
        features: see `planar.Features`; the points of every view must lie within their reach.
        view_steps: number of refinement steps per view; 0: the algebra alone.
        steps: number of joint refinement steps on the raw samples; 0: none.

    Raises:
        ParameterError: JAX does not run in float64, too few views, or too many points for the features.
    """
    require_x64("fri.unknown_view.recover")
    require_shape("views", views.shape, ("p", sampling.size, sampling.size))
    found = jax.vmap(lambda y: recover_points(sampling, y, count, features, refine=view_steps))(views)
    order = jnp.argsort(found.amplitudes, axis=1)
    matched = jnp.take_along_axis(found.points, order[:, :, None], axis=1)
    amplitudes = jnp.take_along_axis(found.amplitudes, order, axis=1).mean(0)
    points, rotations, shifts, determined = factorise(matched)
    start = Structure(points, amplitudes, rotations, shifts, jnp.zeros(len(views)), determined, jnp.ones(len(views), bool))
    return refine_structure(sampling, views, start, steps=steps)


@eqx.filter_jit
def refine_structure(sampling: Sampling, views: Float[Array, "p m n"], start: Structure, *, steps: int = 50) -> Structure:
    """Maximum likelihood in white noise of points, amplitudes, rotations and shifts on the raw samples.

    Args:
        sampling: kernel and grid of all views.
        views: samples of each view.
        start: initial structure.
        steps: number of Levenberg-Marquardt steps; 0: only centre the structure and compute its residual.
    """

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
    """The structure with the mean of its points at the origin and its shifts adapted."""
    middle = structure.points.mean(0)
    shifts = structure.shifts + jnp.einsum("pij,j->pi", structure.rotations[:, :2], middle)
    return structure._replace(points=structure.points - middle, shifts=shifts)


@eqx.filter_jit
def align(points: Float[Array, "k 3"], truth: Float[Array, "k 3"]) -> Float[Array, "k 3"]:
    """Points rotated, possibly reflected, and translated onto the truth, in the given order (Kabsch, over O(3))."""
    a, b = points - points.mean(0), truth - truth.mean(0)
    u, _, vt = jnp.linalg.svd(a.T @ b)
    return a @ (u @ vt) + truth.mean(0)


@eqx.filter_jit
def aligned_error(points: Float[Array, "k 3"], truth: Float[Array, "k 3"]) -> Float[Array, ""]:
    """Root mean square distance to the truth after `align`; points in the same order."""
    return jnp.sqrt(jnp.mean(jnp.sum((align(points, truth) - truth) ** 2, axis=1)))


def structure_bound(
    sampling: Sampling,
    points: Float[Array, "k 3"],
    amplitudes: Float[Array, " k"],
    rotations: Float[Array, "p 3 3"],
    shifts: Float[Array, "p 2"],
    sigma: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """Cramer-Rao bound of `aligned_error`: the bound of the points, without global rotations and translations.

    Args:
        sampling: kernel and grid.
        points: X.
        amplitudes: amplitude of each point.
        rotations: R of each view.
        shifts: t of each view.
        sigma: standard deviation of white noise on the samples.
    """
    return sigma * _bound_at_unit_noise(sampling, points, amplitudes, rotations, shifts)


@eqx.filter_jit
def _bound_at_unit_noise(sampling: Sampling, points: Array, amplitudes: Array, rotations: Array, shifts: Array) -> Array:
    def model(parameters: tuple[Array, Array, Array, Array]) -> Array:
        x, a, turns, t = parameters
        return view_samples(sampling, x, a, from_vector(turns) @ rotations, t)

    bound = cramer_rao(model, (points, amplitudes, jnp.zeros((len(rotations), 3)), shifts), 1.0)
    k = len(points)
    free = [jnp.tile(axis, k) for axis in jnp.eye(3)]
    free += [jnp.cross(axis, points - points.mean(0)).ravel() for axis in jnp.eye(3)]
    basis = jnp.linalg.qr(jnp.stack(free, axis=1))[0]
    keep = jnp.eye(3 * k) - basis @ basis.T
    return jnp.sqrt(jnp.trace(keep @ bound[: 3 * k, : 3 * k] @ keep) / k)
