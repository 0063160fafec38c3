"""Hexagonal arrays and masks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from benchmarks.reference import relative_error
from lfjax.errors import ParameterError, ShapeError
from lfjax.optics import PSF, Alignment, LightField, Microscope, Pupil, compute_psf, read_psf, round_mask, write_psf
from lfjax.optics.psf.images import Sampling, psf_images, psf_plane, support_lenslets
from lfjax.optics.psf.lenslets import lenslet_transmission

SQUARE = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 6, name="square")
HEXAGONS = dataclasses.replace(SQUARE, lenslet_lattice="hexagonal", name="hexagons")


def test_a_cell_is_two_rows_of_lenslets():
    assert HEXAGONS.cell_um == (pytest.approx(125 * np.sqrt(3)), 125)
    assert HEXAGONS.cell_pixels == (10, 6)
    assert HEXAGONS.cell_voxels(3) == (5, 3)
    assert Microscope.from_dict(HEXAGONS.to_dict()) == HEXAGONS


def test_every_sample_sees_the_nearest_lenslet():
    side = 90
    wave = np.asarray(lenslet_transmission(HEXAGONS, (30, 18), side))
    rows, columns = np.mgrid[-8:9, -12:13]
    centres = np.stack([rows * np.sqrt(0.75), columns + 0.5 * (rows % 2)], axis=-1).reshape(-1, 2) * 125
    steps = np.arange(side) - (side - 1) / 2
    y, x = np.meshgrid(steps / 30 * 125 * np.sqrt(3), steps / 18 * 125, indexing="ij")
    distance, _ = cKDTree(centres).query(np.stack([y, x], axis=-1).reshape(-1, 2))
    expected = np.exp(-1j * np.pi / 0.52 / 2500 * distance**2).reshape(side, side)
    np.testing.assert_allclose(wave, expected, atol=2e-3)


@pytest.mark.parametrize("pupil", [None, Pupil.of({6: 0.1})])
def test_a_source_moved_to_the_next_lenslet_has_its_image_moved_by_half_a_cell(pupil):
    sampling = Sampling.of(HEXAGONS, 15.0, 5, 3)
    offsets = jnp.asarray([[0.1, -0.2], [0.1 + np.sqrt(0.75), -0.2 + 0.5]])
    near, far = psf_images(HEXAGONS, 15.0, offsets, sampling=sampling, pupil=pupil)
    inner = (slice(10, 40), slice(6, 24))
    assert relative_error(np.roll(far, (-5, -3), (0, 1))[inner], near[inner]) <= 0.01


@pytest.mark.parametrize(("n", "oversampling"), [(4, 1), (4, 3), (5, 3)])
def test_an_axis_of_odd_and_one_of_even_length_have_their_middle_in_the_same_place(n, oversampling):
    """A cell of 7 x 4 pixels: the image of a source in its middle is its own mirror image along both axes."""
    scope = dataclasses.replace(HEXAGONS, pixels_per_lenslet=n)
    image = psf_images(scope, 15.0, jnp.zeros((1, 2)), sampling=Sampling.of(scope, 15.0, 5, oversampling))[0]
    for axis in (0, 1):
        assert relative_error(jnp.flip(image, axis), image) < 1e-4


def brute_force(psf, volume, field):
    (rows, columns), (a, b), k = psf.microscope.cell_pixels, psf.values.shape[1:3], psf.lenslets
    reach = (k // 2 * rows, k // 2 * columns)
    values = np.asarray(psf.values)
    image = np.zeros((field[0] * rows + 2 * reach[0], field[1] * columns + 2 * reach[1]))
    for z, y, x in np.ndindex(*volume.shape):
        top, left = y // a * rows, x // b * columns
        image[top : top + k * rows, left : left + k * columns] += volume[z, y, x] * values[z, y % a, x % b]
    return image[reach[0] : -reach[0], reach[1] : -reach[1]]


@pytest.fixture(scope="module")
def hexagonal_psf():
    return compute_psf(HEXAGONS, [5.0, 20.0], 3, oversampling=1)


@pytest.mark.parametrize("mirror", [None, False])
def test_the_operator_equals_brute_force(mirror, hexagonal_psf):
    psf = hexagonal_psf
    op = LightField(psf, (4, 5), mirror=mirror)
    assert op.mirror is (mirror is None)  # hexagons have mirror symmetry too
    assert op.in_shape == (2, 20, 15)
    assert op.out_shape == (40, 30)
    volume = np.random.default_rng(0).normal(size=op.in_shape).astype(np.float32)
    assert relative_error(op(volume), brute_force(psf, volume, (4, 5))) <= 1e-5
    z, y, x = psf.voxel_um
    assert (y, x) == (pytest.approx(125 / 20 * np.sqrt(3) / 5), pytest.approx(125 / 20 / 3))


def test_files_keep_hexagons_and_masks(tmp_path):
    values = np.random.default_rng(0).random((1, 3, 2, 30, 18), np.float32)
    psf = PSF(jnp.asarray(values), HEXAGONS, (5.0,), alignment=Alignment(mask=round_mask(0.8, 8)))
    write_psf(tmp_path / "psf.h5", psf)
    back = read_psf(tmp_path / "psf.h5")
    assert back.microscope == HEXAGONS
    np.testing.assert_array_equal(back.values, psf.values)
    np.testing.assert_allclose(back.alignment.mask, round_mask(0.8, 8))


def test_a_mask_lets_through_its_area():
    sampling = Sampling.of(SQUARE, 25.0, support_lenslets(SQUARE, [25.0]), 9)
    open_, half = (
        psf_plane(SQUARE, 25.0, 3, sampling, alignment=Alignment(mask=mask)).sum((-1, -2))
        for mask in (np.ones((64, 64)), round_mask(0.8))
    )
    np.testing.assert_allclose(open_, 1.0, atol=0.02)  # light is spread over many lenslets, evenly on average
    assert float(half.mean()) == pytest.approx(np.pi / 4 * 0.64, rel=0.06)
    assert round_mask(1.0).mean() == pytest.approx(np.pi / 4, rel=1e-3)


@pytest.mark.usefixtures("unchecked")
def test_functions_for_square_lenslets_refuse_others():
    with pytest.raises(ParameterError, match="lenslet_lattice"):
        dataclasses.replace(SQUARE, lenslet_lattice="round")
    with pytest.raises(ShapeError, match="mask"):
        lenslet_transmission(SQUARE, (6, 6), 30, Alignment(mask=np.ones(4)))
    with pytest.raises(ParameterError, match="diameter"):
        round_mask(1.5)
    with pytest.raises(ParameterError, match="10 x 6"):
        PSF(jax.numpy.zeros((1, 3, 3, 18, 18)), HEXAGONS, (0.0,))
