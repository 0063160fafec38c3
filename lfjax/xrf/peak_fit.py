"""A known number of peaks at unknown energies in a stretch of a spectrum, differentiable, and the bound on their errors."""

from __future__ import annotations

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.fri.refine import require_x64
from lfjax.xrf.components import even_splines
from lfjax.xrf.detector import Detector
from lfjax.xrf.peak_likelihood import Peaked, Stretch, free_of, maximise, risen, scaled_solve
from lfjax.xrf.peak_start import ORDERS, algebraic, warped_samples

CLIPS = 30  # fits of the background to what is below the last one


class PeakFit(NamedTuple):
    """Peaks of largest likelihood.

    Attributes:
        energies_ev: in rising order.
        counts: in each peak.
        background: expected counts per channel without the peaks.
        log_likelihood: of the counts, but for a constant of these.
    """

    energies_ev: Float[Array, " peaks"]
    counts: Float[Array, " peaks"]
    background: Float[Array, " channels"]
    log_likelihood: Float[Array, ""]


class PeaksBound(NamedTuple):
    """Cramer-Rao bound of peaks.

    Attributes:
        errors_ev: least standard deviation of each energy.
        errors_counts: least standard deviation of the counts in each peak.
        covariance: of all energies, then all counts.
    """

    errors_ev: Float[Array, " peaks"]
    errors_counts: Float[Array, " peaks"]
    covariance: Float[Array, "2*peaks 2*peaks"]


@functools.cache
def cubic(channels: int) -> NDArray[np.float64]:
    """The four cubic B-splines of a stretch without inner knots: its smooth background."""
    return even_splines(channels, 1)


@eqx.filter_jit
def fit_peaks(
    counts: Float[ArrayLike, " channels"],
    detector: Detector,
    count: int,
    *,
    background: Float[ArrayLike, "channels columns"] | None = None,
    systematic: Float[ArrayLike, ""] | float = 0.0,
) -> PeakFit:
    """Energies and counts of `count` peaks by Poisson maximum likelihood, from an algebraic start.

        mu(n) = sum_k a_k p_n(E_k) + sum_j b_j B_j(n),     max over E, a >= 0, b >= 0 of sum_n y log mu - mu

    with the detector's own pulses p, integrated over channels, tails included. The start is the matrix pencil on the warped
    axis, at three orders of the features, of which the most likely end wins. Gradients and tangents pass through the
    maximum by the implicit function theorem, d theta = H^-1 d score, in counts, background and all numbers of the detector;
    the start is constant. Pure; batch by `jax.vmap`.

    Args:
        counts: (channels,), a stretch of a spectrum with all its peaks within 4.3 widths of the middle.
        detector: of these channels: the offset is the energy of the first one.
        count: number of peaks, 1 to 9.
        background: columns B of the background; None: the four cubic B-splines of the stretch.
        systematic: error of the model, as a fraction of itself.

    Raises:
        ParameterError: another number of peaks, or JAX does not run in float64.
        ShapeError: `counts` or `background` have other channels than the detector.
    """
    require_x64("fit_peaks")
    require(isinstance(count, int) and 1 <= count <= max(ORDERS), "count", count, f"a whole number from 1 to {max(ORDERS)}")
    counts = jnp.asarray(counts, float)
    require_shape("counts", counts.shape, (detector.channels,))
    columns = jnp.asarray(cubic(detector.channels) if background is None else background, float)
    require_shape("background", columns.shape, (detector.channels, "columns"))
    stretch = Stretch(counts, detector, columns, jnp.ones(detector.channels), systematic)

    constant = jax.tree.map(lambda leaf: jax.lax.stop_gradient(jnp.asarray(leaf)), stretch)
    middle = jnp.mean(constant.detector.warped(constant.detector.energies_ev[np.array([0, -1])]))
    samples = warped_samples(constant.counts - clipped_below(constant.counts, columns), constant.detector, middle)
    places = jnp.stack([algebraic(samples, count, order) for order in ORDERS if order >= count])
    present = jnp.ones(count, bool)

    def climb(places: Array) -> tuple[Peaked, Array]:
        found = maximise(constant, started(constant, constant.detector.unwarped(middle + places), present), present)
        return found, constant.log_likelihood(constant.expected(found))

    found, likelihood = jax.vmap(climb)(places)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmax(jnp.nan_to_num(likelihood, nan=-jnp.inf))], found)
    ordered = jnp.argsort(best.energies_ev)
    best = Peaked(best.energies_ev[ordered], best.counts[ordered], best.background)
    best = _implicit(stretch, constant, best)
    return PeakFit(best.energies_ev, best.counts, columns @ best.background, stretch.log_likelihood(stretch.expected(best)))


