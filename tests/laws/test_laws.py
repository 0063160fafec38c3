"""The laws that every linear operator of the package keeps.

Compiling takes nearly all of the time, so each operator is built once per dtype, and one program computes all the numbers that
its laws compare. `test_jit` compares them with a call outside of jit, and with a program that XLA optimises.
"""

import functools
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import SimpleNamespace

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
OPTIMISED = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}  # as users compile, see conftest

every = pytest.mark.parametrize("name", OPERATORS)


@eqx.filter_jit
def measure(op, x, z, y):
    """Numbers of an operator A at three pairs of volume and data: (x, y), (z, 0) and (2 x - 3 z, y)."""
    gram = op.T @ op
    composed = 0.5 * gram + gram

    def at(pair):
        volume, data = pair
        image = op(volume)
        residual = image - data
        return {
            "volumes": volume,
            "images": image,
            "residuals": residual,
            "backs": op.T(residual),
            "automatic_backs": automatic_transpose(op, residual),
            "gradients": jax.grad(lambda v: 0.5 * jnp.sum((op(v) - data) ** 2))(volume),
            "composed": composed(volume),
        }

    pairs = jnp.stack([x, z, 2 * x - 3 * z]), jnp.stack([y, jnp.zeros_like(y), y])
    numbers = jax.lax.map(at, pairs)  # one after another
    unit = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    images = jax.vmap(op)(jnp.concatenate([pairs[0], unit]))
    return numbers | {
        "images_together": images[:3],
        "backs_together": jax.vmap(op.T)(numbers["residuals"]),
        "matrix": images[3:].reshape(x.size, -1).T,
        "norm": op.norm(200),
    }


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
    return SimpleNamespace(**jax.tree.map(np.asarray, measure(op, *draw(op))))


def relative(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def dot_gap(x, y, image, back):
    """<A x, y> - <x, A^T y> as a fraction of |A x| |y|."""
    assert image.shape == y.shape and back.shape == x.shape
    return abs(np.vdot(image, y) - np.vdot(x, back)) / (np.linalg.norm(image) * np.linalg.norm(y))


@every
def test_adjoint_in_float32(name):
    n = numbers(name)
    assert {a.dtype for a in vars(n).values()} == {np.dtype(np.float32)}
    assert dot_gap(n.volumes[0], n.residuals[0], n.images[0], n.backs[0]) <= 1e-5


@every
def test_adjoint_in_float64(name):
    op = build(name, np.float64)
    x, _, y = draw(op, np.float64)
    with jax.enable_x64(True):
        image, back = eqx.filter_jit(lambda o, x, y: (o(x), o.T(y)))(op, x, y)
    assert image.dtype == back.dtype == np.float64
    assert dot_gap(x, y, np.asarray(image), np.asarray(back)) <= 1e-12


@every
def test_linear(name):
    of_x, of_z, of_both = numbers(name).images
    assert relative(of_both, 2 * of_x - 3 * of_z) <= 1e-5


@every
def test_transpose_equals_the_automatic_one(name):
    n = numbers(name)
    assert relative(n.backs, n.automatic_backs) <= 1e-5


@every
def test_jit(name):
    n, op = numbers(name), build(name)
    image = op(n.volumes[0])
    assert image.shape == op.out_shape
    assert relative(n.images[0], image) <= 1e-5  # the operator as an argument
    back = jax.jit(lambda y: op.T(y), compiler_options=OPTIMISED)(n.residuals[0])
    assert relative(back, n.backs[0]) <= 1e-5  # and as a constant


@every
def test_vmap(name):
    n = numbers(name)
    assert relative(n.images_together, n.images) <= 1e-5
    assert relative(n.backs_together, n.backs) <= 1e-5


@every
def test_gradient_of_least_squares(name):
    n = numbers(name)
    assert relative(n.gradients, n.backs) <= 1e-4


@every
def test_composes(name):
    n = numbers(name)
    (x, z, _), (of_x, of_z, _) = n.volumes, n.composed  # 0.5 A^T A + A^T A
    assert abs(np.vdot(of_x, z) - np.vdot(x, of_z)) <= 1e-5 * np.linalg.norm(of_x) * np.linalg.norm(z)
    assert relative(of_z, 1.5 * n.backs[1]) <= 1e-5  # A^T (A z)


@every
def test_norm_is_the_largest_singular_value(name):
    n = numbers(name)
    largest = np.linalg.svd(n.matrix, compute_uv=False)[0]
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
