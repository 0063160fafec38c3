"""Spread sums made symmetric: each image is spread once, and the sums are then added up over the elements of a point group.

    T_sym(k) = sum_g T(g k)

An image at pose R counts at each R g, and its sample at k comes to g^T k. The sums at g k are interpolated linearly between
cells: no weight of this interpolation is negative, so that data and weights stay a mean of samples and their number, beside
empty cells too. (Kernels with negative lobes, or a division in real space, leave negative weights there.) Elements that map
the grid to itself have whole numbers g k, and are exact.

Linear interpolation widens the kernel: an element adds the mean of u (1 - u) over all fractions u, 1/6 of a squared cell, to
its variance along those axes of g k that do not go by whole cells. With data D, weights W, Q = D / W, and v the mean of what
the elements add along an axis of k, the data become

    D - sum_j v_j / 2 min(W_j, 4 W) (Q_j - Q)

over the six neighbours j of a cell: the two terms, to first order in v, that undo in D / W the blur of both D and W. The bound
keeps a cell of little weight from taking the noise of its neighbours.

The map of images without noise differs by 0.3 to 1.1 % from that of images spread once per element; gridding errs by 2.5 to
6 %. With noise, the two maps are equally far from the truth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int
from numpy.typing import NDArray

from lfjax.tomography.fourier_slice import Plane

CELLS = 2**15  # cells of a block
BOUND = 4.0  # weight of a neighbour, in units of that of the cell


@functools.partial(jax.jit, static_argnums=0)
def symmetrise(
    plane: Plane, total: Float[Array, "gz gy gx 3"], group: Float[ArrayLike, "order 3 3"]
) -> Float[Array, "gz gy gx 3"]:
    """Folded sums in which every image counts once per element of a point group.

    Frequencies beyond Nyquist, the corners of the cube, are 0: rotations do not map them to one another. Margins have no
    meaning, as in `gridding.fold`.

    Args:
        plane: frequencies and kernel of the sums.
        total: folded sums, see `sums.folded`.
        group: all rotations of the group, see `symmetry_group`; one alone is the identity, and changes nothing.
    """
    if jnp.shape(group)[0] == 1:
        return total
    elements = jnp.asarray(group, total.dtype)
    whole = jnp.abs(elements - jnp.round(elements)) < 1e-6
    elements = jnp.where(whole, jnp.round(elements), elements)
    between = ~whole.all(2)  # axes of g k that fall between cells
    variance = jnp.mean(jnp.sum(jnp.where(between[..., None], elements**2, 0), axis=1), axis=0) / 6
    return _sharpened(plane, total, _turned(plane, total, elements), variance)


def _turned(plane: Plane, total: Array, group: Array) -> Array:
    """sum_g T(g k), block by block of the rows of cells that reach into the ball."""
    grid, width = plane.grid, plane.kernel.width
    result = jnp.zeros_like(total)
    for columns, rows in _rows_of_the_ball(grid, grid / 2 + width / 2):
        x, table = jnp.arange(columns, dtype=total.dtype), jnp.asarray(rows)

        def block(i: Array, result: Array, x: Array = x, table: Array = table) -> Array:
            z, y = table[i]
            ky, kz = (jnp.where(v > grid // 2, v - grid, v).astype(total.dtype)[:, None] for v in (y, z))

            def add(j: Array, found: Array) -> Array:
                return found + _read(plane, total, jnp.stack([row[0] * x + row[1] * ky + row[2] * kz for row in group[j]]))

            found = lax.fori_loop(0, len(group), add, jnp.zeros((len(z), len(x), 3), total.dtype))
            return result.at[z, y, width : width + len(x)].set(found)

        result = lax.fori_loop(0, len(rows), block, result)
    return result


def _rows_of_the_ball(grid: int, radius: float) -> list[tuple[int, Int[NDArray[np.int32], "blocks 2 m"]]]:
    """Rows (z, y) of cells in blocks, in four sets by the number of columns that they have in the ball."""
    square = (np.fft.fftfreq(grid) * grid).round() ** 2
    left = radius**2 - square[:, None] - square
    columns = np.where(left >= 0, np.minimum(np.sqrt(np.maximum(left, 0)).astype(int), grid // 2) + 1, 0)
    found, before = [], 0
    for most in (-(-(grid // 2 + 1) * part // 4) for part in (1, 2, 3, 4)):
        rows = np.stack(np.nonzero((columns > before) & (columns <= most))).astype(np.int32)
        size, before = rows.shape[1], most
        if size:
            blocks = -(-size // max(1, CELLS // most))
            rows = np.resize(rows.T, (blocks * -(-size // blocks), 2))  # the last block repeats the first rows
            found.append((most, rows.reshape(blocks, -1, 2).transpose(0, 2, 1)))
    return found


def _read(plane: Plane, total: Array, k: Float[Array, "3 rows columns"]) -> Float[Array, "rows columns 3"]:
    """The sums at k = (x, y, z), linear between cells; 0 outside of the cube."""
    grid = plane.grid
    inside, flip = (jnp.abs(k) <= grid // 2).all(0), k[0] < 0
    k = jnp.where(flip, -k, k)
    low = jnp.floor(k)
    x, y, z = low.astype(jnp.int32)
    u = k - low
    flat = total.reshape(-1, 3)
    value = jnp.zeros((*x.shape, 3), total.dtype)
    for dz, wz in enumerate((1 - u[2], u[2])):
        for dy, wy in enumerate((1 - u[1], u[1])):
            start = ((z + dz) % grid * total.shape[1] + (y + dy) % grid) * total.shape[2] + x + plane.kernel.width
            for dx, wx in enumerate((1 - u[0], u[0])):  # the column after Nyquist, a margin, has weight 0
                value += (wz * wy * wx)[..., None] * flat.at[start + dx].get(mode="promise_in_bounds")
    one = jnp.ones_like(u[0])
    return jnp.where(inside[..., None], value * jnp.stack([one, jnp.where(flip, -one, one), one], axis=-1), 0)


def _sharpened(plane: Plane, out: Array, total: Array, variance: Float[Array, "3"]) -> Array:
    """The sums without the variance along (x, y, z) that interpolation adds; written to `out`, plane by plane."""
    grid, width = plane.grid, plane.kernel.width
    sign = jnp.asarray([1, -1, 1], total.dtype)
    for target, source in ((width - 1, width + 1), (width + grid // 2 + 1, width + grid // 2 - 1)):
        mirror = sign * jnp.roll(total[:grid, :grid, source][::-1, ::-1], (1, 1), (0, 1))
        total = total.at[:grid, :grid, target].set(mirror)
    floor = jnp.maximum(1e-3 * jnp.mean(total, axis=(0, 1, 2))[2], 1e-20)  # as in `sums.inverse`

    def ratio(z: Array) -> tuple[Array, Array]:
        block = lax.dynamic_slice(total, (z % grid, 0, width - 1, 0), (1, grid, grid // 2 + 3, 3))[0]
        weight = block[..., 2:] + floor
        return block[..., :2] / weight, weight

    def one(z: Array, out: Array) -> Array:
        here, above, below = ratio(z), ratio(z + 1), ratio(z - 1)
        value, weight = (part[:, 1:-1] for part in here)

        def terms(shift: Callable[[Array], Array], near: tuple[Array, Array]) -> Array:
            other, its_weight = map(shift, near)
            return jnp.minimum(its_weight, BOUND * weight) * (other - value)

        along_x = terms(lambda a: a[:, :-2], here) + terms(lambda a: a[:, 2:], here)
        along_y = terms(lambda a: jnp.roll(a, 1, 0)[:, 1:-1], here) + terms(lambda a: jnp.roll(a, -1, 0)[:, 1:-1], here)
        along_z = terms(lambda a: a[:, 1:-1], above) + terms(lambda a: a[:, 1:-1], below)
        data = value * weight - (variance[0] * along_x + variance[1] * along_y + variance[2] * along_z) / 2
        return lax.dynamic_update_slice(out, jnp.concatenate([data, weight - floor], axis=-1)[None], (z, 0, width, 0))

    return lax.fori_loop(0, grid, one, out)
