"""Light-field optics: the microscope, its point-spread function, the operator, and the camera."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
