"""Anisotropy of half-maps and of sets of views, against closed forms."""

import jax
import numpy as np
import pytest

from lfjax import rotation, tomography
from lfjax.errors import ParameterError, ShapeError


def stretched(n, stretch, seed=0):
    """Half-maps whose correlation is 1/2 at 0.25 / voxel in x and y, and at `stretch` times that along z."""
    rng = np.random.default_rng(seed)
    k = np.fft.fftfreq(n)
    radius = np.sqrt((k[:, None, None] / stretch) ** 2 + k[:, None] ** 2 + k**2)
    signal = rng.normal(size=(n, n, n))
    power = np.minimum((radius / 0.25) ** 8, 30)
    return [signal + np.fft.ifftn(np.fft.fftn(rng.normal(size=(n, n, n))) * np.sqrt(power)).real for _ in range(2)]


def test_resolution_follows_the_axis_of_a_stretched_spectrum():
    found = tomography.directional_fsc(
        *stretched(48, 0.6), 2.0, directions=np.array([[0, 0, 2.0], [1, 0, 0], [0, -1, 0]]), half_angle_rad=0.3, threshold=0.5
    )
    assert found.resolution_angstrom[0] == pytest.approx(8 / 0.6, rel=0.12)
    np.testing.assert_allclose(found.resolution_angstrom[1:], 8.0, rtol=0.1)
    assert found.ratio == pytest.approx(1 / 0.6, rel=0.15)
    np.testing.assert_allclose(np.linalg.norm(found.directions, axis=1), 1)


def test_anisotropy_shows_in_every_figure():
    even = tomography.directional_fsc(*stretched(48, 1.0), 2.0, directions=60)
    uneven = tomography.directional_fsc(*stretched(48, 0.5), 2.0, directions=60)
    assert even.ratio <= 1.35 and even.sphericity >= 0.98 and even.area_ratio >= 0.9 and even.spread <= 0.05
    assert uneven.ratio >= 1.5 and uneven.sphericity <= 0.95 and uneven.area_ratio <= 0.75 and uneven.spread >= 0.12
    assert abs(found_z(uneven)) >= 0.8


def found_z(found):
    return found.directions[np.argmax(found.resolution_angstrom), 2]


def test_a_cone_of_ninety_degrees_is_the_whole_shell():
    a, b = stretched(24, 1.0)
    found = tomography.directional_fsc(a, b, 1.0, directions=12, half_angle_rad=np.pi / 2)
    np.testing.assert_allclose(found.curves, np.broadcast_to(tomography.fsc(a, b), (12, 13)), atol=1e-5)


