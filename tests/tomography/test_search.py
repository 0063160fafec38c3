"""Posteriors over poses and displacements, against sums over all of them written out in double precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import rotation
from lfjax.tomography import gridding, near_search, search
from lfjax.tomography.aberrations import Aberrations
from lfjax.tomography.bands import Samples, band_of, resized, samples
from lfjax.tomography.ctf import Ctf
from lfjax.tomography.image_batches import ImageBatches
from lfjax.tomography.near_search import ball_points, search_near
from lfjax.tomography.particles import Particles
from lfjax.tomography.passes import Poses, grid_pass, near_pass
from lfjax.tomography.posterior_map import Estimate
from lfjax.tomography.search import Expected, disc, nothing_expected, search_grid, slices, unit_grid
from lfjax.tomography.symmetry import symmetry_group
from tests.tomography.molecule import molecule, slice_of, stack

SIZE, COUNT, TOP = 16, 8, 5
BAND = band_of(5)
SHIFTS, SHIFT_PX = disc(2.0, 1.0) + np.float32(0.2), 1.3
GRID = np.asarray(rotation.random_rotations(jax.random.key(8), 24), np.float32)
KX, KY = BAND.plane.frequencies


@pytest.fixture(scope="module")
def case():
    """Images with a contrast of their own in each sample, their map, and a noise power for each shell."""
    rng = np.random.default_rng(0)
    volume = resized(molecule(SIZE).volume(SIZE), BAND.size)
    images, particles, deviation = stack(molecule(SIZE), COUNT, SIZE, snr=0.5, shift_px=1.0)
    found = samples(BAND, images, Particles(particles.rotations))
    contrast = rng.uniform(0.5, 1, found.contrast.shape).astype(np.float32)
    found = Samples(found.values * contrast, jnp.asarray(contrast), None)
    noise = (deviation * SIZE) ** 2 * rng.uniform(0.8, 2, BAND.shells)
    offsets = jnp.asarray(rng.uniform(-1, 1, (COUNT, 2)), jnp.float32)
    weights = jnp.asarray([1, 1, 0.3, 1, 0, 1, 1, 1], jnp.float32)
    return volume, found, jnp.asarray(noise, jnp.float32), offsets, weights


def on_grid(case, shifts=SHIFTS, offsets=None, weights=None, grid=GRID, top=TOP):
    volume, found, noise, own, counted = case
    turned = slices(BAND, volume, jnp.asarray(grid))
    return turned, search_grid(
        BAND, turned, jnp.asarray(grid), noise, jnp.asarray(shifts, jnp.float32), jnp.float32(SHIFT_PX),
        own if offsets is None else offsets, found, counted if weights is None else weights,
        nothing_expected(BAND, len(grid)), size=SIZE, top=top,
    )  # fmt: skip


def log_ratio(y, c, found, shift, noise):
    """log p(y | pose) - log p(y | no particle), as the difference of two sums of squares over the half plane."""
    model = c * found * np.exp(-2j * np.pi / SIZE * (KX * shift[0] + KY * shift[1]))
    scale = BAND.count / noise[BAND.shell]
    return float((scale * (np.abs(y) ** 2 - np.abs(y - model) ** 2)).sum())


def fit_of(y, gained, explained, noise):
    """Standard deviations by which an image has more of the map, and more of something else, than expected."""
    m = BAND.count.sum()
    residual = float((BAND.count * np.abs(y) ** 2 / noise[BAND.shell]).sum()) - gained
    return (gained - explained) / np.sqrt(2 * explained), (residual - m) / np.sqrt(m)


def log_prior(shift, shifts):
    """Logarithm of the density of a displacement, over that at 0, and of the share of each of the displacements tried."""
    return -0.5 * float(np.sum(np.asarray(shift, float) ** 2)) / SHIFT_PX**2 - np.log(len(shifts))


def test_slices_are_those_of_the_molecule():
    body = molecule(SIZE)
    found = np.asarray(slices(BAND, resized(body.volume(SIZE), BAND.size), jnp.asarray(GRID)))
    wanted = np.stack([slice_of(body, turn, BAND.plane.frequencies, SIZE) for turn in GRID])
    assert np.abs(found - wanted).max() <= 0.01 * np.abs(wanted).max()


def test_a_grid_gives_the_posterior_of_all_poses_and_displacements(case):
    _, data, noise, offsets, weights = case
    turned, (posterior, expected) = on_grid(case)
    y, c = np.asarray(data.values, complex), np.asarray(data.contrast, float)
    turned, noise, offsets, weights = (np.asarray(a, np.result_type(a.dtype, float)) for a in (turned, noise, offsets, weights))
    m = len(BAND.shell)
    sums = {"data": np.zeros((len(GRID), m), complex), "weight": np.zeros((len(GRID), m))}
    sums |= {name: np.zeros(m) for name in ("power", "cross", "energy", "residual")}
    for i in range(COUNT):
        tried = SHIFTS.astype(float) + offsets[i]
        ratio = np.array([[log_ratio(y[i], c[i], p, t, noise) for t in tried] for p in turned])
        log = ratio + np.array([log_prior(t, tried) for t in tried])
        top = log.max()
        mass = np.exp(log - top)
        assert posterior.log_evidence[i] == pytest.approx(top + np.log(mass.sum() / len(GRID)), abs=1e-3)
        mass /= mass.sum()
        each = mass.sum(1)
        order = np.argsort(-each)[:TOP]
        np.testing.assert_allclose(posterior.weights[i], each[order], rtol=2e-3, atol=1e-6)
        sure = each[order] > 1e-4
        np.testing.assert_array_equal(np.asarray(posterior.rotations[i])[sure], GRID[order][sure])
        means = (mass @ tried)[order] / each[order, None]
        np.testing.assert_allclose(np.asarray(posterior.shifts[i])[sure], means[sure], atol=2e-3)
        energy = (BAND.count / noise[BAND.shell] * c[i] ** 2 * np.abs(turned) ** 2).sum(1)
        explained = float(each @ energy)
        wanted = fit_of(y[i], (mass * ratio).sum(), explained, noise)
        np.testing.assert_allclose([posterior.fit[i], posterior.excess[i]], wanted, atol=5e-3)
        wave = np.exp(2j * np.pi / SIZE * (tried[:, :1] * KX + tried[:, 1:] * KY))
        for r, p in enumerate(turned):
            centred = (mass[r][:, None] * wave).sum(0) * y[i]
            sums["data"][r] += weights[i] * c[i] * centred
            sums["weight"][r] += weights[i] * each[r] * c[i] ** 2
            sums["cross"] += weights[i] * (centred.conj() * c[i] * p).real
            sums["energy"] += weights[i] * each[r] * c[i] ** 2 * np.abs(p) ** 2
            for s in range(len(tried)):
                sums["residual"] += weights[i] * mass[r, s] * np.abs(wave[s] * y[i] - c[i] * p) ** 2
        sums["power"] += weights[i] * np.abs(y[i]) ** 2
    for name, wanted in sums.items():
        np.testing.assert_allclose(getattr(expected, name), wanted, atol=1e-3 * np.abs(wanted).max(), err_msg=name)
    assert float(expected.count) == pytest.approx(weights.sum())
    kept = np.asarray(posterior.weights).sum(1)
    assert (kept <= 1 + 1e-5).all() and (kept > 0.1).all()


def test_the_evidence_of_one_pose_is_its_likelihood_ratio(case):
    _, data, noise, offsets, _ = case
    turned, (posterior, _) = on_grid(case, shifts=np.zeros((1, 2)), grid=GRID[:1], top=1)
    y, c, p = (np.asarray(a, complex) for a in (data.values, data.contrast, turned[0]))
    wanted = [log_ratio(y[i], c[i], p, np.asarray(offsets[i], float), np.asarray(noise, float)) for i in range(COUNT)]
    np.testing.assert_allclose(posterior.log_evidence, wanted, atol=1e-3 * np.abs(wanted).max())
    np.testing.assert_allclose(posterior.weights, 1, rtol=1e-6)
    np.testing.assert_allclose(posterior.shifts[:, 0], offsets, atol=1e-6)


def test_filling_changes_nothing(case):
    volume, data, noise, offsets, weights = case
    _, (_, wanted) = on_grid(case)
    filled = jax.tree.map(lambda a: a.at[4].set(7.0), data)  # the image of weight 0
    _, (_, found) = on_grid((volume, filled, noise, offsets, weights))
    for name in ("data", "weight", "power", "cross", "energy", "count"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-6, atol=1e-6)


def near(case, *, points=16, modes=2, width=0.3, magnified=None, shifts=SHIFTS):
    volume, data, noise, offsets, weights = case
    key = jax.random.key(5)
    start = jnp.asarray(GRID[: COUNT * modes].reshape(COUNT, modes, 3, 3))
    moved = jnp.stack([offsets, -offsets], 1)[:, :modes]
    spins = np.asarray(rotation.random_rotations(key, COUNT), float)
    shape = gridding.grid_shape(BAND.plane.kernel, BAND.plane.grid)
    none, zero = jnp.zeros(()), jnp.zeros(len(BAND.shell))
    before = (jnp.zeros((*shape, 3)), Expected(none + 0j, none, zero, zero, zero, none))
    data = Samples(data.values, data.contrast, magnified)
    posterior, sums = search_near(
        BAND, volume, noise, (start, moved), jnp.float32(width), jnp.asarray(shifts, jnp.float32), jnp.float32(SHIFT_PX),
        data, weights, key, before, size=SIZE, points=points,
    )  # fmt: skip
    steps = width * np.einsum("pj,nij->npi", ball_points(points), spins)
    balls = np.asarray(rotation.from_vector(steps), float)
    candidates = np.einsum("npij,nqjk->nqpik", balls, np.asarray(start, float))
    return posterior, sums, candidates, np.asarray(moved, float)


@pytest.fixture(scope="module")
def found_near(case):
    return near(case)


def test_balls_give_the_posterior_of_their_poses_and_displacements(case, found_near):
    volume, data, noise, _, weights = case
    posterior, (total, expected), candidates, offsets = found_near
    y, c = np.asarray(data.values, complex), np.asarray(data.contrast, float)
    noise, weights, m = np.asarray(noise, float), np.asarray(weights, float), len(BAND.shell)
    wanted_total = jnp.zeros_like(total)
    power, cross, energy = np.zeros(m), np.zeros(m), np.zeros(m)
    for i in range(COUNT):
        flat = candidates[i].reshape(-1, 3, 3)
        turned = np.asarray(slices(BAND, volume, jnp.asarray(flat, jnp.float32)), complex)
        tried = np.repeat(offsets[i], candidates.shape[2], 0)[:, None] + SHIFTS.astype(float)
        ratio = np.array([[log_ratio(y[i], c[i], p, t, noise) for t in at] for p, at in zip(turned, tried, strict=True)])
        log = ratio + np.array([[log_prior(t, SHIFTS) for t in at] for at in tried])
        top = log.max()
        mass = np.exp(log - top)
        assert posterior.log_evidence[i] == pytest.approx(top + np.log(mass.sum() / len(flat)), abs=2e-3)
        mass /= mass.sum()
        each = mass.sum(1)
        order = np.argsort(-each)[: near_search.KEPT]
        np.testing.assert_allclose(posterior.weights[i], each[order], rtol=5e-3, atol=1e-6)
        assert posterior.weights[i].sum() < 1
        sure = each[order] > 1e-3
        turns = np.asarray(posterior.rotations[i])
        np.testing.assert_allclose(turns[sure], flat[order][sure], atol=1e-5)
        means = ((mass[:, :, None] * tried).sum(1) / each[:, None])[order]
        np.testing.assert_allclose(np.asarray(posterior.shifts[i])[sure], means[sure], atol=2e-3)
        explained = each @ (BAND.count / noise[BAND.shell] * c[i] ** 2 * np.abs(turned) ** 2).sum(1)
        wanted = fit_of(y[i], (mass * ratio).sum(), explained, noise)
        np.testing.assert_allclose([posterior.fit[i], posterior.excess[i]], wanted, atol=5e-3)
        # the sums are those of the poses kept, as if there were no others
        share = mass[order] / each[order].sum()
        wave = np.exp(2j * np.pi / SIZE * (tried[order][..., :1] * KX + tried[order][..., 1:] * KY))
        centred = (share[..., None] * wave).sum(1) * y[i] * c[i]
        weight = share.sum(1)[:, None] * c[i] ** 2
        power += weights[i] * np.abs(y[i]) ** 2
        cross += weights[i] * (centred.conj() * turned[order]).real.sum(0)
        energy += weights[i] * (weight * np.abs(turned[order]) ** 2).sum(0)
        values = weights[i] * np.stack([centred.real, centred.imag, weight], -1) * BAND.count[:, None]
        k = np.moveaxis(flat[order][:, 0, :, None] * KX + flat[order][:, 1, :, None] * KY, 1, 0) * 2
        wanted_total = gridding.spread(
            wanted_total, jnp.asarray(k, jnp.float32), jnp.asarray(values, jnp.float32), BAND.plane.kernel, BAND.plane.grid
        )
    for name, wanted in (("power", power), ("cross", cross), ("energy", energy)):
        np.testing.assert_allclose(getattr(expected, name), wanted, atol=1e-3 * np.abs(wanted).max(), err_msg=name)
    np.testing.assert_allclose(total, wanted_total, atol=2e-3 * float(jnp.abs(wanted_total).max()))


def test_an_anisotropic_magnification_moves_the_slices_of_balls(case, found_near):
    volume, data, noise, offsets, weights = case
    bent = np.array([[1.05, 0.02], [0.0, 0.96]])
    count = len(weights)
    views = Particles(np.broadcast_to(np.eye(3), (count, 3, 3)), ctf=Ctf(1e4, aberrations=Aberrations(magnification=bent)))
    magnified = samples(BAND, np.zeros((count, SIZE, SIZE)), views).magnified
    posterior, _, candidates, moved = near(case, magnified=magnified, shifts=np.zeros((1, 2)))
    spectrum = gridding.spectrum(volume, BAND.plane.kernel, BAND.plane.grid)
    y, c, noise = np.asarray(data.values, complex), np.asarray(data.contrast, float), np.asarray(noise, float)
    kx, ky = bent @ BAND.plane.frequencies
    for i in (0, 3):
        flat = candidates[i].reshape(-1, 3, 3)
        k = np.moveaxis(flat[:, 0, :, None] * kx + flat[:, 1, :, None] * ky, 1, 0) * 2
        turned = np.asarray(gridding.interpolate(spectrum, jnp.asarray(k, jnp.float32), BAND.plane.kernel, BAND.plane.grid))
        where = np.repeat(moved[i], candidates.shape[2], 0)
        log = np.array([log_ratio(y[i], c[i], p, t, noise) for p, t in zip(turned, where, strict=True)])
        wanted = log.max() + np.log(np.exp(log - log.max()).mean())
        assert posterior.log_evidence[i] == pytest.approx(wanted, abs=5e-3)


def test_the_fit_tells_the_true_map_from_another_and_from_noise():
    size, count = 16, 192
    body = molecule(size)
    images, particles, deviation = stack(body, count, size, snr=1.0)
    other, where, _ = stack(molecule(size, seed=7), count, size, seed=3)
    other = 1.5 * other + deviation * np.asarray(jax.random.normal(jax.random.key(9), other.shape))
    rng = np.random.default_rng(4)
    nothing = deviation * rng.standard_normal(images.shape)
    volume, noise = resized(body.volume(size), BAND.size), jnp.full(BAND.shells, (deviation * size) ** 2, jnp.float32)
    fits = []
    for stacked, turns in ((images, particles.rotations), (other, where.rotations), (nothing, particles.rotations)):
        data = samples(BAND, stacked, Particles(turns))
        fit = []
        for i in range(0, count, COUNT):  # at the true pose alone: a ball of no radius
            part = data.view(slice(i, i + COUNT))
            found, *_ = near_at(volume, noise, turns[i : i + COUNT, None], part)
            fit.append([np.asarray(found.fit), np.asarray(found.excess)])
        fits.append(np.concatenate(fit, axis=1))
    for each in fits[0]:
        assert abs(each.mean()) < 0.3 and 0.8 < each.std() < 1.2
    right, wrong, none = ((fit - excess) / np.sqrt(2) for fit, excess in fits)
    assert np.quantile(wrong, 0.9) < -3 and np.quantile(none, 0.9) < -5
    assert np.quantile(none, 0.9) < np.quantile(right, 0.01)


def near_at(volume, noise, turns, data):
    shape = gridding.grid_shape(BAND.plane.kernel, BAND.plane.grid)
    none, zero = jnp.zeros(()), jnp.zeros(len(BAND.shell))
    before = (jnp.zeros((*shape, 3)), Expected(none + 0j, none, zero, zero, zero, none))
    return search_near(
        BAND, volume, noise, (jnp.asarray(turns, jnp.float32), jnp.zeros((len(turns), 1, 2))), jnp.float32(0),
        jnp.zeros((1, 2)), jnp.float32(1), data, jnp.ones(len(turns)), jax.random.key(0), before, size=SIZE, points=2,
        spreading=False,
    )  # fmt: skip


def test_numbers_of_images_share_their_programs():
    body = molecule(SIZE)
    volume = resized(body.volume(SIZE), BAND.size)
    powers = jnp.full(BAND.shells, 100.0)
    estimate = Estimate(volume, powers, powers, powers)
    names = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, _, **told: names.append(told.get("fun_name", "")))
    jax.clear_caches()
    for count in (5, 7, 8):
        images, particles, _ = stack(body, count, SIZE, snr=1.0)
        batches, poses = ImageBatches(images, Particles(particles.rotations)), Poses.unknown(count)
        told = dict(shift_px=SHIFT_PX, radius=0.42, group=np.eye(3)[None], shifts=SHIFTS)
        _, poses = grid_pass(batches, BAND, estimate, poses, jax.random.key(0), grid=GRID, centred=False, **told)
        _, poses = near_pass(batches, BAND, estimate, poses, jax.random.key(1), width_rad=0.1, modes=1, **told)
        assert poses.weights.shape == (count, 8) and (poses.weights.sum(1) > 0).all()
        made = [name for name in names if name in ("search_grid", "search_near", "next_estimate", "slices", "_samples")]
        if count == 5:
            first, seen = set(made), len(made)
    assert first == {"search_grid", "search_near", "next_estimate", "slices", "_samples"} and len(made) == seen


def test_displacements_fill_a_disc_from_its_centre():
    found = disc(3.0, 1.5)
    np.testing.assert_array_equal(found[0], 0)
    lengths = np.hypot(*found.T)
    assert len(found) == 13 and (np.diff(lengths) >= 0).all() and lengths.max() == 3
    np.testing.assert_array_equal(disc(0.0, 1.0), [[0, 0]])
    np.testing.assert_array_equal(disc(0.9, 1.0), [[0, 0]])


def test_points_fill_a_ball_evenly():
    points = ball_points(200)
    length = np.linalg.norm(points, axis=1)
    assert length[0] == 0 and length.max() <= 1 and len(points) == 200
    np.testing.assert_allclose(np.quantile(length, [0.25, 0.5, 0.75]), np.cbrt([0.25, 0.5, 0.75]), atol=0.03)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.05)


@pytest.mark.parametrize("name", ["C1", "C3", "D2", "T"])
def test_a_grid_of_a_point_group_has_each_view_once(name):
    group = symmetry_group(name)
    found, every = unit_grid(1, group), rotation.grid(1)
    assert len(every) <= len(found) * len(group) <= 1.1 * len(every)
    mates = np.einsum("nij,ejk->neik", found, group).reshape(-1, 3, 3)
    some = np.asarray(rotation.random_rotations(jax.random.key(0), 200))
    nearest = [np.einsum("nij,mij->nm", some, turns).max(1).min() for turns in (mates, every)]
    angles = np.arccos((np.array(nearest) - 1) / 2)
    assert angles[0] <= 1.15 * angles[1]  # no view is much farther from these than from the whole grid


def test_expectations_of_a_grid_are_spread_once(case):
    turned, (_, expected) = on_grid(case)
    total = search.spread_grid(BAND, jnp.asarray(GRID), expected)
    spectrum = gridding.spectrum(case[0], BAND.plane.kernel, BAND.plane.grid)
    # <spread data, F> = <data, slices of F> in the stored half: spreading is the transpose of interpolation
    inner = jnp.sum(total[..., 0] * spectrum.real + total[..., 1] * spectrum.imag)
    wanted = np.sum(BAND.count * (np.asarray(expected.data).conj() * np.asarray(turned)).real)
    assert float(inner) == pytest.approx(wanted, rel=1e-3)


def test_selections_of_samples(case):
    few = case[1].view(slice(2, 4))
    assert few.values.shape == (2, len(BAND.shell)) and eqx.tree_equal(few.contrast, case[1].contrast[2:4])
