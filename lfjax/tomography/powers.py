"""Powers of signal and noise in images of unknown pose, shell by shell: what a search starts from.

By the slice theorem the mean power of the samples of a shell is mean(c^2) tau2 + s2, whatever the poses. The noise comes from
the pixels outside of the particle.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float
from numpy.typing import NDArray

from lfjax.tomography.bands import Band
from lfjax.tomography.ctf import PREMULTIPLIED
from lfjax.tomography.image_batches import ImageBatches

MEASURED = 2048  # most images measured
LEAST = 1e-3  # of the noise power: least power of the signal in a shell


class Powers(NamedTuple):
    """Powers of a set of images.

    Attributes:
        band: frequencies measured.
        signal: tau2 of each shell, of the transform of the map; beyond the band that of its last three shells.
        noise: s2 of the transforms of the images, of white noise.
        information: expected log-likelihood ratio of an image at its pose up to each shell.
        mass: sum of the object's voxels, if shell 0 tells it; else 0.
        images: mean power of the images' samples in each shell.
        contrast: mean of c^2 in each shell.
    """

    band: Band
    signal: Float[NDArray[np.float64], " r"]
    noise: float
    information: Float[NDArray[np.float64], " r"]
    mass: float
    images: Float[NDArray[np.float64], " r"]
    contrast: Float[NDArray[np.float64], " r"]

    def explained(self, noise: Float[ArrayLike, " r"], first: int, last: int) -> float:
        """Share of the images' signal that a map explains, from one shell to another: 1 if what the map leaves is noise.

            sum over samples of (P - s2') / sum over samples of (P - s2)

        with P the images' power, s2 the noise beyond the particle, and s2' the power that the map leaves. A wrong map, or one
        made symmetric about axes that the particle lacks, leaves signal, although its posteriors are as narrow as those of the
        right map.

        Args:
            noise: power of each shell that the map leaves.
            first: first shell; the lowest hold the mass and the size of a particle, which a wrong map explains too.
            last: last shell, at most that of the band.

        Returns:
            The share; NaN: the images hold no signal in these shells.
        """
        some = slice(first, min(last, self.band.limit) + 1)
        count = np.bincount(self.band.shell, self.band.count)[some]
        power, left = self.images[some], np.asarray(noise, float)[some]
        signal = float((count * (power - self.noise)).sum())
        return float((count * (power - left)).sum()) / signal if signal > 0 else float("nan")


def measured_powers(images: ImageBatches, band: Band, radius: float) -> Powers:
    """Powers of up to MEASURED images, in the shells of a band.

    Args:
        images: the images.
        band: frequencies.
        radius: radius of the particle as a fraction of the box.
    """
    index = np.unique(np.linspace(0, len(images) - 1, min(len(images), MEASURED)).astype(int))
    origin = int(np.argmin(np.hypot(*band.plane.frequencies)))
    power, contrast, mass, noise = np.zeros(len(band.shell)), np.zeros(len(band.shell)), 0.0, []
    for batch in images.batches(band, index):
        values, c = images.take((batch.samples.values, batch.samples.contrast), len(batch.images))
        power += (np.abs(values) ** 2).sum(0)
        contrast += (c**2).sum(0)
        mass += float((values * c)[:, origin].real.sum())
        noise.append(_background(images, batch.images, radius))
    power, contrast = (np.asarray(band.means(jnp.asarray(a / len(index), jnp.float32))) for a in (power, contrast))
    s2 = float(np.mean(np.concatenate(noise)))
    inside = np.arange(len(power)) <= band.limit
    signal = np.maximum((power - s2) / np.maximum(contrast, 1e-3), LEAST * s2)
    signal = np.where(inside, signal, signal[max(band.limit - 2, 0) : band.limit + 1].mean())
    samples = np.bincount(band.shell, band.count, len(power))[: len(power)]
    information = np.cumsum(samples * contrast * signal / s2 * inside)[: band.limit + 1]
    origin_contrast = float(contrast[0])
    known = mass / len(index) / origin_contrast if origin_contrast > 0.25 else 0.0
    return Powers(band, signal, s2, information, known, power, contrast)


def _background(images: ImageBatches, index: NDArray[np.int64], radius: float) -> NDArray[np.float64]:
    """Noise power of each image's transform, whitened and before a CTF is multiplied in, from the pixels outside."""
    n = images.pixels
    k = np.arange(n) - n // 2
    outside = np.hypot(k, k[:, None]) > min(radius * n + 2, 0.49 * n)
    found = np.var(np.asarray(images.images[index], float)[:, outside], axis=1) * n**2
    ctf = images.particles.ctf
    done = np.zeros(len(index), bool) if ctf is None or ctf.applied is None else np.asarray(ctf.applied)[index] == PREMULTIPLIED
    noise = None if images.noise is None else np.asarray(images.noise, float)
    if noise is None and not done.any():
        return found
    own = images.particles[index]
    kx, ky = np.meshgrid(np.fft.fftfreq(n)[:: max(n // 64, 1)], np.fft.fftfreq(n)[:: max(n // 64, 1)])
    shell = np.rint(np.hypot(kx, ky) * n).astype(int)
    group, pixel = np.asarray(own.group), np.asarray(own.pixel_angstrom)[0]
    for i in range(len(index)):
        power = np.asarray(own[i : i + 1].ctf.power(kx / pixel, ky / pixel)) if done[i] else 1.0  # type: ignore[union-attr]
        colour = 1.0 if noise is None else noise[group[i], np.minimum(shell, noise.shape[1] - 1)]
        found[i] /= float(np.mean(power * colour))
    return found
