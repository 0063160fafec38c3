"""The lattice finder on simulated lenslets of known lattices, and on real frames with and without a white frame."""

import math

import h5py
import jax
import numpy as np
import pytest
import tifffile

from lfjax.errors import CalibrationError, ParameterError
from lfjax.optics import Lattice, find_lattice, is_rectified
from lfjax.simulate.frames import raw_frames

WAY_OUT = "--white.*--rectified.*--pitch.*--rotation.*--offset"


def from_centre(lattice, pixels):
    """Distance of pixels from the nearest lenslet, in pitches."""
    cells = lattice.to_lattice(pixels)
    distances = []
    for shift in (0.0, 0.5)[: 1 + (lattice.kind == "hexagonal")]:
        off = (cells - shift - np.round(cells - shift)) * lattice.cell_px
        distances.append(np.hypot(*np.moveaxis(off, -1, 0)) / lattice.pitch_px)
    return np.minimum.reduce(distances)


def grid(shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)


def discs(lattice, shape, noise=0.0, radius=0.45):
    pattern = 100 / (1 + np.exp((from_centre(lattice, grid(shape)) - radius) * 30))
    return pattern + noise * np.random.default_rng(0).normal(size=shape)


def spots(lattice, shape, background, reach):
    """Sample of twelve points out of focus, each a train of spots of another period that ends where they leave the pupil."""
    rng = np.random.default_rng(1)
    places = np.arange(-40, 41)
    lenslets = lattice.to_raw(np.stack(np.meshgrid(places, places, indexing="ij"), axis=-1).reshape(-1, 2))
    frame = background * discs(lattice, shape)
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])
    for point in rng.uniform(0, shape, (12, 2)):
        radius = rng.uniform(0.3, 1.0) * reach * lattice.pitch_px
        near = lenslets[np.hypot(*(lenslets - point).T) < radius]
        at = near + 0.45 * lattice.pitch_px * (near - point) / radius
        rows, columns = (
            np.exp(-0.5 * ((axis - c) / 1.2) ** 2) for axis, c in ((y[None, :, :], at[:, :1, None]), (x, at[:, 1:]))
        )
        frame += rng.uniform(50, 300) * np.einsum("ky,kx->yx", rows[..., 0], columns)
    return rng.poisson(frame + 1).astype(float)


def agree(found, true, tolerance_px):
    """The two lattices have a lenslet at the same place, also one half of the frame from there."""
    assert found.kind == true.kind
    cells = np.array([(0, 0), (5, 0), (0, 5), (-5, -5)])
    assert np.max(from_centre(true, found.to_raw(cells))) * true.pitch_px < tolerance_px


@pytest.fixture(scope="session")
def frames(shared):
    """Real frames by name, each with the pitch that its parameters state."""
    folder = shared / "data/cases/lightfield"
    guv = {name: tifffile.imread(shared / f"data/guv/{name}.tif").astype(float) for name in ("white", "light_field", "dark")}
    with h5py.File(shared / "data/cases/movies/raw8.h5") as movie, h5py.File(shared / "data/cases/movies/white.h5") as white:
        simulated = (white["frame"][...], movie["frames"][0])
    return {
        "sea white": (tifffile.imread(folder / "sea_crop300_white.tif"), 125 / 7.4),
        "sea": (tifffile.imread(folder / "sea_crop300_raw.tif"), 125 / 7.4),
        "saturated": (tifffile.imread(folder / "saturated_12bit_in_uint16.tif"), 125 / 7.4),
        "hot pixel white": (tifffile.imread(folder / "white_one_hot_pixel_600.tif"), 125 / 7.4),
        "worm": (tifffile.imread(folder / "worm_N15_rectified.tif"), 15),
        "guv white": (guv["white"] - guv["dark"], 100 / 6.5),
        "guv": (guv["light_field"] - guv["dark"], 100 / 6.5),
        "movie white": (simulated[0], 9),
        "movie": (simulated[1], 9),
    }


