"""Movies: traces by volumes and the direct path, neurons found, memory, kills, processes, devices, costs.  `make bench-movies`

The simulated recording is kept in build/movies and reused; remove that folder to simulate it again.
LFJAX_PARTS=discover,memory,runs,devices,costs runs only those parts and replaces their rows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import RESULTS, Report, arguments
from benchmarks.machine import Limits, seconds
from benchmarks.movie_checks import devices, memory, runs
from benchmarks.movie_scene import FRAME_S, Recording, Size, record
from lfjax import activity, io, metrics, movies, preset, solvers, training
from lfjax.performance.bounds import DEVICES, Device, roofline
from lfjax.performance.light_field_costs import abstract_light_field, operator_costs, solver_costs

FOLDER = Path(__file__).parents[1] / "build" / "movies"
TOY = Size(
    pixels=5, voxels=2, depths=3, step_um=8.0, beyond=1, lenslets=18, margin=1, border=2, labelled=0.4, frames=100, shown=20,
    aperture=0.5, tolerance=0.5, iterations=5, moments=8, folder="toy",
)  # fmt: skip
SOMA_UM = 12.0
RECTIFIED = {
    "neurons found with structure, within one soma radius: F1": 0.98571,
    "direct path: correlation with the true dF/F, median": 0.98773,
    "direct path: spike F1 within 20 ms, median": 1.0,
    "Richardson-Lucy 20: correlation with the true dF/F, median": 0.97883,
    "ISTA 20: correlation with the true dF/F, median": 0.97886,
    "direct path, first 400 frames: correlation with the true dF/F, median": 0.98281,
    "neurons found without structure, within one soma radius: F1": 0.91971,
}
"""Figures of rectified frames, from the results of commit 079a541."""


def traces_of(volumes: np.ndarray, recording: Recording) -> np.ndarray:
    """Mean over the true masks, which favours volumes."""
    masks = recording.masks / np.maximum(recording.masks.sum((1, 2, 3), keepdims=True), 1)
    return np.einsum("nzyx,tzyx->nt", masks, volumes)


def add_scores(
    report: Report, name: str, dff: np.ndarray, recording: Recording, pairs: np.ndarray, rate: float
) -> dict[str, float]:
    """Rows of one method; `pairs` are (true, extracted) numbers of neurons."""
    true, got = recording.dff[pairs[:, 0], : dff.shape[1]], dff[pairs[:, 1]]
    fires = np.ptp(true, axis=1) > 0.1
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(true[fires], got[fires], strict=True)]
    snr = [float(metrics.temporal_snr(b, a)) for a, b in zip(true[fires], got[fires], strict=True)]
    matrix = activity.crosstalk_matrix(got[fires], true[fires])
    centres = recording.centres_um[pairs[fires, 0]]
    distance = np.linalg.norm(centres[:, None] - centres, axis=-1)
    near, far = ((distance > a) & (distance <= b) & np.isfinite(matrix) for a, b in ((20, 40), (40, 1e9)))
    scores = {
        "correlation with the true dF/F, median": float(np.median(correlation)),
        "temporal SNR, median": float(np.median(snr)),
        "crosstalk at 20-40 um, mean": float(np.mean(matrix[near])) if near.any() else float("nan"),
        "crosstalk beyond 40 um, mean": float(np.mean(matrix[far])) if far.any() else float("nan"),
        "crosstalk beyond 40 um, root mean square": float(np.sqrt(np.mean(matrix[far] ** 2))) if far.any() else float("nan"),
        "frames per second": rate,
    }
    times, _ = activity.find_spikes(got[fires], FRAME_S)
    ends = dff.shape[1] * FRAME_S
    truth = [recording.spikes[i][recording.spikes[i] < ends] for i in pairs[fires, 0]]
    scores["spike F1 within 20 ms, median"] = float(
        np.median([activity.spike_score(a, b)[0] for a, b in zip(truth, times, strict=True) if len(a)])
    )
    for label, value in scores.items():
        report.row(f"{name}: {label}", value, "dB" if "SNR" in label else "1/s" if "second" in label else "")
    return scores


def matched(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(true, found) numbers of neurons within one soma radius of each other, one to one."""
    from scipy.optimize import linear_sum_assignment

    distance = np.linalg.norm(truth[:, None] - found[None], axis=-1)
    rows, columns = linear_sum_assignment(np.where(distance <= SOMA_UM / 2, distance, 1e6))
    good = distance[rows, columns] <= SOMA_UM / 2
    return np.stack([rows[good], columns[good]], axis=1)


