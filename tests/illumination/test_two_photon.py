import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax.errors import ParameterError, ShapeError
from lfjax.illumination import LineScan, PointScan, Timing, TwoPhoton


def test_equals_the_patterns_of_the_raster_one_by_one():
    scan = PointScan(
        (3, 5, 6), (2.0, 0.5, 0.6), Timing(1e-3, 2e-3, 4e-3, 6e-3), power_mw=0.1, thickness_um=(10.0, 60.0, 110.0),
        mean_free_path_um=80.0, pixels=(3, 4, 5),
    )  # fmt: skip
    op = TwoPhoton(scan, 4, 0.05, volumes=2)
    movie = np.random.default_rng(0).random(op.in_shape)
    clear = eqx.tree_at(lambda s: s.thickness_um, scan, (0.0, 0.0, 0.0))
    shares = [np.asarray(share) for share in jax.jit(lambda s: s.shares())(clear)]
    unit = np.sum(clear.weights([0])) / 1e-3 / np.prod([share[0].sum() for share in shares])
    rates, starts = np.asarray(scan.weights()) / 1e-3, [float(t) for t in np.ravel(scan.timing.starts_s(scan.steps))]
    expected = np.zeros(op.out_shape)
    for r in range(2):
        for step in range(60):
            at = min((r * float(scan.volume_s) + starts[step] + 0.5e-3) / 0.05, 3.0)
            low = min(int(at), 2)
            sample = (1 - (at - low)) * movie[low] + (at - low) * movie[low + 1]
            expected[(r, *np.unravel_index(step, scan.steps))] = (rates[step] / unit * sample).sum()
    np.testing.assert_allclose(op(movie), expected, rtol=2e-3)


def test_a_moving_bar_is_sheared_by_its_speed_times_the_line_time():
    n, speed, line_s = 64, 0.25, 0.1  # speed in voxels per second
    scan = PointScan((1, n, n), (4.0, 1.0, 1.0), Timing(line_s / n))
    times, x = np.arange(0, 8) * 1.0, np.arange(n)
    movie = np.exp(-(((x - 20 - speed * times[:, None, None, None]) / 4) ** 2)) * np.ones((1, n, 1))
    image = np.asarray(TwoPhoton(scan, 8, 1.0)(movie))[0, 0]
    middle = (image * x).sum(1) / image.sum(1)
    lines = np.arange(5, 60)
    shear = np.polyfit(lines, middle[lines], 1)[0]
    assert shear == pytest.approx(speed * line_s, rel=0.02)


def test_a_decaying_sample_fades_along_the_slow_axis():
    n, tau = 32, 1.5
    scan = PointScan((1, n, n), (4.0, 1.0, 1.0), Timing(0.1 / n))
    decay = np.exp(-np.arange(200) * 0.02 / tau)[:, None, None, None] * np.ones((1, n, n))
    image = np.asarray(TwoPhoton(scan, 200, 0.02)(decay))[0, 0]
    assert np.polyfit(np.arange(2, n - 2) * 0.1, np.log(image[2:-2, n // 2]), 1)[0] == pytest.approx(-1 / tau, rel=0.01)


def test_counts_are_poisson():
    scan = PointScan((1, 40, 40), (4.0, 1.0, 1.0), Timing(1e-6))
    op = TwoPhoton(scan, 1, 1.0, volumes=20, photons=9.0, dark=0.5)
    counts = np.asarray(op.expose(jax.random.key(0), jnp.ones(op.in_shape)))[:, 0, 3:-3, 3:-3]
    share = float(op(jnp.ones(op.in_shape))[0, 0, 20, 20])
    assert counts.mean() == pytest.approx(9 * share + 0.5, rel=0.02)
    assert counts.var() == pytest.approx(counts.mean(), rel=0.05)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named():
    scan = PointScan((1, 4, 4), (1.0, 1.0, 1.0), Timing(1e-6))
    with pytest.raises(ParameterError, match="scan"):
        TwoPhoton(LineScan((1, 4, 4), (1.0, 1.0, 1.0), Timing(1e-6)), 1, 1.0)
    with pytest.raises(ParameterError, match="frame_s"):
        TwoPhoton(scan, 1, 0.0)
    with pytest.raises(ShapeError, match="TwoPhoton"):
        TwoPhoton(scan, 2, 1.0)(jnp.ones((1, 1, 4, 4)))
