"""Learned reconstruction: the step of ISTA with learned parameters (Equinox), and plain networks beside it (Flax NNX)."""

from lfjax._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
