"""Fisher scoring for Poisson counts of few components: Newton steps, where multiplicative updates need hundreds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lfjax.errors import require
from lfjax.linop import LinearOperator
from lfjax.solvers.base import AbstractSolver
from lfjax.solvers.problem import Problem
from lfjax.solvers.richardson_lucy import positive

MOST = 2000  # numbers in x: the normal matrix has their square of numbers
FLOOR = 1e-2  # smallest modelled count that weighs, as a fraction of the mean: one photon where none is expected is no proof
ROUNDING = 8.0  # units in the last place that an objective may rise
SHARES = (1.0, 0.5, 0.1)  # of a step that are tried


class FisherState(NamedTuple):
    """Estimate and its image H x."""

    x: Array
    image: Array


class FisherScoring(AbstractSolver[FisherState]):
    """min_x sum_i w_i ((H x)_i + b - y_i log((H x)_i + b)),  x >= 0, for H with few columns.

    Each iteration minimises the quadratic model with the expected curvature,

        G = H^T diag(w / (H x + b)) H,     g = H^T (w y / (H x + b)),     min_z 1/2 z^T G z - z^T (g - H^T w + G x),  z >= 0,

    by sweeps of coordinate descent, and takes as much of the step as lowers the objective. H is made dense, column by column,
    and the products of its columns are formed once per iteration: under `vmap` over data, G of all data is one matrix product.

    Args:
        background: b >= 0, counts that come from no component.
        sweeps: of coordinate descent per iteration.

    Source: Osborne, Int. Stat. Rev. 60, 99 (1992), for scoring; coordinate descent: Franc, Hlavac & Navara, CAIP (2005).
    """

    background: float | Array = 0.0
    sweeps: int = eqx.field(static=True, default=12)
    needs_counts: ClassVar[bool] = True
    powers: ClassVar[Mapping[str, tuple[int, int]]] = {"background": (1, 0)}
    objective_powers: ClassVar[tuple[int, int]] = (1, 1)

    def init(self, problem: Problem, x0: Array | None) -> FisherState:
        """Start at `x0`, zeros included, or at a constant."""
        size = math.prod(problem.op.in_shape)
        require(size <= MOST, "op", f"{problem.op.in_shape}, {size} numbers", f"{MOST} numbers or fewer")
        x = problem.flat_start() if x0 is None else x0
        return FisherState(x, problem.op.matvec(x))

    def step(self, problem: Problem, state: FisherState) -> FisherState:
        """One reweighted nonnegative quadratic problem, and the longest share of its step that does not raise the objective."""
        columns = dense(problem.op)
        model = state.image.ravel() + self.background
        model = positive(jnp.maximum(model, FLOOR * jnp.mean(model)))
        weights = problem.weights.ravel()
        upper = np.triu_indices(columns.shape[1])
        pairs = columns[:, upper[0]] * columns[:, upper[1]]
        gram = jnp.zeros((columns.shape[1],) * 2, columns.dtype).at[upper].set(pairs.T @ (weights / model))
        gram = gram + jnp.triu(gram, 1).T
        score = columns.T @ (weights * (problem.data.ravel() / model - 1))
        new = descend(gram, score + gram @ state.x.ravel(), state.x.ravel(), self.sweeps).reshape(state.x.shape)
        image = problem.op.matvec(new)
        whole = FisherState(new, image)
        tried = [jax.tree.map(lambda old, to, share=share: old + share * (to - old), state, whole) for share in SHARES]
        before = self.objective(problem, state)
        enough = before + ROUNDING * jnp.finfo(before.dtype).eps * jnp.sum(problem.weights * problem.data)
        falls = jnp.stack([self.objective(problem, each) <= enough for each in tried])
        first = jnp.where(falls.any(), jnp.argmax(falls), len(tried))  # the longest that does not climb; else none
        return jax.tree.map(lambda *each: jnp.stack(each)[first], *tried, state)

    def objective(self, problem: Problem, state: FisherState) -> Float[Array, ""]:
        """Poisson negative log-likelihood, up to a constant of the data (Csiszar's divergence)."""
        model = positive(state.image + self.background)
        y = problem.data
        return jnp.sum(problem.weights * (model - y + y * jnp.log(positive(y) / model)))


def dense(op: LinearOperator) -> Float[Array, "out in"]:
    """H as a matrix, of flattened x and y."""
    units = jnp.eye(math.prod(op.in_shape)).reshape(-1, *op.in_shape)
    return jax.vmap(op.matvec)(units).reshape(len(units), -1).T


def descend(gram: Float[Array, "n n"], right: Float[Array, " n"], start: Float[Array, " n"], sweeps: int) -> Float[Array, " n"]:
    """min 1/2 z^T G z - z^T b, z >= 0, by coordinate descent: z_k <- max(0, z_k - (G z - b)_k / G_kk), in turn."""
    diagonal = jnp.diagonal(gram)
    inverse = jnp.where(diagonal > 0, 1 / jnp.where(diagonal > 0, diagonal, 1), 0)

    def coordinate(k: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        z, slope = state
        moved = jnp.maximum(z[k] - slope[k] * inverse[k], 0) - z[k]
        return z.at[k].add(moved), slope + moved * gram[k]

    def sweep(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        return jax.lax.fori_loop(0, len(start), coordinate, state)

    return jax.lax.fori_loop(0, sweeps, sweep, (start, gram @ start - right))[0]
