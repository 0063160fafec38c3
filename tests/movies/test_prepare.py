"""Recordings prepared as they are read: lengths, blocks, order, and the effect of each step."""

import equinox as eqx
import numpy as np
import pytest

from lfjax import movies, simulate
from lfjax.errors import CalibrationError, ParameterError, ShapeError
from lfjax.movies.identity import fingerprint
from lfjax.optics import Microscope, Rectifier, compute_psf

SCOPE = Microscope(10, 0.3, 1.33, 0.52, 125, 2500, 5)


@pytest.fixture(scope="module")
def psf():
    return compute_psf(SCOPE, (-30.0, 0.0, 30.0), 2, tolerance=0.3)


def aligned(shape):
    """The correction of rectified frames, all of whose pixels are trusted."""
    rectifier = Rectifier.aligned(SCOPE, shape)
    return eqx.tree_at(lambda r: r.mask, rectifier, np.ones(shape, bool))


def test_a_prepared_movie_is_read_like_any_other():
    frames = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.uint16)
    movie = movies.Prepared(frames, lambda y: 2.0 * y[:2])
    assert movie.shape == (2, 2, 4) and len(movie) == 2 and movie.dtype == np.float32
    np.testing.assert_array_equal(movie[1], 2 * frames[1, :2])
    np.testing.assert_array_equal(movie[0:2], 2 * frames[:, :2])


def test_raw_frames_become_light_fields(psf):
    made = simulate.raw_recording(0, SCOPE, lenslets=12, z_um=psf.z_um, voxels_per_lenslet=2, count=3, psf=psf, sample="beads")
    raw = np.stack([np.asarray(made.frames.light_field)] * 4)
    rectifier = Rectifier.calibrate(SCOPE, raw[0], white=made.frames.white, dark=made.frames.dark)
    ready = movies.light_fields(raw, rectifier, psf)
    assert ready.frames.shape == (4, *(n * 5 for n in ready.field)) and ready.mask.shape == ready.frames.shape[1:]
    assert ready.frames[0].min() >= 0 and not ready.frames[0][~ready.mask].any()
    np.testing.assert_array_equal(ready.weights, ready.mask.astype(np.float32))
    np.testing.assert_allclose(ready.mean, ready.frames[2], rtol=1e-5, atol=1e-3)
    with pytest.raises(ShapeError, match="frames has shape"):
        movies.light_fields(raw[:, :-1], rectifier, psf)


def test_pixels_that_saturate_in_any_frame_are_not_trusted(psf):
    rectifier, raw = Rectifier.aligned(SCOPE, (60, 60)), np.full((3, 60, 60), 50, np.uint16)
    raw[1, 20, 22] = 1000
    ready = movies.light_fields(raw, rectifier, psf, peak=raw.max(0), saturation=1000.0)
    lost = np.asarray(rectifier.mask) & ~ready.mask
    assert np.argwhere(lost).tolist() == [[20, 22]] and ready.frames[1][20, 22] == 0
    with pytest.raises(CalibrationError, match="shorten the exposure"):
        movies.light_fields(raw, rectifier, psf, peak=raw.max(0), saturation=50.0)


def test_registered_frames_coincide(psf):
    rng = np.random.default_rng(0)
    blobs = np.zeros((30, 30))
    blobs[tuple(rng.integers(5, 25, (2, 12)))] = rng.uniform(50, 100, 12)
    smooth = np.fft.ifft2(np.fft.fft2(blobs) * np.exp(-60 * sum(np.meshgrid(*[np.fft.fftfreq(30) ** 2] * 2)))).real
    views = np.broadcast_to(smooth, (5, 5, 30, 30))

    def frame(dx):
        moved = np.roll(views, dx, axis=3)
        return moved.transpose(2, 0, 3, 1).reshape(150, 150)

    movie = np.stack([frame(dx) for dx in (0, 0, 0, 0, 2)]).astype(np.float32)
    still = movies.light_fields(movie, aligned((150, 150)), psf, register=True)
    inner = (slice(25, -25),) * 2
    before = np.abs(movie[4] - movie[0])[inner].max()
    after = np.abs(still.frames[4] - still.frames[0])[inner].max()
    assert after < 0.15 * before


def test_without_background_only_transients_remain(psf):
    frames = np.full((300, 10, 10), 20.0, np.float32) * np.exp(-np.arange(300) / 400)[:, None, None].astype(np.float32)
    frames[150:153, 2, 2] += 50
    made = movies.light_fields(frames, aligned((10, 10)), psf, background=1)
    assert made.field == (2, 2) and made.mask.all()
    flares = made.frames[0:300]
    assert flares.min() >= 0 and flares[151, 2, 2] > 40
    assert np.median(flares) < 1
    np.testing.assert_allclose(made.frames[151], flares[151], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made.frames[100:160], flares[100:160], rtol=1e-5, atol=1e-5)
    slow = movies.SlowBackground.fit(frames, 0.01, rank=1)
    with pytest.raises(ParameterError, match="step = 2"):
        movies.WithoutBackground(frames, slow)[0:10:2]


def test_the_mean_reads_few_frames():
    class Counted:
        shape, dtype, seen = (1000, 2, 2), np.uint16, 0

        def __len__(self):
            return 1000

        def __getitem__(self, number):
            Counted.seen += 1
            return np.full((2, 2), number, np.uint16)

    np.testing.assert_allclose(movies.mean_frame(Counted(), 11), 499.5, atol=1)
    assert Counted.seen == 11


def test_frames_of_broken_lenslets_are_refused():
    with pytest.raises(ParameterError, match=r"frames of \(11, 10\): expected whole lenslets of 5 x 5 pixels"):
        Rectifier.aligned(SCOPE, (11, 10))


def test_fingerprints_distinguish_inputs():
    movie = np.arange(5 * 4 * 4, dtype=np.uint16).reshape(5, 4, 4)
    white = np.ones((4, 4))
    same = fingerprint(movie, white, None)
    assert fingerprint(movie.copy(), white, None) == same
    others = [fingerprint(*given) for given in ((movie, None), (movie[:4], white), (movie + 1, white))]
    assert same not in others and len(set(others)) == 3
