"""Sums made symmetric once, beside sums of images spread once per element of the group."""

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from lfjax.errors import ParameterError
from lfjax.tomography import add_noise, fsc, gridding, random_particles, reconstruct, sums, symmetry_group
from lfjax.tomography.sums import Sums
from lfjax.tomography.symmetric_sums import symmetrise

N = 24
BALL = np.linalg.norm(np.indices((N, N, N)) - N // 2, axis=0) < N // 2 - 3


def molecule(name):
    """Gaussians, and all their images under a group."""
    x = np.arange(N) - N // 2
    points = np.random.default_rng(3).normal(size=(7, 3))
    points *= np.linspace(0.15, 0.4, 7)[:, None] * N / np.linalg.norm(points, axis=1, keepdims=True)
    every = (points[:, None, None] @ np.swapaxes(symmetry_group(name), 1, 2)).reshape(-1, 3)
    parts = np.exp(-((x[:, None] - every.T[:, None, :]) ** 2) / (2 * 1.3**2))
    return np.einsum("xp,yp,zp->zyx", *parts)


def scene(name, count, *, optics=True, snr=None):
    truth, optics = molecule(name), (9000.0, 20000.0) if optics else None
    particles = random_particles(jax.random.key(0), count, pixel_angstrom=4.0, shift_px=1.0, defocus_angstrom=optics)
    images = particles.projector(N, kernel=4)(truth)
    return truth, particles, np.asarray(images if snr is None else add_noise(jax.random.key(1), images, snr))


def one_by_one(particles, images, name):
    """Sums of every image at R g, for each g."""
    found = Sums.empty(N)
    for g in symmetry_group(name).astype(np.float32):
        turned = eqx.tree_at(lambda p: p.rotations, particles, particles.rotations @ g)
        found = found.add(turned, images)
    return found


def relative(a, b):
    a, b = np.asarray(a)[BALL], np.asarray(b)[BALL]
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(("name", "count"), [("C3", 60), ("T", 60), ("I", 20), ("I3", 20)])
@pytest.mark.parametrize("optics", [False, True])
def test_clean_maps_are_those_of_images_spread_for_each_element(name, count, optics):
    """Within 1 %, of which 0.3 to 0.8 % are taken.

    Gridding itself is 4 to 6 % from the truth here; linear interpolation without its correction is 3 to 4.5 % from the maps of
    images spread for each element.
    """
    truth, particles, images = scene(name, count, optics=optics)
    found, wanted = Sums.empty(N).add(particles, images).symmetrised(name), one_by_one(particles, images, name)
    maps = found.volume(), wanted.volume()
    assert relative(*maps) <= 0.01
    assert np.asarray(fsc(*maps))[1 : N // 2 - 1].min() >= 0.999
    assert relative(maps[0], truth) <= relative(maps[1], truth) + 0.01
    np.testing.assert_allclose(found.weights()[2:-1], wanted.weights()[2:-1], rtol=0.03)  # the blur of interpolation


@pytest.mark.parametrize(("name", "count"), [("C3", 60), ("T", 60), ("I", 20)])
def test_noisy_maps_are_as_good_as_those_of_images_spread_for_each_element(name, count):
    """They divide data by weights of cells that hold other samples, so that their noise differs, but not its power."""
    truth, particles, images = scene(name, count, snr=0.1)
    found = Sums.empty(N).add(particles, images).symmetrised(name).volume()
    wanted = one_by_one(particles, images, name).volume()
    assert relative(found, truth) <= 1.03 * relative(wanted, truth)
    assert relative(found, wanted) <= 0.7 * relative(wanted, truth)
    gained = np.asarray(fsc(found, truth)) - np.asarray(fsc(wanted, truth))
    assert gained[1:-2].min() >= -0.02 and gained[1:-2].mean() >= -0.003


@pytest.mark.parametrize("name", ["C2", "C4", "D2", "D4", "O"])
def test_elements_that_map_the_grid_to_itself_are_exact(name):
    _, particles, images = scene("C1", 20)
    found, wanted = Sums.empty(N).add(particles, images).symmetrised(name), one_by_one(particles, images, name)
    assert relative(found.volume(), wanted.volume()) <= 1e-3  # a thousandth of the mean weight has another mean
    totals = [
        gridding.inside(sums.folded(s.plane, s.total), 0, s.plane.grid // 2 + 1, s.plane.kernel, s.plane.grid)
        for s in (found, wanted)
    ]
    # a sample halfway between cells may fall to either side once turned, where the kernel ends with a small step
    assert np.linalg.norm(totals[0] - totals[1]) <= 2e-4 * np.linalg.norm(totals[1])


@pytest.mark.parametrize("name", ["C3", "T", "I"])
def test_symmetric_maps_are_turned_to_themselves(name):
    _, particles, images = scene(name, 20)
    once = Sums.empty(N).add(particles, images).symmetrised(name)
    volume = np.asarray(once.volume())
    assert relative(once.symmetrised(name).volume(), volume) <= 0.01
    places = (np.argwhere(BALL) - N // 2)[:, ::-1]
    for g in symmetry_group(name)[1:4]:
        turned = map_coordinates(volume, (places @ g.T)[:, ::-1].T + N // 2, order=3)
        assert np.corrcoef(turned, volume[BALL])[0, 1] > 0.999


def test_one_element_changes_nothing():
    _, particles, images = scene("C1", 20)
    before = Sums.empty(N).add(particles, images)
    np.testing.assert_array_equal(symmetrise(before.plane, before.total, np.eye(3)[None]), before.total)
    np.testing.assert_array_equal(before.symmetrised("c1").total, before.total)
    with pytest.raises(ParameterError, match="X2"):
        before.symmetrised("X2")


def test_the_group_may_be_an_argument_of_a_compiled_function():
    _, particles, images = scene("C1", 20)
    before = Sums.empty(N).add(particles, images)
    folded, group = sums.folded(before.plane, before.total), symmetry_group("D3").astype(np.float32)
    found = jax.jit(lambda total, group: 2 * symmetrise(before.plane, total, group))(folded, group)
    np.testing.assert_allclose(found, 2 * symmetrise(before.plane, folded, group), atol=1e-5 * np.abs(found).max())


def test_folding_undoes_unfolding():
    _, particles, images = scene("C1", 20)
    before = Sums.empty(N).add(particles, images)
    plane, folded = before.plane, sums.folded(before.plane, before.total)
    again = gridding.fold(gridding.unfold(folded, plane.kernel, plane.grid), plane.kernel, plane.grid)
    inside = [gridding.inside(total, 0, plane.grid // 2 + 1, plane.kernel, plane.grid) for total in (folded, again)]
    np.testing.assert_allclose(inside[1], inside[0], atol=1e-6 * np.abs(inside[0]).max())


def test_each_half_map_is_made_symmetric_by_itself():
    _, particles, images = scene("D3", 40)
    found = reconstruct([(images[:25], particles[:25]), (images[25:], particles[25:])], N, symmetry="D3")
    for number, half in zip((1, 2), found.halves, strict=True):
        chosen = np.asarray(particles.half) == number
        alone = Sums.empty(N).add(particles[chosen], images[chosen]).symmetrised("D3")
        assert relative(half, alone.volume()) <= 1e-3
