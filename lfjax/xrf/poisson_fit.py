"""Poisson likelihood of one spectrum with nonnegative amplitudes: the fit, and the gain of one more component."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import nnls

STEPS = 12
"""Largest number of reweighted fits; they mostly settle after five."""

SETTLED = 0.02  # change of the misfit of a fit at given weights, which only serves a comparison

PIVOTS = 12  # changes of sides after which they may go in a circle
RIDGE = 1e-11  # of the normal equations, whose columns have length 1

Counts = Float[NDArray[np.floating], " channels"]
Columns = Float[NDArray[np.floating], "channels columns"]


class Ties(NamedTuple):
    """Ratios that are known but for a spread: part . a = ratio (whole . a) (1 +- spread), one tie per row.

    Attributes:
        part: columns of the part, 0 or 1.
        whole: columns that it is compared with.
        ratio: expected.
        spread: relative standard deviation.
    """

    part: Float[NDArray[np.float64], "ties columns"]
    whole: Float[NDArray[np.float64], "ties columns"]
    ratio: Float[NDArray[np.float64], " ties"]
    spread: Float[NDArray[np.float64], " ties"]

    def taken(self, columns: NDArray[np.integer], more: int = 0) -> Ties:
        """Those of some columns, with `more` free columns behind them."""
        part, whole = (np.pad(each[:, columns], ((0, 0), (0, more))) for each in (self.part, self.whole))
        kept = part.any(axis=1) & whole.any(axis=1)
        return Ties(part[kept], whole[kept], self.ratio[kept], self.spread[kept])

    def joined(self, other: Ties) -> Ties:
        """These ties and others of the same columns."""
        return Ties(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    def beside(self, other: Ties) -> Ties:
        """Ties of these columns, and of those of another fit behind them."""
        behind, before = ((0, 0), (0, other.part.shape[1])), ((0, 0), (self.part.shape[1], 0))
        ours = self._replace(part=np.pad(self.part, behind), whole=np.pad(self.whole, behind))
        return ours.joined(other._replace(part=np.pad(other.part, before), whole=np.pad(other.whole, before)))

    def rows(self, amplitudes: Float[NDArray[np.float64], " columns"]) -> Float[NDArray[np.float64], "ties columns"]:
        """Rows t with t . a = (part . a - ratio whole . a) / (spread ratio whole . b), with `amplitudes` b."""
        expected = self.ratio * (self.whole @ amplitudes)
        seen = expected > 1e-9 * amplitudes.max(initial=0)
        rows = self.part[seen] - self.ratio[seen, None] * self.whole[seen]
        return rows / (self.spread * expected)[seen, None]


class CountsFit(NamedTuple):
    """Nonnegative amplitudes of largest likelihood.

    Attributes:
        amplitudes: a >= 0.
        model: mu = S a.
        weights: 1 / variance per channel at the end.
        misfit: sum (y - mu)^2 / variance, with that of the ties.
        free: number of channels and ties, less that of amplitudes above zero: the misfit to expect of noise.
    """

    amplitudes: Float[NDArray[np.float64], " columns"]
    model: Counts
    weights: Counts
    misfit: float
    free: int


def fit_counts(
    columns: Columns,
    counts: Counts,
    *,
    systematic: float = 0.0,
    ties: Ties | None = None,
    weights: Counts | None = None,
    start: Float[NDArray[np.float64], " columns"] | None = None,
) -> CountsFit:
    """max_a sum_n y log mu - mu, mu = S a, a >= 0, by reweighted nonnegative least squares.

    Each step minimises sum_n (y - S a)^2 / v with the variance of the last model, v = mu + (systematic mu)^2: Fisher scoring,
    whose fixed point is the Poisson maximum where `systematic` is 0. Errors of line shapes and tables, a fraction of the
    counts, otherwise outweigh the noise of a spectrum with many counts.

    Args:
        columns: S.
        counts: y >= 0.
        systematic: error of the model as a fraction of itself.
        ties: columns whose ratios are known but for a spread.
        weights: 1 / v, where they are known; fits that are compared share them. None: of the model.
        start: amplitudes of an earlier fit, near which these will be.
    """
    floor = max(0.25, 1e-3 * float(counts.mean()))
    variance = np.maximum(counts, floor) + (systematic * counts) ** 2 if weights is None else 1 / weights
    amplitudes = np.zeros(columns.shape[1]) if start is None else start
    if weights is None and start is not None:
        model = columns @ start
        variance = np.maximum(model, floor) + (systematic * model) ** 2
    misfit = math.inf
    for _ in range(STEPS):
        before, root = misfit, 1 / np.sqrt(variance)
        matrix, right = columns * root[:, None], counts * root
        if ties is not None and len(rows := ties.rows(amplitudes)):
            matrix, right = np.concatenate([matrix, rows]), np.concatenate([right, np.zeros(len(rows))])
        length = np.linalg.norm(matrix, axis=0)
        scale = np.where(length > 0, length, np.inf)  # escape peaks outside the window stay at zero
        new = _nonnegative(matrix / scale, right, amplitudes > 0) / scale
        model = columns @ new
        moved = np.abs(new - amplitudes).sum() > 1e-4 * new.sum()
        misfit = float(np.sum((matrix @ new - right) ** 2))
        amplitudes = new
        if weights is None:
            variance = np.maximum(model, floor) + (systematic * model) ** 2
        settled = weights is not None and (ties is None or abs(misfit - before) < SETTLED)
        if not moved or settled:
            break
    return CountsFit(amplitudes, model, 1 / variance, misfit, max(1, len(right) - int(np.count_nonzero(amplitudes))))


def _nonnegative(
    matrix: Columns, right: Counts, positive: Bool[NDArray[np.bool_], " columns"]
) -> Float[NDArray[np.float64], " columns"]:
    """min |matrix x - right|, x >= 0, for columns of length 1, by block principal pivoting from a guess of which are positive.

    All variables of the wrong sign change sides at once. A warm start is right after a change or two, where NNLS begins from
    nothing; NNLS takes over where the changes go in a circle.

    Source: Portugal, Judice & Vicente, Math. Comput. 63, 625 (1994).
    """
    gram, score = matrix.T @ matrix, matrix.T @ right
    gram[np.diag_indices_from(gram)] += RIDGE
    tolerance = 1e-10 * float(np.abs(score).max())
    for _ in range(PIVOTS):
        x = np.zeros(len(gram))
        inside = np.flatnonzero(positive)
        x[inside] = cho_solve(cho_factor(gram[np.ix_(inside, inside)]), score[inside]) if len(inside) else 0
        wrong = np.where(positive, x < 0, gram @ x - score < -tolerance)
        if not wrong.any():
            return x
        positive = positive ^ wrong
    upper = np.linalg.cholesky(gram).T
    return np.asarray(nnls(upper, solve_triangular(upper, score, trans="T"), maxiter=30 * len(gram))[0])


def gain_of(
    columns: Columns,
    others: Float[NDArray[np.floating], "channels others"],
    counts: Counts,
    fit: CountsFit,
    ties: Ties | None = None,
) -> Float[NDArray[np.float64], " others"]:
    """Growth of the log-likelihood if one more component joined: score^2 / (2 information), 0 where it would be negative.

    The information is what is left after the components of the fit that are not at zero take their share (Schur complement),
    so that a line beside a strong one gains only what the strong one cannot explain within its ties.

    Args:
        columns: S of the fit.
        others: columns of the components that may join, one at a time.
        counts: y.
        fit: of S.
        ties: of S.
    """
    root = np.sqrt(fit.weights)
    rows = np.zeros((0, columns.shape[1])) if ties is None else ties.rows(fit.amplitudes)
    active = np.concatenate([columns * root[:, None], rows])
    active = active[:, (fit.amplitudes > 0) & (np.linalg.norm(active, axis=0) > 0)]  # escape peaks may lie outside
    right = np.zeros((len(active), others.shape[1] + 1))
    right[: len(root), :-1] = others * root[:, None]
    right[:, -1] = np.concatenate([(counts - fit.model) * root, -rows @ fit.amplitudes])
    scale = np.linalg.norm(active, axis=0)
    gram = active.T @ active / scale / scale[:, None]
    gram[np.diag_indices_from(gram)] += RIDGE
    basis = solve_triangular(np.linalg.cholesky(gram), (active / scale).T @ right, lower=True)
    own = np.sum(right[:, :-1] ** 2, axis=0)
    information = own - np.sum(basis[:, :-1] ** 2, axis=0)
    score = right[:, :-1].T @ right[:, -1] - basis[:, :-1].T @ basis[:, -1]
    alike = information < 1e-6 * own
    return np.where((score > 0) & ~alike, score**2 / (2 * np.maximum(information, np.finfo(float).tiny)), 0.0)
