"""Likelihood of peaks on a smooth background in counts that are Poisson: its maximum, its information, and its gradient."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from lfjax.xrf.detector import Detector

FLOOR = 0.01
"""Counts that are added to those of each channel and to those expected: the estimate stays unbiased, logarithms finite."""
STEPS = 60
"""Largest number of steps of Fisher scoring."""
FARTHEST = 0.4  # widths of a line that an energy moves per step
GROWTH = 1e-11  # of the log-likelihood: a step of 3e-6 standard deviations


class Peaked(NamedTuple):
    """Numbers of a model: peaks and background.

    Attributes:
        energies_ev: of the peaks.
        counts: a >= 0 in each peak.
        background: b >= 0, amplitudes of the columns of the background.
    """

    energies_ev: Float[Array, " peaks"]
    counts: Float[Array, " peaks"]
    background: Float[Array, " columns"]


class Stretch(NamedTuple):
    """Channels and what is known of them.

    Attributes:
        counts: y.
        detector: of these channels.
        columns: B, counts per channel of the background at amplitudes 1.
        used: 1 for channels that count, 0 for others.
        systematic: error of the model as a fraction of itself.
    """

    counts: Float[Array, " channels"]
    detector: Detector
    columns: Float[Array, "channels columns"]
    used: Float[Array, " channels"]
    systematic: Float[ArrayLike, ""] = 0.0

    @property
    def dispersion(self) -> Array:
        """q: the variance is mu + q mu^2. Rounding makes 1e-15 as good as 0."""
        return jnp.maximum(jnp.asarray(self.systematic, float) ** 2, 1e-15)

    def expected(self, peaks: Peaked) -> Float[Array, " channels"]:
        """mu = sum_k a_k p(E_k) + B b."""
        return self.detector.pulses(peaks.energies_ev) @ peaks.counts + self.columns @ peaks.background

    def log_likelihood(self, expected: Float[Array, " channels"]) -> Float[Array, ""]:
        """sum_n y log mu - (y + 1/q) log(1 + q mu), but for what depends on y alone; y log mu - mu where q is 0.

        This is the negative binomial law, the Poisson law of a mean that is itself uncertain by the fraction `systematic`.
        """
        q, y, mu = self.dispersion, self.counts + FLOOR, expected + FLOOR
        return jnp.sum(self.used * (y * jnp.log(mu) - (y + 1 / q) * jnp.log1p(q * mu)))

    def growth(self, before: Float[Array, " channels"], after: Float[Array, " channels"]) -> Float[Array, ""]:
        """Difference of two log-likelihoods, without the rounding of their size."""
        q, y, old, new = self.dispersion, self.counts + FLOOR, before + FLOOR, after + FLOOR
        more = (y + 1 / q) * jnp.log1p(q * (new - old) / (1 + q * old))
        return jnp.sum(self.used * (y * jnp.log(new / old) - more))

    def linearised(self, peaks: Peaked) -> tuple[Array, Array, Array]:
        """Expected counts, score, and Fisher information J^T W J of (energies, counts, background)."""
        shares, slopes = slopes_of(self.detector, peaks.energies_ev)
        mu = shares @ peaks.counts + self.columns @ peaks.background
        weights = self.used / ((mu + FLOOR) * (1 + self.dispersion * (mu + FLOOR)))
        jacobian = jnp.concatenate([slopes * peaks.counts, shares, self.columns], axis=1)
        weighted = jacobian * weights[:, None]
        return mu, weighted.T @ (self.counts - mu), weighted.T @ jacobian

    def hessian(self, peaks: Peaked) -> Float[Array, "numbers numbers"]:
        """Minus the second derivatives of the log-likelihood: J^T W' J - sum_n r d^2 mu, r the derivative by mu."""
        shares, slopes, curvature = curves_of(self.detector, peaks.energies_ev)
        mu = shares @ peaks.counts + self.columns @ peaks.background
        m, q, k = mu + FLOOR, self.dispersion, len(peaks.counts)
        pull = self.used * (self.counts - mu) / (m * (1 + q * m))
        weights = self.used / (m * (1 + q * m)) + pull * (1 + 2 * q * m) / (m * (1 + q * m))
        jacobian = jnp.concatenate([slopes * peaks.counts, shares, self.columns], axis=1)
        energy, both = jnp.diag(pull @ curvature * peaks.counts), jnp.diag(pull @ slopes)
        bent = jnp.block([[energy, both], [both, jnp.zeros((k, k))]])
        return (jacobian * weights[:, None]).T @ jacobian - jnp.pad(bent, (0, self.columns.shape[1]))


def slopes_of(detector: Detector, energies_ev: Float[Array, " peaks"]) -> tuple[Array, Array]:
    """Pulses p, and dp / dE: columns are those of one peak each."""
    return jax.jvp(detector.pulses, (energies_ev,), (jnp.ones_like(energies_ev),))


def curves_of(detector: Detector, energies_ev: Float[Array, " peaks"]) -> tuple[Array, Array, Array]:
    """Pulses p, dp / dE, and d^2 p / dE^2."""
    ones = jnp.ones_like(energies_ev)
    (shares, slopes), (_, curvature) = jax.jvp(lambda e: slopes_of(detector, e), (energies_ev,), (ones,))
    return shares, slopes, curvature


