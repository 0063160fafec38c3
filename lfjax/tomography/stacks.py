"""Simulated stacks of particle images, batch by batch, for stacks larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.tomography.particles import Particles


def simulate_stack(
    key: Array,
    volume: Float[ArrayLike, "z y x"],
    particles: Particles,
    *,
    snr: float | None = None,
    kernel: int = 5,
    batch: int = 256,
    track: Callable[[Iterable[int], str], Iterable[int]] | None = None,
) -> Iterator[Float[NDArray[np.float32], "n y x"]]:
    """Projections of a volume with CTF and white Gaussian noise of variance var(signal) / snr, in batches.

    var(signal) is the mean variance of the noise-free images of the first batch: one noise level serves all images.

    >>> from lfjax.tomography import random_particles
    >>> some = random_particles(jax.random.key(0), 5, pixel_angstrom=3.0)
    >>> [len(images) for images in simulate_stack(jax.random.key(1), jnp.ones((8, 8, 8)), some, snr=0.1, batch=3)]
    [3, 2]

    Args:
        key: random key of the noise.
        volume: cubic map.
        particles: poses and optics of the images.
        snr: signal-to-noise ratio of variances; None: no noise.
        kernel: taps of the interpolation.
        batch: most images per batch.
        track: wraps the loop over batches to show its progress, see `lfjax.progress.track`.

    Yields:
        Images (n, y, x), in the order of the particles.

    Raises:
        ShapeError: the volume is not a cube.
        ParameterError: snr or batch is out of range.
    """
    n, count = jnp.shape(volume)[0], len(particles)
    require_shape("volume", jnp.shape(volume), (n, n, n))
    require(snr is None or snr > 0, "snr", snr, "more than 0")
    require(batch >= 1, "batch", batch, "1 or more")
    size = -(-count // -(-count // batch))  # batches of one size, so that one program serves all
    starts = range(0, count, size)
    loop = track(starts, "projecting") if track else starts
    return _stack(key, jnp.asarray(volume, float), particles, snr, kernel, size, loop)


def _stack(
    key: Array, volume: Array, particles: Particles, snr: float | None, kernel: int, size: int, loop: Iterable[int]
) -> Iterator[NDArray[np.float32]]:
    power = np.asarray(-1.0, volume.dtype)  # negative: the first batch gives it
    for start in loop:
        first = min(start, len(particles) - size)  # the last batch starts among the images of the one before
        images, power = _noisy(kernel, size, key, volume, particles, first, snr, power)
        yield np.asarray(images)[start - first :]


@partial(jax.jit, static_argnums=(0, 1))
def _noisy(
    kernel: int,
    size: int,
    key: Array,
    volume: Array,
    particles: Particles,
    first: Array,
    snr: Array | None,
    power: Array,
) -> tuple[Array, Array]:
    part = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, first, size), particles)
    images = part.projector(volume.shape[0], kernel=kernel)(volume)
    if snr is None:
        return images, power
    power = jnp.where(power < 0, jnp.mean(jnp.var(images, axis=(1, 2))), power)
    noise = jax.random.normal(jax.random.fold_in(key, first), images.shape)
    return images + jnp.sqrt(power / snr) * noise, power
