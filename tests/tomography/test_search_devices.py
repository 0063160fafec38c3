"""Passes of a search on one device, on two, and in two processes: the same map, and no communication but sums."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

PASSES = """
import sys
import jax, numpy as np
from lfjax import parallel
if len(sys.argv) > 2:
    parallel.join(sys.argv[2], 2, int(sys.argv[3]))
import jax.numpy as jnp
from lfjax.tomography import pose_search, schedule
from lfjax.tomography.unknown_poses import abinitio
from tests.tomography.molecule import hidden, molecule, stack

schedule.STARTING, schedule.EXTRA, schedule.GRIDS, schedule.NEAR = 2, 0, ((6, 1),), ((6, (8.0,)), (6, (4.0,)))
pose_search.GRIDS = dict.fromkeys(pose_search.GRIDS, 0)
pose_search.STUCK = 0.0  # images to search again
mesh = parallel.mesh(jax.devices()) if len(jax.devices()) > 1 else None
images, particles, _ = stack(molecule(16), 11, 16, snr=2.0)
found = abinitio(images, hidden(particles), restarts=1, shift_px=0.5, key=jax.random.key(0), mesh=mesh)
assert {line.kind for line in found.history} == {"coarse", "whole", "fine", "again", "near"}
if jax.process_index() == 0:
    np.savez(
        sys.argv[1], map=np.asarray(found.estimate.volume), noise=np.asarray(found.estimate.noise),
        rotations=np.asarray(found.particles.rotations), shifts=np.asarray(found.particles.shifts),
        evidence=[line.evidence for line in found.history],
    )
"""

TEXT = """
import jax, jax.numpy as jnp, numpy as np
from lfjax import parallel, rotation
from lfjax.tomography import gridding, near_search, search
from lfjax.tomography.bands import Samples, band_of
from lfjax.tomography.search import Expected

mesh, band, n, g = parallel.mesh(2), band_of(3), 8, 12
place = jax.sharding.NamedSharding(mesh, parallel.spread(mesh))
put = lambda *shape: jax.device_put(np.ones(shape, np.float32), place)
m, s = len(band.shell), 5
turns, shifts = jnp.asarray(rotation.random_rotations(jax.random.key(0), g)), jnp.zeros((s, 2))
data = Samples(put(n, m).astype(complex), put(n, m), None)
noise, volume = jnp.ones(band.shells), jnp.ones((band.size,) * 3)
grid = search.search_grid.lower(
    band, jnp.ones((g, m), complex), turns, noise, shifts, jnp.float32(1), put(n, 2), data, put(n),
    search.nothing_expected(band, g), size=16, top=3, mesh=mesh,
).compile().as_text()
none, zero = jnp.zeros(()), jnp.zeros(m)
sums = jnp.zeros((*gridding.grid_shape(band.plane.kernel, band.plane.grid), 3))
before = (sums, Expected(none + 0j, none, zero, zero, zero, none))
near = near_search.search_near.lower(
    band, volume, noise, (put(n, 2, 3, 3), put(n, 2, 2)), jnp.float32(0.1), shifts, jnp.float32(1), data, put(n),
    jax.random.key(0), before, size=16, points=4, mesh=mesh,
).compile().as_text()
for name, text in (("grid", grid), ("near", near)):
    print(name, *(word for word in ("all-gather", "all-to-all", "collective-permute", "all-reduce") if word in text), sep=",")
"""


def run(program, *arguments, devices=1):
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(*processes):
    outs = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), [err[-3000:] for _, err in outs]
    return [out for out, _ in outs]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "one.npz"
    finished(run(PASSES, path))
    return dict(np.load(path))


def check(path, alone):
    found = dict(np.load(path))
    np.testing.assert_allclose(found["map"], alone["map"], rtol=0, atol=1e-5 * np.abs(alone["map"]).max())
    np.testing.assert_allclose(found["noise"], alone["noise"], rtol=1e-4)  # a difference of sums that are large in shell 0
    for name in ("rotations", "shifts"):
        np.testing.assert_allclose(found[name], alone[name], atol=1e-3, err_msg=name)
    np.testing.assert_allclose(found["evidence"], alone["evidence"], rtol=1e-5)


def test_two_devices_find_what_one_finds(tmp_path, alone):
    finished(run(PASSES, tmp_path / "two.npz", devices=2))
    check(tmp_path / "two.npz", alone)


def test_two_processes_find_what_one_finds(tmp_path, alone):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    finished(*(run(PASSES, tmp_path / "pair.npz", address, i) for i in range(2)))
    check(tmp_path / "pair.npz", alone)


def test_devices_exchange_sums_alone():
    (out,) = finished(run(TEXT, devices=2))
    assert out.split() == ["grid,all-reduce", "near,all-reduce"]
