"""Finite rate of innovation, solids: polytopes, tetrahedra in noise, smooth bodies.

`make bench-fri_solids` writes results/fri_solids.json. It runs in float64.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from benchmarks.common import Report, arguments
from lfjax.fri.kernels import bspline, espline
from lfjax.fri.multistart import Effort, Fit, fit, refine_fit
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.polytope import hull, polytope_views, recover_polytope
from lfjax.fri.simplex import recover_tetrahedron
from lfjax.fri.star import Star, StarModel
from lfjax.fri.unknown_view import aligned_error, view_samples
from lfjax.progress import track
from lfjax.rotation import align_poses, random_rotations

TOY = Effort(starts=2, rounds=1, kept=1, more=0, orientations=100, last=2)


@jax.jit
def sorted_gap(points: Array, truth: Array) -> Array:
    """Largest difference of the sorted distances between points, which needs no correspondence."""
    gaps = [jnp.sort(jnp.linalg.norm(x[:, None] - x[None], axis=-1).ravel()) for x in (points, truth)]
    return jnp.abs(gaps[0] - gaps[1]).max()


def solid(name: str, seed: int, radius: float) -> NDArray[np.float64]:
    """Vertices of a random polytope, scaled into a ball: a random affine image of a regular one, or random points."""
    rng = np.random.default_rng(seed)
    turn = np.arange(3) * 2 * np.pi / 3
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    square = np.array([[1, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]], float)
    regular = {
        "tetrahedron": rng.normal(size=(4, 3)),
        "pyramid": np.concatenate([square, [[0, 0, 1.5]]]),
        "prism": np.concatenate([np.column_stack([ring, np.full(3, z)]) for z in (-0.8, 0.8)]),
        "octahedron": np.concatenate([np.eye(3), -np.eye(3)]),
        "box": np.array(list(itertools.product((-1.0, 1.0), repeat=3))),
        "eight points of a sphere": rng.normal(size=(8, 3)),
    }[name]
    if name == "eight points of a sphere":
        regular /= np.linalg.norm(regular, axis=1, keepdims=True)
    elif name != "tetrahedron":
        regular = regular @ (np.eye(3) + 0.4 * rng.uniform(-1, 1, size=(3, 3)))
    regular = regular - regular.mean(0)
    return radius * regular / np.linalg.norm(regular, axis=1).max()


def polytopes(report: Report, toy: bool, cases: list[tuple[str, int, float]]) -> None:
    """Convex polytopes from three views; errors are relative to the radius."""
    number = 1 if toy else 50
    for name, count, radius in cases[:1] if toy else cases:
        degree = 2 * count - 4
        sampling = Sampling(bspline(degree), degree + 2 + int(2 * radius))
        features, errors, flags = Features.polynomial(sampling, count - 2), [], []

        @jax.jit
        def render(key: Array, vertices: Array, faces: Array, sampling: Sampling = sampling) -> Array:
            a, b = jax.random.split(key)
            shifts = jax.random.uniform(b, (3, 2), minval=-0.3, maxval=0.3)
            return polytope_views(sampling, vertices, faces, 1.0, random_rotations(a, 3), shifts)

        for seed in track(range(number), f"{name}"):
            vertices = jnp.asarray(solid(name, seed, 0.95 * radius))
            views = render(jax.random.key(seed), vertices, hull(vertices))
            found = recover_polytope(sampling, views, count, features)
            errors.append(float(sorted_gap(found.vertices, vertices)) / radius)
            flags.append(not (float(found.residual.max()) <= 1e-10 and found.determined))
        error, flagged = np.array(errors), np.array(flags)
        title = f"polytope, {name}, {count} vertices, P = 3, {sampling.size}^2 samples, {number} problems"
        report.at_least(f"{title}: exact to 1e-9", np.mean(error <= 1e-9), 1.0)
        report.row(f"{title}: median error", float(np.median(error)), "1")
        report.at_most(f"{title}: wrong and not flagged", np.sum((error > 1e-9) & ~flagged), 0)
        report.write()  # what there is so far


def tetrahedra(report: Report) -> None:
    """Tetrahedra in noise, without an initial estimate."""
    sampling, radius, number = Sampling(bspline(3), 15), 4.5, 50
    pairings = jnp.asarray(list(itertools.permutations(range(4))))

    @jax.jit
    def render(key: Array, vertices: Array, faces: Array) -> Array:
        a, b, c = jax.random.split(key, 3)
        shifts = jax.random.uniform(b, (10, 2), minval=-0.4, maxval=0.4)
        clean = polytope_views(sampling, vertices, faces, 1.0, random_rotations(a, 10), shifts)
        return clean + jnp.sqrt(jnp.mean(clean**2)) * 10 ** (-40 / 20) * jax.random.normal(c, clean.shape)

    score = jax.jit(lambda x, v: jax.vmap(lambda order: aligned_error(x[order], v))(pairings).min())
    errors = []
    for seed in track(range(number), "tetrahedra"):
        vertices = jnp.asarray(solid("tetrahedron", seed, radius))
        noisy = render(jax.random.key(seed), vertices, hull(vertices))
        found = recover_tetrahedron(sampling, noisy, key=jax.random.key(5))
        errors.append(float(score(found.vertices, vertices)) / radius)
    title = f"tetrahedron, 40 dB, P = 10, 15^2 samples, no start, {number} problems"
    report.at_least(f"{title}: vertices right to 1e-2 of the radius", np.mean(np.array(errors) <= 1e-2), 0.9)
    report.row(f"{title}: median error", float(np.median(errors)), "1")


def bodies(report: Report, toy: bool) -> None:
    """Smooth star-shaped bodies of degree 3 (14 numbers) at unknown angles."""
    sampling = Sampling(espline(0.55 * np.arange(-3, 4)), 13)
    coarse, fine, number = StarModel(3), StarModel(3, 12, 6), 1 if toy else 10
    effort = Effort(starts=8, rounds=3, kept=3, more=2, orientations=500, last=20)
    effort, errors = TOY if toy else effort, []

    @jax.jit
    def render(key: Array) -> tuple[Array, Star, Array, Array]:
        a, b, c, d, e = jax.random.split(key, 5)
        bumps = 0.12 * jax.random.normal(a, (coarse.basis.shape[1] - 1,)) * np.sqrt(5 / 12)
        truth = Star(2.3 * np.sqrt(4 * np.pi) * jnp.concatenate([jnp.ones(1), bumps]), jnp.asarray(1.0))
        rotations, shifts = random_rotations(b, 10), jax.random.uniform(c, (10, 2), minval=-0.4, maxval=0.4)
        clean = view_samples(sampling, *fine.cloud(truth), rotations, shifts)
        sigma = jnp.sqrt(jnp.mean(clean**2)) * 10 ** (-30 / 20)
        return clean + sigma * jax.random.normal(d, clean.shape), truth, rotations, e

    for seed in track(range(number), "bodies"):
        noisy, truth, rotations, key = render(jax.random.key(seed))
        found = fit(sampling, noisy, coarse, key=key, effort=effort)
        found = refine_fit(sampling, noisy, fine, found, steps=10)
        errors.append(_radius_error(fine, truth, rotations, found))
    title = f"smooth body of degree 3, 30 dB, P = 10, no start, {number} problems: error of the radius"
    report.row(f"{title}, median", float(np.median(errors)), "1")
    report.row(f"{title}, largest", float(np.max(errors)), "1")


def _radius_error(model: StarModel, truth: Star, rotations: Array, found: Fit) -> float:
    """Relative L2 error of r(u), after the rotation or reflection that aligns the poses with the true ones."""
    turn, mirrored, _ = align_poses(found.rotations, rotations, robust=False)
    mirror = np.diag([1.0, 1.0, -1.0 if bool(mirrored) else 1.0])
    true, weights = np.asarray(model.radius(truth)), np.asarray(model.weights)
    radius = np.asarray(model.radius(found.parameters, np.asarray(model.directions) @ np.asarray(turn) @ mirror))
    return float(np.sqrt(weights @ (radius - true) ** 2 / (weights @ true**2)))


def main() -> None:
    """All figures."""
    toy = arguments(__doc__ or "").toy
    report = Report("fri_solids", toy)
    with jax.enable_x64(True):
        polytopes(report, toy, [("tetrahedron", 4, 6.0), ("pyramid", 5, 8.0), ("prism", 6, 8.0), ("octahedron", 6, 8.0)])
        if not toy:  # `fit` and `hull` run in the other two parts; compiling them for tetrahedra takes half a toy run
            tetrahedra(report)
            report.write()
        bodies(report, toy)
        polytopes(report, toy, [("box", 8, 12.0), ("eight points of a sphere", 8, 12.0)][: 0 if toy else 2])
    report.write()


if __name__ == "__main__":
    main()
