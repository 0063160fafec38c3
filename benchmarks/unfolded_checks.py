"""Checks of unfolded networks: untrained, they are ISTA; memory of the gradient; training killed and resumed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import Report
from benchmarks.unfolded_study import Study
from lfjax import models, solvers


def memory(report: Report, study: Study) -> None:
    """Temporaries of the gradient through K layers."""
    sizes = {}
    depths = (4, 16) if report.toy else (16, 64, 256)
    for layers in depths:
        net = models.UnfoldedISTA(models.Physics(study.op, study.cells["cell_voxels"]), layers, checkpoint=True)
        arrays, fixed = eqx.partition(net, models.trainable(net))

        def loss(arrays: Any, y: Any, fixed: Any = fixed) -> Any:
            return jnp.sum(eqx.combine(arrays, fixed)(y) ** 2)

        lowered = jax.jit(jax.grad(loss)).lower(arrays, study.data.frames[0])
        sizes[layers] = lowered.compile().memory_analysis().temp_size_in_bytes
        report.row(f"gradient through {layers} layers, checkpointed: temporaries", sizes[layers] / 2**20, "MiB")
    power = np.log(sizes[depths[-1]] / sizes[depths[0]]) / np.log(depths[-1] / depths[0])
    report.at_most("memory of the gradient: exponent of K", power, 0.6)


def untrained(report: Report, study: Study) -> None:
    """Untrained physics against the solver."""
    y = jnp.asarray(study.data.frames[0])
    for layers in (10, 50):
        net = models.UnfoldedISTA(models.Physics(study.op, study.cells["cell_voxels"]), layers, sparsity=0.03)
        wanted = solvers.run(solvers.ISTA(0.03 * jnp.sqrt(jnp.mean(y**2))), solvers.Problem(study.op, y), layers).x
        error = jnp.linalg.norm(net(y) - wanted) / jnp.linalg.norm(wanted)
        report.at_most(f"untrained against ISTA, {layers} layers", float(error), 1e-6)


TRAINING = """
import sys, time
import jax, numpy as np
from lfjax import models, training
from lfjax.optics import PSF, LightField, Microscope
rng = np.random.default_rng(0)
values = rng.random((2, 2, 2, 9, 9), np.float32) ** 6
values /= values.sum((3, 4), keepdims=True)
op = LightField(PSF(jax.numpy.asarray(values), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 3), (0.0, 30.0)), (8, 8))
volumes = rng.random((4, *op.in_shape), np.float32) ** 8
frames = rng.poisson(50 * np.asarray(jax.jit(jax.vmap(op))(volumes))).astype(np.float32)
data = training.TrainingSet(frames, volumes, [frames], (3, 3), (2, 2))
term = models.Compressed(jax.random.key(2), 2, 2, (2, 2), (3, 3), width=4, compress=3, op=op)
net = models.UnfoldedISTA(term, 2, sparsity=0.03)
fitted = training.fit(
    net, data, op=op, weights=training.LossWeights(light_field=0.3, adversarial=0.02, noise_splitting=0.3), folder=sys.argv[1],
    options=training.Options(steps=60, checkpoint_every=7, validate_every=5, critic_width=2),
    track=lambda numbers, _: (print("step", flush=True) or n for n in numbers))
np.savez(sys.argv[2], *[np.asarray(leaf) for leaf in jax.tree.leaves(fitted.state)])
"""


def resumed(report: Report) -> None:
    """Training with all losses, killed (-9) at random moments and resumed, against undisturbed training."""
    count, draw = (1, random.Random(0)) if report.toy else (5, random.Random(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shared = {  # all processes run the same programs; level 0 of LLVM compiles them in half the time
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        }

        def start(which: str) -> Any:
            run = [sys.executable, "-c", TRAINING, str(folder / which), str(folder / f"{which}.npz")]
            return subprocess.Popen(run, stdout=subprocess.PIPE, text=True, env=os.environ | shared)

        start("whole").communicate()
        killed = 0
        while killed < count and not (folder / "killed.npz").exists():
            process = start("killed")
            for _ in range(draw.randrange(100 // (count + 1))):
                process.stdout.readline()
            time.sleep(draw.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += process.returncode == -signal.SIGKILL
        start("killed").communicate()
        whole, other = (np.load(folder / f"{which}.npz", allow_pickle=False) for which in ("whole", "killed"))
        different = sum(not np.array_equal(whole[n], other[n]) for n in whole.files)
    report.row("training killed at random moments, times", killed, "")
    report.at_most("arrays that differ from undisturbed training", different, 0)
