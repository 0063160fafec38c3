"""The forward model of a spectrum: counts are Poisson about a nonnegative sum of families, scatter, pile-up and background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.signal import fftconvolve
from scipy.special import ndtr

from lfjax.errors import require, require_shape
from lfjax.linop import LinearOperator, Shape
from lfjax.xrf.detector import FWHM, Detector
from lfjax.xrf.instrument import SILICON_K_EV, Instrument, escape
from lfjax.xrf.lines import Family

COMPTON_WIDTH = 0.018  # FWHM of a Compton line over its energy, from the motion of the electrons that scatter
KNOTS_EV = 1000.0  # between knots of the background: several widths of a line, so that no spline looks like one


class Lines(NamedTuple):
    """Lines of one component with their shares of its counts.

    Attributes:
        name: of the component.
        energies_ev: of the lines.
        rates: shares of the counts; those of a family sum to 1, escape peaks come on top.
        broadening_ev: FWHM that comes to that of the detector, eV.
    """

    name: str
    energies_ev: Float[NDArray[np.float64], " lines"]
    rates: Float[NDArray[np.float64], " lines"]
    broadening_ev: Float[NDArray[np.float64], " lines"]


class Spectrum(LinearOperator):
    """Expected counts per channel of nonnegative amplitudes: mu(n) = sum_c a_c s_c(n).

    Attributes:
        columns: s_c(n), (channels, components). The amplitude of a family is the number of its counts, escape peaks aside.
        names: of the components.
        families: number of components that are families of elements; they come first.
    """

    columns: Float[Array, "channels components"]
    names: tuple[str, ...] = eqx.field(static=True)
    families: int = eqx.field(static=True)

    def __init__(self, columns: Float[Array, "channels components"], names: Sequence[str], families: int) -> None:
        require_shape("columns", columns.shape, ("channels", len(names)))
        require(0 <= families <= len(names), "families", families, f"0 to {len(names)}")
        self.columns, self.names, self.families = columns, tuple(names), families

    @property
    def in_shape(self) -> Shape:
        """(components,)."""
        return (self.columns.shape[1],)

    @property
    def out_shape(self) -> Shape:
        """(channels,)."""
        return (self.columns.shape[0],)

    def matvec(self, x: Array) -> Array:
        """Expected counts per channel."""
        return self.columns @ x


def family_lines(family: Family, instrument: Instrument) -> Lines:
    """Lines of a family as the detector sees them: weakened by air and window, with their escape peaks."""
    return with_escape(family.through(instrument.efficiency(family.energies_ev)), escape(family.energies_ev))


def with_escape(family: Family, share: Float[NDArray[np.float64], " lines"]) -> Lines:
    """Lines of a family, whose rates sum to 1, and their escape peaks, which come on top; `share` is that of `escape`."""
    return escaping(Lines(family.name, family.energies_ev, family.rates, np.zeros(len(family.rates))), share)


def escaping(lines: Lines, share: Float[NDArray[np.float64], " lines"] | None = None) -> Lines:
    """Lines with their escape peaks; `share` is that of `escape`, which is taken where there is none."""
    leaving = lines.rates * (escape(lines.energies_ev) if share is None else share)
    seen = leaving > 1e-5
    energies = np.concatenate([lines.energies_ev, lines.energies_ev[seen] - SILICON_K_EV])
    rates, broadening = np.concatenate([lines.rates, leaving[seen]]), lines.broadening_ev
    return Lines(lines.name, energies, rates, np.concatenate([broadening, broadening[seen]]))


def scatter_lines(instrument: Instrument) -> list[Lines]:
    """Rayleigh and Compton lines of the tube, with their escape peaks."""
    found = []
    for source in instrument.tube_families():
        rates = source.rates * instrument.efficiency(source.energies_ev)
        rates = rates / rates.sum()
        shifted = np.array([instrument.compton_ev(energy) for energy in source.energies_ev])
        found.append(Lines(f"{source.name.strip()} Rayleigh", source.energies_ev, rates, np.zeros(len(rates))))
        found.append(Lines(f"{source.name.strip()} Compton", shifted, rates, COMPTON_WIDTH * shifted))
    return [escaping(each) for each in found]


def spectrum(
    detector: Detector,
    families: Sequence[Family],
    instrument: Instrument = Instrument(),  # noqa: B008 - a tuple
    *,
    background: Float[Array, "channels splines"] | Float[NDArray[np.floating], "channels splines"] | None = None,
    scatter: bool = True,
) -> Spectrum:
    """The operator of a set of families: differentiable in the numbers of the detector.

    Args:
        detector: energies and widths.
        families: of the elements.
        instrument: what is known of the scanner.
        background: columns of the smooth background, see `splines`. None: those of `splines`.
        scatter: whether the tube's lines are part of the model; those outside the channels are left out.

    Returns:
        The operator, with the families first, then scatter, then the background.
    """
    parts = [family_lines(each, instrument) for each in families]
    if scatter:
        low, high = (float(jax.lax.stop_gradient(e)) for e in detector.energies_ev[jnp.array([0, -1])])
        parts += [each for each in scatter_lines(instrument) if low < each.energies_ev[np.argmax(each.rates)] < high]
    if background is None:
        background = splines(detector)
    smooth = jnp.asarray(background)
    columns = jnp.concatenate([line_columns(detector, parts), smooth.astype(jnp.result_type(float))], axis=1)
    names = [each.name for each in parts] + [f"background {i}" for i in range(smooth.shape[1])]
    return Spectrum(columns, names, len(families))


def line_columns(
    detector: Detector, parts: Sequence[Lines], edges: Int[NDArray[np.integer], " edges"] | None = None
) -> Float[Array, "bins components"]:
    """Counts per channel, or per bin, of each component at amplitude 1: all lines in one call, summed per component."""
    edges = np.arange(detector.channels + 1) if edges is None else edges
    bins = len(edges) - 1
    if not parts:
        return jnp.zeros((bins, 0))
    energies = np.concatenate([each.energies_ev for each in parts])
    broadening = np.concatenate([each.broadening_ev for each in parts])
    owner = np.repeat(np.arange(len(parts)), [len(each.rates) for each in parts])
    share = np.zeros((len(energies), len(parts)))
    share[np.arange(len(energies)), owner] = np.concatenate([each.rates for each in parts])
    widths = jnp.sqrt(detector.fwhm_ev(energies) ** 2 + broadening**2)
    return _summed(detector, energies, widths, jnp.asarray(share), jnp.asarray(padded(edges)))[:bins]


def padded(edges: Int[NDArray[np.integer], " edges"]) -> Int[NDArray[np.integer], " more"]:
    """Edges with empty bins behind them, up to a multiple of 64: windows of nearly the same size share a compiled program."""
    return np.pad(edges, (0, -(len(edges) - 1) % 64), mode="edge")


@jax.jit
def _summed(detector: Detector, energies: Array, widths: Array, share: Array, edges: Array) -> Array:
    return detector.pulses(energies, widths, edges) @ share


def splines(detector: Detector, knots_ev: float = KNOTS_EV) -> Float[NDArray[np.float64], "channels splines"]:
    """Cubic B-splines over the channels, each summing to 1: a nonnegative sum of them is a smooth background.

    Args:
        detector: gives the energy of the channels; its numbers are taken as constants.
        knots_ev: distance of knots, eV.
    """
    require(knots_ev > 0, "knots_ev", knots_ev, "a positive number")
    span = float(np.asarray(jax.lax.stop_gradient(detector.gain_ev))) * (detector.channels - 1)
    return even_splines(detector.channels, max(1, round(span / knots_ev)))


def even_splines(channels: int, pieces: int) -> Float[NDArray[np.float64], "channels splines"]:
    """Cubic B-splines of equal pieces over the channels, each summing to 1."""
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, pieces + 1), np.ones(3)])
    basis = BSpline.design_matrix(np.linspace(0, 1, channels), knots, 3).toarray()
    return np.asarray(basis / basis.sum(axis=0))


def let_through(
    detector: Detector,
    instrument: Instrument,
    edges: Sequence[tuple[float, float]],
    smooth: Float[NDArray[np.floating], " channels"],
) -> Float[NDArray[np.float64], "channels columns"]:
    """Background that an element of the object lets through below its absorption edges.

    The scatter of a thick object is proportional to 1 / mu(E), and mu to 1 / E^3 between edges. At each edge the absorption by
    the element grows by the jump J_e; relative to that above the highest edge E_top it is

        r(E) = product over e of (1/J_e + (1 - 1/J_e) Phi((E - E_e) / sigma_e)),

    with sigma_e the standard deviation of a line at the edge. The columns are b (E / E_top)^3 times 1 - r, where the element
    absorbs little beside others, and, of several edges, times 1/r - 1, where it absorbs most. Photons of Compton scattering are
    absorbed on their way in at the energy E' that they had before: each column comes again with E'(E) in place of E. b is a
    smooth background; splines take what is smooth in the columns.

    Args:
        detector: energies and widths.
        instrument: gives the angle of scattering.
        edges: energy in eV and jump of each; one or more.
        smooth: b, counts per channel.
    """
    energies, top = np.maximum(np.asarray(detector.energies_ev, float), 0), max(edge for edge, _ in edges)
    columns = []
    for before, broadening in ((energies, 0.0), (instrument.before_compton_ev(energies), COMPTON_WIDTH)):
        absorbed = np.ones(detector.channels)
        for edge, jump in edges:
            sigma = math.hypot(float(detector.fwhm_ev(edge)), broadening * edge) / FWHM
            absorbed *= 1 / jump + (1 - 1 / jump) * ndtr((before - edge) / sigma)
        base = smooth * (np.minimum(before, 2 * top) / top) ** 3
        columns += [base * law for law in (1 - absorbed, 1 / absorbed - 1)[: len(edges)]]
    return np.stack(columns, axis=1)


def pile_up(counts: Float[NDArray[np.floating], " channels"], detector: Detector) -> Float[NDArray[np.float64], " channels"]:
    """Counts per channel of two photons that arrive as one: the spectrum with itself, summing to 1.

    p(n) is proportional to the sum over k + l = n + offset / gain of mu(k) mu(l): energies add, not channels.
    """
    own = np.maximum(fftconvolve(counts, counts), 0)
    shift = float(detector.offset_ev) / float(detector.gain_ev)
    at = np.arange(len(counts)) - shift  # E(n) = E(k) + E(l) where n = k + l + offset / gain
    pairs = np.interp(at, np.arange(len(own)), own, left=0.0, right=0.0)
    return np.asarray(pairs / max(pairs.sum(), np.finfo(float).tiny))


def snip(
    counts: Float[NDArray[np.floating], " channels"], detector: Detector, widths: float = 2.5
) -> Float[NDArray[np.float64], " channels"]:
    """Smooth background below the peaks of a spectrum: `clipped` over `widths` full widths at half maximum of the lines there.

    It needs no model of the peaks, and serves as a look and a start; fits use `splines`.
    """
    return clipped(counts, np.asarray(widths * detector.fwhm_ev(detector.energies_ev) / detector.gain_ev))


def clipped(
    counts: Float[NDArray[np.floating], " channels"], reach: Float[NDArray[np.floating], " channels"]
) -> Float[NDArray[np.float64], " channels"]:
    """SNIP: peaks of a spectrum clipped on log log sqrt counts, from wide windows to narrow ones.

    v(n) <- min(v(n), (v(n + m) + v(n - m)) / 2),   v = log(log(sqrt(y + 1) + 1) + 1),  m = reach(n), ..., 1.

    Source: Ryan et al., Nucl. Instrum. Methods B 34, 396 (1988); decreasing windows: Morhac et al., A 401, 113 (1997).
    """
    v = np.log(np.log(np.sqrt(np.maximum(counts, 0) + 1) + 1) + 1)
    index = np.arange(len(v))
    for m in range(int(np.ceil(reach.max())), 0, -1):
        mean = (v[np.minimum(index + m, len(v) - 1)] + v[np.maximum(index - m, 0)]) / 2
        v = np.where(reach >= m, np.minimum(v, mean), v)
    return np.asarray((np.exp(np.exp(v) - 1) - 1) ** 2 - 1)
