"""Images in batches: filled up, weighed, and read again where there are too many to keep."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfjax import rotation
from lfjax.errors import ParameterError, ShapeError
from lfjax.tomography import image_batches
from lfjax.tomography.bands import band_of, samples
from lfjax.tomography.image_batches import ImageBatches
from lfjax.tomography.particles import Particles
from lfjax.tomography.passes import Poses, grid_pass
from lfjax.tomography.posterior_map import first_map
from lfjax.tomography.powers import measured_powers

BAND = band_of(5)


class Drawn:
    """A stack that draws each image when it is asked for, and remembers how many were asked for."""

    def __init__(self, count, size):
        self.shape, self.asked, self.times = (count, size, size), 0, np.zeros(count, int)
        self.noise = np.random.default_rng(0).standard_normal(size * size + 9973).astype(np.float32)

    def __getitem__(self, index):
        index = np.asarray(index)
        self.asked = max(self.asked, len(index))
        np.add.at(self.times, np.unique(index), 1)
        size = self.shape[1]
        return np.stack([self.noise[i % 9973 : i % 9973 + size * size].reshape(size, size) for i in index])


def blank(count):
    return Particles(np.broadcast_to(np.eye(3, dtype=np.float32), (count, 3, 3)))


@pytest.mark.parametrize("kept", [2**30, 0])
def test_every_image_comes_once_with_its_samples_and_weight(monkeypatch, kept):
    monkeypatch.setattr(image_batches, "IN_MEMORY", kept)
    images, count = Drawn(21, 16), 21
    batches = ImageBatches(images, blank(count), size=8)
    wanted = samples(BAND, images[np.arange(count)], blank(count))
    weights = np.linspace(0.1, 1, count)
    seen = []
    for batch in batches.batches(BAND, weights=weights):
        some = len(batch.images)
        assert batch.samples.values.shape == (8, len(BAND.shell)) and batch.weights.shape == (8,)
        np.testing.assert_allclose(batch.samples.values[:some], wanted.values[batch.images], atol=1e-5)
        np.testing.assert_allclose(batch.weights[:some], weights[batch.images], rtol=1e-6)
        assert not np.asarray(batch.weights)[some:].any()
        seen.append(batch.images)
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(count))
    chosen = np.array([20, 3, 4])
    (batch,) = batches.batches(BAND, chosen)
    np.testing.assert_array_equal(batch.images, chosen)
    np.testing.assert_allclose(batch.samples.values[:3], wanted.values[chosen], atol=1e-5)
    assert float(batch.weights.sum()) == 3 and not list(batches.batches(BAND, chosen[:0]))


def test_few_images_are_read_once():
    images = Drawn(20, 16)
    batches = ImageBatches(images, blank(20), size=8)
    for _ in range(3):
        for _ in batches.batches(BAND):
            pass
    assert images.times.max() == 1


@pytest.mark.parametrize("count, size, wanted", [(1, 256, 8), (5, 256, 8), (9, 256, 16), (300, 256, 256), (300, 100, 128)])
def test_batches_come_in_few_sizes(count, size, wanted):
    assert ImageBatches(np.zeros((count, 4, 4)), blank(count), size=size).size == wanted


def test_memory_does_not_grow_with_the_samples_of_all_images(monkeypatch):
    monkeypatch.setattr(image_batches, "IN_MEMORY", 0)
    before = jax.live_arrays()  # of other tests
    count, size = 100_000, 24
    images, band = Drawn(count, size), band_of(11)
    batches = ImageBatches(images, blank(count))
    powers = measured_powers(batches, band, 0.42)
    estimate, poses = first_map(jax.random.key(0), band, powers, 0.42), Poses.unknown(count)
    images.times[:] = 0
    tracemalloc.start()
    _, poses = grid_pass(
        batches, band, estimate, poses, jax.random.key(1), grid=rotation.grid(0)[:8].astype(np.float32),
        shifts=np.zeros((1, 2), np.float32), shift_px=1.0, radius=0.42, group=np.eye(3)[None], centred=False,
    )  # fmt: skip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert images.asked == 256 and images.times.min() == images.times.max() == 1
    assert np.isfinite(poses.log_evidence).all() and (poses.weights.sum(1) > 0.99).all()
    stored = sum(leaf.nbytes for leaf in jax.tree.leaves(poses))
    everything = 12 * len(band.shell) * count
    assert peak < 3.5 * stored + 2**24 < everything  # poses alone: old, new, and those of the batches
    there = {id(leaf) for leaf in before}
    left = [leaf.size for leaf in jax.live_arrays() if id(leaf) not in there]
    assert max(left) <= 9 * count  # the rotations of the particles


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ShapeError, match="images"):
        ImageBatches(np.zeros((3, 8, 8)), blank(4))
    with pytest.raises(ShapeError, match="images"):
        ImageBatches(np.zeros((4, 8, 6)), blank(4))
    with pytest.raises(ParameterError, match="size"):
        ImageBatches(np.zeros((4, 8, 8)), blank(4), size=0)
    assert jnp.asarray(ImageBatches(np.zeros((4, 8, 8)), blank(4)).put(np.ones(2))).shape == (2,)