@pytest.mark.parametrize("rotation", [0.0, 0.03, -0.2])
@pytest.mark.parametrize("guess", [15.4, 12.5, 7.7, 30.8, 15.4 * math.sqrt(2), 15.4 / math.sqrt(2)])
def test_found_whatever_the_guess_and_rotation(rotation, guess):
    true = Lattice(15.4, rotation, 100.3, 94.7)
    found = find_lattice(discs(true, (200, 190), noise=5.0), guess)
    assert found.pitch_px == pytest.approx(15.4, abs=15.4**2 / (100 * 190))
    assert found.rotation_rad == pytest.approx(rotation, abs=2e-4)
    assert found.pitch_y_px is None
    agree(found, true, 0.05)


@pytest.mark.parametrize("white", [True, False])
def test_rotation_by_45_degrees_is_the_same_with_and_without_white(white):
    """A lattice turned by 45 degrees and one of sqrt(2) times its pitch share half of their harmonics."""
    for rotation, pitch in ((0.75, 12.0), (-0.78, 17.0), (0.0, 12.0 * math.sqrt(2))):
        true = Lattice(pitch, rotation, 100.3, 94.7)
        found = find_lattice(discs(true, (200, 190), noise=2.0), 12.0, white=white)
        assert (found.pitch_px, found.rotation_rad) == pytest.approx((pitch, rotation), abs=0.01)


@pytest.mark.parametrize("white", [True, False])
@pytest.mark.parametrize("ratio", [1.04, 0.9])
def test_two_pitches(ratio, white):
    true = Lattice(14.0, 0.02, 110.0, 120.0, 14.0 * ratio)
    found = find_lattice(discs(true, (230, 240), noise=2.0), 14.0, white=white)
    assert found.cell_px == pytest.approx(true.cell_px, abs=0.02)
    assert found.rotation_rad == pytest.approx(0.02, abs=5e-4)
    agree(found, true, 0.2)


@pytest.mark.parametrize("white", [True, False])
@pytest.mark.parametrize(("rotation", "found_at"), [(0.01, 0.01), (-0.2, -0.2), (math.pi / 2 - 0.02, math.pi / 2 - 0.02)])
def test_hexagonal_arrays(rotation, found_at, white):
    true = Lattice(14.0, rotation, 110.0, 120.0, kind="hexagonal")
    assert true.cell_px == (math.sqrt(3) * 14.0, 14.0)
    frame = discs(true, (230, 240), noise=2.0)
    found = find_lattice(frame, 12.0, kind="hexagonal", white=white)
    assert found.pitch_px == pytest.approx(14.0, abs=0.01)
    assert found.rotation_rad == pytest.approx(found_at, abs=5e-4)
    agree(found, true, 0.1)
    with pytest.raises(CalibrationError, match="looks hexagonal; say lenslet_lattice = 'hexagonal'"):
        find_lattice(frame, 12.0, white=white)


@pytest.mark.parametrize("white", [True, False])
def test_a_square_array_is_not_taken_for_a_hexagonal_one(white):
    with pytest.raises(CalibrationError, match="looks square; say lenslet_lattice = 'square'"):
        find_lattice(discs(Lattice(14.0, 0.01, 110.0, 120.0), (230, 240)), 14.0, kind="hexagonal", white=white)


def test_hot_pixels_vignetting_and_black_borders_do_not_matter():
    true = Lattice(15.4, 0.01, 150.0, 150.0)
    frame = discs(true, (300, 300), noise=1.0) * np.exp(-np.sum(((grid((300, 300)) - 150) / 150) ** 2, axis=-1))
    frame[:30], frame[:, 280:] = 0, 0
    frame.flat[np.random.default_rng(0).integers(0, frame.size, 100)] = 65535
    for white in (True, False):
        found = find_lattice(frame, 15.4, white=white)
        assert found.pitch_px == pytest.approx(15.4, abs=0.02)
        agree(found, true, 0.2)


def test_axes_that_are_not_perpendicular_are_refused():
    """A hexagonal array that is stretched along x, its rows at 15 degrees to it, has no rectangular cell."""
    frame = discs(Lattice(14.0, 0.26, 110.0, 120.0, kind="hexagonal"), (230, 240))
    columns = np.arange(220) * 1.08
    stretched = np.stack([np.interp(columns, np.arange(240), row) for row in frame])
    with pytest.raises(CalibrationError, match="degrees apart: expected 90"):
        find_lattice(stretched, 14.0, kind="hexagonal")


