import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import rotation
from lfjax.errors import ParameterError, ShapeError
from lfjax.tomography import gridding
from lfjax.tomography.ctf import ApplyCtf, Ctf
from lfjax.tomography.fourier_slice import FourierSlice


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def relative(a, b):
    return float(np.linalg.norm(np.ravel(a - b)) / np.linalg.norm(np.ravel(b)))


def below_nyquist(images, fraction=0.9):
    """Spectra of images inside a disc: what the highest row holds is a convention."""
    k = 2 * np.fft.fftfreq(images.shape[-1])
    return np.fft.fft2(images) * (np.hypot(k[:, None], k) <= fraction)


def blob(n=16, key=0):
    """A smooth random volume that fills a ball of radius n / 3."""
    noise = jax.random.normal(jax.random.key(key), (n, n, n))
    x = np.arange(n) - n // 2
    r2 = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2
    k = np.fft.fftfreq(n)
    low = np.exp(-40 * (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2))
    return jnp.fft.ifftn(jnp.fft.fftn(noise) * low).real * (r2 < (n / 3) ** 2)


@pytest.mark.parametrize(("kernel", "error"), [("trilinear", 0.03), (3, 7e-3), (4, 6.5e-4), (5, 6.5e-5), (6, 7e-6), (7, 1e-6)])
def test_projections_are_those_of_an_independent_nufft(shared, kernel, error):
    data, exact = (np.load(shared / f"reference/cryo/{name}.npz") for name in ("inputs", "exact_nufft"))
    for name in ("gauss64", "ribo64"):
        made = FourierSlice(jnp.asarray(data["R8"]), 64, kernel=kernel)(jnp.asarray(data[name], float))
        assert relative(below_nyquist(made), below_nyquist(exact[name])) <= error


def test_projections_of_gaussians_are_the_closed_form(shared):
    data = np.load(shared / "reference/cryo/inputs.npz")
    wanted = np.load(shared / "reference/cryo/analytic_gauss64.npz")["proj"]
    made = FourierSlice(jnp.asarray(data["R8"]), 64, kernel=6)(jnp.asarray(data["gauss64"], float))
    assert relative(made, wanted) <= 5e-5  # the Gaussians, sampled once a voxel, are not quite band-limited
    mirrored = FourierSlice(jnp.asarray(data["R8"]).mT, 64, kernel=6)(jnp.asarray(data["gauss64"], float))
    assert relative(mirrored, wanted) > 0.1  # the bound can tell a wrong convention


@pytest.mark.parametrize("n", [15, 16])
@pytest.mark.parametrize("kernel", [6, "trilinear"])
def test_along_the_axes_projections_are_sums_of_voxels(n, kernel):
    volume = blob(n)
    identity, tilted = np.eye(3), np.asarray(rotation.from_euler(0.0, np.pi / 2, 0.0))
    images = FourierSlice(jnp.asarray([identity, tilted]), n, kernel=kernel)(volume)
    tolerance = 2e-5 if kernel == 6 else 0.2
    assert relative(images[0], volume.sum(0)) <= tolerance
    # tilt = 90 degrees: R^T (x, y, z) = (z, y, -x), so that the image's x is -z of the object
    side = volume.sum(2).T
    flipped = jnp.flip(side, 1) if n % 2 else jnp.roll(jnp.flip(side, 1), 1, 1)
    assert relative(images[1], flipped) <= tolerance


def test_shift_and_ctf_are_those_of_the_image():
    volume, turns = blob(), rotation.random_rotations(jax.random.key(1), 3)
    optics = Ctf(jnp.asarray([8000.0, 9000.0, 10000.0]), jnp.asarray([7500.0, 9000.0, 8000.0]), 0.4)
    plain = FourierSlice(turns, 16)(volume)
    moved = FourierSlice(turns, 16, shifts=jnp.asarray([[2.0, -1.0]] * 3), ctf=optics, pixel_angstrom=4.0)(volume)
    for i in range(3):
        each = jax.tree.map(lambda leaf, i=i: leaf[i] if leaf.ndim else leaf, optics)
        wanted = ApplyCtf(each, (16, 16), 4.0)(jnp.roll(plain[i], (-1, 2), (0, 1)))
        assert relative(below_nyquist(moved[i][None]), below_nyquist(wanted[None])) <= 1e-6


def test_relions_images(shared):
    """Its pictures are off by 1e-2 (trilinear); a wrong sign is off by far more."""
    data, inputs = (np.load(shared / f"reference/cryo/{name}.npz") for name in ("relion_ctf_offset", "inputs"))
    turn = rotation.from_euler(*np.deg2rad(data["euler"]))[None]
    optics = Ctf(
        *(float(data[name]) for name in ("dfU", "dfV")),
        np.deg2rad(float(data["dfAng"])),
        voltage_kv=float(data["kV"]),
        cs_mm=float(data["Cs"]),
        amplitude_contrast=float(data["Q0"]),
    )
    volume = jnp.asarray(inputs["gauss64"], float)
    plain = FourierSlice(turn, 64)(volume)[0]
    filtered = FourierSlice(turn, 64, ctf=optics, pixel_angstrom=3.0)(volume)[0]
    # rlnOriginXAngst = +5 displaces the particle by -5 (here in pixels)
    moved = FourierSlice(turn, 64, shifts=jnp.asarray([[-5.0, 3.0]]))(volume)[0]
    assert relative(plain, data["gauss64_proj_apix3"]) <= 0.02
    assert relative(filtered, data["gauss64_proj_apix3_ctf"]) <= 0.03
    assert min(relative(moved, s * data["gauss64_origin_plus5_minus3"]) for s in (1.0, 1 / 3)) <= 0.02
    assert relative(moved, data["gauss64_proj_apix3"]) > 0.5


