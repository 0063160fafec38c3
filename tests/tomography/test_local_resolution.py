"""Local resolution of half-maps whose signal-to-noise ratio is known in each half of the box."""

import numpy as np
import pytest

from lfjax import tomography
from lfjax.errors import ParameterError, ShapeError

N = 48


def frequencies(n):
    k = np.fft.fftfreq(n) * n
    return np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)


def two_resolutions(n=N, cutoffs=(1 / 6, 1 / 3), scale=1.0):
    """Half-maps of white signal, with noise of power (f / c)^8, at most 15, with c another for each half of z.

    Their local correlation is 1 / (1 + (f / c)^8): 1/2 at c, and 0.143 at 1.25 c.
    """
    rng = np.random.default_rng(0)
    side = (0.5 + 0.5 * np.tanh(8 * np.sin(2 * np.pi * (np.arange(n) + 0.5) / n)))[:, None, None]  # 1 for small z
    signal = rng.normal(size=(n, n, n))
    halves = []
    for _ in range(2):
        parts = []
        for cutoff in cutoffs:
            noise = np.fft.fftn(rng.normal(size=(n, n, n))) * np.sqrt(np.minimum((frequencies(n) / n / cutoff) ** 8, 15))
            parts.append(signal + np.fft.ifftn(noise).real)
        halves.append(side * parts[0] + (1 - side) * parts[1])
    return halves[0], scale * halves[1]


MIDDLES = (slice(N // 4 - 3, N // 4 + 3), slice(3 * N // 4 - 3, 3 * N // 4 + 3))


@pytest.mark.parametrize(("threshold", "factor"), [(0.5, 1.0), (0.143, 1.25)])
def test_two_halves_of_a_box_have_their_own_resolutions(threshold, factor):
    found = tomography.resolution_map(*two_resolutions(scale=7.0), 1.5, threshold=threshold)
    periods = np.asarray(found.resolution_angstrom) / 1.5
    for middle, expected in zip(MIDDLES, (6 / factor, 3 / factor), strict=True):
        assert np.median(periods[middle]) == pytest.approx(expected, rel=0.08)
        assert np.mean(np.abs(periods[middle] / expected - 1) <= 0.2) >= 0.9
    assert (
        found.coarsest_angstrom == pytest.approx(1.5 * periods.max(), rel=0.2) or found.coarsest_angstrom > periods.max() * 1.5
    )


def test_the_mask_keeps_the_solvent_out():
    """A ball in noise, most of its power at low frequencies as in a molecule: windows at its border reach into the noise."""
    rng = np.random.default_rng(1)
    signal, noise = rng.normal(size=(N, N, N)), rng.normal(size=(2, N, N, N))
    signal = np.fft.ifftn(np.fft.fftn(signal) * (1 + (10 / np.maximum(frequencies(N), 1)) ** 2)).real
    inside = tomography.spherical_mask(N, 12.0, 2.0)
    halves = [inside * signal + (2 * (1 - inside) + 0.4 * inside) * part for part in noise]
    border = (inside > 0.99) & (tomography.spherical_mask(N, 9.0, 0.0) < 0.5)
    without, within = (tomography.resolution_map(*halves, 1.0, mask=mask) for mask in (None, inside))
    middle = [np.median(np.asarray(found.resolution_angstrom)[border]) for found in (without, within)]
    assert middle[1] <= 2.3 and middle[0] >= 4.0
    assert within.percentiles[2] == pytest.approx(2.0, rel=0.05)
    assert list(within.percentiles) == sorted(within.percentiles)


def test_half_maps_of_noise_have_the_coarsest_and_equal_ones_the_finest_resolution():
    a, b = np.random.default_rng(2).normal(size=(2, N, N, N))
    noise = tomography.resolution_map(a, b, 2.0)
    assert np.mean(np.asarray(noise.resolution_angstrom) >= 0.999 * noise.coarsest_angstrom) >= 0.99
    assert 0.8 * N / 6 * 2.0 < noise.coarsest_angstrom <= N / 6 * 2.0 * 1.001
    np.testing.assert_allclose(tomography.resolution_map(a, a, 2.0).resolution_angstrom, 4.0, rtol=1e-3)


def test_a_map_is_filtered_to_the_resolution_at_each_voxel():
    white = np.random.default_rng(3).normal(size=(N, N, N))
    periods = np.full((N, N, N), 3.0)
    periods[: N // 2] = 8.0
    found = np.asarray(tomography.local_filter(white, periods, 1.0))
    for middle, period in zip(MIDDLES, (8.0, 3.0), strict=True):
        expected = np.asarray(tomography.low_pass(white, period, 1.0))[middle]
        np.testing.assert_allclose(found[middle], expected, atol=2e-3)


def test_one_resolution_everywhere_is_a_plain_filter():
    white = np.random.default_rng(3).normal(size=(N, N, N))
    found = tomography.local_filter(white, np.full((N, N, N), 4.0), 1.0)
    np.testing.assert_allclose(found, tomography.low_pass(white, 4.0, 1.0), atol=2e-3)


def test_wrong_arguments_are_named(unchecked):
    a = np.random.default_rng(0).normal(size=(24, 24, 24))
    with pytest.raises(ShapeError, match="second"):
        tomography.resolution_map(a, a[:12], 1.0)
    with pytest.raises(ShapeError, match="mask"):
        tomography.resolution_map(a, a, 1.0, mask=np.ones((12, 12, 12)))
    for options, name in (
        ({"threshold": 1.5}, "threshold"),
        ({"window_periods": 0.2}, "window_periods"),
        ({"coarsest_angstrom": 100.0}, "coarsest_angstrom"),
        ({"coarsest_angstrom": 2.0}, "coarsest_angstrom"),
        ({"mask": 0 * a}, "mask"),
    ):
        with pytest.raises(ParameterError, match=name):
            tomography.resolution_map(a, a, 1.0, **options)
    with pytest.raises(ParameterError, match="resolution_angstrom"):
        tomography.local_filter(a, 0 * a, 1.0)
    with pytest.raises(ParameterError, match="levels"):
        tomography.local_filter(a, 0 * a + 4, 1.0, levels=1)