def within(centres: np.ndarray, recording: Recording, size: Size) -> np.ndarray:
    """The centres inside the border, where the truth is known."""
    extent = np.array(recording.structure.shape) * np.asarray(recording.voxel_um)
    edge = np.array([0, 1, 1]) * size.border * size.voxels * np.asarray(recording.voxel_um)
    return centres[np.all((centres > edge) & (centres < extent - edge), axis=1)]


def command(*arguments: str) -> float:
    """Run a command of lfjax in a process of its own, and return the seconds that it takes."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "lfjax.cli.main", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return time.perf_counter() - begin


def direct(report: Report, recording: Recording, size: Size) -> tuple[Any, dict[str, float], np.ndarray]:
    """`lfjax neurons` with the structural volume, on the raw movie."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "neurons.h5"
        structure = ("--structure", str(recording.folder / "structure.ome.tif"))
        spent = command("neurons", str(recording.path), *recording.arguments, *structure, "-o", str(output))
        neurons = activity.read_neurons(output)
    found = within(neurons.centres_um, recording, size)
    score = metrics.f1_score(found, recording.centres_um, SOMA_UM / 2)
    report.at_least("neurons found with structure, within one soma radius: F1", score, 0.9)
    pairs = matched(neurons.centres_um, recording.centres_um)
    count = neurons.dff.shape[1]
    report.row("lfjax neurons, raw frames to file, all included: frames per second", count / spent, "1/s")
    return neurons, add_scores(report, "direct path", neurons.dff, recording, pairs, count / spent), pairs


def shares(report: Report, recording: Recording, ready: movies.LightFields) -> float:
    """Frames per second of each stage of the direct path by itself; returns that of the extraction."""
    raw, block = io.open_movie(recording.path), slice(0, min(256, len(ready.frames)))
    somata = activity.segment_somata(recording.structure, recording.voxel_um)
    masks = somata.masks()
    rings = activity.neuropil_rings(somata.centres_um, masks, recording.voxel_um)
    images = activity.direct_images(
        recording.op, (masks * np.maximum(recording.structure, 0)).astype(np.float32), ready.mean, neuropil=rings,
        weights=ready.weights,
    )  # fmt: skip
    frames = jnp.asarray(np.asarray(ready.frames[block], np.float32))
    count = len(frames)
    spent = {
        "reading": float(np.median([timed(lambda: np.asarray(raw[block])) for _ in range(5)])),
        "reading and rectifying": float(np.median([timed(lambda: np.asarray(ready.frames[block])) for _ in range(5)])),
        "extraction": seconds(images.time_courses, frames),
    }
    spent["rectifying"] = spent.pop("reading and rectifying") - spent["reading"]
    for name, took in spent.items():
        report.row(f"direct path, {name}: frames per second", count / took, "1/s")
        report.row(f"direct path, {name}: share of these three", took / sum(spent.values()), "")
    return count / spent["extraction"]


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def by_volumes(report: Report, recording: Recording, size: Size, ready: movies.LightFields) -> dict[str, dict[str, float]]:
    """Traces from volumes of the first frames, by solvers, and by the small model where it fits."""
    op, shown, n, frames = recording.op, min(size.shown, len(ready.frames)), size.iterations, ready.frames
    light = np.maximum(ready.mean, 0)
    trust = {"weights": ready.weights}
    ista = eqx.filter_jit(lambda p: solvers.ISTA(1e-3 * p.lambda_max(), 1 / p.lipschitz()))
    methods: dict[str, Callable[[Any], Any]] = {
        f"Richardson-Lucy {n}": movies.frame_solver(lambda p: solvers.RichardsonLucy(), op, light, n, warm=False, **trust),
        f"ISTA {n}": movies.frame_solver(ista, op, light, n, warm=False, **trust),
        f"ISTA {n}, from the background": movies.frame_solver(ista, op, light, n, **trust),
    }
    if size.pixels == 9 and size.depths == 11:
        methods["UnfoldedISTA (small model)"] = training.small_model().network
    found = {}
    pairs = np.stack([np.arange(len(recording.centres_um))] * 2, axis=1)
    for name, method in methods.items():
        run = eqx.filter_jit(lambda method, ys: jax.lax.map(method, ys))
        rate, parts = [], []
        for first in range(0, shown, 20):
            y = jnp.maximum(jnp.asarray(np.asarray(frames[first : first + 20], np.float32)), 0)
            begin = time.perf_counter()
            volumes = np.asarray(run(method, y))
            rate.append(len(y) / (time.perf_counter() - begin))
            parts.append(traces_of(volumes, recording))
        dff = activity.dff(np.concatenate(parts, axis=1), FRAME_S, window_s=2.0)
        found[name] = add_scores(report, name, dff, recording, pairs, float(np.median(rate)))
    return found


