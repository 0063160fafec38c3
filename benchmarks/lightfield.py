"""The light-field operator: speed against pyolaf and dense FFTs, share of the machine's limits, memory, exactness.

`make bench-lightfield` writes results/lightfield.json and lightfield.png. Times are medians of five after one to warm up.
The same file runs on CPU, GPU and TPU; peers run on the CPU always.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from benchmarks.common import RESULTS, Report, arguments
from benchmarks.machine import Limits, seconds
from benchmarks.peers import PlainFFT, Pyolaf, TunedFFT, have_pyolaf
from benchmarks.reference import relative_error
from lfjax.optics import PSF, LightField, Microscope, compute_psf, preset

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

IMPERIAL = preset("25x1.0w")
NINE = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 9)
BATCH = 16
FRAMES_AT_FULL_SIZE = 8
COLOURS = {"pyolaf": "#4477aa", "plain dense FFT": "#cc6677", "tuned dense FFT": "#ddcc77"}


class Times(NamedTuple):
    """Seconds a frame of H and of H^T."""

    forward: float
    adjoint: float


_forward = jax.jit(lambda op, x: jax.vmap(op.matvec)(x))
_adjoint = jax.jit(lambda op, y: jax.vmap(op.rmatvec)(y))


def per_frame(op: LightField, frames: int) -> Times:
    """Times of a batch, a frame."""
    x = jax.random.uniform(jax.random.key(0), (frames, *op.in_shape))
    y = jax.random.uniform(jax.random.key(1), (frames, *op.out_shape))
    return Times(seconds(_forward, op, x) / frames, seconds(_adjoint, op, y) / frames)


Bounds = dict[str, tuple[float, float]]
"""Ratio asked for with a single frame and in a batch, of each peer."""


class Work(NamedTuple):
    """What one application to one frame takes at least.

    Attributes:
        plain: flops of the complex products alone, without symmetry, on the whole field's half spectrum.
        done: flops that are really done, of the products and of the transforms.
        bytes: matrices once a batch, volume, image and their spectra once each.
    """

    plain: float
    done: float
    bytes: float


def work(op: LightField, frames: int) -> Work:
    """Of a forward or adjoint application, a frame of a batch."""
    ky, kx, rows, inputs = op.kernel.matrices.shape
    outputs, tiles = rows // op.kernel.rows, math.prod(op.tiles.number)
    side = [n + op.psf_reach for n in op.field]
    plain = 8.0 * side[0] * (side[1] // 2 + 1) * op.kernel.image.size * op.kernel.volume.size
    done = tiles * 8.0 * ky * kx * outputs * inputs
    for channels, window in ((inputs, op.kernel.volume_window), (outputs, op.kernel.image_window)):
        done += tiles * channels * op.kernel.transform_cost(window, op.kernel.shape)
    numbers = (inputs + outputs) * tiles * 4 * ky * kx + math.prod(op.in_shape) + math.prod(op.out_shape)
    return Work(plain, done, op.kernel.matrices.nbytes / frames + 2 * 4.0 * numbers)


def roofline(report: Report, limits: Limits, what: str, op: LightField, frames: int, times: Times) -> None:
    """Time a frame, and which share of it the limit that binds explains."""
    need = work(op, frames)
    bound = {"GEMM": need.done / limits.gemm, "memory": need.bytes / limits.memory}
    name = max(bound, key=lambda k: bound[k])
    for step, spent in zip(("H", "H^T"), times, strict=True):
        report.row(f"{what}, {step}, a frame", 1e3 * spent, "ms")
        report.row(f"{what}, {step}, share of the {name} limit", bound[name] / spent, "1")


def against(
    report: Report, size: str, build: Callable[[int], LightField], peers: dict[str, Times], bounds: Bounds, limits: Limits
) -> dict[str, float]:
    """Ratios of the peers' times to ours, single and in a batch."""
    ratios = {}
    for peer, times in peers.items():
        for step, spent in zip(("H", "H^T"), times, strict=True):
            report.row(f"{size}: {peer}, {step}, a frame", 1e3 * spent, "ms", peer=peer)
    for i, frames in enumerate((1, BATCH)):
        op = build(frames)
        ours = per_frame(op, frames)
        roofline(report, limits, f"{size}, {frames} frames", op, frames, ours)
        for peer, times in peers.items():
            for step, theirs, mine in zip(("H", "H^T"), times, ours, strict=True):
                ratios[f"{peer}, {step}, {frames} fr."] = theirs / mine
                name = f"{size}, {step} a frame in batches of {frames}: {peer} / lfjax"
                if peer in bounds:
                    report.at_least(name, theirs / mine, bounds[peer][i], "x", peer)
                else:
                    report.row(name, theirs / mine, "x", peer=peer)
    return ratios


