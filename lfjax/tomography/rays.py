"""Line integrals through an image or a volume along any rays: parallel, fan and cone beams.

    y(ray) = int V(o + t d) dt,  |d| = 1,

by linear interpolation in each plane of voxels across the ray's main axis (Joseph, IEEE Trans. Med. Imaging 1, 192 (1982)).
Coordinates are (x, y) or (x, y, z) in voxels, 0 at the voxel n // 2 of each axis; the array is 0 outside.
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import require, require_shape
from lfjax.linop import LinearOperator, Shape, floating
from lfjax.tomography.fourier_slice import map_batches


class Rays(LinearOperator):
    """Line integrals (views, ...) of an image (y, x) or volume (z, y, x); differentiable in the rays too.

    >>> Rays.parallel(jnp.linspace(0, jnp.pi, 4), 16)(jnp.ones((16, 16))).shape
    (4, 16)

    Attributes:
        origins: a point of each ray, (views, ..., 2 or 3).
        directions: direction of each ray, of length 1.
        shape: shape of the array.
        batch: most views per batch.
    """

    origins: Float[Array, "v ... d"]
    directions: Float[Array, "v ... d"]
    shape: Shape = eqx.field(static=True)
    batch: int = eqx.field(static=True)

    def __init__(
        self, origins: Float[ArrayLike, "v ... d"], directions: Float[ArrayLike, "v ... d"], shape: Shape, *, batch: int = 8
    ) -> None:
        """Any set of rays; see `parallel`, `fan`, `parallel_3d` and `cone` for the usual ones.

        Args:
            origins: a point of each ray, (views, ..., 2 or 3).
            directions: direction of each ray, of any length.
            shape: (y, x) or (z, y, x).
            batch: most views per batch.

        Raises:
            ShapeError: origins and directions differ in shape, or in dimension from the array.
        """
        origins, directions = floating(origins), floating(directions)
        require_shape("directions", directions.shape, origins.shape)
        require(len(shape) in (2, 3), "shape", shape, "(y, x) or (z, y, x)")
        require_shape("origins", origins.shape[-1:], (len(shape),))
        require(origins.ndim >= 2, "origins", origins.shape, "(views, ..., dimension)")
        self.origins, self.shape, self.batch = origins, tuple(shape), batch
        self.directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)

    @classmethod
    @partial(jax.jit, static_argnames=("cls", "size", "detectors", "batch"))
    def parallel(cls, angles_rad: Float[ArrayLike, " v"], size: int, detectors: int | None = None, *, batch: int = 8) -> Rays:
        """Parallel beams through (size, size): detector u sees the line x cos a + y sin a = u; a = 0 sums over y."""
        u = jnp.arange(detectors or size) - (detectors or size) // 2
        across, along = _frames(angles_rad)
        origins = across[:, None, :] * u[:, None]
        return cls(origins, jnp.broadcast_to(along[:, None], origins.shape), (size, size), batch=batch)

    @classmethod
    @partial(jax.jit, static_argnames=("cls", "size", "detectors"))
    def fan(
        cls,
        angles_rad: Float[ArrayLike, " v"],
        size: int,
        source: Float[ArrayLike, ""],
        detector: Float[ArrayLike, ""],
        detectors: int,
        pitch: Float[ArrayLike, ""] = 1.0,
    ) -> Rays:
        """Fan beams from a source `source` voxels before the centre to a flat detector `detector` voxels beyond it."""
        across, along = _frames(angles_rad)
        start = -jnp.asarray(source) * along
        u = pitch * (jnp.arange(detectors) - (detectors - 1) / 2)
        end = detector * along[:, None] + across[:, None] * u[:, None]
        return cls(jnp.broadcast_to(start[:, None], end.shape), end - start[:, None], (size, size))

    @classmethod
    @partial(jax.jit, static_argnames=("cls", "size", "batch"))
    def parallel_3d(cls, rotations: Float[ArrayLike, "v 3 3"], size: int, *, batch: int = 1) -> Rays:
        """Projections of a volume (size,) * 3 as `FourierSlice` makes them: I(x, y) = int V(R^T (x, y, z)) dz."""
        x = jnp.arange(size) - size // 2
        rotations = jnp.asarray(rotations)
        plane = rotations[:, None, None, 0] * x[:, None] + rotations[:, None, None, 1] * x[:, None, None]
        return cls(plane, jnp.broadcast_to(rotations[:, None, None, 2], plane.shape), (size,) * 3, batch=batch)

    @classmethod
    @partial(jax.jit, static_argnames=("cls", "shape", "detectors"))
    def cone(
        cls,
        angles_rad: Float[ArrayLike, " v"],
        shape: tuple[int, int, int],
        source: Float[ArrayLike, ""],
        detector: Float[ArrayLike, ""],
        detectors: tuple[int, int],
        pitch: Float[ArrayLike, ""] = 1.0,
    ) -> Rays:
        """Cone beams from a source that circles about z to a flat detector (rows along z, columns across), in voxels."""
        across, along = (jnp.pad(v, ((0, 0), (0, 1))) for v in _frames(angles_rad))
        start = -jnp.asarray(source) * along
        v, u = (pitch * (jnp.arange(n) - (n - 1) / 2) for n in detectors)
        axis = jnp.asarray([0.0, 0.0, 1.0])
        end = (detector * along)[:, None, None] + across[:, None, None] * u[:, None] + axis * v[:, None, None]
        return cls(jnp.broadcast_to(start[:, None, None], end.shape), end - start[:, None, None], shape, batch=1)

    @property
    def in_shape(self) -> Shape:
        """(y, x) or (z, y, x)."""
        return self.shape

    @property
    def out_shape(self) -> Shape:
        """(views, ...)."""
        return self.origins.shape[:-1]

    def matvec(self, array: Array) -> Array:
        """The line integrals."""
        return _integrals(self, array)

    def _view(self, padded: Array, origins: Array, directions: Array) -> Array:
        sizes = np.array(padded.shape[::-1])  # x first, as coordinates have it
        strides = jnp.asarray(np.cumprod(np.r_[1, sizes[:-1]]), jnp.int32)
        start = origins + jnp.asarray(np.array(self.shape[::-1]) // 2 + 1, origins.dtype)
        main = jnp.argmax(jnp.abs(directions), axis=-1)
        others = jnp.stack([(main + i) % len(sizes) for i in range(1, len(sizes))], axis=-1)
        take = jnp.take_along_axis
        pace = take(directions, main[..., None], -1)
        slopes = take(directions, others, -1) / pace
        offsets = take(start, others, -1) - take(start, main[..., None], -1) * slopes
        limits, steps = jnp.asarray(sizes)[others], strides[others]
        flat = padded.ravel()

        def plane(total: Array, i: Array) -> tuple[Array, None]:
            where = offsets + i * slopes
            inside = jnp.all((where >= 0) & (where <= limits - 1), axis=-1) & (i < jnp.asarray(sizes)[main])
            cell = jnp.clip(jnp.floor(where), 0, limits - 2)
            part = where - cell
            corner = jnp.sum(cell.astype(jnp.int32) * steps, axis=-1) + i * strides[main]
            value = jnp.zeros_like(total)
            for bits in np.ndindex(*(2,) * (len(sizes) - 1)):
                weight = jnp.prod(jnp.where(jnp.asarray(bits) == 1, part, 1 - part), axis=-1)
                place = jnp.where(inside, corner + jnp.sum(jnp.asarray(bits) * steps, axis=-1), 0)
                value = value + weight * flat.at[place].get(mode="promise_in_bounds")
            return total + jnp.where(inside, value, 0), None

        total, _ = lax.scan(plane, jnp.zeros(main.shape, padded.dtype), jnp.arange(int(sizes.max())))
        return total / jnp.abs(pace[..., 0])


@jax.jit
def _integrals(rays: Rays, array: Array) -> Array:
    padded = jnp.pad(array, 1)  # so that interpolation beyond the edge meets zeros
    one = jax.checkpoint(lambda view: rays._view(padded, *view))
    return map_batches(one, (rays.origins, rays.directions), rays.batch)


def _frames(angles_rad: Float[ArrayLike, " v"]) -> tuple[Float[Array, "v 2"], Float[Array, "v 2"]]:
    """Directions across and along the beams: the x and y axes of the plane, rotated by the angles."""
    angles = jnp.asarray(angles_rad)
    c, s = jnp.cos(angles), jnp.sin(angles)
    return jnp.stack([c, s], axis=-1), jnp.stack([-s, c], axis=-1)
