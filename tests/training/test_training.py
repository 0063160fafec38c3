"""Losses against closed forms; the loop: resumed after kill -9, reproducible, with all of its options."""

import subprocess
import sys
import time

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from flax import nnx

from lfjax import models, training
from lfjax.errors import FileError, ParameterError
from lfjax.optics import PSF, LightField, Microscope
from lfjax.training import losses
from lfjax.training.data import open_movie, open_pairs, write_pairs

N, S = 3, 2

PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from lfjax import models, training
from lfjax.optics import PSF, LightField, Microscope
values = jax.random.uniform(jax.random.key(1), (2, 2, 2, 9, 9))
values = values + jnp.flip(values, (1, 3)); values = values + jnp.flip(values, (2, 4))
op = LightField(PSF(values, Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 3), (0.0, 5.0)), (6, 6))
rng = np.random.default_rng(0)
volumes = rng.random((4, 2, 12, 12)).astype(np.float32) ** 6
frames = np.asarray(jax.vmap(op)(volumes))
data = training.TrainingSet(frames, volumes, [frames[::-1].copy()], (3, 3), (2, 2))
term = models.Compressed(jax.random.key(0), 2, 2, (2, 2), (3, 3), width=4, compress=3, op=op)
net = models.UnfoldedISTA(term, 2, sparsity=0.01)
options = training.Options(steps=24, validate_every=6, checkpoint_every=6, critic_width=2)
weights = training.LossWeights(light_field=0.1, adversarial=0.01)
slow = (lambda items, _: (__import__("time").sleep(0.2) or i for i in items)) if len(sys.argv) > 3 else None
fitted = training.fit(net, data, op=op, weights=weights, options=options, folder=sys.argv[1], track=slow,
                      validate=lambda m: float(jnp.mean((jax.vmap(m)(frames) - volumes) ** 2)))
