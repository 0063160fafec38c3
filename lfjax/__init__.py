"""lfjax: differentiable physics for light-field microscopy and cryo-EM, in JAX."""

from lfjax import _moved
from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
__version__ = "0.1.0"

_moved.install()
