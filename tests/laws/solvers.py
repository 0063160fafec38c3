"""Every solver of the package, by one line each: what stands here has to keep the laws of `test_solver_laws`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lfjax import solvers
from lfjax.solvers import Problem, Solver


def curvature(problem: Problem) -> jax.Array:
    """|W^(1/2) H|^2, or 1 where no pixel is trusted."""
    found = problem.lipschitz()
    return jnp.where(found > 0, found, 1)


SOLVERS: dict[str, Callable[[Problem], Solver]] = {
    "ISTA": lambda p: solvers.ISTA(0.01 * p.lambda_max()),
    "ISTA, step size given": lambda p: solvers.ISTA(0.01 * p.lambda_max(), 0.9 / curvature(p)),
    "FISTA": lambda p: solvers.FISTA(0.01 * p.lambda_max()),
    "FISTA, step size given": lambda p: solvers.FISTA(0.01 * p.lambda_max(), 0.9 / curvature(p)),
    "ADMM": lambda p: solvers.ADMM(0.01 * p.lambda_max(), 0.02 * p.lambda_max()),
    "ADMM, signed, penalty given": lambda p: solvers.ADMM(
        0.01 * p.lambda_max(), 0.02 * p.lambda_max(), penalty=0.1 * curvature(p), signed=True
    ),
    "CG": lambda p: solvers.CG(),
    "CG, ridge": lambda p: solvers.CG(0.1 * jnp.max(p.weights)),
    "RichardsonLucy": lambda p: solvers.RichardsonLucy(),
    "RichardsonLucy, background": lambda p: solvers.RichardsonLucy(0.1 * jnp.max(p.data)),
    "FisherScoring": lambda p: solvers.FisherScoring(),
    "FisherScoring, background": lambda p: solvers.FisherScoring(0.1 * jnp.max(p.data)),
    "ISRA": lambda p: solvers.ISRA(),
    "SIRT": lambda p: solvers.SIRT(),
    "SIRT, signed": lambda p: solvers.SIRT(nonnegative=False),
}
"""Name -> (problem -> solver), with weights of the prior that are fractions of the scale of the problem."""

FUNCTIONS = ("nonnegative_least_squares",)
"""Solvers that are one function; they have tests of their own beside the laws."""

PARTS = (
    "AbstractSolver", "NormalEquations", "Problem", "Result", "Solver", "State", "Units",
    "in_own_units", "iterate", "proximal_step", "run", "solve",
)  # fmt: skip
"""Public names of the room that solve nothing by themselves."""
