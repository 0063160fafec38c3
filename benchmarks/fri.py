"""Finite rate of innovation: exactness, noise against the Cramer-Rao bound, breakdown, turntables, speed.

`make bench-fri` writes results/fri.json and results/fri.png. It runs in float64.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from benchmarks.common import RESULTS, Report, arguments
from benchmarks.fri_solids import sorted_gap
from lfjax.fri.annihilation import recover_line
from lfjax.fri.kernels import Kernel, bspline, dirichlet, espline, gaussian
from lfjax.fri.matching import recover_alike
from lfjax.fri.multistart import Effort, recover_noisy
from lfjax.fri.planar import Features, Sampling
from lfjax.fri.refine import cramer_rao
from lfjax.fri.turntables import axis_vector, turntable
from lfjax.fri.unknown_view import aligned_error, recover, structure_bound, view_samples
from lfjax.rotation import from_vector, random_rotations

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RADIUS = 2.8  # of the ball that points lie in, in units of T


def problem(key: Array, count: int, views: int, radius: float) -> tuple[Array, Array, Array, Array]:
    """Points evenly in a ball, distinct amplitudes, uniform orientations, shifts; nothing is filtered out."""
    a, b, c, d, e = jax.random.split(key, 5)
    direction = jax.random.normal(a, (count, 3))
    distance = radius * jax.random.uniform(e, (count, 1)) ** (1 / 3)
    points = distance * direction / jnp.linalg.norm(direction, axis=1, keepdims=True)
    amplitudes = jax.random.permutation(b, jnp.linspace(0.5, 1.5, count))
    shifts = jax.random.uniform(d, (views, 2), minval=-0.15, maxval=0.15) * radius
    return points, amplitudes, random_rotations(c, views), shifts


def solve(sampling: Sampling, features: Features, count: int, radius: float, steps: int) -> Callable:
    """keys -> error, whether flagged."""

    def one(key: Array) -> tuple[Array, Array]:
        points, amplitudes, rotations, shifts = problem(key, count, 3, radius)
        samples = view_samples(sampling, points, amplitudes, rotations, shifts)
        found = recover(sampling, samples, count, features, view_steps=0, steps=steps)
        mine, true = jnp.argsort(found.amplitudes), jnp.argsort(amplitudes)
        flagged = (found.residual.max() > 1e-8) | ~found.determined
        return aligned_error(found.points[mine], points[true]), flagged

    return jax.jit(jax.vmap(one))


def diracs(report: Report, toy: bool) -> None:
    """Three views, distinct amplitudes."""
    number = 20 if toy else 200
    cases: list[tuple[str, Kernel, int, float, int]] = [
        ("E-spline", espline(0.55 * np.arange(-3, 4)), 13, 0.55, 0),
        ("B-spline", bspline(6), 13, 0.0, 0),
        ("Gaussian", gaussian(1.5), 35, 0.55, 8),
    ]
    for name, kernel, size, step, steps in cases:
        sampling = Sampling(kernel, size)
        features = Features.exponential(sampling, 3, step) if step else Features.polynomial(sampling, 3)
        for count in (4,) if toy else (4, 6, 8):
            error, flagged = map(np.asarray, solve(sampling, features, count, RADIUS, steps)(_keys(number)))
            title = f"{name}, K = {count}, P = 3, {number} problems"
            report.at_most(f"{title}: wrong beyond 1e-8 and not flagged", np.sum((error > 1e-8) & ~flagged), 0)
            report.at_most(f"{title}: median error", np.median(error), 1e-12)
            report.row(f"{title}: flagged", flagged.mean(), "1")
    sampling = Sampling(espline(0.9 * np.arange(-3, 4)), 7)
    run = solve(sampling, Features.exponential(sampling, 3, 0.9), 8, 0.42, 0 if toy else 15)
    error, flagged = map(np.asarray, run(_keys(number // 2)))
    report.at_most(f"K = 8 from 7 x 7 samples a view, {number // 2} problems: median error", np.median(error), 1e-9)
    report.row("the same: flagged", flagged.mean(), "1")


def alike(report: Report, toy: bool) -> None:
    """Equal amplitudes, from samples: which point is which by common lines."""
    sampling = Sampling(espline(0.55 * np.arange(-4, 5)), 17)
    features = Features.exponential(sampling, 4, 0.55)
    for count in (5,) if toy else (5, 6, 7, 8, 9, 10):

        def one(key: Array, count: int = count) -> tuple[Array, Array]:
            points, _, rotations, shifts = problem(key, count, 3, RADIUS)
            views = view_samples(sampling, points, jnp.ones(count), rotations, shifts)
            found = recover_alike(sampling, views, count, features, view_steps=8, steps=4)
            return sorted_gap(found.points, points), found.residual.max()

        number = 10 if toy else 200
        error, misfit = map(np.asarray, jax.jit(lambda keys, one=one: jax.lax.map(one, keys))(_keys(number)))
        title = f"equal amplitudes, K = {count}, P = 3, {number} problems"
        report.at_least(f"{title}: exact to 1e-8 in all distances", (error <= 1e-8).mean(), 0.99)
        report.at_most(f"{title}: wrong and not flagged", np.sum((error > 1e-8) & (misfit < 1e-8)), 0)


def tables(report: Report, toy: bool) -> None:
    """A turntable of five beads: axis and angles."""
    sampling = Sampling(espline(0.55 * np.arange(-3, 4)), 15)
    amplitudes = jnp.linspace(0.6, 1.4, 5)

    def one(key: Array) -> tuple[Array, Array]:
        a, b, c, d = jax.random.split(key, 4)
        beads = jax.random.uniform(a, (5, 3), minval=-1.7, maxval=1.7)
        angles = jnp.sort(jax.random.uniform(b, (10,), maxval=np.pi))
        angles = angles - angles[0]
        axis = axis_vector(jnp.asarray(0.1), jnp.asarray(0.05))
        turns = from_vector(angles[:, None] * axis)
        clean = view_samples(sampling, beads, amplitudes, turns, jnp.full((10, 2), 0.2))
        sigma = jnp.sqrt(jnp.mean(clean**2)) * 10 ** (-30 / 20)
        noisy = clean + sigma * jax.random.normal(c, clean.shape)
        found = turntable(sampling, noisy, recover_noisy(sampling, noisy, 5, key=d))
        away = jnp.abs(jnp.angle(jnp.exp(1j * (found.angles - angles))))
        return jnp.rad2deg(jnp.median(away)), jnp.rad2deg(jnp.abs(found.direction - 0.1))

    number = 1 if toy else 20
    angles, direction = map(np.asarray, jax.jit(lambda keys: jax.lax.map(one, keys))(_keys(number)))
    title = f"turntable, five beads, 10 angles, 30 dB, {number} problems: median error of the"
    report.row(f"{title} angles", float(np.median(angles)), "degree")
    report.row(f"{title} direction of the axis", float(np.median(direction)), "degree")


def noise(report: Report, toy: bool) -> list[tuple[float, float, float]]:
    """K = 5, P = 10 against the Cramer-Rao bound. Points are told apart by where they are: the best of all pairings counts."""
    sampling = Sampling(espline(0.55 * np.arange(-3, 4)), 13)
    effort = Effort(starts=4, rounds=2, kept=1, more=1) if toy else Effort()
    number, rows = 2 if toy else 100, []
    pairings = jnp.asarray(list(itertools.permutations(range(5))))
    asked = ((60.0, 1.2, 0.0), (40.0, 1.2, 0.0), (30.0, 1.2, 0.0), (25.0, 1.2, 0.0), (20.0, 1.5, 0.03), (15.0, 2.5, 0.1))
    for decibel, bound, failed in asked[4:5] if toy else asked:

        def one(key: Array, decibel: float = decibel) -> tuple[Array, Array]:
            points, amplitudes, rotations, shifts = problem(key, 5, 10, RADIUS)
            clean = view_samples(sampling, points, amplitudes, rotations, shifts)
            sigma = jnp.linalg.norm(clean) / jnp.sqrt(clean.size) * 10 ** (-decibel / 20)
            noisy = clean + sigma * jax.random.normal(key, clean.shape)
            found = recover_noisy(sampling, noisy, 5, key=jax.random.key(1), effort=effort).points
            error = jax.vmap(lambda order: aligned_error(found[order], points))(pairings).min()
            return error, structure_bound(sampling, points, amplitudes, rotations, shifts, sigma)

        run = jax.jit(lambda keys, one=one: jax.lax.map(one, keys))
        start = time.perf_counter()
        error, limit = map(np.asarray, run(_keys(number)))
        took = time.perf_counter() - start
        title = f"noise, K = 5, P = 10, SNR {decibel:g} dB, {number} problems"
        report.at_most(f"{title}: median error over the Cramer-Rao bound", np.median(error / limit), bound)
        report.at_most(f"{title}: failed (10 bounds or more)", np.mean(error > 10 * limit), failed)
        report.row(f"{title}: time a problem, compilation shared out", took / number, "s")
        rows.append((decibel, float(np.median(error)), float(np.median(limit))))
    return rows


def breakdown(report: Report, toy: bool) -> dict[float, dict[str, NDArray[np.float64]]]:
    """Two points on a line from 21 samples, Dirichlet kernel: the least PSNR with at most 10 % failures."""
    sampling = Sampling(dirichlet(21), 21)
    features = Features.exponential(sampling, 10, 2 * np.pi / 21)
    levels = np.arange(10.0, 37.0, 8.0 if toy else 1.0)
    curves: dict[float, dict[str, NDArray[np.float64]]] = {}
    for gap, known in ((6.6, 15.0), (2.1, 15.0), (0.66, 30.0)):
        curves[gap] = {}
        for method in ("likelihood",) if toy else ("likelihood", "cadzow", "pencil"):

            def one(key: Array, level: Array, gap: float = gap, method: str = method) -> Array:
                points = jax.random.uniform(key, (), minval=-1, maxval=1) + jnp.asarray([-gap / 2, gap / 2])
                clean = sampling.line(points, jnp.ones(2))
                samples = clean + jnp.abs(clean).max() * 10 ** (-level / 20) * jax.random.normal(key, clean.shape)
                steps = 30 if method == "likelihood" else 0
                found = recover_line(sampling, samples, 2, features, method=method, refine=steps)
                return jnp.abs(found.points - points).max()

            run = jax.jit(lambda keys, level, one=one: jax.vmap(lambda k: one(k, level))(keys))
            errors = np.stack([np.asarray(run(_keys(20 if toy else 300), level)) for level in levels])
            curves[gap][method] = errors
            fails = (errors > gap / 2).mean(1)
            above = [level for i, level in enumerate(levels) if np.all(fails[i:] <= 0.1)]
            title = f"two points {gap:g} T apart, 21 samples: breakdown PSNR of {method}"
            value = above[0] if above else np.inf
            if method == "likelihood":
                report.at_most(title, value, known, "dB", peer="Cadzow and pencil, below")
            else:
                report.row(title, value, "dB")
    limit = cramer_rao(lambda p: sampling.line(*p), (jnp.asarray([-3.3, 3.3]), jnp.ones(2)), 1.0)
    curves[0.0] = {"levels": levels, "unit bound": np.asarray(jnp.sqrt(limit[0, 0]))}
    return curves


def speed(report: Report, toy: bool) -> None:
    """K = 6, P = 3, E-spline, the algebra (which is exact), a thousand at once."""
    sampling = Sampling(espline(0.55 * np.arange(-3, 4)), 13)
    run = solve(sampling, Features.exponential(sampling, 3, 0.55), 6, RADIUS, 0)
    number = 20 if toy else 1000
    keys = _keys(number)
    jax.block_until_ready(run(keys))
    took = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(run(keys))
        took.append(time.perf_counter() - start)
    report.at_most(f"K = 6, P = 3, {number} at once, made and solved, median of 5", 1e3 * np.median(took) / number, 1.0, "ms")


def picture(levels: list[tuple[float, float, float]], curves: dict[float, dict[str, NDArray[np.float64]]]) -> None:
    """Errors against the Cramer-Rao bound."""
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.8), layout="constrained")
    decibels, errors, bounds = zip(*levels, strict=True)
    axes[0].semilogy(decibels, errors, "o-", label="recover_noisy, median")
    axes[0].semilogy(decibels, bounds, "k--", label="Cramer-Rao bound")
    axes[0].set(title="K = 5, P = 10, unknown views", xlabel="SNR, dB", ylabel="error / T")
    axes[0].legend()
    psnr = curves[0.0]["levels"]
    for axis, gap in zip(axes[1:], (6.6, 2.1, 0.66), strict=True):
        for method, values in curves[gap].items():
            axis.plot(psnr, 100 * (values > gap / 2).mean(1), "o-", markersize=3, label=method)
        axis.axhline(10, color="gray", linestyle=":")
        axis.set(title=f"two points {gap:g} T apart, 21 samples", xlabel="PSNR, dB", ylabel="failed, %")
        axis.legend()
    figure.savefig(RESULTS / "fri.png", dpi=100)


def _keys(number: int) -> Array:
    return jax.random.split(jax.random.key(0), number)


def main() -> None:
    """All figures."""
    toy = arguments(__doc__ or "").toy
    report = Report("fri", toy)
    with jax.enable_x64(True):
        diracs(report, toy)
        speed(report, toy)
        alike(report, toy)
        curves = breakdown(report, toy)
        levels = noise(report, toy)
        tables(report, toy)
    if not toy:
        picture(levels, curves)
    report.write()


if __name__ == "__main__":
    main()
