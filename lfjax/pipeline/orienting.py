"""From a file of particles and their map to poses in one call: what the command `lfjax orient` runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from lfjax.errors import ParameterError
from lfjax.pipeline.search_settings import COMPILING, SearchSettings, ready_search
from lfjax.tomography import Oriented, ParticleFile, Particles, Pass, orient, resample_map
from lfjax.tomography.maps import TOLERANCE

JUNK = 0.5  # probability of showing the map below which an image counts as junk


class OrientedParticles(NamedTuple):
    """Particles at the poses that a map gives them.

    Attributes:
        particles: the particles with their poses and displacements, all in half-sets.
        found: result of the search, in the box of the search.
        notes: one line for each thing that the file says and that changes the result.
    """

    particles: Particles
    found: Oriented
    notes: tuple[str, ...]

    @property
    def junk(self) -> NDArray[np.bool_]:
        """Images that do not show the map."""
        return self.found.good < JUNK


def orient_particles(
    file: ParticleFile,
    volume: Float[NDArray[np.floating], "z y x"],
    voxel_angstrom: float,
    settings: SearchSettings = SearchSettings(),  # noqa: B008 - frozen
    *,
    told: Callable[[str], None] | None = None,
    passed: Callable[[Pass], Any] | None = None,
    track: Callable[..., Any] | None = None,
) -> OrientedParticles:
    """Find the poses of particles whose map is known.

    A map of other voxels or another box than the images is resampled, and a note says so; its scale does not matter.

    Args:
        file: particles, see `tomography.read_particles`; poses in it are ignored.
        volume: the map, cubic, particles bright.
        voxel_angstrom: its voxel size.
        settings: how to search; the symmetry is that of the map.
        told: called with each note as soon as it is known.
        passed: called with the line of each pass.
        track: wraps loops to show their progress, see `lfjax.progress.track`.

    Raises:
        FileError: the images cannot be used, see `CheckedImages`.
        ParameterError: a setting is out of range, the map is smaller than the ball that holds the particle, or most of the
            signal lies beyond the ball.
        ShapeError: the map is not cubic.
    """
    size, pixel = file.size, file.pixel_angstrom
    radius, side = settings.check(size * pixel), len(volume) * voxel_angstrom
    if side < 2 * radius:
        wanted = f"at least {2 * radius:.4g} A, the ball of the particle; see --radius"
        raise ParameterError(f"the map has a box of {side:.4g} A: expected {wanted}")
    notes: list[str] = []
    if len(volume) != size or abs(voxel_angstrom / pixel - 1) > TOLERANCE:
        both = f"{len(volume)} voxels of {voxel_angstrom:.5g} A brought to the images' {size} of {pixel:.5g} A"
        notes.append(f"map: {both}")
    for note in notes if told else ():
        told(note)  # type: ignore[misc]
    ready = ready_search(file, settings, told=told, track=track)
    low = ready.low
    if told:
        told(COMPILING)
    small = resample_map(volume, voxel_angstrom, low.images.shape[-1], pixel * low.ratio)
    found = orient(
        small, low.images, low.particles, radius_angstrom=ready.radius_angstrom, symmetry=settings.symmetry,
        shift_px=settings.shift_px / low.ratio, key=jax.random.key(settings.seed), noise=low.noise,
        mesh=ready.search.images.mesh, keep=passed,
    )  # fmt: skip
    placed = low.enlarged(found.particles, ready.images.particles)
    return OrientedParticles(placed, found, (*notes, *ready.images.notes))
