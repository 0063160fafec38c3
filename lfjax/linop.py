"""Linear operators that JAX can differentiate, transpose, batch and compile.

A `LinearOperator` is an Equinox module, hence a pytree: it passes through `jax.jit`, `jax.grad` (also with respect to
its own arrays) and `jax.vmap` like any array. Domains are real arrays of one fixed shape; batch by `vmap`.

    A(x), A.T(y), A @ B, A + B, 2 * A, A.norm()
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import ShapeError, require_shape

Shape = tuple[int, ...]


class LinearOperator(eqx.Module):
    """A linear map y = A x between real arrays of fixed shape.

    A subclass defines `in_shape`, `out_shape` and `matvec`; the transpose comes from `jax.linear_transpose`, which is
    exact through FFTs, gathers, scans and `shard_map`. Override `rmatvec` only for speed: the law suite compares both.
    """

    @property
    @abc.abstractmethod
    def in_shape(self) -> Shape:
        """Shape of x."""

    @property
    @abc.abstractmethod
    def out_shape(self) -> Shape:
        """Shape of y."""

    @abc.abstractmethod
    def matvec(self, x: Array) -> Array:
        """A x, for x of shape `in_shape`."""

    def rmatvec(self, y: Array) -> Array:
        """A^T y, for y of shape `out_shape`."""
        return automatic_transpose(self, y)

    def __call__(self, x: ArrayLike) -> Array:
        """A x, after a check of the shape.

        Raises:
            ShapeError: x does not have shape `in_shape`.
        """
        require_shape(f"input of {type(self).__name__}", jnp.shape(x), self.in_shape)
        return _apply(self, jnp.asarray(x))

    @property
    def T(self) -> LinearOperator:  # noqa: N802 - the name that NumPy and linear algebra use
        """The transpose A^T, which is the adjoint since domains are real."""
        return Transpose(self)

    @property
    def gram(self) -> LinearOperator:
        """A^T A; a subclass overrides it where one operator is cheaper than two."""
        return self.T @ self

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            raise ShapeError(f"{type(self).__name__} @ {type(other).__name__}: expected an operator; apply it by A(x)")
        return Compose(self, other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, -1.0 * other)

    def __rmul__(self, scale: ArrayLike) -> LinearOperator:
        return Scale(scale, self)

    __mul__ = __rmul__

    def __neg__(self) -> LinearOperator:
        return -1.0 * self

    def norm(self, iterations: int = 30, *, key: Array | None = None) -> Float[Array, ""]:
        """Largest singular value |A| by power iteration on A^T A.

        v <- A^T A v / |A^T A v|;  |A|^2 ~ |A^T A v|. The value approaches |A| from below; the start is positive noise,
        which lies close to the leading singular vector of the nonnegative operators of optics.

        Args:
            iterations: number of applications of A^T A.
            key: random key of the start vector; None: a fixed one.
        """
        return _norm(self, iterations, key)


@eqx.filter_jit
def _apply(op: LinearOperator, x: Array) -> Array:
    """A x as one program, which JAX keeps for the next x: outside of jit each elementary operation would be one of its own."""
    return op.matvec(x)


@eqx.filter_jit
def _norm(op: LinearOperator, iterations: int, key: Array | None) -> Array:
    key = jax.random.key(0) if key is None else key
    flat = jax.random.uniform(key, (math.prod(op.in_shape),), minval=0.5, maxval=1.5)  # XLA compiles it faster than the shape
    start = flat.reshape(op.in_shape)

    def iterate(v: Array, _: None) -> tuple[Array, Array]:
        w = op.T(op(v))
        size = jnp.linalg.norm(w.ravel())
        return w / jnp.where(size > 0, size, 1), size

    _, sizes = jax.lax.scan(iterate, start / jnp.linalg.norm(start.ravel()), None, length=iterations)
    return jnp.sqrt(sizes[-1])


def floating(x: ArrayLike) -> Array:
    """x in floating point: the counts of a camera are whole numbers, whose differences would wrap around."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def automatic_transpose(op: LinearOperator, y: ArrayLike) -> Array:
    """A^T y by `jax.linear_transpose` of `op.matvec`, whatever `op.rmatvec` says."""
    y = jnp.asarray(y)
    (x,) = jax.linear_transpose(op.matvec, jax.ShapeDtypeStruct(op.in_shape, y.dtype))(y)
    return x