@pytest.mark.parametrize("n", [23, 24])
def test_cones_equal_a_plain_sum_over_the_whole_spectrum(n):
    a, b = stretched(n, 0.7)
    axis, angle = np.array([1.0, 2.0, -0.5]), 0.5
    found = tomography.directional_fsc(a, b, 1.0, directions=axis[None], half_angle_rad=angle)
    k = np.fft.fftfreq(n) * n
    z, y, x = np.meshgrid(k, k, k, indexing="ij")
    length = np.sqrt(x**2 + y**2 + z**2)
    inside = np.abs(x * axis[0] + y * axis[1] + z * axis[2]) >= length * np.linalg.norm(axis) * np.cos(angle)
    fa, fb = np.fft.fftn(a), np.fft.fftn(b)
    for shell in (5, 9, n // 2 - 1):
        s = inside & (np.floor(length + 0.5) == shell)
        expected = (fa * fb.conj())[s].real.sum() / np.sqrt((np.abs(fa[s]) ** 2).sum() * (np.abs(fb[s]) ** 2).sum())
        # at Nyquist of an even size one sign stands for both, of which a cone may hold only one
        assert found.curves[0, shell] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("axis", [0.25, 0.5, 1.0, 2.0])
def test_sphericity_of_a_spheroid(axis):
    directions = tomography.half_sphere(2000)
    radii = 1 / np.sqrt(directions[:, 0] ** 2 + directions[:, 1] ** 2 + (directions[:, 2] / axis) ** 2)
    if axis == 1:
        surface = 4 * np.pi
    elif axis < 1:
        e = np.sqrt(1 - axis**2)
        surface = 2 * np.pi * (1 + (1 - e**2) / e * np.arctanh(e))
    else:
        e = np.sqrt(1 - axis**-2)
        surface = 2 * np.pi * (1 + axis / e * np.arcsin(e))
    expected = np.pi ** (1 / 3) * (6 * 4 / 3 * np.pi * axis) ** (2 / 3) / surface
    assert tomography.sphericity(directions, 3 * radii) == pytest.approx(expected, abs=5e-3)


def views(tilt, count=4000):
    """Views at an angle to z, evenly about it."""
    spin = np.random.default_rng(0).uniform(-np.pi, np.pi, count)
    return rotation.from_euler(2 * np.pi * np.arange(count) / count, np.broadcast_to(tilt, count), spin)


def test_uniform_views_sample_all_directions_alike():
    found = tomography.orientation_coverage(rotation.random_rotations(jax.random.key(0), 20000), width_rad=0.05)
    assert found.unsampled == 0 and found.empty_half_angle_rad == 0
    assert found.compensation == pytest.approx(1.0, abs=3e-3)
    np.testing.assert_allclose(found.sampling, 1.0, atol=0.15)


def test_side_views_sample_the_axis_best():
    found = tomography.orientation_coverage(views(np.pi / 2), width_rad=0.02)
    assert found.compensation == pytest.approx(8 / np.pi**2, rel=0.01)
    polar = np.arccos(found.directions[:, 2])
    middle = polar > 0.3
    np.testing.assert_allclose(found.sampling[middle], 2 / np.pi / np.sin(polar[middle]), rtol=0.1)


@pytest.mark.parametrize("tilt_degrees", [20, 45, 70])
def test_views_about_one_axis_leave_a_cone_empty(tilt_degrees):
    tilt = np.deg2rad(tilt_degrees)
    found = tomography.orientation_coverage(views(tilt), directions=4000, width_rad=0.01)
    assert found.unsampled == pytest.approx(1 - np.sin(tilt), abs=0.015)
    assert np.rad2deg(found.empty_half_angle_rad) == pytest.approx(90 - tilt_degrees, abs=2.5)
    assert abs(found.empty_axis[2]) >= 0.998
    again = tomography.orientation_coverage(tomography.Particles(views(tilt)), directions=4000, width_rad=0.01)
    np.testing.assert_array_equal(again.sampling, found.sampling)


def test_uniform_views_without_ctf_count_once_per_half_radius():
    count, size = 1100, 32
    particles = tomography.random_particles(jax.random.key(1), count, pixel_angstrom=2.0, defocus_angstrom=None)
    found = tomography.transfer_sections(particles, size, angles=24)
    assert found.power.shape == (3, 24, 16)
    np.testing.assert_allclose(found.frequency, np.arange(1, 17) / 64)
    np.testing.assert_allclose(np.mean(found.power, (0, 1)), count / (2 * np.arange(1, 17)), rtol=0.12)


def test_one_view_gives_its_ctf_to_its_own_plane_only():
    ctf = tomography.Ctf(9000.0, 8000.0, 0.4)
    one = tomography.Particles(np.eye(3)[None], ctf=ctf, pixel_angstrom=2.0)
    found = tomography.transfer_sections(one, 32, angles=8)
    kx = np.cos(found.angle_rad)[:, None] * found.frequency
    ky = np.sin(found.angle_rad)[:, None] * found.frequency
    np.testing.assert_allclose(found.power[0], ctf.power(kx, ky), atol=1e-3)
    assert np.asarray(found.power)[1, 2].max() == 0  # 45 degrees from x towards z
    np.testing.assert_allclose(found.power[1, 0], found.power[0, 0], atol=1e-5)


def test_wrong_arguments_are_named(unchecked):
    a = np.random.default_rng(0).normal(size=(16, 16, 16))
    with pytest.raises(ShapeError, match="second"):
        tomography.directional_fsc(a, a[:8], 1.0)
    with pytest.raises(ShapeError, match="directions"):
        tomography.directional_fsc(a, a, 1.0, directions=np.ones((4, 2)))
    with pytest.raises(ParameterError, match="directions"):
        tomography.directional_fsc(a, a, 1.0, directions=np.zeros((4, 3)))
    with pytest.raises(ParameterError, match="half_angle_rad"):
        tomography.directional_fsc(a, a, 1.0, half_angle_rad=20.0)
    with pytest.raises(ParameterError, match="width_rad"):
        tomography.orientation_coverage(np.eye(3)[None], width_rad=2.0)
    with pytest.raises(ShapeError, match="rotations"):
        tomography.orientation_coverage(np.eye(3))
    with pytest.raises(ParameterError, match="radii"):
        tomography.sphericity(tomography.half_sphere(20), np.zeros(20))
