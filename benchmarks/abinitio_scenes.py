"""Particle stacks of unknown pose with known truth, for `benchmarks.abinitio`: objects, scenes, and the cases of its table.

All stacks are of 64 px at 5.08 A unless a size is named. SNR is the ratio of variances that `tomography.add_noise` takes, that
is ASPIRE's for stacks without CTF. Noise has deviation 1, so that maps "on the images' scale" explain the images as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benchmarks import cryo_scenes
from lfjax import io, rotation
from lfjax.tomography import Particles, add_noise, random_particles, symmetry_group, write_particles

VOXEL_ANGSTROM = 5.0 * 65 / 64  # at 64 px
CAP_DEG = 20.0  # half-angle of the preferred views
BATCH = 500  # images projected at a time
GOOD, NOISE, OTHER = 0, 1, 2  # labels of junk
POSES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"]


class Molecule(NamedTuple):
    """An object.

    Attributes:
        volume: (n, n, n), largest value 1.
        symmetry: point group, in the axes of `tomography.symmetry_group`.
        voxel_angstrom: voxel size.
    """

    volume: NDArray[np.float32]
    symmetry: str
    voxel_angstrom: float

    @property
    def radius_angstrom(self) -> float:
        """Distance from the centre of the farthest voxel above 5 % of the largest value."""
        axis = np.arange(len(self.volume)) - len(self.volume) // 2
        far = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
        return float(far[self.volume > 0.05 * self.volume.max()].max()) * self.voxel_angstrom


def ribosome(size: int = 64) -> Molecule:
    """The 70S ribosome of the shared references."""
    return _molecule(cryo_scenes.ribosome(size))


def small_molecule(size: int = 64) -> Molecule:
    """80 Gaussians without symmetry, of 1.2 to 2.5 voxels of 5 A, that grew from one inside an ellipsoid of 83 to 125 A."""
    rng = np.random.default_rng(1)
    places = [np.zeros(3)]
    while len(places) < 80:
        place = places[rng.integers(len(places))] + 4 * rng.normal(size=3)
        if np.linalg.norm(place * (1, 1.2, 0.8)) < 20:
            places.append(place)
    numbers = np.array([(rng.uniform(1.2, 2.5), rng.uniform(0.5, 1.5)) for _ in places])
    return _molecule(_gaussians(size, np.array(places) - np.mean(places, axis=0), *numbers.T))


def symmetric_molecule(
    size: int = 64,
    *,
    symmetry: str = "D2",
    least: float = 8.0,
    widths_px: tuple[float, float] = (1.5, 2.5),
) -> Molecule:
    """Gaussians at `least` to 24 voxels from the centre (of 64), about 80 or 6 per unit, repeated by a point group."""
    group = symmetry_group(symmetry)
    rng = np.random.default_rng(2)
    count = max(6, 80 // len(group))
    places = rng.normal(size=(count, 3))
    places *= rng.uniform(least, 24, (count, 1)) / np.linalg.norm(places, axis=1, keepdims=True)
    widths, heights = rng.uniform(*widths_px, count), rng.uniform(0.5, 1.5, count)
    all_xyz = (group @ places.T).swapaxes(1, 2).reshape(-1, 3)
    repeated = (np.tile(values, len(group)) for values in (widths, heights))
    return _molecule(_gaussians(size, all_xyz[:, ::-1], *repeated), symmetry)


OBJECTS: dict[str, Callable[[int], Molecule]] = {
    "ribosome": ribosome,
    "molecule": small_molecule,
    "D2": partial(symmetric_molecule, symmetry="D2"),
    "I": partial(symmetric_molecule, symmetry="I", least=16.0, widths_px=(0.8, 1.4)),  # wider ones make a smooth shell
}


def _molecule(volume: NDArray[np.floating], symmetry: str = "C1") -> Molecule:
    return Molecule((volume / volume.max()).astype(np.float32), symmetry, VOXEL_ANGSTROM * 64 / len(volume))


def _gaussians(
    size: int, places_zyx: NDArray[np.float64], widths: NDArray[np.float64], heights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """sum_g h_g exp(-|r - p_g|^2 / 2 w_g^2); places and widths in voxels of a box of 64, from its centre."""
    axis = (np.arange(size) - size // 2) * 64 / size
    z, y, x = (np.exp(-((axis - p[:, None]) ** 2) / (2 * widths[:, None] ** 2)) for p in places_zyx.T)
    return np.einsum("gz,gy,gx->zyx", z * heights[:, None], y, x, optimize=True)


class Made(NamedTuple):
    """A stack and its truth.

    Attributes:
        images: (n, y, x); their noise has deviation 1; without noise the images have.
        particles: true poses, shifts and optics; those of junk are drawn too but mean nothing.
        volume: the object on the images' scale: `particles.projector(size)(volume)` is their signal.
        junk: (n,), `GOOD`, `NOISE` (nothing but noise) or `OTHER` (a projection of another object, with as much signal).
        molecule: the object.
    """

    images: NDArray[np.float32]
    particles: Particles
    volume: NDArray[np.float32]
    junk: NDArray[np.int64]
    molecule: Molecule


@dataclass(frozen=True)
class Scene:
    """A stack to be made.

    Attributes:
        name: name, for rows of figures.
        object: key of `OBJECTS`.
        count: number of images.
        snr: ratio of the variances of signal and noise; None: no noise.
        ctf: whether images have a CTF (300 kV, defocus 0.8 to 2 um).
        shift_px: deviation of the displacements along each axis.
        preferred: share of the views within 20 degrees of one axis of the object; the others are uniform.
        junk: share of junk, half noise, half another object.
        seed: fixes poses, optics, noise and junk; the object is always the same.
        size: pixels per side.
    """

    name: str
    object: str = "ribosome"
    count: int = 500
    snr: float | None = 0.1
    ctf: bool = False
    shift_px: float = 0.0
    preferred: float = 0.0
    junk: float = 0.0
    seed: int = 0
    size: int = 64

    @property
    def symmetry(self) -> str:
        """Point group of the object."""
        return self.object if self.object in ("D2", "I") else "C1"

    def make(self) -> Made:
        """Draw the stack; the same scene gives the same stack."""
        molecule = OBJECTS[self.object](self.size)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(22), self.seed), 4)
        particles = random_particles(
            keys[0],
            self.count,
            pixel_angstrom=molecule.voxel_angstrom,
            defocus_angstrom=(8000.0, 20000.0) if self.ctf else None,
            shift_px=self.shift_px,
        )
        if self.preferred:
            turned = _preferred(keys[1], np.asarray(particles.rotations), self.preferred)
            particles = eqx.tree_at(lambda p: p.rotations, particles, jnp.asarray(turned, float))
        junk = _labels(keys[2], self.count, self.junk)
        clean = _projected(molecule.volume, particles)
        if self.junk:
            stranger = OBJECTS["ribosome" if self.object == "molecule" else "molecule"](self.size).volume
            other = _projected(stranger, particles)
            gain = np.sqrt(_power(clean) / _power(other))
            clean = np.where((junk == OTHER)[:, None, None], gain * other, clean)
        images, scale = clean, clean.std()
        if self.snr is not None:
            images = np.asarray(add_noise(keys[3], clean, self.snr))
            scale = np.std(images - clean)
            images = np.where((junk == NOISE)[:, None, None], images - clean, images)
        return Made(images / scale, particles, molecule.volume / scale, junk, molecule)


def write(scene: Scene, folder: Path, made: Made | None = None) -> tuple[Path, Path]:
    """Write particles.mrcs, particles.star with the true poses, and unposed.star without poses and origins.

    Args:
        scene: the scene.
        folder: where to write; it is made if need be.
        made: its stack, if it has been made already.

    Returns:
        paths of the two STAR files.
    """
    made = scene.make() if made is None else made
    folder.mkdir(parents=True, exist_ok=True)
    posed, unposed = folder / "particles.star", folder / "unposed.star"
    io.write_stack(folder / "particles.mrcs", made.images, made.molecule.voxel_angstrom)
    write_particles(posed, made.particles, [(number, "particles.mrcs") for number in range(scene.count)], scene.size)
    tables = io.read_star(posed)
    io.write_star(unposed, tables | {"particles": tables["particles"].drop(columns=POSES)})
    return posed, unposed


def _preferred(key: jax.Array, uniform: NDArray[np.floating], share: float) -> NDArray[np.floating]:
    """Poses of which a share looks along directions within the cap about an axis of the object, uniformly over the cap."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    count = len(uniform)
    chosen = rng.permutation(count) < round(share * count)
    tilt = np.arccos(rng.uniform(np.cos(np.deg2rad(CAP_DEG)), 1, count))
    about_z = rotation.from_euler(rng.uniform(0, 2 * np.pi, count), tilt, rng.uniform(0, 2 * np.pi, count))
    return np.where(chosen[:, None, None], about_z @ rotation.random_rotations(key, 1)[0], uniform)


