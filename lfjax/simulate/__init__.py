"""Simulated samples, raw camera frames and whole recordings."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