def scaled_solve(
    matrix: Float[Array, "numbers numbers"],
    right: Float[Array, "numbers ..."],
    free: Bool[Array, " numbers"],
    damping: Float[ArrayLike, ""],
) -> Float[Array, "numbers ..."]:
    """(M + damping diag M)^-1 right on the free rows and columns of M, 0 on the others."""
    scale = jnp.where(free, jax.lax.rsqrt(jnp.where(free, jnp.diagonal(matrix), 1)), 0)
    unit = matrix * scale[:, None] * scale + jnp.diag(jnp.where(free, damping, 1.0))
    across = scale.reshape(-1, *[1] * (right.ndim - 1))
    return across * jnp.linalg.solve(unit, across * right)


def free_of(peaks: Peaked, score: Array, information: Array, present: Bool[Array, " peaks"]) -> Bool[Array, " numbers"]:
    """Numbers that may move: those of peaks that are present, without those that stand at 0 and would fall below."""
    nonnegative = jnp.concatenate([peaks.counts, peaks.background])
    held = jnp.concatenate([jnp.zeros(len(present), bool), nonnegative <= 0]) & (score <= 0)
    there = jnp.concatenate([present, present, jnp.ones(len(peaks.background), bool)])
    return there & ~held & (jnp.diagonal(information) > 0)


_State = tuple[Array, Array, Array, Array, Array, Array, Array, Array]
# numbers, those proposed, mu, score, information, damping, steps made, whether the maximum is reached


@jax.jit
def maximise(
    stretch: Stretch,
    start: Peaked,
    present: Bool[ArrayLike, " peaks"],
    *,
    growth: Float[ArrayLike, ""] = GROWTH,
    steps: Int[ArrayLike, ""] = STEPS,
) -> Peaked:
    """Maximum of the likelihood from a start, by damped Fisher scoring with counts and background held at 0 or above.

        (J^T W J + damping diag) step = J^T W (y - mu),     W = 1 / variance of mu

    Those at 0 whose score is negative stay; the others are clipped (Bertsekas, SIAM J. Control Optim. 20, 221 (1982)).

    Args:
        stretch: channels.
        start: energies, counts, and background.
        present: peaks that are part of the model; the others keep their energy, and their counts become 0.
        growth: of the log-likelihood, foretold, at which steps end.
        steps: largest number of them.
    """
    present = jnp.asarray(present)
    k = len(present)
    ends = stretch.detector.energies_ev[jnp.array([0, -1])]

    def split(values: Array) -> Peaked:
        return Peaked(values[:k], values[k : 2 * k], values[2 * k :])

    def clipped(values: Array) -> Array:
        return jnp.concatenate([jnp.clip(values[:k], *ends), jnp.maximum(values[k:], 0)])

    def step(state: _State) -> _State:
        values, proposed, *held, damping, count, _ = state
        there = stretch.linearised(split(proposed))
        better = (count == 0) | (stretch.growth(held[0], there[0]) >= 0)
        values, mu, score, information = jax.tree.map(lambda a, b: jnp.where(better, a, b), (proposed, *there), (values, *held))
        damping = jnp.where(better, damping / 8, damping * 5 + 1e-6)
        free = free_of(split(values), score, information, present)
        move = scaled_solve(information, score, free, damping + 1e-12)
        done = (score @ move < growth) | (damping > 1e9)
        farthest = FARTHEST * stretch.detector.fwhm_ev(values[:k])
        move = move.at[:k].set(jnp.clip(move[:k], -farthest, farthest))
        return values, clipped(values + move), mu, score, information, damping, count + 1, done

    values = clipped(jnp.concatenate([start.energies_ev, jnp.where(present, start.counts, 0), start.background]))
    held = jnp.ones_like(stretch.counts), jnp.zeros_like(values), jnp.zeros((len(values), len(values)))
    state = (values, values, *held, jnp.asarray(8e-3), jnp.asarray(0), jnp.asarray(False))
    return split(jax.lax.while_loop(lambda s: (s[6] < steps) & ~s[7], step, state)[0])


def covariance(stretch: Stretch, peaks: Peaked, present: Bool[Array, " peaks"]) -> Float[Array, "2*peaks 2*peaks"]:
    """Cramer-Rao bound of (energies, counts), those of the background and of the other peaks unknown; absent peaks have 0.

    Amplitudes of the background at 0 count as known.
    """
    score, information = stretch.linearised(peaks)[1:]
    free = free_of(peaks, score, information, present)
    return scaled_solve(information, jnp.eye(len(free)), free, 1e-12)[: 2 * len(present), : 2 * len(present)]


def risen(columns: Float[Array, "channels n"], stretch: Stretch, steps: int = 30) -> Float[Array, " n"]:
    """Nonnegative amplitudes of columns by expectation maximisation: a <- a S^T(y / S a) / S^T 1, a safe start."""
    total = jnp.maximum(stretch.used @ columns, 1e-9)
    start = jnp.full(columns.shape[1], stretch.used @ stretch.counts) / columns.shape[1] / total

    def step(_: Array, amplitudes: Array) -> Array:
        ratio = stretch.used * (stretch.counts + FLOOR) / (columns @ amplitudes + FLOOR)
        return amplitudes * (ratio @ columns) / total

    return jax.lax.fori_loop(0, steps, step, start)
