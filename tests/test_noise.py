"""The camera against its closed forms."""

import jax
import numpy as np
import pytest

from lfjax.errors import ParameterError
from lfjax.noise import Camera

SAMPLES = 40_000


@pytest.mark.parametrize("photons", [0.0, 3.0, 200.0, 20000.0])
@pytest.mark.parametrize("camera", [Camera(), Camera(0.5, 4.0, 2.0, 300.0)])
def test_mean_and_variance_follow_the_photon_transfer_curve(camera, photons):
    """mean = QE N / g + offset, var = (QE N + read^2) / g^2 + 1/12, within five standard errors."""
    frame = np.asarray(camera.expose(jax.random.key(0), np.full(SAMPLES, photons)), np.float64)
    electrons, gain = camera.quantum_efficiency * photons, camera.gain_e_per_dn
    variance = (electrons + camera.read_noise_e**2) / gain**2 + 1 / 12
    assert abs(frame.mean() - electrons / gain - camera.offset_dn) < 5 * np.sqrt(variance / SAMPLES)
    excess = electrons / (electrons + camera.read_noise_e**2) ** 2  # kurtosis of the Poisson part
    assert abs(frame.var() / variance - 1) < 5 * np.sqrt((2 + excess) / SAMPLES)


def test_photons_inverts_the_mean():
    camera = Camera()
    frames = camera.expose(jax.random.key(1), np.full(SAMPLES, 500.0))
    assert abs(np.mean(camera.photons(frames)) - 500) < 5 * np.sqrt(500 / 0.8 / SAMPLES) + 0.05


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint16), (16, np.uint16), (18, np.uint32)])
def test_bright_pixels_saturate_and_dark_ones_stop_at_zero(bits, kind):
    camera = Camera(bits=bits, offset_dn=0.0, read_noise_e=5.0)
    frame = np.asarray(camera.expose(jax.random.key(2), np.repeat([1e12, 0.0], 50)))
    assert frame.dtype == kind
    np.testing.assert_array_equal(frame[:50], 2**bits - 1)
    np.testing.assert_array_equal(camera.saturated(frame), np.arange(100) < 50)
    assert frame[50:].min() == 0


def test_a_key_fixes_the_frame():
    camera, photons = Camera(), np.full(100, 30.0)
    first, again, other = (np.asarray(camera.expose(jax.random.key(k), photons)) for k in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_vmap_and_jit_over_keys_equal_single_exposures():
    camera, photons = Camera(), np.linspace(0.0, 100.0, 100)
    keys = jax.random.split(jax.random.key(5), 3)
    batch = jax.jit(jax.vmap(lambda key, p: camera.expose(key, p), (0, None)))(keys, photons)
    np.testing.assert_array_equal(batch, np.stack([camera.expose(k, photons) for k in keys]))


@pytest.mark.parametrize(
    "wrong",
    [{"quantum_efficiency": 1.2}, {"quantum_efficiency": 0.0}, {"read_noise_e": -1.0}, {"gain_e_per_dn": 0.0},
     {"offset_dn": 70000.0}, {"bits": 0}, {"bits": 25}, {"gain_e_per_dn": float("nan")}],
)  # fmt: skip
def test_parameters_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        Camera(**wrong)
