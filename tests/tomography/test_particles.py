import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import rotation
from lfjax.errors import FileError, ParameterError
from lfjax.tomography.ctf import Ctf
from lfjax.tomography.fourier_slice import FourierSlice
from lfjax.tomography.gaussians import Gaussians, read_structure
from lfjax.tomography.images import Shift, normalise
from lfjax.tomography.micrographs import cut_particles, pick_blobs, simulate_micrograph
from lfjax.tomography.particles import Particles, add_noise, random_particles

PDB = """\
ATOM      1  CA  ALA A   1      10.000  20.000  30.000  1.00 20.00           C
ATOM      2  N   ALA A   1      14.000  20.000  30.000  1.00 20.00           N
ATOM      3  H   ALA A   1      14.000  21.000  30.000  1.00 20.00           H
HETATM    4  O   HOH A   2      50.000  20.000  30.000  1.00 20.00           O
END
"""


def molecule(shared):
    data = np.load(shared / "reference/cryo/inputs.npz")
    height = data["gauss_amp"] / (2 * np.pi * data["gauss_sigma"] ** 2) ** 1.5  # the reference's are masses
    values = (data["gauss_mu_xyz"], data["gauss_sigma"], height)
    return data, Gaussians(*(jnp.asarray(v, jnp.float32) for v in values))


def test_gaussians_are_the_reference(shared):
    data, found = molecule(shared)
    np.testing.assert_allclose(found.volume(64), data["gauss64"], atol=1e-5 * np.abs(data["gauss64"]).max())
    wanted = np.load(shared / "reference/cryo/analytic_gauss64.npz")["proj"]
    made = found.project(jnp.asarray(data["R8"], jnp.float32), 64)
    np.testing.assert_allclose(made, wanted, atol=2e-5 * np.abs(wanted).max())


def test_pixel_integration_is_the_mean_over_pixels():
    one = Gaussians(jnp.asarray([[1.3, -0.6, 2.0]]), jnp.asarray([0.9]), jnp.asarray([2.0]))
    fine = Gaussians(11 * one.positions, 11 * one.widths, one.amplitudes / 11)
    turn = rotation.random_rotations(jax.random.key(0), 2)
    many = fine.project(turn, 16 * 11 + 11).reshape(2, 17, 11, 17, 11).mean((2, 4))  # 17 pixels of 11, centres agree
    np.testing.assert_allclose(one.project(turn, 17, integrated=True), many, atol=3e-3)
    gap = jnp.abs(one.project(turn, 17) - one.project(turn, 17, integrated=True)).max()
    assert float(gap) > 0.1