def peers(report: Report, limits: Limits, toy: bool) -> dict[str, float]:
    """Times at equal sizes."""
    ratios: dict[str, float] = {}
    z, side, oversampling = ([-10.0, 10.0], 5, 1) if toy else ([-26.0, -13.0, 0.0, 13.0, 26.0], 31, 3)
    scope = NINE if toy else IMPERIAL
    compiled = _elapsed(lambda: compute_psf(scope, z, 3, oversampling=oversampling))
    psf, again = compiled[0], _elapsed(lambda: compute_psf(scope, z, 3, oversampling=oversampling))[1]
    report.row(f"PSF, oversampling {oversampling} and its convergence error, compilation included", compiled[1], "s")
    report.row("PSF, the same again", again, "s")
    if have_pyolaf():
        olaf = Pyolaf(scope, z, 3, (side, side))
        rng = np.random.default_rng(0)
        volume = rng.random((len(z), *olaf.voxels), dtype=np.float32)
        image = rng.random(tuple(olaf.pixels), dtype=np.float32)
        times = {"pyolaf": Times(seconds(olaf.forward, volume), seconds(olaf.backward, image))}
        size = f"N = {scope.pixels_per_lenslet}, {len(z)} depths, s = 3, {side} x {side} lenslets"
        build = partial(_field_of, psf, side)
        ratios |= against(report, size, build, times, {"pyolaf": (5, 20)}, limits)
        report.row("pyolaf, its operators at oversampling 1", olaf.seconds, "s", peer="pyolaf")
        ratio = olaf.seconds / compiled[1]
        report.at_least(f"PSF: pyolaf at oversampling 1 / lfjax at {oversampling} with compilation", ratio, 1, "x", "pyolaf")
    else:
        print("pyolaf is not installed (extra `peers`): its rows are left out", flush=True)

    z, side = ([-20.0, 20.0], 5) if toy else ([-40.0, -20.0, 0.0, 20.0, 40.0], 51)
    psf = compute_psf(NINE, z, 9, oversampling=oversampling)
    op, plain, tuned = LightField(psf, (side, side)), PlainFFT(psf, (side, side)), TunedFFT(psf, (side, side))
    rng = np.random.default_rng(0)
    x, y = rng.random(op.in_shape, dtype=np.float32), rng.random(op.out_shape, dtype=np.float32)
    for name, peer in (("plain dense FFTs", plain), ("tuned dense FFTs", tuned)):
        errors = (relative_error(op(x), peer.forward(x)), relative_error(op.T(y), peer.adjoint(y)))
        for step, error in zip(("H", "H^T"), errors, strict=True):
            report.at_most(f"{step} against {name}, relative", error, 1e-5, peer="SciPy")
    times = {
        "plain dense FFT": Times(seconds(plain.forward, x), seconds(plain.adjoint, y)),
        "tuned dense FFT": Times(seconds(tuned.forward, x), seconds(tuned.adjoint, y)),
    }
    size = f"N = 9, {len(z)} depths, s = 9, {side} x {side} lenslets"
    return ratios | against(report, size, partial(_field_of, psf, side), times, {"plain dense FFT": (5, 25)}, limits)


def _field_of(psf: PSF, side: int, frames: int) -> LightField:
    return LightField(psf, (side, side), frames=frames)


def _elapsed(function: Callable[[], PSF]) -> tuple[PSF, float]:
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - start


def exactness(report: Report, toy: bool) -> None:
    """Against the definition in float64: each voxel puts its image where its lenslet is; and the other precisions."""
    psf = compute_psf(NINE if toy else IMPERIAL, [-10.0, 10.0] if toy else [-10.0, 0.0, 10.0], 3, oversampling=1 if toy else 3)
    field = (5, 5) if toy else (9, 9)
    exact = LightField(psf, field)
    n, reach = psf.microscope.pixels_per_lenslet, psf.lenslets // 2 * psf.microscope.pixels_per_lenslet
    rng = np.random.default_rng(0)
    volume = rng.standard_normal(exact.in_shape).astype(np.float32)
    image = np.zeros([side * n + 2 * reach for side in field])
    for z, y, x in np.ndindex(*volume.shape):
        top, left = y // 3 * n, x // 3 * n
        image[top : top + psf.values.shape[-1], left : left + psf.values.shape[-1]] += float(volume[z, y, x]) * np.asarray(
            psf.values[z, y % 3, x % 3], np.float64
        )
    image = image[reach:-reach, reach:-reach]
    tiled, plain = LightField(psf, field, tile=(3, 3) if toy else (4, 4)), LightField(psf, field, mirror=False)
    for name, op in (("whole", exact), ("tiles", tiled), ("no mirror", plain)):
        error = relative_error(op(jnp.asarray(volume)), image)
        report.at_most(f"H against direct convolution, {name}, relative", error, 1e-5, peer="definition")
    back = jnp.asarray(rng.standard_normal(exact.out_shape), jnp.float32)
    for precision in ("bfloat16",) if toy else ("tf32", "bfloat16"):
        narrow = LightField(psf, field, precision=precision)
        for what, ours, x in (
            ("H, signed noise", (narrow, exact), jnp.asarray(volume)),
            ("H, positive noise", (narrow, exact), jnp.abs(jnp.asarray(volume))),
            ("H^T, signed noise", (narrow.T, exact.T), back),
        ):
            error = relative_error(ours[0](x), np.asarray(ours[1](x)))
            report.row(f"{precision} against float32: {what}, relative", error, "1")


