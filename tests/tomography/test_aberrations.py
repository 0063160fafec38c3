import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import peers_relion
from lfjax.errors import ShapeError
from lfjax.tomography import Aberrations, ApplyCtf, Ctf, FourierSlice, Gaussians, fsc, random_particles, zernike_orders
from lfjax.tomography.ctf import AS_RECORDED, PHASE_FLIPPED, PREMULTIPLIED

needs_relion = pytest.mark.skipif(not peers_relion.available("reconstruct"), reason="relion_reconstruct is not installed")

# the textbook forms, radial part and wave, in the order of rlnOddZernike and rlnEvenZernike
ODD = [
    lambda r, t: r * np.sin(t),
    lambda r, t: r * np.cos(t),
    lambda r, t: r**3 * np.sin(3 * t),
    lambda r, t: (3 * r**3 - 2 * r) * np.sin(t),
    lambda r, t: (3 * r**3 - 2 * r) * np.cos(t),
    lambda r, t: r**3 * np.cos(3 * t),
    lambda r, t: r**5 * np.sin(5 * t),
    lambda r, t: (5 * r**5 - 4 * r**3) * np.sin(3 * t),
    lambda r, t: (10 * r**5 - 12 * r**3 + 3 * r) * np.sin(t),
    lambda r, t: (10 * r**5 - 12 * r**3 + 3 * r) * np.cos(t),
    lambda r, t: (5 * r**5 - 4 * r**3) * np.cos(3 * t),
    lambda r, t: r**5 * np.cos(5 * t),
]
EVEN = [
    lambda r, t: r**0,
    lambda r, t: r**2 * np.sin(2 * t),
    lambda r, t: 2 * r**2 - 1,
    lambda r, t: r**2 * np.cos(2 * t),
    lambda r, t: r**4 * np.sin(4 * t),
    lambda r, t: (4 * r**4 - 3 * r**2) * np.sin(2 * t),
    lambda r, t: 6 * r**4 - 6 * r**2 + 1,
    lambda r, t: (4 * r**4 - 3 * r**2) * np.cos(2 * t),
    lambda r, t: r**4 * np.cos(4 * t),
    lambda r, t: r**6 * np.sin(6 * t),
    lambda r, t: (6 * r**6 - 5 * r**4) * np.sin(4 * t),
    lambda r, t: (15 * r**6 - 20 * r**4 + 6 * r**2) * np.sin(2 * t),
    lambda r, t: 20 * r**6 - 30 * r**4 + 12 * r**2 - 1,
]
KX, KY = np.random.default_rng(0).uniform(-0.6, 0.6, (2, 50))
MAGNIFICATION = np.array([[1.06, 0.08], [-0.05, 0.95]])
TILT = np.array([2e-3, -1.5e-3])
WAVE = 0.0196875  # at 300 kV


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def strength(cs_mm=2.7):
    return 2 * np.pi * cs_mm * 1e7 * WAVE**2


@pytest.mark.parametrize("parity, forms", [("odd", ODD), ("even", EVEN)])
def test_each_coefficient_is_its_zernike_polynomial(float64, parity, forms):
    r, t = np.hypot(KX, KY), np.arctan2(KY, KX)
    for j, form in enumerate(forms):
        made = Aberrations(**{parity: np.eye(len(forms))[j, : j + 1]})  # a list may end anywhere
        phase = made.odd_phase(KX, KY, 2.7, WAVE) if parity == "odd" else made.even_phase(KX, KY)
        np.testing.assert_allclose(phase, form(r, t), atol=1e-12)
    assert len(set(zernike_orders(12, odd=True))) == 12 and zernike_orders(9, odd=False)[-1] == (4, 4)


def test_beam_tilt_is_coma_with_relions_sign(float64):
    x, y = -strength() * TILT / 3
    coma = Aberrations(odd=[2 * y, 2 * x, 0, y, x])
    tilt = Aberrations(beam_tilt_rad=TILT)
    np.testing.assert_allclose(tilt.odd_phase(KX, KY, 2.7, WAVE), coma.odd_phase(KX, KY, 2.7, WAVE), atol=1e-12)
    both = Aberrations(beam_tilt_rad=TILT, odd=[-2 * y, -2 * x, 0, -y, -x])
    np.testing.assert_allclose(both.odd_phase(KX, KY, 2.7, WAVE), 0 * KX, atol=1e-12)


def everything(**changed):
    odd, even = [0.5, -0.4, 6.0, 0.0, 0.0, 4.0, 1.0, 0.0, 2.0], [0.2, 2.0, 0.7, -1.0, 5.0, -6.0, 1.0, 3.0, 4.0]
    return Aberrations(**({"beam_tilt_rad": TILT, "odd": odd, "even": even, "magnification": MAGNIFICATION} | changed))


