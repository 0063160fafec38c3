"""From the camera to the light field: the lenslet lattice, rectification, resampling, calibration."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
