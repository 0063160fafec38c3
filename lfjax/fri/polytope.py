"""Convex polytopes of constant density: exact samples of their projections, vertices from complex moments, faces by hull.

The moments of a projection g along z obey, for analytic f and the projected vertices z_v = x_v + i y_v,

    int int g(x, y) f'''(x + i y) dx dy = sum_v D_v f(z_v),

so that (j + 3)! / j! int int g (x + i y)^j = sum_v D_v z_v^(j + 3), and sum_v D_v z_v^k = 0 for k = 0, 1, 2: N vertices
from the moments of degree 0 to 2 N - 4 (Wang, Bossema, Blu & Dragotti, arXiv:2404.09969; for polygons Milanfar, Verghese,
Karl & Willsky, IEEE Trans. Signal Process. 43, 432 (1995)).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from lfjax.errors import require, require_shape
from lfjax.fri.annihilation import matrix_pencil
from lfjax.fri.matching import match_all
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.refine import FREE, least_squares, require_x64
from lfjax.fri.unknown_view import factorise, project
from lfjax.rotation import from_vector

EXACT = 1e-10  # relative misfit of a view above which refinement goes on


class Polytope(NamedTuple):
    """A convex polytope and the views of it, up to O(3).

    Attributes:
        vertices: (n, 3), centred on their mean.
        triangles: (2 n - 4, 3), of the surface, seen counter-clockwise from outside; flat faces are cut into triangles.
        density: in units of the samples.
        rotations: (p, 3, 3), a vertex X is seen at (R_i X)[:2] + t_i.
        shifts: (p, 2), t.
        residual: (p,), misfit of each view, relative to it; NaN where a vertex lies inside of the hull of the others.
        determined: whether the matched vertices fix the structure, and all of them are corners of their hull.
    """

    vertices: Float[Array, "n 3"]
    triangles: NDArray[np.int64]
    density: Float[Array, ""]
    rotations: Float[Array, "p 3 3"]
    shifts: Float[Array, "p 2"]
    residual: Float[Array, " p"]
    determined: bool


def hull(vertices: Float[Array, "n 3"]) -> NDArray[np.int64]:
    """Triangles (f, 3) of the convex hull, counter-clockwise from outside, by Qhull.

    All vertices being corners, there are 2 n - 4.

    Raises:
        ParameterError: fewer than four points, or all of them in a plane.
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


