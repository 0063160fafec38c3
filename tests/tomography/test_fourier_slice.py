import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

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
    noise = np.random.default_rng(key).normal(size=(n, n, n))
    x = np.arange(n) - n // 2
    r2 = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2
    k = np.fft.fftfreq(n)
    low = np.exp(-40 * (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2))
    return jnp.asarray(np.fft.ifftn(np.fft.fftn(noise) * low).real * (r2 < (n / 3) ** 2))


def random_turns(count, seed=1):
    return jnp.asarray(Rotation.random(count, random_state=seed).as_matrix())


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(("kernel", "error"), [("trilinear", 0.03), (3, 6e-3), (4, 4.5e-4), (5, 4e-5), (6, 4e-6), (7, 1e-6)])
def test_projections_are_those_of_an_independent_nufft(shared, kernel, error):
    data, exact = (np.load(shared / f"reference/cryo/{name}.npz") for name in ("inputs", "exact_nufft"))
    for name in ("gauss64", "ribo64"):
        made = FourierSlice(jnp.asarray(data["R8"]), 64, kernel=kernel)(jnp.asarray(data[name], float))
        assert relative(below_nyquist(made), below_nyquist(exact[name])) <= error


def test_three_taps_need_little_padding(shared):
    """A third as many samples of the spectrum as twofold padding has, for an error within that of linear interpolation."""
    data, exact = (np.load(shared / f"reference/cryo/{name}.npz") for name in ("inputs", "exact_nufft"))
    operator = FourierSlice(jnp.asarray(data["R8"]), 64, kernel=3, padding=1.4, cutoff=1.0)
    made = operator(jnp.asarray(data["ribo64"], float))
    assert operator.plane.grid == 90
    assert relative(below_nyquist(made), below_nyquist(exact["ribo64"])) <= 0.0135


def test_projections_of_gaussians_are_the_closed_form(shared):
    data = np.load(shared / "reference/cryo/inputs.npz")
    wanted = np.load(shared / "reference/cryo/analytic_gauss64.npz")["proj"]
    made = FourierSlice(jnp.asarray(data["R8"]), 64, kernel=6)(jnp.asarray(data["gauss64"], float))
    assert relative(made, wanted) <= 5e-5  # the Gaussians, sampled once a voxel, are not quite band-limited
    mirrored = FourierSlice(jnp.asarray(np.swapaxes(data["R8"], 1, 2)), 64, kernel=6)(jnp.asarray(data["gauss64"], float))
    assert relative(mirrored, wanted) > 0.1  # the bound can tell a wrong convention


@pytest.mark.parametrize("n", [15, 16])
@pytest.mark.parametrize("kernel", [6, "trilinear"])
def test_along_the_axes_projections_are_sums_of_voxels(n, kernel):
    volume = blob(n)
    images = FourierSlice(_euler(np.zeros(2), np.array([0, np.pi / 2]), np.zeros(2)), n, kernel=kernel)(volume)
    volume, tolerance = np.asarray(volume), 2e-5 if kernel == 6 else 0.2
    assert relative(images[0], volume.sum(0)) <= tolerance
    # tilt = 90 degrees: R^T (x, y, z) = (z, y, -x), so that the image's x is -z of the object
    side = volume.sum(2).T
    flipped = np.flip(side, 1) if n % 2 else np.roll(np.flip(side, 1), 1, 1)
    assert relative(images[1], flipped) <= tolerance


def test_shift_and_ctf_are_those_of_the_image():
    volume, turns = blob(), random_turns(3)
    optics = Ctf(jnp.asarray([8000.0, 9000.0, 10000.0]), jnp.asarray([7500.0, 9000.0, 8000.0]), 0.4)
    plain = np.asarray(FourierSlice(turns, 16)(volume))
    moved = FourierSlice(turns, 16, shifts=jnp.asarray([[2.0, -1.0]] * 3), ctf=optics, pixel_angstrom=4.0)(volume)
    for i in range(3):
        each = jax.tree.map(lambda leaf, i=i: jnp.asarray(np.asarray(leaf)[i]) if leaf.ndim else leaf, optics)
        wanted = ApplyCtf(each, (16, 16), 4.0)(jnp.asarray(np.roll(plain[i], (-1, 2), (0, 1))))
        assert relative(below_nyquist(np.asarray(moved)[i]), below_nyquist(np.asarray(wanted))) <= 1e-6


def test_relions_images(shared):
    """Its pictures are off by 1e-2 (trilinear); a wrong sign is off by far more."""
    data, inputs = (np.load(shared / f"reference/cryo/{name}.npz") for name in ("relion_ctf_offset", "inputs"))
    turn = _euler(*np.deg2rad(data["euler"])[:, None])
    optics = Ctf(
        *(float(data[name]) for name in ("dfU", "dfV")),
        np.deg2rad(float(data["dfAng"])),
        voltage_kv=float(data["kV"]),
        cs_mm=float(data["Cs"]),
        amplitude_contrast=float(data["Q0"]),
    )
    volume = jnp.asarray(inputs["gauss64"], float)
    plain = np.asarray(FourierSlice(turn, 64)(volume))[0]
    filtered = np.asarray(FourierSlice(turn, 64, ctf=optics, pixel_angstrom=3.0)(volume))[0]
    # rlnOriginXAngst = +5 displaces the particle by -5 (here in pixels)
    moved = np.asarray(FourierSlice(turn, 64, shifts=jnp.asarray([[-5.0, 3.0]]))(volume))[0]
    assert relative(plain, data["gauss64_proj_apix3"]) <= 0.02
    assert relative(filtered, data["gauss64_proj_apix3_ctf"]) <= 0.03
    assert min(relative(moved, s * data["gauss64_origin_plus5_minus3"]) for s in (1.0, 1 / 3)) <= 0.02
    assert relative(moved, data["gauss64_proj_apix3"]) > 0.5


