"""Maps of elements: unbiased, as exact as their errors say, the same in chunks, over devices and after an interruption."""

import functools

import jax
import numpy as np
import pytest

from lfjax import parallel
from lfjax.errors import LfjaxError
from lfjax.xrf import Detector, Instrument, elements, fitted, maps, parse_families, spectrum, splines

DETECTOR = Detector(512, 40.0, noise_ev=85.0)
TUBE = Instrument(highest_ev=40_000.0)
FAMILIES = parse_families("Pb L, As K, Fe K, Cu K, Ca K", TUBE.highest_ev)


@functools.cache
def scan(rows=12, columns=20, level=25.0):
    """Counts (rows, columns, channels), true counts (families, rows, columns), and the elements of the sum."""
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        model = spectrum(DETECTOR, FAMILIES, TUBE, background=splines(DETECTOR, 8000.0))
    true = level * rng.gamma(1.0, 1.0, (len(FAMILIES), rows, columns)) * (rng.random((len(FAMILIES), rows, columns)) < 0.7)
    rest = np.full((len(model.names) - len(FAMILIES), rows, columns), 20.0)
    expected = np.einsum("nk,kyx->yxn", np.asarray(model.columns), np.concatenate([true, rest]))
    cube = rng.poisson(expected).astype(np.uint16)
    return cube, true, fitted(cube.sum((0, 1)).astype(float), DETECTOR, FAMILIES, TUBE)


@functools.cache
def mapped():
    cube, _, identified = scan()
    return maps(cube, identified, rows=5)


def test_maps_are_unbiased_and_their_errors_hold():
    _, true, _ = scan()
    found = mapped()
    assert found.names == tuple(each.name for each in FAMILIES)
    for ours, errors, truth in zip(found.counts, found.errors, true, strict=True):
        assert (ours >= 0).all()
        assert abs(np.mean(ours - truth)) < 0.15 * np.mean(errors) + 0.5
        present = truth > 3 * errors
        assert 0.7 < np.std(((ours - truth) / errors)[present]) < 1.3
        assert np.corrcoef(ours.ravel(), truth.ravel())[0, 1] > 0.9


def test_fits_are_at_the_maximum_of_the_likelihood():
    from scipy.optimize import minimize

    from lfjax.xrf.element_maps import pixel_model

    cube, _, identified = scan()
    columns = np.asarray(pixel_model(identified).columns, float)
    for y, x in ((0, 3), (7, 11)):
        counts = identified.window.binned_pixels(cube[y, x]).astype(float)

        def loss(a, counts=counts):
            mu = np.maximum(columns @ a, 1e-9)
            return np.sum(mu - counts * np.log(mu)), columns.T @ (1 - counts / mu)

        size = columns.shape[1]
        best = minimize(
            loss, np.full(size, 20.0), jac=True, bounds=[(0, None)] * size, method="L-BFGS-B",
            options={"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-9},
        ).x  # fmt: skip
        ours = mapped().counts[:, y, x]
        np.testing.assert_allclose(ours, best[: len(ours)], atol=0.1 * mapped().errors[:, y, x].max())


def test_chunks_devices_and_interruptions_change_nothing(tmp_path):
    cube, _, identified = scan()
    whole = mapped()
    np.testing.assert_allclose(maps(cube, identified, rows=12).counts, whole.counts, atol=2e-3)
    over = maps(cube, identified, rows=5, mesh=parallel.mesh())
    np.testing.assert_allclose(over.counts, whole.counts, atol=2e-3)

    class Broken:
        shape, stopped = cube.shape, False

        def read(self, rows):
            if rows.start >= 5 and not self.stopped:
                self.stopped = True
                raise KeyboardInterrupt
            return cube[rows.start : rows.stop]

    broken = Broken()
    with pytest.raises(KeyboardInterrupt):
        maps(broken, identified, rows=5, path=tmp_path / "rows.zarr")
    again = maps(broken, identified, rows=5, path=tmp_path / "rows.zarr")
    np.testing.assert_array_equal(again.counts, whole.counts)
    np.testing.assert_array_equal(again.errors, whole.errors)


def test_smoothing_flattens_noise_and_keeps_steps():
    from lfjax.xrf.element_maps import smoothed

    rng = np.random.default_rng(0)
    truth = np.zeros((24, 24), np.float32)
    truth[6:18, 8:20] = 50
    errors = np.full_like(truth, 10.0)
    noisy = np.maximum(truth + rng.normal(0, 10, truth.shape), 0).astype(np.float32)
    quiet = smoothed(noisy, errors, 1.0)
    assert np.linalg.norm(quiet - truth) < 0.75 * np.linalg.norm(noisy - truth)
    assert abs(quiet[10:14, 12:16].mean() - 50) < 8
    np.testing.assert_allclose(smoothed(noisy, errors, 1e-6), noisy, atol=0.1)


def test_elements_of_the_sum_are_what_is_mapped():
    cube, _, _ = scan(level=200.0)
    found = elements(cube.sum((0, 1)).astype(float), DETECTOR, TUBE)
    assert set(found.symbols) == {"Pb", "As", "Fe", "Cu", "Ca"}
    made = maps(cube[:2], found)
    assert set(made.names) >= {"Pb L", "As K", "Fe K", "Cu K", "Ca K"}


@pytest.mark.parametrize(
    ("cube", "options", "wrong"),
    [
        (np.zeros((2, 3, 100)), {}, "channels"),
        (np.zeros((2, 512)), {}, "cube"),
        (np.zeros((2, 3, 512)), {"smooth": -1.0}, "smooth"),
    ],
)
def test_bad_arguments_are_named(cube, options, wrong):
    with pytest.raises(LfjaxError, match=wrong):
        maps(cube, scan()[2], **options)