np.savez(sys.argv[2], *[np.asarray(a) for a in jax.tree.leaves(fitted.state)])
"""


@pytest.fixture(scope="module")
def op():
    values = jax.random.uniform(jax.random.key(1), (2, S, S, 3 * N, 3 * N))
    values = values + jnp.flip(values, (1, 3))
    values = values + jnp.flip(values, (2, 4))
    values = values + values.transpose(0, 2, 1, 4, 3)
    return LightField(PSF(values, Microscope(20, 0.5, 1.33, 0.52, 125, 2500, N), (0.0, 5.0)), (6, 6))


@pytest.fixture(scope="module")
def data(op):
    volumes = np.random.default_rng(0).random((4, *op.in_shape)).astype(np.float32) ** 6
    frames = np.asarray(jax.vmap(op)(volumes))
    return training.TrainingSet(frames, volumes, [frames[::-1].copy()], (N, N), (S, S))


def network(op):
    term = models.Convolutional(jax.random.key(0), 3, 2, (S, S), (N, N), reach=1, op=op, tied=True)
    return models.UnfoldedISTA(term, 3, sparsity=0.01)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("which", range(8))
def test_turned_volumes_have_turned_light_fields(op, which):
    x = jax.random.uniform(jax.random.key(0), op.in_shape)
    np.testing.assert_allclose(op(losses.dihedral(x, which)), losses.dihedral(op(x), which), rtol=1e-4, atol=1e-3)


def test_losses_have_their_closed_forms():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6))
    assert float(losses.volume_error(1.1 * x, x)) == pytest.approx(0.01, rel=1e-4)
    assert float(losses.sparsity(jnp.ones((2, 3, 4)))) == pytest.approx(1)
    assert float(losses.sparsity(jnp.zeros((2, 3, 4)).at[0, 0, 0].set(5.0))) == pytest.approx(24**-0.5)
    verdicts = jnp.asarray([0.5, 1.5])
    assert float(losses.least_squares_critic(verdicts, verdicts)) == pytest.approx(0.125 + 0.625)
    assert float(losses.least_squares_generator(verdicts)) == pytest.approx(0.125)
    assert float(losses.wasserstein_critic(verdicts, 2 * verdicts)) == pytest.approx(1)
    slope = jax.random.normal(jax.random.key(1), x.shape)
    penalty = losses.gradient_penalty(lambda v: jnp.vdot(slope, v), x, 2 * x, jax.random.key(2))
    assert float(penalty) == pytest.approx((float(jnp.linalg.norm(slope)) - 1) ** 2, rel=1e-4)


def test_light_field_loss_is_blind_to_what_it_says():
    y = jax.random.uniform(jax.random.key(0), (12, 15))
    offset = jnp.tile(jax.random.uniform(jax.random.key(1), (3, 3)), (4, 5))  # another background in each view
    assert float(losses.light_field_error(y + offset, y)) > 0.1
    assert float(losses.light_field_error(y + offset, y, cell_pixels=(3, 3), block=2)) < 1e-9
    mask = jnp.zeros(y.shape, bool).at[3:9, 3:9].set(True)
    assert float(losses.light_field_error(y.at[0, 0].set(100), y, mask)) == 0
    with pytest.raises(ParameterError, match="cell_pixels"):
        losses.light_field_error(y, y, block=2)


def test_split_photons_are_independent_poisson_parts():
    y = jax.random.poisson(jax.random.key(0), jnp.full(200_000, 20.0)).astype(jnp.float32)
    seen, held = losses.split_photons(jax.random.key(1), y, 0.7)
    assert bool(jnp.all(seen + held == y)) and bool(jnp.all(seen >= 0)) and bool(jnp.all(held >= 0))
    assert float(seen.mean()) == pytest.approx(14, rel=0.01)
    assert float(seen.var()) == pytest.approx(14, rel=0.02)
    assert abs(float(jnp.corrcoef(seen, held)[0, 1])) < 0.01


def test_equivariance_is_zero_for_a_perfect_inverse():
    x = jax.random.uniform(jax.random.key(0), (2, 4, 4))
    assert float(losses.equivariance(lambda y: y, lambda v: v, x, jax.random.key(1))) == 0
    assert float(losses.equivariance(lambda y: 0 * y, lambda v: v, x, jax.random.key(1))) == pytest.approx(1)


@pytest.mark.parametrize(
    "weights",
    [
        {"volume": 1.0},
        {"volume": 0.0, "light_field": 1.0, "equivariance": 0.1, "sparsity": 0.01},
        {"volume": 0.0, "noise_splitting": 1.0},
        {"volume": 1.0, "light_field": 0.1, "adversarial": 0.01, "game": "wasserstein", "block": 2},
    ],
)
def test_every_mixture_of_losses_goes_down(op, data, weights):
    options = training.Options(steps=40, validate_every=10, critic_width=2)
    net = network(op)
    net = eqx.tree_at(lambda n: n.step, net, 0.2 * net.step)  # far from the photons' noise: there is something to learn
    history = training.fit(net, data, op=op, weights=training.LossWeights(**weights), options=options).history
    leading = max((k for k in weights if k in history[0]), key=lambda k: weights[k])
    assert history[-1][leading] < history[0][leading]


@pytest.mark.parametrize(
    "options", [{"accumulate": 2, "steps": 40}, {"precision": "bfloat16"}, {"crop": (4, 4)}, {"relative": False}]
)
def test_options_train_too(op, data, options):
    chosen = training.Options(**({"steps": 20, "validate_every": 5, "learning_rate": 3e-3} | options))
    history = training.fit(network(op), data, options=chosen).history
    assert history[-1]["volume"] < history[0]["volume"]


def test_flax_networks_train_in_the_same_loop(data):
    net = training.FromNNX(models.ViewUNet(2, (S, S), (N, N), width=4, levels=1, rngs=nnx.Rngs(0)))
    options = training.Options(steps=40, validate_every=10, relative=False, learning_rate=3e-3)
    history = training.fit(net, data, options=options).history
    assert history[-1]["volume"] < history[0]["volume"]


def test_a_seed_fixes_everything_and_another_does_not(op, data):
    one, two, other = (training.fit(network(op), data, options=training.Options(steps=6, seed=s)).state for s in (1, 1, 2))
    assert same(one, two) and not same(one, other)


def test_it_stops_early_and_keeps_the_best(op, data):
    scores = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    seen = []

    def validate(model):
        seen.append(model)
        return next(scores)

    options = training.Options(steps=60, validate_every=2, patience=2)
    fitted = training.fit(network(op), data, options=options, validate=validate)
    assert len(fitted.history) == 4
    best = eqx.filter(seen[1], models.trainable(seen[1]))
    assert same(eqx.filter(fitted.model, models.trainable(fitted.model)), best)


def test_killed_and_resumed_is_as_if_nothing_happened(tmp_path):
    def arguments(folder, *more):
        return [sys.executable, "-c", PROGRAM, str(tmp_path / folder), str(tmp_path / f"{folder}.npz"), *more]

    subprocess.run(arguments("whole"), check=True, timeout=300)
    victim = subprocess.Popen(arguments("killed", "slow"))
    checkpoints, deadline = tmp_path / "killed" / "checkpoints", time.time() + 240
    while not (checkpoints / "6").exists() and time.time() < deadline:
        time.sleep(0.05)
    victim.kill()
    victim.wait()
    assert (checkpoints / "6").exists() and not (tmp_path / "killed.npz").exists()
    subprocess.run(arguments("killed"), check=True, timeout=300)
    whole, killed = (np.load(tmp_path / f"{name}.npz", allow_pickle=False) for name in ("whole", "killed"))
    assert all(np.array_equal(whole[name], killed[name]) for name in whole.files)
    for name in ("log.csv", "log.json", "tensorboard"):
        assert (tmp_path / "killed" / name).exists()


def test_a_folder_of_another_run_is_refused(op, data, tmp_path):
    training.fit(network(op), data, options=training.Options(steps=2), folder=tmp_path)
    with pytest.raises(FileError, match="other settings"):
        training.fit(network(op), data, options=training.Options(steps=3), folder=tmp_path)


def test_losses_that_need_an_operator_say_so(op, data):
    with pytest.raises(ParameterError, match="op = None"):
        training.fit(network(op), data, weights=training.LossWeights(light_field=1.0))
    with pytest.raises(ParameterError, match="game"):
        training.LossWeights(game="chess")


def test_files_are_streamed_a_sample_at_a_time(op, data, tmp_path):
    write_pairs(tmp_path / "pairs.h5", data.frames, data.volumes)
    tifffile.imwrite(tmp_path / "movie.tif", data.movies[0], photometric="minisblack")
    frames, volumes = open_pairs(tmp_path / "pairs.h5")
    movie = open_movie(tmp_path / "movie.tif")
    assert isinstance(frames, h5py.Dataset) and isinstance(movie, np.memmap)
    streamed = training.TrainingSet(frames, volumes, [movie], (N, N), (S, S)).check()
    for a, b in zip(streamed.batch(0, 3, 2, 2), data.batch(0, 3, 2, 2), strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF nothing")
    for name in ("broken.h5", "missing.tif"):
        with pytest.raises(FileError, match=name):
            open_pairs(tmp_path / name)


def test_a_dark_frame_asks_nothing_of_the_splitting_loss():
    def value(x):
        return losses.noise_splitting(lambda y: x * y[None], lambda v: v[0], jnp.zeros((6, 6)), jax.random.key(0))

    assert np.isfinite(jax.value_and_grad(value)(1.0)).all() and value(1.0) == 0
    y = jax.random.poisson(jax.random.key(1), jnp.full((40, 40), 30.0)).astype(jnp.float32)
    mask = jnp.zeros((40, 40), bool).at[5:-5, 5:-5].set(True)
    inner = losses.noise_splitting(lambda y: y[None], lambda v: v[0], y.at[:5].mul(100), jax.random.key(0), mask)
    assert 0 < inner < 0.3  # variance of both parts over the square of the mean; the bright rim is left out
