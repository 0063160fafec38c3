"""The most probable map of a band, with prior and noise from the evidence: the M-step of a search for poses.

    V^(k) = D(k) / (W(k) + s2(|k|) / tau2(|k|)),   v(k) = s2 / (W + s2 / tau2)

with D the spread sums of w c y, W those of w c^2, tau2 the prior power and s2 the noise power of a shell, and v the posterior
variance. Both powers come from the images, pass by pass:

    tau2 <- mean over a shell of |V^|^2 + v,   s2 <- mean over a shell and all images of w |y - c P|^2.

The residuals anneal the search by themselves: a wrong map leaves large ones, which flatten the posteriors of the next pass.
The map vanishes outside a soft ball.

Sources: Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1 (1977); MacKay, Neural Comput. 4, 415 (1992).
"""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from lfjax.tomography import fourier_shells, gridding
from lfjax.tomography.bands import Band, resized, shell_powers
from lfjax.tomography.powers import Powers
from lfjax.tomography.search import Expected
from lfjax.tomography.symmetric_sums import symmetrise

LEAST_NOISE = 1e-5  # of the images' power, about the square of the interpolation's error


class Estimate(eqx.Module):
    """Map of a band, and the powers that its likelihood and its prior have.

    Attributes:
        volume: the map on the scale of the images, in the box of the band.
        prior: tau2, expected power of each shell of its transform.
        noise: s2, noise power of each shell of the images' transforms.
        variance: v, posterior variance of the transform of the map in each shell.
    """

    volume: Float[Array, "n n n"]
    prior: Float[Array, " r"]
    noise: Float[Array, " r"]
    variance: Float[Array, " r"]