def by_hand(aberrations, applied=AS_RECORDED):
    """The real CTF and exp(i phi) at (KX, KY), from the formulas of the module."""
    x, y = MAGNIFICATION @ np.stack([KX, KY])
    r, t = np.hypot(x, y), np.arctan2(y, x)
    wave = 12.2643247 / np.sqrt(3e5 * (1 + 3e5 * 0.978466e-6))
    defocus = 7000 + 500 * np.cos(2 * (t - 0.4))
    gamma = sum(float(c) * z(r, t) for c, z in zip(aberrations.even, EVEN, strict=False))
    chi = np.pi * wave * defocus * r**2 - np.pi / 2 * 2.7e7 * wave**3 * r**4 + 0.3 - gamma
    phi = sum(float(c) * z(r, t) for c, z in zip(aberrations.odd, ODD, strict=False))
    phi = phi - 2 * np.pi * 2.7e7 * wave**2 * r**2 * (x * TILT[0] + y * TILT[1])
    return np.sin(chi + np.arcsin(0.1)) * np.exp(-10 / 4 * r**2), np.exp(1j * phi)


@pytest.mark.parametrize("applied", [AS_RECORDED, PHASE_FLIPPED, PREMULTIPLIED])
def test_transfer_function_factor_and_power_by_hand(float64, applied):
    ctf = Ctf(7500.0, 6500.0, 0.4, phase_shift_rad=0.3, b_factor_angstrom2=10.0, aberrations=everything(), applied=applied)
    real, phase = by_hand(ctf.aberrations)
    done = {AS_RECORDED: 1.0, PHASE_FLIPPED: np.sign(real), PREMULTIPLIED: real}[applied]
    np.testing.assert_allclose(ctf(KX, KY), done * real * phase, atol=1e-9)
    np.testing.assert_allclose(ctf.power(KX, KY), real**2, atol=1e-9)
    np.testing.assert_allclose(ctf.matched(KX, KY) * ctf(KX, KY), real**2, atol=1e-9)
    np.testing.assert_allclose(ctf(-KX, -KY), np.conj(ctf(KX, KY)), atol=1e-9)  # images stay real
    at_zero = ctf(jnp.zeros(1), jnp.zeros(1))
    assert np.isfinite(at_zero).all() and abs(at_zero[0].imag) < 1e-12


def test_even_coefficients_are_a_defocus_an_astigmatism_and_a_phase_plate(float64):
    wave = 12.2643247 / np.sqrt(3e5 * (1 + 3e5 * 0.978466e-6))
    made = Ctf(7000.0, aberrations=Aberrations(even=[0.25, 0.0, 2.0]))
    np.testing.assert_allclose(made(KX, KY), Ctf(7000.0 - 4 / (np.pi * wave), phase_shift_rad=1.75)(KX, KY), atol=1e-9)
    twofold = Ctf(7000.0, aberrations=Aberrations(even=[0.0, 3.0]))  # gamma = 3 s^2 sin 2 theta
    half = 3 / (np.pi * wave)
    np.testing.assert_allclose(twofold(KX, KY), Ctf(7000.0 + half, 7000.0 - half, -np.pi / 4)(KX, KY), atol=1e-9)


def test_the_first_odd_coefficients_displace_an_image(float64):
    image = np.random.default_rng(1).normal(size=(9, 11))
    flat = Ctf(0.0, cs_mm=0.0, amplitude_contrast=1.0)
    moved = Ctf(0.0, cs_mm=0.0, amplitude_contrast=1.0, aberrations=Aberrations(odd=[-2 * np.pi * 4, -2 * np.pi * -6]))
    np.testing.assert_allclose(ApplyCtf(flat, (9, 11), 2.0)(image), image, atol=1e-12)
    np.testing.assert_allclose(ApplyCtf(moved, (9, 11), 2.0)(image), np.roll(image, (2, -3), (0, 1)), atol=1e-10)


def test_a_magnification_deforms_a_gaussian(float64):
    """V^(M k) of a blob at c of covariance s^2 is a blob at M^T c of covariance s^2 M^T M."""
    n, centre, s = 32, np.array([4.0, -3.0]), 2.0
    blob = Gaussians(jnp.asarray([[*centre, 1.0]]), jnp.asarray([s]), jnp.ones(1))
    ctf = Ctf(0.0, cs_mm=0.0, amplitude_contrast=1.0, aberrations=Aberrations(magnification=MAGNIFICATION))
    image = FourierSlice(jnp.eye(3)[None], n, ctf=ctf)(blob.volume(n))[0]
    x = np.arange(n) - n // 2
    offset = np.stack(np.meshgrid(x, x), -1) - MAGNIFICATION.T @ centre
    inverse = np.linalg.inv(s**2 * MAGNIFICATION.T @ MAGNIFICATION)
    wanted = np.exp(-0.5 * np.einsum("yxi,ij,yxj->yx", offset, inverse, offset))
    plain = FourierSlice(jnp.eye(3)[None], n)(blob.volume(n))[0]
    wanted *= float(plain.sum()) / wanted.sum()
    np.testing.assert_allclose(image, wanted, atol=2e-4 * wanted.max())


