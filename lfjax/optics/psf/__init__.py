"""The wave-optics point-spread function of a light-field microscope, computed or measured."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
