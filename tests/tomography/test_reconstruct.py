import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lfjax import rotation
from lfjax.errors import ParameterError, ShapeError
from lfjax.solvers import CG, Problem, run
from lfjax.tomography import fourier_shells, read_particles, spherical_mask
from lfjax.tomography.inversion import reconstruct
from lfjax.tomography.particles import Particles, add_noise, random_particles
from lfjax.tomography.refine import refine_poses
from lfjax.tomography.sums import Sums
from lfjax.tomography.symmetry import symmetry_group


def ball(n, radius, centre=(0.0, 0.0, 0.0), edge=2.0):
    x = np.arange(n) - n // 2
    z, y, x = np.meshgrid(x - centre[2], x - centre[1], x - centre[0], indexing="ij")
    return 1 / (1 + np.exp((np.sqrt(x**2 + y**2 + z**2) - radius) / edge * 4))


def phantom(n=32):
    """Three soft balls without any symmetry, and a step in one of them."""
    balls = ball(n, 6.0, (2, -3, 1)) + 0.7 * ball(n, 3.5, (-6, 4, 3)) + 1.2 * ball(n, 2.5, (3, 6, -6), edge=1.5)
    return jnp.asarray(balls)


def relative(a, b):
    a, b = np.ravel(a), np.ravel(b)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("n", [31, 32])
