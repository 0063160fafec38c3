"""From recordings to results in one call: frames to volumes, movies to volumes, movies to neurons."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
