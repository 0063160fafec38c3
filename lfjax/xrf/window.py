"""The part of a spectrum that a fit uses, in bins that are as wide as the lines allow."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from lfjax.xrf.detector import Detector
from lfjax.xrf.poisson_fit import Counts

SAMPLES = 4.0
"""Bins per full width of a line: positions of lines lose 0.4 % of their information, and fits half of their work or more."""
FINE_SAMPLES = 10.0
"""Bins per full width of a line for fits of widths, whose error 4 bins make a tenth larger."""


class Window(NamedTuple):
    """A spectrum between two energies, in bins of as many channels as lose nothing.

    Attributes:
        counts: per bin.
        energies_ev: middle of each bin.
        edges: first channel of each bin, and the channel after the last.
    """

    counts: Counts
    energies_ev: Float[NDArray[np.float64], " bins"]
    edges: Int[NDArray[np.integer], " edges"]

    @classmethod
    def of(cls, counts: Counts, detector: Detector, lowest_ev: float, highest_ev: float, samples: float = SAMPLES) -> Window:
        """The part of a spectrum between two energies, of one bin or more."""
        edges = edges_of(detector, lowest_ev, highest_ev, samples)
        empty = cls(np.zeros(0), np.zeros(0), edges)
        return cls(empty.binned(counts), empty.binned(np.asarray(detector.energies_ev)) / np.diff(edges), edges)

    @property
    def widths(self) -> Int[NDArray[np.integer], " bins"]:
        """Channels per bin."""
        return np.diff(self.edges)

    def binned(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sums over the channels of each bin, along the first axis."""
        part = np.asarray(values, float)[self.edges[0] : self.edges[-1]]
        return np.asarray(np.add.reduceat(part, self.edges[:-1] - self.edges[0], axis=0))

    def binned_pixels(self, counts: NDArray[np.number]) -> Float[NDArray[np.float32], "*pixels bins"]:
        """Sums over the channels of each bin, along the last axis, in the precision of the fits of maps."""
        part = counts[..., self.edges[0] : self.edges[-1]]
        return np.add.reduceat(part, self.edges[:-1] - self.edges[0], axis=-1, dtype=np.float32)


@jax.jit
def _warped(detector: Detector) -> Array:
    return detector.warped(jnp.maximum(detector.energies_ev, 0.0))


def edges_of(
    detector: Detector, lowest_ev: float, highest_ev: float, samples: float = SAMPLES
) -> Int[NDArray[np.integer], " edges"]:
    """Channels at which bins begin: so many bins per width, on the axis on which lines are alike."""
    energies = np.asarray(detector.energies_ev)
    first = min(int(np.searchsorted(energies, lowest_ev)), len(energies) - 1)
    last = max(int(np.searchsorted(energies, highest_ev)), first + 1)
    u = np.asarray(_warped(detector))[first:last] * samples
    begins = np.flatnonzero(np.diff(np.floor(u - u[0]), prepend=-1) > 0)
    return np.append(first + begins, last)
