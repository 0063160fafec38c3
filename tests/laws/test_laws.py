"""The laws that every linear operator of the package keeps."""

import importlib
import importlib.util
import pkgutil
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lfjax
from lfjax.errors import ShapeError
from lfjax.linop import LinearOperator, automatic_transpose

spec = importlib.util.spec_from_file_location("operators", Path(__file__).with_name("operators.py"))
operators = importlib.util.module_from_spec(spec)
spec.loader.exec_module(operators)
OPERATORS = operators.OPERATORS

every = pytest.mark.parametrize("name", OPERATORS)


def draw(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape, jnp.result_type(float))


def pair(name):
    op = OPERATORS[name]()
    return op, draw(op.in_shape, 1), draw(op.out_shape, 2)


def relative(a, b):
    return float(jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(jnp.ravel(b)))


def dot_gap(name):
    op, x, y = pair(name)
    image = op(x)
    assert image.shape == op.out_shape and op.T(y).shape == op.in_shape
    return abs(float(jnp.vdot(image, y) - jnp.vdot(x, op.T(y)))) / float(jnp.linalg.norm(image) * jnp.linalg.norm(y))


@every
def test_adjoint_in_float32(name):
    assert dot_gap(name) <= 1e-5


@every
def test_adjoint_in_float64(name):
    with jax.enable_x64(True):
        assert pair(name)[1].dtype == jnp.float64
        assert dot_gap(name) <= 1e-12


@every
def test_linear(name):
    op, x, _ = pair(name)
    z = draw(op.in_shape, 3)
    assert relative(op(2.0 * x - 3.0 * z), 2.0 * op(x) - 3.0 * op(z)) <= 1e-5


@every
def test_transpose_equals_the_automatic_one(name):
    op, _, y = pair(name)
    assert relative(op.T(y), automatic_transpose(op, y)) <= 1e-5


@every
def test_jit(name):
    op, x, y = pair(name)
    assert relative(eqx.filter_jit(lambda o, v: o(v))(op, x), op(x)) <= 1e-5  # the operator as an argument
    assert relative(jax.jit(lambda v: op.T(v))(y), op.T(y)) <= 1e-5  # and as a constant


@every
def test_vmap(name):
    op, x, y = pair(name)
    xs, ys = jnp.stack([x, 2 * x, -x]), jnp.stack([y, -y, 0.5 * y])
    assert relative(jax.vmap(op)(xs), jnp.stack([op(v) for v in xs])) <= 1e-5
    assert relative(jax.vmap(op.T)(ys), jnp.stack([op.T(v) for v in ys])) <= 1e-5


@every
def test_gradient_of_least_squares(name):
    op, x, y = pair(name)
    gradient = jax.grad(lambda v: 0.5 * jnp.sum((op(v) - y) ** 2))(x)
    assert relative(gradient, op.T(op(x) - y)) <= 1e-4


@every
def test_composes(name):
    op, x, _ = pair(name)
    gram = op.T @ op
    z = draw(op.in_shape, 4)
    left, right = float(jnp.vdot(gram(x), z)), float(jnp.vdot(x, gram(z)))
    size = float(jnp.linalg.norm(gram(x)) * jnp.linalg.norm(z))
    assert abs(left - right) <= 1e-5 * size
    assert relative((0.5 * gram + gram)(x), 1.5 * op.T(op(x))) <= 1e-5


@every
def test_norm_is_the_largest_singular_value(name):
    op = OPERATORS[name]()
    size = int(np.prod(op.in_shape))
    dense = jax.vmap(op)(jnp.eye(size).reshape(size, *op.in_shape)).reshape(size, -1)
    largest = np.linalg.svd(np.asarray(dense), compute_uv=False)[0]
    assert float(op.norm(200)) == pytest.approx(largest, rel=0.02)
    assert float(op.norm(200)) <= largest * (1 + 1e-5)


@every
def test_a_wrong_shape_is_named(name):
    op = OPERATORS[name]()
    with pytest.raises(ShapeError, match="expected"):
        op(jnp.zeros((*op.in_shape, 2)))


def test_no_operator_is_forgotten():
    for module in pkgutil.walk_packages(lfjax.__path__, "lfjax."):
        importlib.import_module(module.name)

    def below(cls):
        return {cls}.union(*(below(c) for c in cls.__subclasses__()))

    package = {c.__name__ for c in below(LinearOperator) if c.__module__.startswith("lfjax.")}
    package -= {"LinearOperator", "SelfAdjoint"}  # bases
    entered = {type(make()).__name__ for make in OPERATORS.values()}
    assert package <= entered