def costs(report: Report) -> None:
    """Imperial size in batches of 16: the roofline of an H100, and the speed of this machine."""
    depths = tuple(float(z) for z in np.linspace(-28.6, 28.6, 5 if report.toy else 53))
    side, batch = (13, 2) if report.toy else (106, 16)
    op = abstract_light_field(preset("25x1.0w"), depths, 3, side, batch, "float32")
    h100, spent = DEVICES["h100"], operator_costs(op, batch)
    for name, cost in spent.items():
        least = roofline(cost, h100)
        report.row(f"Imperial, {batch} frames, {name}: roofline of an H100", 1 / least.seconds, "1/s")
    for name, count in (("ista", 20), ("richardson_lucy", 30)):
        least = roofline(solver_costs(op, name, count, batch)[1], h100)
        report.row(f"Imperial, {batch} frames, {name} {count}: roofline of an H100, by {least.limit}", 1 / least.seconds, "1/s")
    limits = Limits.measure(toy=report.toy)
    cpu = Device("CPU", limits.gemm / 1e12, None, None, limits.memory / 1e9, None, "measured in this run")
    key = jax.random.key(0)

    def number(a: Any) -> Any:  # random matrices take as long as those of a PSF
        if not isinstance(a, jax.ShapeDtypeStruct):
            return a
        floating = jnp.issubdtype(a.dtype, jnp.floating)
        return jax.random.uniform(key, a.shape, a.dtype) if floating else jnp.zeros(a.shape, a.dtype)

    real = jax.tree.map(number, op)
    x = jax.random.uniform(key, (batch, *real.in_shape))
    took = seconds(jax.jit(lambda op, x: jax.vmap(op.matvec)(x)), real, x) / batch
    report.row(f"Imperial, {batch} frames, H: measured on this CPU", 1 / took, "1/s")
    report.row("the same: share of this CPU's roofline", roofline(spent["H"], cpu).seconds / took, "")


