"""The cost of a computation, and the least time that a device needs for it."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
