"""Checks of movies in processes of their own: memory, kill -9, two processes, eight devices."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.common import Report
from lfjax import activity, io

SCENE = """
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from lfjax import movies, solvers
from lfjax.optics import PSF, LightField, Microscope
values = np.random.default_rng(0).random((2, 2, 2, 15, 15), np.float32) ** 6
values = jnp.asarray(values / values.sum((3, 4), keepdims=True))
psf = PSF(values, Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5), (0.0, 30.0))
op = eqx.filter_jit(LightField)(psf, (12, 12))
ista = eqx.filter_jit(lambda p: solvers.ISTA(1e-3 * p.lambda_max(), 1 / p.lipschitz()))
"""

MOVIE_PROGRAM = f"""
import sys
from lfjax import parallel
path, count, *address = sys.argv[1:]
me = parallel.join(address[0], 2, int(address[1])) if address else parallel.Process()
{SCENE}
frames = np.random.default_rng(0).poisson(50, (int(count), 60, 60)).astype(np.float32)
solve = movies.frame_solver(ista, op, movies.mean_frame(frames), 50)
print("go", flush=True)
movies.reconstruct_movie(frames, solve, path, op.in_shape, (30., 2., 2.), frame_s=.01, size=4, batch=1, process=me)
"""


def _volumes(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_group(path, mode="r")["0"][:])  # type: ignore[index]


def memory(report: Report, movie: Path) -> None:
    """Peak memory of a process that extracts time courses of a tenth of the movie, and of one that extracts all."""
    program = "import sys; from benchmarks.movie_checks import courses_alone as run; run(*sys.argv[1:])"
    t = len(io.open_movie(movie))

    def peak(count: int) -> float:
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, "-c", program, str(movie), str(count), out]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1])

    with ThreadPoolExecutor(2) as pool:
        peaks = list(pool.map(peak, (t // 10, t)))
    for count, value in zip((t // 10, t), peaks, strict=True):
        report.row(f"peak memory, {count} frames", value, "GiB")
    report.at_most("peak memory, all frames against a tenth: difference", abs(peaks[1] / peaks[0] - 1), 0.1)


def courses_alone(path: str, frames: str, out: str) -> None:
    """Stream time courses in a process of their own, and print its peak memory in GiB."""

    count = int(frames)

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


def runs(report: Report) -> None:
    """A run killed at random moments and resumed, and a run of two processes: both give the result of one process."""
    count = "24" if report.toy else "200"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        process = _begun(folder / "whole.zarr", count)
        started = time.perf_counter()
        process.wait()
        spent, wanted = time.perf_counter() - started, _volumes(folder / "whole.zarr")
        _kills(report, folder / "killed.zarr", count, spent, wanted)
        _pair(report, folder / "pair.zarr", count, wanted)


def _begun(path: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process that reconstructs a movie, at its first chunk."""
    run = [sys.executable, "-c", MOVIE_PROGRAM, str(path), *arguments]
    process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _kills(report: Report, path: Path, count: str, spent: float, wanted: np.ndarray) -> None:
    """kill -9 within a quarter of the time that a run takes."""
    number, draw = 1 if report.toy else 20, random.Random(0)
    half, same = 0, True
    for _ in range(number):
        process = _begun(path, count)
        time.sleep(draw.uniform(0, spent / 4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if path.exists():  # the run ended before the kill
            same &= np.array_equal(_volumes(path), wanted)
            shutil.rmtree(path)
        half += path.exists()
    _, err = (process := _begun(path, count)).communicate(timeout=600)
    assert process.returncode == 0, err[-2000:]
    same &= np.array_equal(_volumes(path), wanted)
    report.row("kills at random moments", number, "")
    report.at_most("results that differ from an uninterrupted run", 0 if same else 1, 0)
    report.at_most("half-written results under a final name", half, 0)


def _pair(report: Report, path: Path, count: str, wanted: np.ndarray) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    with ThreadPoolExecutor(2) as pool:
        pair = list(pool.map(lambda number: _begun(path, count, address, number), "01"))
    for process in pair:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err[-2000:]
    error = float(np.linalg.norm(wanted - _volumes(path)) / np.linalg.norm(wanted))
    report.at_most("two processes against one, relative", error, 1e-6)


DEVICES_PROGRAM = (
    SCENE
    + """
import json, re, sys
from lfjax import parallel, rotation
from lfjax.tomography.fourier_slice import FourierSlice
from lfjax.tomography.sharding import Sharded
x = np.random.default_rng(1).random((16, *op.in_shape), np.float32)
figures = {}

def communicated(text):
    # bytes that the collectives of a compiled program send to a device
    total = 0
    for line in text.splitlines():
        found = re.search(r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?[(]", line)
        for kind, shape in re.findall(r"(f32|c64|f64|s32|bf16)[[]([0-9,]*)[]]", found.group(1)) if found else ():
            size = {"f32": 4, "c64": 8, "f64": 8, "s32": 4, "bf16": 2}[kind]
            total += size * int(np.prod([int(n) for n in shape.split(",") if n]))
    return total

def compiled(run, a):
    return jax.jit(run).lower(a).compile()

y = compiled(jax.vmap(lambda v: op.matvec(v)), x)(x)
for name, f, a in (("H", op.matvec, x), ("H^T", op.rmatvec, y)):
    one = np.asarray(parallel.over_batch(f, a))
    for count in map(int, sys.argv[1].split(",")):
        program = compiled(lambda a: parallel.over_batch(f, a, mesh=parallel.mesh(count)), a)
        figures[f"{name} {count}"] = float(np.linalg.norm(one - np.asarray(program(a))) / np.linalg.norm(one))
        text = program.as_text()
        figures[f"{name} {count} bytes"] = communicated(text)
        figures[f"{name} {count} collectives"] = len(re.findall("all-gather|all-to-all|all-reduce|collective-permute", text))
project = Sharded(FourierSlice(rotation.random_rotations(jax.random.key(0), 16), 32), parallel.mesh(8))
text = compiled(lambda y: project.rmatvec(y), np.zeros(project.out_shape, np.float32)).as_text()
figures["back-projection bytes"] = communicated(text)
print(json.dumps(figures))
"""
)


def devices(report: Report) -> None:
    """Several devices against one."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    counts = "8" if report.toy else "2,4,8"
    run = [sys.executable, "-c", DEVICES_PROGRAM, counts]
    done = subprocess.run(run, env=environment, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    collectives = sum(value for name, value in figures.items() if "collectives" in name)
    error = max(value for name, value in figures.items() if "collectives" not in name and "bytes" not in name)
    exchanged = sum(value for name, value in figures.items() if name.startswith("H") and "bytes" in name)
    report.at_most(f"{counts.replace(',', ', ')} devices against 1: H and H^T, relative", error, 1e-6)
    report.at_most("collectives in the compiled text of H and H^T over devices", collectives, 0)
    report.row("bytes communicated by H and H^T over devices", exchanged, "B")
    report.row("bytes to each device in a back-projection to 32^3 voxels", figures["back-projection bytes"], "B")
