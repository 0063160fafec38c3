"""Simulated samples: brightness, sizes, positions, and that a key fixes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError
from lfjax.simulate.samples import FWHM, beads, neurons

SHAPE, VOXEL = (12, 60, 64), (1.0, 0.5, 0.5)


def test_a_bead_has_its_width_and_light_and_lies_inside():
    diameter = 2.0
    x = np.asarray(beads(jax.random.key(0), SHAPE, VOXEL, count=1, diameter_um=diameter), np.float64)
    light = (2 * np.pi) ** 1.5 * (diameter / FWHM) ** 3 / np.prod(VOXEL)
    np.testing.assert_allclose(x.sum(), light, rtol=2e-2)
    for axis, (length, step) in enumerate(zip(SHAPE, VOXEL, strict=True)):
        line = x.sum(tuple(a for a in range(3) if a != axis)) / x.sum()
        position = step * (np.arange(length) + 0.5)
        mean = (line * position).sum()
        variance = (line * (position - mean) ** 2).sum() - step**2 / 12  # less that of a voxel
        np.testing.assert_allclose(np.sqrt(variance) * FWHM, diameter, rtol=0.05)
        assert diameter - step < mean < length * step - diameter + step
    assert 0 <= x.min() and x.max() <= 1


def test_beads_smaller_than_a_voxel_keep_their_light():
    x = beads(jax.random.key(1), SHAPE, VOXEL, count=40, diameter_um=0.2)
    np.testing.assert_allclose(x.sum(), 40 * (2 * np.pi) ** 1.5 * (0.2 / FWHM) ** 3 / np.prod(VOXEL), rtol=1e-3)


@pytest.mark.parametrize("sample", [lambda k, s: beads(k, s, VOXEL, count=3, diameter_um=1.5),
                                    lambda k, s: neurons(k, s, VOXEL, count=3, soma_um=6.0)])  # fmt: skip
@pytest.mark.parametrize("shape", [SHAPE, (1, 40, 40)])
def test_samples_are_finite_nonnegative_and_fixed_by_the_key(sample, shape):
    first, again, other = (np.asarray(sample(jax.random.key(k), shape)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert first.shape == shape and np.isfinite(first).all()
    assert first.min() >= 0 and 0 < first.max() <= 1 + 1e-6


def test_one_neuron_has_a_soma_of_its_size_with_a_dark_nucleus_and_thin_dendrites():
    soma = 8.0
    shape, voxel = (40, 80, 80), (0.5, 0.5, 0.5)
    for seed in range(3):
        x = np.asarray(neurons(jax.random.key(seed), shape, voxel, count=1, soma_um=soma))
        assert x.max() == pytest.approx(1)
        bright = np.argwhere(x > 0.85)  # the cytosol, the dendrites being dimmer
        centre = bright.mean(0)
        spread = np.linalg.norm((bright - centre) * voxel, axis=1)
        assert 0.7 * soma / 2 < np.percentile(spread, 95) < 1.3 * soma / 2
        middle = tuple(np.round(centre).astype(int))
        assert x[middle] < 0.5
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
        far = np.linalg.norm((grid - centre) * voxel, axis=-1) > 1.2 * soma
        assert 0 < (x[far] > 0.1).mean() < 0.05
        assert x[far].max() < 0.85


def test_neurons_differ_in_brightness():
    x = np.asarray(neurons(jax.random.key(2), (30, 160, 160), (0.5, 0.5, 0.5), count=8, soma_um=8.0))
    values = x[x > 0.35]
    assert np.percentile(values, 95) / np.percentile(values, 20) > 1.3


def test_arguments_out_of_range_are_refused():
    key = jax.random.key(0)
    with pytest.raises(ParameterError, match="count"):
        beads(key, SHAPE, VOXEL, count=0, diameter_um=1.0)
    with pytest.raises(ParameterError, match="diameter_um"):
        beads(key, SHAPE, VOXEL, count=1, diameter_um=0.0)
    with pytest.raises(ParameterError, match="voxel_um"):
        neurons(key, SHAPE, (1.0, 0.0, 1.0), count=1)
    with pytest.raises(ParameterError, match="shape"):
        neurons(key, (0, 4, 4), VOXEL, count=1)
    with pytest.raises(ParameterError, match="soma_um"):
        neurons(key, SHAPE, VOXEL, count=1, soma_um=-1.0)


def test_beads_compile():
    made = jax.jit(lambda k: beads(k, SHAPE, VOXEL, count=2, diameter_um=1.0))(jax.random.key(0))
    np.testing.assert_allclose(made, beads(jax.random.key(0), SHAPE, VOXEL, count=2, diameter_um=1.0), atol=1e-6)
    assert made.dtype == jnp.result_type(float)
