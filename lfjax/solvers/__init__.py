"""Classical solvers: each a method as data with `init` and `step`; one driver, `run`, owns the loop."""

from lfjax.solvers.admm import ADMM as ADMM
from lfjax.solvers.cg import CG as CG
from lfjax.solvers.fista import FISTA as FISTA
from lfjax.solvers.isra import ISRA as ISRA
from lfjax.solvers.ista import ISTA as ISTA
from lfjax.solvers.ista import proximal_step as proximal_step
from lfjax.solvers.nnls import nonnegative_least_squares as nonnegative_least_squares
from lfjax.solvers.problem import NormalEquations as NormalEquations
from lfjax.solvers.problem import Problem as Problem
from lfjax.solvers.problem import Solver as Solver
from lfjax.solvers.richardson_lucy import RichardsonLucy as RichardsonLucy
from lfjax.solvers.run import Result as Result
from lfjax.solvers.run import iterate as iterate
from lfjax.solvers.run import run as run
from lfjax.solvers.sirt import SIRT as SIRT