def volume(vertices: Float[Array, "n 3"], triangles: NDArray[np.int64] | Array) -> Float[Array, ""]:
    """Volume inside of a closed surface."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    return jnp.sum(a * jnp.cross(b, c)) / 6


def polytope_view(
    sampling: Sampling,
    vertices: Float[Array, "n 3"],
    triangles: NDArray[np.int64] | Array,
    density: float | Array = 1.0,
) -> Float[Array, "m n"]:
    """Exact samples of the projection along z: y[m, n] = density int phi(y / T - m) phi(x / T - n) dx dy dz over the inside.

    By Gauss' theorem a sum over faces, by Green's a sum of line integrals over their edges, whose integrands are piecewise
    polynomials: Gauss-Legendre quadrature between the knots is exact. Faces seen edge-on lose digits as 1 / n_z does, and add
    nothing at n_z = 0. Pure and differentiable in the vertices for a fixed surface; rows of the samples are y.

    Args:
        sampling: kernel, not periodic, and grid.
        vertices: in the frame of the view.
        triangles: see `hull`.
        density: of the inside.
    """
    kernel = sampling.kernel
    require(kernel.period is None, "kernel", kernel.name, "one that is not periodic")
    total, moment = kernel.integral(), kernel.times_x().integral()
    triangles = jnp.asarray(triangles)
    corners = vertices[triangles] / sampling.spacing
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = jnp.cross(first, second)
    seen = jnp.abs(normal[:, 2]) > 1e-12 * jnp.linalg.norm(normal, axis=1)
    slope = -normal[:, :2] / jnp.where(seen, normal[:, 2], 1)[:, None]  # z = height + slope . (x, y)
    height = corners[:, 0, 2] - jnp.sum(slope * corners[:, 0, :2], axis=1)
    plane = jnp.where(seen[:, None], jnp.column_stack([height, slope]), 0)

    # every edge belongs to two faces, which run along it in opposite directions: only the difference of their planes counts
    directed = jnp.stack([triangles, jnp.roll(triangles, -1, axis=1)], axis=-1).reshape(-1, 2)
    order = jnp.argsort(jnp.min(directed, axis=1) * len(vertices) + jnp.max(directed, axis=1))
    here, there = order[0::2], order[1::2]
    planes = jnp.repeat(plane, 3, axis=0)
    planes, ends = planes[here] - planes[there], vertices[directed[here], :2] / sampling.spacing
    knots = jnp.asarray(_knots(sampling))
    nodes, weights = (jnp.asarray(v) for v in legendre.leggauss(kernel.table.shape[1] + 1))
    positions = jnp.asarray(sampling.positions)

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
    return density * sampling.spacing**3 * jnp.sum(edges, axis=0)


@functools.lru_cache
def _lines(start: float, width: float, cells: int, size: int) -> NDArray[np.float64]:
    positions = np.arange(size) - (size - 1) / 2
    every = (positions[:, None] + start + width * np.arange(cells + 1)).ravel()
    return np.unique(np.round(every, 9))


def _knots(sampling: Sampling) -> NDArray[np.float64]:
    """Where the kernel of any sample has a knot, along an axis."""
    kernel = sampling.kernel
    return _lines(kernel.start, kernel.width, kernel.table.shape[0], sampling.size)


def complex_moments(features: Features, samples: Float[Array, "m n"]) -> Complex[Array, " j"]:
    """int int g (x + i y)^j / scale^j, j = 0 ... 2 M, from polynomial features, scale = reach T."""
    require(features.step == 0, "features", "exponential", "polynomial: Features.polynomial")
    powers = features(samples)
    degree = len(powers) - 1
    return jnp.stack([sum(math.comb(j, q) * 1j ** (j - q) * powers[j - q, q] for q in range(j + 1)) for j in range(degree + 1)])


def projected_vertices(sampling: Sampling, samples: Float[Array, "m n"], count: int, features: Features) -> Float[Array, "v 2"]:
    """All vertices of a polytope in a view of it, also those inside of the outline, from its complex moments.

    Args:
        sampling: kernel and grid.
        samples: (m, n), rows are y.
        count: N.
        features: polynomial, of order N - 2 or more (degree 2 N - 4).
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
    vertices: Float[Array, "n 3"],
    triangles: NDArray[np.int64] | Array,
    density: float | Array,
    rotations: Float[Array, "p 3 3"],
    shifts: Float[Array, "p 2"],
) -> Float[Array, "p m n"]:
    """`polytope_view` from every side; `lax.map` over the views."""

    def one(pose: tuple[Array, Array]) -> Array:
        turned = vertices @ pose[0].T + jnp.concatenate([pose[1], jnp.zeros(1)])
        return polytope_view(sampling, turned, triangles, density)

    return jax.lax.map(one, (rotations, shifts))


@functools.partial(jax.jit, static_argnames=("count",))
def _vertices(sampling: Sampling, views: Array, features: Features, count: int) -> tuple[Array, Array, Array, Array]:
    """Vertices in space, rotations, shifts, determined; by algebra alone."""
    found = jax.vmap(lambda y: projected_vertices(sampling, y, count, features))(views)
    return factorise(match_all(found))


@functools.partial(jax.jit, static_argnames=("steps", "polish"))
def refine_polytope(
    sampling: Sampling,
    views: Float[Array, "p m n"],
    vertices: Float[Array, "n 3"],
    triangles: NDArray[np.int64] | Array,
    rotations: Float[Array, "p 3 3"],
    shifts: Float[Array, "p 2"],
    *,
    steps: int = 10,
    polish: int = 3,
) -> tuple[Array, Array, Array, Array, Array]:
    """Maximum likelihood in white noise of vertices, density and poses on the raw samples, for a fixed surface.

    `steps` of Levenberg-Marquardt at most, then `polish` of Gauss-Newton.

    Returns:
        vertices, density, rotations, shifts, and the misfit of each view, relative to it.
    """

    def model(vertices: Array, density: Array, turns: Array, shifts: Array) -> Array:
        return polytope_views(sampling, vertices, triangles, density, from_vector(turns) @ rotations, shifts)

    flat = polytope_views(sampling, vertices, triangles, 1.0, rotations, shifts)
    found = (vertices, jnp.sum(flat * views) / jnp.sum(flat**2), jnp.zeros((len(views), 3)), shifts)
    if steps:
        found = least_squares(lambda q: model(*q) - views, found, steps=steps, polish=0)[0]
    state = (found[0], found[1], from_vector(found[2]) @ rotations, found[3])
    state = jax.lax.fori_loop(0, polish, lambda _, here: _newton(sampling, views, triangles, *here), state)
    misfit = polytope_views(sampling, state[0], triangles, *state[1:]) - views
    return *state, jnp.linalg.norm(misfit, axis=(1, 2)) / jnp.linalg.norm(views, axis=(1, 2))


