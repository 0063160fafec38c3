"""File formats: frames, volumes, movies, maps, stacks and tables; the suffix tells the format, and every write is atomic."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
