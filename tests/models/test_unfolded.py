"""Unfolded networks: what they compute before training, and the memory of their gradients."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lfjax import models, solvers
from lfjax.errors import ParameterError, ShapeError
from lfjax.models.convolution import convolve, impulse_kernels, strided_patches
from lfjax.models.unfolded import fista_momentum
from lfjax.optics import PSF, LightField, Microscope
from lfjax.optics.lightfield import views

N, S = 5, 2
RNG = np.random.default_rng(0)


def microscope_psf(depths_um):
    values = RNG.random((len(depths_um), S, S, 3 * N, 3 * N), np.float32) ** 4
    values /= values.sum((-1, -2), keepdims=True)
    return PSF(jnp.asarray(values), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, N), depths_um)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape, np.float32))


@pytest.fixture(scope="module")
def op():
    return LightField(microscope_psf((-5.0, 0.0, 5.0)), (7, 7))


@pytest.fixture(scope="module")
def forward(op):
    return eqx.filter_jit(op)


@pytest.fixture(scope="module")
def physics(op):
    return models.Physics(op, (S, S))


@pytest.fixture(scope="module")
def frame(op, forward):
    return forward(jnp.asarray(RNG.random(op.in_shape, np.float32) ** 8))


@pytest.fixture(scope="module")
def kernels(op):
    return impulse_kernels(op, (S, S), (N, N), 1)


@pytest.fixture(scope="module")
def sparsity(frame):
    return 0.01 * float(np.sqrt(np.mean(np.square(frame))))


def relative(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("layers", [1, 7, 30])
def test_untrained_physics_is_ista(op, physics, frame, sparsity, layers):
    expected = solvers.run(solvers.ISTA(sparsity), solvers.Problem(op, frame), layers).x
    for checkpoint in (False, True):
        net = models.UnfoldedISTA(physics, layers, sparsity=0.01, checkpoint=checkpoint)
        assert relative(net(frame), expected) <= 1e-6, checkpoint


def test_physics_with_momentum_is_fista_while_it_does_not_restart(op, physics, frame):
    net = models.UnfoldedISTA(physics, 6, momentum=fista_momentum(6))
    expected = solvers.run(solvers.FISTA(0.0), solvers.Problem(op, frame), 6).x
    assert relative(net(frame), expected) <= 1e-5


def test_convolution_and_its_gradients_agree_with_the_library():
    x, k = normal(6, 5, 3), normal(3, 3, 3, 4)

    def library(x, k):
        return jax.lax.conv_general_dilated(x[None], k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]

    def value_and_gradients(f):
        return jax.jit(lambda x, k: (f(x, k), *jax.grad(lambda x, k: jnp.sum(f(x, k) ** 3), (0, 1))(x, k)))(x, k)

    (value, *gradients), (expected, *expected_gradients) = value_and_gradients(convolve), value_and_gradients(library)
    np.testing.assert_allclose(value, expected, atol=1e-5)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=2e-4, atol=2e-3)


def test_strided_patches_are_a_strided_convolution():
    x, k = normal(5, 7, 8, 2), normal(3, 4, 4, 2, 3)

    @jax.jit
    def both(x, k):
        numbers = ("NDHWC", "DHWIO", "NDHWC")
        library = jax.lax.conv_general_dilated(x[None], k, (2, 2, 2), "SAME", dimension_numbers=numbers)[0]
        return strided_patches(x, (3, 4, 4), (2, 2, 2)) @ k.reshape(-1, 3), library

    np.testing.assert_allclose(*both(x, k), atol=1e-4)


def test_impulse_kernels_rebuild_the_operator(op, forward, kernels):
    @jax.jit
    def rebuilt(x):
        seen = convolve(views.to_channels(x, S).transpose(1, 2, 0), kernels)
        return views.from_views(seen.transpose(2, 0, 1).reshape(N, N, 7, 7))

    x = normal(*op.in_shape)
    assert relative(rebuilt(x), forward(x)) <= 1e-5


def test_convolutional_network_with_whole_kernels_is_ista(op, frame, sparsity):
    term = models.Convolutional(jax.random.key(0), 5, 3, (S, S), (N, N), reach=1, op=op)
    net = models.UnfoldedISTA(term, 5, sparsity=0.01)
    expected = solvers.run(solvers.ISTA(sparsity, term.step_size.value), solvers.Problem(op, frame), 5).x
    assert relative(net(frame), expected) <= 1e-5


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_convolutional_variants_have_the_stated_number_of_parameters(tied, shared):
    term = models.Convolutional(jax.random.key(0), 4, 3, (S, S), (N, N), reach=1, tied=tied, shared=shared)
    size = 9 * 12 * 25 * (1 if shared else 4) * (1 if tied else 2)
    assert models.frozen.count_parameters(term) == size


def networks(op, physics):
    yield models.UnfoldedISTA(physics, 3, sparsity=0.01)
    yield models.UnfoldedISTA(models.Convolutional(jax.random.key(0), 3, 3, (S, S), (N, N), reach=1, op=op), 3)
    yield models.UnfoldedISTA(models.Compressed(jax.random.key(0), 3, 3, (S, S), (N, N), width=8, compress=5, op=op), 3)
    yield nnx.jit(lambda: models.ViewUNet(3, (S, S), (N, N), width=4, levels=2, rngs=nnx.Rngs(0)))()


def test_every_network_is_homogeneous_nonnegative_and_of_the_volumes_shape(op, physics, frame):
    single, batch = eqx.filter_jit(lambda net, y: net(y)), eqx.filter_jit(lambda net, ys: jax.vmap(net)(ys))
    frame = np.asarray(frame)
    for net in networks(op, physics):
        x = np.asarray(single(net, frame))
        assert x.shape == op.in_shape and np.all(x >= 0) and x.max() > 0
        assert relative(single(net, 7 * frame), 7 * x) <= 1e-4
        for scale in np.float32([1e-30, 1e30]):
            assert relative(np.float64(single(net, scale * frame)) / scale, x) <= 1e-4
        assert np.isfinite(single(net, 0 * frame)).all()
        assert relative(batch(net, np.stack([frame, 2 * frame]))[1], single(net, 2 * frame)) <= 1e-4


def test_frozen_arrays_are_not_trained_and_learned_operators_are(op, physics):
    fixed = models.UnfoldedISTA(physics, 3)
    assert models.frozen.count_parameters(fixed) == 3 + 3 * 12
    learned = models.UnfoldedISTA(models.Physics(op, (S, S), learn_operator=True), 3)
    assert models.frozen.count_parameters(learned) > models.frozen.count_parameters(fixed)


def test_memory_of_the_checkpointed_gradient_grows_as_a_root(physics, frame):
    def temporaries(layers, checkpoint):
        net = models.UnfoldedISTA(physics, layers, checkpoint=checkpoint)
        arrays, fixed = eqx.partition(net, models.trainable(net))

        def loss(arrays, y):
            return jnp.sum(eqx.combine(arrays, fixed)(y) ** 2)

        return jax.jit(jax.grad(loss)).lower(arrays, frame).compile().memory_analysis().temp_size_in_bytes

    small, large = temporaries(16, True), temporaries(256, True)
    assert large / small <= 16**0.6
    assert temporaries(256, False) > 2 * large


def test_margin_is_estimated_and_cut_off():
    wide = LightField(microscope_psf((0.0, 5.0)), (4, 6), margin=1)
    net = models.UnfoldedISTA(models.Physics(wide, (S, S), margin=1), 2)
    assert net(jnp.ones(wide.out_shape)).shape == (2, 8, 12)


def test_wrong_input_is_named(op, physics):
    with pytest.raises(ShapeError, match="y has shape"):
        models.UnfoldedISTA(physics, 2)(jnp.ones((10, 10)))
    with pytest.raises(ParameterError, match="cell_voxels"):
        models.Physics(op, (3, 3))
    with pytest.raises(ParameterError, match="compress = 4"):
        models.Compressed(jax.random.key(0), 2, 3, (S, S), (N, N), compress=4)


def test_linear_surrogate_fits_and_states_its_error(op, forward):
    net = models.LinearForwardNet.fit(op, (S, S), (N, N), layers=2, width=40, steps=400)
    x = normal(*op.in_shape)
    inner = slice(2 * N, -2 * N)  # away from the border, where a chain loses light that leaves the field on its way
    measured = relative(eqx.filter_jit(net)(x)[inner, inner], forward(x)[inner, inner])
    assert net.error <= 0.1
    assert measured <= 1.5 * net.error


def test_critic_gives_one_number_whatever_the_brightness():
    critic = nnx.jit(lambda: models.PatchCritic(4, rngs=nnx.Rngs(0)))()
    score = eqx.filter_jit(critic)
    v = RNG.random((5, 12, 14), np.float32)
    assert score(v).shape == ()
    np.testing.assert_allclose(score(3 * v), score(v), rtol=1e-4, atol=1e-6)


CORE_ONLY = """
import sys
sys.modules.update(dict.fromkeys(("flax", "optax", "orbax", "tensorboardX")))  # None: importing them raises
import numpy as np
from lfjax import models
from lfjax.linop import FunctionOperator
H = FunctionOperator(lambda x: x.sum(0), (2, 6, 6))
net = models.UnfoldedISTA(models.Physics(H, (2, 2)), 3)
assert net(np.ones((6, 6), np.float32)).shape == (2, 6, 6)
for use in (lambda: models.LinearForwardNet.fit(H, (2, 2), (2, 2), layers=1, width=2, steps=1), lambda: models.ViewUNet):
    try:
        use()
    except ModuleNotFoundError as error:
        assert "lfjax[train]" in str(error), error
    else:
        raise AssertionError("expected an error that names the extra")
"""


def test_physics_works_without_the_training_libraries():
    """Flax and Optax belong to the extra `train`; what needs them names it."""
    subprocess.run([sys.executable, "-c", CORE_ONLY], check=True, timeout=120)
