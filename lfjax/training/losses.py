"""Losses for training with few labels or none. Each takes one sample; batch by `vmap` and average."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from lfjax.errors import require
from lfjax.optics.lightfield import views

Reconstruct = Callable[[Float[Array, "row col"]], Float[Array, "z y x"]]
Forward = Callable[[Float[Array, "z y x"]], Float[Array, "row col"]]


def volume_error(x: Float[Array, "z y x"], truth: Float[Array, "z y x"]) -> Float[Array, ""]:
    """|x - truth|^2 / |truth|^2, which gives bright and dim labels equal weight."""
    return _relative(x - truth, truth)


def light_field_error(
    image: Float[Array, "row col"],
    y: Float[Array, "row col"],
    mask: Bool[Array, "row col"] | None = None,
    *,
    cell_pixels: tuple[int, int] | None = None,
    block: int = 0,
) -> Float[Array, ""]:
    """|m (y~ - y)|^2 / |m y|^2, the relative error of a re-synthesised frame y~.

    Args:
        image: y~ = H x, or the image by a surrogate of H.
        y: the recorded frame.
        mask: m, pixels that count; None: all. Leave out the border, where light from outside the field comes in.
        cell_pixels: pixels (y, x) per lenslet, needed with `block`.
        block: side in lenslets of the blocks whose mean is subtracted from each view of both frames, which makes the loss blind
            to background; 0: nothing is subtracted.

    Raises:
        ParameterError: `block` without `cell_pixels`.
    """
    if block:
        require(cell_pixels is not None, "cell_pixels", cell_pixels, "the pixels of a lenslet, since block is given")
        image, y = (without_block_mean(a, cell_pixels, block) for a in (image, y))  # type: ignore[arg-type]
    weight = 1.0 if mask is None else mask.astype(y.dtype)
    return _relative(weight * (image - y), weight * y)


def without_block_mean(y: Float[Array, "row col"], cell_pixels: tuple[int, int], block: int) -> Float[Array, "row col"]:
    """Each view minus its mean over blocks of `block` x `block` lenslets; the last blocks may be smaller."""
    seen = views.to_views(y, cell_pixels)
    rows, columns = seen.shape[2:]
    low, high = (jax.nn.one_hot(jnp.arange(n) // block, -(-n // block)) for n in (rows, columns))
    total = jnp.einsum("yi,xj,vuyx->vuij", low, high, seen)
    mean = total / (low.sum(0)[:, None] * high.sum(0)[None, :])
    return views.from_views(seen - jnp.einsum("yi,xj,vuij->vuyx", low, high, mean))


def sparsity(x: Float[Array, "z y x"]) -> Float[Array, ""]:
    """|x|_1 / (sqrt(n) |x|_2): 1 / sqrt(n) for one bright voxel, 1 for a uniform volume, whatever the brightness."""
    return jnp.mean(jnp.abs(x)) / jnp.sqrt(jnp.mean(x**2) + jnp.finfo(x.dtype).tiny)


def least_squares_critic(real: Array, fake: Array) -> Float[Array, ""]:
    """1/2 mean (D(real) - 1)^2 + 1/2 mean D(fake)^2, which the critic minimises (Mao et al., ICCV 2017)."""
    return 0.5 * jnp.mean((real - 1) ** 2) + 0.5 * jnp.mean(fake**2)


def least_squares_generator(fake: Array) -> Float[Array, ""]:
    """1/2 mean (D(fake) - 1)^2, which the reconstruction minimises."""
    return 0.5 * jnp.mean((fake - 1) ** 2)


def wasserstein_critic(real: Array, fake: Array) -> Float[Array, ""]:
    """mean D(fake) - mean D(real), to which `gradient_penalty` is added (Gulrajani et al., NeurIPS 2017)."""
    return jnp.mean(fake) - jnp.mean(real)


def wasserstein_generator(fake: Array) -> Float[Array, ""]:
    """-mean D(fake)."""
    return -jnp.mean(fake)


def gradient_penalty(
    critic: Callable[[Array], Array], real: Float[Array, "z y x"], fake: Float[Array, "z y x"], key: Array
) -> Float[Array, ""]:
    """(|grad D(v)| - 1)^2 at a random point v between a real and a reconstructed volume, each of unit root mean square."""
    real, fake = (v / jnp.sqrt(jnp.sum(v**2) + 1e-12) for v in (real, fake))
    share = jax.random.uniform(key)
    gradient = jax.grad(critic)(share * real + (1 - share) * fake)
    return (jnp.sqrt(jnp.sum(gradient**2) + 1e-12) - 1) ** 2


def equivariance(reconstruct: Reconstruct, forward: Forward, x: Float[Array, "z y x"], key: Array) -> Float[Array, ""]:
    """|f(H T x) - T x|^2 / |T x|^2 for a random flip or transpose T of an estimate x = f(y); it needs no label.

    H may see in T x components that it does not see in x, so the loss teaches the null space of H (Chen, Tachella, Davies,
    ICCV 2021). The gradient flows through x on both sides.
    """
    turned = dihedral(x, jax.random.randint(key, (), 0, 8))
    return volume_error(reconstruct(forward(turned)), turned)


def noise_splitting(
    reconstruct: Reconstruct,
    forward: Forward,
    y: Float[Array, "row col"],
    key: Array,
    mask: Bool[Array, "row col"] | None = None,
    *,
    share: float = 0.7,
) -> Float[Array, ""]:
    """|m (H f(y_a / p) - y_b / (1 - p))|^2 / |m y_b / (1 - p)|^2, where each photon of y goes to y_a or y_b at random.

    This is the light-field error on photons that f has not seen. With the same photons on both sides, a network that
    reproduces their noise is rewarded; the two parts of the split have independent noise, so here it is not.

    Args:
        reconstruct: f.
        forward: H.
        y: photons, zero or more; fractions are rounded to whole photons.
        key: random key of the split.
        mask: m, pixels that count, see `light_field_error`.
        share: p, the fraction of the photons that f sees.

    Source: Moran et al. (Noisier2Noise), CVPR 2020; Krull et al.; for Poisson by thinning, each part is Poisson again.
    """
    seen, held = split_photons(key, y, share)
    weight = 1.0 if mask is None else mask.astype(y.dtype)
    wanted = weight * held / (1 - share)
    missed = weight * forward(reconstruct(seen / share)) - wanted
    return jnp.sum(missed**2) / jnp.maximum(jnp.sum(wanted**2), 1.0)  # a frame without photons gives 0, not 0 / 0


def split_photons(key: Array, y: Float[Array, "*shape"], share: float) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """y = a + b with a ~ Binomial(y, share): independent Poisson parts of a Poisson frame. Negative values count as zero."""
    counts = jnp.round(jnp.maximum(y, 0))
    seen = jax.random.binomial(key, counts.ravel(), share).reshape(y.shape).astype(y.dtype)  # drawn flat: compiles faster
    return seen, counts - seen


def dihedral(a: Float[Array, "*batch i j"], which: Int[ArrayLike, ""]) -> Float[Array, "*batch k l"]:
    """One of the eight flips and transposes of the last two axes; frame and volume are transformed by the same number.

    A flipped rectified light field is the light field of the flipped volume if the PSF is mirror symmetric: lenslets
    and the pixels behind them flip together.

    Args:
        a: the array.
        which: number from 0 to 7. Bit 1 flips y, bit 2 flips x, bit 4 transposes (square fields only).
    """
    which = jnp.asarray(which)
    a = jnp.where(which & 1, jnp.flip(a, -2), a)
    a = jnp.where(which & 2, jnp.flip(a, -1), a)
    return jnp.where(which & 4, a.swapaxes(-1, -2), a) if a.shape[-1] == a.shape[-2] else a


def _relative(difference: Array, wanted: Array) -> Float[Array, ""]:
    return jnp.sum(difference**2) / (jnp.sum(wanted**2) + jnp.finfo(wanted.dtype).tiny)
