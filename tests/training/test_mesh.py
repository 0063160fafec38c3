"""Training over 1, 2 and 4 devices equals training on one, and communicates nothing but one sum of gradients."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from lfjax import parallel
from lfjax.training.data import Batch
from lfjax.training.steps import shard_batch

PROGRAM = """
import re, runpy, sys
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from lfjax import parallel, training
from lfjax.errors import ParameterError
from lfjax.training import loop, steps

assert len(jax.devices()) == 8
toy = runpy.run_path(sys.argv[2])
op, data, net = toy["op"], toy["samples"](), toy["network"]()
error = eqx.filter_jit(lambda model: jnp.mean((jax.vmap(model)(data.frames) - data.volumes) ** 2))
MIXTURES = {  # with as many samples without a label, and with more: the penalty of the second game pairs samples by number
    "all": ({"light_field": 0.1, "adversarial": 0.01}, 4),
    "more": ({"light_field": 0.1, "adversarial": 0.1, "game": "wasserstein", "equivariance": 0.1}, 8),
}

def fit(name, mesh, folder=None, labelled=4):
    weights, unlabelled = MIXTURES[name]
    options = training.Options(steps=4, labelled=labelled, unlabelled=unlabelled, critic_width=2, validate_every=2)
    score = lambda model: float(error(model))
    weights = training.LossWeights(**weights)
    return training.fit(net, data, op=op, weights=weights, options=options, mesh=mesh, validate=score, folder=folder)

def learned(state, name):
    critic = jax.tree.leaves(state.critic)
    if name == "more":  # biases shift all scores alike: their gradient is rounding alone, which Adam turns into steps
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

critic = loop.new_critic(2, 0)
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
    # Level 0 of LLVM halves the time of compiling, most of this test; the program before it is the same.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(Path(__file__).with_name("toy.py"))]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0 and "same" in done.stdout.splitlines(), done.stdout + done.stderr[-3000:]
    assert "sums: 1" in done.stdout.splitlines(), done.stdout


def test_without_a_mesh_a_batch_is_unchanged_and_one_device_gets_all_of_it():
    batch = Batch(np.arange(4.0), np.arange(4.0), np.arange(4.0, 6), np.arange(6))
    assert shard_batch(batch, None) is batch
    for a, b in zip(shard_batch(batch, parallel.mesh(1)), batch, strict=True):
        np.testing.assert_array_equal(a, b)
