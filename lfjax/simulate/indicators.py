"""Calcium indicators by name, each with the source of its numbers."""

from __future__ import annotations

from lfjax.errors import ParameterError, require
from lfjax.simulate.calcium import JGCAMP8F, Indicator

INDICATORS: dict[str, Indicator] = {
    # Zhang et al., Nature 615, 884 (2023), one spike in cultured neurons, mean over wells: the table of
    # janelia.org/jgcamp8-calcium-indicators, which belongs to its Fig. 1.
    "jgcamp8f": JGCAMP8F,
    "jgcamp8m": Indicator(rise_half_s=7.1e-3, decay_half_s=118.3e-3, peak=0.76),
    "jgcamp8s": Indicator(rise_half_s=10.1e-3, decay_half_s=306.7e-3, peak=1.11),
    "jgcamp7f": Indicator(rise_half_s=24.8e-3, decay_half_s=181.9e-3, peak=0.21),
    # The same experiment, median over wells of the data of its Fig. 1e, data/unnormPlots_singleWells_struct.mat of
    # github.com/ilyakolb/jGCaMP8-neuron-culture-screen: 77 wells (GCaMP6f), 283 (GCaMP6s), 22 (jGCaMP7s), 12 (7c), 12 (7b).
    "gcamp6f": Indicator(rise_half_s=24.5e-3, decay_half_s=279.7e-3, peak=0.080),
    "gcamp6s": Indicator(rise_half_s=41.4e-3, decay_half_s=841.4e-3, peak=0.134),
    "jgcamp7s": Indicator(rise_half_s=31.3e-3, decay_half_s=511.1e-3, peak=0.605),
    "jgcamp7c": Indicator(rise_half_s=29.3e-3, decay_half_s=451.1e-3, peak=0.226),
    "jgcamp7b": Indicator(rise_half_s=42.6e-3, decay_half_s=406.1e-3, peak=0.566),
}
"""Indicators by their names in lower case, measured in one experiment: one spike in cultured neurons (Zhang et al., Nature 615,
884 (2023)). Kinetics differ between preparations; state the half times of yours where you know them, see `find_indicator`."""


def find_indicator(name: str = "jgcamp8f", *, rise_ms: float | None = None, decay_ms: float | None = None) -> Indicator:
    """The indicator of this name, or one with half times of your own.

    Args:
        name: one of `INDICATORS`, in upper or lower case.
        rise_ms: milliseconds from a spike to half of the peak; None: that of the named indicator.
        decay_ms: milliseconds from the peak to half of it; None: that of the named indicator.

    Raises:
        ParameterError: an unknown name (the message lists all), or a rise that is not shorter than 0.138 of the decay.
    """
    found = INDICATORS.get(name.lower())
    if found is None:
        raise ParameterError(f"indicator {name!r}: expected one of {', '.join(INDICATORS)}")
    for argument, value in (("rise_ms", rise_ms), ("decay_ms", decay_ms)):
        require(value is None or 0 < value < 1e5, argument, value, "milliseconds, above 0")
    if rise_ms is None and decay_ms is None:
        return found
    rise = 1e3 * found.rise_half_s if rise_ms is None else rise_ms
    decay = 1e3 * found.decay_half_s if decay_ms is None else decay_ms
    limit = 0.138 * decay
    require(rise < limit, "rise_ms", rise, f"below {limit:.3g} ms, 0.138 of the decay: no pulse of this form rises more slowly")
    return Indicator(1e-3 * rise, 1e-3 * decay, found.peak)
