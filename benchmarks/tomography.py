"""Projection, back-projection, reconstruction at known poses and pose refinement, beside cryojax, ASPIRE, skimage and astra.

`make bench-tomography`. Timings are medians of 5 after a warm-up, peers in the same run; padding of the volume and its
transform are part of every timing. Errors are relative L2 after a fit of the scale, below 0.9 Nyquist for the ribosome.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benchmarks import common, peers_cryo
from benchmarks.common import RESULTS, Report
from lfjax import metrics, rotation, viz
from lfjax.solvers import ADMM, FISTA, SIRT, Problem, run
from lfjax.tomography import (
    Ctf,
    FourierSlice,
    Particles,
    Rays,
    Sums,
    add_noise,
    filtered_back_projection,
    fsc,
    random_particles,
    read_particles,
    reconstruct,
    refine_poses,
    resolution,
    spherical_mask,
)

FASTEST = "3 taps, pad 1.4, within Nyquist"  # the projector at an error of 1.5 %
SHARED = Path(__file__).resolve().parents[2] / "shared"


def median_seconds(function: Callable[[], Any]) -> float:
    """Median time of a call that waits for its result."""
    return common.timed(function)[1]


def misfit(images: Any, exact: Any, low: bool) -> float:
    """Relative L2 error after a fit of the scale; `low` counts frequencies below 0.9 Nyquist."""
    a, b = np.asarray(images, float), np.asarray(exact, float)
    if low:
        k = 2 * np.fft.fftfreq(a.shape[-1])
        disc = np.hypot(k[:, None], k) <= 0.9
        a, b = np.fft.fft2(a) * disc, np.fft.fft2(b) * disc
    a = a * (np.vdot(a, b).real / np.vdot(a, a).real)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def caller(operator: Any, x: Any) -> Callable[[], Any]:
    """A compiled application of an operator."""
    jitted = jax.jit(lambda op, v: op(v))
    return lambda: jax.block_until_ready(jitted(operator, x))


def projectors(report: Report, data: dict[str, NDArray[Any]], exact: dict[str, NDArray[Any]], toy: bool) -> None:
    """Errors, times, adjoints."""
    turns8 = jnp.asarray(data["R8"], jnp.float32)
    settings: list[tuple[str, dict[str, Any], float | None, float | None]] = [
        ("trilinear, pad 2", {"kernel": "trilinear"}, 1.5e-2, None),
        ("trilinear, pad 3", {"kernel": "trilinear", "padding": 3.0}, 1.5e-2, None),
        ("3 taps, pad 2", {"kernel": 3}, 1.5e-2, None),
        (FASTEST, {"kernel": 3, "padding": 1.4, "cutoff": 1.0}, 1.5e-2, None),
        ("4 taps, pad 2, within Nyquist", {"kernel": 4, "cutoff": 1.0}, 1e-3, 1e-3),
        ("5 taps, pad 2, within Nyquist", {"kernel": 5, "cutoff": 1.0}, 1e-4, 1e-4),
    ]
    settings = settings[3:5] if toy else settings
    for name, options, ribo_bound, gauss_bound in settings:
        for volume, bound, low in (("ribo64", ribo_bound, True), ("gauss64", gauss_bound, False)):
            made = FourierSlice(turns8, 64, **options)(jnp.asarray(data[volume], jnp.float32))
            title = f"error, {volume}, {name}"
            error = misfit(made, exact[volume], low)
            report.row(title, error, "1") if bound is None else report.at_most(title, error, bound)
    for interp in ("linear",) if toy else ("linear", "cubic"):
        for volume, low in (("ribo64", True), ("gauss64", False)):
            made = peers_cryo.cryojax_projector(data[volume].astype(np.float32), np.asarray(turns8), interp)()
            report.row(f"error, {volume}, cryojax {interp}, pad 2", misfit(made, exact[volume], low), "1", peer="cryojax")
    made = peers_cryo.aspire_projector(data["ribo64"].astype(np.float32), np.asarray(turns8))()
    report.row("error, ribo64, ASPIRE", misfit(made, exact["ribo64"], True), "1", peer="aspire")

    turns = np.asarray(data["R256"], np.float32)[: 16 if toy else 256]
    for n in (64,) if toy else (64, 128):
        volume = np.asarray(jax.random.normal(jax.random.key(0), (n, n, n)), np.float32)
        images = np.asarray(jax.random.normal(jax.random.key(1), (len(turns), n, n)), np.float32)
        at = f"{n}^3, {len(turns)} rotations"
        linear = median_seconds(peers_cryo.cryojax_projector(volume, turns, "linear"))
        aspire = median_seconds(peers_cryo.aspire_projector(volume, turns))
        aspire_back = median_seconds(peers_cryo.aspire_back_projector(images, turns))
        for name, seconds in (("cryojax linear", linear), ("ASPIRE", aspire), ("ASPIRE, adjoint", aspire_back)):
            report.row(f"time, {at}, {name}", seconds, "s", peer=name.split()[0].strip(",").lower())
        for name, options, *_ in settings:
            operator = FourierSlice(jnp.asarray(turns), n, **options)
            forward = median_seconds(caller(operator, jnp.asarray(volume)))
            back = median_seconds(caller(operator.T, jnp.asarray(images)))
            report.row(f"time, {at}, {name}", forward, "s")
            report.row(f"time, {at}, {name}, adjoint", back, "s")
            if name == FASTEST:
                report.at_least(f"speed over cryojax linear, {at}, {name}", linear / forward, 2.0, "x", "cryojax")
            elif "within" not in name:
                report.row(f"speed over cryojax linear, {at}, {name}", linear / forward, "x", peer="cryojax")
            else:
                factor = 1.5 if name.startswith("4") else 1.0
                report.at_least(f"speed over ASPIRE, {at}, {name}", aspire / forward, factor, "x", "aspire")
                report.at_least(f"speed over ASPIRE, {at}, {name}, adjoint", aspire_back / back, factor, "x", "aspire")
        report.write()


def gradients(report: Report, toy: bool) -> None:
    """Time of gradients over that of the forward pass, temporary memory, and the dot test."""

    def loss(volume: Any, operator: Any, seen: Any) -> Any:
        return operator.reduce(lambda image, y: jnp.sum((image - y) ** 2), volume, seen)

    for n in (32,) if toy else (64, 128):
        turns = rotation.random_rotations(jax.random.key(0), 32 if toy else 256)
        operator = FourierSlice(turns, n, kernel=3 if toy else 5, cutoff=1.0)
        volume = jax.random.normal(jax.random.key(1), (n, n, n))
        seen = jax.random.normal(jax.random.key(2), operator.out_shape)
        forward = median_seconds(caller(operator, volume))
        kinds: dict[str, int | tuple[int, int]] = {"volume": 0, "pose": 1, "volume and pose": (0, 1)}
        for name, which in [*kinds.items()][-1 if toy else 0 :]:
            gradient = jax.jit(jax.grad(loss, which))
            arguments = (volume, operator, seen)
            seconds = median_seconds(lambda g=gradient, a=arguments: jax.block_until_ready(g(*a)))
            title = f"gradient in {name} over forward, {n}^3, {operator.plane.kernel.width} taps"
            report.at_most(title, seconds / forward, 5.0, "x")

    def temporary(count: int) -> int:
        kernel = "trilinear" if toy else 5
        operator = FourierSlice(rotation.random_rotations(jax.random.key(0), count), 32, kernel=kernel, batch=32)
        lowered = jax.jit(jax.grad(loss, (0, 1))).lower(jnp.zeros((32,) * 3), operator, jnp.zeros(operator.out_shape))
        return int(lowered.compile().memory_analysis().temp_size_in_bytes)

    small, large = temporary(64), temporary(1024)
    report.row("temporary memory of the gradient, 32^3, 64 images", small / 2**20, "MiB")
    report.at_most("temporary memory, 1024 images over 64", large / small, 1.1, "x")
    worst = 0.0
    kernels: list[dict[str, Any]] = [{"kernel": "trilinear"}, {"kernel": 3}, {"kernel": 5}, {"kernel": 5, "cutoff": 1.0}]
    for options in kernels[: 1 if toy else None]:
        some = random_particles(jax.random.key(3), 20, pixel_angstrom=3.0, shift_px=2.0).projector(32, **options)
        x, y = (jax.random.normal(jax.random.key(k), shape) for k, shape in ((4, some.in_shape), (5, some.out_shape)))
        image = some(x)
        gap = abs(jnp.vdot(image, y) - jnp.vdot(x, some.T(y))) / (jnp.linalg.norm(image) * jnp.linalg.norm(y))
        worst = max(worst, float(gap))
    report.at_most("dot test of the projectors, float32, worst", worst, 1e-5)
    report.write()


def known_poses(report: Report, truth: NDArray[np.float32], toy: bool) -> None:
    """The ribosome from noisy images with CTF, beside ASPIRE's estimator and plain gridding."""
    n, pixel, count = (32, 10.0, 100) if toy else (64, 5.0, 2000)
    truth = truth[::2, ::2, ::2] if toy else truth
    particles = random_particles(jax.random.key(0), count, pixel_angstrom=pixel, shift_px=1.0)
    optics = Ctf(jnp.linspace(8000.0, 20000.0, 40)[jnp.arange(count) % 40])  # 40 micrographs; no astigmatism, for ASPIRE
    particles = Particles(particles.rotations, shifts=particles.shifts, ctf=optics, pixel_angstrom=pixel, half=particles.half)
    clean = particles.projector(n, kernel=3 if toy else 5, cutoff=1.0)
    images = np.asarray(add_noise(jax.random.key(1), caller(clean, jnp.asarray(truth))(), 0.1))
    curves = {}

    def measured(name: str, volume: Any, seconds: float, peer: str | None = None) -> float:
        curve = np.asarray(fsc(volume, truth))
        curve = np.r_[1.0, curve[1:] * np.sign(curve[1])]  # ASPIRE's CTF has the other sign
        curves[name] = curve
        found = resolution(curve, n * pixel, 0.5)
        report.row(f"ribosome, {count} images, SNR 0.1: resolution at FSC 0.5, {name}", found, "A", peer=peer)
        report.row(f"ribosome, {count} images, SNR 0.1: time, {name}", seconds, "s", peer=peer)
        return found

    def invert(**options: Any) -> Any:
        return lambda: jax.block_until_ready(Sums.empty(n, **options).add(particles, images).volume())

    def halves() -> Any:
        return jax.block_until_ready(reconstruct([(images, particles)], n).volume)

    ours = measured("lfjax reconstruct, half-maps included", halves(), own := median_seconds(halves))
    plain = measured("2-tap gridding", invert(kernel=2)(), median_seconds(invert(kernel=2)))
    start = time.perf_counter()
    mean = peers_cryo.aspire_mean(images, particles, pixel)
    aspire = time.perf_counter() - start
    theirs = measured("ASPIRE MeanEstimator", mean, aspire, "aspire")
    ball = spherical_mask(n, 0.5 * n - 4, 3.0)  # what lies beyond is cut from our maps, and from RELION's
    for name, volume in (("ASPIRE", mean), ("lfjax", halves())):
        curve = np.asarray(fsc(np.asarray(volume) * ball, truth * ball))
        inside = resolution(curve * np.sign(curve[1]), n * pixel, 0.5)
        report.row(f"ribosome: resolution at FSC 0.5, both maps in one ball, {name}", inside, "A", peer=name.lower())
    report.at_most("ribosome, 2000 images, SNR 0.1: resolution at FSC 0.5", ours, 19.23, "A")
    report.at_most("ribosome: resolution, equal or better than 2-tap gridding", ours, plain, "A")
    report.at_most("ribosome: resolution, equal or better than ASPIRE's estimator", ours, theirs, "A", "aspire")
    report.at_least("ribosome: speed over ASPIRE's estimator (one call)", aspire / own, 5.0, "x", "aspire")
    start_at = _turned(particles, 5.0)
    refined = refine_poses(truth, images, start_at, **({"cutoffs": (0.5,), "kernel": 2} if toy else {}))
    error = np.rad2deg(np.asarray(rotation.distance(refined.particles.rotations, particles.rotations)))
    middle = float(np.median(error))
    report.at_most("pose refinement from 5 degrees and 1 px off, SNR 0.1: median error", middle, 1.0, "degrees")
    report.row("pose refinement: 90th percentile", float(np.percentile(error, 90)), "degrees")
    if not toy:
        viz.shell_correlations(curves, n * pixel, RESULTS / "tomography_fsc.png", thresholds=(0.5,))
    report.write()


