"""Losses against closed forms; the training loop with all of its options, reproducible from a seed."""

import struct

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
from lfjax.io import Movie
from lfjax.optics import PSF, LightField, Microscope
from lfjax.training import losses
from lfjax.training.data import open_movie, open_pairs, write_pairs

N, S = 3, 2
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def op():
    values = RNG.random((2, S, S, 3 * N, 3 * N), np.float32)
    values = values + np.flip(values, (1, 3))
    values = values + np.flip(values, (2, 4))
    values = values + values.transpose(0, 2, 1, 4, 3)
    return LightField(PSF(jnp.asarray(values), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, N), (0.0, 5.0)), (6, 6))


@pytest.fixture(scope="module")
def data(op):
    volumes = RNG.random((4, *op.in_shape), np.float32) ** 6
    frames = np.asarray(jax.jit(jax.vmap(op))(volumes))
    return training.TrainingSet(frames, volumes, [frames[::-1].copy()], (N, N), (S, S))


@pytest.fixture(scope="module")
def network(op):
    term = models.Convolutional(jax.random.key(0), 3, 2, (S, S), (N, N), reach=1, op=op, tied=True)
    return models.UnfoldedISTA(term, 3, sparsity=0.01)


def poisson(mean, *shape):
    return jnp.asarray(RNG.poisson(mean, shape).astype(np.float32))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_turned_volumes_have_turned_light_fields(op):
    @jax.jit
    def both(x, which):
        return op(losses.dihedral(x, which)), losses.dihedral(op(x), which)

    x = RNG.random(op.in_shape, np.float32)
    for which in range(8):
        np.testing.assert_allclose(*both(x, which), rtol=1e-4, atol=1e-3, err_msg=f"which = {which}")


def test_losses_have_their_closed_forms():
    x = jnp.asarray(RNG.standard_normal((2, 6, 6), np.float32))
    assert float(losses.volume_error(1.1 * x, x)) == pytest.approx(0.01, rel=1e-4)
    assert float(losses.sparsity(jnp.ones((2, 3, 4)))) == pytest.approx(1)
    assert float(losses.sparsity(jnp.zeros((2, 3, 4)).at[0, 0, 0].set(5.0))) == pytest.approx(24**-0.5)
    scores = jnp.asarray([0.5, 1.5])
    assert float(losses.least_squares_critic(scores, scores)) == pytest.approx(0.125 + 0.625)
    assert float(losses.least_squares_generator(scores)) == pytest.approx(0.125)
    assert float(losses.wasserstein_critic(scores, 2 * scores)) == pytest.approx(1)
    slope = RNG.standard_normal(x.shape, np.float32)
    penalty = jax.jit(lambda x, k: losses.gradient_penalty(lambda v: jnp.vdot(slope, v), x, 2 * x, k))(x, jax.random.key(2))
    assert float(penalty) == pytest.approx((float(np.linalg.norm(slope)) - 1) ** 2, rel=1e-4)


def test_light_field_loss_ignores_background_and_masked_pixels():
    y = jnp.asarray(RNG.random((12, 15), np.float32))
    error = jax.jit(losses.light_field_error, static_argnames=("cell_pixels", "block"))
    offset = np.tile(RNG.random((3, 3), np.float32), (4, 5))  # another background in each view
    assert float(error(y + offset, y)) > 0.1
    assert float(error(y + offset, y, cell_pixels=(3, 3), block=2)) < 1e-9
    mask = np.zeros(y.shape, bool)
    mask[3:9, 3:9] = True
    assert float(error(y.at[0, 0].set(100), y, jnp.asarray(mask))) == 0
    with pytest.raises(ParameterError, match="cell_pixels"):
        losses.light_field_error(y, y, block=2)


def test_split_photons_are_independent_poisson_parts():
    y = poisson(20.0, 200_000)
    seen, held = (np.asarray(a, np.float64) for a in jax.jit(losses.split_photons, static_argnums=2)(jax.random.key(1), y, 0.7))
    assert np.all(seen + held == y) and np.all(seen >= 0) and np.all(held >= 0)
    assert seen.mean() == pytest.approx(14, rel=0.01)
    assert seen.var() == pytest.approx(14, rel=0.02)
    assert abs(np.corrcoef(seen, held)[0, 1]) < 0.01


def test_equivariance_is_zero_for_a_perfect_inverse():
    x = jnp.asarray(RNG.random((2, 4, 4), np.float32))

    @jax.jit
    def value(scale, x, key):
        return losses.equivariance(lambda y: scale * y, lambda v: v, x, key)

    assert float(value(1.0, x, jax.random.key(1))) == 0
    assert float(value(0.0, x, jax.random.key(1))) == pytest.approx(1)