@functools.partial(jax.jit, static_argnums=0)
def next_estimate(
    band: Band,
    total: Float[Array, "gz gy gx 3"],
    expected: Expected,
    before: Estimate,
    radius: Float[Array, ""],
    group: Float[Array, "e 3 3"],
) -> Estimate:
    """The next map, prior and noise.

    Args:
        band: frequencies.
        total: spread sums of data and weights.
        expected: residuals of the images.
        before: the estimate under which the sums were made.
        radius: radius of the soft ball as a fraction of the box.
        group: rotations of the particle's point group.
    """
    noise = _noise_of(band, band.means(expected.residual), expected, before)
    plane = band.plane
    n, grid = plane.size, plane.grid
    sums = symmetrise(plane, gridding.fold(total, plane.kernel, grid), group)
    sums = gridding.inside(sums, 0, grid // 2 + 1, plane.kernel, grid)
    decay = plane.kernel.apodisation(n, grid)
    per = (grid / n) ** 3 / decay[n // 2] ** 3  # samples of the grid per independent frequency of the box
    length = fourier_shells.radii(grid) * (n / grid)
    radius_of = jnp.minimum(length, n // 2)
    shells = jnp.arange(band.shells, dtype=jnp.float32)
    ratio = jnp.interp(radius_of, shells, noise / before.prior)
    unknown = ratio / (sums[..., 2] * per + ratio)
    data = lax.complex(sums[..., 0], sums[..., 1]) * (per / (sums[..., 2] * per + ratio))
    data = jnp.where(length <= band.limit + 0.5, data, 0)
    volume = jnp.roll(jnp.fft.irfftn(data, (grid,) * 3), (n // 2,) * 3, (0, 1, 2))[:n, :n, :n]
    line = jnp.asarray(decay[n // 2] / decay, jnp.float32)
    volume = volume * (line[:, None, None] * line[:, None] * line) * _ball(n, radius)
    shell = jnp.minimum(fourier_shells.shells(grid, per=grid / n), n // 2)
    variance = before.prior * fourier_shells.shell_means(unknown, shell, band.shells)  # v / tau2 is 1 where there are no data
    return Estimate(volume, shell_powers(volume) + variance, noise, variance)


def _noise_of(band: Band, residual: Array, expected: Expected, before: Estimate) -> Array:
    """Noise power of the shells of a band from their summed residuals, and not less than the interpolation leaves of images
    without noise: rounding makes such residuals 0 or negative."""
    power = band.means(expected.power)
    least = LEAST_NOISE * jnp.maximum(power, 1e-6 * power.max())
    noise = jnp.maximum(residual, least) / jnp.maximum(expected.count, 1e-6)
    known = (jnp.arange(band.shells) <= band.limit) & (expected.count > 0) & (power.max() > 0)
    return jnp.where(known, noise, before.noise)


def _ball(n: int, radius: Array) -> Array:
    """`soft_ball`, of a radius that is traced."""
    x2 = jnp.asarray((np.arange(n) - n // 2) ** 2, jnp.float32)
    distance = jnp.sqrt(x2[:, None, None] + x2[:, None] + x2)
    edge = max(0.06 * n, 1.5)
    return 0.5 + 0.5 * jnp.cos(jnp.pi * jnp.clip((distance - radius * n) / edge, 0, 1))


@functools.partial(jax.jit, static_argnums=0)
def rescaled(band: Band, expected: Expected, before: Estimate) -> Estimate:
    """The same map times the factor of each shell that explains the images best, and the noise that it leaves.

    A map of another program has another scale and another fall-off than the images; shells in which it explains nothing go.
    """
    energy, cross = band.means(expected.energy), band.means(expected.cross)
    gain = jnp.clip(cross / jnp.maximum(energy, 1e-20), 0, None)
    gain = jnp.where(jnp.arange(band.shells) <= band.limit, gain, gain[band.limit])
    left = band.means(expected.power) - 2 * gain * cross + gain**2 * energy
    noise = _noise_of(band, left, expected, before)
    volume = fourier_shells.scale_shells(before.volume, gain)
    return Estimate(volume, before.prior * gain**2, noise, before.variance)


def first_map(key: Array, band: Band, powers: Powers, radius: float) -> Estimate:
    """A map that knows nothing but size and power: noise of the object's low frequencies in a ball of its mass.

    Args:
        key: random key.
        band: frequencies.
        powers: powers of the images.
        radius: radius of the object as a fraction of the box.
    """
    power, noise = powers_in(band, powers)
    return Estimate(_first_volume(key, band, power, jnp.asarray(powers.mass), jnp.asarray(radius)), power, noise, power)


@functools.partial(jax.jit, static_argnums=1)
def _first_volume(key: Array, band: Band, power: Array, mass: Array, radius: Array) -> Array:
    n = band.size
    shell = jnp.minimum(fourier_shells.shells(n), n // 2)
    spectrum = jnp.fft.rfftn(jax.random.normal(key, (n,) * 3)) / n**1.5 * jnp.sqrt(power)[shell]
    spectrum = jnp.where(fourier_shells.radii(n) <= 3.5, spectrum, 0)
    core = _ball(n, 0.35 * radius)
    return 0.7 * jnp.fft.irfftn(spectrum, (n,) * 3) * _ball(n, 0.5 * radius) + mass * core / core.sum()


def in_band(estimate: Estimate, band: Band, powers: Powers) -> Estimate:
    """An estimate of another band: the same map, and powers of the images in the shells that are new."""
    if estimate.volume.shape[0] == band.size:
        return estimate
    power, noise = powers_in(band, powers)

    def longer(known: Array, else_: Array) -> Array:
        return jnp.concatenate([known[: band.shells], else_[len(known) :]])

    volume = resized(estimate.volume, band.size)
    return Estimate(volume, longer(estimate.prior, power), longer(estimate.noise, noise), longer(estimate.variance, power))


def powers_in(band: Band, powers: Powers) -> tuple[Float[Array, " r"], Float[Array, " r"]]:
    """Power of the object, and all power of the images: the noise of a shell of which the map knows nothing."""
    shell = np.minimum(np.arange(band.shells), powers.band.limit)
    return jnp.asarray(powers.signal[shell], jnp.float32), jnp.asarray(powers.images[shell], jnp.float32)


def resolved(estimate: Estimate, limit: int) -> float:
    """Share of the power of the last two shells of a band that the images determine, 1 - v / tau2."""
    rim = slice(limit - 1, limit + 1)
    return float(np.mean(1 - np.asarray(estimate.variance)[rim] / np.asarray(estimate.prior)[rim]))
