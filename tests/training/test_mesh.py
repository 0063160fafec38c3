"""Training over 1, 2 and 4 devices gives what training on one gives, and communicates nothing but one sum of gradients."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from lfjax import models, parallel, training
from lfjax.errors import ParameterError
from lfjax.optics import PSF, LightField, Microscope
from lfjax.training.data import Batch
from lfjax.training.steps import deal

PROGRAM = """
import re, sys
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from lfjax import models, parallel, training
from lfjax.models import PatchCritic
from lfjax.optics import PSF, LightField, Microscope
from lfjax.training import loop, steps
from flax import nnx

assert len(jax.devices()) == 8
values = jax.random.uniform(jax.random.key(1), (2, 2, 2, 9, 9))
op = LightField(PSF(values, Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 3), (0.0, 5.0)), (6, 6))
volumes = np.random.default_rng(0).random((4, *op.in_shape)).astype(np.float32) ** 6
frames = np.asarray(jax.vmap(op)(volumes))
data = training.TrainingSet(frames, volumes, [frames[::-1].copy()], (3, 3), (2, 2))
term = models.Convolutional(jax.random.key(0), 2, 2, (2, 2), (3, 3), reach=1, op=op, tied=True)
net = models.UnfoldedISTA(term, 2, sparsity=0.01)
settings = {"critic_width": 2, "turn": True, "labelled": 4, "validate_every": 2}
MIXTURES = {
    "all": ({"light_field": 0.1, "adversarial": 0.01}, {"unlabelled": 4}),
    "pairs": ({"adversarial": 0.1, "game": "wasserstein", "equivariance": 0.1, "noise_splitting": 0.1}, {"unlabelled": 8}),
}

def learned(state):
    return [np.asarray(a) for a in jax.tree.leaves((state.model, state.average, state.critic))]

def fit(name, mesh, steps, folder=None):
    weights, options = MIXTURES[name]
    options = training.Options(steps=steps, **settings, **options)
    score = lambda model: float(jnp.mean((jax.vmap(model)(frames) - volumes) ** 2))
    return training.fit(net, data, op=op, weights=training.LossWeights(**weights), options=options, mesh=mesh, validate=score,
                        folder=folder)

for name, counts in (("all", (1, 2, 4)), ("pairs", (2,))):
    alone = fit(name, None, 4)
    for count in counts:
        several = fit(name, parallel.mesh(count), 4)
        for a, b in zip(learned(several.state), learned(alone.state), strict=True):
            assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max() + 1e-9, (name, count, np.abs(a - b).max(), np.abs(b).max())
        for row, wanted in zip(several.history, alone.history, strict=True):
            np.testing.assert_allclose([row[k] for k in wanted], list(wanted.values()), rtol=1e-4)
        assert all(a.sharding.is_fully_replicated and len(a.devices()) == count for a in jax.tree.leaves(several.state))
        model = eqx.filter(several.model, models.trainable(several.model))
        assert all(len(a.devices()) == 1 for a in jax.tree.leaves(model))

whole = fit("all", parallel.mesh(2), 4, sys.argv[1])
again = fit("all", parallel.mesh(2), 4, sys.argv[1])
assert all(np.array_equal(a, b) for a, b in zip(learned(whole.state), learned(again.state), strict=True))

mesh = parallel.mesh(4)
options = training.Options(**settings, unlabelled=4)
critic = PatchCritic(2, rngs=nnx.Rngs(0))
weights = training.LossWeights(light_field=0.1, adversarial=0.01)
plan = loop.prepare(net, critic, data, op, weights, options)._replace(mesh=mesh)
state = parallel.everywhere(steps.start(net, critic, plan), mesh)
batch = steps.deal(data.batch(0, 0, 4, 4), mesh)
text = jax.jit(lambda s, b: steps.advance(plan, s, b)).lower(state, batch).compile().as_text()
assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"))
print("sums:", len(re.findall(r" all-reduce(?:-start)?[(]", text)))
"""


def test_a_mesh_changes_nothing_but_rounding(tmp_path):
    flags = "--xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, "-c", PROGRAM, str(tmp_path / "run")]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0 and "sums: 1" in done.stdout.splitlines(), done.stdout + done.stderr[-3000:]


def test_samples_are_dealt_like_cards():
    batch = Batch(np.arange(4.0), np.arange(4.0), np.arange(4.0, 6), np.arange(6))
    assert deal(batch, None) is batch
    mesh = parallel.mesh(1)
    for a, b in zip(deal(batch, mesh), batch, strict=True):
        np.testing.assert_array_equal(a, b)


class Devices(Mesh):
    """A mesh that says it has three devices: nothing is run on it."""

    @property
    def size(self):
        return 3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"labelled": 4, "unlabelled": 3}, "labelled = 4: expected a multiple of the 3 devices of the mesh"),
        ({"labelled": 3, "unlabelled": 4}, "unlabelled = 4: expected a multiple of the 3 devices of the mesh"),
    ],
)
def test_samples_that_cannot_be_spread_are_named(options, message):
    values = jnp.ones((2, 2, 2, 9, 9))
    op = LightField(PSF(values, Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 3), (0.0, 5.0)), (6, 6))
    frames, volumes = np.ones((2, *op.out_shape), np.float32), np.ones((2, *op.in_shape), np.float32)
    data = training.TrainingSet(frames, volumes, [frames], (3, 3), (2, 2))
    net = models.UnfoldedISTA(models.Physics(op, (2, 2)), 1, sparsity=0.01)
    mesh = Devices(np.array(jax.devices()[:1]), ("batch",), axis_types=(AxisType.Auto,))
    with pytest.raises(ParameterError, match=message):
        training.fit(
            net, data, op=op, weights=training.LossWeights(light_field=1.0), options=training.Options(**options), mesh=mesh
        )
