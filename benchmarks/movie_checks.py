"""Checks of movies in processes of their own: kill -9, eight devices, two processes."""

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
from pathlib import Path

import numpy as np
import zarr

from benchmarks.common import Report

KILLED = """
import sys, time
import numpy as np, jax, jax.numpy as jnp
from lfjax import movies, solvers
from lfjax.optics import PSF, LightField, Microscope
values = jax.random.uniform(jax.random.key(0), (2, 2, 2, 15, 15)) ** 6
psf = PSF(values / values.sum((3, 4), keepdims=True), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5), (0.0, 30.0))
op = LightField(psf, (12, 12))
frames = np.random.default_rng(0).poisson(50, (200, 60, 60)).astype(np.float32)
solve = movies.frame_solver(
    lambda p: solvers.ISTA(1e-3 * p.lambda_max(), 1 / p.lipschitz()), op, movies.mean_frame(frames), 50)
print("go", flush=True)
movies.reconstruct_movie(frames, solve, sys.argv[1], op.in_shape, (30., 2., 2.), frame_s=.01, size=4, batch=1)
print("done", flush=True)
"""


def _volumes(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_group(path, mode="r")["0"][:])  # type: ignore[index]


def kills(report: Report) -> None:
    """kill -9 at random moments; the resumed run gives the result of an uninterrupted one."""
    count, draw = (2, random.Random(0)) if report.toy else (20, random.Random(0))
    run = [sys.executable, "-c", KILLED]
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.zarr"
        process = subprocess.Popen([*run, str(whole)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        started = time.perf_counter()
        process.wait()
        spent = time.perf_counter() - started
        wanted = _volumes(whole)
        out, half, done = Path(folder) / "killed.zarr", 0, 0
        same = True
        while done < count:
            process = subprocess.Popen([*run, str(out)], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(draw.uniform(0, spent / 4))
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            if out.exists():  # it ended before the kill
                got = _volumes(out)
                same &= np.array_equal(got, wanted)
                shutil.rmtree(out)
            half += out.exists()
        subprocess.run([*run, str(out)], check=True, capture_output=True)
        got = _volumes(out)
        same &= np.array_equal(got, wanted)
    report.row("kills at random moments", count, "")
    report.at_most("results that differ from an uninterrupted run", 0 if same else 1, 0)
    report.at_most("half-written results under a final name", half, 0)


DEVICES_PROGRAM = """
import json, re
import jax, jax.numpy as jnp, numpy as np
from lfjax import parallel
from lfjax.optics import PSF, LightField, Microscope
values = jax.random.uniform(jax.random.key(0), (2, 2, 2, 15, 15)) ** 6
psf = PSF(values / values.sum((3, 4), keepdims=True), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5), (0.0, 30.0))
op = LightField(psf, (12, 12))
x = jax.random.uniform(jax.random.key(1), (16, *op.in_shape))
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

for count in (2, 4, 8):
    mesh = parallel.mesh(count)
    for name, f, a in (("H", op.matvec, x), ("H^T", op.rmatvec, jax.vmap(op)(x))):
        one = np.asarray(parallel.over_batch(f, a)); many = np.asarray(parallel.over_batch(f, a, mesh=mesh))
        figures[f"{name} {count}"] = float(np.linalg.norm(one - many) / np.linalg.norm(one))
        text = jax.jit(lambda a: parallel.over_batch(f, a, mesh=mesh)).lower(a).compile().as_text()
        figures[f"{name} {count} bytes"] = communicated(text)
        figures[f"{name} {count} collectives"] = len(re.findall("all-gather|all-to-all|all-reduce|collective-permute", text))
from lfjax import rotation
from lfjax.tomography.fourier_slice import FourierSlice
from lfjax.tomography.sharding import Sharded
project = Sharded(FourierSlice(rotation.random_rotations(jax.random.key(0), 16), 32), parallel.mesh(8))
images = jax.random.normal(jax.random.key(1), project.out_shape)
text = jax.jit(lambda y: project.rmatvec(y)).lower(images).compile().as_text()
figures["back-projection bytes"] = communicated(text)
print(json.dumps(figures))
"""

PROCESSES_PROGRAM = """
import sys
import numpy as np
from lfjax import parallel
me = parallel.join(sys.argv[1], 2, int(sys.argv[2])) if sys.argv[1] != "-" else parallel.Process()
import jax, jax.numpy as jnp
from lfjax import movies, solvers
from lfjax.optics import PSF, LightField, Microscope
values = jax.random.uniform(jax.random.key(0), (2, 2, 2, 15, 15)) ** 6
psf = PSF(values / values.sum((3, 4), keepdims=True), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 5), (0.0, 30.0))
op = LightField(psf, (12, 12))
frames = np.random.default_rng(0).poisson(50, (24, 60, 60)).astype(np.float32)
solve = movies.frame_solver(
    lambda p: solvers.ISTA(1e-3 * p.lambda_max(), 1 / p.lipschitz()), op, movies.mean_frame(frames), 20)
movies.reconstruct_movie(frames, solve, sys.argv[3], op.in_shape, (30., 2., 2.), frame_s=.01, size=4, process=me)
"""


def devices(report: Report) -> None:
    """Eight devices against one, two processes against one."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, "-c", DEVICES_PROGRAM]
    done = subprocess.run(run, env=environment, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    collectives = sum(value for name, value in figures.items() if "collectives" in name)
    error = max(value for name, value in figures.items() if "collectives" not in name and "bytes" not in name)
    exchanged = sum(value for name, value in figures.items() if name.startswith("H") and "bytes" in name)
    report.at_most("2, 4, 8 devices against 1: H and H^T, relative", error, 1e-6)
    report.at_most("collectives in the compiled text of H and H^T over devices", collectives, 0)
    report.row("bytes communicated by H and H^T over devices", exchanged, "B")
    report.row("bytes to each device in a back-projection to 32^3 voxels", figures["back-projection bytes"], "B")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-c", PROCESSES_PROGRAM]
        subprocess.run([*run, "-", "0", f"{folder}/one.zarr"], check=True, capture_output=True)
        pair = [subprocess.Popen([*run, address, str(i), f"{folder}/two.zarr"], stderr=subprocess.PIPE) for i in range(2)]
        for process in pair:
            _, err = process.communicate(timeout=600)
            assert process.returncode == 0, err[-2000:]
        one, two = (_volumes(Path(folder) / f"{n}.zarr") for n in ("one", "two"))
    report.at_most("two processes against one, relative", float(np.linalg.norm(one - two) / np.linalg.norm(one)), 1e-6)
