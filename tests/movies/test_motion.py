"""Shifts against closed forms, scikit-image, and tissue that moves under the light-field operator."""

import equinox as eqx
import jax
import numpy as np
import pytest
from skimage.registration import phase_cross_correlation

from lfjax import simulate
from lfjax.errors import ParameterError, ShapeError
from lfjax.fourier import translate
from lfjax.movies import motion
from lfjax.optics import LightField, Microscope, compute_psf

N = 5  # pixels, and voxels, per lenslet
PLANE, VOLUME = (64, 70), (24, 40, 36)  # few shapes, since every one is compiled anew


def waves(shape, shift, highest=0.25, count=300):
    """Plane waves of random frequencies up to `highest` cycles per pixel, of no period in the image, moved by `shift`."""
    rng = np.random.default_rng(0)
    frequency = rng.uniform(-highest, highest, (count, len(shape)))
    phase, height = rng.uniform(0, 2 * np.pi, count), rng.normal(size=count) / np.sqrt(count)
    *others, last = (
        np.exp(2j * np.pi * k[:, None] * (np.arange(n) - s)) for k, n, s in zip(frequency.T, shape, shift, strict=True)
    )
    product = (height * np.exp(1j * phase))[:, None]
    for axis in others:  # a wave is a product over the axes
        product = (product[:, :, None] * axis[:, None, :]).reshape(count, -1)
    return (10 + 2 * (product.T @ last).real.reshape(shape)).astype(np.float32)


def cells(shape, shift, bright, sigma=2.0, margin=10):
    """Gaussian cells away from the edges, moved by `shift`, of the brightnesses `bright`."""
    rng = np.random.default_rng(1)
    grids = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    image = np.zeros(shape)
    for height in bright:
        centre = [rng.uniform(margin, n - margin) + s for n, s in zip(shape, shift, strict=True)]
        image += height * np.exp(-sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True)) / (2 * sigma**2))
    return image.astype(np.float32)


@pytest.mark.parametrize("shape", [PLANE, VOLUME])
@pytest.mark.parametrize("highest", [0.15, 0.4])
@pytest.mark.parametrize("size", [0.3, 1.7, 6.4])
def test_shifts_of_plane_waves_are_found(shape, highest, size):
    shift = size * np.array([0.6, -1.0, 0.8])[-len(shape) :]
    image, reference = waves(shape, shift, highest), waves(shape, 0 * shift, highest)
    np.testing.assert_allclose(motion.estimate_shift(image, reference), shift, atol=0.02)
    np.testing.assert_allclose(motion.estimate_shift(0.5 * image + 3, reference), shift, atol=0.02)


@pytest.mark.parametrize("shape", [PLANE, VOLUME])
def test_agreement_with_scikit_image(shape):
    bright = np.random.default_rng(2).uniform(1, 2, 12)
    for shift in ([1.35, -2.6, 0.45], [-0.2, 0.75, 3.1]):
        shift = np.array(shift[-len(shape) :])
        image, reference = cells(shape, shift, bright), cells(shape, 0 * shift, bright)
        theirs = -phase_cross_correlation(reference, image, upsample_factor=20, normalization=None)[0]
        got = np.asarray(motion.estimate_shift(image, reference))
        np.testing.assert_allclose(got, theirs, atol=0.1)
        np.testing.assert_allclose(got, shift, atol=0.02)


def test_noise_and_firing_cells_hardly_change_the_shift():
    """60 photons per pixel, and three of 60 cells at dF/F = 2."""
    rng = np.random.default_rng(3)
    bright = rng.uniform(0.5, 1.5, 60)
    reference = cells(PLANE, (0, 0), bright) + 0.5
    gain, errors = 60 / reference.mean(), []
    for shift in rng.uniform(-4, 4, (12, 2)):
        active = bright * np.where(rng.permutation(60) < 3, 3.0, 1.0)
        image = rng.poisson(gain * (cells(PLANE, shift, active) + 0.5)).astype(np.float32)
        errors.append(np.asarray(motion.estimate_shift(image, gain * reference)) - shift)
    assert np.sqrt(np.mean(np.square(errors))) < 0.07


