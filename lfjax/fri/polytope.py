"""Convex polytopes of constant density: exact samples of their projections, vertices from complex moments, faces by hull.

The moments of a projection g along z obey, for analytic f and the projected vertices z_v = x_v + i y_v,

    int int g(x, y) f'''(x + i y) dx dy = sum_v D_v f(z_v),

so that (j + 3)! / j! int int g (x + i y)^j = sum_v D_v z_v^(j + 3), and sum_v D_v z_v^k = 0 for k = 0, 1, 2: N vertices
from the moments of degree 0 to 2 N - 4 (Wang, Bossema, Blu & Dragotti, arXiv:2404.09969; for polygons Milanfar, Verghese,
Karl & Willsky, IEEE Trans. Signal Process. 43, 432 (1995)).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, Int
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from lfjax.errors import require, require_shape
from lfjax.fri.annihilation import matrix_pencil
from lfjax.fri.matching import match_all
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.refine import FREE, least_squares, require_x64
from lfjax.fri.unknown_view import Factorisation, factorise, project
from lfjax.rotation.matrices import from_vector

EXACT = 1e-10  # relative misfit of a view above which Levenberg-Marquardt follows


class Polytope(NamedTuple):
    """A convex polytope and its views, up to O(3).

    Attributes:
        vertices: X, centred on their mean.
        triangles: vertex indices of the 2 n - 4 triangles of the surface, counter-clockwise from outside; larger faces are cut
            into triangles.
        density: density, in units of the samples.
        rotations: R of each view; X projects to (R_i X)[:2] + t_i.
        shifts: t of each view.
        residual: |samples - model| / |samples| of each view; NaN where a vertex lies inside the hull of the others.
        determined: whether the matched vertices fix the structure, and all of them are corners of their hull.
    """

    vertices: Float[Array, "n 3"]
    triangles: NDArray[np.int64]
    density: Float[Array, ""]
    rotations: Float[Array, "p 3 3"]
    shifts: Float[Array, "p 2"]
    residual: Float[Array, " p"]
    determined: bool


def hull(vertices: Float[ArrayLike, "n 3"]) -> NDArray[np.int64]:
    """Triangles (f, 3) of the convex hull, counter-clockwise from outside, by Qhull.

    There are 2 n - 4 triangles if all vertices are corners.

    Raises:
        ParameterError: fewer than four points, coplanar points, NaN or infinity.
    """
    points = np.asarray(vertices, np.float64)
    require_shape("vertices", points.shape, ("n", 3))
    require(bool(np.all(np.isfinite(points))), "vertices", "NaN or infinity", "finite numbers")
    try:
        found = ConvexHull(points, qhull_options="Qt")
    except (QhullError, ValueError) as e:
        require(False, "vertices", f"{len(points)} points", f"four or more, not in a plane ({str(e).splitlines()[0]})")
        raise
    triangles = found.simplices.astype(np.int64)
    corners = points[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = np.einsum("ij,ij->i", normals, found.equations[:, :3]) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return triangles


@eqx.filter_jit
def volume(vertices: Float[Array, "n 3"], triangles: Int[ArrayLike, "f 3"]) -> Float[Array, ""]:
    """Volume inside a closed surface of triangles, counter-clockwise from outside."""
    triangles = jnp.asarray(triangles)
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    return jnp.sum(a * jnp.cross(b, c)) / 6


def polytope_view(
    sampling: Sampling,
    vertices: Float[Array, "v 3"],
    triangles: Int[ArrayLike, "f 3"],
    density: Float[ArrayLike, ""] = 1.0,
) -> Float[Array, "m n"]:
    """Exact samples of the projection along z: y[m, n] = density int phi(y / T - m) phi(x / T - n) dx dy dz over the inside.

    Gauss' theorem gives a sum over faces, Green's a sum of line integrals over their edges, whose integrands are piecewise
    polynomials: Gauss-Legendre quadrature between the knots is exact. Faces nearly parallel to z lose digits as 1 / n_z, and
    contribute nothing at n_z = 0. Pure, and differentiable in the vertices for a fixed surface; rows of the samples are y.

    Args:
        sampling: kernel, not periodic, and grid.
        vertices: (x, y, z) in the frame of the view.
        triangles: vertex indices, see `hull`.
        density: density inside.

    Raises:
        ParameterError: a periodic kernel.
    """
    return jnp.asarray(density) * _view_at_unit_density(sampling, vertices, jnp.asarray(triangles))


@eqx.filter_jit
def _view_at_unit_density(sampling: Sampling, vertices: Array, triangles: Array) -> Array:
    kernel = sampling.kernel
    require(kernel.period is None, "kernel", kernel.name, "one that is not periodic")
    total, moment = kernel.integral(), kernel.times_x().integral()
    corners = vertices[triangles] / sampling.spacing
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = jnp.cross(first, second)
    seen = jnp.abs(normal[:, 2]) > 1e-12 * jnp.linalg.norm(normal, axis=1)
    slope = -normal[:, :2] / jnp.where(seen, normal[:, 2], 1)[:, None]  # z = height + slope . (x, y)
    height = corners[:, 0, 2] - jnp.sum(slope * corners[:, 0, :2], axis=1)
    plane = jnp.where(seen[:, None], jnp.column_stack([height, slope]), 0)

    # every edge belongs to two faces, which traverse it in opposite directions: only the difference of their planes counts
    directed = jnp.stack([triangles, jnp.roll(triangles, -1, axis=1)], axis=-1).reshape(-1, 2)
    order = jnp.argsort(jnp.min(directed, axis=1) * len(vertices) + jnp.max(directed, axis=1))
    here, there = order[0::2], order[1::2]
    planes = jnp.repeat(plane, 3, axis=0)
    planes, ends = planes[here] - planes[there], vertices[directed[here], :2] / sampling.spacing
    knots, positions = _knots(sampling), sampling.positions
    nodes, weights = legendre.leggauss(kernel.table.shape[1] + 1)

    def edge(start: Array, end: Array, plane: Array) -> Array:
        step = end - start
        crossings = (knots[:, None] - start) / jnp.where(step == 0, 1, step)
        cuts = jnp.sort(jnp.clip(jnp.where(step == 0, 0, crossings), 0, 1).ravel())
        cuts = jax.lax.stop_gradient(jnp.concatenate([jnp.zeros(1), cuts, jnp.ones(1)]))
        half = jnp.diff(cuts) / 2
        t = ((cuts[:-1] + half)[:, None] + half[:, None] * nodes).ravel()
        x, y = (start + t[:, None] * step).T
        weight = (half[:, None] * weights).ravel() * step[1]
        along = x[:, None] - positions
        inside = total(along)
        lifted = (plane[0] + plane[2] * y)[:, None] * inside + plane[1] * (moment(along) + positions * inside)
        return kernel(y[:, None] - positions).T @ (weight[:, None] * lifted)

    edges = jax.vmap(edge)(ends[:, 0], ends[:, 1], planes)
    return sampling.spacing**3 * jnp.sum(edges, axis=0)


def _knots(sampling: Sampling) -> NDArray[np.float64]:
    """Positions along an axis at which the kernel of any sample has a knot."""
    kernel = sampling.kernel
    ends = kernel.start + kernel.width * np.arange(kernel.table.shape[0] + 1)
    return np.unique(np.round(np.add.outer(sampling.positions, ends), 9))


@eqx.filter_jit
def complex_moments(features: Features, samples: Float[Array, "n n"]) -> Complex[Array, " j"]:
    """Complex moments, int int g (x + i y)^j / (reach T)^j dx dy for j = 0 ... 2 M, from polynomial features."""
    require(features.step == 0, "features", "exponential", "polynomial: Features.polynomial")
    powers = features(samples)
    degree = len(powers) - 1
    return jnp.stack([sum(math.comb(j, q) * 1j ** (j - q) * powers[j - q, q] for q in range(j + 1)) for j in range(degree + 1)])


@eqx.filter_jit
def projected_vertices(sampling: Sampling, samples: Float[Array, "n n"], count: int, features: Features) -> Float[Array, "v 2"]:
    """All projected vertices of a polytope, also those inside the outline, from the complex moments of a view.

    Args:
        sampling: kernel and grid.
        samples: samples on that grid; rows are y.
        count: N, the number of vertices.
        features: polynomial features, of order N - 2 or more (degree 2 N - 4).

    Raises:
        ParameterError: JAX does not run in float64, or features of too low an order or of another kind.
    """
    require_x64("projected_vertices")
    require(features.order >= count - 2, "features", f"of order {features.order}", f"of order N - 2 = {count - 2} or more")
    moments = complex_moments(features, samples)[: 2 * count - 3]
    middle = moments[1] / moments[0]
    degree = len(moments) - 1
    about = jnp.stack(
        [sum(math.comb(j, q) * moments[q] * (-middle) ** (j - q) for q in range(j + 1)) for j in range(degree + 1)]
    )
    factors = np.array([(j + 3) * (j + 2) * (j + 1) for j in range(degree + 1)], float)
    sums = jnp.concatenate([jnp.zeros(3), factors * about])
    j = np.arange(degree + 4)
    size = jnp.max((jnp.abs(sums[4:]) / jnp.abs(sums[3])) ** (1 / (j[4:] - 3)))
    nodes = matrix_pencil(sums / size**j, count) * size + middle
    return jnp.stack([nodes.real, nodes.imag], axis=-1) * features.reach * sampling.spacing


def polytope_views(
    sampling: Sampling,
    vertices: Float[Array, "v 3"],
    triangles: Int[ArrayLike, "f 3"],
    density: Float[ArrayLike, ""],
    rotations: Float[Array, "p 3 3"],
    shifts: Float[Array, "p 2"],
) -> Float[Array, "p m n"]:
    """`polytope_view` of all views, one after another.

    Args:
        sampling: kernel, not periodic, and grid.
        vertices: X.
        triangles: vertex indices, see `hull`.
        density: density inside.
        rotations: R of each view.
        shifts: t of each view.
    """
    return jnp.asarray(density) * _views_at_unit_density(sampling, vertices, jnp.asarray(triangles), rotations, shifts)


@eqx.filter_jit
def _views_at_unit_density(
    sampling: Sampling, vertices: Array, triangles: Array, rotations: Array, shifts: Array
) -> Float[Array, "p m n"]:
    def one(pose: tuple[Array, Array]) -> Array:
        rotation, shift = pose
        return _view_at_unit_density(sampling, vertices @ rotation.T + jnp.append(shift, 0.0), triangles)

    return jax.lax.map(one, (rotations, shifts))


@eqx.filter_jit
def _vertices(sampling: Sampling, views: Float[Array, "p n n"], features: Features, count: int) -> Factorisation:
    """Vertices and poses by algebra alone."""
    found = jax.vmap(lambda y: projected_vertices(sampling, y, count, features))(views)
    return factorise(match_all(found))


class _Estimate(NamedTuple):
    """A polytope with its poses, and its exact samples."""

    vertices: Float[Array, "v 3"]
    density: Float[Array, ""]
    rotations: Float[Array, "p 3 3"]
    shifts: Float[Array, "p 2"]
    images: Float[Array, "p m n"]


@eqx.filter_jit
def refine_polytope(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    vertices: Float[Array, "v 3"],
    triangles: Int[ArrayLike, "f 3"],
    rotations: Float[Array, "p 3 3"],
    shifts: Float[Array, "p 2"],
    *,
    steps: int = 10,
    polish: int = 3,
) -> tuple[Array, Array, Array, Array, Array]:
    """Maximum likelihood in white noise of vertices, density and poses on the raw samples, for a fixed surface.

    Args:
        sampling: kernel, not periodic, and grid of all views.
        views: samples of each view.
        vertices: initial X.
        triangles: vertex indices of the surface, see `hull`.
        rotations: initial R of each view.
        shifts: initial t of each view.
        steps: largest number of Levenberg-Marquardt steps; 0: none.
        polish: number of Gauss-Newton steps after them.

    Returns:
        Vertices, density, rotations, shifts, and |samples - model| / |samples| of each view.
    """
    triangles = jnp.asarray(triangles)

    def model(vertices: Array, density: Array, turns: Array, shifts: Array) -> Array:
        return polytope_views(sampling, vertices, triangles, density, from_vector(turns) @ rotations, shifts)

    images = _views_at_unit_density(sampling, vertices, triangles, rotations, shifts)
    density = jnp.sum(images * views) / jnp.sum(images**2)
    estimate = _Estimate(vertices, density, rotations, shifts, density * images)
    if steps:
        start = (vertices, density, jnp.zeros((len(views), 3)), shifts)
        found = least_squares(lambda q: model(*q) - views, start, steps=steps, polish=0)[0]
        estimate = _Estimate(found[0], found[1], from_vector(found[2]) @ rotations, found[3], model(*found))
    estimate = jax.lax.fori_loop(0, polish, lambda _, e: _gauss_newton(sampling, views, triangles, e), estimate)
    residual = jnp.linalg.norm(estimate.images - views, axis=(1, 2)) / jnp.linalg.norm(views, axis=(1, 2))
    return *estimate[:4], residual


def _gauss_newton(sampling: Sampling, views: Array, triangles: Array, estimate: _Estimate) -> _Estimate:
    """One Gauss-Newton step, kept if the misfit falls. A view depends only on its own pose and on the rotated vertices."""
    vertices, density, rotations, shifts, images = estimate
    p, n = len(views), len(vertices)

    def linearise(pose: tuple[Array, Array]) -> tuple[Array, Array]:
        """Derivatives of a view by the vertices, and by its rotation vector and shift."""
        rotation, shift = pose
        rotated = vertices @ rotation.T
        shape = rotated + jnp.append(shift, 0.0)
        slopes = density * jax.jacfwd(lambda x: _view_at_unit_density(sampling, x, triangles))(shape).reshape(-1, n, 3)
        cross = jnp.cross(jnp.eye(3)[:, None], rotated[None])  # (rotation vector, vertex, xyz)
        by_pose = [jnp.einsum("svi,tvi->st", slopes, cross), jnp.sum(slopes, axis=1)[:, :2]]
        return jnp.einsum("svi,ij->svj", slopes, rotation).reshape(-1, 3 * n), jnp.concatenate(by_pose, axis=1)

    by_vertices, by_pose = jax.lax.map(linearise, (rotations, shifts))
    shared = jnp.concatenate([by_vertices, images.reshape(p, -1, 1) / density], axis=2)
    block = jnp.einsum("psq,pr->psrq", by_pose, jnp.eye(p)).reshape(p, -1, 5 * p)
    jacobian = jnp.concatenate([shared, block], axis=2).reshape(views.size, -1)
    step = -jnp.linalg.lstsq(jacobian, (images - views).ravel(), rcond=FREE)[0]
    poses = step[3 * n + 1 :].reshape(p, 5)
    moved = (
        vertices + step[: 3 * n].reshape(n, 3),
        density + step[3 * n],
        from_vector(poses[:, :3]) @ rotations,
        shifts + poses[:, 3:],
    )
    new = _Estimate(*moved, polytope_views(sampling, moved[0], triangles, *moved[1:]))
    better = jnp.sum((new.images - views) ** 2) < jnp.sum((images - views) ** 2)
    return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, estimate)


def recover_polytope(
    sampling: Sampling, views: Float[Array, "p m n"], count: int, features: Features, *, steps: int = 30
) -> Polytope:
    """A convex polytope of constant density from the samples of three or more views at unknown angles.

    Projected vertices by `projected_vertices`, matched by `matching.match_all`, `factorise`, `hull`, then maximum likelihood
    on the raw samples. Do not call it under jit: Qhull is not JAX.

    Args:
        sampling: kernel, a B-spline of degree 2 N - 4 or more for exactness, and grid of all views.
        views: samples of three or more views; rows are y.
        count: N, the number of vertices.
        features: polynomial features, of order N - 2 or more.
        steps: largest number of Levenberg-Marquardt steps, taken where a few of Gauss-Newton do not suffice.

    Raises:
        ParameterError: JAX does not run in float64, too few views or vertices, views that are not finite or give no vertices.
        ShapeError: views of another size than the grid.
    """
    require_x64("recover_polytope")
    require_shape("views", views.shape, ("p", sampling.size, sampling.size))
    require(len(views) >= 3, "views", len(views), "three or more")
    require(count >= 4, "count", count, "four vertices or more")
    require(bool(np.all(np.isfinite(views))), "views", "NaN or infinity", "finite numbers")
    vertices, rotations, shifts, determined = _vertices(sampling, views, features, count)
    require(bool(np.all(np.isfinite(vertices))), "views", "no vertices", f"views of a polytope with {count}")
    triangles = hull(vertices)
    convex = len(triangles) == 2 * count - 4
    if not convex:
        unknown = (jnp.asarray(np.nan), rotations, shifts, jnp.asarray(np.full(len(views), np.nan)))
        return centred_polytope(triangles, False, vertices, *unknown)
    poses = (triangles, rotations, shifts)
    found = refine_polytope(sampling, views, vertices, *poses, steps=0)
    if steps and float(found[-1].max()) > EXACT:  # the start was too far for Gauss-Newton alone
        found = refine_polytope(sampling, views, vertices, *poses, steps=steps)
    return centred_polytope(triangles, bool(determined), *found)


def centred_polytope(
    triangles: NDArray[np.int64],
    determined: bool,
    vertices: Float[Array, "v 3"],
    density: Float[Array, ""],
    rotations: Float[Array, "p 3 3"],
    shifts: Float[Array, "p 2"],
    residual: Float[Array, " p"],
) -> Polytope:
    """The polytope with the mean of its vertices at the origin and its shifts adapted."""
    vertices, shifts = _centred(vertices, rotations, shifts)
    return Polytope(vertices, triangles, density, rotations, shifts, residual, determined)


@jax.jit
def _centred(vertices: Array, rotations: Array, shifts: Array) -> tuple[Array, Array]:
    middle = vertices.mean(0)
    return vertices - middle, shifts + project(middle[None], rotations, jnp.zeros_like(shifts))[:, 0]
