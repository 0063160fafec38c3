"""Movies: traces by volumes and by the direct path, neurons found, memory, kills, devices, the cost model.  `make bench-movies`

The simulated recording is kept in build/movies and reused; remove that folder to simulate it again.
LFJAX_PARTS=discover,memory,kills,devices,costs runs only those parts and replaces their rows.
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
import matplotlib
import numpy as np

from benchmarks.common import RESULTS, Report, arguments
from benchmarks.machine import Limits, seconds
from benchmarks.movie_checks import devices, kills
from benchmarks.movie_scene import FRAME_S, Recording, Size, record
from lfjax import activity, io, metrics, movies, preset, solvers, training
from lfjax.performance.bounds import DEVICES, Device, roofline
from lfjax.performance.light_field_costs import abstract_light_field, operator_costs, solver_costs

matplotlib.use("agg")
import matplotlib.pyplot as plt

FOLDER = Path(__file__).parents[1] / "build" / "movies"
TOY = Size(
    pixels=5, voxels=2, depths=5, step_um=6.0, beyond=1, lenslets=25, margin=2, border=2, labelled=0.3, frames=240, shown=40,
    folder="toy",
)  # fmt: skip
SOMA_UM = 12.0


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


def direct(
    report: Report, recording: Recording, size: Size, frames: Any, mean: np.ndarray
) -> tuple[Any, dict[str, float], np.ndarray]:
    """Neurons from structure, time courses from frames."""
    somata = activity.segment_somata(recording.structure, recording.voxel_um)
    found = within(somata.centres_um, recording, size)
    score = metrics.f1_score(found, recording.centres_um, SOMA_UM / 2)
    report.at_least("neurons found with structure, within one soma radius: F1", score, 0.9)
    masks = somata.masks()
    footprints = (masks * np.maximum(recording.structure, 0)).astype(np.float32)
    rings = activity.neuropil_rings(somata.centres_um, masks, recording.voxel_um)
    with tempfile.TemporaryDirectory() as folder:
        neurons = activity.extract(
            frames, recording.op, somata.centres_um, footprints, Path(folder) / "run.zarr", frame_s=FRAME_S,
            voxel_um=recording.voxel_um, mean=mean, neuropil=rings,
        )  # fmt: skip
    images = activity.direct_images(recording.op, footprints, mean, neuropil=rings)
    block = jnp.asarray(np.asarray(frames[: min(256, len(frames))], np.float32))
    rate = len(block) / seconds(images.time_courses, block)
    pairs = matched(somata.centres_um, recording.centres_um)
    return neurons, add_scores(report, "direct path", neurons.dff, recording, pairs, rate), pairs


def by_volumes(report: Report, recording: Recording, size: Size, frames: Any, mean: np.ndarray) -> dict[str, dict[str, float]]:
    """Traces from volumes of the first frames, by 20 iterations, and by the small model where it fits."""
    op, shown = recording.op, min(size.shown, len(frames))
    light = jnp.maximum(jnp.asarray(mean), 0)
    methods: dict[str, Callable[[Any], Any]] = {
        "Richardson-Lucy 20": movies.frame_solver(lambda p: solvers.RichardsonLucy(), op, light, 20, warm=False),
        "ISTA 20": movies.frame_solver(
            lambda p: solvers.ISTA(1e-3 * p.lambda_max(), 1 / p.lipschitz()), op, light, 20, warm=False
        ),
        "ISTA 20, from the background": movies.frame_solver(
            lambda p: solvers.ISTA(1e-3 * p.lambda_max(), 1 / p.lipschitz()), op, light, 20
        ),
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


def memory(report: Report, recording: Recording) -> None:
    """Peak memory of a process that extracts time courses of a tenth of the movie, and of one that extracts all."""
    program = "import sys; from benchmarks.movies import courses_alone as run; run(sys.argv[1], int(sys.argv[2]), sys.argv[3])"
    t = len(io.open_movie(recording.path))

    def peak(count: int) -> float:
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, "-c", program, str(recording.path), str(count), out]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1])

    with ThreadPoolExecutor(2) as pool:
        peaks = list(pool.map(peak, (t // 10, t)))
    for count, value in zip((t // 10, t), peaks, strict=True):
        report.row(f"peak memory, {count} frames", value, "GiB")
    report.at_most("peak memory, all frames against a tenth: difference", abs(peaks[1] / peaks[0] - 1), 0.1)


def courses_alone(path: str, count: int, out: str) -> None:
    """Stream time courses in a process of their own, and print its peak memory in GiB."""

    class First:
        def __init__(self, movie: Any) -> None:
            self.movie, self.shape, self.dtype = movie, (count, *movie.shape[1:]), movie.dtype

        def __len__(self) -> int:
            return count

        def __getitem__(self, which: Any) -> np.ndarray:
            return self.movie[which]

    movie = io.open_movie(path)
    rows, columns = movie.shape[1:]
    images = activity.Images.of(np.random.default_rng(0).random((40, rows, columns), np.float32))
    activity.stream_courses(First(movie), images, Path(out) / "courses.zarr", size=min(24, count))
    # not getrusage: a process inherits the maximum of its parent
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 2**20)


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
    """Extracted traces on the true ones."""
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


def without_structure(report: Report, recording: Recording, size: Size, frames: Any) -> None:
    """Neurons found by their activity."""
    places = within(activity.discover(frames, FRAME_S, recording.op, recording.voxel_um), recording, size)
    alone = metrics.f1_score(places, recording.centres_um, SOMA_UM / 2)
    report.at_least("neurons found without structure, within one soma radius: F1", alone, 0.8)


def _parts(report: Report, recording: Recording, size: Size, frames: Any, names: list[str]) -> None:
    for name in names:
        if name == "discover":
            without_structure(report, recording, size, frames)
        elif name == "memory":
            memory(report, recording)
        else:
            {"kills": kills, "devices": devices, "costs": costs}[name](report)
    report.write(parts=True)


def main() -> None:
    """Run all parts."""
    report = Report("movies", arguments(__doc__ or "").toy)
    size = TOY if report.toy else Size()
    with tempfile.TemporaryDirectory() as temporary:
        recording = record(size, Path(temporary) if report.toy else FOLDER)
        frames = io.open_movie(recording.path)
        mean = movies.mean_frame(frames, 200)
        report.row("neurons inside the border", len(recording.centres_um), "")
        if os.environ.get("LFJAX_PARTS"):
            _parts(report, recording, size, frames, os.environ["LFJAX_PARTS"].split(","))
            return
        neurons, scores, pairs = direct(report, recording, size, frames, mean)
        volumes = by_volumes(report, recording, size, frames, mean)
        short = add_scores(
            report, f"direct path, first {size.shown} frames", activity.dff(neurons.fluorescence[:, : size.shown], FRAME_S,
            window_s=2.0), recording, pairs, scores["frames per second"],
        )  # fmt: skip
        correlation, rate = "correlation with the true dF/F, median", "frames per second"
        ista = volumes["ISTA 20"]
        gain = short[correlation] - ista[correlation]
        report.at_least("direct path against ISTA 20, same frames: correlation gained", gain, 0)
        report.at_least("direct path against ISTA 20: ratio of frames per second", short[rate] / ista[rate], 20)
        report.at_least("direct path: correlation with the true dF/F, median", scores[correlation], 0.9)
        report.at_most("direct path: crosstalk beyond 40 um", abs(scores["crosstalk beyond 40 um, mean"]), 0.1)
        without_structure(report, recording, size, frames)
        memory(report, recording)
        if not report.toy:
            picture(neurons, recording, pairs)
    jax.clear_caches()
    kills(report)
    devices(report)
    costs(report)
    report.write()


if __name__ == "__main__":
    main()