def _newton(
    sampling: Sampling,
    views: Array,
    triangles: NDArray[np.int64] | Array,
    vertices: Array,
    density: Array,
    rotations: Array,
    shifts: Array,
) -> tuple[Array, Array, Array, Array]:
    """One step of Gauss-Newton, kept if the misfit falls. A view depends on its own pose only, and on the turned vertices."""
    p, n = len(views), len(vertices)

    def linear(pose: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        turn, shift = pose
        middle = vertices @ turn.T
        shape = middle + jnp.append(shift, 0.0)
        image = polytope_view(sampling, shape, triangles, density)
        slopes = jax.jacfwd(lambda x: polytope_view(sampling, x, triangles, density))(shape).reshape(-1, n, 3)
        cross = jnp.cross(jnp.eye(3)[:, None], middle[None])  # (turn, vertex, xyz)
        by_pose = [jnp.einsum("svi,tvi->st", slopes, cross), jnp.sum(slopes, axis=1)[:, :2]]
        shared = [jnp.einsum("svi,ij->svj", slopes, turn).reshape(-1, 3 * n), image.reshape(-1, 1) / density]
        return image, jnp.concatenate(shared, axis=1), jnp.concatenate(by_pose, axis=1)

    images, shared, own = jax.lax.map(linear, (rotations, shifts))
    block = jnp.einsum("psq,pr->psrq", own, jnp.eye(p)).reshape(own.shape[0], own.shape[1], 5 * p)
    jacobian = jnp.concatenate([shared, block], axis=2).reshape(views.size, -1)
    step = -jnp.linalg.lstsq(jacobian, (images - views).ravel(), rcond=FREE)[0]
    poses = step[3 * n + 1 :].reshape(p, 5)
    new = (
        vertices + step[: 3 * n].reshape(n, 3),
        density + step[3 * n],
        from_vector(poses[:, :3]) @ rotations,
        shifts + poses[:, 3:],
    )
    better = jnp.sum((polytope_views(sampling, new[0], triangles, *new[1:]) - views) ** 2) < jnp.sum((images - views) ** 2)
    return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, (vertices, density, rotations, shifts))


def recover_polytope(
    sampling: Sampling, views: Float[Array, "p m n"], count: int, features: Features, *, steps: int = 30
) -> Polytope:
    """A convex polytope of constant density from the samples of three or more views at unknown angles.

    Projected vertices by `projected_vertices`, matched by `matching.match_all`, `factorise`, `hull`, then maximum likelihood
    on the raw samples. Not to be called under jit: Qhull is not JAX.

    Args:
        sampling: kernel, a B-spline of degree 2 N - 4 or more for exactness, and grid.
        views: samples.
        count: N, vertices.
        features: polynomial, of order N - 2 or more.
        steps: of Levenberg-Marquardt where a few of Gauss-Newton do not suffice.
    """
    require_x64("recover_polytope")
    require_shape("views", views.shape, ("p", sampling.size, sampling.size))
    require(len(views) >= 3, "views", len(views), "three or more")
    require(count >= 4, "count", count, "four vertices or more")
    require(bool(jnp.all(jnp.isfinite(views))), "views", "NaN or infinity", "finite numbers")
    vertices, rotations, shifts, determined = _vertices(sampling, views, features, count)
    require(bool(jnp.all(jnp.isfinite(vertices))), "views", "no vertices", f"views of a polytope with {count}")
    triangles = hull(vertices)
    convex = len(triangles) == 2 * count - 4
    if not convex:
        unknown = jnp.full(len(views) + 1, jnp.nan)
        return centred_polytope(triangles, False, vertices, unknown[0], rotations, shifts, unknown[1:])
    poses = (triangles, rotations, shifts)
    found = refine_polytope(sampling, views, vertices, *poses, steps=0)
    if steps and float(found[-1].max()) > EXACT:  # the start was too far for Gauss-Newton alone
        found = refine_polytope(sampling, views, vertices, *poses, steps=steps)
    return centred_polytope(triangles, bool(determined) and convex, *found)


def centred_polytope(
    triangles: NDArray[np.int64],
    determined: bool,
    vertices: Array,
    density: Array,
    rotations: Array,
    shifts: Array,
    residual: Array,
) -> Polytope:
    """With the mean of the vertices at the origin, and the shifts to match."""
    middle = vertices.mean(0)
    shifts = shifts + project(middle[None], rotations, jnp.zeros_like(shifts))[:, 0]
    return Polytope(vertices - middle, triangles, density, rotations, shifts, residual, determined)
