"""Where peaks may be: the algebra of finite rate of innovation on the axis on which all lines are alike.

On u(E) = integral of dE / w(E) every line is one Gaussian phi of full width 1, and counts are samples of

    sum_k a_k phi(u - u_k),     s_m = sum_n c_mn y_n = sum_k a_k exp(i m step u_k)

with the coefficients c that reproduce exponentials; the matrix pencil finds the nodes exp(i step u_k) (Yan, Huang,
Verinaz-Jadan, Daly, Higgitt & Dragotti, "When de Prony met Leonardo", IEEE Trans. Comput. Imaging 2021).
"""

from __future__ import annotations

import dataclasses
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from lfjax.fri.annihilation import matrix_pencil
from lfjax.fri.kernels import gaussian
from lfjax.fri.planar import Features, Sampling
from lfjax.xrf.detector import FWHM, Detector
from lfjax.xrf.poisson_fit import Counts

SAMPLES = 8
"""Samples per width of a line on the warped axis."""
STRETCH = 12
"""Length of a stretch, in widths of a line; its peaks stand within `REACH` of its middle."""
REACH = 4.3
"""Distance from the middle up to which a stretch holds the whole of a line, in widths."""
ORDERS = (5, 7, 9)
"""Highest powers of the features: high ones tell close peaks apart, and carry exp((m step sigma)^2 / 2) times the noise."""
APART = 0.3  # least distance of two starts, in widths: coincident pulses have no amplitudes
LONGEST = 7.0  # widths of a stretch that `cut` leaves
SEEN = 2.5  # standard deviations above the background


@functools.cache
def _features(order: int) -> Features:
    sigma = np.hypot(SAMPLES / FWHM, 12**-0.5)  # a sample is an integral over its bin
    sampling = Sampling(gaussian(float(sigma), tail=4.0), STRETCH * SAMPLES)
    return Features.exponential(sampling, order, 0.95 * np.pi / (REACH * SAMPLES))


def warped_samples(
    counts: Float[ArrayLike, " channels"], detector: Detector, middle: Float[ArrayLike, ""], size: int = STRETCH * SAMPLES
) -> Float[Array, " size"]:
    """Counts in equal bins of the warped axis: differences of the sum of counts below, linear between edges of channels.

    Args:
        counts: per channel.
        detector: of these channels.
        middle: of the bins, in widths of a line.
        size: number of bins, `SAMPLES` per width; those beyond the channels are empty.
    """
    edges = detector.offset_ev + detector.gain_ev * (jnp.arange(detector.channels + 1) - 0.5)
    below = jnp.pad(jnp.cumsum(jnp.asarray(counts)), (1, 0))
    bins = middle + (np.arange(size + 1) - size / 2) / SAMPLES
    return jnp.diff(jnp.interp(bins, detector.warped(jnp.maximum(edges, 1e-3)), below))


def algebraic(samples: Float[Array, " size"], count: int, order: int) -> Float[Array, " count"]:
    """Positions of peaks in widths from the middle of a stretch, in rising order and `APART` or more from each other.

    Args:
        samples: of a stretch, background subtracted, see `warped_samples`.
        count: number of peaks, `order` at most.
        order: highest power of the features.
    """
    features = _features(order)
    nodes = matrix_pencil(features.matrix @ samples, count)
    places = jnp.sort(jnp.clip(jnp.nan_to_num(features.place(nodes) / SAMPLES), -REACH, REACH))
    ramp = APART * np.arange(count)
    return jax.lax.cummax(places - ramp) + ramp


def crop(detector: Detector, first: ArrayLike, channels: int) -> Detector:
    """The detector of some of its channels, from the channel `first` on."""
    other = eqx.tree_at(lambda d: d.offset_ev, detector, detector.offset_ev + detector.gain_ev * first)
    return dataclasses.replace(other, channels=channels)


def cut(counts: Counts, smooth: Counts, detector: Detector, longest: float = LONGEST) -> list[tuple[float, float]]:
    """Stretches of the warped axis on which counts stand above the background, cut where they stand least.

    The measure is the matched filter, z = (phi * (y - background)) / sqrt(phi^2 * y), in standard deviations.

    Args:
        counts: per channel.
        smooth: background, see `snip`.
        detector: of these channels.
        longest: longest stretch, in widths of a line.

    Returns:
        Ends of the stretches, in widths of a line.
    """
    ends = [float(u) for u in detector.warped(detector.energies_ev[jnp.array([0, -1])])]
    size = max(1, math.ceil((ends[1] - ends[0]) * SAMPLES))
    middle, sigma = sum(ends) / 2, SAMPLES / FWHM
    y, below = (np.asarray(warped_samples(each, detector, middle, size)) for each in (counts, smooth))
    variance = gaussian_filter1d(np.maximum(y, below), sigma / np.sqrt(2)) / (2 * np.sqrt(np.pi) * sigma)
    z = gaussian_filter1d(y - below, sigma) / np.sqrt(np.maximum(variance, 0.02))
    reach = SAMPLES // 2
    standing = maximum_filter1d(z > SEEN, 2 * reach + 1)
    bounds = np.flatnonzero(np.diff(np.pad(standing.astype(int), 1)))
    parts = [part for a, b in bounds.reshape(-1, 2).tolist() for part in _halved(z, a, b, int(longest * SAMPLES))]
    return [(middle + (a - size / 2) / SAMPLES, middle + (b - size / 2) / SAMPLES) for a, b in parts]


def _halved(z: Counts, first: int, last: int, longest: int) -> list[tuple[int, int]]:
    """A stretch cut at its lowest valley, and so on, until all are short."""
    if last - first <= longest:
        return [(first, last)]
    margin = min((last - first) // 4, longest // 2)
    valley = first + margin + int(np.argmin(z[first + margin : last - margin]))
    return _halved(z, first, valley, longest) + _halved(z, valley, last, longest)
