"""The light-field operator, volume (z, y, x) -> light field (y, x), and its views."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
