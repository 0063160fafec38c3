"""Images of a search in batches of one size: read, transformed and spread over devices a batch at a time.

One size means one program for all batches and all numbers of images. The samples of a band stay in memory while they are few;
else every pass reads its images again, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, ArrayLike, Float, Int, PyTree
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.parallel import spread
from lfjax.tomography.bands import Band, Samples, samples
from lfjax.tomography.particles import Particles

IN_MEMORY = 2**30  # bytes of samples that stay in memory


@runtime_checkable
class Stack(Protocol):
    """n images: an array, or anything that has a shape and gives images by their indices, such as a mapped file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, y, x)."""

    def __getitem__(self, index: NDArray[np.int64], /) -> ArrayLike:
        """Images of these indices, particles bright, backgrounds of mean 0."""


class Batch(NamedTuple):
    """Some images, filled up to the size of all batches.

    Attributes:
        images: indices of the images, without the filling.
        samples: their samples, and those of the filling.
        weights: how much each image counts; 0 for the filling.
    """

    images: Int[NDArray[np.int64], " b"]
    samples: Samples
    weights: Float[Array, " n"]


class ImageBatches:
    """The images of a search.

    Attributes:
        images: the stack.
        particles: optics of the images, and shifts about which they are searched.
        noise: relative noise power of each optics group and shell; None: white.
        size: images per batch.
        mesh: devices over which each batch is spread; None: the default device.
    """

    def __init__(
        self,
        images: Stack,
        particles: Particles,
        *,
        noise: Float[ArrayLike, "groups r"] | None = None,
        size: int = 256,
        mesh: Mesh | None = None,
    ) -> None:
        """Raises `ShapeError` unless images and particles agree, `ParameterError` for an impossible size."""
        shape = tuple(images.shape)
        require_shape("images", shape, (len(particles), shape[-1], shape[-1]))
        require(size >= 1, "size", size, "1 or more images per batch")
        self.images, self.particles, self.noise, self.mesh = images, particles, noise, mesh
        devices = 1 if mesh is None else mesh.size
        bucket = 2 ** math.ceil(math.log2(max(min(size, len(particles)), 8)))
        self.size = devices * math.ceil(bucket / devices)
        self._kept: tuple[Band, Samples] | None = None

    def __len__(self) -> int:
        return len(self.particles)

    @property
    def pixels(self) -> int:
        """Pixels per side of the images."""
        return self.images.shape[-1]

    def batches(
        self,
        band: Band,
        index: Int[NDArray[np.int64], " k"] | None = None,
        weights: Float[NDArray[np.floating], " n"] | None = None,
    ) -> Iterator[Batch]:
        """All images, or those of `index`, with a weight for each image of the whole set (None: 1)."""
        chosen = np.arange(len(self)) if index is None else index
        for start in range(0, len(chosen), self.size):
            part = chosen[start : start + self.size]
            filled = self.filled(part)
            counted = np.where(np.arange(self.size) < len(part), 1.0 if weights is None else weights[filled], 0.0)
            yield Batch(part, *self.put((self._samples(band, filled), counted.astype(np.float32))))

    def filled(self, index: Int[NDArray[np.int64], " b"]) -> Int[NDArray[np.int64], " n"]:
        """Indices of a batch, filled up with the last one."""
        return index[np.minimum(np.arange(self.size), len(index) - 1)]

    def put(self, tree: PyTree) -> PyTree:
        """Arrays of one entry per image of a batch, on the devices of the mesh."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        place = NamedSharding(self.mesh, spread(self.mesh))
        return jax.tree.map(lambda a: jax.device_put(np.asarray(a), place), tree)

    def take(self, tree: PyTree, count: int) -> Any:
        """NumPy arrays of the first `count` images of a batch, on every process."""

        def whole(leaf: Array) -> NDArray[Any]:
            found = leaf if leaf.is_fully_addressable else multihost_utils.process_allgather(leaf, tiled=True)
            return np.asarray(found)[:count]

        return jax.tree.map(whole, tree)

    def _samples(self, band: Band, index: Int[NDArray[np.int64], " b"]) -> Samples:
        if 12 * len(band.shell) * len(self) > IN_MEMORY:
            return self._read(band, index)
        if self._kept is None or self._kept[0] != band:
            everything = np.arange(len(self))
            parts = []
            for start in range(0, len(self), self.size):
                part = everything[start : start + self.size]
                parts.append(jax.tree.map(np.asarray, self._read(band, self.filled(part))))
            self._kept = band, jax.tree.map(lambda *a: np.concatenate(a)[: len(self)], *parts)
        return jax.tree.map(lambda a: a[index], self._kept[1])

    def _read(self, band: Band, index: Int[NDArray[np.int64], " b"]) -> Samples:
        return samples(band, np.asarray(self.images[index], np.float32), self.particles[index], self.noise)
