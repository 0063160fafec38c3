"""From a file of particles at known poses to a map and half-maps in one call: what the command `lfjax backproject` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Int
from numpy.typing import NDArray

from lfjax.errors import FileError, require
from lfjax.pipeline.checked_images import CheckedImages
from lfjax.tomography import ParticleFile, Particles, Reconstruction, reconstruct
from lfjax.tomography.image_batches import Stack
from lfjax.tomography.symmetry import group_key


class ParticleMap(NamedTuple):
    """A map from particles.

    Attributes:
        found: map, half-maps and their correlation.
        particles: poses, optics and half-sets in use.
        voxel_angstrom: voxel size of the map.
        notes: one line for each thing that the file says and that changes the map.
    """

    found: Reconstruction
    particles: Particles
    voxel_angstrom: float
    notes: tuple[str, ...]


def reconstruct_particles(
    file: ParticleFile,
    *,
    symmetry: str = "C1",
    normalised: bool = True,
    invert: bool = False,
    seed: int = 0,
    batch: int | None = None,
    told: Callable[[str], None] | None = None,
    track: Callable[..., Any] | None = None,
) -> ParticleMap:
    """Reconstruct a map and half-maps from particles at known poses.

    Before the work, every stack is opened, half-sets are completed, the backgrounds of up to 500 images are measured, and,
    where there are several optics groups, their noise per shell, by which their images are weighted.

    Args:
        file: particles, see `tomography.read_particles`.
        symmetry: point group of the particle, see `tomography.symmetry_group`.
        normalised: whether the images are taken as they are; False: each is normalised by its background first.
        invert: multiply the images by -1, for dark particles on a bright field.
        seed: fixes the half-sets of images that have none.
        batch: images per batch; None: 128 MiB of them, 512 at most.
        told: called with each note as soon as it is known.
        track: wraps the loop over batches to show its progress, see `lfjax.progress.track`.

    Raises:
        FileError: the file has no poses, fewer than two images or an empty half-set, a stack is missing or too short, or the
            images are not normalised, or one deviates from the others by far.
        ParameterError: the symmetry is unknown, or batch is not positive.

    Warns:
        DataWarning: images of different names have the same pixels, see `CheckedImages.tell_doubled`.
    """
    require(batch is None or batch >= 1, "batch", batch, "1 or more")
    group_key(symmetry)
    if not file.posed:
        raise FileError(f"{file.path}: no poses; expected rlnAngleRot, rlnAngleTilt and rlnAnglePsi, or alignments3D/pose")
    images = CheckedImages(file, normalised=normalised, invert=invert, seed=seed, told=told)
    some = batches(images, images.particles, file.order, batch=batch, track=track)
    found = reconstruct(some, file.size, symmetry=symmetry, noise=images.noise)
    images.tell_doubled()
    return ParticleMap(found, images.particles, file.pixel_angstrom, images.notes)


def batches(
    images: Stack,
    particles: Particles,
    order: Int[NDArray[np.int64], " m"],
    *,
    batch: int | None = None,
    track: Callable[..., Any] | None = None,
    label: str = "back-projecting",
) -> Iterator[tuple[Float[ArrayLike, "b y x"], Particles]]:
    """Images and their particles, some at a time, for `tomography.reconstruct`.

    Args:
        images: the stack.
        particles: poses, optics and half-sets of all images.
        order: indices of the images, in the order in which they are read.
        batch: images per batch; None: 128 MiB of them, 512 at most.
        track: wraps the loop, see `lfjax.progress.track`.
        label: name of the loop.
    """
    size = batch or max(16, min(512, 2**25 // images.shape[-1] ** 2))
    starts = range(0, len(order), size)
    for start in track(starts, label) if track else starts:
        part = order[start : start + size]
        yield images[part], particles[part]