def test_atoms_of_a_file(tmp_path):
    (tmp_path / "a.pdb").write_text(PDB)
    found = read_structure(tmp_path / "a.pdb", 1.0)
    assert found.positions.shape == (2, 3)  # no hydrogen, no water
    np.testing.assert_allclose(found.positions[1] - found.positions[0], [4.0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(6 * found.positions[0] + 7 * found.positions[1], 0, atol=1e-4)
    assert float(found.volume(48).sum()) == pytest.approx(13.0, rel=1e-3)
    for name, text in (("b.pdb", ""), ("c.cif", "nonsense")):
        (tmp_path / name).write_text(text)
        with pytest.raises(FileError, match=name):
            read_structure(tmp_path / name, 2.0)


def test_noise_has_the_ratio_asked_for():
    images = jnp.zeros((50, 32, 32)).at[:, 10:20, 8:24].set(1.0)
    noise = add_noise(jax.random.key(0), images, 0.1) - images
    assert float(jnp.var(images[0]) / jnp.var(noise)) == pytest.approx(0.1, rel=0.02)
    inner = add_noise(jax.random.key(0), images, 0.1, within=0.5) - images
    assert float(jnp.std(inner)) > 1.2 * float(jnp.std(noise))
    with pytest.raises(ParameterError, match="snr"):
        add_noise(jax.random.key(0), images, 0.0)


def test_particles_are_drawn_selected_and_halved():
    drawn = random_particles(jax.random.key(0), 1001, pixel_angstrom=2.0, shift_px=3.0, defocus_angstrom=(1e4, 2e4))
    assert sorted(np.unique(drawn.half, return_counts=True)[1]) == [500, 501]
    mean = (drawn.ctf.defocus_u_angstrom + drawn.ctf.defocus_v_angstrom) / 2
    assert 1e4 <= float(mean.min()) < 1.05e4 and 1.95e4 < float(mean.max()) <= 2e4
    np.testing.assert_allclose(np.std(drawn.shifts, axis=0), 3.0, rtol=0.1)
    some = drawn[np.array([5, 1, 7])]
    assert len(some) == 3 and float(some.ctf.defocus_u_angstrom[1]) == float(drawn.ctf.defocus_u_angstrom[1])
    assert isinstance(some, Particles) and some.projector(8, kernel=3).out_shape == (3, 8, 8)


def blob():
    one = Gaussians(jnp.asarray([[0.0, 0, 0], [4.0, 0, 0], [0, 0, 3.0]]), jnp.full(3, 3.0), jnp.ones(3))
    return one.volume(32)


def test_a_micrograph_has_its_particles_where_it_says():
    flat = Ctf(0.0, amplitude_contrast=1.0, cs_mm=0.0)  # no aberration: the projection itself
    found = simulate_micrograph(
        jax.random.key(0), blob(), 12, (300, 400), flat, 2.0, dose_electrons_per_angstrom2=1000, ice=0.0, spacing=50
    )
    assert float(found.counts.mean()) == pytest.approx(4000 * float(1 + found.signal.mean()), rel=1e-3)
    assert float(jnp.var(found.counts - 4000 * (1 + found.signal))) == pytest.approx(4000, rel=0.02)
    whole = np.floor(np.asarray(found.positions)).astype(int)
    projected = FourierSlice(found.rotations, 32, shifts=found.positions - whole)(blob())
    projected = projected / projected.max() * 0.05
    for (x, y), image in zip(whole, projected, strict=True):
        np.testing.assert_allclose(-found.signal[y - 16 : y + 16, x - 16 : x + 16], image, atol=2e-3)
    picked = pick_blobs(found.counts, 14.0, threshold=6.0)
    gaps = np.linalg.norm(picked[:, None] - np.asarray(found.positions)[None], axis=-1)
    assert len(picked) == 12 and gaps.min(0).max() <= 4  # two blobs of a molecule are off its centre


def test_cut_particles_are_bright_and_normalised():
    flat = Ctf(0.0, amplitude_contrast=1.0, cs_mm=0.0)
    found = simulate_micrograph(
        jax.random.key(1), blob(), 10, (300, 300), flat, 2.0, dose_electrons_per_angstrom2=1000, spacing=45
    )
    boxes, index = cut_particles(found.counts, found.positions, 40)
    assert len(boxes) == len(index) <= 10 and boxes.shape[1:] == (40, 40)
    x = np.arange(40) - 20
    outside = np.hypot(x, x[:, None]) > 20
    np.testing.assert_allclose(boxes[:, outside].mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(boxes[:, outside].std(1), 1, rtol=1e-5)
    assert boxes[:, 17:24, 17:24].mean() > 1.0
    none, where = cut_particles(found.counts, jnp.asarray([[3.0, 3.0]]), 40)
    assert none.shape == (0, 40, 40) and len(where) == 0


def test_shifts_move_the_picture():
    one = Gaussians(jnp.asarray([[1.0, -2.0, 0.0]]), jnp.asarray([2.0]), jnp.asarray([1.0]))
    image = one.project(jnp.eye(3)[None], 24)[0]
    moved = one.project(jnp.eye(3)[None], 24, shifts=jnp.asarray([[1.6, -0.7]]))[0]
    np.testing.assert_allclose(Shift(jnp.asarray([1.6, -0.7]), (24, 24))(image), moved, atol=1e-3)
    np.testing.assert_allclose(Shift(jnp.asarray([2.0, 1.0]), (24, 24))(image), jnp.roll(image, (1, 2), (0, 1)), atol=1e-5)


def test_normalised_images_have_a_background_of_mean_0_and_deviation_1():
    images = 3 + 5 * jax.random.normal(jax.random.key(0), (4, 20, 20))
    found = np.asarray(normalise(images))
    x = np.arange(20) - 10
    outside = np.hypot(x, x[:, None]) > 10
    np.testing.assert_allclose(found[:, outside].mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(found[:, outside].std(1), 1, rtol=1e-5)
    with pytest.raises(ParameterError, match="radius"):
        normalise(images, radius=2.0)


def test_too_many_particles_are_refused():
    with pytest.raises(ParameterError, match="count"):
        simulate_micrograph(jax.random.key(1), blob(), 100, (100, 100), Ctf(15000.0), 2.0, spacing=45)