def _turned(particles: Particles, degrees: float) -> Particles:
    keys = jax.random.split(jax.random.key(7), 2)
    axis = jax.random.normal(keys[0], (len(particles), 3))
    turn = rotation.from_vector(np.deg2rad(degrees) * axis / jnp.linalg.norm(axis, axis=1, keepdims=True))
    shifts = particles.shifts + jax.random.normal(keys[1], (len(particles), 2))
    return Particles(turn @ particles.rotations, shifts=shifts, ctf=particles.ctf, pixel_angstrom=particles.pixel_angstrom)


def real_tilts(report: Report, toy: bool) -> None:
    """219 real tilt images of six ribosomes, half-sets of three particles, inside a mask of 10 pixels radius."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its B-factors are negative
        file = read_particles(SHARED / "data/cryo/sta_testing_bin8.star", pixel_angstrom=14.56)
    images = -file.images()
    images = (images - images.mean((1, 2), keepdims=True)) / images.std((1, 2), keepdims=True)
    half = np.unique(file.tables["particles"]["rlnGroupName"], return_inverse=True)[1] % 2 + 1
    mask = spherical_mask(64, 10.0)
    values = []
    for seed in (None, 0, 1, 2, 3, 4)[: 2 if toy else None]:
        order = np.arange(len(file)) if seed is None else np.random.default_rng(seed).permutation(len(file))
        posed = Particles(np.asarray(file.particles.rotations)[order], ctf=file.particles.ctf, pixel_angstrom=14.56, half=half)
        halves = [np.asarray(half_map) * mask for half_map in reconstruct([(images, posed)], 64).halves]
        values.append(float(np.asarray(fsc(*halves))[6]))
    report.row("real tilt images: half-set FSC at shell 6, shuffled poses, largest of 5", max(values[1:]), "1")
    report.at_least("real tilt images: half-set FSC at shell 6, above that of shuffled poses", values[0], max(values[1:]), "1")
    report.write()


def sparse_ct(report: Report, toy: bool) -> None:
    """A head phantom from 30 views."""
    import astra
    from skimage.data import shepp_logan_phantom
    from skimage.transform import iradon, iradon_sart, radon, resize

    n, views = (32, 30) if toy else (256, 30)
    truth = resize(shepp_logan_phantom(), (n, n), anti_aliasing=True).astype(np.float32)
    x = np.arange(n) - n // 2
    truth = truth * (np.hypot(x, x[:, None]) < n / 2 - 1)
    angles = np.linspace(0, np.pi, views, endpoint=False)
    operator = Rays.parallel(jnp.asarray(angles, jnp.float32), n)
    data = operator(jnp.asarray(truth))
    data = data + 0.005 * jnp.max(data) * jax.random.normal(jax.random.key(0), data.shape)
    problem = Problem(operator, data)
    iterations = 10 if toy else 200
    scale = float(problem.lambda_max())
    found = {
        "lfjax FBP": filtered_back_projection(data, jnp.asarray(angles), n),
        "lfjax SIRT": run(SIRT(), problem, iterations).x,
        "lfjax FISTA, l1": run(FISTA(sparsity=1e-3 * scale), problem, iterations).x,
        "lfjax ADMM, TV": run(ADMM(total_variation=2e-3 * scale), problem, iterations // 2).x,
    }
    # skimage turns the other way about the same centre, and is given its own sinogram with the same noise level
    theirs = radon(truth, np.rad2deg(angles), circle=True)
    theirs = theirs + 0.005 * theirs.max() * np.random.default_rng(0).normal(size=theirs.shape)
    found["skimage FBP"] = iradon(theirs, np.rad2deg(angles), circle=True)
    sart = None
    for _ in range(3):
        sart = iradon_sart(theirs, np.rad2deg(angles), image=sart)
    found["skimage SART, 3"] = sart
    found["astra SIRT"] = _astra_sirt(astra, truth, angles, iterations)
    for name, image in found.items():
        quality = float(metrics.psnr(np.asarray(image), truth, 1.0))
        report.row(f"CT, {n}^2, {views} views, 0.5 % noise: PSNR, {name}", quality, "dB")
    best = float(metrics.psnr(found["lfjax ADMM, TV"], truth, 1.0))
    peers = max(float(metrics.psnr(np.asarray(found[k]), truth, 1.0)) for k in found if not k.startswith("lfjax"))
    report.at_least(f"CT, {n}^2, {views} views: TV above the best of FBP and SIRT by peers", best - peers, 0.0, "dB")
    if not toy:
        titles = list(found) + ["truth"]
        images = np.stack([*(np.clip(np.asarray(v), 0, 1) for v in found.values()), truth])
        viz.image_grid(images, RESULTS / "tomography_ct.png", columns=4, titles=titles)
    report.write()


def _astra_sirt(astra: Any, truth: NDArray[np.float32], angles: NDArray[np.float64], iterations: int) -> NDArray[np.float32]:
    n = len(truth)
    space = astra.create_vol_geom(n, n)
    beams = astra.create_proj_geom("parallel", 1.0, n, angles)
    projector = astra.create_projector("linear", beams, space)
    _, sinogram = astra.create_sino(truth, projector)
    sinogram = sinogram + 0.005 * sinogram.max() * np.random.default_rng(0).normal(size=sinogram.shape).astype(np.float32)
    setting = astra.astra_dict("SIRT")
    setting["ProjectorId"] = projector
    setting["ProjectionDataId"] = astra.data2d.create("-sino", beams, sinogram)
    setting["ReconstructionDataId"] = astra.data2d.create("-vol", space)
    setting["option"] = {"MinConstraint": 0.0}
    algorithm = astra.algorithm.create(setting)
    astra.algorithm.run(algorithm, iterations)
    return astra.data2d.get(setting["ReconstructionDataId"])


def main() -> None:
    """Run everything; the shared references must be there."""
    args = common.arguments(__doc__ or "")
    report = Report("tomography", args.toy)
    import aspire.volume  # noqa: F401 - which turns x64 on

    jax.config.update("jax_enable_x64", False)
    inputs = dict(np.load(SHARED / "reference/cryo/inputs.npz"))
    exact = dict(np.load(SHARED / "reference/cryo/exact_nufft.npz"))
    projectors(report, inputs, exact, args.toy)
    gradients(report, args.toy)
    known_poses(report, inputs["ribo64"].astype(np.float32), args.toy)
    real_tilts(report, args.toy)
    sparse_ct(report, args.toy)
    report.write()


if __name__ == "__main__":
    main()
