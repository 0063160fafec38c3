"""Losses for training with few labels or none. Each is written for one sample; batch by `vmap` and take the mean."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lfjax.errors import require
from lfjax.optics.lightfield import views

Reconstruct = Callable[[Float[Array, "y x"]], Float[Array, "z y x"]]
Forward = Callable[[Float[Array, "z y x"]], Float[Array, "y x"]]


def volume_error(x: Float[Array, "z y x"], truth: Float[Array, "z y x"]) -> Float[Array, ""]:
    """|x - truth|^2 / |truth|^2, so that bright and dim labels count alike."""
    return _relative(x - truth, truth)


def light_field_error(
    image: Float[Array, "y x"],
    y: Float[Array, "y x"],
    mask: Bool[Array, "y x"] | None = None,
    *,
    cell_pixels: tuple[int, int] | None = None,
    block: int = 0,
) -> Float[Array, ""]:
    """|m (y~ - y)|^2 / |m y|^2 between a re-synthesised frame and the recorded one.

    Args:
        image: H x, or the surrogate's.
        y: the frame.
        mask: pixels that count; all if not given. Leave the border out where light from outside of the field comes in.
        cell_pixels: pixels (y, x) of a lenslet, needed with `block`.
        block: blind to background: of each view, blocks of this many lenslets a side lose their mean, in both frames. 0 is off.

    Raises:
        ParameterError: `block` without `cell_pixels`.
    """
    if block:
        require(cell_pixels is not None, "cell_pixels", cell_pixels, "the pixels of a lenslet, since block is given")
        image, y = (without_block_mean(a, cell_pixels, block) for a in (image, y))  # type: ignore[arg-type]
    weight = 1.0 if mask is None else mask.astype(y.dtype)
    return _relative(weight * (image - y), weight * y)


def without_block_mean(y: Float[Array, "y x"], cell_pixels: tuple[int, int], block: int) -> Float[Array, "y x"]:
    """Each view minus its mean in blocks of `block` x `block` lenslets; the last ones may be smaller."""
    seen = views.to_views(y, cell_pixels)
    rows, columns = seen.shape[2:]
    low, high = (jax.nn.one_hot(jnp.arange(n) // block, -(-n // block)) for n in (rows, columns))
    total = jnp.einsum("yi,xj,vuyx->vuij", low, high, seen)
    mean = total / (low.sum(0)[:, None] * high.sum(0)[None, :])
    return views.from_views(seen - jnp.einsum("yi,xj,vuij->vuyx", low, high, mean))


def sparsity(x: Float[Array, "z y x"]) -> Float[Array, ""]:
    """|x|_1 / (sqrt(n) |x|_2), from 1 / sqrt(n) for one bright voxel to 1 for an even volume; brightness does not matter."""
    return jnp.mean(jnp.abs(x)) / jnp.sqrt(jnp.mean(x**2) + jnp.finfo(x.dtype).tiny)


def least_squares_critic(real: Array, fake: Array) -> Float[Array, ""]:
    """1/2 mean (D(real) - 1)^2 + 1/2 mean D(fake)^2, which the critic lowers (Mao et al., ICCV 2017)."""
    return 0.5 * jnp.mean((real - 1) ** 2) + 0.5 * jnp.mean(fake**2)


def least_squares_generator(fake: Array) -> Float[Array, ""]:
    """1/2 mean (D(fake) - 1)^2, which the reconstruction lowers."""
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
    slope = jax.grad(critic)(share * real + (1 - share) * fake)
    return (jnp.sqrt(jnp.sum(slope**2) + 1e-12) - 1) ** 2


def equivariance(reconstruct: Reconstruct, forward: Forward, x: Float[Array, "z y x"], key: Array) -> Float[Array, ""]:
    """|f(H T x) - T x|^2 / |T x|^2 for a random flip or transpose T of an estimate x = f(y): no label needed.

    What H cannot see in x it sees, turned, in T x: that is where the null space is learned from (Chen, Tachella, Davies,
    ICCV 2021). The gradient flows through x on both sides.
    """
    turned = dihedral(x, jax.random.randint(key, (), 0, 8))
    return volume_error(reconstruct(forward(turned)), turned)


def noise_splitting(
    reconstruct: Reconstruct,
    forward: Forward,
    y: Float[Array, "y x"],
    key: Array,
    mask: Bool[Array, "y x"] | None = None,
    *,
    share: float = 0.7,
) -> Float[Array, ""]:
    """|m (H f(y_a / p) - y_b / (1 - p))|^2 / |m y_b / (1 - p)|^2, y split by coin toss into frames of independent noise.

    The light-field error of photons that f has not seen: with the same photons on both sides a network that puts their noise
    into the volume is rewarded for it, with others it is not.

    Args:
        reconstruct: f.
        forward: H.
        y: photons, zero or more; read noise and fractions are rounded away.
        key: of the split.
        mask: pixels that count, see `light_field_error`.
        share: p, of the photons that f sees.

    Source: Moran et al. (Noisier2Noise), CVPR 2020; Krull et al.; for Poisson by thinning, each part is Poisson again.
    """
    seen, held = split_photons(key, y, share)
    weight = 1.0 if mask is None else mask.astype(y.dtype)
    wanted = weight * held / (1 - share)
    missed = weight * forward(reconstruct(seen / share)) - wanted
    return jnp.sum(missed**2) / jnp.maximum(jnp.sum(wanted**2), 1.0)  # of a frame of no photons nothing is asked


def split_photons(key: Array, y: Float[Array, "..."], share: float) -> tuple[Array, Array]:
    """y = a + b with a ~ Binomial(y, share): independent Poisson parts of a Poisson frame. Negative values count as none."""
    counts = jnp.round(jnp.maximum(y, 0))
    seen = jax.random.binomial(key, counts, share).astype(y.dtype)
    return seen, counts - seen


def dihedral(a: Float[Array, "... y x"], which: Array | int) -> Float[Array, "... y x"]:
    """One of the eight flips and transposes of the last two axes; frame and volume are turned by the same number.

    A flipped rectified light field is the light field of the flipped volume, as long as the PSF is mirror symmetric: lenslets
    and the pixels behind them turn together. Bits of `which`: 1 flips y, 2 flips x, 4 transposes (square fields only).
    """
    which = jnp.asarray(which)
    a = jnp.where(which & 1, jnp.flip(a, -2), a)
    a = jnp.where(which & 2, jnp.flip(a, -1), a)
    return jnp.where(which & 4, a.swapaxes(-1, -2), a) if a.shape[-1] == a.shape[-2] else a


def _relative(difference: Array, wanted: Array) -> Float[Array, ""]:
    return jnp.sum(difference**2) / (jnp.sum(wanted**2) + jnp.finfo(wanted.dtype).tiny)
