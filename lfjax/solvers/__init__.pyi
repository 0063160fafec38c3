from lfjax.solvers.admm import ADMM as ADMM
from lfjax.solvers.base import (
    AbstractSolver as AbstractSolver,
    Solver as Solver,
    State as State,
    in_own_units as in_own_units,
    iterate as iterate,
    solve as solve,
)
from lfjax.solvers.cg import CG as CG
from lfjax.solvers.driver import Result as Result, run as run
from lfjax.solvers.fisher_scoring import FisherScoring as FisherScoring
from lfjax.solvers.fista import FISTA as FISTA
from lfjax.solvers.isra import ISRA as ISRA
from lfjax.solvers.ista import ISTA as ISTA, proximal_step as proximal_step
from lfjax.solvers.nnls import nonnegative_least_squares as nonnegative_least_squares
from lfjax.solvers.problem import NormalEquations as NormalEquations, Problem as Problem
from lfjax.solvers.richardson_lucy import RichardsonLucy as RichardsonLucy
from lfjax.solvers.sirt import SIRT as SIRT
from lfjax.solvers.units import Units as Units
