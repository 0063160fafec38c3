"""Training over 1, 2 and 4 devices gives what training on one gives, and communicates nothing but one sum of gradients."""

import os
import subprocess
import sys

import numpy as np

from lfjax import parallel
from lfjax.training.data import Batch
from lfjax.training.steps import shard_batch

PROGRAM = """
import re, sys
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from flax import nnx
from lfjax import models, parallel, training
from lfjax.errors import ParameterError
from lfjax.linop import FunctionOperator
from lfjax.training import loop, steps

class Network(eqx.Module):
    kernel: jax.Array
    bias: jax.Array

    def __call__(self, y):
        layout = ("NHWC", "HWIO", "NHWC")
        seen = jax.lax.conv_general_dilated(y[None, ..., None], self.kernel, (1, 1), "SAME", dimension_numbers=layout)
        return jax.nn.softplus(jnp.moveaxis(seen[0] + self.bias, -1, 0))

assert len(jax.devices()) == 8
op = FunctionOperator(lambda x: x[0] + jnp.roll(x[1], 1, axis=-1), (2, 8, 8))
volumes = np.random.default_rng(0).random((6, 2, 8, 8)).astype(np.float32) ** 6
frames = np.asarray(jax.vmap(op)(volumes))
data = training.TrainingSet(frames, volumes, [frames[::-1].copy()], (2, 2), (2, 2))
net = Network(0.3 * jax.random.normal(jax.random.key(0), (3, 3, 1, 2)), jnp.zeros(2))
MIXTURES = {  # with as many samples without a label, and with more: the penalty of the second game pairs samples by number
    "all": ({"light_field": 0.1, "adversarial": 0.01}, 4),
    "more": ({"light_field": 0.1, "adversarial": 0.1, "game": "wasserstein", "equivariance": 0.1}, 8),
}

def fit(name, mesh, folder=None, labelled=4):
    weights, unlabelled = MIXTURES[name]
    options = training.Options(steps=4, labelled=labelled, unlabelled=unlabelled, critic_width=2, validate_every=2)
    score = lambda model: float(jnp.mean((jax.vmap(model)(frames) - volumes) ** 2))
    weights = training.LossWeights(**weights)
    return training.fit(net, data, op=op, weights=weights, options=options, mesh=mesh, validate=score, folder=folder)

def learned(state, name):
    critic = jax.tree.leaves(state.critic)
    if name == "more":  # biases shift all verdicts alike: no slope but rounding, which Adam makes steps of
        critic = [a for a in critic if a.ndim > 1]
    return [np.asarray(a) for a in jax.tree.leaves((state.model, state.average)) + critic]

for name, counts in (("all", (1, 2, 4)), ("more", (4,))):
    alone = fit(name, None)
    for count in counts:
        several = fit(name, parallel.mesh(count), f"{sys.argv[1]}/{name}{count}")
        for a, b in zip(learned(several.state, name), learned(alone.state, name), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max(), err_msg=f"{name}, {count} devices")
        for row, wanted in zip(several.history, alone.history, strict=True):
            np.testing.assert_allclose([row[k] for k in wanted], list(wanted.values()), rtol=1e-4)
        assert all(a.sharding.is_fully_replicated and len(a.devices()) == count for a in jax.tree.leaves(several.state))
        assert all(len(a.devices()) == 1 for a in jax.tree.leaves(several.model))
        print(name, count)

read = fit("more", parallel.mesh(2), f"{sys.argv[1]}/more4").state  # all steps are done: this only reads the checkpoint
assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (read, several.state)), strict=True))

critic = models.PatchCritic(2, rngs=nnx.Rngs(0))
plan = loop.prepare(net, critic, data, op, training.LossWeights(light_field=0.1, adversarial=0.01), training.Options())
plan = plan._replace(mesh=parallel.mesh(4))
state = parallel.replicate(steps.start(net, critic, plan), plan.mesh)
batch = steps.shard_batch(data.batch(0, 0, 4, 8), plan.mesh)
np.testing.assert_array_equal(batch.frames.addressable_shards[1].data, data.batch(0, 0, 4, 8).frames[1:2])
np.testing.assert_array_equal(batch.unlabelled.addressable_shards[1].data, data.batch(0, 0, 4, 8).unlabelled[1::4])
np.testing.assert_array_equal(batch.turns.addressable_shards[1].data, data.batch(0, 0, 4, 8).turns[1::4])
text = jax.jit(lambda s, b: steps.advance(plan, s, b)).lower(state, batch).compile().as_text()
assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter")), text
print("sums:", len(re.findall(" all-reduce(?:-start)?[(]", text)))

for name, mesh, labelled, message in (
    ("all", 3, 4, "labelled = 4: expected a multiple of the 3 devices of the mesh"),
    ("more", 3, 3, "unlabelled = 8: expected a multiple of the 3 devices of the mesh"),
):
    try:
        fit(name, parallel.mesh(mesh), labelled=labelled)
    except ParameterError as error:
        assert str(error) == message, error
    else:
        raise AssertionError(message)
print("same")
"""


def test_a_mesh_changes_nothing_but_rounding(tmp_path):
    flags = "--xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, "-c", PROGRAM, str(tmp_path / "run")]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0 and "same" in done.stdout.splitlines(), done.stdout + done.stderr[-3000:]
    assert "sums: 1" in done.stdout.splitlines(), done.stdout


def test_without_a_mesh_a_batch_stays_as_it_is_and_one_device_gets_all_of_it():
    batch = Batch(np.arange(4.0), np.arange(4.0), np.arange(4.0, 6), np.arange(6))
    assert shard_batch(batch, None) is batch
    for a, b in zip(shard_batch(batch, parallel.mesh(1)), batch, strict=True):
        np.testing.assert_array_equal(a, b)