@pytest.mark.parametrize(
    "weights",
    [
        {"volume": 1.0},
        {"volume": 0.0, "light_field": 1.0, "equivariance": 0.1, "sparsity": 0.01},
        {"volume": 0.0, "noise_splitting": 1.0},
        {"volume": 1.0, "light_field": 0.1, "adversarial": 0.01, "game": "wasserstein", "block": 2},
    ],
)
def test_every_mixture_of_losses_goes_down(op, data, network, weights):
    options = training.Options(steps=40, validate_every=10, critic_width=2)
    net = eqx.tree_at(lambda n: n.step, network, 0.2 * network.step)  # far from the photons' noise: there is something to learn
    history = training.fit(net, data, op=op, weights=training.LossWeights(**weights), options=options).history
    leading = max((k for k in weights if k in history[0]), key=lambda k: weights[k])
    assert history[-1][leading] < history[0][leading]


@pytest.mark.parametrize(
    "options", [{"accumulate": 2, "steps": 40}, {"precision": "bfloat16"}, {"crop": (4, 4)}, {"relative": False}]
)
def test_options_train_too(network, data, options):
    chosen = training.Options(**({"steps": 20, "validate_every": 5, "learning_rate": 3e-3} | options))
    history = training.fit(network, data, options=chosen).history
    assert history[-1]["volume"] < history[0]["volume"]


def test_flax_networks_train_in_the_same_loop(data):
    unet = nnx.jit(lambda: models.ViewUNet(2, (S, S), (N, N), width=4, levels=1, rngs=nnx.Rngs(0)))()
    net = training.FromNNX(unet)
    options = training.Options(steps=40, validate_every=10, relative=False, learning_rate=3e-3)
    history = training.fit(net, data, options=options).history
    assert history[-1]["volume"] < history[0]["volume"]


def test_a_seed_fixes_everything_and_another_does_not(network, data):
    one, two, other = (training.fit(network, data, options=training.Options(steps=60, seed=s)).state for s in (1, 1, 2))
    assert same(one, two) and not same(one, other)


def test_training_stops_early_and_keeps_the_best(network, data):
    scores = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    seen = []

    def validate(model):
        seen.append(model)
        return next(scores)

    options = training.Options(steps=60, validate_every=2, patience=2)
    fitted = training.fit(network, data, options=options, validate=validate)
    assert len(fitted.history) == 4
    best = eqx.filter(seen[1], models.trainable(seen[1]))
    assert same(eqx.filter(fitted.model, models.trainable(fitted.model)), best)


def test_losses_that_need_an_operator_say_so(network, data):
    with pytest.raises(ParameterError, match="op = None"):
        training.fit(network, data, weights=training.LossWeights(light_field=1.0))
    with pytest.raises(ParameterError, match="game"):
        training.LossWeights(game="chess")


def test_files_are_read_sample_by_sample(data, tmp_path):
    write_pairs(tmp_path / "pairs.h5", data.frames, data.volumes)
    tifffile.imwrite(tmp_path / "movie.tif", data.movies[0], photometric="minisblack")
    frames, volumes = open_pairs(tmp_path / "pairs.h5")
    movie = open_movie(tmp_path / "movie.tif")
    assert isinstance(frames, Movie) and isinstance(movie, Movie)
    streamed = training.TrainingSet(frames, volumes, [movie], (N, N), (S, S)).check()
    for a, b in zip(streamed.batch(0, 3, 2, 2), data.batch(0, 3, 2, 2), strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF nothing")
    for name in ("broken.h5", "missing.tif"):
        with pytest.raises(FileError, match=name):
            open_pairs(tmp_path / name)


def test_a_sample_that_cannot_be_read_names_its_file(tmp_path):
    path = tmp_path / "pairs.h5"
    write_pairs(path, np.ones((2, 10, 10)), np.ones((2, 2, 4, 4)))
    with h5py.File(path) as file:
        place = struct.pack("<Q", file["volumes"].id.get_chunk_info(1).byte_offset)
    data = path.read_bytes()
    assert data.count(place) == 1
    path.write_bytes(data.replace(place, struct.pack("<Q", 2**40)))
    frames, volumes = open_pairs(path)
    with frames:
        pairs = training.TrainingSet(frames, volumes, [], (5, 5), (2, 2))
        with pytest.raises(FileError, match=r"pairs\.h5: cannot be read \(.*\); expected a complete HDF5 file"):
            for step in range(20):
                pairs.batch(0, step, 4, 0)


def test_splitting_loss_of_a_dark_frame_is_zero():
    @jax.jit
    def value_and_gradient(scale, y):
        def value(scale):
            return losses.noise_splitting(lambda y: scale * y[None], lambda v: v[0], y, jax.random.key(0))

        return jax.value_and_grad(value)(scale)

    value, gradient = value_and_gradient(1.0, jnp.zeros((40, 40)))
    assert value == 0 and np.isfinite(gradient)
    y = poisson(30.0, 40, 40)
    mask = np.zeros((40, 40), bool)
    mask[5:-5, 5:-5] = True
    splitting = jax.jit(lambda y, m: losses.noise_splitting(lambda y: y[None], lambda v: v[0], y, jax.random.key(0), m))
    inner = splitting(y.at[:5].mul(100), jnp.asarray(mask))
    assert 0 < inner < 0.3  # variance of both parts over the square of the mean; the bright rim is left out
