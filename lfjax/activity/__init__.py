"""From movies to neurons: where they are, and what they do."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
