"""The laws that every linear operator of the package keeps.

Compiling takes nearly all of the time, so each operator is built once per dtype and one program gives all the numbers that
its laws are about; every law asserts on them. XLA compiles these programs five times faster without its optimisations;
`test_jit` holds the unjitted call, compiled as users have it, against them.
"""

import functools
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from typing import NamedTuple

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
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}

every = pytest.mark.parametrize("name", OPERATORS)


class Numbers(NamedTuple):
    """One operator A applied in every way that a law speaks of; x and z are volumes, y is data.

    Attributes:
        points: x, z and 2 x - 3 z, in `in_shape`.
        images: A of the points, one after another; `batched_images` by `vmap`.
        data: y, A x and A x - y, in `out_shape`.
        backs: A^T of the data, one after another; `batched_backs` by `vmap`.
        automatic_back: A^T y by the automatic transpose of A.
        gradient: of 1/2 |A x - y|^2.
        grams: A^T A of x and z, composed; `sums`: 0.5 A^T A + A^T A of both.
        dense: A as a matrix.
        norm: |A| after 200 iterations.
    """

    points: np.ndarray
    images: np.ndarray
    batched_images: np.ndarray
    data: np.ndarray
    backs: np.ndarray
    batched_backs: np.ndarray
    automatic_back: np.ndarray
    gradient: np.ndarray
    grams: np.ndarray
    sums: np.ndarray
    dense: np.ndarray
    norm: np.ndarray


@functools.partial(eqx.filter_jit, compiler_options=QUICK)
def measure(op, x, z, y):
    points = jnp.stack([x, z, 2 * x - 3 * z])
    images = jax.lax.map(op, points)
    data = jnp.stack([y, images[0], images[0] - y])
    unit = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    batched = jax.vmap(op)(jnp.concatenate([points, unit]))
    gram = op.T @ op
    return Numbers(
        points=points,
        images=images,
        batched_images=batched[:3],
        data=data,
        backs=jax.lax.map(op.T, data),
        batched_backs=jax.vmap(op.T)(data),
        automatic_back=automatic_transpose(op, y),
        gradient=jax.grad(lambda v: 0.5 * jnp.sum((op(v) - y) ** 2))(x),
        grams=jax.lax.map(gram, points[:2]),
        sums=jax.lax.map(0.5 * gram + gram, points[:2]),
        dense=batched[3:].reshape(x.size, -1).T,
        norm=op.norm(200),
    )


@functools.cache
def build(name, dtype=np.float32):
    with jax.enable_x64(dtype is np.float64):
        return OPERATORS[name]()


def draw(op, dtype=np.float32):
    """x, z and y: noise of both signs."""
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape).astype(dtype) for shape in (op.in_shape, op.in_shape, op.out_shape)]


@functools.cache
def numbers(name):
    op = build(name)
    return jax.tree.map(np.asarray, measure(op, *draw(op)))


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def dot_gap(x, y, image, back):
    """<A x, y> - <x, A^T y> as a fraction of |A x| |y|."""
    assert image.shape == y.shape and back.shape == x.shape
    return abs(np.vdot(image, y) - np.vdot(x, back)) / (np.linalg.norm(image) * np.linalg.norm(y))


@every
def test_adjoint_in_float32(name):
    n = numbers(name)
    assert {a.dtype for a in n} == {np.dtype(np.float32)}
    assert dot_gap(n.points[0], n.data[0], n.images[0], n.backs[0]) <= 1e-5


@every
def test_adjoint_in_float64(name):
    op = build(name, np.float64)
    x, _, y = draw(op, np.float64)
    with jax.enable_x64(True):
        image, back = eqx.filter_jit(lambda o, x, y: (o(x), o.T(y)), compiler_options=QUICK)(op, x, y)
    assert image.dtype == back.dtype == np.float64
    assert dot_gap(x, y, np.asarray(image), np.asarray(back)) <= 1e-12


@every
def test_linear(name):
    of_x, of_z, of_both = numbers(name).images
    assert relative(of_both, 2 * of_x - 3 * of_z) <= 1e-5


@every
def test_transpose_equals_the_automatic_one(name):
    n = numbers(name)
    assert relative(n.backs[0], n.automatic_back) <= 1e-5


@every
def test_jit(name):
    n, op = numbers(name), build(name)
    x, _, y = draw(op)
    image = op(x)
    assert image.shape == op.out_shape
    assert relative(n.images[0], image) <= 1e-5  # the operator as an argument
    of_x, of_y = jax.jit(lambda x, y: (op(x), op.T(y)), compiler_options=QUICK)(x, y)  # and as a constant
    assert relative(of_x, image) <= 1e-5 and relative(of_y, n.backs[0]) <= 1e-5


@every
def test_vmap(name):
    n = numbers(name)
    assert relative(n.batched_images, n.images) <= 1e-5
    assert relative(n.batched_backs, n.backs) <= 1e-5


@every
def test_gradient_of_least_squares(name):
    n = numbers(name)
    assert relative(n.gradient, n.backs[2]) <= 1e-4  # A^T (A x - y)


@every
def test_composes(name):
    n = numbers(name)
    (x, z), (of_x, of_z) = n.points[:2], n.grams
    assert abs(np.vdot(of_x, z) - np.vdot(x, of_z)) <= 1e-5 * np.linalg.norm(of_x) * np.linalg.norm(z)
    assert relative(n.sums[0], 1.5 * n.backs[1]) <= 1e-5  # 1.5 A^T (A x)


@every
def test_norm_is_the_largest_singular_value(name):
    n = numbers(name)
    largest = np.linalg.svd(n.dense, compute_uv=False)[0]
    assert n.norm == pytest.approx(largest, rel=0.02)
    assert n.norm <= largest * (1 + 1e-5)


@every
def test_a_wrong_shape_is_named(name):
    op = build(name)
    with pytest.raises(ShapeError, match="expected"):
        op(np.zeros((*op.in_shape, 2)))


def test_no_operator_is_forgotten():
    for module in pkgutil.walk_packages(lfjax.__path__, "lfjax."):
        importlib.import_module(module.name)

    def below(cls):
        return {cls}.union(*(below(c) for c in cls.__subclasses__()))

    package = {c.__name__ for c in below(LinearOperator) if c.__module__.startswith("lfjax.")}
    package -= {"LinearOperator", "SelfAdjoint"}  # bases
    assert package <= {type(build(name)).__name__ for name in OPERATORS}