def test_a_vignetted_background_biases_less_than_with_plain_correlation():
    y, x = (np.arange(n) - n / 2 for n in PLANE)
    vignette = np.exp(-(y[:, None] ** 2 + x**2) / (2 * 40**2))
    bright = np.random.default_rng(4).uniform(0.5, 1.5, 60)
    image, reference = (vignette * (cells(PLANE, s, bright) + 10) for s in ((2.4, -1.3), (0, 0)))
    wrong = [np.abs(motion.estimate_shift(image, reference, sharpen=a) - np.array([2.4, -1.3])).max() for a in (0.1, 0.0)]
    assert wrong[0] < 0.1 and wrong[0] < 0.5 * wrong[1]


def test_pixels_of_weight_zero_do_not_count():
    image, reference = waves(PLANE, (1.4, -0.6)), waves(PLANE, (0, 0))
    half = np.zeros(PLANE, np.float32)
    half[:, :40] = np.minimum(1, (40 - np.arange(40)) / 6)  # a soft edge
    image[:, 48:] = reference[:, 48:] * 20  # bright, and does not move
    np.testing.assert_allclose(motion.estimate_shift(image, reference, weight=half), (1.4, -0.6), atol=0.02)


def test_max_shift_chooses_among_stripes():
    """A pattern of period 8 and a texture, moved by 7: within 2 pixels, only the pattern has a peak, at -1."""
    stripes, x = 6 * np.ones((PLANE[0], 1)), np.arange(PLANE[1])
    image, reference = (stripes * np.cos(2 * np.pi * (x - s) / 8) + waves(PLANE, (0, s)) for s in (7, 0))
    np.testing.assert_allclose(motion.estimate_shift(image, reference), (0, 7), atol=0.05)
    near = np.asarray(motion.estimate_shift(image, reference, max_shift=2))
    assert np.abs(near).max() <= 2
    np.testing.assert_allclose(near[1], -1, atol=0.3)


def test_without_structure_the_shift_is_zero():
    image, reference = waves((32, 40), (0.7, -1.2)), waves((32, 40), (0, 0))
    alike = motion.estimate_shift(np.stack([image] * 5), np.stack([reference] * 5))  # equal planes
    np.testing.assert_allclose(alike, (0, 0.7, -1.2), atol=0.02)
    np.testing.assert_allclose(motion.estimate_shift(image[None], reference[None]), (0, 0.7, -1.2), atol=0.02)
    dark, reference = np.zeros(PLANE, np.float32), waves(PLANE, (0, 0))
    for fixed in (dark, reference):
        np.testing.assert_allclose(motion.estimate_shift(dark, fixed), 0, atol=1e-3)


def test_the_estimate_can_be_differentiated():
    reference = waves((32, 40), (0, 0))

    @jax.jit
    @jax.jacrev
    def derivative(shift, reference):
        return motion.estimate_shift(motion.shift_image(reference, shift), reference)

    np.testing.assert_allclose(derivative(np.array([0.7, 0.2], np.float32), reference), np.eye(2), atol=0.05)


@pytest.mark.parametrize("shape", [PLANE, VOLUME])
def test_moved_images_equal_their_closed_form(shape):
    shift = np.array([1.4, -2.3, 0.5])[-len(shape) :]
    inside = tuple(slice(6, -6) for _ in shape)
    moved = motion.shift_image(waves(shape, 0 * shift, 0.2), shift)
    np.testing.assert_allclose(moved[inside], waves(shape, shift, 0.2)[inside], atol=0.05)
    whole = np.round(shift).astype(int)
    image = np.random.default_rng(0).random(shape, np.float32)
    rolled = np.roll(image, whole, range(len(shape)))
    np.testing.assert_allclose(motion.shift_image(image, whole)[inside], rolled[inside], atol=1e-5)


