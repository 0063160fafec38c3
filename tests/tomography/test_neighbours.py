"""Boxes cut to their particles, and the signal of neighbours told from that of a particle larger than its ball."""

import jax
import numpy as np
import pytest

from lfjax import tomography
from lfjax.errors import ParameterError, ShapeError
from lfjax.tomography import CutImages, cut_pixels, random_particles, signal_support

N, RADIUS = 64, 10.0
SIDE = cut_pixels(N, RADIUS)


def particles(count, shift_px=0.0):
    return random_particles(jax.random.key(0), count, pixel_angstrom=2.0, defocus_angstrom=None, shift_px=shift_px)


def distance(n, centre=(0, 0)):
    x = np.arange(n) - n // 2
    return np.hypot(x - centre[0], (x - centre[1])[:, None])


def test_a_cut_box_is_the_image_about_the_particle_and_holds_nothing_far_from_it():
    given = particles(30, shift_px=12.0)
    shifts = np.asarray(given.shifts)
    image = np.random.default_rng(0).normal(size=(N, N)).astype(np.float32)
    cut = CutImages(np.broadcast_to(image, (30, N, N)), given, SIDE, radius_px=RADIUS)
    assert SIDE == 24 and cut.shape == (30, SIDE, SIDE) and np.abs(cut.offsets).max() > N // 2 - SIDE // 2
    np.testing.assert_allclose(cut.offsets + np.asarray(cut.particles.shifts), shifts, atol=1e-5)
    assert np.abs(np.asarray(cut.particles.shifts)).max() <= 0.5 + 1e-5
    inside = distance(SIDE) <= RADIUS
    for small, (x, y) in zip(cut[np.arange(30)], cut.offsets, strict=True):
        padded = np.pad(image, 2 * N, constant_values=np.nan)
        same = padded[
            2 * N + N // 2 + y + np.arange(SIDE)[:, None] - SIDE // 2, 2 * N + N // 2 + x + np.arange(SIDE) - SIDE // 2
        ]
        known = inside & np.isfinite(same)
        np.testing.assert_array_equal(small[known], same[known])
        assert np.isfinite(small).all()
    far = np.where(distance(N) > 12, 100.0, 0.0).astype(np.float32)  # most of it is a neighbour: no deviation, hence no noise
    centred = CutImages(far[None], particles(1), SIDE, radius_px=RADIUS)[np.arange(1)]
    np.testing.assert_array_equal(centred, 0)


def test_white_noise_stays_white_noise_and_neighbours_do_not_change_its_deviation():
    count = 400
    noise = 2.5 * np.random.default_rng(1).normal(size=(count, N, N)).astype(np.float32)
    noise[:, :10, :10] += 30.0  # beyond the disc: with it the deviation there would be 5.5
    cut = CutImages(noise, particles(count), SIDE, radius_px=RADIUS)[np.arange(count)]
    deviation = cut.std(0) / 2.5
    assert deviation[distance(SIDE) > 12].mean() == pytest.approx(1, abs=0.06)
    assert deviation[distance(SIDE) <= 12].mean() == pytest.approx(1, abs=0.03)
    spectrum = (np.abs(np.fft.fft2(cut, norm="ortho")) ** 2).mean(0) / 2.5**2
    low, high = spectrum[:4, :4].mean(), spectrum[8:12, 8:12].mean()
    assert low == pytest.approx(high, abs=0.05) and spectrum.mean() == pytest.approx(1, abs=0.05)


def test_an_image_is_the_same_whenever_it_is_read():
    images = np.random.default_rng(2).normal(size=(6, N, N)).astype(np.float32)
    cut = CutImages(images, particles(6), SIDE, radius_px=RADIUS)
    every = cut[np.arange(6)]
    np.testing.assert_array_equal(cut[np.array([4, 1])], every[[4, 1]])
    assert not np.array_equal(every[0][0], every[1][0])


def test_found_displacements_come_back_to_the_large_box():
    given = particles(8, shift_px=6.0)
    cut = CutImages(np.zeros((8, N, N), np.float32), given, SIDE, radius_px=RADIUS)
    low = tomography.cropped_images(cut, cut.particles, 16)._replace(offsets=cut.offsets)
    assert low.ratio == SIDE / 16
    np.testing.assert_allclose(low.enlarged(low.particles, given).shifts, given.shifts, atol=1e-5)


def test_sizes_that_cannot_be_are_refused():
    assert cut_pixels(256, 20.0, shift_px=3.0) > cut_pixels(256, 20.0) and cut_pixels(32, 20.0) == 32
    images = np.zeros((2, N, N), np.float32)
    with pytest.raises(ParameterError, match="radius_px"):
        cut_pixels(N, 0.0)
    with pytest.raises(ParameterError, match="pixels"):
        CutImages(images, particles(2), N + 2, radius_px=RADIUS)
    with pytest.raises(ShapeError, match="images"):
        CutImages(images, particles(3), SIDE, radius_px=RADIUS)


def discs(count, radius, noise, *, neighbours=0.0, hole=0.0):
    """Discs, with holes, in white noise; a share of the images has another one at 1.05 to 1.5 diameters."""
    rng = np.random.default_rng(3)
    found = noise * rng.normal(size=(count, N, N))
    found += (distance(N) <= radius) & (distance(N) >= hole)
    for image in found[: round(neighbours * count)]:
        away, angle = 2 * radius * rng.uniform(1.05, 1.5), rng.uniform(0, 2 * np.pi)
        image += distance(N, (away * np.cos(angle), away * np.sin(angle))) <= radius
    return found.astype(np.float32)


def test_neighbours_are_told_from_a_ball_that_is_too_small():
    crowd = discs(300, RADIUS, 2.0, neighbours=0.8)
    right, small = signal_support(crowd, RADIUS + 2), signal_support(crowd, 5.0)
    assert right.sure >= 0.2 and right.neighbours is True and right.particle_px == pytest.approx(RADIUS, abs=2)
    assert small.neighbours is False and small.particle_px == pytest.approx(RADIUS, abs=2)
    unsure = signal_support(crowd, RADIUS - 1)  # its soft edge holds the rim, the ball does not
    assert unsure.sure >= 0.2 and unsure.neighbours is None
    alone = signal_support(discs(300, 20.0, 2.0), 12.0)
    assert alone.sure >= 0.3 and alone.neighbours is False and alone.particle_px == pytest.approx(20, abs=2)
    shell = signal_support(discs(300, 20.0, 2.0, hole=15.0), 8.0)  # nothing inside the ball: what is beyond it may be either
    assert shell.sure >= 0.9 and shell.neighbours is None


def test_neighbours_in_all_corners_are_found_by_the_gap_about_the_particle():
    far = distance(N) >= 24
    crowd = discs(300, RADIUS, 2.0) + np.float32(0.7) * far
    found = signal_support(crowd, RADIUS + 2)
    ours, theirs = (distance(N) <= RADIUS).sum(), 0.7**2 * (far & (np.rint(distance(N)) < N // 2)).sum()
    assert found.neighbours is True and found.beyond == pytest.approx(theirs / (ours + theirs), abs=0.05)
