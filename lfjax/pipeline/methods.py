"""The solvers by name. Nothing heavy is imported here, since the commands list the names in their help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lfjax import solvers

SOLVERS: dict[str, tuple[Callable[..., Any], int]] = {
    "richardson_lucy": (lambda problem, sparsity, tv: solvers.RichardsonLucy(), 30),
    "isra": (lambda problem, sparsity, tv: solvers.ISRA(), 60),
    "ista": (lambda problem, sparsity, tv: solvers.ISTA(sparsity * problem.lambda_max()), 200),
    "fista": (lambda problem, sparsity, tv: solvers.FISTA(sparsity * problem.lambda_max()), 50),
    "admm": (
        lambda problem, sparsity, tv: solvers.ADMM(sparsity * problem.lambda_max(), tv * problem.lambda_max()),
        20,
    ),
    "cg": (lambda problem, sparsity, tv: solvers.CG(), 15),
}
"""Name -> (maker of the solver from problem, relative sparsity and relative total variation; default iterations)."""
