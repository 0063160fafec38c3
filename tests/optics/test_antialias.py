"""The anti-aliasing filter removes the lenslet grid and keeps what is sampled."""

import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.metrics import lattice_energy
from lfjax.optics import PRESETS, AntiAlias, sampling_widths
from lfjax.optics.lightfield.antialias import lanczos_matrix

SCOPE = PRESETS["60x1.2w"]


def test_widths_follow_the_geometry():
    # f_ml / Z with Z = M^2 |z| / n: 2500 um * 1.35 / 3600 = 0.9375 um of depth for one lenslet
    np.testing.assert_allclose(sampling_widths(SCOPE, (0.0, 0.5, -1.875, 9.375)), [1, 1, 0.5, 0.1], rtol=1e-6)


def test_the_grid_goes_near_the_native_plane_only():
    grid = jnp.zeros((2, 32, 32)).at[:, ::4, ::4].set(1.0)
    filtered = AntiAlias(SCOPE, (0.0, 9.0), 4, (32, 32))(grid)
    assert float(lattice_energy(filtered[0], 4)) < 1e-3 * float(lattice_energy(grid[0], 4))
    np.testing.assert_array_equal(filtered[1], grid[1])


def test_a_uniform_volume_stays_uniform():
    np.testing.assert_allclose(AntiAlias(SCOPE, (0.0, 1.0), 4, (16, 20))(jnp.ones((2, 16, 20))), 1.0, rtol=1e-5)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_smooth_waves_pass_and_aliases_do_not(width):
    n = 240
    matrix, x = lanczos_matrix(n, width), np.arange(n)
    inside = slice(20, -20)
    slow, fast = np.cos(2 * np.pi * x / (8 * width)), np.cos(2 * np.pi * x / width)
    assert np.max(np.abs((matrix @ slow - slow)[inside])) < 0.05
    assert np.max(np.abs((matrix @ fast)[inside])) < 0.05
