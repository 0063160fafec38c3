"""Quality of extracted neurons: brightness, noise, confinement in space, and crosstalk between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from lfjax.activity.fluorescence import peak_dff
from lfjax.activity.neurons import Neurons
from lfjax.errors import require, require_shape


class Quality(NamedTuple):
    """Measures of quality for each neuron.

    Attributes:
        peak_dff: (n,), see `peak_dff`.
        snr_db: (n,), see `peak_snr_db`.
        spikes_hz: (n,), spikes per second.
        confinement: (n,), confinement of the footprint about the centre, see `confinement`; NaN for a footprint of zeros.
    """

    peak_dff: Float[np.ndarray, " n"]
    snr_db: Float[np.ndarray, " n"]
    spikes_hz: Float[np.ndarray, " n"]
    confinement: Float[np.ndarray, " n"]


def quality(neurons: Neurons, *, radius_um: float = 10.0) -> Quality:
    """Measures of quality for each neuron that need no ground truth.

    Args:
        neurons: n neurons.
        radius_um: radius for `confinement`.

    Raises:
        ShapeError: the arrays of `neurons` do not fit each other.
        ParameterError: the radius is not positive.
    """
    neurons.check()
    seconds = np.shape(neurons.dff)[1] * neurons.frame_s
    confined = [
        confinement(footprint, centre, neurons.voxel_um, radius_um) if np.any(footprint) else math.nan
        for footprint, centre in zip(np.asarray(neurons.footprints), np.asarray(neurons.centres_um), strict=True)
    ]
    return Quality(
        peak_dff(neurons.dff),
        peak_snr_db(neurons.dff, neurons.noise),
        np.array([len(times) / seconds for times in neurons.spikes]),
        np.array(confined, float),
    )


def frame_noise(traces: ArrayLike) -> Float[np.ndarray, " n"]:
    """Standard deviation of a frame's noise: median |F(t + 1) - F(t)| / (0.6745 sqrt 2), robust to rare transients and drift.

    Args:
        traces: (n, t), white Gaussian noise on a signal that changes little in most frames.

    Raises:
        ShapeError: the traces are not (n, t).
    """
    values = np.asarray(traces, float)
    require_shape("traces", values.shape, ("n", "t"))
    return np.median(np.abs(np.diff(values, axis=1)), axis=1) / (0.6745 * math.sqrt(2))


def peak_snr_db(dff: ArrayLike, noise: ArrayLike | None = None) -> Float[np.ndarray, " n"]:
    """20 log10(peak dF/F / noise), the peak by `peak_dff`: a temporal signal-to-noise ratio that needs no ground truth.

    White Gaussian noise alone gives 8.2 dB: its 99.5th percentile is 2.576 standard deviations. The result is -inf for a peak
    that is not positive, and +inf without noise. With ground truth, use `metrics.temporal_snr`.

    Args:
        dff: (n, t).
        noise: (n,), standard deviation of a frame's noise; None: `frame_noise`.

    Raises:
        ShapeError: `dff` is not (n, t), or `noise` is not (n,).
    """
    peak = peak_dff(dff)
    sigma = frame_noise(dff) if noise is None else np.asarray(noise, float)
    require_shape("noise", sigma.shape, peak.shape)
    with np.errstate(divide="ignore"):
        return 20 * (np.log10(np.maximum(peak, 0)) - np.where(peak > 0, np.log10(sigma), 0))


def confinement(
    volume: ArrayLike, centre_um: ArrayLike | Sequence[float], voxel_um: Sequence[float], radius_um: float
) -> float:
    """Fraction of the light within a radius: sum over |r - c| <= R of v(r) / sum of v(r), r the middle of a voxel.

    It measures the spatial confinement of a neuron's signal, which Howe et al., Neurophotonics 9, 041404 (2022), weigh against
    temporal SNR. Unlike a width at half maximum, it also counts faint light far away.

    Args:
        volume: (z, y, x), nonnegative: a footprint, or a volume of activity.
        centre_um: c, (z, y, x) from the corner of the volume.
        voxel_um: voxel size (z, y, x).
        radius_um: R.

    Returns:
        0 to 1.

    Raises:
        ShapeError: the volume has other than three axes, or `centre_um` other than three numbers.
        ParameterError: the volume has negative values or no light, or a size is not positive.
    """
    light = np.asarray(volume, float)
    require_shape("volume", light.shape, ("z", "y", "x"))
    require_shape("centre_um", np.shape(centre_um), (3,))
    require(len(voxel_um) == 3 and bool(min(voxel_um) > 0), "voxel_um", voxel_um, "three positive numbers")
    require(0 < radius_um < math.inf, "radius_um", radius_um, "a positive number")
    lowest, total = float(light.min()), float(light.sum())
    require(lowest >= 0, "volume", f"minimum {lowest:.3g}", "values of zero or more")
    require(0 < total < math.inf, "volume", f"sum {total:.3g}", "a positive number")
    lengths = zip(light.shape, voxel_um, np.asarray(centre_um, float), strict=True)
    z, y, x = (((np.arange(n) + 0.5) * v - c) ** 2 for n, v, c in lengths)
    near = z[:, None, None] + y[:, None] + x <= radius_um**2
    return float(light[near].sum() / total)


class Crosstalk(NamedTuple):
    """Crosstalk against distance, in the bins that hold a pair; each pair (i, j) counts in both orders.

    Attributes:
        distances_um: (k,), middles of the bins.
        mean: (k,), mean coefficient. Noise of the coefficients averages out, and so does crosstalk of opposite signs.
        rms: (k,), root mean square coefficient, to which both contribute.
        pairs: (k,), number of pairs.
    """

    distances_um: Float[np.ndarray, " k"]
    mean: Float[np.ndarray, " k"]
    rms: Float[np.ndarray, " k"]
    pairs: Int[np.ndarray, " k"]


def crosstalk_matrix(dff: ArrayLike, truth: ArrayLike | None = None) -> Float[np.ndarray, "n n"]:
    """Activity of neuron j in trace i, the other neurons regressed out: B_ij.

    B_ij are the least-squares coefficients of d_i(t) = b_i + sum_j B_ij a_j(t) + e_i(t). With truth, a is the true activity and
    j runs over all neurons. Without, a is d itself and j runs over all but i, which gives B_ij = -P_ij / P_ii with P the
    inverse of the covariance of d. In that case true correlation that the other neurons do not explain counts as crosstalk, and
    noise of trace j lowers B_ij.

    Args:
        dff: d, (n, t), extracted.
        truth: a, (n, t), in the same order; None: unknown.

    Returns:
        (n, n), NaN on the diagonal and in columns of neurons that are silent in a (without truth, in rows too).

    Raises:
        ShapeError: `dff` is not (n, t), or the shapes differ.
        ParameterError: too few frames, or linearly dependent activities.
    """
    traces = np.asarray(dff, float)
    require_shape("dff", traces.shape, ("n", "t"))
    activity = traces if truth is None else np.asarray(truth, float)
    require_shape("truth", activity.shape, traces.shape)
    n, t = traces.shape
    require(t > n + 1, "dff", f"{t} frames of {n} neurons", "more frames than neurons and one")
    alive = np.flatnonzero(np.ptp(activity, axis=1) > 0)
    traces, activity = (a - a.mean(1, keepdims=True) for a in (traces, activity))
    unit = activity[alive] / activity[alive].std(1, keepdims=True)
    rank = int(np.linalg.matrix_rank(unit)) if len(alive) else 0
    name = "dff" if truth is None else "truth"
    require(rank == len(alive), name, f"rank {rank} of {len(alive)} active neurons", "activities that are independent")
    found = np.full((n, n), np.nan)
    if truth is None:
        precision = np.linalg.inv(activity[alive] @ activity[alive].T)
        found[np.ix_(alive, alive)] = -precision / np.diag(precision)[:, None]
    else:
        found[:, alive] = np.linalg.lstsq(activity[alive].T, traces.T)[0].T
    np.fill_diagonal(found, np.nan)
    return found


def crosstalk(dff: ArrayLike, centres_um: ArrayLike, truth: ArrayLike | None = None, *, bin_um: float = 20.0) -> Crosstalk:
    """`crosstalk_matrix` against the distance of the two neurons: 0.05 means that a dF/F of 1 in one adds 0.05 to the other.

    Args:
        dff: (n, t), extracted.
        centres_um: (n, 3).
        truth: (n, t), see `crosstalk_matrix`.
        bin_um: width of the bins of distance; the first one starts at 0.

    Raises:
        ShapeError: the shapes are not (n, t) and (n, 3).
        ParameterError: as `crosstalk_matrix`, or `bin_um` is not positive.
    """
    require(0 < bin_um < math.inf, "bin_um", bin_um, "a positive number")
    centres = np.asarray(centres_um, float)
    require_shape("centres_um", centres.shape, (len(np.asarray(dff)), 3))
    matrix = crosstalk_matrix(dff, truth)
    known = np.isfinite(matrix)
    bins = (np.linalg.norm(centres[:, None] - centres, axis=-1)[known] / bin_um).astype(int)
    pairs = np.bincount(bins)
    there = np.flatnonzero(pairs)
    mean, square = (np.bincount(bins, matrix[known] ** power)[there] / pairs[there] for power in (1, 2))
    return Crosstalk((there + 0.5) * bin_um, mean, np.sqrt(square), pairs[there])