def test_noise_keeps_its_variance_and_edges_do_not_wrap():
    noise = np.random.default_rng(0).normal(size=(200, 200))
    np.testing.assert_allclose(np.std(motion.shift_image(noise, [0.5, 0.5])), 1, atol=0.03)
    step = np.zeros((8, 40), np.float32)
    step[:, 30:] = 1
    np.testing.assert_allclose(np.asarray(motion.shift_image(step, [0.0, 4.0]))[:, :25], 0, atol=1e-5)
    np.testing.assert_allclose(np.mean(motion.shift_image(step + 1, [0.3, -0.7])), step.mean() + 1, atol=0.03)
    wave = np.cos(2 * np.pi * np.arange(12) / 12).astype(np.float32)
    np.testing.assert_allclose(jax.jit(translate)(wave, np.array([3.0])), np.roll(wave, 3), atol=1e-6)


@pytest.fixture(scope="module")
def living():
    """Frames of tissue that moves by whole voxels of a fifth of a lenslet, and the light field that sees it."""
    microscope = Microscope(20, 0.5, 1.33, 0.52, 125, 2500, N)
    op = eqx.filter_jit(LightField)(compute_psf(microscope, (-40.0, 30.0), N, tolerance=0.1), (20, 20))
    edge, voxel = 6, microscope.object_pitch_um / N
    tissue = simulate.cortex(jax.random.key(0), (2, 100 + 2 * edge, 100 + 2 * edge), (20.0, voxel, voxel), count=30)
    light, neuropil = np.asarray(tissue.footprints), np.asarray(tissue.neuropil)
    project = eqx.filter_jit(op.matvec)

    def frame(voxels=(0, 0), active=()):
        dff = np.zeros(len(light))
        dff[list(active)] = 2
        sample = np.tensordot(1 + dff, light, 1) + neuropil
        return np.asarray(project(np.roll(sample, voxels, (1, 2))[:, edge:-edge, edge:-edge].astype(np.float32)))

    return frame


MOVES = ((2, 0), (0, -3), (1, 2), (-4, 5), (6, -1))


def test_the_motion_of_tissue_is_found_in_light_fields(living):
    rng = np.random.default_rng(5)
    still = living()
    gain, clean, noisy = 60 / still.mean(), [], []
    for move in MOVES:
        shift = np.array(move) / N
        clean.append(np.asarray(motion.light_field_shift(living(move), still, N)) - shift)
        frame = rng.poisson(gain * living(move, active=rng.permutation(30)[:5])).astype(np.float32)
        noisy.append(np.asarray(motion.light_field_shift(frame, gain * still, N)) - shift)
    assert np.sqrt(np.mean(np.square(clean))) < 0.03
    assert np.sqrt(np.mean(np.square(noisy))) < 0.05


def test_light_fields_are_moved_back(living):
    still, inside = living(), (slice(3 * N, -3 * N),) * 2

    def wrong(frame):
        return np.sqrt(np.mean((np.asarray(frame)[inside] - still[inside]) ** 2))

    for move in MOVES:
        moved = living(move)
        assert wrong(motion.shift_light_field(moved, -np.array(move) / N, N)) < 0.5 * wrong(moved)
    np.testing.assert_allclose(  # by a whole lenslet: the frame moved by N pixels
        np.asarray(motion.shift_light_field(still, [1.0, 0.0], N))[2 * N :], still[N:-N], atol=1e-4 * still.max()
    )


def test_blocks_are_registered_frame_by_frame(living):
    still = living()
    frames = np.stack([living(move) for move in MOVES])
    registered, shifts = motion.register(frames, still, cell_pixels=N)
    for one, shift, frame in zip(np.asarray(registered), np.asarray(shifts), frames, strict=True):
        np.testing.assert_allclose(shift, motion.light_field_shift(frame, still, N), atol=1e-3)
        np.testing.assert_allclose(one, motion.shift_light_field(frame, -shift, N), atol=1e-4 * still.max())
    true = np.array([[1.2, -0.4], [-3.3, 2.0]])
    block, reference = np.stack([waves((48, 40), s) for s in true]), waves((48, 40), (0, 0))
    registered, shifts = motion.register(block, reference)
    np.testing.assert_allclose(shifts, true, atol=0.02)
    np.testing.assert_allclose(np.asarray(registered)[:, 8:-8, 8:-8], np.stack(2 * [reference[8:-8, 8:-8]]), atol=0.1)


