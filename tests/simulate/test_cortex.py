"""Simulated cortex: sizes, densities, labels, vessels and shadows."""

import jax
import numpy as np
import pytest

from lfjax.errors import ParameterError
from lfjax.simulate import cortex
from lfjax.simulate.tissue import BLOOD_PER_UM, CAPILLARY_MM_PER_MM3, CAPILLARY_UM, draw_vessels, shadow

SHAPE, VOXEL = (20, 60, 60), (3.0, 2.0, 2.0)


def test_every_neuron_stands_at_its_centre_and_is_as_large_as_it_says():
    shape, voxel = (60, 80, 80), (1.0, 1.0, 1.0)
    tissue = cortex(jax.random.key(0), shape, voxel, count=6, brightness_spread=0.0)
    z, y, x = np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij")
    diameters = np.asarray(tissue.soma_um)
    for footprint, centre, diameter in zip(*map(np.asarray, (tissue.footprints, tissue.centres_um)), diameters, strict=True):
        distance = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
        bright = footprint > 0.5
        volume = bright[distance < 0.75 * diameter].sum()
        hollow = (~bright & (distance < 0.3 * diameter)).sum()  # the nucleus
        assert volume + hollow == pytest.approx(np.pi / 6 * float(diameter) ** 3, rel=0.5)
        assert float(footprint.max()) == pytest.approx(1.0, abs=0.05)
    assert np.all((diameters >= 10) & (diameters <= 15))


def test_the_structural_label_fills_the_nuclei():
    tissue = cortex(jax.random.key(3), (30, 60, 60), (1.0, 1.0, 1.0), count=2, brightness_spread=0.0, structure_spread=0.0)
    structure, indicator = np.asarray(tissue.structure), np.asarray(tissue.footprints).sum(0)
    for centre in np.asarray(tissue.centres_um):
        box = tuple(slice(int(c) - 1, int(c) + 2) for c in centre)
        assert structure[box].mean() > 0.9
        assert indicator[box].mean() < 0.5
    both = (indicator > 0.05) == (structure > 0.05)
    assert both.mean() > 0.99  # the same somata and dendrites


def test_density_neuropil_and_brightness_are_as_asked():
    counts = [cortex(jax.random.key(k), (6, 40, 40), (5.0, 5.0, 5.0), labelled=0.05).footprints.shape[0] for k in range(8)]
    assert np.mean(counts) == pytest.approx(9.2e4 * 0.05 * 30 * 200 * 200 * 1e-9, rel=0.4)
    tissue = cortex(jax.random.key(0), SHAPE, VOXEL, count=40, neuropil=0.2, brightness_spread=0.5)
    footprints, neuropil = np.asarray(tissue.footprints), np.asarray(tissue.neuropil)
    assert neuropil.mean() == pytest.approx(0.2, rel=1e-3)
    assert np.log(footprints.max((1, 2, 3))).std() == pytest.approx(0.5, rel=0.3)
    np.testing.assert_allclose(tissue.rest, footprints.sum(0) + neuropil, rtol=1e-5)  # no vessels
    again = cortex(jax.random.key(0), SHAPE, VOXEL, count=40, neuropil=0.2, brightness_spread=0.5)
    np.testing.assert_array_equal(again.rest, tissue.rest)


def test_vessels_have_the_stated_length_and_are_dark():
    size, voxel = (60, 60, 60), np.array([2.0, 2.0, 2.0])
    blood = draw_vessels(np.random.default_rng(0), size, voxel).sum() * 8
    capillaries = CAPILLARY_MM_PER_MM3 * 120**3 * 1e-6 * np.pi / 4 * CAPILLARY_UM**2
    assert capillaries * 0.6 < blood < capillaries * 2 + 3 * 120 * np.pi / 4 * 14**2
    tissue = cortex(jax.random.key(1), SHAPE, VOXEL, count=5, vessels=True)
    inside = np.asarray(tissue.vessels) > 0.99
    assert inside.any()
    assert np.asarray(tissue.footprints).sum(0)[inside].max() < 0.05


def test_a_shadow_is_exp_of_the_path_in_blood():
    blood = np.zeros((6, 41, 41))
    blood[1:3] = 1.0
    under = shadow(blood, np.array([5.0, 2.0, 2.0]), 0.8)
    np.testing.assert_allclose(under[:2], 1.0)
    np.testing.assert_allclose(under[3:], np.exp(-BLOOD_PER_UM * 10.0), rtol=1e-6)
    spot = np.zeros((6, 81, 81))
    spot[0, 38:43, 38:43] = 1.0
    under = shadow(spot, np.array([10.0, 2.0, 2.0]), 0.8)
    depth = 1 - under[:, 40, 40]
    assert np.all(np.diff(depth[1:]) < 0)  # from further away it covers less of the cone of light
    loss = -np.log(under).sum((1, 2))
    np.testing.assert_allclose(loss[1:], loss[1], rtol=0.02)  # but its total loss is the same


def test_bad_arguments_are_named():
    for name, value in (("labelled", 0.0), ("soma_um", (5.0, 4.0)), ("neuropil", -1.0), ("count", 0)):
        with pytest.raises(ParameterError, match=name):
            cortex(jax.random.key(0), SHAPE, VOXEL, **{name: value})
