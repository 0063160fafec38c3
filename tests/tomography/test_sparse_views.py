"""Maps from few views: the convolution against the projector, closed forms of the priors, and a gain over the Wiener map."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import solvers
from lfjax.errors import LfjaxError
from lfjax.tomography import Ctf, Particles, Sums, add_noise, fourier_shells, random_particles, reconstruct, spherical_mask
from lfjax.tomography.ctf import PHASE_FLIPPED, PREMULTIPLIED, ApplyCtf
from lfjax.tomography.normal_equations import view_equations
from lfjax.tomography.sparse_views import regularised_map

SIZE, PIXEL = 16, 5.0
RADIUS = 7 * PIXEL


def particles(count, seed=0, **options):
    return random_particles(jax.random.key(seed), count, pixel_angstrom=PIXEL, **options)


def molecule(size, spots=24):
    """Gaussians inside the middle third of the box."""
    rng = np.random.default_rng(2)
    x = np.arange(size) - size // 2
    grid = np.stack(np.meshgrid(x, x, x, indexing="ij"), -1)
    places = rng.normal(size=(spots, 3)) * size / 11
    return jnp.asarray(sum(np.exp(-((grid - p) ** 2).sum(-1) / 5) for p in places), jnp.float32)


def relative(a, b):
    return float(jnp.linalg.norm(jnp.ravel(a - b)) / jnp.linalg.norm(jnp.ravel(b)))


def test_the_convolution_is_the_normal_operator_of_the_projector():
    some = particles(12, shift_px=1.0)
    projector = some.projector(SIZE, cutoff=(SIZE - 1) / SIZE)
    images = jax.random.normal(jax.random.key(1), projector.out_shape)
    support = jnp.asarray(spherical_mask(SIZE, 6, 2), jnp.float32)
    found = view_equations(images, some, noise=jnp.full((1, SIZE // 2 + 1), 0.25), support=support)
    x = jax.random.normal(jax.random.key(2), projector.in_shape)
    assert relative(found.op(x), 4 * support * projector.gram(support * x)) < 2e-3
    assert relative(found.data, 4 * support * projector.T(images)) < 2e-3
    assert relative(found.forward(x), some.projector(SIZE)(support * x)) < 1e-5
    voxel = jnp.zeros(projector.in_shape).at[(SIZE // 2,) * 3].set(1.0)
    assert float(found.information) == pytest.approx(4 * float(jnp.sum(projector(voxel) ** 2)), rel=2e-3)


def test_noise_per_shell_weighs_each_shell():
    some = particles(6, defocus_angstrom=None)
    images = jax.random.normal(jax.random.key(1), (6, SIZE, SIZE))
    rows = np.ones((2, 1, SIZE // 2 + 1))
    rows[0, :, 3:], rows[1, :, :3] = 1e6, 1e6  # the low shells alone, and the others alone
    low, high, both = (view_equations(images, some, noise=row) for row in (*rows, np.ones_like(rows[0])))
    assert relative(low.data + high.data, both.data) < 1e-5
    assert relative(low.op.spectrum + high.op.spectrum, both.op.spectrum) < 1e-5


@pytest.mark.parametrize(
    ("applied", "factor"), [(PHASE_FLIPPED, jnp.sign), (PREMULTIPLIED, jnp.asarray)], ids=["flipped", "premultiplied"]
)
def test_processed_images_give_the_same_equations(applied, factor):
    some = particles(6)
    images = jax.random.normal(jax.random.key(1), (6, SIZE, SIZE))
    transfer = jax.vmap(lambda ctf: ctf.grid((SIZE, SIZE), PIXEL))(some.ctf)
    processed = jnp.fft.irfft2(jnp.fft.rfft2(images) * factor(transfer), (SIZE, SIZE))
    told = eqx.tree_at(lambda p: p.ctf.applied, some, jnp.full(6, applied), is_leaf=lambda leaf: leaf is None)
    noise = np.ones((1, SIZE // 2 + 1))
    plain, other = view_equations(images, some, noise=noise), view_equations(processed, told, noise=noise)
    assert relative(other.data, plain.data) < 1e-5
    assert relative(other.op.spectrum, plain.op.spectrum) < 1e-6


def test_white_noise_is_that_before_premultiplication():
    some = particles(40)
    images = 2 * jax.random.normal(jax.random.key(1), (40, SIZE, SIZE))
    plain = regularised_map(images, some, radius_angstrom=RADIUS, steps=1).noise
    np.testing.assert_allclose(plain, 4, rtol=0.1)
    done = jax.vmap(lambda ctf, y: ApplyCtf(ctf, (SIZE, SIZE), PIXEL)(y))(some.ctf, images)
    told = eqx.tree_at(lambda p: p.ctf.applied, some, jnp.full(40, PREMULTIPLIED), is_leaf=lambda leaf: leaf is None)
    np.testing.assert_allclose(regularised_map(done, told, radius_angstrom=RADIUS, steps=1).noise, plain, rtol=0.1)


def test_without_weight_it_is_least_squares():
    some = particles(60, defocus_angstrom=None)
    projector = some.projector(8, cutoff=7 / 8)
    images = projector(molecule(8)) + 0.1 * jax.random.normal(jax.random.key(1), projector.out_shape)
    noise = np.ones((1, 5))
    found = regularised_map(images, some, radius_angstrom=3 * PIXEL, noise=noise, weight=0.0, steps=200)
    ball = jnp.asarray(spherical_mask(8, 3, 1), jnp.float32)
    residual = ball * projector.T(images - projector(found.volume))
    assert float(jnp.linalg.norm(residual)) < 2e-3 * float(jnp.linalg.norm(ball * projector.T(images)))
    assert float(jnp.abs(jnp.where(ball == 0, found.volume, 0)).max()) == 0


def test_the_nonnegative_map_is_optimal():
    some = particles(60, defocus_angstrom=None)
    projector = some.projector(8, cutoff=7 / 8)
    images = projector(molecule(8)) + 20 * jax.random.normal(jax.random.key(1), projector.out_shape)
    noise = np.ones((1, 5))
    options = {"radius_angstrom": 3 * PIXEL, "noise": noise, "weight": 0.0}
    x = regularised_map(images, some, prior="nonnegative", steps=1500, **options).volume
    gradient = projector.T(projector(x) - images)
    inside = spherical_mask(8, 3, 1) > 0
    scale = float(jnp.abs(projector.T(images)).max())
    assert float(x.min()) == 0 and float(regularised_map(images, some, steps=20, **options).volume.min()) < 0
    assert 50 < np.count_nonzero(x) < 0.8 * inside.sum()
    assert np.abs(gradient[inside & (x > 1e-3)]).max() < 1e-2 * scale
    assert gradient[inside & (x == 0)].min() > -1e-2 * scale


def test_the_map_has_the_scale_of_the_images():
    some, projector = particles(20), particles(20).projector(SIZE)
    images = add_noise(jax.random.key(1), projector(molecule(SIZE)), 0.5)
    one, ten = (regularised_map(a * images, some, radius_angstrom=RADIUS) for a in (1, 10))
    assert relative(ten.volume, 10 * one.volume) < 1e-3
    assert ten.unit == pytest.approx(one.unit / 10, rel=1e-4)


def test_a_strong_solvent_is_constant():
    some = particles(30)
    images = add_noise(jax.random.key(1), some.projector(32)(molecule(32)), 0.2)
    free, flat = (
        regularised_map(images, some, radius_angstrom=14 * PIXEL, prior=prior, weight=weight, steps=30)
        for prior, weight in (("tv", 0.0), ("solvent", 1e3))
    )
    solvent = (flat.mask == 0) & (spherical_mask(32, 14, 0) > 0)
    assert solvent.sum() > 1000 and free.mask is None
    assert np.std(flat.volume[solvent]) < 0.02 * np.std(free.volume[solvent])


def test_total_variation_beats_the_best_wiener_map():
    truth = molecule(32)
    some = particles(25, defocus_angstrom=None)
    images = add_noise(jax.random.key(1), some.projector(32)(truth), 0.1)
    mask = spherical_mask(32, 13, 3)

    def period(volume):
        return fourier_shells.resolution(fourier_shells.fsc(volume * mask, truth * mask), 32 * PIXEL, 0.5)

    sums = Sums.empty(32).add(some, images)
    wiener = [sums.volume(share * sums.weights()) for share in (0.1, 0.3, 1.0, 3.0)]
    wiener.append(reconstruct([(images, some)], 32).volume)
    found = regularised_map(images, some, radius_angstrom=13 * PIXEL)
    assert 1.05 * period(found.volume) < min(period(volume) for volume in wiener)
    assert np.isfinite(found.objective).all() and len(found.objective) == 40


def test_wrong_arguments_are_named():
    some, images = particles(3), np.zeros((3, SIZE, SIZE), np.float32)
    fits = {"radius_angstrom": RADIUS}
    for wrong in ({"prior": "smooth"}, {"weight": -1.0}, {"steps": 0}, {"radius_angstrom": 99.0}):
        with pytest.raises(LfjaxError, match=next(iter(wrong))):
            regularised_map(images, some, **(fits | wrong))
    with pytest.raises(LfjaxError, match="images"):
        regularised_map(images[:2], some, **fits)
    with pytest.raises(LfjaxError, match="noise"):
        view_equations(images, some, noise=np.zeros((1, SIZE // 2 + 1)))
    with pytest.raises(LfjaxError, match="support"):
        view_equations(images, some, noise=np.ones((1, SIZE // 2 + 1)), support=np.ones((4, 4, 4)))
    one = Particles(np.eye(3)[None], ctf=Ctf(1e4), pixel_angstrom=PIXEL)
    assert solvers.solve(solvers.CG(), view_equations(images[:1], one, noise=np.ones((1, 9))), 1).shape == (SIZE,) * 3
