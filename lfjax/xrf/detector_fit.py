"""The numbers of a detector that make a spectrum most likely, its elements given: Gauss-Newton with amplitudes that follow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from lfjax.xrf.components import padded
from lfjax.xrf.detector import Detector
from lfjax.xrf.dictionary import Design, Dictionary, counts_of
from lfjax.xrf.instrument import Instrument
from lfjax.xrf.lines import Family
from lfjax.xrf.poisson_fit import Counts, CountsFit, Ties, fit_counts
from lfjax.xrf.window import FINE_SAMPLES, SAMPLES, Window

NUMBERS = ("gain_ev", "offset_ev", "noise_ev", "fano", "tail", "tail_ev")
"""Numbers of a detector that a spectrum tells."""
PRIORS = {"fano": (0.115, 0.01), "tail": (0.0, 0.003), "tail_ev": (300.0, 100.0)}
"""Number of the detector -> mean and standard deviation beforehand: few spectra tell these alone."""
LEAST = {"gain_ev": 1e-3, "offset_ev": -np.inf, "noise_ev": 5.0, "fano": 0.05, "tail": 0.0, "tail_ev": 50.0}
"""Number of the detector -> smallest value."""
STEPS = 8  # of Gauss-Newton


class DetectorFit(NamedTuple):
    """A detector and how well it explains a spectrum.

    Attributes:
        detector: the most likely.
        errors: number of it -> standard deviation, from the curvature of the likelihood.
        misfit: squares over variances, per bin and tie that the amplitudes leave free.
    """

    detector: Detector
    errors: dict[str, float]
    misfit: float


def fit_detector(
    counts: Counts,
    detector: Detector,
    families: Sequence[Family],
    instrument: Instrument,
    energies_ev: tuple[float, float],
    *,
    names: Sequence[str] = NUMBERS,
    systematic: float = 0.015,
    steps: int = STEPS,
    rough: bool = False,
) -> DetectorFit:
    """Most likely numbers of a detector, from a start within a width of a line.

    Variable projection: with S(theta) the columns at the numbers theta and a the amplitudes fitted to them, the residual
    r = W^(1/2) (y - S a) has the slope -P W^(1/2) (dS/dtheta) a, P the projection off the columns in use (Kaufman, BIT 15, 49
    (1975)). The bins, and the weights W within a step, stay the same, so that a misfit that falls is a better fit. Numbers have
    the priors of `PRIORS`.

    Args:
        counts: (channels,).
        detector: start.
        families: that the spectrum shows.
        instrument: what is known of the scanner.
        energies_ev: ends of the fit.
        names: numbers that may move.
        systematic: error of the model, see `fit_counts`.
        steps: largest number of Gauss-Newton steps.
        rough: whether bins are wide, and the background has no steps at absorption edges: for starts.

    Source: Golub & Pereyra, Inverse Problems 19, R1 (2003).
    """
    window = Window.of(counts, detector, *energies_ev, SAMPLES if rough else FINE_SAMPLES)
    model = _Model(counts, window, Dictionary.of(families, instrument, edges=not rough), tuple(names), systematic)
    here = model.at(detector)
    for _ in range(steps):
        known = here.fit.weights
        least = model.cost(detector, model.at(detector, here, known))
        step, normal = model.step(detector, here)
        errors = np.sqrt(np.diag(np.linalg.inv(normal)))
        for share in (1.0, 0.5, 0.25, 0.1):
            new = model.moved(detector, share * step)
            if model.cost(new, model.at(new, here, known)) < least:
                break
        else:
            break
        detector, here = new, model.at(new, here)
        if np.all(np.abs(share * step) < 0.02 * errors):
            break
    return DetectorFit(detector, dict(zip(names, errors.tolist(), strict=True)), here.fit.misfit / here.fit.free)


class _At(NamedTuple):
    """The fit at one detector."""

    columns: NDArray[np.float64]
    ties: Ties
    fit: CountsFit


class _Model(NamedTuple):
    """A spectrum and all but the numbers of the detector."""

    counts: Counts
    window: Window
    dictionary: Dictionary
    names: tuple[str, ...]
    systematic: float

    def at(self, detector: Detector, before: _At | None = None, weights: Counts | None = None) -> _At:
        """Amplitudes at a detector, from those at another one; `weights` in place of its own."""
        design = Design.of(self.dictionary, detector, self.window, self.counts)
        columns, ties = design.all_of(self.dictionary)
        known = before is not None and before.columns.shape[1] == columns.shape[1]
        start = before.fit.amplitudes if before is not None and known else None
        told = {"systematic": self.systematic} if weights is None else {"weights": weights}
        return _At(columns, ties, fit_counts(columns, self.window.counts, ties=ties, start=start, **told))

    def cost(self, detector: Detector, there: _At) -> float:
        """Misfit at a detector, with that of the priors."""
        prior, weight = self._prior()
        return there.fit.misfit + float(weight @ (self.values(detector) - prior) ** 2)

    def _prior(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and inverse variance of each number beforehand."""
        mean, deviation = np.array([PRIORS.get(name, (0.0, np.inf)) for name in self.names]).T
        return mean, 1 / deviation**2

    def values(self, detector: Detector) -> NDArray[np.float64]:
        """Its numbers."""
        return np.array([float(getattr(detector, name)) for name in self.names])

    def moved(self, detector: Detector, step: NDArray[np.float64]) -> Detector:
        """The detector after a step."""
        moved = zip(self.names, self.values(detector) + step, strict=True)
        told = {name: max(float(value), LEAST[name]) for name, value in moved}
        return eqx.tree_at(lambda d: [getattr(d, name) for name in told], detector, list(told.values()))

    def step(self, detector: Detector, here: _At) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gauss-Newton step, and the normal matrix, whose inverse is the covariance."""
        root, rows = np.sqrt(here.fit.weights)[:, None], here.ties.rows(here.fit.amplitudes)
        slopes = np.asarray(self._slopes(detector, here)) * root
        jacobian = np.concatenate([slopes, np.zeros((len(rows), len(self.names)))])
        residual = np.concatenate([(self.window.counts - here.fit.model) * root[:, 0], -rows @ here.fit.amplitudes])
        basis = np.linalg.qr(np.concatenate([here.columns * root, rows])[:, here.fit.amplitudes > 0])[0]
        free = jacobian - basis @ (basis.T @ jacobian)
        prior, weight = self._prior()
        normal = free.T @ free + np.diag(weight)
        pull = weight * (prior - self.values(detector))
        return np.linalg.solve(normal, free.T @ residual + pull), normal

    def _slopes(self, detector: Detector, here: _At) -> Array:
        groups = self.dictionary.groups
        counts = np.concatenate([lines.rates * a for lines, a in zip(groups, here.fit.amplitudes, strict=False)])
        energies = np.concatenate([lines.energies_ev for lines in groups])
        broadening = np.concatenate([lines.broadening_ev for lines in groups])
        edges = padded(self.window.edges)
        slopes = _slopes(detector, self.names, *map(jnp.asarray, (energies, broadening, counts, edges)))
        return slopes[: len(self.window.counts)]


@partial(jax.jit, static_argnames="names")
def _slopes(
    detector: Detector, names: tuple[str, ...], energies: Array, broadening: Array, counts: Array, edges: Array
) -> Float[Array, "bins numbers"]:
    """Derivatives of counts per bin by numbers of the detector."""

    def of(values: list[Array]) -> Array:
        there = eqx.tree_at(lambda d: [getattr(d, name) for name in names], detector, values)
        return counts_of(there, energies, broadening, counts, edges)

    return jnp.stack(jax.jacfwd(of)([jnp.asarray(getattr(detector, name), float) for name in names]), axis=1)
