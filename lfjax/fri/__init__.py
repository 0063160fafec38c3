"""Finite rate of innovation: exact reconstruction from few samples, also of projections at unknown angles. In float64."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
