"""Rectification of simulated and real frames."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile

from lfjax.errors import CalibrationError, CalibrationWarning, ParameterError, ShapeError
from lfjax.metrics import correlation
from lfjax.optics import PRESETS, PSF, Lattice, Microscope, Rectifier, load_microscope
from lfjax.optics.camera.rectify import lenslet_pixels, pupil_mask, white_tile
from lfjax.simulate import raw_frames

SCOPE = Microscope(60, 1.2, 1.35, 0.593, 100, 2500, 9, camera_pixel_um=100 / 8.7)


def disc_psf() -> PSF:
    """A PSF that fills the pupil behind its own lenslet: H(uniform) is a disc in each lenslet."""
    tile = jnp.asarray(pupil_mask(SCOPE), jnp.float32)
    return PSF(jnp.pad(tile, 9)[None, None, None] / tile.sum(), SCOPE, (0.0,))


@pytest.fixture(scope="module")
def made():
    smooth = np.cos(np.linspace(0, 9, 12 * 9))[:, None] * np.sin(np.linspace(0, 7, 12 * 9))[None, :] + 2
    light_field = jnp.asarray(smooth, jnp.float32) * jnp.tile(white_tile(disc_psf()), (12, 12))
    frames = raw_frames(jax.random.key(0), light_field, white_tile(disc_psf()), pitch_px=8.7, rotation_rad=0.006, photons=2e4)
    return light_field, frames


def test_the_light_field_comes_back(made):
    light_field, frames = made
    rectifier = Rectifier.calibrate(SCOPE, frames.light_field, white=frames.white, dark=frames.dark)
    image = rectifier.flatten(rectifier(frames.light_field), disc_psf())
    assert rectifier.lattice.pitch_px == pytest.approx(8.7, abs=0.01)
    assert rectifier.field == (12, 12)
    assert float(correlation(image, light_field, rectifier.mask)) > 0.97
    assert not np.any(np.asarray(image)[~np.asarray(rectifier.mask)])


def test_vignetting_is_taken_out(made):
    _, frames = made
    white_as_frame = np.asarray(frames.white)
    rectifier = Rectifier.calibrate(SCOPE, white_as_frame, white=frames.white, dark=frames.dark)
    flat = rectifier.flatten(rectifier(white_as_frame), disc_psf())
    expected = jnp.tile(white_tile(disc_psf()), rectifier.field)
    assert float(correlation(flat, expected)) > 0.97
    values = np.asarray(flat)[np.asarray(rectifier.mask)]
    assert values.std() / values.mean() < 0.02


def test_the_frame_itself_gives_the_lattice_where_no_white_frame_is(made):
    _, frames = made
    rectifier = Rectifier.calibrate(SCOPE, frames.light_field, dark=frames.dark)
    assert rectifier.lattice.pitch_px == pytest.approx(8.7, abs=0.03)
    assert rectifier.white is None and float(rectifier.gain(disc_psf()).max()) == 1.0


def test_a_lying_pitch_is_warned_of_with_both_values(made):
    _, frames = made
    liar = Microscope.from_dict(SCOPE.to_dict() | {"camera_pixel_um": SCOPE.camera_pixel_um / 1.02})
    with pytest.warns(CalibrationWarning, match=r"8\.70.* px, the parameters say 8\.87"):
        rectifier = Rectifier.calibrate(liar, frames.light_field, white=frames.white, dark=frames.dark)
    assert rectifier.lattice.pitch_px == pytest.approx(8.7, abs=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Rectifier.calibrate(SCOPE, frames.light_field, white=frames.white, dark=frames.dark)


def test_a_white_frame_of_another_size_is_named(made):
    _, frames = made
    with pytest.raises(ShapeError, match="white has shape"):
        Rectifier.calibrate(SCOPE, frames.light_field, white=np.asarray(frames.white)[:-1], dark=frames.dark)


def test_noise_holds_no_lattice():
    noise = np.random.default_rng(0).normal(size=(120, 120))
    with pytest.raises(CalibrationError, match="lenslet lattice"):
        Rectifier.calibrate(SCOPE, noise)


def test_one_rectifier_serves_a_movie(made):
    _, frames = made
    rectifier = Rectifier.calibrate(SCOPE, frames.light_field, white=frames.white, dark=frames.dark)
    movie = jnp.stack([jnp.asarray(frames.light_field, jnp.float32), jnp.asarray(frames.dark, jnp.float32)])
    batch = jax.jit(jax.vmap(rectifier))(movie)
    np.testing.assert_allclose(batch[0], rectifier(movie[0]), rtol=1e-4, atol=1e-2)


def test_saturated_pixels_are_seen(made):
    _, frames = made
    raw = np.array(frames.light_field)
    raw[40, 50] = 65535
    rectifier = Rectifier.calibrate(SCOPE, raw, white=frames.white, dark=frames.dark)
    touched = np.asarray(rectifier.saturated(raw, 65535))
    assert 1 <= touched.sum() <= 40


def test_the_real_white_frame(shared):
    light_field, white, dark = (tifffile.imread(shared / f"data/guv/{n}.tif") for n in ("light_field", "white", "dark"))
    rectifier = Rectifier.calibrate(PRESETS["60x1.2w"], light_field, white=white, dark=dark)
    assert rectifier.lattice.pitch_px == pytest.approx(15.385, abs=0.02)
    assert abs(rectifier.lattice.rotation_rad) == pytest.approx(0.0018, abs=3e-4)
    assert rectifier.field == (28, 28)
    assert 0.5 < float(rectifier.mask.mean()) < 0.6


@pytest.mark.parametrize("rotation", [0.0, 0.05, -0.2])
def test_the_block_of_lenslets_fills_the_frame_and_stays_inside(rotation):
    lattice, shape = Lattice(15.0, rotation, 98.0, 131.0), (200, 260)
    positions, (rows, columns) = lenslet_pixels(lattice, shape, (8, 8))
    assert positions.shape == (rows * 8, columns * 8, 2)
    assert positions.min() > -0.5 and np.all(positions < np.array(shape) - 0.5)
    upright = rows * columns * 15**2 / (shape[0] * shape[1])
    assert upright > (0.85 if rotation == 0 else 0.4)


def test_a_frame_without_one_whole_lenslet_is_refused():
    with pytest.raises(CalibrationError, match="no whole lenslet"):
        lenslet_pixels(Lattice(15.0, 0.0, 5.0, 5.0), (12, 12), (8, 8))


def drawn(lattice, shape, value):
    """A raw frame whose light is a function of the lattice coordinates (Y, X)."""
    return value(np.moveaxis(lattice.to_lattice(np.stack(np.mgrid[: shape[0], : shape[1]], -1)), -1, 0))


def from_centre(cells, kind):
    """Distance from the nearest centre of a lenslet, in pitches."""
    (y, x), high = cells, np.sqrt(3) if kind == "hexagonal" else 1.0
    shifts = (0, 0.5)[: 1 + (kind == "hexagonal")]
    return np.min([np.hypot(high * (y - s - np.round(y - s)), x - s - np.round(x - s)) for s in shifts], axis=0)


@pytest.mark.parametrize("kind", ["square", "hexagonal"])
@pytest.mark.parametrize("rotation", [0.0, -0.012])
def test_lenslets_of_both_kinds_come_to_whole_pixels(kind, rotation):
    scope, shape = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 9, lenslet_lattice=kind), (150, 160)
    lattice = Lattice(9.4, rotation, 75.2, 81.4, kind=kind)
    rectifier = rectifier_of(scope, lattice, shape)
    assert rectifier.lattice.cell_px == pytest.approx(lattice.cell_px, abs=0.02)
    found, cells = rectifier.lattice, scope.cell_pixels
    off = lattice.to_lattice([found.origin_y_px, found.origin_x_px])
    assert from_centre(off, kind) < 0.01

    def light(cells):
        return (1 + 0.5 * np.cos(2 * np.pi * cells[1]) * np.cos(2 * np.pi * cells[0])) * (2 + np.sin(cells[0] / 3))

    image = rectifier(90 + drawn(lattice, shape, light))
    assert image.shape == rectifier.mask.shape == tuple(n * p for n, p in zip(rectifier.field, cells, strict=True))
    corner = lattice.to_lattice(lenslet_pixels(found, shape, cells)[0][0, 0])
    pixels = np.meshgrid(
        *(c + np.arange(f * n) / n for c, f, n in zip(corner, rectifier.field, cells, strict=True)), indexing="ij"
    )
    area = np.prod(lattice.cell_px) / np.prod(cells)
    np.testing.assert_allclose(image, area * light(pixels), rtol=0.05)
    assert np.mean(np.asarray(rectifier.mask) == (from_centre(pixels, kind) < 0.4)) > 0.9
    fill = 0.81 * np.pi / 4 / (1 if kind == "square" else np.sqrt(3) / 2)
    assert pupil_mask(scope).shape == cells and pupil_mask(scope).mean() == pytest.approx(fill, abs=0.06)


def rectifier_of(scope, lattice, shape, **options):
    """Calibration by a white frame of round lenslets."""
    white = drawn(lattice, shape, lambda cells: 100.0 + 900 * (from_centre(cells, lattice.kind) < 0.4))
    return Rectifier.calibrate(scope, white, white=white + np.random.default_rng(0).normal(0, 3, shape), dark=90.0, **options)


def test_a_hexagonal_light_field_is_flattened_by_the_tile_of_its_cell():
    scope = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 9, lenslet_lattice="hexagonal")
    tile = jnp.asarray(pupil_mask(scope), jnp.float32)
    psf = PSF(jnp.pad(tile, ((16, 16), (9, 9)))[None, None, None].repeat(2, 1), scope, (0.0,))
    assert white_tile(psf).shape == (16, 9)
    rectifier = rectifier_of(scope, Lattice(9.4, 0.0, 75.2, 81.4, kind="hexagonal"), (150, 160))
    flat = rectifier.flatten(rectifier.white, psf)
    covered = np.asarray(rectifier.mask) & (np.tile(pupil_mask(scope), rectifier.field))
    values = np.asarray(flat)[covered]
    assert values.std() / values.mean() < 1e-3


@pytest.fixture(scope="module")
def sea(shared):
    """A public white frame of 600 x 600 pixels, one hot pixel in it clamped; and its microscope."""
    folder = shared / "data/cases/lightfield"
    white = tifffile.imread(folder / "white_one_hot_pixel_600.tif")
    return white, np.minimum(white, 72), load_microscope(folder / "sea.toml")


def trusted_of(white, scope, **options):
    with pytest.warns(CalibrationWarning, match="measured lenslet pitch 17.* camera_pixel_um = 7.26"):
        return Rectifier.calibrate(scope, white, white=white, **options).trusted


def test_hot_pixels_and_vignetting_leave_the_trusted_share(sea):
    hot, clean, scope = sea
    share = trusted_of(clean, scope)
    assert share == pytest.approx(0.68, abs=0.01)
    assert trusted_of(hot, scope) == pytest.approx(share, rel=1e-3)
    for count in (1, 10, 100):
        places = tuple(np.random.default_rng(count).integers(0, 600, (2, count)))
        for value in (145, 255):
            worse = clean.copy()
            worse[places] = value
            assert trusted_of(worse, scope) == pytest.approx(share, rel=0.02)
    y, x = np.mgrid[-1:1:600j, -1:1:600j]
    fall = np.exp(np.log(0.2) * (x**2 + y**2) / 2)  # to a fifth in the corners
    assert trusted_of(clean * fall, scope) == pytest.approx(share, rel=0.02)
    assert trusted_of((clean * fall).astype(np.uint8), scope) == pytest.approx(share, rel=0.02)


def test_a_hot_pixel_is_replaced_before_resampling_and_masked_after(made):
    _, frames = made
    white, dark, raw = (np.array(frame) for frame in (frames.white, frames.dark, frames.light_field))
    clean = Rectifier.calibrate(SCOPE, raw, white=white, dark=dark)
    assert not clean.bad.any()
    white[40, 50], dark[60, 30] = 65535, 9000
    raw[40, 50], raw[60, 30] = 65535, raw[60, 30] + 8900
    rectifier = Rectifier.calibrate(SCOPE, raw, white=white, dark=dark)
    assert np.argwhere(rectifier.bad).tolist() == [[40, 50], [60, 30]]
    lost = np.asarray(clean.mask) & ~np.asarray(rectifier.mask)
    assert 1 <= lost.sum() <= 30 and rectifier.trusted == pytest.approx(clean.trusted, rel=0.02)
    difference = np.abs(np.asarray(rectifier(raw)) - np.asarray(clean(frames.light_field)))
    top = float(clean(frames.light_field).max())
    assert difference.max() < 0.5 * top  # not 65535
    assert difference[np.asarray(rectifier.mask)].max() < 0.02 * top


def test_too_few_trusted_pixels_are_an_error_with_the_share(made):
    _, frames = made
    white, dark = np.array(frames.white, float), np.array(frames.dark, float)
    y, x = np.indices(white.shape)
    patch = dark + (white - dark) * (np.hypot(y - 55, x - 55) < 27)  # the light of the slide reaches a small part of the field
    with pytest.raises(
        CalibrationError, match=r"1\d\.\d\d% of the pixels are trusted: expected 20% or more; check that the white"
    ):
        Rectifier.calibrate(SCOPE, frames.light_field, white=patch, dark=dark)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda white, dark: dark, "white and dark are the same frame"),
        (lambda white, dark: dark + np.random.default_rng(0).integers(-3, 4, dark.shape), "white frame is too dark"),
        (lambda white, dark: np.full_like(white, 700), "no lenslet lattice"),
        (lambda white, dark: np.minimum(white, 4095), r"white frame: \d+% of its pixels are saturated \(at 4095"),
    ],
)
def test_a_useless_white_frame_is_refused_by_name(made, change, says):
    _, frames = made
    white, dark = np.asarray(frames.white), np.asarray(frames.dark)
    with pytest.raises(CalibrationError, match=says):
        Rectifier.calibrate(SCOPE, frames.light_field, white=change(white, dark), dark=dark)


@pytest.mark.parametrize("argument", ["frame", "white", "dark", "background"])
@pytest.mark.usefixtures("unchecked")
def test_colour_complex_and_broken_frames_are_named(made, argument):
    _, frames = made
    good = {"frame": frames.light_field, "white": frames.white, "dark": frames.dark, "background": frames.dark}
    good = {name: np.asarray(frame, float) for name, frame in good.items()}
    for wrong, says in (
        (np.stack([good[argument]] * 3, -1), "looks like colour"),
        (good[argument] + 1j, "complex"),
        (np.where(np.arange(good[argument].shape[1]) == 5, np.nan, good[argument]), "NaN"),
        (good[argument][:-1], "has shape"),
    ):
        if argument != "frame" or says != "has shape":
            with pytest.raises((ParameterError, ShapeError), match=f"{argument} .*{says}"):
                Rectifier.calibrate(SCOPE, **good | {argument: wrong})


def test_the_background_is_taken_from_frames_and_not_from_the_white_frame(made):
    _, frames = made
    options = {"white": frames.white, "dark": frames.dark}
    plain = Rectifier.calibrate(SCOPE, frames.light_field, **options)
    empty = np.asarray(frames.dark) + 25.0
    for background in (empty, 25.0):
        rectifier = Rectifier.calibrate(SCOPE, frames.light_field, background=background, **options)
        np.testing.assert_array_equal(rectifier.white, plain.white)
        np.testing.assert_array_equal(rectifier.mask, plain.mask)
        taken = plain(frames.light_field) - rectifier(frames.light_field)
        np.testing.assert_allclose(taken, 25 * (8.7 / 9) ** 2, rtol=0.01)


def test_a_pitch_far_from_the_stated_one_is_refused_and_the_way_out_works(made):
    _, frames = made
    far = Microscope.from_dict(SCOPE.to_dict() | {"camera_pixel_um": SCOPE.camera_pixel_um / 1.1})
    with pytest.raises(CalibrationError, match=r"pitch 8\.70.* say 9\.570 px .*camera_pixel_um = 11\.49 .*--pitch 8\.70"):
        Rectifier.calibrate(far, frames.light_field, white=frames.white, dark=frames.dark)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rectifier = Rectifier.calibrate(far, frames.light_field, white=frames.white, dark=frames.dark, pitch_px=8.7)
    assert rectifier.lattice.pitch_px == pytest.approx(8.7, abs=0.01)
    with pytest.raises(CalibrationError, match=r"8\.70.*say 8\.000 px \(pitch_px"):
        Rectifier.calibrate(SCOPE, frames.light_field, white=frames.white, dark=frames.dark, pitch_px=8.0)


def test_a_pitch_far_from_n_is_warned_of_with_both(shared):
    raw, white = (tifffile.imread(shared / f"data/cases/lightfield/sea_crop300_{name}.tif") for name in ("raw", "white"))
    with pytest.warns(CalibrationWarning, match=r"pitch 17\.2\d\d px, the parameters say pixels_per_lenslet = 11"):
        rectifier = Rectifier.calibrate(PRESETS["20x0.5"], raw, white=white)
    assert rectifier.lattice.pitch_px == pytest.approx(17.21, abs=0.02)


def test_lattices_of_two_pitches_name_both_axes():
    scope = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, 9, camera_pixel_um=12.5)
    lattice = Lattice(10.3, 0.0, 75.2, 81.4, pitch_y_px=9.8)
    with pytest.warns(CalibrationWarning, match=r"pitch 9\.8\d\d px along y and 10\.3\d\d px along x, .* say 10\.000 px"):
        rectifier = rectifier_of(scope, lattice, (160, 160))
    assert rectifier.lattice.cell_px == pytest.approx((9.8, 10.3), abs=0.01)
    image = rectifier(np.full((160, 160), 190.0))
    np.testing.assert_allclose(image, 100 * 9.8 * 10.3 / 81, rtol=2e-3)


def test_a_frame_clipped_at_twelve_bits_is_warned_of_and_masked(shared):
    folder = shared / "data/cases/lightfield"
    raw, white = (tifffile.imread(folder / f"{name}.tif") for name in ("saturated_12bit_in_uint16", "sea_crop300_white"))
    with pytest.warns(CalibrationWarning, match=r"37\.7% of the pixels are saturated \(at 4095"):
        rectifier = Rectifier.calibrate(load_microscope(folder / "sea.toml"), raw, white=white)
    assert rectifier.saturation == 4095
    clipped = rectifier.saturated(raw)
    assert 0.37 < clipped.mean() < 0.65 and np.asarray(rectifier(raw))[clipped].mean() > 3000
    assert not rectifier.saturated(np.minimum(raw, 4000)).any()
    with pytest.raises(ParameterError, match="saturation = -1"):
        Rectifier.aligned(load_microscope(folder / "worm.toml"), (30, 30), saturation=-1.0)


def test_rectified_frames_pass_and_have_the_mask_of_the_pupil(shared):
    folder = shared / "data/cases/lightfield"
    raw, scope = tifffile.imread(folder / "worm_N15_rectified.tif"), load_microscope(folder / "worm.toml")
    rectifier = Rectifier.aligned(scope, raw.shape)
    np.testing.assert_array_equal(rectifier(raw), raw)
    np.testing.assert_array_equal(rectifier.mask, np.tile(pupil_mask(scope), (45, 30)))
    assert rectifier.field == (45, 30) and rectifier.trusted == pytest.approx(0.61, abs=0.01)
    centre = rectifier.lattice.to_lattice([7, 7])
    np.testing.assert_allclose(centre, np.round(centre), atol=1e-9)
    less = Rectifier.aligned(scope, raw.shape, dark=3.0, background=2.0, saturation=200.0)
    np.testing.assert_array_equal(less(raw), raw - 5.0)
    assert less.saturated(raw).sum() == np.sum(raw >= 200)
    with pytest.raises(ParameterError, match=r"frames of \(675, 451\): expected whole lenslets of 15 x 15"):
        Rectifier.aligned(scope, (675, 451))
