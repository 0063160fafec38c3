"""Figures of volumes, neurons and maps, and reports of one page."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, needs="matplotlib")
