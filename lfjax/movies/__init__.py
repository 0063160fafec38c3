"""Movies: raw recordings prepared, registered and reconstructed frame by frame, streamed and resumable."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
