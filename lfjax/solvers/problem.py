"""The problems that solvers solve: an operator, data, and weights of the data."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import ParameterError, require, require_finite, require_shape
from lfjax.linop import Diagonal, LinearOperator, floating
from lfjax.solvers.units import Units, power_of_two, rms


class Problem(eqx.Module):
    """Find x from y ~ H x, where datum i has weight w_i; a weight of 0 masks it.

    Attributes:
        op: H.
        data: y, of shape `op.out_shape`, in float32 or float64; values where w = 0 are ignored, NaN included.
        weights: w >= 0, finite, of the same shape; 1 if not given.
    """

    op: LinearOperator
    data: Array
    weights: Array

    def __init__(self, op: LinearOperator, data: ArrayLike, weights: ArrayLike | None = None) -> None:
        data = _at_least_single(data)
        weights = jnp.asarray(np.ones(data.shape) if weights is None else weights, data.dtype)
        require_shape("data", data.shape, op.out_shape)
        require_shape("weights", weights.shape, op.out_shape)
        if not isinstance(weights, jax.core.Tracer):
            known = np.asarray(weights)
            for bound in (float(known.min()), float(known.max())):  # NaN is both
                require(0 <= bound < np.inf, "weights", bound, "finite numbers, zero or more everywhere")
        self.op = op
        self.weights = weights
        self.data = _masked(data, weights)

    def gradient(self, image: Array) -> Array:
        """Gradient of the least-squares loss at x, given the image H x: H^T W (H x - y)."""
        return self.op.rmatvec(self.weights * (image - self.data))

    def least_squares(self, x: Array, image: Array) -> Float[Array, ""]:
        """1/2 |W^(1/2) (y - H x)|^2, given x and its image H x."""
        return 0.5 * jnp.sum(self.weights * (image - self.data) ** 2)

    def curvature(self, x: Array, image: Array) -> Float[Array, ""]:
        """<x, H^T W H x>, given the image H x."""
        return jnp.sum(self.weights * image**2)

    @eqx.filter_jit
    def lipschitz(self, iterations: int = 30) -> Float[Array, ""]:
        """|W^(1/2) H|^2, the Lipschitz constant of `gradient`, with 2 % on top since power iteration ends below it."""
        unit = power_of_two(jnp.max(self.weights))
        positive = self.weights > 0  # the root has no derivative at 0
        root = jnp.where(positive, jnp.sqrt(jnp.where(positive, self.weights / unit, 1)), 0)
        return unit * 1.02 * (Diagonal(root) @ self.op).norm(iterations) ** 2

    @eqx.filter_jit
    def lambda_max(self) -> Float[Array, ""]:
        """The l1 weight at and above which x = 0 solves the nonnegative l1 problem: max(H^T W y), or 0 if it is negative."""
        return jnp.maximum(jnp.max(self.op.rmatvec(self.weights * self.data)), 0)

    @eqx.filter_jit
    def flat_start(self) -> Array:
        """The constant volume whose image has as much light as the data: the start of the multiplicative solvers."""
        image = self.op.matvec(jnp.ones(self.op.in_shape, self.data.dtype))
        level = jnp.sum(self.weights * self.data) / jnp.maximum(jnp.sum(self.weights * image), 1e-30)
        return jnp.full(self.op.in_shape, jnp.maximum(level, 1e-30), self.data.dtype)

    def start(self, x0: ArrayLike | None) -> Array:
        """`x0`, or zeros, in the dtype of the data."""
        return jnp.zeros(self.op.in_shape, self.data.dtype) if x0 is None else jnp.asarray(x0, self.data.dtype)

    def units(self) -> Units:
        """Powers of two near the rms of the data and the largest weight."""
        return Units(power_of_two(rms(self.data)), power_of_two(jnp.max(self.weights)))

    def in_units(self, units: Units) -> Problem:
        """The problem of x / units.data, whose data and weights are divided by their units."""
        return eqx.tree_at(lambda p: (p.data, p.weights), self, (self.data / units.data, self.weights / units.weights))

    def through(self, smooth: LinearOperator) -> Problem:
        """The problem of u with x = A u."""
        return Problem(self.op @ smooth, self.data, self.weights)

    def synthesise(self, x: Array, image: Array) -> Array:
        """H x, given the image that the solver carries."""
        return image

    def require_nonnegative(self, solver: str) -> None:
        """Raise `ParameterError` if the data hold negative numbers beyond rounding. Call it outside of jit."""
        least, largest = (float(bound) for bound in _bounds(self.data))
        if least < -1e-5 * largest:
            raise ParameterError(f"data hold negative values (least {least:.3g}): {solver} expects counts, zero or more")


def _at_least_single(data: ArrayLike) -> Array:
    """Data in floating point of 32 bits or more: sums of squares exceed the 65504 of half precision."""
    data = floating(data)
    return data.astype(jnp.promote_types(data.dtype, jnp.float32))


@jax.jit
def _masked(data: Array, weights: Array) -> Array:
    return jnp.where(weights > 0, data, 0)


@jax.jit
def _bounds(data: Array) -> tuple[Array, Array]:
    """Least value and largest size."""
    return jnp.min(data), jnp.max(jnp.abs(data))


@jax.jit
def _norm(data: Array) -> Array:
    """|y|, whose squares do not overflow."""
    return jnp.sqrt(data.size) * jnp.where(jnp.any(data != 0), rms(data), 0)


class NormalEquations(Problem):
    """Unweighted least squares through H^T H and H^T y alone, for solvers that take it: cheaper where `op.gram` is.

    1/2 |y - H x|^2 = 1/2 <x, H^T H x> - <x, H^T y> + 1/2 |y|^2. The image that a solver carries is H^T H x. The objective is
    the difference of large numbers: exact to 1e-7 |y|^2 in float32, and to 1e-3 |y|^2 if the operator is in bfloat16, where
    x is right but the objective says little.

    Attributes:
        op: H^T H.
        data: H^T y.
        weights: 1.
        forward: H.
        norm: |y|.
    """

    forward: LinearOperator
    norm: Array

    def __init__(self, op: LinearOperator, data: ArrayLike) -> None:
        data = _at_least_single(data)
        require_shape("data", data.shape, op.out_shape)
        if not isinstance(data, jax.core.Tracer):
            require_finite("data", data)  # here, since H^T spreads a NaN over the volume
        self.op, self.forward = op.gram, op
        self.data, self.norm, self.weights = op.rmatvec(data), _norm(data), jnp.ones((), data.dtype)

    def gradient(self, image: Array) -> Array:
        """H^T H x - H^T y, given H^T H x."""
        return image - self.data

    def least_squares(self, x: Array, image: Array) -> Float[Array, ""]:
        """1/2 |y - H x|^2, given x and H^T H x."""
        return 0.5 * jnp.vdot(x, image) - jnp.vdot(x, self.data) + 0.5 * self.norm**2

    def curvature(self, x: Array, image: Array) -> Float[Array, ""]:
        """<x, H^T H x>, given H^T H x."""
        return jnp.vdot(x, image)

    @eqx.filter_jit
    def lipschitz(self, iterations: int = 30) -> Float[Array, ""]:
        """|H^T H|, with 2 % on top as in `Problem`."""
        return 1.02 * self.op.norm(max(iterations // 2, 1))

    def lambda_max(self) -> Float[Array, ""]:
        """max(H^T y), or 0, as in `Problem`."""
        return jnp.maximum(jnp.max(self.data), 0)

    def in_units(self, units: Units) -> NormalEquations:
        """The problem of x / units.data."""
        return eqx.tree_at(lambda p: (p.data, p.norm), self, (self.data / units.data, self.norm / units.data))

    def through(self, smooth: LinearOperator) -> Problem:
        """Raise `ParameterError`: H^T H is fixed."""
        raise ParameterError("smooth: expected None with NormalEquations, whose H^T H is fixed; use Problem")

    def synthesise(self, x: Array, image: Array) -> Array:
        """H x."""
        return self.forward(x)
