"""The algebra of operators: what the laws of `laws/` do not say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ShapeError
from lfjax.linop import Diagonal, FunctionOperator, Identity, automatic_transpose

MATRIX = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
A = FunctionOperator(lambda x: MATRIX @ x, (5,))


def dense(op):
    return np.stack([op(row) for row in np.eye(op.in_shape[0], dtype=np.float32)], axis=1)


@pytest.mark.parametrize(
    ("op", "wanted"),
    [
        (A.T, MATRIX.T),
        (A @ A.T, MATRIX @ MATRIX.T),
        (A + A, 2 * MATRIX),
        (A.T @ A - Identity((5,)), MATRIX.T @ MATRIX - np.eye(5)),
        (-A, -MATRIX),
        (jnp.float32(3) * A, 3 * MATRIX),
        (np.float64(3) * A, 3 * MATRIX),
        (Diagonal(jnp.arange(3.0)) @ A, np.arange(3)[:, None] * MATRIX),
    ],
)
def test_algebra_is_that_of_matrices(op, wanted):
    np.testing.assert_allclose(dense(op), wanted, atol=1e-5)
    np.testing.assert_allclose(dense(op.T), wanted.T, atol=1e-5)


def test_transposing_twice_gives_the_operator_itself():
    assert A.T.T is A


def test_automatic_transpose_ignores_a_wrong_override():
    class Wrong(FunctionOperator):
        def rmatvec(self, y):
            return jnp.zeros(self.in_shape)

    y = jnp.arange(3.0)
    np.testing.assert_allclose(automatic_transpose(Wrong(A.function, (5,)), y), MATRIX.T @ np.arange(3), atol=1e-5)


def test_gradient_with_respect_to_the_operator():
    x = jnp.array([1.0, 2.0, 3.0])
    gradient = jax.grad(lambda op: jnp.sum(op(x) ** 2))(Diagonal(jnp.ones(3))).diagonal
    np.testing.assert_allclose(gradient, 2 * x**2)


def test_norm_of_nothing_is_nothing():
    assert float((0.0 * A).norm()) == 0.0


def test_operators_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="cannot compose FunctionOperator @ FunctionOperator"):
        A @ A
    with pytest.raises(ShapeError, match="second summand"):
        A + A.T