def started(stretch: Stretch, energies_ev: Float[Array, " peaks"], present: Array) -> Peaked:
    """Counts and background for given energies."""
    k = len(energies_ev)
    columns = jnp.concatenate([stretch.detector.pulses(energies_ev) * present, stretch.columns], axis=1)
    amplitudes = risen(columns, stretch)
    return Peaked(energies_ev, jnp.where(present, amplitudes[:k], 0), amplitudes[k:])


def clipped_below(counts: Float[Array, " channels"], columns: Float[Array, "channels columns"]) -> Float[Array, " channels"]:
    """Smooth background of a stretch: least squares over variances, again and again on what does not exceed the last fit.

    Source: Lieber & Mahadevan-Jansen, Appl. Spectrosc. 57, 1363 (2003).
    """

    def step(_: Array, kept: Array) -> Array:
        weighted = columns / (kept + 1)[:, None]
        fit = columns @ scaled_solve(weighted.T @ columns, weighted.T @ kept, jnp.any(columns > 0, axis=0), 1e-9)
        return jnp.clip(fit, 0, kept)

    return jax.lax.fori_loop(0, CLIPS, step, counts)


def _implicit(stretch: Stretch, constant: Stretch, found: Peaked) -> Peaked:
    """The maximum with its derivatives: those of one step of Newton from it, H^-1 score."""
    k, flat = len(found.counts), jnp.concatenate(found)
    score, information = constant.linearised(found)[1:]
    curvature = constant.hessian(found)
    free = free_of(found, score, information, jnp.ones(k, bool)) & (jnp.diagonal(curvature) > 0)
    move = scaled_solve(curvature, stretch.linearised(found)[1], free, 0.0)
    flat = flat + move - jax.lax.stop_gradient(move)
    return Peaked(flat[:k], flat[k : 2 * k], flat[2 * k :])


def peaks_bound(
    detector: Detector,
    energies_ev: Float[ArrayLike, " peaks"],
    counts: Float[ArrayLike, " peaks"],
    background: Float[ArrayLike, " channels"] | float = 0.0,
    *,
    columns: Float[ArrayLike, "channels columns"] | None = None,
    systematic: Float[ArrayLike, ""] | float = 0.0,
) -> PeaksBound:
    """Cramer-Rao bound of energies and counts of peaks: least covariance of an unbiased estimate from Poisson counts.

        C = (J^T diag(1 / mu) J)^-1,     J = d mu / d (E, a, b),

    of which the block of (E, a) is returned: neighbours and the background are unknown as well.

    Args:
        detector: of the channels.
        energies_ev: E.
        counts: a, positive.
        background: expected counts per channel.
        columns: B, what the background is known to be a sum of; None: the four cubic B-splines of the channels, which suits a
            stretch of some widths. No columns, (channels, 0): the background is known.
        systematic: error of the model, as a fraction of itself.
    """
    energies, areas = jnp.asarray(energies_ev, float), jnp.asarray(counts, float)
    smooth = jnp.asarray(cubic(detector.channels) if columns is None else columns, float)
    return _bound(detector, energies, areas, jnp.broadcast_to(background, detector.channels), smooth, systematic)


@jax.jit
def _bound(
    detector: Detector, energies: Array, counts: Array, background: Array, smooth: Array, systematic: ArrayLike
) -> PeaksBound:
    known = background[:, None]  # one more column, of amplitude 1, that is not among the unknowns
    mu = detector.pulses(energies) @ counts + background
    stretch = Stretch(mu, detector, jnp.concatenate([smooth, known], axis=1), jnp.ones(detector.channels), systematic)
    amplitudes = jnp.zeros(smooth.shape[1] + 1).at[-1].set(1.0)
    information = stretch.linearised(Peaked(energies, counts, amplitudes))[2]
    free = (jnp.diagonal(information) > 0).at[-1].set(False)
    k = len(counts)
    bound = scaled_solve(information, jnp.eye(len(free)), free, 0.0)[: 2 * k, : 2 * k]
    errors = jnp.sqrt(jnp.diagonal(bound))
    return PeaksBound(errors[:k], errors[k:], bound)
