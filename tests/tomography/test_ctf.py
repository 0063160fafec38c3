import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import rotation
from lfjax.tomography.ctf import ApplyCtf, Ctf, wavelength_angstrom


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_wavelengths_are_the_textbooks():
    np.testing.assert_allclose(wavelength_angstrom(jnp.asarray([100.0, 200.0, 300.0])), [0.03701, 0.02508, 0.01969], atol=1e-5)


def test_an_image_with_a_ctf_is_relions(shared):
    data = np.load(shared / "reference/cryo/relion_ctf_offset.npz")
    ctf = Ctf(
        float(data["dfU"]),
        float(data["dfV"]),
        np.deg2rad(float(data["dfAng"])),
        voltage_kv=float(data["kV"]),
        cs_mm=float(data["Cs"]),
        amplitude_contrast=float(data["Q0"]),
    )
    clean, wanted = data["gauss64_proj_apix3"], data["gauss64_proj_apix3_ctf"]
    made = ApplyCtf(ctf, (64, 64), float(data["apix"]))(jnp.asarray(clean))
    for image, error in ((made, 1e-3), (-made, 1.0), (made.T, 0.05)):
        distance = float(jnp.linalg.norm(image - wanted) / np.linalg.norm(wanted))
        assert distance <= 1e-3 if error == 1e-3 else distance >= error


def test_euler_angles_of_the_reference_give_its_rotations(shared):
    data = np.load(shared / "reference/cryo/inputs.npz")
    for name in ("8", "256"):
        angles = (jnp.asarray(angle) for angle in np.deg2rad(data[f"euler{name}"]).T)
        np.testing.assert_allclose(jax.jit(rotation.from_euler)(*angles), data[f"R{name}"], atol=1e-12)


def test_defocus_is_that_of_each_direction():
    ctf = Ctf(20000.0, 16000.0, np.pi / 6, phase_shift_rad=0.3)
    s = jnp.linspace(0, 0.2, 200)
    for angle, defocus in ((np.pi / 6, 20000.0), (np.pi / 6 + np.pi / 2, 16000.0), (np.pi / 6 + np.pi / 4, 18000.0)):
        along = ctf(s * np.cos(angle), s * np.sin(angle))
        np.testing.assert_allclose(along, Ctf(defocus, phase_shift_rad=0.3)(s, 0 * s), atol=1e-10)
    assert float(Ctf(15000.0)(jnp.asarray(0.0), jnp.asarray(0.0))) == pytest.approx(0.1)


def test_the_envelope_is_the_b_factor():
    s = jnp.linspace(0, 0.3, 50)
    ratio = Ctf(15000.0, b_factor_angstrom2=80.0)(s, 0 * s) / Ctf(15000.0)(s, 0 * s)
    np.testing.assert_allclose(ratio, np.exp(-20 * s**2), rtol=1e-9)


@pytest.mark.parametrize("shape", [(8, 8), (9, 9), (8, 11), (7, 10)])
def test_the_operator_is_its_own_transpose_and_real(shape):
    operator = ApplyCtf(Ctf(15000.0), shape, 2.0)
    a, b = jax.random.normal(jax.random.key(0), (2, *shape))
    assert float(jnp.vdot(operator(a), b)) == pytest.approx(float(jnp.vdot(a, operator(b))), rel=1e-12)
    astigmatic = ApplyCtf(Ctf(15000.0, 12000.0, 0.5), shape, 2.0)
    assert float(jnp.vdot(astigmatic(a), b)) == pytest.approx(float(jnp.vdot(a, astigmatic.T(b))), rel=1e-12)


def test_gradients_reach_the_defocus():
    image = jax.random.normal(jax.random.key(1), (16, 16))

    def loss(defocus):
        return jnp.sum(ApplyCtf(Ctf(defocus), (16, 16), 2.0)(image) ** 3)

    step = 0.1
    numeric = (loss(15000.0 + step) - loss(15000.0 - step)) / (2 * step)
    assert float(jax.grad(loss)(15000.0)) == pytest.approx(float(numeric), rel=1e-5)