def picture(neurons: Any, recording: Recording, pairs: np.ndarray) -> None:
    """Extracted traces over the true ones."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown = pairs[np.argsort(-np.ptp(recording.dff[pairs[:, 0]], axis=1))][:12]
    figure, axis = plt.subplots(figsize=(9, 6), layout="constrained")
    t = np.arange(neurons.dff.shape[1]) * FRAME_S
    for row, (true, got) in enumerate(shown):
        axis.plot(t, neurons.dff[got] + 3 * row, lw=0.4, color="tab:orange", label="direct path" if row == 0 else None)
        axis.plot(t, recording.dff[true] + 3 * row, lw=0.8, color="black", label="truth" if row == 0 else None)
    axis.set_xlabel("time (s)")
    axis.set_ylabel("dF/F, neurons 3 apart")
    axis.legend(loc="upper right")
    figure.savefig(RESULTS / "movies.png", dpi=110)
    plt.close(figure)


def without_structure(report: Report, recording: Recording, size: Size) -> None:
    """`lfjax neurons` without a structural volume: neurons found by their activity."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "neurons.h5"
        command("neurons", str(recording.path), *recording.arguments, "-o", str(output))
        places = within(activity.read_neurons(output).centres_um, recording, size)
    alone = metrics.f1_score(places, recording.centres_um, SOMA_UM / 2)
    report.at_least("neurons found without structure, within one soma radius: F1", alone, 0.8)


def _parts(report: Report, recording: Recording, size: Size, names: list[str]) -> None:
    for name in names:
        if name == "discover":
            without_structure(report, recording, size)
        elif name == "memory":
            memory(report, recording.path)
        else:
            {"runs": runs, "devices": devices, "costs": costs}[name](report)
    report.write(parts=True)


def _of_recording(report: Report, size: Size) -> None:
    """All rows that need the simulated recording."""
    with tempfile.TemporaryDirectory() as temporary:
        recording = record(size, Path(temporary) if report.toy else FOLDER)
        report.row("neurons inside the border", len(recording.centres_um), "")
        if os.environ.get("LFJAX_PARTS"):
            _parts(report, recording, size, os.environ["LFJAX_PARTS"].split(","))
            return
        neurons, scores, pairs = direct(report, recording, size)
        ready = recording.ready(size.tolerance)
        volumes = by_volumes(report, recording, size, ready)
        dff = activity.dff(neurons.fluorescence[:, : size.shown], FRAME_S, window_s=2.0)
        name, rate = f"direct path, first {size.shown} frames", "frames per second"
        short = add_scores(report, name, dff, recording, pairs, shares(report, recording, ready))
        correlation, name = "correlation with the true dF/F, median", f"ISTA {size.iterations}"
        gain = short[correlation] - volumes[name][correlation]
        report.at_least(f"direct path against {name}, same frames: correlation gained", gain, 0)
        report.at_least(f"direct path against {name}: ratio of frames per second", short[rate] / volumes[name][rate], 20)
        report.at_least("direct path: correlation with the true dF/F, median", scores[correlation], 0.9)
        report.at_most("direct path: crosstalk beyond 40 um", abs(scores["crosstalk beyond 40 um, mean"]), 0.1)
        without_structure(report, recording, size)
        against_rectified(report)
        memory(report, recording.path)
        if not report.toy:
            picture(neurons, recording, pairs)


def against_rectified(report: Report) -> None:
    """Rows of the same recording that began behind the rectifier (commit 079a541), beside those from raw frames."""
    if report.toy:
        return
    values = {row["name"]: row["value"] for row in report.rows}
    for name, before in RECTIFIED.items():
        report.at_least(f"{name}: raw against rectified", values[name] / before, 0.98)


def main() -> None:
    """Run all parts; at toy size, whose times mean nothing, those in processes of their own run beside the others."""
    report = Report("movies", arguments(__doc__ or "").toy)
    size = TOY if report.toy else Size()
    if os.environ.get("LFJAX_PARTS"):
        _of_recording(report, size)
        return
    apart = Report("movies", report.toy), Report("movies", report.toy)
    with ThreadPoolExecutor(2) as pool:
        beside = [pool.submit(*task) for task in zip((runs, devices), apart, strict=True)] if report.toy else []
        _of_recording(report, size)
        jax.clear_caches()
        beside = beside or [pool.submit(*task) for task in zip((runs, devices), apart, strict=True)]
        for task in beside:
            task.result()
    report.rows += [row for part in apart for row in part.rows]
    costs(report)
    report.write()


if __name__ == "__main__":
    main()