@pytest.mark.parametrize("n", [12, 13])
def test_an_image_filtered_is_the_slice_with_the_same_optics(float64, n):
    """At the identity, where slices fall on samples, and at every frequency, those of Nyquist too."""
    volume = jax.random.normal(jax.random.key(0), (n, n, n))
    ctf = Ctf(3000.0, 2500.0, 0.3, aberrations=everything(magnification=None))
    sliced = FourierSlice(jnp.eye(3)[None], n, ctf=ctf, kernel=8)(volume)[0]
    filtered = ApplyCtf(ctf, (n, n), 1.0)(FourierSlice(jnp.eye(3)[None], n, kernel=8)(volume)[0])
    assert filtered.dtype == np.float64
    assert float(jnp.linalg.norm(sliced - filtered) / jnp.linalg.norm(sliced)) <= 1e-6
    negative = dataclasses.replace(ctf.aberrations, odd=-ctf.aberrations.odd, beam_tilt_rad=-ctf.aberrations.beam_tilt_rad)
    a, b = jax.random.normal(jax.random.key(1), (2, n, n))
    back = ApplyCtf(Ctf(3000.0, 2500.0, 0.3, aberrations=negative), (n, n), 1.0)
    assert float(jnp.vdot(ApplyCtf(ctf, (n, n), 1.0)(a), b)) == pytest.approx(float(jnp.vdot(a, back(b))), rel=1e-9)


@pytest.mark.parametrize("applied", [None, PREMULTIPLIED])
def test_gradients_of_every_aberration_are_those_of_differences(float64, applied):
    image = jax.random.normal(jax.random.key(1), (10, 11))

    def loss(aberrations):
        return jnp.sum(ApplyCtf(Ctf(5000.0, aberrations=aberrations, applied=applied), (10, 11), 1.0)(image) ** 3)

    start = everything()
    gradient, direction = (
        jax.grad(loss)(start),
        jax.tree.map(lambda leaf: leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), start),
    )
    for name in ("beam_tilt_rad", "odd", "even", "magnification"):
        assert np.isfinite(getattr(gradient, name)).all()
        along = getattr(direction, name)
        shifted = [dataclasses.replace(start, **{name: getattr(start, name) + step * along}) for step in (1e-5, -1e-5)]
        numeric = float(loss(shifted[0]) - loss(shifted[1])) / 2e-5
        assert float(jnp.sum(getattr(gradient, name) * along)) == pytest.approx(numeric, rel=1e-4)


def test_one_for_all_images_or_one_for_each():
    shared = Aberrations(odd=[1.0, 2.0], magnification=MAGNIFICATION).each(4)
    assert shared.odd.shape == (4, 2) and shared.magnification.shape == (4, 2, 2) and shared.beam_tilt_rad is None
    each = Aberrations(beam_tilt_rad=np.zeros((4, 2)), even=[1.0]).each(4)
    assert each.even.shape == (4, 1) and Aberrations(odd=[]).odd is None
    with pytest.raises(ShapeError, match=r"aberrations.beam_tilt_rad has shape \(4, 2\): expected \(5, 2\)"):
        each.each(5)
    for wrong in ({"beam_tilt_rad": [1.0, 2.0, 3.0]}, {"magnification": [1.0, 0.0]}, {"odd": 1.0}):
        with pytest.raises(ShapeError, match=next(iter(wrong))):
            Aberrations(**wrong)


# against RELION: images made here, a STAR file, the map that relion_reconstruct makes of both

SIZE, COUNT, HONEST = 48, 200, 0.997
ODD_LIST, EVEN_LIST = [0.5, -0.4, 6.0, 2.0, -3.0, 4.0, 1.0, 0.0, 2.0], [0.2, 2.0, 0.7, -1.0, 5.0, -6.0, 1.0, 3.0, 4.0]
WITHOUT_COMA = [*ODD_LIST[:3], 0.0, 0.0, *ODD_LIST[5:]]


def listed(values):
    return f"[{','.join(map(str, values))}]"


def matrix(m):
    return {f"rlnMagMat{i}{j}": m[i, j] for i in (0, 1) for j in (0, 1)}


def tilted(sign=1):
    return {"rlnBeamTiltX": sign * 2.0, "rlnBeamTiltY": sign * -1.5}


