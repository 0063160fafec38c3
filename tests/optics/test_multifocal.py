"""Arrays of lenslets of several focal lengths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from benchmarks.reference import relative_error
from lfjax import pipeline
from lfjax.errors import CalibrationError, ParameterError
from lfjax.optics import (
    PSF,
    Alignment,
    AntiAlias,
    Lattice,
    LightField,
    Microscope,
    Rectifier,
    calibrate,
    compute_psf,
    depth_range,
    read_calibration,
    read_psf,
    write_calibration,
    write_psf,
)
from lfjax.optics.camera.rectify import lenslet_pixels, pupil_mask, white_tile
from lfjax.optics.psf.images import Sampling, psf_images
from lfjax.optics.psf.lenslets import lenslet_transmission
from lfjax.simulate import raw_frames, raw_movie, raw_recording

PLAIN = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 6, alignment=Alignment(array_to_sensor_um=2600.0), name="plain")
FOCI = ((2500.0, 3000.0), (2800.0, 2200.0))


def of(focal, **changes):
    return dataclasses.replace(PLAIN, lenslet_focal_length_um=focal, **changes)


def test_the_cell_is_the_pattern():
    scope = of(((2500.0, 3000.0, 2700.0), (3000.0, 2500.0, 2600.0)))
    assert scope.cell_um == (250, 375) and scope.cell_pixels == (12, 18) and scope.cell_voxels(2) == (4, 6)
    assert scope.sensor_distance_um == 2600 and scope.voxel_um(2) == PLAIN.voxel_um(2)
    assert depth_range(scope) == depth_range(PLAIN)
    hexagons = of(FOCI, lenslet_lattice="hexagonal")
    assert hexagons.cell_um == (pytest.approx(125 * np.sqrt(3)), 250) and hexagons.cell_pixels == (10, 12)
    np.testing.assert_array_equal(pupil_mask(scope), np.tile(pupil_mask(PLAIN), (2, 3)))


def test_files_keep_the_pattern(tmp_path):
    scope = Microscope.from_dict(of(FOCI).to_dict() | {"lenslet_focal_length_um": [[2500, 3000], [2800, 2200]]})
    (tmp_path / "scope.toml").write_text(scope.to_toml())
    assert "[[2500.0, 3000.0], [2800.0, 2200.0]]" in scope.to_toml()
    assert Microscope.from_toml(tmp_path / "scope.toml") == scope == of([[2500.0, 3000.0], [2800.0, 2200.0]])
    psf = PSF(jnp.ones((1, 2, 2, 12, 12)), scope, (5.0,))
    write_psf(tmp_path / "psf.h5", psf)
    back = read_psf(tmp_path / "psf.h5")
    assert back.microscope == scope and (back.voxels_per_lenslet, back.lenslets) == (1, 1)
    rectifier = Rectifier.aligned(scope, (24, 36))
    write_calibration(tmp_path / "rig.toml", rectifier)
    kept = read_calibration(tmp_path / "rig.toml")
    assert kept.microscope == scope and kept.field == (2, 3) and kept.lattice == rectifier.lattice


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
def test_every_sample_sees_the_nearest_lenslet(kind):
    scope, side = of(((2500.0, 3000.0, 2700.0), (2800.0, 2200.0, 2400.0)), lenslet_lattice=kind), 120
    high = np.sqrt(0.75) if kind == "hexagonal" else 1.0
    rows, columns = np.mgrid[-12:13, -12:13]
    centres = np.stack([rows * high, columns + (0.5 * (rows % 2) if kind == "hexagonal" else 0)], -1).reshape(-1, 2)
    middle = [0 if kind == "hexagonal" else 0.5, 1.0]  # of the cell, from lenslet [0][0]
    samples = (42, 72) if kind == "hexagonal" else (48, 72)
    size = [float(um) / 125 / n for um, n in zip(scope.cell_um, samples, strict=True)]
    y, x = np.meshgrid(*((np.arange(side) - (side - 1) / 2) * step for step in size), indexing="ij")
    distance, index = cKDTree(centres * 125).query(125 * (np.stack([y, x], axis=-1).reshape(-1, 2) + middle))
    focal = np.asarray(scope.pattern)[rows.ravel()[index] % 2, columns.ravel()[index] % 3]
    expected = np.exp(-1j * np.pi / 0.52 / focal * distance**2).reshape(side, side)
    wave = np.asarray(lenslet_transmission(scope, samples, side))
    assert np.mean(np.abs(wave - expected) > 3e-3) < 0.005  # samples on the border of two lenslets belong to either


def test_lenslets_that_are_alike_are_the_plain_array():
    scope, alike = dataclasses.replace(PLAIN, pixels_per_lenslet=5), of(((2500.0,) * 3,) * 3, pixels_per_lenslet=5)
    sampling, offsets = Sampling.of(alike, 20.0, 3, 3), jnp.asarray([[0.1, -0.3], [0.4, 0.2]])
    plain = psf_images(scope, 20.0, offsets, sampling=sampling._replace(lenslets=9), alignment=PLAIN.alignment)
    cells = psf_images(alike, 20.0, offsets, sampling=sampling, alignment=PLAIN.alignment)
    assert relative_error(cells, plain) < 2e-5

    values = np.random.default_rng(0).random((2, 2, 2, 15, 15)).astype(np.float32)
    wide = np.zeros((2, 2, 2, 2, 2, 30, 30), np.float32)  # images on three cells of two lenslets, some of them dark
    for i, j in np.ndindex(2, 2):
        wide[:, i, :, j, :, 5 * (i + 1) : 5 * (i + 4), 5 * (j + 1) : 5 * (j + 4)] = values
    wide = wide.reshape(2, 4, 4, 30, 30)
    single = LightField(PSF(jnp.asarray(values), scope, (0.0, 10.0)), (4, 6))
    double = LightField(PSF(jnp.asarray(wide), of(((2500.0,) * 2,) * 2, pixels_per_lenslet=5), (0.0, 10.0)), (2, 3))
    assert double.in_shape == single.in_shape and double.out_shape == single.out_shape
    volume = np.random.default_rng(1).random(single.in_shape).astype(np.float32)
    assert relative_error(double(volume), single(volume)) < 2e-6
    assert relative_error(double.T(single(volume)), single.T(single(volume))) < 2e-6


def test_the_volume_of_lenslets_that_are_alike_is_the_plain_one():
    single = compute_psf(PLAIN, [15.0], 2, oversampling=1, lenslets=7)
    double = compute_psf(of(((2500.0,) * 2,) * 2), [15.0], 2, oversampling=1, lenslets=5)
    volume = np.random.default_rng(1).random((1, 12, 12)).astype(np.float32)
    field, same = LightField(single, (6, 6)), LightField(double, (3, 3))
    assert double.voxel_um == single.voxel_um
    assert relative_error(same(volume), field(volume)) < 5e-3  # the supports differ
    assert double.convergence_error == pytest.approx(single.convergence_error, rel=0.1)


def test_the_operator_is_the_sum_of_the_images_of_its_points():
    scope, s = of(FOCI), 2
    psf = compute_psf(scope, [15.0], s, oversampling=1)
    sampling, k = Sampling.of(scope, 15.0, psf.lenslets, 1), psf.lenslets
    points = [(0, 0), (5, 2), (6, 7), (11, 3), (3, 10)]
    volume, cells = np.zeros((1, 12, 12), np.float32), []
    for weight, (y, x) in enumerate(points, 1):
        volume[0, y, x] = weight
        cells.append([(v % 4 + 0.5) / s - 1 for v in (y, x)])  # pitches from the middle of a cell of four voxels
    images = np.asarray(psf_images(scope, 15.0, jnp.asarray(cells), sampling=sampling, alignment=scope.alignment))
    reach = k // 2 * 12
    expected = np.zeros((36 + 2 * reach, 36 + 2 * reach))
    for weight, ((y, x), image) in enumerate(zip(points, images, strict=True), 1):
        top, left = y // 4 * 12, x // 4 * 12
        expected[top : top + k * 12, left : left + k * 12] += weight * image
    field = LightField(psf, (3, 3), tile=(2, 3))
    assert not field.mirror
    assert relative_error(field(volume), expected[reach:-reach, reach:-reach]) < 1e-5
    moved = images[1] - images[2]
    assert np.linalg.norm(moved) > 0.1 * np.linalg.norm(images[1])


@pytest.fixture(scope="module")
def recorded():
    """Points in a volume, their raw frames on a turned array of another pitch than N, and the raw place of a lenslet [0][0]."""
    scope = of(((2500.0, 3000.0), (3000.0, 2500.0)), pixels_per_lenslet=7, camera_pixel_um=125 / 7.6)
    psf = compute_psf(scope, [12.0, 22.0], 2, oversampling=3)
    field = LightField(psf, (8, 8))
    volume = np.zeros(field.in_shape, np.float32)
    points = [(0, 11, 10), (1, 12, 20), (0, 22, 17), (1, 21, 9)]
    for point in points:
        volume[point] = 1
    light, tile = np.maximum(field(volume), 0), white_tile(psf)
    frames = raw_frames(jax.random.key(0), light, tile, pitch_px=2 * 7.6, rotation_rad=0.006, photons=2e4)
    first = frames.lattice.to_raw([-0.25, -0.25])
    return scope, psf, frames, (float(first[0]), float(first[1])), points


def test_points_are_found_in_a_raw_frame(recorded, tmp_path):
    scope, psf, frames, first, points = recorded
    known = pipeline.Calibration(frames.white, frames.dark, offset_px=first)
    found = pipeline.reconstruct(frames.light_field, scope, calibration=known, psf=psf, iterations=30)
    assert found.rectifier.field == (8, 8) and found.rectifier.lattice.pitch_px == pytest.approx(7.6, abs=0.01)
    assert found.correlation > 0.98
    brightest = np.argsort(np.asarray(found.volume).ravel())[: -len(points) - 1 : -1]
    assert sorted(zip(*np.unravel_index(brightest, found.volume.shape), strict=True)) == sorted(points)
    write_calibration(tmp_path / "rig.toml", found.rectifier)
    again = read_calibration(tmp_path / "rig.toml")
    assert again.lattice == found.rectifier.lattice
    np.testing.assert_array_equal(again(frames.light_field), found.rectifier(frames.light_field))
    shifted = frames.lattice.to_raw([-0.25, 0.25])  # a lenslet [0][1]
    wrong = pipeline.Calibration(frames.white, frames.dark, offset_px=(float(shifted[0]), float(shifted[1])))
    other = pipeline.reconstruct(frames.light_field, scope, calibration=wrong, psf=psf, iterations=30)
    assert other.rectifier.field == (8, 7)
    assert other.correlation < found.correlation - 0.01


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
def test_the_field_begins_with_the_lenslet_that_is_stated(kind):
    scope = of(((2500.0, 3000.0, 2700.0), (2800.0, 2200.0, 2400.0)), lenslet_lattice=kind, pixels_per_lenslet=9)
    lattice = Lattice(9.4, 0.006, 75.2, 81.4, kind=kind)
    cells = np.moveaxis(lattice.to_lattice(np.stack(np.mgrid[:150, :160], -1)), -1, 0)
    shifts, high = ((0, 0.5), np.sqrt(3)) if kind == "hexagonal" else ((0,), 1.0)
    near = [np.hypot(high * (cells[0] - s - np.round(cells[0] - s)), cells[1] - s - np.round(cells[1] - s)) for s in shifts]
    dim = np.round(cells[1] + 0.01) % 3 == 0
    white = 100.0 + 900 * (np.min(near, axis=0) < 0.4) * np.where(dim, 0.4, 1.0)
    place = (2.5, -2.5) if kind == "hexagonal" else (2.0, -3.0)
    y, x = lattice.to_raw(place)
    rectifier = Rectifier.calibrate(scope, white, white=white, dark=90.0, offset_px=(y, x))
    assert rectifier.lattice.cell_px == pytest.approx(lattice.cell_px, abs=0.02)
    size = np.asarray(scope.units)
    steps = (lattice.to_lattice([rectifier.lattice.origin_y_px, rectifier.lattice.origin_x_px]) - place) / size
    np.testing.assert_allclose(steps, np.round(steps), atol=0.02)
    grouped = rectifier.lattice.grouped(scope.units)
    corner = lenslet_pixels(grouped, (150, 160), scope.cell_pixels)[0][0, 0]
    start = (lattice.to_lattice(corner) + 0.5 - place - 0.5 / 9) / size
    np.testing.assert_allclose(start, np.round(start), atol=0.03)
    assert rectifier.mask.shape == tuple(f * n for f, n in zip(rectifier.field, scope.cell_pixels, strict=True))
    flat = rectifier(np.full((150, 160), 190.0))
    np.testing.assert_allclose(flat, 100 * np.prod(grouped.cell_px) / np.prod(scope.cell_pixels), rtol=1e-5)


def test_the_way_out_of_a_pattern_taken_for_the_array_is_named(recorded):
    scope, _, frames, first, _ = recorded
    far = dataclasses.replace(scope, camera_pixel_um=None, pixels_per_lenslet=5)
    with pytest.raises(CalibrationError, match=r"may be that of the pattern.*camera_pixel_um"):
        Rectifier.calibrate(far, frames.light_field, white=frames.white, dark=frames.dark, offset_px=first)


@pytest.mark.parametrize(
    ("focal", "changes", "expected"),
    [
        (FOCI, {"alignment": None}, "alignment.array_to_sensor_um = None"),
        (FOCI, {"alignment": Alignment()}, "alignment.array_to_sensor_um = None"),
        (((2500.0, 3000.0), (2800.0,)), {}, "lenslet_focal_length_um.*rows of equally many"),
        ((), {}, "lenslet_focal_length_um.*rows of equally many"),
        (((2500.0, 3.0),), {}, "lenslet_focal_length_um = 3.0.*looks like mm"),
        (((2500.0, 3000.0),), {"lenslet_lattice": "hexagonal"}, "lenslet_focal_length_um.*even number of rows"),
    ],
)
def test_patterns_that_make_no_array_are_refused(focal, changes, expected):
    with pytest.raises(ParameterError, match=expected):
        of(focal, **changes)


def test_functions_for_one_focal_length_refuse_several():
    scope, beads = of(FOCI), np.array([[10.0, 1.0, 1.0]])
    with pytest.raises(ParameterError, match="lenslet_focal_length_um.*multi-focal"):
        AntiAlias(scope, [10.0], 2, (12, 12))
    with pytest.raises(ParameterError, match="lenslet_focal_length_um.*multi-focal"):
        calibrate(np.ones((24, 24)), scope, beads)
    with pytest.raises(ParameterError, match="lenslet_focal_length_um.*multi-focal"):
        raw_recording(0, scope, z_um=(0.0, 5.0))
    with pytest.raises(ParameterError, match="lenslet_focal_length_um.*multi-focal"):
        raw_movie(0, scope, z_um=(0.0, 5.0))
    with pytest.raises(ParameterError, match="array_to_sensor_um"):
        psf_images(scope, 5.0, jnp.zeros((1, 2)), sampling=Sampling.of(scope, 5.0, 3, 1))
    with pytest.raises(ParameterError, match="array_to_sensor_um"):
        compute_psf(scope, [5.0], 1, alignment=Alignment())
    frame = np.random.default_rng(0).random((60, 60))
    with pytest.raises(ParameterError, match=r"offset_px = None.*\[0\]\[0\].*look alike"):
        Rectifier.calibrate(scope, frame, white=frame)
    with pytest.raises(ParameterError, match="offset_px = None"):
        pipeline.Calibration().prepare(scope, frame)
    known = pipeline.Calibration(rectified=True)
    with pytest.raises(ParameterError, match="lenslet_focal_length_um.*multi-focal"):
        pipeline.reconstruct(frame, scope, calibration=known, anti_alias=True)