def many_depths(toy: bool) -> PSF:
    """53 depths, N = 19, s = 3, 17 x 17 lenslets."""
    depths = np.linspace(-26, 26, 5 if toy else 53)
    return compute_psf(NINE if toy else IMPERIAL, depths, 3, oversampling=1 if toy else 3, lenslets=7 if toy else 17)


def share(report: Report, limits: Limits, psf: PSF, toy: bool) -> None:
    """The batch at the product's limit; H^T H where nothing is cut off."""
    side = 9 if toy else 31
    op = LightField(psf, (side, side), frames=BATCH)
    times, need = per_frame(op, BATCH), work(op, BATCH)
    what = f"{len(psf.z_um)} depths, {side} x {side} lenslets, {BATCH} frames"
    roofline(report, limits, what, op, BATCH, times)
    both = sum(times)
    report.at_least(f"{what}: complex products a second / complex GEMM", 2 * need.plain / both / limits.complex_gemm, 0.5, "1")
    report.row(f"{what}: flops really done a second / complex GEMM", 2 * need.done / both / limits.complex_gemm, "1")
    inner = LightField(psf, (side, side), margin=-(psf.lenslets // 2), tile=(side, side))
    x = jax.random.uniform(jax.random.key(0), inner.in_shape)
    two, one = seconds(jax.jit(lambda op, x: op.T(op(x))), inner, x), seconds(jax.jit(lambda g, x: g(x)), inner.gram, x)
    report.row("H, then H^T / op.gram, one frame, volume within the field", two / one, "x")


def exponents(report: Report, psf: PSF, toy: bool) -> dict[str, tuple[list[float], list[float]]]:
    """How the cost of H and H^T grows with lenslets and with depths."""
    few = PSF(psf.values[::13], psf.microscope, psf.z_um[::13]) if not toy else psf
    curves = {}
    sides, depths = ((7, 10), (2, 4)) if toy else ((16, 24, 36, 54, 80), (5, 10, 20, 40))
    fields = [sum(per_frame(LightField(few, (n, n)), 4)) for n in sides]
    curves["lenslets"] = ([float(n * n) for n in sides], fields)
    planes = [PSF(psf.values[:d], psf.microscope, psf.z_um[:d]) for d in depths]
    side = 9 if toy else 31
    stacks = [sum(per_frame(LightField(p, (side, side)), 4)) for p in planes]
    curves["depths"] = ([float(d) for d in depths], stacks)
    for name, (number, spent) in curves.items():
        for n, s in zip(number, spent, strict=True):
            report.row(f"H and H^T a frame, batches of 4, {n:g} {name}", 1e3 * s, "ms")
        power = float(np.polyfit(np.log(number), np.log(spent), 1)[0])
        report.row(f"cost ~ {name}^p: p", power, "1", "<= 1.1", None if toy else power <= 1.1)
    return curves


def full_size(toy: bool) -> None:
    """A process of its own, for its peak memory: the full Imperial size, exact and low rank. Prints JSON."""
    psf = many_depths(toy)
    side = 13 if toy else 106
    figures: dict[str, float | str] = {}
    for frames in (1, FRAMES_AT_FULL_SIZE):
        op = LightField(psf, (side, side), frames=frames)
        times = per_frame(op, frames)
        figures |= {f"H {frames}": times.forward, f"H^T {frames}": times.adjoint, f"GiB {frames}": op.memory_gib}
        figures[f"tile {frames}"] = f"{op.tiles.tile[0]} x {op.tiles.tile[1]}"
        figures[f"peak {frames}"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        figures |= {f"bytes {frames}": work(op, frames).bytes, f"flops {frames}": work(op, frames).done}
    small = op.compress(1e-2, measure=False)
    assert small.compression is not None
    x = jax.random.uniform(jax.random.key(2), op.in_shape)
    figures["positive error"] = relative_error(small(x), np.asarray(op(x)))
    for frames in (1, FRAMES_AT_FULL_SIZE):
        exact, low = per_frame(op, frames), per_frame(small, frames)
        figures[f"low rank speed {frames}"] = sum(exact) / sum(low)
        figures[f"low rank H {frames}"], figures[f"low rank H^T {frames}"] = low
    figures["low rank error"], figures["low rank ranks"] = small.compression.error, str(small.compression.ranks)
    figures["low rank memory"] = small.compression.memory_gib[0] / small.compression.memory_gib[1]
    half = op.compress(1e-2, precision="bfloat16", measure=False).compression
    assert half is not None
    figures["bfloat16 memory"], figures["bfloat16 error"] = half.memory_gib[0] / half.memory_gib[1], half.error
    print("FULL", json.dumps(figures), flush=True)


def imperial(report: Report, limits: Limits, toy: bool) -> None:
    """Rows of `full_size`."""
    command = [sys.executable, "-m", "benchmarks.lightfield", "--full-size", *(["--toy"] if toy else [])]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = json.loads(next(line for line in output.splitlines() if line.startswith("FULL")).removeprefix("FULL"))
    for frames in (1, FRAMES_AT_FULL_SIZE):
        what = f"Imperial, {frames} frames, tile {figures[f'tile {frames}']}"
        report.at_most(f"{what}: peak memory of the process so far", figures[f"peak {frames}"], 10, "GiB")
        report.row(f"{what}: matrices", figures[f"GiB {frames}"], "GiB")
        bound = {"GEMM": figures[f"flops {frames}"] / limits.gemm, "memory": figures[f"bytes {frames}"] / limits.memory}
        name = max(bound, key=lambda k: bound[k])
        for step in ("H", "H^T"):
            spent = figures[f"{step} {frames}"]
            report.row(f"{what}: {step} a frame", 1e3 * spent, "ms")
            report.row(f"{what}: {step} frames per second", 1 / spent, "1/s")
            report.row(f"{what}: {step}, share of the {name} limit", bound[name] / spent, "1")
    gain = max(figures["low rank memory"], *(figures[f"low rank speed {f}"] for f in (1, FRAMES_AT_FULL_SIZE)))
    report.at_most(f"Imperial, low rank {figures['low rank ranks']}: error", figures["low rank error"], 1e-2, "1")
    report.row("Imperial, low rank: error on a positive volume", figures["positive error"], "1")
    report.at_least("Imperial, low rank: smaller or faster than exact, the better", gain, 2, "x")
    report.row("Imperial, low rank: smaller", figures["low rank memory"], "x")
    for frames in (1, FRAMES_AT_FULL_SIZE):
        report.row(f"Imperial, low rank, {frames} frames: faster", figures[f"low rank speed {frames}"], "x")
    report.row("Imperial, low rank and bfloat16: smaller", figures["bfloat16 memory"], "x")
    report.row("Imperial, low rank and bfloat16: error", figures["bfloat16 error"], "1")


def picture(ratios: dict[str, float], curves: dict[str, tuple[list[float], list[float]]]) -> None:
    """Ratios to the peers, and how the cost grows."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    names = list(ratios)
    left.barh(names, [ratios[n] for n in names], color=[COLOURS[n.split(",")[0]] for n in names])
    left.set(xscale="log", xlabel="times faster a frame", title="lfjax against its peers, same run, same sizes")
    left.invert_yaxis()
    left.xaxis.set_minor_formatter(NullFormatter())
    for i, name in enumerate(names):
        left.text(ratios[name], i, f" {ratios[name]:.0f}x", va="center")
    left.margins(x=0.2)
    for (name, (number, spent)), colour in zip(curves.items(), ("#117733", "#aa4499"), strict=True):
        slope = np.polyfit(np.log(number), np.log(spent), 1)[0]
        right.loglog(number, [1e3 * t for t in spent], "o-", color=colour, label=f"{name}, slope {slope:.2f}")
    right.set(xlabel="lenslets in the field; depths", ylabel="H and H^T a frame, ms", title="Cost against size")
    right.yaxis.set_minor_formatter(NullFormatter())
    right.legend()
    right.grid(alpha=0.3)
    figure.savefig(RESULTS / "lightfield.png", dpi=110)


def main() -> None:
    """All figures."""
    if "--full-size" in sys.argv:
        full_size("--toy" in sys.argv)
        return
    toy = arguments(__doc__ or "").toy
    report, limits = Report("lightfield", toy), Limits.measure(toy=toy)
    for name, value in (("GEMM float32", limits.gemm), ("GEMM complex64", limits.complex_gemm), ("FFT", limits.fft)):
        report.row(f"limit of the machine: {name}", value / 1e9, "Gflop/s")
    report.row("limit of the machine: memory", limits.memory / 1e9, "GB/s")
    exactness(report, toy)
    ratios = peers(report, limits, toy)
    psf = many_depths(toy)
    share(report, limits, psf, toy)
    curves = exponents(report, psf, toy)
    del psf
    imperial(report, limits, toy)
    report.write()
    if not toy:
        picture(ratios, curves)


if __name__ == "__main__":
    main()
