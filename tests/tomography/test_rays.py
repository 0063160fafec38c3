import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError, ShapeError
from lfjax.metrics import psnr
from lfjax.solvers import SIRT, Problem, run
from lfjax.tomography.ct import filtered_back_projection
from lfjax.tomography.rays import Rays

ANGLES = jnp.linspace(0, np.pi, 60, endpoint=False)


def disc(n=64, radius=10.0, centre=(5.0, -8.0)):
    """A disc at (x, y), each pixel the share of it inside."""
    g = (np.arange(8 * n) + 0.5) / 8 - 0.5 - n // 2
    inside = (g - centre[0]) ** 2 + (g[:, None] - centre[1]) ** 2 < radius**2
    return jnp.asarray(inside.reshape(n, 8, n, 8).mean((1, 3)), jnp.float32)


def chords(u, centre, radius=10.0):
    return 2 * np.sqrt(np.clip(radius**2 - (u - centre) ** 2, 0, None))


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_parallel_beams_see_the_chords_of_a_disc():
    seen = Rays.parallel(ANGLES, 64)(disc())
    centre = 5 * np.cos(ANGLES) - 8 * np.sin(ANGLES)
    assert relative(seen, chords(np.arange(64) - 32, np.asarray(centre)[:, None])) <= 0.04
    np.testing.assert_allclose(seen[0], disc().sum(0), atol=1e-4)


def test_fan_beams_see_the_chords_of_a_disc():
    source, detector, count = 150.0, 100.0, 161
    seen = Rays.fan(ANGLES[::10], 64, source, detector, count)(disc())
    for angle, row in zip(np.asarray(ANGLES[::10]), seen, strict=True):
        across, along = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        start = -source * along
        end = detector * along + across * (np.arange(count) - 80)[:, None]
        way = (end - start) / np.linalg.norm(end - start, axis=1, keepdims=True)
        offset = np.array([5, -8]) - start
        distance = np.abs(way[:, 0] * offset[1] - way[:, 1] * offset[0])
        assert relative(row, 2 * np.sqrt(np.clip(100 - distance**2, 0, None))) <= 0.05


def test_projections_of_a_volume_are_the_closed_form(shared):
    data = np.load(shared / "reference/cryo/inputs.npz")
    wanted = np.load(shared / "reference/cryo/analytic_gauss64.npz")["proj"]
    made = Rays.parallel_3d(jnp.asarray(data["R8"], jnp.float32), 64)(jnp.asarray(data["gauss64"], jnp.float32))
    assert relative(made, wanted) <= 0.02  # linear interpolation smooths


def test_a_cone_from_far_away_is_a_parallel_beam():
    volume = jnp.stack([disc(16, 4.0, (1.0, -2.0)) * w for w in np.hanning(16)])
    cone = Rays.cone(ANGLES[:2], (16, 16, 16), 1e4, 0.0, (15, 15))(volume)
    for z in range(15):
        flat = Rays.parallel(ANGLES[:2], 16)(volume[z + 1])
        assert float(jnp.abs(cone[:, z] - flat[:, 1:]).max()) <= 0.05


def test_filtered_back_projection_gives_the_density():
    found = filtered_back_projection(Rays.parallel(ANGLES, 64)(disc()), ANGLES, 64)
    assert float(found[24, 37]) == pytest.approx(1.0, abs=0.02) and float(psnr(found, disc())) > 30
    smooth = filtered_back_projection(Rays.parallel(ANGLES, 64)(disc()), ANGLES, 64, window="hann")
    assert float(smooth[24, 37]) == pytest.approx(1.0, abs=0.02)


def test_sirt_approaches_the_density():
    operator = Rays.parallel(ANGLES, 64)
    result = run(SIRT(), Problem(operator, operator(disc())), 100)
    assert float(psnr(result.x, disc())) > 27 and float(result.x.min()) >= 0
    assert np.all(np.diff(result.objective) <= 1e-6 * result.objective[0])


def test_wrong_rays_are_named():
    with pytest.raises(ShapeError, match="directions"):
        Rays(jnp.zeros((2, 5, 2)), jnp.ones((2, 4, 2)), (8, 8))
    with pytest.raises(ShapeError, match="origins"):
        Rays(jnp.zeros((2, 5, 2)), jnp.ones((2, 5, 2)), (8, 8, 8))
    with pytest.raises(ParameterError, match="window"):
        filtered_back_projection(jnp.zeros((4, 8)), jnp.zeros(4), 8, window="box")
