"""X-ray fluorescence: element maps of paintings from the spectra of a scan, read by the solvers of the other rooms."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, needs="xraydb")
