"""Indicators by name and with half times of one's own."""

import math

import pytest

from lfjax.activity import Pulse
from lfjax.errors import ParameterError
from lfjax.simulate import INDICATORS, JGCAMP8F, find_indicator


@pytest.mark.parametrize("name", INDICATORS)
def test_every_indicator_has_a_pulse_of_its_half_times(name):
    found = find_indicator(name.upper())
    assert found == INDICATORS[name]
    pulse = Pulse(*found.time_constants_s)
    step = 2e-3 * found.decay_half_s  # a mean over a short step, since the pulse is given as such
    top = pulse.rise_s * math.log1p(pulse.decay_s / pulse.rise_s)
    for time, height in ((top, 1), (found.rise_half_s, 0.5), (top + found.decay_half_s, 0.5)):
        assert float(pulse(time - step / 2, step)) == pytest.approx(height, abs=3e-3)


def test_families_are_ordered_as_their_names_say():
    for family in ("jgcamp8{}", "jgcamp7{}", "gcamp6{}"):
        assert INDICATORS[family.format("f")].decay_half_s < INDICATORS[family.format("s")].decay_half_s
    eight = [INDICATORS[f"jgcamp8{letter}"] for letter in "fms"]
    assert [i.decay_half_s for i in eight] == sorted(i.decay_half_s for i in eight)
    assert [i.peak for i in eight] == sorted(i.peak for i in eight)


def test_half_times_of_ones_own():
    own = find_indicator("jgcamp8f", rise_ms=10.0, decay_ms=120.0)
    assert (own.rise_half_s, own.decay_half_s, own.peak) == (0.01, 0.12, JGCAMP8F.peak)
    slower = find_indicator("jgcamp8f", decay_ms=90.0)
    assert (slower.rise_half_s, slower.decay_half_s) == (pytest.approx(JGCAMP8F.rise_half_s), 0.09)


def test_wrong_indicators_are_named():
    with pytest.raises(ParameterError, match="indicator 'ogb1': expected one of jgcamp8f, jgcamp8m.*gcamp6s"):
        find_indicator("ogb1")
    with pytest.raises(ParameterError, match=r"rise_ms = 40.*below 9\.3 ms"):
        find_indicator("jgcamp8f", rise_ms=40.0)
    with pytest.raises(ParameterError, match="decay_ms = 0"):
        find_indicator("jgcamp8f", decay_ms=0.0)
