"""From movies to neurons: positions, time courses, spikes, measures of quality, files."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
