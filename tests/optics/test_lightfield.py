"""The light-field operator against an independent code and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.reference import clipped as clipped_psf
from benchmarks.reference import relative_error
from lfjax.errors import ParameterError
from lfjax.optics import PSF, LightField, Microscope


@pytest.fixture(scope="module")
def clipped(reference_psf):
    """H with the small values of its PSF cut off as in the reference."""
    return LightField(clipped_psf(reference_psf), (11, 11))


@pytest.mark.parametrize("name", ["rand", "beads"])
def test_forward_projection_agrees_with_the_reference(clipped, reference, name):
    volume = jnp.asarray(reference[f"vol_{name}"]).transpose(2, 0, 1)
    assert relative_error(clipped(volume), reference[f"proj_{name}"]) <= 0.02


def test_back_projection_agrees_with_the_reference(clipped, reference):
    back = np.asarray(clipped.T(jnp.asarray(reference["img_rand"]))).transpose(1, 2, 0)
    assert relative_error(back, reference["back_rand"]) <= 0.02


def small_psf(n=5, s=3, k=3, d=2):
    values = jax.random.uniform(jax.random.key(0), (d, s, s, k * n, k * n))
    return PSF(values, Microscope(20, 0.5, 1.33, 0.52, 125, 2500, n), tuple(map(float, range(d))))


def brute_force(psf, volume, field):
    """Each voxel puts its image where its lenslet is: the definition."""
    n, s, k = psf.microscope.pixels_per_lenslet, psf.voxels_per_lenslet, psf.lenslets
    reach = k // 2 * n
    image = np.zeros((field[0] * n + 2 * reach, field[1] * n + 2 * reach))
    for z, y, x in np.ndindex(*volume.shape):
        top, left = y // s * n, x // s * n
        image[top : top + k * n, left : left + k * n] += float(volume[z, y, x]) * np.asarray(psf.values[z, y % s, x % s])
    return image[reach:-reach, reach:-reach]


def test_equals_brute_force():
    psf, field = small_psf(), (3, 4)
    op = LightField(psf, field)
    volume = np.random.default_rng(0).normal(size=op.in_shape)
    assert relative_error(op(jnp.asarray(volume, jnp.float32)), brute_force(psf, volume, field)) <= 1e-5


@pytest.mark.parametrize("margin", [1, 4])
def test_a_margin_adds_volume_around_the_field(margin):
    psf = small_psf()
    plain, wide = LightField(psf, (3, 4)), LightField(psf, (3, 4), margin=margin)
    volume = jax.random.normal(jax.random.key(1), plain.in_shape)
    pad = 3 * margin
    assert relative_error(wide(jnp.pad(volume, ((0, 0), (pad, pad), (pad, pad)))), np.asarray(plain(volume))) <= 1e-5
    big = LightField(psf, (3 + 2 * margin, 4 + 2 * margin))
    everywhere = jax.random.normal(jax.random.key(2), wide.in_shape)
    cut = 5 * margin
    assert relative_error(wide(everywhere), np.asarray(big(everywhere))[cut:-cut, cut:-cut]) <= 1e-5


def test_a_source_moved_by_a_lenslet_moves_its_image_by_n_pixels():
    op = LightField(small_psf(), (6, 6))
    here = op(jnp.zeros(op.in_shape).at[1, 7, 8].set(1.0))
    there = op(jnp.zeros(op.in_shape).at[1, 10, 8].set(1.0))
    np.testing.assert_allclose(np.roll(here, 5, axis=0), there, atol=1e-5)


def test_bad_arguments_are_named():
    with pytest.raises(ParameterError, match="field"):
        LightField(small_psf(), (3.5, 4))
    with pytest.raises(ParameterError, match="margin"):
        LightField(small_psf(), (3, 4), margin=-1)
    with pytest.raises(ParameterError, match="margin = 1.5"):
        LightField(small_psf(), (3, 4), margin=1.5)
