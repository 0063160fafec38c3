"""The detector: energies of its channels, and the pulse of a line, whose width grows with energy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from lfjax.errors import require

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian of standard deviation 1: 2.355."""
Number: TypeAlias = Float[Array, ""] | float
PAIR_EV = 3.66
"""Energy per electron-hole pair in silicon, eV (Knoll, Radiation Detection and Measurement, table 11.1: 3.62 at 300 K, 3.76 at
77 K; detectors cooled by Peltier elements lie between)."""


class Detector(eqx.Module):
    """An energy-dispersive detector of silicon, differentiable in all its numbers.

        E(n) = offset + gain n,      w(E)^2 = noise^2 + 2.355^2 F eps E,

    with w the full width at half maximum in eV. A line at E_l puts into channel n the share of its counts that falls between
    E(n) - gain/2 and E(n) + gain/2: a Gaussian, of which the fraction `tail` reaches down to lower energies as an exponential
    of decay length `tail_ev` (incomplete collection of charge).

    Attributes:
        gain_ev: width of a channel, eV.
        offset_ev: energy of the middle of channel 0, eV.
        noise_ev: electronic noise, FWHM in eV.
        fano: F, Fano factor; silicon has 0.11 to 0.13.
        tail: fraction of the counts of a line in its tail.
        tail_ev: decay length of the tail, eV.
        channels: number of channels.

    Source: Van Grieken & Markowicz, Handbook of X-Ray Spectrometry (2002), chapter 4; the tail is that of Campbell & Maxwell,
    Nucl. Instrum. Methods B 129, 297 (1997).
    """

    gain_ev: Number
    offset_ev: Number
    noise_ev: Number
    fano: Number
    tail: Number
    tail_ev: Number
    channels: int = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        gain_ev: Number,
        offset_ev: Number = 0.0,
        *,
        noise_ev: Number = 80.0,
        fano: Number = 0.115,
        tail: Number = 0.0,
        tail_ev: Number = 300.0,
    ) -> None:
        require(isinstance(channels, (int, np.integer)) and channels >= 2, "channels", channels, "a whole number, 2 or more")
        self.channels = int(channels)
        self.gain_ev, self.offset_ev, self.noise_ev, self.fano = gain_ev, offset_ev, noise_ev, fano
        self.tail, self.tail_ev = tail, tail_ev
        _require("a positive number", lambda value: 0 < value < math.inf, gain_ev=gain_ev, tail_ev=tail_ev)
        _require("zero or more", lambda value: 0 <= value < math.inf, noise_ev=noise_ev, fano=fano)
        _require("a finite number", math.isfinite, offset_ev=offset_ev)
        _require("a fraction from 0 to 1", lambda value: 0 <= value <= 1, tail=tail)

    @property
    def energies_ev(self) -> Float[Array, " channels"]:
        """Energy of the middle of each channel."""
        return self.offset_ev + self.gain_ev * jnp.arange(self.channels)

    def fwhm_ev(self, energy_ev: Float[ArrayLike, "*n"]) -> Float[Array, "*n"]:
        """w(E), full width at half maximum of a line."""
        statistics = FWHM**2 * self.fano * PAIR_EV * jnp.maximum(jnp.asarray(energy_ev), 0)
        return jnp.sqrt(self.noise_ev**2 + statistics)

    def pulses(
        self,
        energies_ev: Float[ArrayLike, " lines"],
        widths_ev: Float[ArrayLike, " lines"] | None = None,
        edges: Int[ArrayLike, " edges"] | None = None,
    ) -> Float[Array, "bins lines"]:
        """Share of the counts of each line in each channel, or in bins of channels.

        Args:
            energies_ev: E_l.
            widths_ev: full widths at half maximum. None: w(E_l).
            edges: first channel of each bin, and the channel after the last. None: every channel is a bin.
        """
        lines = jnp.asarray(energies_ev, float)
        widths = self.fwhm_ev(lines) if widths_ev is None else jnp.asarray(widths_ev)
        sigma = jnp.maximum(widths, 1e-6) / FWHM
        begins = jnp.arange(self.channels + 1) if edges is None else jnp.asarray(edges)
        ends = self.offset_ev + self.gain_ev * (begins - 0.5)
        below = _distribution((ends[:, None] - lines) / sigma, sigma / self.tail_ev, self.tail)
        return jnp.diff(below, axis=0)

    def warped(self, energy_ev: Float[ArrayLike, "*n"]) -> Float[Array, "*n"]:
        """u(E) = integral of dE / w(E), in widths: on this axis every line is as wide as every other.

        u = 2 (w(E) - noise) / c for w^2 = noise^2 + c E, written so that it holds at c = 0 as well.
        """
        energy = jnp.asarray(energy_ev, float)
        return 2 * energy / (self.fwhm_ev(energy) + self.noise_ev)

    def unwarped(self, u: Float[ArrayLike, "*n"]) -> Float[Array, "*n"]:
        """E(u), the inverse of `warped`: E = noise u + c u^2 / 4."""
        u = jnp.asarray(u, float)
        return self.noise_ev * u + FWHM**2 * self.fano * PAIR_EV * u**2 / 4


def _require(expected: str, holds: Callable[[float], bool], **numbers: Number) -> None:
    """Check numbers of Python and NumPy; the values of those that JAX traces are not known."""
    for name, value in numbers.items():
        require(not isinstance(value, (float, int)) or holds(value), name, value, expected)


def _distribution(x: Array, decay: Array, tail: Number) -> Array:
    """Share of a pulse below x, in standard deviations; `decay` is sigma over the decay length of the tail.

    Gaussian: Phi(x). The tail is the Gaussian convolved with an exponential towards lower energies:
    Phi(x) + exp(x decay + decay^2 / 2) Phi(-x - decay).
    """
    return special.ndtr(x) + tail * jnp.exp(x * decay + decay**2 / 2 + special.log_ndtr(-x - decay))