def test_a_positive_rotation_turns_rows_towards_larger_y():
    lattice = Lattice(10.0, 0.1, 5.0, 7.0, 11.0)
    assert lattice.to_raw((0, 1))[0] > 5.0
    assert np.linalg.norm(lattice.to_raw((1, 0)) - (5.0, 7.0)) == pytest.approx(11.0)
    np.testing.assert_allclose(lattice.to_lattice(lattice.to_raw((2, 3))), (2, 3), atol=1e-12)


def test_nothing_to_be_found():
    noise = np.random.default_rng(0).normal(size=(200, 200))
    with pytest.raises(CalibrationError, match="no lenslet lattice"):
        find_lattice(noise, 15)
    with pytest.raises(CalibrationError, match=WAY_OUT):
        find_lattice(noise, 15, white=False)
    with pytest.raises(CalibrationError, match="six lenslets"):
        find_lattice(np.ones((50, 200)), 15)
    for white in (True, False):
        with pytest.raises(CalibrationError):
            find_lattice(np.ones((200, 200)), 15, white=white)
        with pytest.raises(CalibrationError, match="1 pixels that are NaN"):
            find_lattice(np.where(noise == noise[3, 4], np.nan, noise), 15, white=white)
    with pytest.raises(ParameterError, match="pitch_px = nan"):
        find_lattice(noise, math.nan)
    with pytest.raises(ParameterError, match="kind = 'round'"):
        find_lattice(noise, 15, kind="round")


@pytest.mark.parametrize("white", [True, False])
def test_what_is_stated_is_kept_or_contradicted(white):
    true = Lattice(15.4, 0.02, 100.3, 94.7)
    frame = discs(true, (200, 190), noise=2.0)
    found = find_lattice(frame, 15.4, white=white, rotation_rad=0.021, offset_px=(100.0, 95.0))
    assert (found.rotation_rad, found.origin_y_px, found.origin_x_px) == (0.021, 100.0, 95.0)
    assert found.pitch_px == pytest.approx(15.4, abs=0.02)
    held = find_lattice(frame, 15.41, white=white, hold_pitch=True)
    assert held.pitch_px == 15.41
    assert held.rotation_rad == pytest.approx(0.02, abs=2e-3)
    agree(held, true, 0.3)
    with pytest.raises(CalibrationError, match="offset_px"):
        find_lattice(frame, 15.4, white=white, offset_px=(100.0, 98.0))
    with pytest.raises(CalibrationError, match="rotation" if not white else "rotation_rad = 0.0900: the frame shows 0.0"):
        find_lattice(frame, 15.4, white=white, rotation_rad=0.09)
    known = find_lattice(np.zeros((200, 190)), 15.4, white=white, hold_pitch=True, rotation_rad=0.1, offset_px=(3.0, 4.0))
    assert from_centre(known, np.array([3.0, 4.0])) < 1e-9
    assert known[:2] == (15.4, 0.1)


@pytest.mark.parametrize("reach", [5, 12])
def test_a_sample_out_of_focus_does_not_bend_the_lattice(reach):
    """Where light between the spots shows the holes, the lattice is right to a fiftieth of a cell; else it is refused."""
    true = Lattice(12.3, 0.01, 150.2, 149.1)
    found = find_lattice(spots(true, (300, 310), 0.5, reach), 12.0, white=False)
    assert found.pitch_px == pytest.approx(12.3, rel=2e-3)
    agree(found, true, 0.25)
    with pytest.raises(CalibrationError, match=WAY_OUT):
        find_lattice(spots(true, (300, 310), 0.0, reach), 12.0, white=False)


def test_simulated_sample_and_white_give_the_same_lattice():
    n = 11
    x = np.arange(n) - (n - 1) / 2
    tile = (1 / (1 + np.exp(4 * (np.hypot(x[:, None], x) - 0.42 * n)))).astype(np.float32)
    y, x = np.meshgrid(*(np.arange(k * n) / n for k in (20, 24)), indexing="ij")
    light_field = (np.tile(tile, (20, 24)) * (1 + np.sin(0.8 * y) * np.cos(0.5 * x))).astype(np.float32)
    made = raw_frames(jax.random.key(0), light_field, tile, pitch_px=10.37, rotation_rad=0.011)
    for frame, white in ((made.white, True), (made.light_field, False)):
        found = find_lattice(frame, 11, white=white)
        assert found.pitch_px == pytest.approx(10.37, abs=0.01)
        assert found.rotation_rad == pytest.approx(0.011, abs=5e-4)
        agree(found, made.lattice, 0.2)