def _labels(key: jax.Array, count: int, share: float) -> NDArray[np.int64]:
    bad = round(share * count)
    place = np.asarray(jax.random.permutation(key, count))
    return np.where(place >= bad, GOOD, np.where(place < bad // 2, NOISE, OTHER)).astype(np.int64)


def _projected(volume: NDArray[np.float32], particles: Particles) -> NDArray[np.float32]:
    count = len(particles)
    padded = np.arange(-(-count // BATCH) * BATCH).reshape(-1, BATCH) % count  # one shape, so that one program serves all
    return np.concatenate([np.asarray(_project(volume, particles[part]), np.float32) for part in padded])[:count]


@eqx.filter_jit
def _project(volume: NDArray[np.float32], particles: Particles) -> jax.Array:
    return particles.projector(len(volume))(jnp.asarray(volume))


def _power(images: NDArray[np.float32]) -> np.float32:
    return images.var(axis=(1, 2)).mean()


class Case(NamedTuple):
    """A row of the table: a scene, and what must hold for it.

    Attributes:
        scene: the scene, with seed 0.
        median_deg: bound of the median error.
        ratio: bound of the median error over that of the known map.
        below_10: bound of the share of errors below 10 degrees.
        of_five: seeds out of five for which the bounds hold.
        from_truth: whether a search that begins with the true map is run beside it.
    """

    scene: Scene
    median_deg: float | None = None
    ratio: float | None = None
    below_10: float | None = None
    of_five: int = 5
    from_truth: bool = False


CASES = [
    Case(Scene("N = 500, SNR 0.1"), 1.9, 1.2),
    Case(Scene("N = 500, SNR 1", snr=1.0), 0.8),
    Case(Scene("N = 64, SNR 1", count=64, snr=1.0), 0.9, of_five=4),
    Case(Scene("N = 64, SNR 0.1", count=64), 3.5, of_five=4),
    Case(Scene("N = 25, SNR 1", count=25, snr=1.0), 1.6),
    Case(Scene("N = 100, SNR 0.1", count=100), 2.8),
    Case(Scene("N = 200, SNR 0.1", count=200), 2.2),
    Case(Scene("N = 64, clean", count=64, snr=None), 0.1),
    Case(Scene("N = 500, SNR 0.1, CTF", ctf=True), 1.3),
    Case(Scene("N = 500, SNR 0.1, CTF, shifts of 3 px", ctf=True, shift_px=3.0), 1.7, below_10=0.98),
    Case(Scene("N = 1000, SNR 0.02", count=1000, snr=0.02), 4.5, below_10=0.93),
    Case(Scene("N = 10,000, SNR 0.05, CTF, shifts of 3 px", count=10_000, snr=0.05, ctf=True, shift_px=3.0), ratio=1.5),
    Case(Scene("D2, N = 500, SNR 0.1", object="D2"), ratio=1.2, of_five=4),
    Case(Scene("I, N = 500, SNR 0.1", object="I"), ratio=1.2, of_five=4),
    Case(Scene("preferred views, N = 500, SNR 0.1", preferred=0.8), below_10=0.9),
    Case(Scene("20 % junk, N = 500, SNR 0.1", junk=0.2)),
    Case(Scene("small molecule, N = 500, SNR 0.1", object="molecule"), 1.9, 1.2, from_truth=True),
    Case(Scene("small molecule, N = 500, SNR 0.1, CTF", object="molecule", ctf=True), ratio=1.2),
]
