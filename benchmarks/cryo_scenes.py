"""Particle files as a user has them, with known truth, for `cryo_files`: a stack, a STAR file with its flags, and the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lfjax import io
from lfjax.tomography import Aberrations, Ctf, Particles, random_particles, simulate_stack, write_particles
from lfjax.tomography.ctf import PHASE_FLIPPED, PREMULTIPLIED

SHARED = Path(__file__).resolve().parents[2] / "shared"


class Scene(NamedTuple):
    """A particle file and its truth.

    Attributes:
        star: path of the STAR file.
        truth: the map.
        voxel_angstrom: its voxel size.
        particles: true poses and optics.
    """

    star: Path
    truth: NDArray[np.float32]
    voxel_angstrom: float
    particles: Particles


def ribosome(size: int = 64) -> NDArray[np.float32]:
    """The 70S ribosome of the shared references, 64^3 at 5 A, or 32^3 at 10 A."""
    whole = np.load(SHARED / "reference/cryo/inputs.npz")["ribo64"].astype(np.float32)
    return whole if size == 64 else whole[:: 64 // size, :: 64 // size, :: 64 // size]


def blobs(size: int, voxel_angstrom: float, group: NDArray[np.float64] | None = None, seed: int = 0) -> NDArray[np.float32]:
    """Gaussians of 1.5 to 3 voxels inside a ball, repeated by the rotations of a point group (n, 3, 3)."""
    rng = np.random.default_rng(seed)
    turns = np.eye(3)[None] if group is None else group
    count = max(2, 40 // len(turns))
    places = rng.normal(size=(count, 3))
    places *= (rng.uniform(0.25, 0.6, (count, 1)) * size / 2) / np.linalg.norm(places, axis=1, keepdims=True)
    widths = rng.uniform(1.2, 2.4, count)
    x = np.arange(size) - size // 2
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    volume = np.zeros((size,) * 3)
    for place, width in zip(places, widths, strict=True):
        for turn in turns:
            px, py, pz = turn @ place
            volume += np.exp(-((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / (2 * width**2))
    return volume.astype(np.float32)


def write_scene(
    folder: Path,
    truth: NDArray[np.float32],
    voxel_angstrom: float,
    *,
    count: int,
    snr: float,
    applied: int | None = None,
    aberrations: Aberrations | None = None,
    defocus_angstrom: tuple[float, float] = (8000.0, 20000.0),
    shift_px: float = 1.0,
    offset: float = 0.0,
    seed: int = 0,
    **optics: Any,
) -> Scene:
    """Simulate particles, their images as a camera records them, and the processing that the flags of the file name."""
    folder.mkdir(parents=True, exist_ok=True)
    size = len(truth)
    keys = jax.random.split(jax.random.key(seed), 2)
    raw = random_particles(
        keys[0], count, pixel_angstrom=voxel_angstrom, shift_px=shift_px, defocus_angstrom=defocus_angstrom,
        aberrations=aberrations, **optics,
    )  # fmt: skip
    images = np.concatenate(list(simulate_stack(keys[1], truth, raw, snr=snr)))
    images = images / background(images) + offset
    assert raw.ctf is not None
    if applied is not None:
        images = np.asarray(_processed(raw.ctf, images, voxel_angstrom, applied))
    stored = raw if applied is None else _with_flag(raw, applied)
    io.write_stack(folder / "particles.mrcs", images, voxel_angstrom)
    names = [(number, "particles.mrcs") for number in range(count)]
    write_particles(folder / "particles.star", stored, names, size)
    return Scene(folder / "particles.star", truth, voxel_angstrom, stored)


def background(images: NDArray[np.float32]) -> float:
    """Deviation of the background of a stack, beyond the inscribed disc."""
    n = images.shape[-1]
    x = np.arange(n) - n // 2
    return float(images[:, np.hypot(x, x[:, None]) > n / 2].std())


def _with_flag(particles: Particles, applied: int) -> Particles:
    optics = {name: getattr(particles.ctf, name) for name in Ctf.__dataclass_fields__ if name != "applied"}
    ctf = Ctf(**optics, applied=np.full(len(particles), applied))
    return Particles(
        particles.rotations, shifts=particles.shifts, ctf=ctf, pixel_angstrom=particles.pixel_angstrom, half=particles.half
    )


@jax.jit
def _processed(ctf: Ctf, images: jax.Array, pixel_angstrom: jax.Array, applied: jax.Array) -> jax.Array:
    """Images multiplied by the sign of their real CTF, or by that CTF, as preprocessing programs do."""
    shape = images.shape[1:]

    def one(optics: Ctf, image: jax.Array) -> jax.Array:
        real = Ctf(
            optics.defocus_u_angstrom, optics.defocus_v_angstrom, optics.angle_rad, voltage_kv=optics.voltage_kv,
            cs_mm=optics.cs_mm, amplitude_contrast=optics.amplitude_contrast, phase_shift_rad=optics.phase_shift_rad,
        ).grid(shape, pixel_angstrom)  # fmt: skip
        factor = jnp.where(applied == PHASE_FLIPPED, jnp.sign(real), jnp.where(applied == PREMULTIPLIED, real, 1.0))
        return jnp.fft.irfft2(jnp.fft.rfft2(image) * factor, shape)

    return jax.vmap(one)(ctf, images)
