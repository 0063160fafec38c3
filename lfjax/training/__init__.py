"""Training: losses, data, one loop for all models."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
