import jax
import numpy as np
import pytest
from scipy.integrate import quad_vec
from scipy.special import j0

from lfjax.errors import ParameterError, ShapeError
from lfjax.illumination import LightSheet, LineScan, MultiFocal, PointScan, SelectiveVolume, Timing, Widefield, tradeoff
from lfjax.illumination.focus import gaussian_share, squared_psf_widths
from lfjax.illumination.tradeoffs import Detection, table

SHAPE, VOXEL = (4, 6, 8), (2.0, 1.0, 1.5)
TIMING = Timing(1e-3, line_s=2e-3, plane_s=5e-3, volume_s=7e-3)
PHOTON = 1.98645e-19


@jax.jit
def rate(light, step=0):
    """Rate of a step, as one program per class and shape."""
    return light.rate(step)


def every():
    return {
        "widefield": Widefield(SHAPE, VOXEL, TIMING),
        "sheet": LightSheet(SHAPE, VOXEL, TIMING),
        "slab": SelectiveVolume(SHAPE, VOXEL, TIMING, slab_um=(2.0, 6.0)),
        "point": PointScan(SHAPE, VOXEL, TIMING, power_mw=2.0),
        "line": LineScan(SHAPE, VOXEL, TIMING, power_mw=50.0),
        "foci": MultiFocal(SHAPE, VOXEL, TIMING, power_mw=20.0, foci=(2, 4)),
    }


def half_width(squared, coordinate):
    """Full width at half maximum of samples that fall from coordinate 0."""
    below = int(np.argmax(squared < squared[0] / 2))
    return 2 * np.interp(-squared[0] / 2, -squared[: below + 1], coordinate[: below + 1])


@pytest.mark.parametrize("na", [0.4, 0.7, 0.8, 1.0])
def test_widths_are_those_of_a_scalar_debye_focus(na):
    n, wavelength = 1.33, 0.92
    k, alpha = 2 * np.pi * n / wavelength, np.arcsin(na / n)
    r, z = np.linspace(0, 2 * wavelength / na, 400), np.linspace(0, 8 * n * wavelength / na**2, 400)
    weight = lambda t: np.sqrt(np.cos(t)) * np.sin(t) * (1 + np.cos(t)) / 2  # noqa: E731
    lateral = quad_vec(lambda t: weight(t) * j0(k * r * np.sin(t)), 0, alpha)[0]
    axial = quad_vec(lambda t: weight(t) * np.exp(1j * k * z * (np.cos(t) - 1)), 0, alpha)[0]
    xy, zz = (2 * np.sqrt(np.log(2)) * float(w) for w in squared_psf_widths(na, wavelength, n))
    assert xy == pytest.approx(half_width(np.abs(lateral) ** 4, r), rel=0.06)
    assert zz == pytest.approx(half_width(np.abs(axial) ** 4, z), rel=0.06)


def test_a_gaussian_falls_into_voxels_as_its_integral_says():
    share = gaussian_share(np.array([3.3]), 40, 0.25, 0.8)
    x = (np.arange(40000) + 0.5) / 4000
    fine = np.exp(-(((x - 3.3) / 0.8) ** 2)).reshape(40, -1).sum(1)
    np.testing.assert_allclose(share[0], fine / (0.8 * np.sqrt(np.pi) * 4000), atol=2e-6)


@pytest.mark.parametrize("name", every())
def test_weights_add_up_to_the_dose(name):
    light = every()[name]
    weights, dose = np.asarray(light.weights()), np.asarray(light.dose())
    assert weights.shape == (np.prod(light.steps), *SHAPE)
    np.testing.assert_allclose(weights.sum(0), dose, rtol=2e-5, atol=1e-6 * dose.max())
    np.testing.assert_allclose(light.operator(0)(np.ones(SHAPE, np.float32)), weights[0], rtol=1e-6)
    np.testing.assert_allclose(light.surviving(3.0), np.exp(-3 * dose / 1.25e5), rtol=1e-5)


