"""Backgrounds of particle images: their levels, whether a stack is normalised by them, and their noise per optics group."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int
from numpy.typing import NDArray

from lfjax.errors import DataWarning, FileError, require, require_shape
from lfjax.tomography.ctf import PREMULTIPLIED, Ctf
from lfjax.tomography.particles import Particles

OFFSET = 0.5  # of the deviation of an image: the largest background mean of a normalised one
SPREAD = 3.0  # largest ratio of the 95th to the 5th percentile of the background deviations
NOISE_FREE = 0.1  # of the deviation of an image: a smaller background deviation is signal, and may spread as it likes
QUIETEST, UNHEARD = 1e-3, 1e4  # relative noise powers: the least, and that of shells in which a group holds nothing
TAPER = 0.1  # of half the box: width of the edge of the disc


def background_levels(
    images: Float[NDArray[np.floating], "n y x"], radius: float = 1.0
) -> tuple[Float[NDArray[np.float64], " n"], Float[NDArray[np.float64], " n"]]:
    """Mean and standard deviation of each image beyond a disc about its centre.

    Args:
        images: (n, y, x), square.
        radius: radius of the disc as a fraction of half the box.

    Returns:
        means and deviations, (n,) each, in the unit of the images.

    Raises:
        ShapeError: the images are not square.
        ParameterError: no pixel lies beyond the disc.
    """
    beyond = images[:, outside_disc(images.shape, radius)]
    return beyond.mean(axis=1, dtype=np.float64), beyond.std(axis=1, dtype=np.float64)


def outside_disc(shape: tuple[int, ...], radius: float) -> Bool[NDArray[np.bool_], "n n"]:
    """The pixels of a box beyond a disc about its centre.

    Args:
        shape: (n, y, x) of a stack of square images.
        radius: radius of the disc as a fraction of half the box.

    Raises:
        ShapeError: the images are not square.
        ParameterError: no pixel lies beyond the disc.
    """
    n = shape[-1]
    require_shape("images", shape, ("n", n, n))
    outside = _distance(n) > radius * n / 2
    require(bool(outside.any()), "radius", radius, "less than sqrt(2), so that there is a background")
    return outside


def check_background(
    means: Float[ArrayLike, " n"],
    deviations: Float[ArrayLike, " n"],
    stds: Float[ArrayLike, " n"],
    where: str | Path,
    *,
    numbers: Int[ArrayLike, " n"] | None = None,
) -> None:
    """Refuse a stack that is not normalised: an offset, or a scale that differs among its images, spoils a map unseen.

    The mean of a background may be half the deviation of its image, and the background deviations may differ by a factor of
    three; those of a stack without noise are not compared. A few images, at most one in twenty, that break the first rule, as
    a neighbour or an ice crystal in the corner makes them, bring a warning.

    Args:
        means: (n,), from `background_levels`.
        deviations: (n,), from `background_levels`.
        stds: (n,), standard deviation of each whole image about its own mean.
        where: file, for the message.
        numbers: (n,), number of each image from 0, for the message; None: 0, 1, 2, ...

    Raises:
        FileError: the stack is not normalised; the message names the image and its values.
    """
    mean, deviation, std = (np.asarray(values, float) for values in (means, deviations, stds))
    number = np.arange(len(mean)) if numbers is None else np.asarray(numbers)
    advice = "expected mean 0 and one deviation for all; --normalise makes them so"
    off = np.abs(mean) > OFFSET * std
    if off.any():
        worst = int(np.argmax(np.where(off, np.abs(mean) / np.maximum(std, 1e-30), -1)))
        values = f"background mean {mean[worst]:.3g} at a deviation of {std[worst]:.3g} in image {number[worst] + 1}"
        told = f"{where}: {values}, {off.sum()} of {len(off)} images like it; {advice}"
        if off.mean() > 0.05:
            raise FileError(told)
        warnings.warn(told, DataWarning, stacklevel=2)
    if len(mean) and np.median(deviation) > NOISE_FREE * np.median(std):
        low, high = np.percentile(deviation, [5, 95])
        if high > SPREAD * low:
            least, most = int(np.argmin(deviation)), int(np.argmax(deviation))
            ends = " to ".join(f"{deviation[i]:.3g} in image {number[i] + 1}" for i in (least, most))
            raise FileError(f"{where}: background deviations from {ends}; {advice}")


def noise_spectra(
    images: Callable[[NDArray[np.int64]], NDArray[np.floating]] | NDArray[np.floating],
    particles: Particles,
    size: int,
    *,
    shells: Int[ArrayLike, " groups"] | None = None,
    radius: float = 1.0,
    most: int = 200,
) -> Float[NDArray[np.float64], "groups r"]:
    """Noise power of each optics group and shell, relative to the mean of the groups, from the backgrounds of some images.

        N_g(r) = sum_i sum_(|k| = r) |FT(w (Y_i - mean))|^2 / sum_i sum_(|k| = r) (|w^|^2 * c_i)(k)

    with w = 0 inside the disc of the particle and 1 beyond a soft edge, and c_i the power of what a program has multiplied
    into image i: |CTF|^2 where the images are premultiplied, else 1. So the CTF, which the weights of a reconstruction count
    already, is not counted again, and the leakage of the window is that of the denominator.

    Args:
        images: stack (n, size, size), or a function that reads the images of given indices, such as `ParticleFile.images`.
        particles: optics, pixel sizes and optics groups of all n images.
        size: pixels per side.
        shells: number of shells, from frequency 0, in which each group holds something, see `ParticleFile.shells`; beyond
            them its noise is 1e4, so that its images hardly count. None: all.
        radius: radius of the particle's disc as a fraction of half the box, or of that part of it that the images fill.
        most: images per group that are read, evenly spaced.

    Returns:
        (groups, size // 2 + 1), at least 1e-3; the mean over the groups is 1 in each shell, and a single group is exactly 1.

    Raises:
        ParameterError: an optics group has no background, or is not in `shells`.
    """
    group = np.asarray(particles.group)
    count, length = int(group.max()) + 1 if len(group) else 1, size // 2 + 1
    if count == 1:
        return np.ones((1 if shells is None else len(np.asarray(shells)), length))
    limit = np.full(count, length) if shells is None else np.asarray(shells)
    require(len(limit) >= count, "shells", f"{len(limit)} groups", f"{count} or more, one per optics group")
    count = len(limit)  # the last groups may have no images
    powers = np.ones((count, length))
    for g in range(count):
        members = np.flatnonzero(group == g)
        if len(members):
            chosen = members[np.unique(np.linspace(0, len(members) - 1, min(most, len(members))).astype(int))]
            read = images(chosen) if callable(images) else images[chosen]
            powers[g] = _spectrum(read, _applied(particles, chosen, size, most), radius)
    present = np.isin(np.arange(count), group)[:, None] & (np.arange(length) < limit[:, None])
    mean = np.sum(powers, axis=0, where=present) / np.maximum(present.sum(axis=0), 1)
    relative = np.where(mean > 0, powers / np.where(mean > 0, mean, 1), 1)
    return np.where(present, np.maximum(relative, QUIETEST), UNHEARD)


def _spectrum(images: NDArray[np.floating], applied: NDArray[np.floating], radius: float) -> Float[NDArray[np.float64], " r"]:
    """Power per shell beyond the disc over that which noise of power 1 would have there, given what was multiplied into it."""
    n = images.shape[-1]
    filled = (images != 0).any(axis=0)  # a smaller box brought to this one has zeros around it
    half = max(filled.any(axis=0).sum(), filled.any(axis=1).sum()) / 2
    window = filled * np.clip((_distance(n) / max(half, 1) - radius) / TAPER + 0.5, 0, 1)
    window = np.sin(np.pi / 2 * window) ** 2
    require(bool(window.any()), "radius", radius, "a disc smaller than the images, so that there is a background")
    power = np.zeros((n, n // 2 + 1))
    for image in images:
        rest = window * (image - np.sum(window * image) / window.sum())
        power += np.abs(np.fft.rfft2(rest)) ** 2
    overlap = np.fft.irfft2(np.abs(np.fft.rfft2(window)) ** 2, (n, n))
    unit = np.fft.rfft2(overlap * np.fft.irfft2(applied, (n, n))).real * len(images)
    ky, kx = np.rint(np.fft.fftfreq(n) * n)[:, None], np.arange(n // 2 + 1)
    shell = np.minimum(np.floor(np.hypot(ky, kx) + 0.5).astype(int), n // 2 + 1).ravel()
    found, wanted = (np.bincount(shell, values.ravel(), n // 2 + 2)[:-1] for values in (power, unit))
    return found / np.maximum(wanted, 1e-12 * wanted.max())


def _applied(particles: Particles, chosen: NDArray[np.int64], size: int, most: int) -> NDArray[np.floating]:
    """Mean power, over some images, of what was multiplied into them, at the frequencies of `rfft2`."""
    ctf = particles.ctf
    if ctf is None or ctf.applied is None or not (np.asarray(ctf.applied)[chosen] == PREMULTIPLIED).any():
        return np.ones((size, size // 2 + 1))
    padded = particles[np.resize(chosen, max(most, len(chosen)))]  # one shape, so that one program serves all groups
    counted = np.arange(len(padded)) < len(chosen)
    ky, kx = (f(size) for f in (np.fft.fftfreq, np.fft.rfftfreq))
    return np.asarray(_mean_power(padded.ctf, padded.pixel_angstrom, counted, kx[None], ky[:, None]), float)


@jax.jit
def _mean_power(ctf: Ctf, pixel: Array, counted: Array, kx: Array, ky: Array) -> Array:
    def add(total: Array, item: tuple[Ctf, Array, Array]) -> tuple[Array, None]:
        one, pixel, counts = item
        power = jnp.where(one.applied == PREMULTIPLIED, one.power(kx / pixel, ky / pixel), 1.0)
        return total + counts * power, None

    start = jnp.zeros(jnp.broadcast_shapes(jnp.shape(kx), jnp.shape(ky)), pixel.dtype)
    return jax.lax.scan(add, start, (ctf, pixel, counted))[0] / counted.sum()


def _distance(n: int) -> Float[NDArray[np.float64], "n n"]:
    x = np.arange(n) - n // 2
    return np.hypot(x, x[:, None])
