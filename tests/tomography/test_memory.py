"""Peak memory of a reconstruction, in a process of its own, beside the memory that `memory_bytes` tells beforehand."""

import os
import subprocess
import sys

import pytest

from lfjax.tomography import memory_bytes

SCRIPT = """
import sys
import jax
import numpy as np
from lfjax.tomography import random_particles, reconstruct

size, count, batch = map(int, sys.argv[1:4])
particles = random_particles(jax.random.key(0), count, pixel_angstrom=2.0)
noise = np.random.default_rng(0)
batches = ((noise.standard_normal((batch, size, size), np.float32), particles[i : i + batch]) for i in range(0, count, batch))
found = reconstruct(batches, size, symmetry=sys.argv[4])
assert np.isfinite(np.asarray(found.volume)).all() and np.asarray(found.volume).std() > 0
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024)
"""


def peak_bytes(size, count, batch, symmetry):
    # compiled as a first run compiles, which takes memory too
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")}
    arguments = [sys.executable, "-c", SCRIPT, *map(str, (size, count, batch, symmetry))]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=600, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(("size", "symmetry"), [(96, "C1"), (128, "C1"), (128, "C3")])
def test_the_memory_told_is_the_memory_used(size, symmetry):
    told = memory_bytes(size, images=16, symmetry=symmetry)  # one more copy of a sum would go beyond it
    assert 0.75 * told <= peak_bytes(size, 32, 16, symmetry) <= told


def test_the_memory_told_grows_with_the_grid():
    assert memory_bytes(256) <= 4 * 2**30 and memory_bytes(400) <= 16 * 2**30
    assert memory_bytes(128, padding=3.0) > 2 * memory_bytes(128) - memory_bytes(16)
    assert memory_bytes(64, images=4096) > memory_bytes(64) + 50 * 2**20