@pytest.mark.parametrize("name", every())
def test_a_step_is_aimed_at_its_voxel(name):
    light = every()[name]
    for place in ((0, 0, 0), (2, 3, 5), (3, 5, 7)):
        at = (2, *place[1:]) if name == "slab" else place
        inside = np.asarray(rate(light, light.step_at(*at)))
        # the waist of a sheet is in the middle of the field, its plane is the brightest along z
        brightest = inside[:, at[1], at[2]].max() if name in ("sheet", "slab") else inside.max()
        assert float(inside[at]) == pytest.approx(float(brightest), rel=1e-4)


def test_times_are_dwells_and_turns():
    light = every()["point"]
    lines, points = 6, 8
    assert light.volume_s == pytest.approx(4 * (lines * (points * 1e-3 + 2e-3) + 5e-3) + 7e-3)
    assert float(light.start_s(0)) == 0
    step = np.ravel_multi_index((2, 3, 4), (4, 6, 8))
    assert float(light.start_s(step)) == pytest.approx(2 * (6 * 10e-3 + 5e-3) + 3 * 10e-3 + 4e-3)
    assert every()["foci"].volume_s == pytest.approx(4 * (3 * (2 * 1e-3 + 2e-3) + 5e-3) + 7e-3)


def test_all_the_power_crosses_the_sample():
    sigma, shape, voxel = 2.14e-8, (200, 5, 7), (0.25, 2.0, 3.0)
    options = {"timing": Timing(1.0), "power_mw": 1e-3}  # far from saturation
    to_watt = PHOTON / 0.488 / sigma
    wide = np.asarray(rate(Widefield(shape, voxel, **options)))
    assert float(wide[0].sum()) * 6 * to_watt == pytest.approx(1e-6, rel=1e-3)
    sheet = np.asarray(rate(LightSheet(shape, voxel, waist_um=2.0, **options), 100))
    np.testing.assert_allclose(sheet.sum(0) * 0.25 * 10 * to_watt, 1e-6, rtol=1e-3)  # through every x
    slab = np.asarray(rate(SelectiveVolume(shape, voxel, slab_um=(15.0, 35.0), edge_um=1.0, **options)))
    np.testing.assert_allclose(slab.sum(0) * 0.25 * 10 * to_watt, 1e-6, rtol=1e-3)


def test_a_sheet_is_sqrt_2_wider_at_its_rayleigh_range():
    waist = 2.0
    rayleigh = np.pi * 1.33 * waist**2 / 0.488
    shape, voxel = (400, 1, 3), (0.05, 1.0, rayleigh)
    sheet = np.asarray(rate(LightSheet(shape, voxel, Timing(1.0), power_mw=1e-3, waist_um=waist), 200))[:, 0]
    variance = [(r * (np.arange(400) - 200.0) ** 2).sum() / r.sum() * 0.05**2 for r in sheet.T]
    np.testing.assert_allclose(variance, [waist**2 / 2, waist**2 / 4, waist**2 / 2], rtol=2e-3)


