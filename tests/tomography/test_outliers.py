"""Images that fit nothing are told from those that fit, and only where there are two kinds."""

import numpy as np
import pytest

from lfjax.tomography.outliers import goodness


def auc(good, bad):
    """Probability that a good image has the larger value, by all pairs."""
    pairs = np.sign(good[:, None] - bad)
    return float((pairs + 1).mean() / 2)


@pytest.mark.parametrize("count", [5, 25, 100, 500, 5000])
@pytest.mark.parametrize("centre, width", [(0.0, 1.0), (3.0, 1.5), (-1.0, 0.6)])
def test_one_group_is_good(count, centre, width):
    for seed in range(5):
        fit = centre + width * np.random.default_rng(seed).standard_normal(count)
        assert goodness(fit).mean() > 0.99 and (count >= 20 or (goodness(fit) == 1).all())


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("apart", [6.0, 12.0, 40.0])
def test_two_groups_are_told_apart(share, apart):
    rng = np.random.default_rng(1)
    junk = rng.random(600) < share
    fit = rng.standard_normal(600) - apart * junk
    good = goodness(fit)
    assert auc(good[~junk], good[junk]) > 0.97
    assert good[~junk].mean() > 0.97 and good[junk].mean() < 0.1
    assert good.dtype == np.float32 and good.min() >= 0 and good.max() <= 1


def test_a_wide_group_of_junk_takes_no_good_image():
    rng = np.random.default_rng(2)
    fit = np.concatenate([rng.standard_normal(400), -10 + 5 * rng.standard_normal(100)])
    good = goodness(fit)
    assert good[:400].mean() > 0.97 and good[np.argmax(fit)] == 1
    assert auc(good[:400], good[400:]) > 0.95


def test_the_better_an_image_fits_the_likelier_it_is_good():
    rng = np.random.default_rng(3)
    fit = np.sort(np.concatenate([rng.standard_normal(400), -8 + 2 * rng.standard_normal(100)]))
    good = goodness(fit)
    assert (np.diff(good[fit > -8]) >= -1e-6).all()


def test_the_order_of_images_does_not_matter():
    rng = np.random.default_rng(4)
    fit = rng.standard_normal(100) - 9 * (rng.random(100) < 0.2)
    order = rng.permutation(100)
    np.testing.assert_allclose(goodness(fit[order]), goodness(fit)[order], atol=1e-6)
    assert len(goodness(np.zeros(0))) == 0 and (goodness(np.full(50, 2.0)) == 1).all()