def test_a_reference_of_moving_frames_is_as_sharp_as_a_frame():
    rng = np.random.default_rng(6)
    bright, shifts = rng.uniform(0.5, 1.5, 40), rng.uniform(-3, 3, (30, 2))
    frames = np.stack([cells((64, 64), s, bright, sigma=1.5) for s in shifts])
    noisy = rng.poisson(40 * frames + 20).astype(np.float32)
    sharp = 40 * cells((64, 64), (0, 0), bright, sigma=1.5) + 20
    mean, reference = motion.make_reference(noisy, rounds=0), motion.make_reference(noisy)
    np.testing.assert_allclose(mean, noisy.mean(0), rtol=1e-5)
    assert np.std(np.asarray(mean)) < 0.8 * np.std(sharp) and np.std(np.asarray(reference)) > 0.97 * np.std(sharp)
    found = motion.register(noisy, reference)[1]
    offset = np.asarray(found) - shifts
    assert (offset - offset.mean(0)).std() < 0.05


def test_untrusted_pixels_do_not_hold_light_fields_back(living):
    """Zeros of a mask stay where they are while the tissue moves: corners of the pupil, dark lenslets, single pixels."""
    rng, still = np.random.default_rng(7), living()
    y, x = np.mgrid[:N, :N] - (N - 1) / 2
    mask = np.tile(np.hypot(y, x) < 0.45 * N, (20, 20)) & (rng.random(still.shape) > 0.05)
    mask[:, : 4 * N] = rng.random((20 * N, 4 * N)) > 0.5  # vignetted
    weight, inside = mask.astype(np.float32), (slice(3 * N, -3 * N),) * 2
    errors, plain, wrong = [], [], []
    for move in MOVES:
        shift, frame = np.array(move) / N, living(move)
        masked = np.where(mask, frame, 0)
        errors.append(np.asarray(motion.light_field_shift(masked, still * mask, N, weight=weight)) - shift)
        plain.append(np.asarray(motion.light_field_shift(masked, still * mask, N)) - shift)
        garbage = np.where(mask, frame, 50 * frame.max())
        got = motion.light_field_shift(garbage, still, N, weight=weight)
        np.testing.assert_allclose(got, shift + errors[-1], atol=5e-3)
        (back,), _ = motion.register(garbage[None], still, cell_pixels=N, weight=weight)
        wrong.append(np.sqrt(np.mean((np.asarray(back) - still)[inside][mask[inside]] ** 2)))
    assert np.sqrt(np.mean(np.square(errors))) < 0.05 < np.sqrt(np.mean(np.square(plain)))
    assert max(wrong) < 0.5 * np.sqrt(np.mean((living(MOVES[3]) - still)[inside][mask[inside]] ** 2))


def test_wrong_shapes_and_numbers_are_named():
    image = np.ones((10, 10))
    with pytest.raises(ShapeError, match=r"reference has shape \(10, 9\): expected \(10, 10\)"):
        motion.estimate_shift(image, np.ones((10, 9)))
    with pytest.raises(ShapeError, match=r"image has shape \(10,\)"):
        motion.estimate_shift(np.ones(10), np.ones(10))
    with pytest.raises(ShapeError, match="weight has shape"):
        motion.estimate_shift(image, image, weight=np.ones(10))
    with pytest.raises(ShapeError, match="shift has shape"):
        motion.shift_image(image, np.ones(3))
    with pytest.raises(ShapeError, match="whole lenslets of 3 x 3"):
        motion.light_field_shift(image, image, 3)
    with pytest.raises(ShapeError, match="block has shape"):
        motion.register(image, image)
    for name, value in (("max_shift", 0), ("sharpen", -1), ("upsample", 0)):
        with pytest.raises(ParameterError, match=f"{name} = {value}"):
            motion.estimate_shift(image, image, **{name: value})
    with pytest.raises(ParameterError, match="rounds"):
        motion.make_reference(image[None], rounds=-1)