CASES = {  # aberrations of the images; the columns that say so; columns that say otherwise
    "beam tilt": ({"beam_tilt_rad": TILT}, tilted(), [{}, tilted(-1)]),
    "odd": (
        {"odd": ODD_LIST},
        {"rlnOddZernike": listed(ODD_LIST)},
        [{}, {"rlnOddZernike": listed(-np.array(ODD_LIST))}, {"rlnOddZernike": listed(ODD_LIST[::-1])}],
    ),
    "trefoil": (
        {"odd": [0, 0, 80.0, 0, 0, 30.0]},
        {"rlnOddZernike": "[0,0,80,0,0,30]"},
        [{}, {"rlnOddZernike": "[0,0,30,0,0,80]"}],
    ),
    "even": (
        {"even": EVEN_LIST},
        {"rlnEvenZernike": listed(EVEN_LIST)},
        [{}, {"rlnEvenZernike": listed(-np.array(EVEN_LIST))}],
    ),
    "magnification": (
        {"magnification": MAGNIFICATION},
        matrix(MAGNIFICATION),
        [{}, matrix(np.linalg.inv(MAGNIFICATION)), matrix(MAGNIFICATION.T)],
    ),
    "all": (
        {"beam_tilt_rad": TILT, "odd": WITHOUT_COMA, "even": EVEN_LIST, "magnification": MAGNIFICATION},
        tilted() | {"rlnOddZernike": listed(WITHOUT_COMA), "rlnEvenZernike": listed(EVEN_LIST)} | matrix(MAGNIFICATION),
        [{}],
    ),
}
FLAGS = {
    "flipped": (PHASE_FLIPPED, {}, ["--ctf_phase_flipped"]),
    "premultiplied": (PREMULTIPLIED, {"rlnCtfDataAreCtfPremultiplied": 1}, []),
}


@pytest.fixture(scope="module")
def scene():
    """A molecule of 60 atoms, and poses and optics of images."""
    rng = np.random.default_rng(0)
    atoms = Gaussians(jnp.asarray(6 * rng.normal(size=(60, 3))), jnp.full(60, 0.7), jnp.ones(60))
    defocus = {"defocus_angstrom": (3000.0, 9000.0), "astigmatism_angstrom": 300.0}
    return atoms.volume(SIZE), random_particles(jax.random.key(0), COUNT, pixel_angstrom=1.0, shift_px=1.0, **defocus)


@pytest.fixture
def project(scene, tmp_path):
    """Images with these optics; a function of the columns of the optics table that gives the mean FSC of RELION's map with
    the truth, shells 5 to 19 of 24.
    """
    volume, particles = scene

    def write(aberrations, applied=AS_RECORDED):
        none = {"beam_tilt_rad": np.zeros(2), "odd": np.zeros(9), "even": np.zeros(9), "magnification": np.eye(2)}
        filled = {k: np.append(v, np.zeros(9 - len(v))) if k in ("odd", "even") else v for k, v in aberrations.items()}
        optics = (Aberrations(**(none | filled)).each(COUNT), jnp.full(COUNT, applied))  # one form, compiled once
        seen = eqx.tree_at(lambda p: (p.ctf.aberrations, p.ctf.applied), particles, optics, is_leaf=lambda leaf: leaf is None)
        images = np.asarray(seen.projector(SIZE, kernel=3, cutoff=1.0)(volume))

        def correlation(columns, *options):
            made = peers_relion.reconstruct_star(peers_relion.write_relion(tmp_path, images, particles, columns), *options)
            return float(fsc(made.volume, volume)[5:20].mean())

        return correlation

    return write


@needs_relion
@pytest.mark.parametrize("name", CASES)
def test_relion_undoes_the_aberrations_of_our_images(project, name):
    aberrations, columns, wrong = CASES[name]
    correlation = project(aberrations)
    assert correlation(columns) >= HONEST
    for other in wrong:
        assert correlation(other) <= 0.96


@needs_relion
@pytest.mark.parametrize("flag", FLAGS)
def test_relion_means_the_same_by_flipped_and_premultiplied(project, flag):
    applied, flags, options = FLAGS[flag]
    aberrations, columns, _ = CASES["all"]
    correlation = project(aberrations, applied)
    assert correlation(columns | flags, *options) >= HONEST
    assert correlation(columns) <= 0.3


@needs_relion
def test_relion_takes_coma_from_the_beam_tilt_where_a_file_has_both(project):
    """RELION writes zeros at the coma of rlnOddZernike beside a beam tilt, and reads any other number there as zero."""
    aberrations, columns, _ = CASES["all"]
    assert project(aberrations)(columns | {"rlnOddZernike": listed(ODD_LIST)}) >= HONEST