def test_precisions_may_be_mixed():
    volume, turns = blob(), rotation.random_rotations(jax.random.key(0), 3)
    wanted = FourierSlice(turns, 16)(volume)
    for a, b in ((jnp.float32, jnp.float64), (jnp.float64, jnp.float32), (jnp.float32, jnp.float32)):
        operator = FourierSlice(turns.astype(a), 16)
        assert relative(operator(volume.astype(b)), wanted) <= 1e-5
        assert relative(operator.T(wanted.astype(b)), FourierSlice(turns, 16).T(wanted)) <= 1e-5


def test_outside_the_cutoff_there_is_nothing():
    images = FourierSlice(rotation.random_rotations(jax.random.key(0), 2), 16, cutoff=0.75)(blob())
    k = np.hypot(np.fft.fftfreq(16)[:, None], np.fft.fftfreq(16)) * 2
    spectra = np.abs(np.fft.fft2(images))
    assert spectra[:, k > 0.76].max() <= 1e-12 * spectra.max() < spectra[:, k <= 0.75].max()


def test_reduce_is_the_sum_over_images_for_any_batch():
    volume, turns = blob(), rotation.random_rotations(jax.random.key(1), 7)
    seen = jax.random.normal(jax.random.key(2), (7, 16, 16))
    wanted = jnp.sum((FourierSlice(turns, 16)(volume) - seen) ** 2)
    for batch in (1, 3, 7, 20):
        total = FourierSlice(turns, 16, batch=batch).reduce(lambda image, y: jnp.sum((image - y) ** 2), volume, seen)
        assert float(total) == pytest.approx(float(wanted), rel=1e-12)


def _loss(volume, operator, seen):
    return operator.reduce(lambda image, y: jnp.sum((image - y) ** 2), volume, seen)


def test_gradients_with_respect_to_volume_pose_shift_and_optics():
    turns = rotation.random_rotations(jax.random.key(1), 3)
    seen = FourierSlice(rotation.random_rotations(jax.random.key(5), 3), 16)(blob(key=3))

    def loss(volume, turn, shift, defocus):
        poses = rotation.from_vector(turn) @ turns
        operator = FourierSlice(poses, 16, shifts=shift, ctf=Ctf(defocus), pixel_angstrom=4.0, kernel=6, batch=2)
        return _loss(volume, operator, seen)

    at = (blob(), 0.1 * jnp.ones((3, 3)), 0.3 * jnp.ones((3, 2)), jnp.asarray([8000.0, 9000.0, 10000.0]))
    gradients = jax.grad(loss, (0, 1, 2, 3))(*at)
    for i, step in enumerate((1e-3, 1e-5, 1e-4, 0.1)):
        direction = jax.random.normal(jax.random.key(i), at[i].shape)
        ends = [loss(*at[:i], at[i] + sign * step * direction, *at[i + 1 :]) for sign in (1, -1)]
        numeric = float(ends[0] - ends[1]) / (2 * step)
        assert float(jnp.vdot(gradients[i], direction)) == pytest.approx(numeric, rel=2e-4)


def test_the_pose_gradient_has_derivatives_of_its_own():
    turns, volume = rotation.random_rotations(jax.random.key(1), 2), blob()
    seen = jnp.zeros((2, 16, 16))

    def slope(turn):
        return jax.grad(lambda t: _loss(volume, FourierSlice(rotation.from_vector(t) @ turns, 16, kernel=6), seen))(turn)

    at, direction = 0.1 * jnp.ones((2, 3)), jax.random.normal(jax.random.key(0), (2, 3))
    _, along = jax.jvp(slope, (at,), (direction,))
    numeric = (slope(at + 1e-5 * direction) - slope(at - 1e-5 * direction)) / 2e-5
    assert relative(along, numeric) <= 1e-3


def test_temporary_memory_of_gradients_does_not_grow_with_the_number_of_images():
    def temporary(count):
        operator = FourierSlice(rotation.random_rotations(jax.random.key(0), count), 16, batch=8)
        gradient = jax.jit(jax.grad(_loss, (0, 1), allow_int=True))
        compiled = gradient.lower(blob(), operator, jnp.zeros((count, 16, 16))).compile()
        return compiled.memory_analysis().temp_size_in_bytes - count * (9 + 2 + 1) * 8 * 2

    assert temporary(256) <= 1.1 * temporary(32)


def test_kernels_reproduce_their_deapodisation():
    for kernel in (gridding.kaiser_bessel(4), gridding.kaiser_bessel(5), gridding.trilinear()):
        u = jnp.linspace(0, 1, 11)[:-1]
        numeric = (np.stack(kernel.taps(u + 1e-6)) - np.stack(kernel.taps(u - 1e-6))) / 2e-6
        np.testing.assert_allclose(np.stack(kernel.slopes(u)), numeric, atol=1e-8)
    tent = gridding.trilinear()
    x = np.arange(-16, 16) / 64
    np.testing.assert_allclose(tent._transform(x), np.sinc(x) ** 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"rotations": np.eye(3)}, ShapeError, "rotations"),
        ({"shifts": np.zeros((1, 2))}, ShapeError, "shifts"),
        ({"ctf": Ctf(np.zeros(5))}, ShapeError, "ctf"),
        ({"kernel": "cubic"}, ParameterError, "kernel"),
        ({"kernel": 1}, ParameterError, "width"),
        ({"padding": 1.0}, ParameterError, "padding"),
        ({"cutoff": 2.0}, ParameterError, "cutoff"),
        ({"size": 8.5}, ParameterError, "size"),
    ],
)
def test_wrong_arguments_are_named(options, error, words):
    settings = {"rotations": np.stack([np.eye(3)] * 2), "size": 8, **options}
    with pytest.raises(error, match=words):
        FourierSlice(**settings)
