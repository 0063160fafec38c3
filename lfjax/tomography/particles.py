"""What is known of each particle image: pose, position, optics, half-set. Arrays only; files are in `lfjax.io`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lfjax.errors import require, require_shape
from lfjax.rotation import random_rotations
from lfjax.tomography.ctf import Ctf
from lfjax.tomography.fourier_slice import FourierSlice


class Particles(eqx.Module):
    """n particle images.

    >>> few = random_particles(jax.random.key(0), 10, pixel_angstrom=3.0)[:4]
    >>> few.projector(16, kernel=4).out_shape
    (4, 16, 16)

    Attributes:
        rotations: R, object to image, see `lfjax.rotation`.
        shifts: displacement (x, y) of the particle from the centre of its image, in pixels. Minus RELION's origin offset.
        ctf: optics, an array of n numbers each; None where images have none.
        pixel_angstrom: of each image.
        half: 1 or 2, the half-set of each; 0 where there is none.
    """

    rotations: Float[Array, "n 3 3"]
    shifts: Float[Array, "n 2"]
    ctf: Ctf | None
    pixel_angstrom: Float[Array, " n"]
    half: Int[Array, " n"]

    def __init__(
        self,
        rotations: Float[Array, "n 3 3"],
        *,
        shifts: Float[Array, "n 2"] | None = None,
        ctf: Ctf | None = None,
        pixel_angstrom: float | Array = 1.0,
        half: Int[Array, " n"] | None = None,
    ) -> None:
        """Raises `ShapeError` if something is not one for each image; single numbers count for all."""
        rotations = jnp.asarray(rotations, float)
        require_shape("rotations", rotations.shape, ("n", 3, 3))
        n = rotations.shape[0]
        self.rotations = rotations
        self.shifts = jnp.zeros((n, 2)) if shifts is None else jnp.asarray(shifts, float)
        require_shape("shifts", self.shifts.shape, (n, 2))
        self.ctf = None if ctf is None else jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n,)), ctf)
        self.pixel_angstrom = jnp.broadcast_to(jnp.asarray(pixel_angstrom, float), (n,))
        self.half = jnp.zeros(n, int) if half is None else jnp.asarray(half, int)
        require_shape("half", self.half.shape, (n,))

    def __len__(self) -> int:
        return self.rotations.shape[0]

    def __getitem__(self, index: Any) -> Particles:
        """A selection: a slice, a mask or an array of indices."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def projector(self, size: int, **options: Any) -> FourierSlice:
        """The operator from a volume (size, size, size) to these images; options as those of `FourierSlice`."""
        given = {"shifts": self.shifts, "ctf": self.ctf, "pixel_angstrom": self.pixel_angstrom}
        return FourierSlice(self.rotations, size, **(given | options))

    def with_half_sets(self, key: Array) -> Particles:
        """Half-sets drawn at random, of equal size up to one."""
        halves = jax.random.permutation(key, jnp.arange(len(self)) % 2 + 1)
        return eqx.tree_at(lambda p: p.half, self, halves.astype(self.half.dtype))


def random_particles(
    key: Array,
    count: int,
    *,
    pixel_angstrom: float,
    defocus_angstrom: tuple[float, float] | None = (8000.0, 20000.0),
    astigmatism_angstrom: float = 200.0,
    shift_px: float = 0.0,
    **optics: float,
) -> Particles:
    """Uniform orientations, uniform mean defocus, astigmatism of one size at a random angle, normal shifts, two half-sets.

    Args:
        key: random key.
        count: images.
        pixel_angstrom: pixel size.
        defocus_angstrom: least and largest mean defocus; None for images without CTF.
        astigmatism_angstrom: defocus U minus V.
        shift_px: standard deviation of the displacement along each axis.
        optics: voltage_kv, cs_mm, amplitude_contrast, phase_shift_rad, b_factor_angstrom2 of `Ctf`.
    """
    require(count >= 1, "count", count, "1 or more")
    keys = jax.random.split(key, 5)
    ctf = None
    if defocus_angstrom is not None:
        low, high = defocus_angstrom
        require(low <= high, "defocus_angstrom", defocus_angstrom, "(least, largest)")
        mean = jax.random.uniform(keys[1], (count,), minval=low, maxval=high)
        angle = jax.random.uniform(keys[2], (count,), minval=0.0, maxval=np.pi)
        ctf = Ctf(mean + astigmatism_angstrom / 2, mean - astigmatism_angstrom / 2, angle, **optics)
    particles = Particles(
        random_rotations(keys[0], count),
        shifts=shift_px * jax.random.normal(keys[3], (count, 2)),
        ctf=ctf,
        pixel_angstrom=pixel_angstrom,
    )
    return particles.with_half_sets(keys[4])


def add_noise(key: Array, images: Float[Array, "n y x"], snr: float, *, within: float | None = None) -> Float[Array, "n y x"]:
    """White Gaussian noise of variance var(signal) / snr, one variance for the whole stack.

    var(signal) is the mean over all images of the variance of a noise-free image, over the whole box or, as many papers count,
    inside a disc.

    Args:
        key: random key.
        images: without noise.
        snr: signal-to-noise ratio of variances; 0.1 and less is typical of cryo-EM.
        within: radius of the disc as a fraction of half the box; None for the whole box.
    """
    require(snr > 0, "snr", snr, "more than 0")
    n = images.shape[-1]
    x = (np.arange(n) - n // 2) / (n / 2)
    inside = np.hypot(x, x[:, None]) <= (np.inf if within is None else within)
    power = jnp.mean(jnp.var(images, axis=(1, 2), where=jnp.asarray(inside)))
    return images + jnp.sqrt(power / snr) * jax.random.normal(key, images.shape, images.dtype)