REAL = {"sea": (17.21, 0.003), "saturated": (17.21, 0.003), "guv": (15.40, -0.002), "movie": (8.73, 0.004)}


@pytest.mark.parametrize("name", ["sea white", "hot pixel white", "guv white", "movie white", *REAL])
def test_real_frames_whatever_the_guess(frames, name):
    """Half and double the pitch, sqrt(2) times it, and N = 11 as an unsuitable preset has it, all lead to the same lattice."""
    frame, stated = frames[name]
    pitch, rotation = REAL[name.removesuffix(" white").replace("hot pixel", "sea")]
    for guess in (stated / 2, 2 * stated, stated * math.sqrt(2), 11, 8.603):
        found = find_lattice(frame, guess, white=name.endswith("white"))
        assert math.sqrt(math.prod(found.cell_px)) == pytest.approx(pitch, abs=0.02)
        assert found.rotation_rad == pytest.approx(rotation, abs=4e-4)


@pytest.mark.parametrize("name", ["sea", "guv", "movie"])
def test_without_white_the_offset_is_that_of_the_white_frame(frames, name):
    found, true = (find_lattice(*frames[n], white=n != name) for n in (name, f"{name} white"))
    agree(found, true, 0.25)


@pytest.mark.parametrize("side", [120, 300])
def test_crops_without_white(frames, side):
    frame, stated = frames["guv"]
    for y, x in ((0, 0), (0, 136), (68, 68), (136, 0), (136, 136)):
        found = find_lattice(frame[y : y + side, x : x + side], stated, white=False)
        assert found.pitch_px == pytest.approx(15.40, abs=0.05)


def test_the_rectified_worm(frames):
    """Without a white frame its spots lead to 14.20 px and -1 degree; its holes lie on the grid of 15 px."""
    frame, _ = frames["worm"]
    assert is_rectified(frame, 15)
    found = find_lattice(frame, 15, white=False)
    assert found[:2] == (15.0, 0.0)
    np.testing.assert_array_equal(found.to_lattice((7.0, 7.0)) % 1, 0)
    for wrong in (14, 16, 30):
        assert not is_rectified(frame[: 675 // wrong * wrong, : 450 // wrong * wrong], wrong)
    assert not is_rectified(frame[3:, 4:][:660, :435], 15)
    with pytest.raises(CalibrationError, match=WAY_OUT):
        find_lattice(frame, 14.5, white=False)
    held = find_lattice(frame, 15, white=False, hold_pitch=True)
    assert held.rotation_rad == pytest.approx(0, abs=2e-3)
    assert from_centre(held, np.array([7.0, 7.0])) < 0.06


def test_raw_frames_are_not_taken_for_rectified(frames):
    for name, n in (("guv", 15), ("guv", 16), ("sea", 17)):
        frame = frames[name][0]
        for y, x in ((0, 0), (3, 8), (8, 0), (8, 16), (10, 11)):
            rows, columns = (side // n * n for side in frame[y:, x:].shape)
            assert not is_rectified(frame[y : y + rows, x : x + columns], n)


@pytest.mark.parametrize(("n", "kind"), [(15, "square"), (13, "hexagonal")])
def test_rectified_frames_are_recognised(n, kind):
    high = round(n * (1 if kind == "square" else math.sqrt(3)))
    aligned = Lattice(float(n), 0.0, (high - 1) / 2, (n - 1) / 2, float(high), kind)
    shape = (9 * high, 16 * n)
    assert is_rectified(discs(aligned, shape, noise=3.0), n, kind=kind)
    for other in ({"rotation_rad": 0.02}, {"origin_x_px": n / 2 + 2}, {"pitch_px": n * 1.02}):
        assert not is_rectified(discs(aligned._replace(**other), shape, noise=3.0), n, kind=kind)
    assert not is_rectified(discs(aligned, (shape[0] - 1, shape[1])), n, kind=kind)
