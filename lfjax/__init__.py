"""lfjax: differentiable physics for light-field microscopy (and, next, cryo-EM), in JAX."""

from lfjax.linop import FunctionOperator as FunctionOperator
from lfjax.linop import LinearOperator as LinearOperator
from lfjax.optics import Microscope as Microscope
from lfjax.optics import preset as preset

__version__ = "0.1.0"
