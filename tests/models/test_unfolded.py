"""Unfolded networks: what they are untrained, and the memory of their gradients."""

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


@pytest.fixture(scope="module")
def op():
    values = jax.random.uniform(jax.random.key(1), (3, S, S, 3 * N, 3 * N)) ** 4
    psf = PSF(values / values.sum((-1, -2), keepdims=True), Microscope(20, 0.5, 1.33, 0.52, 125, 2500, N), (-5.0, 0.0, 5.0))
    return LightField(psf, (7, 7))


@pytest.fixture(scope="module")
def frame(op):
    return op(jax.random.uniform(jax.random.key(2), op.in_shape) ** 8)


def relative(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.mark.parametrize("layers", [1, 7, 30])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_untrained_physics_is_ista(op, frame, layers, checkpoint):
    net = models.UnfoldedISTA(models.Physics(op, (S, S)), layers, sparsity=0.01, checkpoint=checkpoint)
    lam = 0.01 * jnp.sqrt(jnp.mean(frame**2))
    wanted = solvers.run(solvers.ISTA(lam), solvers.Problem(op, frame), layers).x
    assert relative(net(frame), wanted) <= 1e-6


def test_physics_with_momentum_is_fista_while_it_does_not_restart(op, frame):
    net = models.UnfoldedISTA(models.Physics(op, (S, S)), 6, momentum=fista_momentum(6))
    wanted = solvers.run(solvers.FISTA(0.0), solvers.Problem(op, frame), 6).x
    assert relative(net(frame), wanted) <= 1e-5


def test_convolution_is_that_of_the_library_with_its_gradients():
    x, k = jax.random.normal(jax.random.key(0), (6, 5, 3)), jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

    def library(x, k):
        return jax.lax.conv_general_dilated(x[None], k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]

    np.testing.assert_allclose(convolve(x, k), library(x, k), atol=1e-5)
    for argument in (0, 1):
        got, wanted = (jax.grad(lambda x, k, f=f: jnp.sum(f(x, k) ** 3), argument)(x, k) for f in (convolve, library))
        np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-3)


def test_strided_patches_are_a_strided_convolution():
    x, k = jax.random.normal(jax.random.key(0), (5, 7, 8, 2)), jax.random.normal(jax.random.key(1), (3, 4, 4, 2, 3))
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    wanted = jax.lax.conv_general_dilated(x[None], k, (2, 2, 2), "SAME", dimension_numbers=numbers)[0]
    got = strided_patches(x, (3, 4, 4), (2, 2, 2)) @ k.reshape(-1, 3)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_impulse_kernels_rebuild_the_operator(op):
    kernels = impulse_kernels(op, (S, S), (N, N), 1)
    x = jax.random.normal(jax.random.key(3), op.in_shape)
    seen = convolve(views.to_channels(x, S).transpose(1, 2, 0), kernels)
    image = views.from_views(seen.transpose(2, 0, 1).reshape(N, N, 7, 7))
    assert relative(image, op(x)) <= 1e-5


def test_whole_kernels_make_the_convolutional_network_ista(op, frame):
    term = models.Convolutional(jax.random.key(0), 5, 3, (S, S), (N, N), reach=1, op=op)
    net = models.UnfoldedISTA(term, 5, sparsity=0.01)
    lam, tau = 0.01 * jnp.sqrt(jnp.mean(frame**2)), term.step_size.value
    wanted = solvers.run(solvers.ISTA(lam, tau), solvers.Problem(op, frame), 5).x
    assert relative(net(frame), wanted) <= 1e-5


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_convolutional_variants_have_the_parameters_they_say(op, tied, shared):
    term = models.Convolutional(jax.random.key(0), 4, 3, (S, S), (N, N), reach=1, tied=tied, shared=shared)
    kernels = 9 * 12 * 25 * (1 if shared else 4) * (1 if tied else 2)
    assert models.frozen.count_parameters(term) == kernels


