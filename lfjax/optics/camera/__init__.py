"""From camera frames to light fields: the lenslet lattice, rectification, resampling, calibration."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
