"""ADMM for sparse, piecewise smooth volumes, nonnegative or signed: l1 + isotropic total variation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lfjax.linop import LinearOperator
from lfjax.solvers.base import AbstractSolver
from lfjax.solvers.cg import Quadratic
from lfjax.solvers.problem import Problem


class Gradient(LinearOperator):
    """Forward differences along every axis, scaled: (D x)_a = scale_a (x[i + e_a] - x[i]), 0 at the far border.

    Attributes:
        shape: shape of x.
        scale: one factor per axis, for example 1 / voxel size.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    scale: tuple[float, ...] = eqx.field(static=True)

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (len(self.shape), *self.shape)

    def matvec(self, x: Array) -> Array:
        return jnp.stack([s * jnp.diff(x, axis=a, append=_last(x, a)) for a, s in enumerate(self.scale)])


def _last(x: Array, axis: int) -> Array:
    return jax.lax.slice_in_dim(x, x.shape[axis] - 1, x.shape[axis], axis=axis)


class ADMMState(NamedTuple):
    """Estimate and image; the free variable v; the splittings; the scaled duals; the penalty rho."""

    x: Array
    image: Array
    free: Array
    slopes: Array
    dual_x: Array
    dual_slopes: Array
    penalty: Array


class ADMM(AbstractSolver[ADMMState]):
    """min_x 1/2 |W^(1/2) (y - H x)|^2 + lambda |x|_1 + beta sum_i |(D x)_i|_2,  x >= 0 unless signed.

    Split x = v and g = D v; each iteration solves (H^T W H + rho (1 + D^T D)) v = H^T W y + rho (x - p + D^T (g - q)) by a
    few warm-started CG steps, then shrinks x and g and updates the duals p, q.

    Args:
        sparsity: lambda, see `ISTA`.
        total_variation: beta, same units as lambda where scale = 1.
        scale: factor of the differences along (z, y, x); put voxel_y / voxel_z first for isotropy in space.
        penalty: rho; None: 0.1 |W^(1/2) H|^2. It changes the speed, not the solution.
        inner_iterations: CG steps per iteration, one H and one H^T each.
        signed: whether x may be negative.

    Source: Boyd et al., Found. Trends Mach. Learn. 3, 1 (2011); Rudin, Osher, Fatemi (1992) for total variation.
    """

    sparsity: float | Array = 0.0
    total_variation: float | Array = 0.0
    scale: tuple[float, ...] = eqx.field(static=True, default=(1.0, 1.0, 1.0))
    penalty: float | Array | None = None
    inner_iterations: int = eqx.field(static=True, default=3)
    signed: bool = eqx.field(static=True, default=False)
    takes_normal_equations: ClassVar[bool] = True
    powers: ClassVar[Mapping[str, tuple[int, int]]] = {"sparsity": (1, 1), "total_variation": (1, 1), "penalty": (0, 1)}

    def init(self, problem: Problem, x0: Array | None) -> ADMMState:
        """Start at `x0`, or at zero."""
        x = problem.start(x0)
        slopes = self._differences(problem).matvec(x)
        penalty = self.penalty
        if penalty is None:
            curvature = problem.lipschitz()
            penalty = jnp.where(curvature > 0, 0.1 * curvature, 1)  # any will do where all weights are 0
        penalty = jnp.asarray(penalty, x.dtype)
        zeros = (jnp.zeros_like(x), jnp.zeros_like(slopes))
        return ADMMState(x, problem.op.matvec(x), x, slopes, *zeros, penalty)

    def step(self, problem: Problem, state: ADMMState) -> ADMMState:
        """One iteration: `inner_iterations` + 2 applications of H, one fewer of H^T."""
        free, steep = self._solve_free(problem, state)
        x = self._shrunk(free + state.dual_x, self.sparsity / state.penalty)
        slopes = shrink_vectors(steep + state.dual_slopes, self.total_variation / state.penalty)
        dual_x, dual_slopes = state.dual_x + free - x, state.dual_slopes + steep - slopes
        return ADMMState(x, problem.op.matvec(x), free, slopes, dual_x, dual_slopes, state.penalty)

    def _shrunk(self, x: Array, threshold: Array) -> Array:
        """Proximal map of threshold * |x|_1, with x >= 0 unless the estimate is signed."""
        return jax.nn.relu(x - threshold) - (jax.nn.relu(-x - threshold) if self.signed else 0)

    def _solve_free(self, problem: Problem, state: ADMMState) -> tuple[Array, Array]:
        """v and D v, by CG from the last v: 1/2 |W^(1/2) (y - H v)|^2 + rho/2 (|x - p - v|^2 + |g - q - D v|^2) -> min."""
        d, rho = self._differences(problem), state.penalty
        near, near_slopes = state.x - state.dual_x, state.slopes - state.dual_slopes

        def residual(v: Array, image: tuple[Array, Array]) -> Array:
            return rho * (near - v + d.rmatvec(near_slopes - image[1])) - problem.gradient(image[0])

        def curvature(v: Array, image: tuple[Array, Array]) -> Array:
            return problem.curvature(v, image[0]) + rho * (jnp.sum(v**2) + jnp.sum(image[1] ** 2))

        quadratic = Quadratic(lambda v: (problem.op.matvec(v), d.matvec(v)), residual, curvature)
        start = quadratic.start(state.free)
        end, _ = jax.lax.scan(lambda s, _: (quadratic.step(s), None), start, None, length=self.inner_iterations)
        return end.x, end.image[1]

    def objective(self, problem: Problem, state: ADMMState) -> Float[Array, ""]:
        """Least squares plus lambda |x|_1 plus beta TV(x), at the nonnegative estimate."""
        tv = jnp.sum(jnp.sqrt(jnp.sum(self._differences(problem).matvec(state.x) ** 2, axis=0)))
        l1 = jnp.sum(jnp.abs(state.x))
        return problem.least_squares(state.x, state.image) + self.sparsity * l1 + self.total_variation * tv

    def _differences(self, problem: Problem) -> Gradient:
        return Gradient(problem.op.in_shape, self.scale[-len(problem.op.in_shape) :])


def shrink_vectors(g: Float[Array, "axis ..."], threshold: Array | float) -> Array:
    """Proximal map of threshold * sum |g_i|_2: each vector g_i keeps its direction and loses `threshold` of its length."""
    length = jnp.sqrt(jnp.sum(g**2, axis=0, keepdims=True))
    return g * jax.nn.relu(1 - threshold / jnp.maximum(length, jnp.finfo(g.dtype).tiny))