class Transpose(LinearOperator):
    """A^T; its own transpose is A again."""

    op: LinearOperator

    @property
    def in_shape(self) -> Shape:
        return self.op.out_shape

    @property
    def out_shape(self) -> Shape:
        return self.op.in_shape

    def matvec(self, x: Array) -> Array:
        return self.op.rmatvec(x)

    def rmatvec(self, y: Array) -> Array:
        return self.op.matvec(y)

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return self.op


class Compose(LinearOperator):
    """(A B) x = A (B x)."""

    outer: LinearOperator
    inner: LinearOperator

    def __check_init__(self) -> None:
        if self.outer.in_shape != self.inner.out_shape:
            raise ShapeError(
                f"cannot compose {type(self.outer).__name__} @ {type(self.inner).__name__}: the right one returns "
                f"shape {self.inner.out_shape}, the left one expects {self.outer.in_shape}"
            )

    @property
    def in_shape(self) -> Shape:
        return self.inner.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.outer.out_shape

    def matvec(self, x: Array) -> Array:
        return self.outer(self.inner(x))

    def rmatvec(self, y: Array) -> Array:
        return self.inner.T(self.outer.T(y))


class Sum(LinearOperator):
    """(A + B) x = A x + B x."""

    left: LinearOperator
    right: LinearOperator

    def __check_init__(self) -> None:
        for side in ("in_shape", "out_shape"):
            require_shape(f"{side} of the second summand", getattr(self.right, side), getattr(self.left, side))

    @property
    def in_shape(self) -> Shape:
        return self.left.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.left.out_shape

    def matvec(self, x: Array) -> Array:
        return self.left(x) + self.right(x)

    def rmatvec(self, y: Array) -> Array:
        return self.left.T(y) + self.right.T(y)


class Scale(LinearOperator):
    """(c A) x = c (A x), for a scalar c."""

    scale: ArrayLike
    op: LinearOperator

    @property
    def in_shape(self) -> Shape:
        return self.op.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.op.out_shape

    def matvec(self, x: Array) -> Array:
        return jnp.multiply(self.scale, self.op(x))

    def rmatvec(self, y: Array) -> Array:
        return jnp.multiply(self.scale, self.op.T(y))


class SelfAdjoint(LinearOperator):
    """A = A^T, between arrays of one shape: a subclass defines `matvec`."""

    shape: Shape = eqx.field(static=True)

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return self.shape

    def rmatvec(self, y: Array) -> Array:
        return self.matvec(y)


class Identity(SelfAdjoint):
    """I x = x."""

    def matvec(self, x: Array) -> Array:
        return x


class Diagonal(LinearOperator):
    """D x = d x, element by element: masks, weights, vignetting, illumination."""

    diagonal: Array

    @property
    def in_shape(self) -> Shape:
        return self.diagonal.shape

    @property
    def out_shape(self) -> Shape:
        return self.diagonal.shape

    def matvec(self, x: Array) -> Array:
        return self.diagonal * x

    def rmatvec(self, y: Array) -> Array:
        return self.diagonal * y


class FunctionOperator(LinearOperator):
    """A linear function as an operator; the transpose comes from JAX.

    >>> blur = FunctionOperator(lambda x: 0.5 * (x + jnp.roll(x, 1)), (8,))
    >>> blur.T(jnp.ones(8)).shape
    (8,)

    Args:
        function: a function linear in its one array, traceable by JAX (no `custom_vjp` inside). Arrays that it closes
            over are constants; make it an Equinox module to differentiate with respect to them.
        in_shape: shape of its argument.
    """

    function: Callable[[Array], Array]
    shape: Shape = eqx.field(static=True)

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return jax.eval_shape(self.function, jax.ShapeDtypeStruct(self.shape, jnp.result_type(float))).shape

    def matvec(self, x: Array) -> Array:
        return self.function(x)
