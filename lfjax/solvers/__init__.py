"""Classical solvers: each a method as data with `init`, `step` and `objective`; `run` and `solve` own the loop."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
