"""A short training run with all parts of the loop: `python toy.py FOLDER RESULT.npz [slow]`.

`test_resume.py` imports it to train undisturbed, and starts it as a process of its own to kill and to resume.
"""

import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from lfjax import training
from lfjax.linop import FunctionOperator


class Network(eqx.Module):
    """One convolution of kernels of 4 axes, which Muon moves, and a bias, which Adam moves."""

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, y):
        layout = ("NHWC", "HWIO", "NHWC")
        seen = jax.lax.conv_general_dilated(y[None, ..., None], self.kernel, (1, 1), "SAME", dimension_numbers=layout)
        return jax.nn.softplus(jnp.moveaxis(seen[0] + self.bias, -1, 0))


op = FunctionOperator(lambda x: x[0] + jnp.roll(x[1], 1, axis=-1), (2, 8, 8))


def samples():
    """Labelled pairs and an unlabelled movie."""
    volumes = np.random.default_rng(0).random((6, 2, 8, 8)).astype(np.float32) ** 6
    frames = volumes[:, 0] + np.roll(volumes[:, 1], 1, axis=-1)
    return training.TrainingSet(frames, volumes, [frames[::-1].copy()], (2, 2), (2, 2))


def network():
    return Network(jnp.asarray(np.random.default_rng(1).normal(0, 0.3, (3, 3, 1, 2)).astype(np.float32)), jnp.zeros(2))


def train(folder, track=None):
    """The state after 24 steps with an adversary, validations and checkpoints."""
    data = samples()
    error = eqx.filter_jit(lambda model: jnp.mean((jax.vmap(model)(data.frames) - data.volumes) ** 2))
    return training.fit(
        network(),
        data,
        op=op,
        weights=training.LossWeights(light_field=0.1, adversarial=0.01, noise_splitting=0.1),
        options=training.Options(steps=24, validate_every=6, checkpoint_every=6, critic_width=2),
        folder=folder,
        track=track,
        validate=lambda model: float(error(model)),
    ).state


def slowly(steps, _):
    for step in steps:
        time.sleep(0.2)
        yield step


if __name__ == "__main__":
    state = train(sys.argv[1], slowly if len(sys.argv) > 3 else None)
    np.savez(sys.argv[2], *[np.asarray(a) for a in jax.tree.leaves(state)])