@pytest.mark.parametrize("optics", [None, (9000.0, 20000.0)])
def test_many_clean_images_give_the_volume(n, optics):
    truth = phantom(n)
    particles = random_particles(jax.random.key(0), 600, pixel_angstrom=4.0, defocus_angstrom=optics, shift_px=1.0)
    images = particles.projector(n, kernel=4)(truth)
    found = Sums.empty(n).add(particles, images).volume()
    assert relative(found, truth) <= (0.045 if optics is None else 0.065)
    assert abs(np.vdot(found, truth) / np.vdot(truth, truth) - 1) <= (0.01 if optics is None else 0.04)
    assert relative(np.flip(found), truth) > 0.3
    curve = np.asarray(fourier_shells.fsc(found, truth))
    assert float(curve[: n // 3].min()) >= (0.99 if optics is None else 0.98)


def test_sums_may_come_in_any_batches():
    particles = random_particles(jax.random.key(0), 30, pixel_angstrom=4.0)
    images = np.asarray(particles.projector(16)(phantom(16)))
    whole = Sums.empty(16).add(particles, images, batch=7)
    parts = Sums.empty(16).add(particles[:11], images[:11]) + Sums.empty(16).add(particles[11:], images[11:])
    np.testing.assert_allclose(parts.total, whole.total, atol=1e-4 * np.abs(whole.total).max())
    with pytest.raises(ShapeError, match="images"):
        whole.add(particles, images[:5])


def test_weights_are_what_was_added_whichever_half_of_space_stores_it():
    """Poses that differ by a turn of the object about any axis by 180 degrees fill mirrored parts of the grid alike."""
    particles = random_particles(jax.random.key(0), 30, pixel_angstrom=4.0, defocus_angstrom=None)
    flipped = Particles(np.diag([-1.0, -1.0, 1.0]) @ np.asarray(particles.rotations))
    images = np.asarray(particles.projector(16)(phantom(16)))
    turned = np.roll(np.flip(images, (1, 2)), (1, 1), (1, 2))
    one, two = (Sums.empty(16, cutoff=0.8).add(p, i) for p, i in ((particles, images), (flipped, turned)))
    assert relative(two.volume(), one.volume()) <= 1e-4
    np.testing.assert_allclose(one.weights(), two.weights(), rtol=1e-4, atol=1e-4)


def test_noise_powers_divide_data_and_weights_of_their_group():
    """Twice the noise power in one group counts its images half; a power for all changes nothing but the weights."""
    particles = random_particles(jax.random.key(0), 24, pixel_angstrom=4.0)
    images = np.asarray(particles.projector(16)(phantom(16)))
    group = np.arange(24) // 12
    grouped = Particles(particles.rotations, ctf=particles.ctf, pixel_angstrom=4.0, group=group)
    powers = np.stack([np.full(9, 2.0), np.linspace(1, 4, 9)])
    found = Sums.empty(16).add(grouped, images, noise=powers)
    first, second = (Sums.empty(16).add(grouped[group == g], images[group == g]) for g in (0, 1))
    np.testing.assert_allclose(
        Sums.empty(16).add(grouped, images, noise=powers[:1].repeat(2, 0)).volume(), (first + second).volume(), atol=1e-4
    )
    shell = np.arange(9)
    ratio = (np.asarray(found.weights()) - np.asarray(first.weights()) / 2) / np.asarray(second.weights())
    np.testing.assert_allclose(ratio[1:-1], 1 / np.linspace(1, 4, 9)[shell][1:-1], rtol=0.1)
    with pytest.raises(ParameterError, match="noise.*one per optics group, 2"):
        Sums.empty(16).add(grouped, images, noise=powers[:1])
    with pytest.raises(ParameterError, match="noise.*more than 0"):
        Sums.empty(16).add(grouped, images, noise=powers * 0)
    with pytest.raises(ShapeError, match="noise"):
        Sums.empty(16).add(grouped, images, noise=powers[:, 1:])


def test_noise_that_is_known_gives_a_better_map():
    particles = random_particles(jax.random.key(0), 200, pixel_angstrom=4.0)
    clean = np.asarray(particles.projector(24)(phantom(24)))
    group = np.arange(200) % 2
    deviation = np.where(group, 4.0, 1.0) * 3 * clean.std()
    images = clean + deviation[:, None, None] * np.random.default_rng(0).normal(size=clean.shape)
    grouped = Particles(
        particles.rotations, ctf=particles.ctf, pixel_angstrom=4.0, group=group, half=np.arange(200) // 2 % 2 + 1
    )
    powers = np.stack([np.full(13, 1.0), np.full(13, 16.0)])
    plain, weighted = (reconstruct([(images, grouped)], 24, noise=n) for n in (None, powers))
    curves = [np.asarray(fourier_shells.fsc(found.volume, phantom(24)))[2:9] for found in (plain, weighted)]
    assert (curves[1] > curves[0]).all()


def test_symmetry_counts_every_image_for_each_element():
    group = symmetry_group("C3")
    one = random_particles(jax.random.key(0), 400, pixel_angstrom=4.0, defocus_angstrom=None)
    turned = np.concatenate([np.asarray(one.rotations) @ g for g in group])
    threefold = Sums.empty(32).add(Particles(turned), np.tile(one.projector(32)(phantom()), (3, 1, 1))).volume()
    few = one[:25]
    images = few.projector(32)(threefold)
    with_it, without = (Sums.empty(32).add(few, images).symmetrised(s).volume() for s in ("C3", "C1"))
    assert relative(with_it, threefold) < 0.6 * relative(without, threefold)


def test_conjugate_gradients_through_the_operator_reach_the_same_volume():
    particles = random_particles(jax.random.key(0), 200, pixel_angstrom=4.0, defocus_angstrom=None)
    operator = particles.projector(16, kernel=3)
    images = operator(phantom(16))
    found = run(CG(), Problem(operator, images), 15).x
    assert relative(found, phantom(16)) <= 0.05


def test_half_maps_tell_the_resolution_and_shuffled_poses_have_less_of_it():
    particles = random_particles(jax.random.key(0), 400, pixel_angstrom=4.0, shift_px=1.0)
    images = add_noise(jax.random.key(1), particles.projector(32)(phantom()), 0.1)
    images = np.asarray(images)
    batches = [(images[i : i + 150], particles[i : i + 150]) for i in range(0, 400, 150)]
    found = reconstruct(batches, 32)
    order = np.random.default_rng(0).permutation(400)
    shuffled = Particles(np.asarray(particles.rotations)[order], ctf=particles.ctf, pixel_angstrom=4.0, half=particles.half)
    wrong = reconstruct([(images[i : i + 150], shuffled[i : i + 150]) for i in range(0, 400, 150)], 32)
    assert found.resolution_angstrom < 0.6 * wrong.resolution_angstrom
    assert np.asarray(fourier_shells.fsc(found.volume, phantom()))[:6].min() >= 0.95
    alone = Particles(particles.rotations, pixel_angstrom=4.0)
    with pytest.raises(ParameterError, match="half"):
        reconstruct([(images, alone)], 32)


@pytest.mark.filterwarnings("ignore:.*rlnCtfBfactor")
def test_real_tilt_images(shared):
    """219 real images of six ribosomes; weak data, so that only the comparison with shuffled poses says something."""
    file = read_particles(shared / "data/cryo/sta_testing_bin8.star", pixel_angstrom=14.56)
    images = -file.images()
    particle = np.unique(file.tables["particles"]["rlnGroupName"], return_inverse=True)[1]
    images = (images - images.mean((1, 2), keepdims=True)) / images.std((1, 2), keepdims=True)
    mask = spherical_mask(64, 10.0)
    shell = []
    for seed in (None, 0, 1, 2):
        turns = np.asarray(file.particles.rotations)
        if seed is not None:
            turns = turns[np.random.default_rng(seed).permutation(len(file))]
        posed = Particles(turns, ctf=file.particles.ctf, pixel_angstrom=14.56, half=particle % 2 + 1)
        halves = [np.asarray(half) * mask for half in reconstruct([(images, posed)], 64).halves]
        shell.append(np.asarray(fourier_shells.fsc(*halves))[6])
    assert shell[0] >= 0.3 > 2 * max(shell[1:])


def test_fsc_of_a_map_with_itself_and_with_noise():
    a, b, c = np.random.default_rng(0).normal(size=(3, 24, 24, 24))
    np.testing.assert_allclose(fourier_shells.fsc(a, a), 1.0, rtol=1e-5)
    np.testing.assert_allclose(fourier_shells.fsc(a, -3 * a)[1:], -1.0, rtol=1e-5)
    assert np.abs(fourier_shells.fsc(a, b))[4:].max() <= 0.2
    # of a + b and a + c the correlation is 1/2 in every shell
    assert np.abs(np.asarray(fourier_shells.fsc(a + b, a + c))[6:] - 0.5).max() <= 0.1


def test_the_falling_curve_is_nearer_to_the_truth_and_never_reaches_zero():
    shell = np.arange(33)
    truth = 1 / (1 + np.exp((shell - 14) / 2.0))
    count = np.maximum(4 * np.pi * shell**2, 1)
    rng = np.random.default_rng(0)
    gap = []
    for _ in range(20):
        seen = np.clip(truth + (1 - truth**2) * rng.normal(size=33) / np.sqrt(count), -1, 1)
        found = fourier_shells.falling(seen)
        start = np.flatnonzero(seen < 0.5)[0] - 1
        assert (np.diff(found[start:]) <= 1e-12).all() and (found[1:] >= 1 / np.sqrt(count[1:])).all() and found.max() < 1
        np.testing.assert_allclose(found[1:start], np.minimum(seen[1:start], 0.999), atol=0.3)
        gap.append([np.abs(found - truth)[18:28].mean(), np.abs(seen - truth)[18:28].mean()])
    assert np.mean(gap, axis=0)[0] < np.mean(gap, axis=0)[1]
    np.testing.assert_array_equal(fourier_shells.falling(np.ones(9)), 0.999)
    assert fourier_shells.falling(-np.ones(9))[-1] == pytest.approx(1 / np.sqrt(4 * np.pi * 64))


def test_no_shell_of_a_map_is_emptied_by_chance():
    particles = random_particles(jax.random.key(0), 60, pixel_angstrom=4.0)
    images = add_noise(jax.random.key(1), particles.projector(32)(phantom()), 0.05)
    found = reconstruct([(np.asarray(images), particles)], 32)
    assert (np.asarray(found.curve) < 0).any()  # half-maps disagree somewhere
    shell = np.asarray(fourier_shells.shells(32)).ravel()
    power = [np.bincount(shell, np.abs(np.fft.rfftn(v)).ravel() ** 2)[1:17] for v in (found.volume, found.unfiltered)]
    assert (power[0] > 1e-3 * power[1]).all()  # where noise is all there is, its amplitude is down to a few per cent
    assert power[0][-1] < 0.2 * power[1][-1]
    curves = [np.asarray(fourier_shells.fsc(v, phantom())) for v in (found.volume, found.unfiltered)]
    assert curves[0][1:13].sum() >= curves[1][1:13].sum()


def test_the_map_outside_of_the_ball_is_flat():
    particles = random_particles(jax.random.key(0), 30, pixel_angstrom=4.0)
    images = np.random.default_rng(0).normal(size=(30, 24, 24))
    volume = np.asarray(Sums.empty(24).add(particles, images).volume())
    x = np.arange(24) - 12
    outside = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2) >= 12
    assert volume[outside].std() <= 1e-5 * volume.std() < volume[~outside].std()


def test_resolution_is_read_between_shells():
    assert fourier_shells.resolution(np.array([1.0, 1.0, 0.6, 0.4, 0.1]), 100.0, 0.5) == pytest.approx(100 / 2.5)
    assert fourier_shells.resolution(np.ones(5), 100.0) == pytest.approx(25.0)
    assert fourier_shells.resolution(np.zeros(5), 100.0) == np.inf


def test_the_mask_correction_takes_away_what_the_mask_does():
    """Half-maps of independent noise correlate inside a tight mask; corrected, they do not."""
    noise = 4 * np.random.default_rng(1).normal(size=(2, 32, 32, 32))
    low = [20 * np.asarray(phantom()) + n for n in noise]
    mask = spherical_mask(32, 5.0, 3.0)
    found = fourier_shells.masked_fsc(*low, mask)
    assert 2 <= found.cutoff <= 10
    assert np.abs(found.corrected)[found.cutoff + 2 :].mean() <= 0.35
    assert np.asarray(found.masked)[:3].min() > 0.8


def test_random_phases_keep_the_power():
    a = phantom()
    mixed = fourier_shells.randomise_phases(jax.random.key(0), a, 4)
    spectra = [np.fft.rfftn(v) for v in (a, mixed)]
    power = [np.abs(spectrum) for spectrum in spectra]
    shell = np.asarray(fourier_shells.radii(32))
    inside = (shell >= 4) & (np.arange(17) % 16 > 0)  # at the edges a real volume fixes the phases
    np.testing.assert_allclose(power[1][inside], power[0][inside], rtol=1e-2, atol=1e-3)
    assert relative(spectra[1][shell < 4], spectra[0][shell < 4]) <= 1e-5
    assert abs(np.asarray(fourier_shells.fsc(a, mixed))[5:].mean()) <= 0.2


def test_poses_are_refined_from_five_degrees_off():
    n = 60
    particles = random_particles(jax.random.key(0), n, pixel_angstrom=4.0, shift_px=1.0)
    images = add_noise(jax.random.key(1), particles.projector(32)(phantom()), 5.0)
    rng = np.random.default_rng(2)
    axis = rng.normal(size=(n, 3))
    turn = Rotation.from_rotvec(np.deg2rad(5) * axis / np.linalg.norm(axis, axis=1, keepdims=True)).as_matrix()
    moved = np.asarray(particles.shifts) + 0.7 * rng.normal(size=(n, 2))
    turned = turn @ np.asarray(particles.rotations)
    start = Particles(turned, shifts=moved, ctf=particles.ctf, pixel_angstrom=4.0, half=particles.half)
    found = refine_poses(phantom(), images, start, cutoffs=(0.3, 0.6))
    distance = jax.jit(rotation.distance)
    error = np.rad2deg(distance(found.particles.rotations, particles.rotations))
    assert np.median(error) <= 1.0 and np.asarray(found.ratio).max() <= 1.0
    apart = np.asarray(found.particles.shifts) - np.asarray(particles.shifts)
    assert np.median(np.linalg.norm(apart, axis=1)) <= 0.15
    exact = refine_poses(phantom(), particles.projector(32)(phantom()), start, cutoffs=(0.3, 0.6, 0.9))
    assert np.median(np.rad2deg(distance(exact.particles.rotations, particles.rotations))) <= 0.02
