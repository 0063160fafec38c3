"""Tomography and cryo-EM. Lengths in angstroms; conventions of RELION, see `lfjax.rotation`."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