def nets(op):
    yield models.UnfoldedISTA(models.Physics(op, (S, S)), 3, sparsity=0.01)
    yield models.UnfoldedISTA(models.Convolutional(jax.random.key(0), 3, 3, (S, S), (N, N), reach=1, op=op), 3)
    yield models.UnfoldedISTA(models.Compressed(jax.random.key(0), 3, 3, (S, S), (N, N), width=8, compress=5, op=op), 3)
    yield models.ViewUNet(3, (S, S), (N, N), width=4, levels=2, rngs=nnx.Rngs(0))


def test_every_network_is_homogeneous_nonnegative_and_of_the_volumes_shape(op, frame):
    for net in nets(op):
        x = net(frame)
        assert x.shape == op.in_shape and bool(jnp.all(x >= 0)) and float(x.max()) > 0
        assert relative(net(7 * frame), 7 * x) <= 1e-4
        assert relative(jax.vmap(net)(jnp.stack([frame, 2 * frame]))[1], net(2 * frame)) <= 1e-4


def test_frozen_arrays_do_not_learn_and_learned_operators_do(op):
    fixed = models.UnfoldedISTA(models.Physics(op, (S, S)), 3)
    assert models.frozen.count_parameters(fixed) == 3 + 3 * 12
    learned = models.UnfoldedISTA(models.Physics(op, (S, S), learn_operator=True), 3)
    assert models.frozen.count_parameters(learned) > models.frozen.count_parameters(fixed)


def test_memory_of_the_gradient_with_checkpointing_grows_as_a_root(op, frame):
    def temporaries(layers, checkpoint):
        net = models.UnfoldedISTA(models.Physics(op, (S, S)), layers, checkpoint=checkpoint)
        arrays, fixed = eqx.partition(net, models.trainable(net))

        def loss(arrays, y):
            return jnp.sum(eqx.combine(arrays, fixed)(y) ** 2)

        return jax.jit(jax.grad(loss)).lower(arrays, frame).compile().memory_analysis().temp_size_in_bytes

    small, large = temporaries(16, True), temporaries(256, True)
    assert large / small <= 16**0.6
    assert temporaries(256, False) > 2 * large


def test_margin_is_estimated_and_cut_off(op):
    values = jax.random.uniform(jax.random.key(1), (2, S, S, 3 * N, 3 * N))
    wide = LightField(PSF(values, Microscope(20, 0.5, 1.33, 0.52, 125, 2500, N), (0.0, 5.0)), (4, 6), margin=1)
    net = models.UnfoldedISTA(models.Physics(wide, (S, S), margin=1), 2)
    assert net(jnp.ones(wide.out_shape)).shape == (2, 8, 12)


def test_wrong_input_is_named(op):
    net = models.UnfoldedISTA(models.Physics(op, (S, S)), 2)
    with pytest.raises(ShapeError, match="y has shape"):
        net(jnp.ones((10, 10)))
    with pytest.raises(ParameterError, match="cell_voxels"):
        models.Physics(op, (3, 3))
    with pytest.raises(ParameterError, match="compress = 4"):
        models.Compressed(jax.random.key(0), 2, 3, (S, S), (N, N), compress=4)


def test_linear_surrogate_fits_and_states_its_error(op):
    net = models.LinearForwardNet.fit(op, (S, S), (N, N), layers=2, width=40, steps=400)
    x = jax.random.normal(jax.random.key(5), op.in_shape)
    inner = slice(2 * N, -2 * N)  # away from the border, where a chain loses what leaves the field on its way
    measured = relative(net(x)[inner, inner], op(x)[inner, inner])
    assert net.error <= 0.1
    assert measured <= 1.5 * net.error


def test_critic_gives_one_number_and_knows_no_brightness():
    critic = models.PatchCritic(4, rngs=nnx.Rngs(0))
    v = jax.random.uniform(jax.random.key(0), (5, 12, 14))
    assert critic(v).shape == ()
    np.testing.assert_allclose(critic(3 * v), critic(v), rtol=1e-4, atol=1e-6)
