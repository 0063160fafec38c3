"""One device, eight, or two processes: the same results, and no needless communication."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

from lfjax import parallel
from lfjax.errors import ParameterError

DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from lfjax import models, parallel
from lfjax.optics import PSF, LightField, Microscope

assert len(jax.devices()) == 8
values = jnp.asarray(np.random.default_rng(0).random((2, 2, 2, 9, 9), np.float32))
op = LightField(PSF(values, Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 3), (0.0, 5.0)), (8, 8))
net = models.UnfoldedISTA(models.Physics(op, (2, 2)), 5, sparsity=0.01)
frames = np.random.default_rng(1).random((11, 24, 24), np.float32)
alone = np.asarray(parallel.over_batch(net, frames))
for devices in (1, 2, 4, 8):
    several = parallel.over_batch(net, frames, mesh=parallel.mesh(devices), batch_size=2)
    np.testing.assert_allclose(several, alone, rtol=1e-6, atol=1e-6 * float(alone.max()))
whole = frames[:8]
mesh = parallel.mesh()
text = jax.jit(lambda f: parallel.over_batch(op.rmatvec, f, mesh=mesh)).lower(whole).compile().as_text()
assert not any(word in text for word in ("all-gather", "all-to-all", "all-reduce", "collective-permute")), text
volumes = np.random.default_rng(2).random((8, *op.in_shape), np.float32)
gradient = jax.jit(jax.grad(lambda v: jnp.sum(parallel.over_batch(op, v, mesh=mesh, checkpoint=True) ** 2)))(volumes)
np.testing.assert_allclose(gradient, jax.jit(jax.vmap(lambda v: 2 * op.rmatvec(op.matvec(v))))(volumes), rtol=2e-5, atol=1e-3)
print("same")
"""

PROCESSES = """
import sys
import numpy as np
from lfjax import parallel
me = parallel.join(sys.argv[1], 2, int(sys.argv[2])) if len(sys.argv) > 4 else parallel.Process()
from lfjax.io.chunks import Chunks, stream
import jax.numpy as jnp
movie = np.random.default_rng(0).random((23, 6, 6)).astype(np.float32)
result = Chunks(sys.argv[3], 23, 3, {"0": (6, 6)}, {}, me)
done = []
mesh = parallel.mesh()
stream(movie, result, lambda block: done.append(1) or {"0": parallel.over_batch(lambda y: jnp.sqrt(y + y.T), block, mesh=mesh)})
result.finish()
print(len(done))
"""


def environment(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def test_eight_devices_do_what_one_does():
    run = [sys.executable, "-c", DEVICES]
    done = subprocess.run(run, capture_output=True, text=True, env=environment(8), timeout=600)
    assert done.returncode == 0 and "same" in done.stdout, done.stderr[-3000:]


def test_two_processes_do_what_one_does(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    run = [sys.executable, "-c", PROCESSES]
    alone = subprocess.run(
        [*run, "-", "0", str(tmp_path / "one.zarr")], capture_output=True, text=True, env=environment(1), timeout=600
    )
    assert alone.returncode == 0 and int(alone.stdout) == 8, alone.stderr[-3000:]
    pair = [
        subprocess.Popen(
            [*run, address, str(i), str(tmp_path / "two.zarr"), "join"], env=environment(2), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    outs = [process.communicate(timeout=600) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outs
    assert [int(out.split()[-1]) for out, _ in outs] == [4, 4]
    one, two = (zarr.open_group(tmp_path / f"{name}.zarr")["0"][:] for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


SLURM = """
import jax
from lfjax import parallel
me = parallel.join()
print(me.number, me.processes, jax.config.values["jax_cuda_visible_devices"])
"""


@pytest.mark.parametrize("layout, ids, seen", [("1(x2)", "00", ["all", "all"]), ("2", "01", ["0", "1"])])
def test_under_slurm_processes_find_each_other_and_their_devices(layout, ids, seen):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    job = {
        "SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "JAX_COORDINATOR_PORT": port,
        "SLURM_STEP_TASKS_PER_NODE": layout,
    }  # fmt: skip
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", SLURM], env={**environment(1), **job, "SLURM_PROCID": str(i), "SLURM_LOCALID": ids[i]},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    outs = [process.communicate(timeout=600) for process in pair]
    assert [out.split() for out, _ in outs] == [[str(i), "2", seen[i]] for i in range(2)], outs


def test_items_may_be_trees_and_memory_does_not_grow_with_their_number():
    pairs = {"a": np.arange(6, dtype=np.float32), "b": np.ones((6, 2), np.float32)}
    got = parallel.over_batch(lambda one: one["a"] * one["b"], pairs, mesh=parallel.mesh(1))
    np.testing.assert_allclose(got, pairs["a"][:, None] * pairs["b"])

    def temporaries(count):
        def run(items):
            return parallel.over_batch(lambda x: jnp.fft.irfft2(jnp.fft.rfft2(x)).sum(), items)

        return jax.jit(run).lower(np.zeros((count, 64, 64), np.float32)).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(64) <= 1.1 * temporaries(4)


def test_wrong_arguments_are_named():
    with pytest.raises(ParameterError, match="devices = 1000: expected 1 to"):
        parallel.mesh(1000)
    with pytest.raises(ParameterError, match="items = 0"):
        parallel.over_batch(jnp.sin, np.zeros((0, 2)))
    with pytest.raises(ParameterError, match="address = 'localhost': expected host:port"):
        parallel.join("localhost", 2, 0)
    with pytest.raises(ParameterError, match="index = 5: expected 0 to count - 1 = 1"):
        parallel.join("localhost:1", 2, 5)
    with pytest.raises(ParameterError, match="all three, or none"):
        parallel.join("localhost:1")
    assert [parallel.Process(1, 3).owns(k) for k in range(4)] == [False, True, False, False]
