"""Commands as processes of their own, for `cryo_files`: the first run of `lfjax backproject`, and its peak memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks import peers_relion
from benchmarks.common import Report
from benchmarks.cryo_scenes import ribosome, write_scene
from lfjax import io
from lfjax.tomography import random_particles, write_particles

COMMAND = "from lfjax.cli.main import run; run()"
PEAK = "import atexit; atexit.register(lambda: print('peak', open('/proc/self/status').read().split('VmHWM:')[1].split()[0]))"


def lfjax(*arguments: object, cache: Path, folder: Path, prelude: str = "") -> tuple[str, float]:
    """Output and wall seconds of a command in a process that compiles into `cache`."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "LFJAX_"))}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", f"{prelude}\n{COMMAND}", *map(str, arguments)], cwd=folder, capture_output=True, text=True,
        env=known | {"LFJAX_CACHE": str(cache), "PYTHONPATH": os.getcwd()}, check=True,
    )  # fmt: skip
    return done.stdout, time.perf_counter() - start


def first_runs(report: Report, folder: Path, toy: bool) -> None:
    """`lfjax backproject` on 500 images of 64 px with an empty cache of compiled programs, and with a filled one."""
    count = 60 if toy else 500
    scene = write_scene(folder / "first", ribosome(), 5.0, count=count, snr=0.1, seed=3)
    where, cache = scene.star.parent, folder / "cache"
    repeats = 1 if toy else 5
    cold, warm, relion = [], [], []
    for _ in range(repeats):
        shutil.rmtree(cache, ignore_errors=True)
        for times in (cold, warm):
            times.append(lfjax("backproject", scene.star, "-o", "map.mrc", "--overwrite", cache=cache, folder=where)[1])
        if peers_relion.available():
            relion.append(peers_relion.reconstruct_star(scene.star).seconds)
    report.row(f"first run, {count} images of 64 px: lfjax backproject, empty cache", float(np.median(cold)), "s")
    report.row(f"first run, {count} images of 64 px: lfjax backproject, filled cache", float(np.median(warm)), "s")
    if relion:
        peer = float(np.median(relion))
        report.row(f"first run, {count} images of 64 px: relion_reconstruct", peer, "s", peer="relion")
        report.at_most("first run: wall time over relion_reconstruct, empty cache", np.median(cold) / peer, 2.0, "x", "relion")
        report.at_most("first run: wall time over relion_reconstruct, filled cache", np.median(warm) / peer, 1.2, "x", "relion")


def peak_memory(report: Report, folder: Path, toy: bool) -> None:
    """Resident memory of `lfjax backproject --half-maps` at its highest, on noise at random poses."""
    for size, count, gib in ((48, 20, 4.0),) if toy else ((256, 300, 4.0), (400, 64, 16.0)):
        peak, seconds = _noise_run(folder, size, count)
        report.at_most(f"peak memory, {size}^3 with half-maps", peak, gib, "GiB")
        report.row(f"wall time of it, {count} images, compilation included", seconds, "s")


def large_stack(report: Report, folder: Path, toy: bool) -> None:
    """10,000 images of 256 px from a file to a map with half-maps."""
    size, count = (32, 40) if toy else (256, 10_000)
    peak, seconds = _noise_run(folder, size, count)
    report.row(f"{count} images of {size} px, map and half-maps: wall time, reading and compilation included", seconds, "s")
    report.row(f"{count} images of {size} px: peak memory", peak, "GiB")


def _noise_run(folder: Path, size: int, count: int) -> tuple[float, float]:
    """Peak memory in GiB and wall seconds of `lfjax backproject` on images of noise, a memory-mapped stack included."""
    where = folder / f"noise {size} {count}"
    where.mkdir()
    rng = np.random.default_rng(0)
    some = random_particles(jax.random.key(0), count, pixel_angstrom=1.0)
    batches = (rng.standard_normal((4, size, size), np.float32) for _ in range(count // 4))
    io.write_stack(where / "p.mrcs", batches, 1.0, count=count)
    write_particles(where / "p.star", some, [(i, "p.mrcs") for i in range(count)], size)
    words = ("backproject", "p.star", "-o", "map.mrc", "--half-maps")
    out, seconds = lfjax(*words, cache=folder / "cache", folder=where, prelude=PEAK)
    shutil.rmtree(where)
    return int(out.rsplit("peak", 1)[1].split()[0]) / 2**20, seconds
