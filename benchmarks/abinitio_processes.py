"""Searches that are killed, spread over devices, and spread over processes: whether the result is the same."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.abinitio_scenes import Scene, write

SCENE = Scene("killed", object="molecule", count=60, snr=2.0, size=32)
MOMENTS = (0.15, 0.35, 0.55, 0.75, 0.95)  # of an undisturbed run
COMMAND = "import sys; sys.argv[0] = 'lfjax'; from lfjax.cli.main import run; run()"
SPREAD = """
import sys
import jax, numpy as np
from lfjax import parallel
if len(sys.argv) > 2:
    parallel.join(sys.argv[2], 2, int(sys.argv[3]))
import equinox as eqx, jax.numpy as jnp
from benchmarks.abinitio_processes import SCENE
from lfjax.tomography import abinitio
made = SCENE.make()
mesh = parallel.mesh(jax.devices()) if len(jax.devices()) > 1 else None
maps = []
keep = lambda state: maps.append(np.asarray(state.estimate.volume))
found = abinitio(made.images, made.particles, restarts=1, key=jax.random.key(0), mesh=mesh, keep=keep)
if jax.process_index() == 0:
    np.savez(sys.argv[1], first=maps[0], last=maps[-1])
"""
GATHERS = """
import jax, jax.numpy as jnp, numpy as np
from lfjax import parallel, rotation
from lfjax.tomography import search
from lfjax.tomography.bands import Samples, band_of
mesh, band, n, g = parallel.mesh(2), band_of(6), 16, 72
place = jax.sharding.NamedSharding(mesh, parallel.spread(mesh))
put = lambda *shape: jax.device_put(np.ones(shape, np.float32), place)
m, shifts = len(band.shell), jnp.zeros((5, 2))
turns = jnp.asarray(rotation.grid(0), jnp.float32)
text = search.search_grid.lower(
    band, jnp.ones((g, m), complex), turns, jnp.ones(band.shells), shifts, jnp.float32(1), put(n, 2),
    Samples(put(n, m).astype(complex), put(n, m), None), put(n), search.nothing_expected(band, g), size=32, top=8, mesh=mesh,
).compile().as_text()
print(text.count("all-gather"))
"""


def run_processes() -> dict[str, Any]:
    """How many of five killed runs differ, differences of maps on two devices and in two processes, and all-gathers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {"differ": _killed(folder), **_spread(folder), "gathers": int(_python(GATHERS, devices=2).communicate()[0])}


def _killed(folder: Path) -> int:
    """Runs of `lfjax abinitio`, killed once each and started again, whose files differ from those of an undisturbed one."""
    _, star = write(SCENE, folder / "data")
    start = time.perf_counter()
    wanted = _files(folder / "whole", star)
    took, differ = time.perf_counter() - start, 0
    for number, moment in enumerate(MOMENTS):
        where = folder / f"killed{number}"
        process = _abinitio(where, star)
        time.sleep(moment * took)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        differ += _files(where, star) != wanted
    return differ


def _abinitio(where: Path, star: Path) -> subprocess.Popen[str]:
    where.mkdir(exist_ok=True)
    return _python(
        COMMAND, "abinitio", star, "-o", where / "map.mrc", "--restarts", "1", "--no-ctf", "--half-maps", "--overwrite"
    )


def _files(where: Path, star: Path) -> list[bytes]:
    process = _abinitio(where, star)
    told, error = process.communicate()
    if process.returncode:
        raise RuntimeError(told + error)
    names = ("map.mrc", "map_half1.mrc", "map_half2.mrc", "map.star")
    return [_without_date((where / name).read_bytes(), name) for name in names]


def _without_date(content: bytes, name: str) -> bytes:
    """The content without the date, which an MRC header has in a label and a STAR file in its first line."""
    return content[1024:] if name.endswith(".mrc") else content.partition(b"\n")[2]


def _spread(folder: Path) -> dict[str, float]:
    def largest(name: str, *files: Path) -> float:
        one, other = (np.load(file)[name] for file in files)
        return float(np.abs(one - other).max() / np.abs(one).max())

    one, two, pair = (folder / f"{name}.npz" for name in ("one", "two", "pair"))
    for file, devices in ((one, 1), (two, 2)):
        _done(_python(SPREAD, file, devices=devices))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    for process in [_python(SPREAD, pair, address, number) for number in range(2)]:
        _done(process)
    return {
        f"{kind} {name}": largest(name, one, other)
        for kind, other in (("devices", two), ("processes", pair))
        for name in ("first", "last")
    }


def _done(process: subprocess.Popen[str]) -> None:
    told, error = process.communicate()
    if process.returncode:
        raise RuntimeError(told + error)


def _python(program: str, *arguments: object, devices: int = 1) -> subprocess.Popen[str]:
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
