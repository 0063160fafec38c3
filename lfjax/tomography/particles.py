"""Poses, positions, optics and half-sets of particle images, as arrays; `particle_file` reads and writes their files."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int
from numpy.typing import NDArray

from lfjax.errors import require, require_shape
from lfjax.io.limits import require_memory
from lfjax.linop import floating
from lfjax.rotation.matrices import random_rotations
from lfjax.tomography.aberrations import Aberrations
from lfjax.tomography.ctf import Ctf
from lfjax.tomography.fourier_slice import FourierSlice

BYTES_PER_IMAGE = 256
"""Bytes of pose, optics and half-set of an image, and of what they are drawn from."""


class Particles(eqx.Module):
    """n particle images.

    >>> few = random_particles(jax.random.key(0), 10, pixel_angstrom=3.0)[:4]
    >>> few.projector(16, kernel=4).out_shape
    (4, 16, 16)

    Attributes:
        rotations: R, object to image, see `lfjax.rotation`.
        shifts: displacement (x, y) of the particle from the centre of its image, in pixels: minus RELION's origin offset.
        ctf: optics, with n numbers per attribute; None: no CTF.
        pixel_angstrom: pixel size of each image.
        half: half-set of each image, 1 or 2; 0: no half-set.
        group: number of the optics group of each image, from 0.
    """

    rotations: Float[Array, "n 3 3"]
    shifts: Float[Array, "n 2"]
    ctf: Ctf | None
    pixel_angstrom: Float[Array, " n"]
    half: Int[Array, " n"]
    group: Int[Array, " n"]

    def __init__(
        self,
        rotations: Float[ArrayLike, "n 3 3"],
        *,
        shifts: Float[ArrayLike, "n 2"] | None = None,
        ctf: Ctf | None = None,
        pixel_angstrom: ArrayLike = 1.0,
        half: Int[ArrayLike, " n"] | None = None,
        group: Int[ArrayLike, " n"] | None = None,
    ) -> None:
        """Raises `ShapeError` if the lengths differ; a single number of `ctf` or `pixel_angstrom` counts for all images."""
        rotations = jnp.asarray(rotations, float)
        require_shape("rotations", rotations.shape, ("n", 3, 3))
        n = rotations.shape[0]
        self.rotations = rotations
        self.shifts = jnp.asarray(np.zeros((n, 2)) if shifts is None else shifts, float)
        require_shape("shifts", self.shifts.shape, (n, 2))
        self.ctf = None if ctf is None else ctf.each(n)
        self.pixel_angstrom = jnp.broadcast_to(jnp.asarray(pixel_angstrom, float), (n,))
        self.half = jnp.asarray(np.zeros(n, int) if half is None else half, int)
        require_shape("half", self.half.shape, (n,))
        self.group = jnp.asarray(np.zeros(n, int) if group is None else group, int)
        require_shape("group", self.group.shape, (n,))

    def __len__(self) -> int:
        return self.rotations.shape[0]

    def __getitem__(self, index: slice | Int[ArrayLike, " m"] | Bool[ArrayLike, " n"]) -> Particles:
        """A selection: a slice, a mask or an array of indices."""
        if not isinstance(index, jax.core.Tracer):
            index = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
        return _select(self, index)

    def projector(
        self,
        size: int,
        *,
        kernel: int | str = 5,
        padding: float = 2.0,
        cutoff: float | None = None,
        batch: int | None = None,
    ) -> FourierSlice:
        """The operator from a volume (size, size, size) to these images; `FourierSlice` explains the options."""
        return FourierSlice(
            self.rotations,
            size,
            shifts=self.shifts,
            ctf=self.ctf,
            pixel_angstrom=self.pixel_angstrom,
            kernel=kernel,
            padding=padding,
            cutoff=cutoff,
            batch=batch,
        )

    def with_half_sets(self, key: Array, labels: Int[ArrayLike, " n"] | None = None) -> Particles:
        """The same particles, all in half-sets: those of 0 are drawn at random, see `draw_half_sets`.

        Args:
            key: random key.
            labels: number of the image of each particle; particles of one image come into one half-set. None: each has its own.

        Raises:
            ParameterError: an image is in both half-sets.
        """
        return eqx.tree_at(lambda p: p.half, self, jnp.asarray(draw_half_sets(key, self.half, labels)))


def draw_half_sets(
    key: Array, half: Int[ArrayLike, " n"], labels: Int[ArrayLike, " n"] | None = None
) -> Int[NDArray[np.int64], " n"]:
    """Half-sets with those of 0 drawn at random, such that both sets are as equal as the copies of images allow.

    Copies of one image, as symmetry expansion makes them, share their noise: in two half-sets they would make the half-maps
    agree where there is noise alone. So one draw counts for all copies, and a copy without half-set joins the others.

    Args:
        key: random key.
        half: half-set of each particle, 1 or 2; 0: to be drawn.
        labels: number of the image of each particle; None: each has its own.

    Raises:
        ParameterError: an image is in both half-sets.
        ShapeError: half and labels differ in length.
    """
    sets = np.asarray(half, np.int64)
    own = np.arange(len(sets)) if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1]
    require_shape("labels", own.shape, sets.shape)
    found = np.zeros(own.max(initial=-1) + 1, np.int64)
    np.maximum.at(found, own, sets)
    apart = (sets > 0) & (sets != found[own])
    require(not apart.any(), "half", f"both half-sets for the image of row {np.argmax(apart) + 1}", "one half-set per image")
    sizes, free = np.bincount(own), np.flatnonzero(found == 0)
    wanted = (len(sets) + 1) // 2 - int(sizes[found == 1].sum())
    place = np.asarray(jax.random.permutation(key, len(free)))
    count = np.empty(len(free))
    count[place] = sizes[free]
    found[free] = np.where(np.cumsum(count) - count / 2 < wanted, 1, 2)[place]
    return found[own]


@jax.jit
def _select(particles: Particles, index: Array) -> Particles:
    return jax.tree.map(lambda leaf: leaf[index], particles)


@partial(jax.jit, static_argnums=1)
def _random_halves(key: Array, count: int) -> Array:
    return jax.random.permutation(key, jnp.arange(count) % 2 + 1)


def random_particles(
    key: Array,
    count: int,
    *,
    pixel_angstrom: float,
    defocus_angstrom: tuple[float, float] | None = (8000.0, 20000.0),
    astigmatism_angstrom: float = 200.0,
    shift_px: float = 0.0,
    **optics: ArrayLike | Aberrations | None,
) -> Particles:
    """Random particles: uniform orientations and mean defocus, astigmatism at a random angle, normal shifts, two half-sets.

    >>> tilted = Aberrations(beam_tilt_rad=[1e-3, 0.0])
    >>> some = random_particles(jax.random.key(0), 10, pixel_angstrom=1.0, cs_mm=2.0, aberrations=tilted)
    >>> some.ctf.aberrations.beam_tilt_rad.shape
    (10, 2)

    Args:
        key: random key.
        count: number of images.
        pixel_angstrom: pixel size.
        defocus_angstrom: least and largest mean defocus; None: no CTF.
        astigmatism_angstrom: defocus U minus V.
        shift_px: standard deviation of the displacement along each axis.
        optics: voltage_kv, cs_mm, amplitude_contrast, phase_shift_rad, b_factor_angstrom2, scale, aberrations and applied of
            `Ctf`, one for all images or one per image.

    Raises:
        ParameterError: count or the limits of the defocus are out of range.
    """
    require(count >= 1, "count", count, "1 or more")
    require_memory("count (--n)", count, BYTES_PER_IMAGE * count)
    if defocus_angstrom is not None:
        require(defocus_angstrom[0] <= defocus_angstrom[1], "defocus_angstrom", defocus_angstrom, "(least, largest)")
    return _draw(key, count, pixel_angstrom, defocus_angstrom, astigmatism_angstrom, shift_px, optics)


@partial(jax.jit, static_argnums=1)
def _draw(
    key: Array,
    count: int,
    pixel_angstrom: Array,
    defocus_angstrom: tuple[Array, Array] | None,
    astigmatism_angstrom: Array,
    shift_px: Array,
    optics: dict[str, Array | Aberrations | None],
) -> Particles:
    keys = jax.random.split(key, 5)
    ctf = None
    if defocus_angstrom is not None:
        low, high = defocus_angstrom
        mean = jax.random.uniform(keys[1], (count,), minval=low, maxval=high)
        angle = jax.random.uniform(keys[2], (count,), minval=0.0, maxval=np.pi)
        ctf = Ctf(mean + astigmatism_angstrom / 2, mean - astigmatism_angstrom / 2, angle, **optics)  # type: ignore[arg-type]
    return Particles(
        random_rotations(keys[0], count),
        shifts=shift_px * jax.random.normal(keys[3], (count, 2)),
        ctf=ctf,
        pixel_angstrom=pixel_angstrom,
        half=_random_halves(keys[4], count),
    )


def add_noise(
    key: Array, images: Float[ArrayLike, "n y x"], snr: float, *, within: float | None = None
) -> Float[Array, "n y x"]:
    """Images with white Gaussian noise of variance var(signal) / snr, one variance for the whole stack.

    var(signal) is the mean over all images of the variance of a noise-free image, over the whole box or, as in many papers,
    inside a disc.

    Args:
        key: random key.
        images: images without noise.
        snr: signal-to-noise ratio of variances; 0.1 and less is typical of cryo-EM.
        within: radius of the disc as a fraction of half the box; None: the whole box.

    Raises:
        ParameterError: snr is not positive.
    """
    require(snr > 0, "snr", snr, "more than 0")
    n = jnp.shape(images)[-1]
    x = (np.arange(n) - n // 2) / (n / 2)
    return _add_noise(key, images, snr, np.hypot(x, x[:, None]) <= (np.inf if within is None else within))


@jax.jit
def _add_noise(key: Array, images: Array, snr: Array, inside: Array) -> Array:
    images = floating(images)
    power = jnp.mean(jnp.var(images, axis=(1, 2), where=inside))
    return images + jnp.sqrt(power / snr) * jax.random.normal(key, images.shape, images.dtype)