def test_two_photon_rates_by_hand():
    light = PointScan((41, 81, 81), (0.2, 0.05, 0.05), Timing(1.0), power_mw=1.0, numerical_aperture=0.6)
    place = (20, 40, 40)
    point = np.asarray(rate(light, light.step_at(*place)), float)
    xy, zz = (float(w) for w in squared_psf_widths(0.6, 0.92))
    flux = 1e-3 / (2 * np.pi * xy**2) / (PHOTON / 0.92)
    peak = 0.5 * 39e-34 * 0.664 / (80e6 * 120e-15) * flux**2
    assert point[place] == pytest.approx(peak, rel=0.01)
    z, y, x = (np.arange(n) - n // 2 for n in point.shape)
    gauss = np.exp(-((z[:, None, None] * 0.2 / zz) ** 2) - (y[:, None] * 0.05 / xy) ** 2 - (x * 0.05 / xy) ** 2)
    assert np.linalg.norm(point / peak - gauss) <= 0.01 * np.linalg.norm(gauss)
    brighter = PointScan((1, 5, 5), (1.0, 1.0, 1.0), Timing(1.0), power_mw=5000.0)
    assert float(rate(brighter, 12).max()) <= 80e6


def test_shared_power_costs_its_square():
    options = {"timing": Timing(1.0), "power_mw": 0.1, "fluorophore": PointScan(SHAPE, VOXEL, TIMING).fluorophore}
    shape = (1, 8, 64)
    one, four = PointScan(shape, (1.0, 20.0, 2.0), **options), MultiFocal(shape, (1.0, 20.0, 2.0), foci=(2, 2), **options)
    assert float(rate(four).max()) == pytest.approx(float(rate(one).max()) / 16, rel=1e-3)
    short, long = (LineScan((1, 8, n), (1.0, 20.0, 2.0), **options) for n in (32, 64))
    assert float(rate(long).max()) == pytest.approx(float(rate(short).max()) / 4, rel=1e-3)


def test_depth_costs_two_photons_twice_and_the_camera_once_more():
    depth = {"thickness_um": (100.0, 150.0), "mean_free_path_um": 160.0}
    shape, voxel = (2, 8, 8), (50.0, 2.0, 2.0)
    dim = {"power_mw": 1.0}
    point = tradeoff(PointScan(shape, voxel, TIMING, **depth, **dim))
    assert point.photons[1] / point.photons[0] == pytest.approx(np.exp(-2 * 50 / 160), rel=1e-3)
    line = tradeoff(LineScan(shape, voxel, TIMING, **depth, **dim), Detection(mean_free_path_um=70.0))
    assert line.photons[1] / line.photons[0] == pytest.approx(np.exp(-2 * 50 / 160 - 50 / 70), rel=1e-3)
    wide = tradeoff(Widefield(shape, voxel, TIMING, power_mw=1e-3, thickness_um=(0.0, 0.0)), Detection(labelled=1.0))
    np.testing.assert_allclose(wide.background, wide.photons, rtol=1e-5)  # the other one of two equal planes
    np.testing.assert_allclose(wide.snr, wide.photons / np.sqrt(2 * wide.photons + 1.5**2), rtol=1e-5)
    assert point.volumes_per_s == pytest.approx(1 / PointScan(shape, voxel, TIMING).volume_s)


def test_the_table_has_a_row_for_each_and_names_wrong_planes():
    text = table(every(), [0, 3])
    assert len(text.splitlines()) == 2 + len(every())
    assert "SNR, plane 3" in text
    with pytest.raises(ParameterError, match="depths"):
        table(every(), [4])


def test_gradients_reach_the_physical_parameters():
    def signal(power, aperture, free_path):
        light = PointScan(
            SHAPE, VOXEL, TIMING, power_mw=power, numerical_aperture=aperture, thickness_um=80.0, mean_free_path_um=free_path
        )
        return light.rate(100).sum()

    value, gradient = jax.jit(jax.value_and_grad(signal, argnums=(0, 1, 2)))(5.0, 0.8, 160.0)
    assert float(gradient[0]) == pytest.approx(2 * float(value) / 5.0, rel=1e-2)  # a square, far from saturation
    assert float(gradient[2]) == pytest.approx(2 * 80 / 160**2 * float(value), rel=1e-2)
    assert np.isfinite(float(gradient[1]))


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments_are_named():
    with pytest.raises(ParameterError, match="dwell_s"):
        Timing(0.0)
    with pytest.raises(ParameterError, match="shape"):
        Widefield((2, 3), VOXEL, TIMING)
    with pytest.raises(ShapeError, match="thickness_um"):
        Widefield(SHAPE, VOXEL, TIMING, thickness_um=(1.0, 2.0))
    with pytest.raises(ParameterError, match="thickness_um"):
        Widefield(SHAPE, VOXEL, TIMING, thickness_um=(1.0, 2.0, -3.0, 4.0))
    with pytest.raises(ParameterError, match="steps"):
        every()["point"].weights([0, 192])
    with pytest.raises(ParameterError, match="foci"):
        MultiFocal(SHAPE, VOXEL, TIMING, foci=(4, 4))
    with pytest.raises(ParameterError, match="numerical_aperture"):
        squared_psf_widths(1.4, 0.92)
    with pytest.raises(ParameterError, match="numerical_aperture"):
        PointScan(SHAPE, VOXEL, TIMING, numerical_aperture=1.4)
