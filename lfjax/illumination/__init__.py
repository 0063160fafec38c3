"""Illumination and scanning: how samples are excited, in physical units, and the two-photon microscope."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
