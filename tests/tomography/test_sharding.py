import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from lfjax import parallel
from lfjax.errors import ParameterError
from lfjax.tomography.fourier_slice import FourierSlice
from lfjax.tomography.particles import random_particles
from lfjax.tomography.rays import Rays
from lfjax.tomography.sharding import Sharded

assert len(jax.devices()) == 8
mesh = parallel.mesh()
particles = random_particles(jax.random.key(0), 24, pixel_angstrom=3.0, shift_px=1.0)
for whole in (particles.projector(12, batch=2), Rays.parallel_3d(particles.rotations, 12)):
    op = Sharded(whole, mesh)
    volume = jax.random.normal(jax.random.key(1), whole.in_shape)
    images = jax.random.normal(jax.random.key(2), whole.out_shape)
    np.testing.assert_allclose(op(volume), whole(volume), atol=2e-4)
    np.testing.assert_allclose(op.T(images), whole.T(images), atol=2e-3)
    forward = jax.jit(lambda op, v: op(v)).lower(op, volume).compile()
    back = jax.jit(lambda op, y: op.T(y)).lower(op, images).compile()
    assert "all-gather" not in forward.as_text() + back.as_text()
    assert "all-reduce" in back.as_text() and "all-reduce" not in forward.as_text()
    np.testing.assert_array_equal(Sharded(whole)(volume), whole(volume))
    gradient = jax.jit(jax.grad(lambda v: jnp.sum((op(v) - images) ** 2)))(volume)
    np.testing.assert_allclose(gradient, 2 * whole.T(whole(volume) - images), atol=2e-2)
try:
    Sharded(FourierSlice(particles.rotations[:3], 8), mesh)
except ParameterError as error:
    assert "multiple of the 8 devices" in str(error)
else:
    raise AssertionError("three images on eight devices")
print("sharded")
"""


@pytest.mark.parametrize("devices", [8])
def test_eight_devices_do_what_one_does(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0 and "sharded" in done.stdout, done.stderr[-3000:]