def test_precisions_may_be_mixed():
    volume, turns = blob(), random_turns(3, 0)
    exact = FourierSlice(turns, 16, kernel="trilinear")
    wanted = exact(volume)
    back = exact.T(wanted)
    for a, b in ((np.float32, np.float64), (np.float64, np.float32), (np.float32, np.float32)):
        operator = FourierSlice(np.asarray(turns, a), 16, kernel="trilinear")
        assert relative(operator(jnp.asarray(np.asarray(volume, b))), wanted) <= 1e-5
        assert relative(operator.T(jnp.asarray(np.asarray(wanted, b))), back) <= 1e-5


def test_outside_the_cutoff_there_is_nothing():
    images = FourierSlice(random_turns(2), 16, cutoff=0.75)(blob())
    k = np.hypot(np.fft.fftfreq(16)[:, None], np.fft.fftfreq(16)) * 2
    spectra = np.abs(np.fft.fft2(images))
    assert spectra[:, k > 0.76].max() <= 1e-12 * spectra.max() < spectra[:, k <= 0.75].max()


def test_reduce_is_the_sum_over_images_for_any_batch():
    volume, turns, seen = blob(), random_turns(50), normal(2, (50, 16, 16))
    wanted = np.sum((np.asarray(FourierSlice(turns, 16, kernel="trilinear")(volume)) - seen) ** 2)
    for batch in (1, 40, 70, 200):  # a quarter of which, at least 8, are reduced at once
        total = jax.jit(_loss)(volume, FourierSlice(turns, 16, kernel="trilinear", batch=batch), seen)
        assert float(total) == pytest.approx(float(wanted), rel=1e-12)


def _loss(volume, operator, seen):
    return operator.reduce(lambda image, y: jnp.sum((image - y) ** 2), volume, seen)


_euler = jax.jit(rotation.from_euler)


def test_gradients_with_respect_to_volume_pose_shift_and_optics():
    turns = random_turns(3)
    seen = FourierSlice(random_turns(3, 5), 16, kernel=4)(blob(key=3))

    def loss(volume, turn, shift, defocus):
        poses = rotation.from_vector(turn) @ turns
        operator = FourierSlice(poses, 16, shifts=shift, ctf=Ctf(defocus), pixel_angstrom=4.0, kernel=4, batch=2)
        return _loss(volume, operator, seen)

    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))
    at = (np.asarray(blob()), np.full((3, 3), 0.1), np.full((3, 2), 0.3), np.array([8000.0, 9000.0, 10000.0]))
    _, gradients = both(*at)
    for i, step in enumerate((1e-3, 1e-5, 1e-4, 0.1)):
        direction = np.random.default_rng(i).normal(size=at[i].shape)
        ends = [float(both(*at[:i], at[i] + sign * step * direction, *at[i + 1 :])[0]) for sign in (1, -1)]
        numeric = (ends[0] - ends[1]) / (2 * step)
        assert np.vdot(gradients[i], direction) == pytest.approx(numeric, rel=2e-4)


def test_the_pose_gradient_has_derivatives_of_its_own():
    turns, volume = random_turns(2), blob()

    def gradient(turn):
        return jax.grad(
            lambda t: _loss(volume, FourierSlice(rotation.from_vector(t) @ turns, 16, kernel=4), jnp.zeros((2, 16, 16)))
        )(turn)

    both = jax.jit(lambda turn, along: jax.jvp(gradient, (turn,), (along,)))
    at, direction = np.full((2, 3), 0.1), np.random.default_rng(0).normal(size=(2, 3))
    ends = [np.asarray(both(at + sign * 1e-5 * direction, direction)[0]) for sign in (1, -1)]
    assert relative(both(at, direction)[1], (ends[0] - ends[1]) / 2e-5) <= 1e-3


def test_temporary_memory_of_gradients_does_not_grow_with_the_number_of_images():
    def temporary(count):
        operator = FourierSlice(random_turns(count), 16, kernel=3, batch=8)
        gradient = jax.jit(jax.grad(_loss, (0, 1), allow_int=True))
        compiled = gradient.lower(blob(), operator, np.zeros((count, 16, 16))).compile()
        return compiled.memory_analysis().temp_size_in_bytes - count * (9 + 2 + 1) * 8 * 2

    assert temporary(256) <= 1.1 * temporary(32)


def test_kernels_reproduce_their_deapodisation():
    for kernel in (gridding.kaiser_bessel(4), gridding.kaiser_bessel(5), gridding.trilinear()):
        u = np.linspace(0, 1, 11)[:-1]
        taps = jax.jit(lambda u, kernel=kernel: jnp.stack(kernel.taps(u)))
        numeric = (np.asarray(taps(u + 1e-6)) - np.asarray(taps(u - 1e-6))) / 2e-6
        np.testing.assert_allclose(jax.jit(lambda u, kernel=kernel: jnp.stack(kernel.slopes(u)))(u), numeric, atol=1e-8)
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
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named(options, error, words):
    settings = {"rotations": np.stack([np.eye(3)] * 2), "size": 8, **options}
    with pytest.raises(error, match=words):
        FourierSlice(**settings)
