"""Least squares of a map against its images at known poses as a convolution, whose cost does not grow with their number.

    1/2 sum_i sum_k |Y_i(k) - H_i(k) V^(R_i^T k)|^2 / N_i(|k|) = 1/2 <V, A V> - <V, b> + constant,
    b(x) = n^-2 sum_i sum_k m_i Y_i / N_i exp(2 pi i x.R_i^T k / n),
    (A V)(x) = sum_x' p(x - x') V(x'),   p(x) = n^-2 sum_i sum_k |CTF_i|^2 / N_i exp(2 pi i x.R_i^T k / n)

N is the noise variance per pixel that each shell has; m_i and |CTF_i|^2 are those of `Ctf`, so that images may be as recorded,
phase-flipped or premultiplied. The sums b and p are spread once (`gridding`), p on the doubled box where the convolution by
Fourier transforms is exact. Frequencies end below Nyquist.

Source: Wajer & Pruessmann, Proc. ISMRM 9, 767 (2001).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from lfjax.errors import require, require_shape
from lfjax.fourier import good_size
from lfjax.linop import Diagonal, LinearOperator, SelfAdjoint, floating
from lfjax.solvers import NormalEquations
from lfjax.tomography import gridding, sums
from lfjax.tomography.fourier_slice import Plane, View, accumulate
from lfjax.tomography.particles import Particles

KERNEL, BATCH = 5, 8  # taps; images that are spread at once


class ViewNormal(SelfAdjoint):
    """m A m: the normal operator of images at known poses between volumes (n, n, n), inside a support m.

    Attributes:
        spectrum: transform of p on the doubled box, real since p is even.
        support: m, from 0 to 1.
    """

    spectrum: Float[Array, "zz yy xx"]
    support: Float[Array, "z y x"]

    def matvec(self, x: Array) -> Array:
        """m (p * (m x)), through the doubled box."""
        n = self.shape[0]
        wide = jnp.fft.irfftn(self.spectrum * jnp.fft.rfftn(self.support * x, (2 * n,) * 3), (2 * n,) * 3)
        return self.support * wide[:n, :n, :n]


class ViewEquations(NormalEquations):
    """Normal equations of a map and its images, for `solvers.FISTA`, `ADMM` and `CG`; the solution is V = m x.

    Attributes:
        op: `ViewNormal`.
        data: m b.
        weights: 1.
        forward: the projector behind a support, which gives the images of x without their whitening.
        norm: 0: the objective lacks the constant of the data.
        information: p(0), the information that the images hold about one voxel; its root is the standard deviation that the
            noise has in each voxel of b.
    """

    information: Float[Array, ""]

    def __init__(self, op: ViewNormal, data: Array, forward: LinearOperator, information: Array) -> None:
        self.op, self.forward, self.information = op, forward, information
        self.data, self.norm, self.weights = data, jnp.zeros((), data.dtype), jnp.ones((), data.dtype)


def view_equations(
    images: Float[ArrayLike, "n y x"],
    particles: Particles,
    *,
    noise: Float[ArrayLike, "groups r"],
    support: Float[ArrayLike, "sz sy sx"] | None = None,
) -> ViewEquations:
    """The normal equations of all images, for few of them: they are spread at once, on a grid of three times their size.

    >>> from lfjax import solvers
    >>> from lfjax.tomography.particles import random_particles
    >>> some = random_particles(jax.random.key(0), 20, pixel_angstrom=4.0)
    >>> images = some.projector(16)(jnp.ones((16, 16, 16)))
    >>> solvers.solve(solvers.CG(), view_equations(images, some, noise=jnp.ones((1, 9))), 3).shape
    (16, 16, 16)

    Args:
        images: (n, y, x), square.
        particles: poses and optics of the images.
        noise: variance per pixel of the noise of each optics group and shell (0 to size // 2 cycles per box): white noise of
            standard deviation s has s^2 in every shell. For premultiplied images, of the noise before that.
        support: m, from 0 to 1; None: 1 everywhere.

    Raises:
        ShapeError: images and particles differ in number, the images are not square, or noise or support do not fit them.
        ParameterError: a noise variance is not positive, or an optics group has none.
    """
    stack = floating(images)
    size = stack.shape[-1]
    require_shape("images", stack.shape, (len(particles), size, size))
    rows = sums.noise_of_each(particles, noise, size)
    inside = jnp.ones((size,) * 3, stack.dtype) if support is None else jnp.asarray(support, stack.dtype)
    require_shape("support", inside.shape, (size,) * 3)
    require(size >= 4, "images", f"{size} pixels per side", "4 or more")
    views = sums.views_of(particles)
    back, spectrum, information = _sums(_plane(size), views, stack, jnp.asarray(rows))
    op = ViewNormal(shape=inside.shape, spectrum=spectrum, support=inside)
    return ViewEquations(op, inside * back, particles.projector(size) @ Diagonal(inside), information)


def _plane(size: int) -> Plane:
    """Frequencies below Nyquist, on a grid of 1.5 times the doubled box."""
    grid = 2 * good_size(-(-3 * size // 2))
    return Plane(size, grid, gridding.kaiser_bessel(KERNEL, grid / (2 * size)), (size - 1) / size)


@functools.partial(jax.jit, static_argnums=0)
def _sums(plane: Plane, views: View, images: Array, noise: Float[Array, "n r"]) -> tuple[Array, Array, Array]:
    """b, the transform of p on the doubled box, and p(0)."""
    n = plane.size
    kx, ky = plane.frequencies
    shell = np.minimum(np.rint(np.hypot(kx, ky)).astype(int), n // 2)
    share = jnp.asarray(np.where(kx == 0, 1, 2) / n**2, images.dtype)  # both signs of ky are listed where kx = 0

    def one(view: View, image: Array, noise: Array) -> Array:
        data = plane.samples(image, view.shift) * plane.matched(view)
        # the transpose of `spectrum` sums without conjugating
        values = jnp.stack([data.real, -data.imag, jnp.broadcast_to(plane.power(view), data.shape)], axis=-1)
        return values * (share / noise[shell])[:, None]

    def step(total: Array, item: tuple[View, Array, Array], counted: Array) -> Array:
        values = jnp.where(counted[:, None, None], jax.vmap(one)(*item), 0)
        return gridding.add_taps(total, plane.taps(item[0], values))

    start = jnp.zeros((*gridding.grid_shape(plane.kernel, plane.grid), 3), images.dtype)
    total = accumulate(step, start, (views, images, noise), BATCH)
    wide = jax.ShapeDtypeStruct((2 * n,) * 3, images.dtype)
    spread = jax.linear_transpose(lambda v: gridding.spectrum(v, plane.kernel, plane.grid), wide)
    (data,), (point,) = (spread(lax.complex(*parts)) for parts in ((total[..., 0], total[..., 1]), _real(total[..., 2])))
    first = n - n // 2
    box = (slice(first, first + n),) * 3
    return data[box], jnp.fft.rfftn(jnp.fft.ifftshift(point)).real, point[n, n, n]


def _real(x: Array) -> tuple[Array, Array]:
    return x, jnp.zeros_like(x)
